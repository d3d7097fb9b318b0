"""Noise: a diffuse shift that no reader would notice at low severity and any network can read."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from trueread.shift.base import Draw, Shift, shift


@shift("gaussian-noise", source="Hendrycks and Dietterich 2019, ICLR, as a corruption")
class GaussianNoise(Shift):
    """Additive Gaussian noise over the whole image."""

    def __init__(
        self, *, severity: Annotated[float, Field(ge=0, le=1)] = 0.5, seed: int = 0,
        sigma_at_full: Annotated[float, Field(gt=0, le=1)] = 0.2,
    ) -> None:  # fmt: skip
        """sigma_at_full: standard deviation, in units of the intensity range, at severity 1."""
        super().__init__(severity=severity, seed=seed)
        self.sigma_at_full = sigma_at_full

    def apply(self, images: Tensor, draw: Draw) -> Tensor:
        return images + self.severity * self.sigma_at_full * draw.normal("noise", tuple(images.shape[1:]), like=images)
