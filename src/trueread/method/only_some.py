"""Training on some of the training images alone."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trueread.method.base import Method
from trueread.training.hooks import Setup
from trueread.training.ledger import Ledger


class OnlySome(Method):
    """Draws only the images that `chosen` names, in as many steps as all of them would take. kind: what they are."""

    replayable = True
    kind: ClassVar[str]

    def __init__(self) -> None:
        self.drawn = torch.empty(0)  # float [N]: 1 for the training samples that are drawn, 0 for the others
        self.counts: dict[str, int] = {}

    def chosen(self, setup: Setup) -> NDArray[np.int64]:
        """Rows of the cohort."""
        raise NotImplementedError

    def prepare(self, setup: Setup) -> None:
        rows = self.chosen(setup)
        self.drawn = torch.isin(torch.from_numpy(setup.train_rows), torch.from_numpy(rows)).float()
        self.counts = dict(zip(setup.cohort.classes, setup.cohort.class_counts(rows).tolist(), strict=True))

    def sampling(self, ledger: Ledger) -> Tensor | None:
        return self.drawn

    def report(self) -> dict[str, Any]:
        return {f"{self.kind}_images": int(self.drawn.sum()), f"{self.kind}_images_per_class": self.counts}

    def state(self) -> dict[str, Any]:
        return {"drawn": self.drawn, "counts": self.counts}

    def load_state(self, state: dict[str, Any], setup: Setup) -> None:
        self.drawn, self.counts = state["drawn"], state["counts"]
