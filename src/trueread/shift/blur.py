"""Less sharp images: a diffuse shift, as of another detector or reconstruction."""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from trueread.shift.base import Draw, Shift, shift

REACH = 3  # standard deviations of the Gaussian that are summed


@shift("blur", source="site-like loss of sharpness; our reading")
class Blur(Shift):
    """A Gaussian blur within each slice; severity is the share of the blurred image in the result."""

    def __init__(
        self, *, severity: Annotated[float, Field(ge=0, le=1)] = 0.5, seed: int = 0,
        sigma: Annotated[float, Field(gt=0, le=0.2)] = 0.03,
    ) -> None:  # fmt: skip
        """sigma: standard deviation, as a share of the image's shorter side."""
        super().__init__(severity=severity, seed=seed)
        self.sigma = sigma

    def apply(self, images: Tensor, draw: Draw) -> Tensor:
        sigma = self.sigma * min(images.shape[-2:])
        reach = max(1, round(REACH * sigma))
        weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-reach, reach + 1)]
        h, w = images.shape[-2:]
        flat = images.reshape(-1, 1, h, w)
        across = F.pad(flat, (reach, reach, 0, 0), mode="replicate")
        blurred = _summed(across, weights, axis=-1)
        blurred = _summed(F.pad(blurred, (0, 0, reach, reach), mode="replicate"), weights, axis=-2)
        return torch.lerp(images, blurred.view_as(images), self.severity)


def _summed(padded: Tensor, weights: list[float], *, axis: int) -> Tensor:
    """The weighted mean of neighbours along an axis. A convolution would do, but rounds otherwise in other batches."""
    n = padded.shape[axis] - len(weights) + 1
    total = torch.zeros_like(padded.narrow(axis, 0, n))
    for k, weight in enumerate(weights):
        total += weight / sum(weights) * padded.narrow(axis, k, n)
    return total
