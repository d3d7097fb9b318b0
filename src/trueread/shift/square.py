"""A bright square: a localised shift, in one corner or anywhere."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from trueread.errors import InputError
from trueread.shift.base import Draw, Painted, over_slices, shift


@shift("square", source="patch shortcuts as in DeGrave et al. 2021 and later benchmarks; our reading")
class Square(Painted):
    """A bright square in a corner or at a random place; severity is its opacity."""

    def __init__(
        self, *, severity: Annotated[float, Field(ge=0, le=1)] = 0.5, seed: int = 0,
        side: Annotated[float, Field(gt=0, le=0.5)] = 0.07, place: Literal["corner", "random"] = "corner",
        level: Annotated[float, Field(ge=0, le=1)] = 1.0,
    ) -> None:  # fmt: skip
        """side: share of the image's shorter side. place: the top left corner (one pixel in), or anywhere, by image."""
        super().__init__(severity=severity, seed=seed, level=level)
        self.side, self.place = side, place

    def where(self, images: Tensor, draw: Draw) -> Tensor:
        h, w = images.shape[-2:]
        side = round(self.side * min(h, w))
        if side < 1:
            raise InputError(f"a square of {self.side:.0%} of a {h}x{w} image is smaller than a pixel; raise `side`.")
        top = left = torch.ones(len(images), device=images.device)
        if self.place == "random":
            u = draw.uniform("place", n=2, like=images)
            top, left = (u[:, 0] * (h - side + 1)).floor(), (u[:, 1] * (w - side + 1)).floor()
        y, x = torch.arange(h, device=images.device), torch.arange(w, device=images.device)
        inside_y = (y >= top[:, None]) & (y < top[:, None] + side)
        inside_x = (x >= left[:, None]) & (x < left[:, None] + side)
        return over_slices((inside_y[:, :, None] & inside_x[:, None, :]).to(images.dtype), images)
