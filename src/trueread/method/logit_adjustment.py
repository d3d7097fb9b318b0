"""Logit adjustment: the class prior is taken out of what the network has to learn."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from trueread.method.base import Method, class_counts, method
from trueread.training.hooks import Setup, Step, cross_entropy


@method("logit-adjustment", source="Menon et al. 2021, Long-tail learning via logit adjustment, ICLR, eq. 10")
class LogitAdjustment(Method):
    """Cross-entropy of logits plus the log class prior; minimises the balanced error."""

    replayable = True

    def __init__(self, *, tau: Annotated[float, Field(ge=0, le=10)] = 1.0) -> None:
        """tau: strength of the adjustment; 1 is consistent for the balanced error, 0 is cross-entropy."""
        self.tau = tau
        self.log_prior = torch.empty(0)

    def prepare(self, setup: Setup) -> None:
        counts = class_counts(setup.train_labels(), setup.cohort.n_classes)
        self.log_prior = (counts / counts.sum()).log().to(setup.device)

    def losses(self, step: Step) -> Tensor:
        return cross_entropy(step.logits + self.tau * self.log_prior, step.targets)

    def state(self) -> dict[str, Any]:
        return {"log_prior": self.log_prior}

    def load_state(self, state: dict[str, Any], setup: Setup) -> None:
        self.log_prior = state["log_prior"].to(setup.device)
