"""What an audit can be asked about at the least: something with a card that answers images with probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from trueread.cohort.cohort import Cohort
from trueread.errors import InputError
from trueread.model.card import Card, foreign_card

SUM_SLACK = 0.01  # probabilities in half precision, or rounded to two digits, do not quite sum to 1


@runtime_checkable
class Predictor(Protocol):
    """What an audit needs at least: a card, and probabilities for images in [0,1]."""

    card: Card
    has_gradients: bool

    def probabilities(self, images: Tensor) -> Tensor:
        """float [B,C,...] in [0,1] -> calibrated probabilities [B,K]."""
        ...


class ProbabilityFunction:
    """A classifier that is only a function: audits that need probabilities run, those that need gradients say why not.

    function: float32 array [B,C,...] in [0,1] -> probabilities [B,K].
    """

    has_gradients = False

    def __init__(
        self,
        function: Callable[[np.ndarray], np.ndarray],
        *,
        classes: Sequence[str],
        size: Sequence[int],
        channels: int = 3,
        task: str | None = None,
        threshold: float | None = None,
    ) -> None:
        self.function = function
        self.card = foreign_card(
            backbone="function", weights="a function, as given", classes=classes, size=size, channels=channels,
            task=task, threshold=threshold,
        )  # fmt: skip

    def probabilities(self, images: Tensor) -> Tensor:
        """Probabilities [B,K] of images float [B,C,...] in [0,1], checked: shape, range, nan, and the sum over classes
        (not for multilabel).
        """
        answer = self.function(images.detach().float().cpu().numpy())
        return torch.from_numpy(checked(answer, (len(images), len(self.card.classes)), task=self.card.task))


def checked(answer: object, shape: tuple[int, int], *, task: str) -> np.ndarray:
    """What a probability function returned as float32 [B,K]. Raises InputError when it is no probabilities."""
    try:
        p = np.asarray(answer, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the probability function must return {shape} values in [0,1]; found {type(answer).__name__} ({error}); "
            "return a float array."
        ) from None
    if p.shape != shape or not np.isfinite(p).all() or p.min(initial=0) < 0 or p.max(initial=0) > 1 + 1e-4:
        range_found = "" if p.size == 0 else f", {p.min():.3g} to {p.max():.3g}"
        raise InputError(
            f"the probability function must return {shape} values in [0,1]; found shape {p.shape}{range_found}; "
            "return probabilities, not logits."
        )
    sums = p.sum(axis=1, dtype=np.float64)
    if task != "multilabel" and len(p) and np.abs(sums - 1).max() > SUM_SLACK:
        worst = int(np.abs(sums - 1).argmax())
        raise InputError(
            f"the probabilities of an image must sum to 1 over the classes; found {sums[worst]:.4g} (image {worst} of "
            "the batch); apply a softmax, or give task='multilabel' when classes do not exclude each other."
        )
    return p.clip(max=1.0)


def device_of(network: object) -> torch.device:
    """Where its weights are; the CPU of a function."""
    weights = network.parameters() if isinstance(network, nn.Module) else iter(())
    return next((p.device for p in weights), torch.device("cpu"))


def check_fits(predictor: Predictor, cohort: Cohort) -> None:
    """Raise InputError when a model cannot be asked about a cohort, in the words of what differs."""
    card = predictor.card
    facts: dict[str, tuple[Any, Any]] = {
        "task": (card.task, cohort.task),
        "classes": (list(card.classes), list(cohort.classes)),
        "channels": (card.channels, cohort.channels),
        "dimensions": (len(card.size), len(cohort.spatial)),
        "size": (list(card.size), list(cohort.spatial)),
        "white": (card.white, card.white if _same_white(card.white, cohort.white) else cohort.white),
    }
    options = {"size": f" (size={max(card.size)})", "white": f" (white={card.white})"}
    for what, (expected, found) in facts.items():
        if expected != found:
            raise InputError(
                f"the model and {cohort.name} differ in {what}: the model has {expected}, the cohort {found}; "
                f"load the cohort to match{options.get(what, '')}, or take another model."
            )


def _same_white(model: int, cohort: int) -> bool:
    """Whether the same tissue has the same intensity in [0,1] for both: two full ranges do, part of one does not.

    What 8 bits hold was brought to their full range by whoever exported them, so such a model takes any white.
    """
    return model in (cohort, 255) or {model, cohort} == {255, 65535}
