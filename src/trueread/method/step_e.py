"""Step-E: samples are ranked by loss once per epoch, and a growing share of the highest is left out of the gradient."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from trueread.method.base import method
from trueread.method.selecting import LEAST, Selecting, lowest, softly
from trueread.progress import say
from trueread.stats.mixture import Mixture, two_normals
from trueread.training.hooks import Setup
from trueread.training.ledger import Ledger

EARLIEST, LATEST = 0.1, 0.7  # shares of the run between which evidence may start the exclusion
STILL = 0.005  # a separation that grows by less than this over an epoch has stopped
ENOUGH = 0.8  # the separation below which nothing is left out
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
    ) -> None:
        """noise: share of wrong labels, by default estimated by a mixture of two normal distributions of the scores.
        warmup: share of the run before anything is left out; by default until the scores have stopped to separate.
        ramp: share of the run over which the left-out share grows to `noise`. mode: "hard" weighs 0 or 1, "soft" by the
        distance to the edge in `softness` standard deviations. smoothing: weight of the past epochs in the score.
        per_class: the same share of every class. least: samples of a class that are kept in any case.
        """
        self.noise, self.warmup, self.ramp, self.mode = noise, warmup, ramp, mode
        self.softness, self.smoothing, self.per_class, self.least = softness, smoothing, per_class, least

    def prepare(self, setup: Setup) -> None:
        super().prepare(setup)
        self.epochs = setup.config.epochs
        self.started: int | None = None  # the epoch after which the exclusion began, from 1
        self.found: list[dict[str, float]] = []  # by epoch: what the mixture says

    def after_epoch(self, ledger: Ledger) -> None:
        self.score = ledger.smoothed_loss(self.smoothing)
        done = ledger.epoch + 1
        mixture = self._mixture()
        self.found.append({"separation": mixture.separation, "noise": mixture.share_high, "gain": mixture.gain})
        if self.started is None and self._is_time(done):
            self.started = done
            share = f"{self._rate():.1%} of the samples"
            say(f"step-e: from epoch {done + 1} on, up to {share} are left out (separation {mixture.separation:.2f}).")
        if self.started is not None:
            self.keep = self._weights(1 - self._rate() * self._grown(done))

    def _mixture(self) -> Mixture:
        """Of the logarithms of the scores, whose two parts are nearer to normal than those of the loss itself."""
        known = self.score[~self.score.isnan()].double().clamp_min(1e-6).log()
        return two_normals(known.numpy())

    def _is_time(self, done: int) -> bool:
        """Whether the exclusion starts after `done` epochs."""
        if self.warmup is not None:
            return done >= max(1, math.ceil(self.warmup * self.epochs))
        first, last = max(2, math.ceil(EARLIEST * self.epochs)), max(2, math.floor(LATEST * self.epochs))
        if not first <= done <= last or self.found[-1]["separation"] < ENOUGH:
            return False
        grew = self.found[-1]["separation"] - self.found[-2]["separation"]
        return grew < STILL

    def _rate(self) -> float:
        """The share that is left out in the end."""
        return self.noise if self.noise is not None else min(MOST, self.found[-1]["noise"])

    def _grown(self, done: int) -> float:
        """How much of it already, in (0,1]."""
        assert self.started is not None
        steps = max(1, round(self.ramp * self.epochs))
        return min(1.0, (done - self.started + 1) / steps)

    def _weights(self, share: float) -> Tensor:
        kept = lowest(self.score, share, labels=self.labels, per_class=self.per_class, least=self.least)
        if self.mode == "hard":
            return kept.float()
        guarded = lowest(self.score, 0.0, labels=self.labels, least=self.least)
        return torch.where(guarded, 1.0, softly(self.score, share, softness=self.softness))

    def report(self) -> dict[str, Any]:
        told = super().report() | {"started_after_epoch": self.started}
        if self.found:
            told |= {k: round(float(v), 4) for k, v in self.found[-1].items()}
            told["separation_by_epoch"] = [round(float(f["separation"]), 3) for f in self.found]
        return told

    def state(self) -> dict[str, Any]:
        return super().state() | {"started": self.started, "found": self.found}

    def load_state(self, state: dict[str, Any], setup: Setup) -> None:
        super().load_state(state, setup)
        self.epochs, self.started, self.found = setup.config.epochs, state["started"], state["found"]
