"""Another gamma: a diffuse shift, as of another device."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from trueread.shift.base import Draw, Shift, shift


@shift("gamma", source="site-like change of the grey curve; our reading")
class Gamma(Shift):
    """Every intensity is raised to a power: middle greys become brighter, or darker."""

    def __init__(
        self, *, severity: Annotated[float, Field(ge=0, le=1)] = 0.5, seed: int = 0,
        gamma_at_full: Annotated[float, Field(gt=0, le=10)] = 0.5,
    ) -> None:  # fmt: skip
        """gamma_at_full: the power at severity 1; below 1 brighter, above 1 darker. In between it grows by factors."""
        super().__init__(severity=severity, seed=seed)
        self.gamma_at_full = gamma_at_full

    def apply(self, images: Tensor, draw: Draw) -> Tensor:
        return images.clamp_min(0) ** (self.gamma_at_full**self.severity)
