"""Clean images only: the control that shows what the few bias-free images are worth without all the others."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from trueread.method.base import Method, method
from trueread.method.clean import PLANTED, clean_rows
from trueread.training.hooks import Setup
from trueread.training.ledger import Ledger


@method("clean-only", source="the 'teacher alone' control of Boland et al. 2025, arXiv 2511.17421; our reading")
class CleanOnly(Method):
    """Trains on the bias-free images alone, in as many steps as on all images."""

    replayable = True

    def __init__(
        self, *, clean: str | list[str] = PLANTED, fraction: Annotated[float | None, Field(gt=0, le=1)] = None
    ) -> None:
        """clean, fraction: which training images are bias-free, and how many of them are used; see `clean_rows`."""
        self.clean, self.fraction = clean, fraction
        self.drawn = torch.empty(0)  # float [N]: 1 for the clean training samples, 0 for the others
        self.counts: dict[str, int] = {}

    def prepare(self, setup: Setup) -> None:
        rows = clean_rows(setup, self.clean, fraction=self.fraction)
        self.drawn = torch.isin(torch.from_numpy(setup.train_rows), torch.from_numpy(rows)).float()
        self.counts = dict(zip(setup.cohort.classes, setup.cohort.class_counts(rows).tolist(), strict=True))

    def sampling(self, ledger: Ledger) -> Tensor | None:
        return self.drawn

    def report(self) -> dict[str, Any]:
        return {"clean_images": int(self.drawn.sum()), "clean_images_per_class": self.counts}

    def state(self) -> dict[str, Any]:
        return {"drawn": self.drawn, "counts": self.counts}

    def load_state(self, state: dict[str, Any], setup: Setup) -> None:
        self.drawn, self.counts = state["drawn"], state["counts"]
