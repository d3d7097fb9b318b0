"""Step-E: samples are ranked by loss once per epoch, and a growing share of the highest is left out of the gradient."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from trueread.method.base import method
from trueread.method.selecting import LEAST, Selecting, identified, latest, lowest, softly
from trueread.progress import say
from trueread.stats.confident import wrong_among_surest
from trueread.stats.mixture import two_normals
from trueread.training.evaluate import predict_logits
from trueread.training.hooks import Setup
from trueread.training.ledger import Ledger
from trueread.training.processes import processes

EARLIEST, LATEST = 0.1, 0.7  # shares of the run between which evidence may start the exclusion
STILL = 1.01  # a spread that is below this many times the one before has stopped growing
RISEN = 1.1  # times the smallest one so far, from which it had grown at all
WORSE = 1.05  # times the lowest validation loss so far, from which the network learns labels by heart
MOST = 0.6  # of the samples may be left out, whatever the estimate says


@method("step-e", source="Du 2025, arXiv 2511.17040; start by evidence, guards and the noise estimate are ours")
class StepE(Selecting):
    """Leaves a growing share of the samples with the highest loss out, from when the losses tell them apart."""

    def __init__(
        self,
        *,
        noise: Annotated[float | None, Field(ge=0, lt=1)] = None,
        warmup: Annotated[float | None, Field(ge=0, le=1)] = None,
        ramp: Annotated[float, Field(ge=0, le=1)] = 0.1,
        mode: Literal["hard", "soft"] = "hard",
        softness: Annotated[float, Field(gt=0, le=10)] = 0.25,
        smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.7,
        per_class: bool = False,
        least: Annotated[int, Field(ge=1)] = LEAST,
        most: Annotated[float, Field(ge=0, le=1)] = 0.5,
    ) -> None:
        """noise: share of wrong labels, by default estimated when the exclusion starts: the higher part of a mixture of
        two normal distributions of the scores, but no more than contradict the network where it is surest, among
        validation labels. warmup: share of the run before anything is left out; by default until the spread of the
        losses has stopped to grow, or validation's loss grows. ramp: share of the run over which the left-out share
        grows to `noise`. mode: "hard" weighs 0 or 1, "soft" by the distance to the edge in `softness` standard
        deviations. smoothing: weight of the past epochs in the score. per_class: the same share of every class. least:
        samples of a class that are kept in any case. most: the share of a class that may be left out.
        """
        self.noise, self.warmup, self.ramp, self.mode = noise, warmup, ramp, mode
        self.softness, self.smoothing, self.per_class = softness, smoothing, per_class
        self.least, self.most = least, most

    def prepare(self, setup: Setup) -> None:
        super().prepare(setup)
        self.setup = setup
        self.started: int | None = None  # the epoch after which the exclusion began, from 1
        self.share = 0.0  # that is left out in the end, once it has started
        self.spread: list[float] = []  # of the losses of each epoch
        self.told: list[float | None] = []  # AUROC of the score by epoch, where the truth is known

    def after_epoch(self, ledger: Ledger) -> None:
        self.score = ledger.smoothed_loss(self.smoothing)
        now = latest(ledger)
        self.spread.append(float(now[~now.isnan()].double().std()))
        if self.wrong is not None and self.wrong.any():
            self.told.append(identified(np.zeros(len(self.score), bool), self.score.numpy(), self.wrong)["auroc"])
        done, epochs = ledger.epoch + 1, ledger.epochs
        if self.started is None and self._may_start(ledger):
            self.started, self.share = done, self._share()
            say(f"step-e: from epoch {done + 1} on, up to {self.share:.1%} of the samples are left out.")
        if self.started is not None:
            grown = min(1.0, (done - self.started + 1) / max(1, round(self.ramp * epochs)))
            self.keep = self._weights(1 - self.share * grown)

    def _may_start(self, ledger: Ledger) -> bool:
        """Whether the exclusion starts after the ledger's epoch."""
        done, epochs = ledger.epoch + 1, ledger.epochs
        if self.warmup is not None:
            return done >= max(1, math.ceil(self.warmup * epochs))
        first, last = max(2, math.ceil(EARLIEST * epochs)), max(2, math.floor(LATEST * epochs))
        had_grown = len(self.spread) > 1 and self.spread[-2] >= RISEN * min(self.spread[:-1])
        has_stopped = had_grown and self.spread[-1] < STILL * self.spread[-2]
        worse = ledger.validation[done - 1] > WORSE * ledger.validation[:done].min()  # never, of nan
        return first <= done <= last and (has_stopped or bool(worse))

    def _share(self) -> float:
        """Of samples to leave out in the end. Any skewed scores have a higher part, so validation has to agree."""
        if self.noise is not None:
            return self.noise
        known = self.score[~self.score.isnan()].double().numpy()
        return min(MOST, two_normals(known).share_high, self._contradicted())

    def _contradicted(self) -> float:
        """The share of validation labels that are wrong, told by the images that the network is surest of now; 1
        without any.
        """
        rows, setup = self.setup.val_rows, self.setup
        if len(rows) == 0:
            return 1.0
        p = predict_logits(setup.classifier, setup.store, rows, together=processes()).double().softmax(1)
        return wrong_among_surest(setup.cohort.labels[rows], p.numpy())

    def _weights(self, share: float) -> Tensor:
        hard = self.mode == "hard"
        kept = lowest(  # whatever its score, of soft weights
            self.score, share if hard else 0.0, labels=self.labels, per_class=hard and self.per_class,
            least=self.least, at_least=1 - self.most,
        )  # fmt: skip
        return kept.float() if hard else torch.where(kept, 1.0, softly(self.score, share, softness=self.softness))

    def report(self) -> dict[str, Any]:
        told = super().report() | {"started_after_epoch": self.started}
        told["noise"] = None if self.started is None else round(self.share, 4)
        told["spread_by_epoch"] = [round(value, 3) for value in self.spread]
        return told | ({"auroc_by_epoch": self.told} if self.told else {})

    def state(self) -> dict[str, Any]:
        kept = {"started": self.started, "share": self.share, "spread": self.spread, "told": self.told}
        return super().state() | kept

    def load_state(self, state: dict[str, Any], setup: Setup) -> None:
        super().load_state(state, setup)
        self.setup, self.started, self.share = setup, state["started"], state["share"]
        self.spread, self.told = list(state["spread"]), list(state["told"])
