"""Brighter images: a diffuse shift, as of another exposure or window."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from trueread.shift.base import Draw, Shift, shift


@shift("brightness", source="a public CheXpert benchmark whitens one class by 0.2; our reading")
class Brightness(Shift):
    """Every intensity is moved towards white: x(1 - k) + k."""

    def __init__(
        self, *, severity: Annotated[float, Field(ge=0, le=1)] = 0.5, seed: int = 0,
        k_at_full: Annotated[float, Field(gt=0, le=1)] = 0.2,
    ) -> None:  # fmt: skip
        """k_at_full: the share of the way to white at severity 1."""
        super().__init__(severity=severity, seed=seed)
        self.k_at_full = k_at_full

    def apply(self, images: Tensor, draw: Draw) -> Tensor:
        k = self.severity * self.k_at_full
        return images * (1 - k) + k if k else images.clone()
