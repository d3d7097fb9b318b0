"""Adversarial training: the network learns from images that were changed, within a small ball, to mislead it."""

from __future__ import annotations

from math import prod
from typing import Annotated, Any, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from trueread.errors import InputError
from trueread.method.base import Method, method
from trueread.shift.attack import Ball, grey_levels, pgd, usual_epsilon
from trueread.shift.attack.objectives import Formula, Objective
from trueread.training.evaluate import evaluating
from trueread.training.hooks import Setup, Step


def divergence_from(clean: Tensor) -> Formula:
    """The objective KL(clean || attacked) of logits float [B,K], per image; labels have no part in it."""
    log_p = clean.detach().log_softmax(1)

    def objective(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:  # noqa: ARG001  (an objective)
        return F.kl_div(logits.log_softmax(1), log_p, reduction="none", log_target=True).sum(1)

    return objective


@method("adversarial", source="Madry et al. 2018, ICLR (pgd); Zhang et al. 2019, ICML, eq. 5 (trades)")
class Adversarial(Method):
    """Trains on the worst image that an attack finds around each of the batch."""

    def __init__(
        self,
        *,
        norm: Literal["l2", "linf"] = "l2",
        epsilon: Annotated[float | None, Field(ge=0)] = None,
        steps: Annotated[int, Field(ge=1, le=1000)] = 7,
        step_size: Annotated[float | None, Field(gt=0)] = None,
        loss: Literal["pgd", "trades"] = "pgd",
        beta: Annotated[float, Field(ge=0, le=1000)] = 6.0,
        warmup: Annotated[float, Field(ge=0, le=1)] = 0.0,
    ) -> None:
        """norm, epsilon: of the ball, in intensities of [0,1]; epsilon by default as `usual_epsilon`. steps, step_size:
        of the attack; a quarter of epsilon by default. loss: "pgd" learns from the attacked images alone, "trades" from
        the images as they are and, `beta` times, from how far the attack moves the answer. warmup: share of the
        training over which epsilon grows from 0.
        """
        self.norm, self.epsilon, self.steps, self.step_size = norm, epsilon, steps, step_size
        self.loss, self.beta, self.warmup = loss, beta, warmup
        self.told: dict[str, Any] = {}

    def prepare(self, setup: Setup) -> None:
        if setup.cohort.task == "multilabel":
            raise InputError("adversarial training attacks one class per image; the task is multilabel.")
        shape = (setup.cohort.channels, *setup.cohort.spatial)
        if self.epsilon is None:
            self.epsilon = usual_epsilon(self.norm, prod(shape))
        self.told = {
            "norm": self.norm,
            "epsilon": round(self.epsilon, 5),
            "epsilon_grey_levels": round(grey_levels(self.epsilon, self.norm, shape), 3),
        }

    def perturb(self, step: Step) -> None:
        if self.loss == "pgd":
            step.images = self.attacked(step, "cross-entropy")

    def penalty(self, step: Step) -> dict[str, Tensor]:
        if self.loss == "pgd":
            return {}
        worst = self.attacked(step, divergence_from(step.logits))
        with step.autocast():
            moved = step.classifier(worst, trusted=True).logits
        log_p, log_q = step.logits.log_softmax(1), moved.float().log_softmax(1)
        return {"trades": self.beta * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)}

    def attacked(self, step: Step, objective: Objective | Formula) -> Tensor:
        """The images of a batch, attacked as strongly as it is the turn of this step."""
        assert self.epsilon is not None
        grown = min(1.0, step.done / self.warmup) if self.warmup else 1.0
        size = self.epsilon / 4 if self.step_size is None else self.step_size

        def forward(images: Tensor) -> Tensor:
            with step.autocast():
                return step.classifier(images, trusted=True).logits

        with evaluating(step.classifier):
            return pgd(
                forward, step.images, step.labels, ball=Ball(self.norm, grown * self.epsilon), steps=self.steps,
                step_size=grown * size, objective=objective, draw=step.generator, stop_when_fooled=False, keep="last",
                trusted=True,
            ).images  # fmt: skip

    def report(self) -> dict[str, Any]:
        return self.told

    def state(self) -> dict[str, Any]:
        return {"epsilon": self.epsilon, "told": self.told}

    def load_state(self, state: dict[str, Any], setup: Setup) -> None:
        self.epsilon, self.told = state["epsilon"], state["told"]
