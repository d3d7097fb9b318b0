"""DANIL: the network's response for the right class is kept apart from that for the class it confuses it with."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from trueread.errors import InputError
from trueread.method.base import method
from trueread.method.responses import FEATURE, INPUT, Responding, response
from trueread.training.hooks import Setup, Step
from trueread.training.ledger import Ledger

SMALLEST = 1e-8  # added to a response's norm, so that an answer without any doubt has no direction instead of nan


def distractor(logits: Tensor, labels: Tensor) -> Tensor:
    """int64 [B]: the class with the highest of logits float [B,K] beside the given one, int64 [B]."""
    return logits.scatter(1, labels[:, None], -torch.inf).argmax(1)


def direction(responses: Tensor) -> Tensor:
    """Rows of float [B,D] brought to length 1."""
    return responses / (responses.square().sum(1, keepdim=True) + SMALLEST**2).sqrt()


def distance_term(
    form: str, logits: Tensor, at: Tensor, labels: Tensor, *, epsilon: float, relative: bool = False
) -> Tensor:
    """float [B]: the form "A", "B" or "C" of each image of a batch, differentiable in the weights.

    logits: float [B,K], made of `at`, float [B,...]. labels: int64 [B]. With g_c and g_d the gradients of the
    cross-entropy for the label and for its distractor, g_c - g_d is the gradient of f_d - f_c. In "A" and "B" it is
    measured in root mean squares of f_d - f_c over the batch, so that larger logits alone gain nothing. relative: also
    per relative change of `at`, whose norm is taken over the batch in the same way: for maps, which have no unit.
    """
    wrong = distractor(logits.detach(), labels)
    if form == "C":
        right, other = (direction(response(doubt(logits, k), at)) for k in (labels, wrong))
        return torch.exp(-(right - other).square().sum(1))
    gap = (logits.gather(1, wrong[:, None]) - logits.gather(1, labels[:, None]))[:, 0]
    size = gap.square().mean() + SMALLEST
    unit = at.flatten(1).square().sum(1).mean() if relative else 1.0
    squared = response(gap, at).square().sum(1) * unit / size + epsilon
    return 1 / squared if form == "A" else -squared.log()


def doubt(logits: Tensor, labels: Tensor) -> Tensor:
    """float [B]: the log odds against a class. The cross-entropy is softplus of it and has a gradient of the same
    direction, whose digits are lost where the class is certain.
    """
    others = logits.scatter(1, labels[:, None], -torch.inf).logsumexp(1)
    return others - logits.gather(1, labels[:, None])[:, 0]


@method("danil", source="Gong, Ma and Zheng 2020, MICCAI, arXiv 2007.09979; forms, warm-up and bounds as read here")
class Danil(Responding):
    """Cross-entropy, and a term that keeps the responses for the right and the most confusing class apart."""

    def __init__(
        self,
        *,
        form: Literal["auto", "A", "B", "C"] = "auto",
        where: Literal["input", "feature"] = "input",
        weight: Annotated[float, Field(ge=0, le=1000)] = 0.1,
        warmup: Annotated[float, Field(ge=0, le=1)] = 0.1,
        share: Annotated[float, Field(gt=0, le=1)] = 0.25,
        epsilon: Annotated[float, Field(gt=0)] = 1e-3,
    ) -> None:
        """form: of the term, see the page; "C" is bounded and knows directions alone, so that it has nothing to say of
        two classes, whose responses are always opposite: there "auto" is "A". where: what the responses are gradients
        of, the image or the last map, which is cheaper. weight: of the term. warmup: share of the run without it.
        share: of each batch that is asked, for second derivatives take long; of the last map all is. epsilon: the
        constant of "A" and "B".
        """
        self.form, self.where, self.weight, self.warmup = form, where, weight, warmup
        self.share, self.epsilon = share if where == INPUT else 1.0, epsilon
        self.by_epoch: list[float | None] = []
        self.total: Tensor | float = 0.0  # of this epoch's terms
        self.asked = 0  # how many they are

    def prepare(self, setup: Setup) -> None:
        super().prepare(setup)
        self._choose(setup)

    def _choose(self, setup: Setup) -> None:
        two = setup.cohort.n_classes == 2
        if self.form == "C" and two:
            raise InputError(
                "danil's form C asks about directions, and with two classes the responses point opposite ways whatever "
                "the network has learned; use form=A."
            )
        self.term = ("A" if two else "C") if self.form == "auto" else self.form

    def penalty(self, step: Step) -> dict[str, Tensor]:
        if step.done < self.warmup or self.weight == 0:
            return {}
        logits, at = self.responding(step, share=self.share)
        labels, relative = step.labels[: len(logits)], self.where == FEATURE
        term = distance_term(self.term, logits, at, labels, epsilon=self.epsilon, relative=relative).mean()
        self.total, self.asked = self.total + term.detach(), self.asked + 1
        return {"distance": self.weight * term}

    def after_epoch(self, ledger: Ledger) -> None:
        self.by_epoch.append(round(float(self.total) / self.asked, 4) if self.asked else None)
        self.total, self.asked = 0.0, 0

    def report(self) -> dict[str, Any]:
        return {"form": self.term, "term_by_epoch": self.by_epoch, **({"layer": self.layer} if self.layer else {})}

    def state(self) -> dict[str, Any]:
        return {"by_epoch": self.by_epoch, "total": float(self.total), "asked": self.asked}

    def load_state(self, state: dict[str, Any], setup: Setup) -> None:
        super().load_state(state, setup)
        self._choose(setup)
        self.by_epoch, self.total, self.asked = list(state["by_epoch"]), state["total"], state["asked"]
