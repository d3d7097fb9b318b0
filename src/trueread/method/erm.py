"""Empirical risk minimisation: the plain baseline every remedy is measured against."""

from __future__ import annotations

from trueread.method.base import Method, method


@method("erm", source="Vapnik 1991, Principles of risk minimization for learning theory, NIPS")
class ERM(Method):
    """Plain cross-entropy, every sample the same: the baseline."""

    replayable = True
