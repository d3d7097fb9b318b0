"""Confident learning: networks that never saw a label judge it; what they contradict is left out, then one trains."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field

from trueread.method.base import method
from trueread.method.selecting import LEAST, Selecting, lowest
from trueread.stats.confident import doubt, noise_rate, suspects
from trueread.training.hooks import Setup
from trueread.training.out_of_fold import out_of_fold


@method("confident-learning", source="Northcutt, Jiang and Chuang 2021, JAIR 70, arXiv 1911.00068: prune by noise rate")
class ConfidentLearning(Selecting):
    """Leaves out the samples whose label is contradicted by networks that were trained without their patient."""

    reads_all_labels = True

    def __init__(
        self,
        *,
        folds: Annotated[int, Field(ge=2, le=20)] = 4,
        fold_epochs: Annotated[int | None, Field(ge=1, le=10_000)] = None,
        least: Annotated[int, Field(ge=1)] = LEAST,
    ) -> None:
        """folds: the training patients are left out in so many parts. fold_epochs: of each training before the last
        one; the run's by default. least: samples of a class that are kept in any case.
        """
        self.folds, self.fold_epochs, self.least = folds, fold_epochs, least
        self.rate = float("nan")

    def prepare(self, setup: Setup) -> None:
        super().prepare(setup)
        config = setup.config.model_copy(update={"epochs": self.fold_epochs or setup.config.epochs})
        folder = None if setup.folder is None else setup.folder / "folds"
        found = out_of_fold(
            setup.cohort, setup.train_rows, config, folds=self.folds, seed=setup.seed, fit=setup.fit, folder=folder
        )
        labels = self.labels.numpy()
        self.rate = noise_rate(labels, found.probabilities)
        self.score = torch.from_numpy(doubt(labels, found.probabilities)).float()
        kept = torch.from_numpy(~suspects(labels, found.probabilities))
        guarded = lowest(self.score, 0.0, labels=self.labels, least=self.least)
        self.keep = (kept | guarded).float()

    def report(self) -> dict[str, Any]:
        return super().report() | {"noise": round(self.rate, 4)}

    def state(self) -> dict[str, Any]:
        return super().state() | {"rate": self.rate}

    def load_state(self, state: dict[str, Any], setup: Setup) -> None:
        super().load_state(state, setup)
        self.rate = state["rate"]
