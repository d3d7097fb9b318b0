"""A ruler at the edge: a localised shift, as beside lesions that were measured because somebody worried."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from trueread.errors import InputError
from trueread.shift.base import Draw, Painted, over_slices, shift

LONG_EVERY = 5  # ticks


@shift(
    "ruler", source="Narla et al. 2018, J Invest Dermatol 138: rulers beside malignant lesions; the geometry is ours"
)
class Ruler(Painted):
    """Ticks along the lower edge, every fifth one long, shifted by image; severity is their opacity."""

    def __init__(
        self, *, severity: Annotated[float, Field(ge=0, le=1)] = 0.5, seed: int = 0,
        spacing: Annotated[float, Field(gt=0, le=0.5)] = 0.08, length: Annotated[float, Field(gt=0, le=0.5)] = 0.06,
        level: Annotated[float, Field(ge=0, le=1)] = 0.0,
    ) -> None:  # fmt: skip
        """spacing: between ticks, as a share of the width. length: of a short tick, as a share of the height; a long
        one has twice that. level: the intensity of the ticks."""
        super().__init__(severity=severity, seed=seed, level=level)
        self.spacing, self.length = spacing, length

    def where(self, images: Tensor, draw: Draw) -> Tensor:
        h, w = images.shape[-2:]
        step, short = round(self.spacing * w), round(self.length * h)
        if step < 2 or short < 1:
            raise InputError(
                f"a ruler with ticks {self.spacing:.0%} apart and {self.length:.0%} long does not fit a {h}x{w} image: "
                "ticks must be 2 pixels apart and 1 long; raise `spacing` or `length`."
            )
        first = (draw.uniform("phase", like=images) * step * LONG_EVERY).floor()  # [B,1]
        along = torch.arange(w, device=images.device, dtype=images.dtype)[None] + first
        is_tick, is_long = along % step == 0, along % (step * LONG_EVERY) == 0
        height = short * (is_tick.to(images.dtype) + is_long.to(images.dtype))  # [B,W]
        from_below = torch.arange(h, 0, -1, device=images.device, dtype=images.dtype)
        return over_slices((from_below[None, :, None] <= height[:, None]).to(images.dtype), images)
