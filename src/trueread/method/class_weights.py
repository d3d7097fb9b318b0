"""Class weights: a rare class counts as much as a common one."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from trueread.errors import InputError
from trueread.method.base import Method, class_counts, method
from trueread.training.hooks import Setup, Step


def inverse_frequency(counts: Tensor, *, power: float = 1.0) -> Tensor:
    """Weight per class (N / (K n_c)) ** power, float [K] from counts [K]; a class without samples weighs nothing.

    With power 1 the weights of all samples sum to N. power in [0,1]; 0 is no weighting.
    """
    present = counts > 0
    weights = counts.sum() / (present.sum() * counts.clamp_min(1))
    return torch.where(present, weights**power, 0.0)


def positive_weight(labels: Tensor) -> Tensor:
    """Negatives per positive of each label, float [K] from float [N,K] with nan = unknown; 1 for a label without
    positives.
    """
    positives = labels.nansum(0)
    known = (~labels.isnan()).sum(0)
    return torch.where(positives > 0, (known - positives) / positives.clamp_min(1), 1.0)


@method("class-weights", source="King and Zeng 2001, Logistic regression in rare events data, Political Analysis 9")
class ClassWeights(Method):
    """Loss weighted by inverse class frequency."""

    replayable = True

    def __init__(self, *, power: Annotated[float, Field(ge=0, le=1)] = 1.0, weights: list[float] | None = None) -> None:
        """power: 1 balances fully, 0.5 by the square root. weights: one per class instead of the computed ones."""
        self.power, self.given = power, weights
        self.per_class = torch.empty(0)
        self.classes: tuple[str, ...] = ()

    def prepare(self, setup: Setup) -> None:
        labels, n_classes = setup.train_labels(), setup.cohort.n_classes
        self.classes = setup.cohort.classes
        if self.given is not None:
            if len(self.given) != n_classes or min(self.given) < 0:
                raise InputError(f"class-weights: give {n_classes} weights of 0 or more; found {self.given}.")
            self.per_class = torch.tensor(self.given)
        elif labels.ndim == 2:
            self.per_class = positive_weight(labels) ** self.power
        else:
            self.per_class = inverse_frequency(class_counts(labels, n_classes), power=self.power)
        self.per_class = self.per_class.to(setup.device)

    def weights(self, step: Step) -> Tensor:
        if not step.multilabel:
            return self.per_class[step.labels]
        # a sample of a multilabel task weighs as its rarest positive label, or 1 when it has none
        positive = step.labels.nan_to_num(0) > 0
        return torch.where(positive, self.per_class, 0.0).amax(1).where(positive.any(1), 1.0)

    def report(self) -> dict[str, Any]:
        return {"weights": {c: round(float(w), 4) for c, w in zip(self.classes, self.per_class, strict=True)}}

    def state(self) -> dict[str, Any]:
        return {"per_class": self.per_class, "classes": list(self.classes)}

    def load_state(self, state: dict[str, Any], setup: Setup) -> None:
        self.per_class, self.classes = state["per_class"].to(setup.device), tuple(state["classes"])
