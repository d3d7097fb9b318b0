"""True labels: the oracle of label noise, which learns from the labels before any was made wrong."""

from __future__ import annotations

from typing import Any

import torch

from trueread.errors import InputError
from trueread.method.base import Method, method
from trueread.training.hooks import Setup


@method("true-labels", source="the clean-label oracle of Du 2025, arXiv 2511.17040")
class TrueLabels(Method):
    """Plain training with the labels that are known to be true: the ceiling of what cleaning can reach."""

    def __init__(self) -> None:
        self.mended = 0

    def prepare(self, setup: Setup) -> None:
        if setup.cohort.task == "multilabel":
            raise InputError(f"'{self.name}' takes one label per image; the task is multilabel.")
        truth = setup.cohort.truth
        if truth is None or "true_label" not in truth:
            raise InputError(
                f"{setup.cohort.name} does not know its true labels; this ceiling is for labels that were made wrong "
                "on purpose, or that somebody has checked."
            )
        labels = torch.from_numpy(truth["true_label"].to_numpy("int64", copy=True)[setup.train_rows])
        self.mended = int((labels != setup.ledger.labels).sum())
        setup.ledger.labels = labels

    def report(self) -> dict[str, Any]:
        return {"mended": self.mended}

    def load_state(self, state: dict[str, Any], setup: Setup) -> None:
        self.prepare(setup)
