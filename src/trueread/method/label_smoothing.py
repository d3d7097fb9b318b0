"""Label smoothing: no label is believed entirely."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from trueread.method.base import Method, method
from trueread.training.hooks import Step


def smooth(targets: Tensor, *, smoothing: float, multilabel: bool = False) -> Tensor:
    """Targets [B,K] moved towards uniform: (1 - s) t + s / K; for multilabel towards 1/2, nan stays nan."""
    uniform = 0.5 if multilabel else 1 / targets.shape[1]
    return (1 - smoothing) * targets + smoothing * uniform


@method("label-smoothing", source="Szegedy et al. 2016, Rethinking the Inception architecture, CVPR, section 7")
class LabelSmoothing(Method):
    """Targets moved towards uniform, so that no label is believed entirely."""

    replayable = True

    def __init__(self, *, smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1) -> None:
        """smoothing: share of the target that is spread over all classes."""
        self.smoothing = smoothing

    def perturb(self, step: Step) -> None:
        step.targets = smooth(step.targets, smoothing=self.smoothing, multilabel=step.multilabel)
