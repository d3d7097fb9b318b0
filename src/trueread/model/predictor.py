"""What an audit can be asked about at the least: something with a card that answers images with probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from trueread.errors import InputError
from trueread.model.card import Card, foreign_card


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
        """Probabilities [B,K] of images float [B,C,...] in [0,1], checked: shape, range, nan."""
        answer = np.asarray(self.function(images.detach().float().cpu().numpy()), dtype=np.float32)
        expected = (len(images), len(self.card.classes))
        if answer.shape != expected or not np.isfinite(answer).all() or answer.min() < 0 or answer.max() > 1 + 1e-4:
            raise InputError(
                f"the probability function must return {expected} values in [0,1]; found shape {answer.shape}"
                f"{'' if answer.size == 0 else f', {answer.min():.3g} to {answer.max():.3g}'}."
            )
        return torch.from_numpy(answer)
