"""AUM: samples whose margin stays as low as that of samples with a label nobody has are left out, then one trains."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from trueread.method.base import method
from trueread.method.selecting import LEAST, Selecting, lowest
from trueread.training.checkpoint import drop_checkpoint
from trueread.training.hooks import Setup
from trueread.training.out_of_fold import Margins
from trueread.training.processes import processes
from trueread.training.steps import mix

STRANGE = "threshold samples"  # the class that no image has
ROUNDS = 2  # so that the strange samples of one are judged in the other


@method("aum", source="Pleiss et al. 2020, Area under the margin, NeurIPS, arXiv 2001.10528, algorithm 1")
class AUM(Selecting):
    """Leaves out samples whose margin stays as low as that of samples that were given a label nobody has."""

    reads_all_labels = True

    def __init__(
        self,
        *,
        identification_epochs: Annotated[int | None, Field(ge=1, le=10_000)] = None,
        percentile: Annotated[float, Field(ge=50, le=100)] = 99.0,
        least: Annotated[int, Field(ge=1)] = LEAST,
    ) -> None:
        """identification_epochs: of each of the two trainings before the last one; half of the run's by default.
        percentile: of the threshold samples' areas, at which a sample is taken for wrong. least: samples of a class
        that are kept in any case.
        """
        self.identification_epochs, self.percentile, self.least = identification_epochs, percentile, least

    def prepare(self, setup: Setup) -> None:
        super().prepare(setup)
        n, k = len(setup.train_rows), len(self.classes)
        order = np.random.default_rng(mix(setup.seed, STRANGE)).permutation(n)
        size = max(1, n // (k + 1))
        area, wrong = np.full((ROUNDS, n), np.nan), np.zeros(n, bool)
        for number in range(ROUNDS):
            strange = order[number * size : (number + 1) * size]
            found = self._areas(setup, strange, number)
            judged = np.setdiff1d(np.arange(n), strange)
            area[number, judged] = found[judged]
            wrong[judged] |= found[judged] <= np.percentile(found[strange], self.percentile)
        if setup.folder is not None and processes().leads:  # only now, so that no finished training is done twice
            for number in range(ROUNDS):
                drop_checkpoint(setup.folder / f"identification-{number + 1}" / "checkpoints")
        self.score = -torch.from_numpy(np.nanmean(area, axis=0)).float()
        guarded = lowest(self.score, 0.0, labels=self.labels, least=self.least)
        self.keep = (torch.from_numpy(~wrong) | guarded).float()

    def _areas(self, setup: Setup, strange: NDArray[np.int64], number: int) -> NDArray[np.float64]:
        """float [N]: the area under the margin of each training sample, those at `strange` having the new label."""
        cohort, labels = setup.cohort, setup.cohort.labels.copy()
        labels[setup.train_rows[strange]] = cohort.n_classes
        widened = replace(cohort, labels=labels, classes=(*cohort.classes, STRANGE), task="multiclass")
        epochs = self.identification_epochs or max(1, setup.config.epochs // 2)
        config = setup.config.model_copy(update={"epochs": epochs, "select": "last", "patience": None})
        folder = None if setup.folder is None else setup.folder / f"identification-{number + 1}"
        margins, seed = Margins(), mix(setup.seed, STRANGE, number)
        setup.fit(widened, margins, config, seed=seed, folder=folder, quiet=True)
        return margins.margin.double().numpy()

    def report(self) -> dict[str, Any]:
        return super().report() | {"percentile": self.percentile}
