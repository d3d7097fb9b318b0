"""One-shot filtering: after a warm-up the samples with the highest loss are left out, once and for good."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from trueread.method.base import method
from trueread.method.selecting import LEAST, Selecting, lowest
from trueread.training.ledger import Ledger


@method("one-shot", source="the one-shot filtering baseline of Du 2025, arXiv 2511.17040; our reading")
class OneShot(Selecting):
    """Leaves the share of samples with the highest loss out, from the end of the warm-up on."""

    def __init__(
        self,
        *,
        noise: Annotated[float, Field(ge=0, lt=1)] = 0.2,
        warmup: Annotated[float, Field(gt=0, le=1)] = 0.1,
        smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.7,
    ) -> None:
        """noise: the share that is left out. warmup: share of the run before that. smoothing: weight of the past."""
        self.noise, self.warmup, self.smoothing = noise, warmup, smoothing

    def after_epoch(self, ledger: Ledger) -> None:
        if ledger.epoch + 1 == max(1, math.ceil(self.warmup * ledger.epochs)):
            self.score = ledger.smoothed_loss(self.smoothing)
            self.keep = lowest(self.score, 1 - self.noise, labels=self.labels, least=LEAST).float()
