"""Few labels: what a method is worth where only some of the training images have been labelled."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from trueread.method.base import Method, method
from trueread.method.clean import some_of_each_class
from trueread.training.hooks import Setup
from trueread.training.ledger import Ledger


@method("few-labels", source="the protocol of Zhai et al. 2019, S4L, ICCV: 1 and 10 % of the labels")
class FewLabels(Method):
    """Trains on the labels of some patients alone, in as many steps as on all; a pretraining still sees all images."""

    replayable = True

    def __init__(self, *, share: Annotated[float, Field(gt=0, le=1)] = 0.1) -> None:
        """share: of each class's training patients, drawn by the run's seed; at least one of each class."""
        self.share = share
        self.drawn = torch.empty(0)  # float [N]: 1 for the labelled training samples, 0 for the others
        self.counts: dict[str, int] = {}

    def prepare(self, setup: Setup) -> None:
        rows = some_of_each_class(setup.cohort, setup.train_rows, self.share, of=setup.train_rows, seed=setup.seed)
        self.drawn = torch.isin(torch.from_numpy(setup.train_rows), torch.from_numpy(rows)).float()
        self.counts = dict(zip(setup.cohort.classes, setup.cohort.class_counts(rows).tolist(), strict=True))

    def sampling(self, ledger: Ledger) -> Tensor | None:
        return self.drawn

    def report(self) -> dict[str, Any]:
        return {"labelled_images": int(self.drawn.sum()), "labelled_images_per_class": self.counts}

    def state(self) -> dict[str, Any]:
        return {"drawn": self.drawn, "counts": self.counts}

    def load_state(self, state: dict[str, Any], setup: Setup) -> None:
        self.drawn, self.counts = state["drawn"], state["counts"]
