"""Balanced softmax: the class frequencies of training are part of the softmax, and are left out when it is asked."""

from __future__ import annotations

from trueread.method.base import method
from trueread.method.logit_adjustment import LogitAdjustment


@method("balanced-softmax", source="Ren et al. 2020, Balanced meta-softmax, NeurIPS, arXiv 2007.10740, eq. 3")
class BalancedSoftmax(LogitAdjustment):
    """Cross-entropy of a softmax that counts classes as often as training has them; logit-adjustment with tau 1."""

    def __init__(self) -> None:
        """No options."""
        super().__init__()
