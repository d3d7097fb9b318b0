"""Dark corners: a localised shift, as of a dermatoscope or a collimator."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from trueread.shift.base import Draw, Painted, over_slices, shift

DIAGONAL = 2**0.5  # from the centre to a corner, in half sides


@shift("vignette", source="dermatoscopic vignettes, as in studies of ISIC artefacts; our reading")
class Vignette(Painted):
    """The corners fade into black; severity is how dark they become."""

    def __init__(
        self, *, severity: Annotated[float, Field(ge=0, le=1)] = 0.5, seed: int = 0,
        clear: Annotated[float, Field(ge=0, lt=1.4)] = 0.9, level: Annotated[float, Field(ge=0, le=1)] = 0.0,
    ) -> None:  # fmt: skip
        """clear: radius in half sides up to which nothing changes; from there to the corners the paint thickens evenly.
        level: the intensity of the corners."""
        super().__init__(severity=severity, seed=seed, level=level)
        self.clear = clear

    def where(self, images: Tensor, draw: Draw) -> Tensor:
        h, w = images.shape[-2:]
        y, x = ((torch.arange(n, device=images.device, dtype=images.dtype) + 0.5) * 2 / n - 1 for n in (h, w))
        radius = (y[:, None] ** 2 + x[None] ** 2).sqrt()
        plane = ((radius - self.clear) / (DIAGONAL - self.clear)).clamp(0, 1)
        return over_slices(plane[None].expand(len(images), -1, -1), images)
