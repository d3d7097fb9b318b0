"""Balanced sampling: every class is drawn equally often."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from trueread.method.base import Method, class_counts, method
from trueread.method.class_weights import inverse_frequency
from trueread.training.hooks import Setup
from trueread.training.ledger import Ledger


@method("balanced-sampling", source="Kang et al. 2020, Decoupling representation and classifier, ICLR, section 3")
class BalancedSampling(Method):
    """Samples drawn with replacement so that classes are equally frequent."""

    replayable = True

    def __init__(self, *, power: Annotated[float, Field(ge=0, le=1)] = 1.0) -> None:
        """power: 1 draws classes equally often, 0.5 by the square root of their frequency, 0 as they are."""
        self.power = power
        self.probabilities: Tensor | None = None
        self.shares: dict[str, float] = {}

    def prepare(self, setup: Setup) -> None:
        counts = class_counts(setup.train_labels(), setup.cohort.n_classes)
        per_class = inverse_frequency(counts, power=self.power)
        self.probabilities = per_class[setup.train_labels()]
        drawn = counts * per_class
        self.shares = {c: round(float(s), 4) for c, s in zip(setup.cohort.classes, drawn / drawn.sum(), strict=True)}

    def sampling(self, ledger: Ledger) -> Tensor | None:
        return self.probabilities

    def report(self) -> dict[str, Any]:
        return {"share_drawn": self.shares}

    def state(self) -> dict[str, Any]:
        return {"probabilities": self.probabilities, "shares": self.shares}

    def load_state(self, state: dict[str, Any], setup: Setup) -> None:
        self.probabilities, self.shares = state["probabilities"], state["shares"]
