"""A few letters: a localised shift, as of a marker on a radiograph."""

from __future__ import annotations

from functools import cache
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, StringConstraints
from torch import Tensor

from trueread.errors import InputError
from trueread.shift.base import Draw, Painted, over_slices, shift

DRAWN_AT = 64  # pixels of the letters before they are made small


@shift("text", source="Zech et al. 2018, PLOS Medicine 15: markers tell the hospital; the geometry is ours")
class Text(Painted):
    """A short text near the upper right corner, shifted a little by image; severity is its opacity."""

    def __init__(
        self, *, severity: Annotated[float, Field(ge=0, le=1)] = 0.5, seed: int = 0,
        text: Annotated[str, StringConstraints(min_length=1, max_length=12)] = "R",
        height: Annotated[float, Field(gt=0, le=0.5)] = 0.15, jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.05,
        level: Annotated[float, Field(ge=0, le=1)] = 1.0,
    ) -> None:  # fmt: skip
        """text: up to 12 letters. height: of the letters, as a share of the image's shorter side. jitter: how far, as a
        share of it, the place varies downwards and to the left. level: the intensity of the letters."""
        super().__init__(severity=severity, seed=seed, level=level)
        self.text, self.height, self.jitter = text, height, jitter

    def where(self, images: Tensor, draw: Draw) -> Tensor:
        h, w = images.shape[-2:]
        shorter = min(h, w)
        letters = torch.from_numpy(drawn(self.text, round(self.height * shorter)).copy()).to(images)
        room = round(self.jitter * shorter)
        if letters.shape[0] + room + 1 > h or letters.shape[1] + room + 1 > w:
            raise InputError(
                f"'{self.text}' of {letters.shape[0]}x{letters.shape[1]} pixels and {room} of jitter does not fit a "
                f"{h}x{w} image; lower `height` or `jitter`, or shorten `text`."
            )
        by = (draw.uniform("place", n=2, like=images) * (room + 1)).floor().long()
        plane = images.new_zeros(len(images), h, w)
        y = 1 + by[:, 0, None, None] + torch.arange(letters.shape[0], device=images.device)[None, :, None]
        x = w - 1 - letters.shape[1] - by[:, 1, None, None] + torch.arange(letters.shape[1], device=images.device)
        plane[torch.arange(len(images), device=images.device)[:, None, None], y, x] = letters
        return over_slices(plane, images)


@cache
def drawn(text: str, height: int) -> np.ndarray:
    """float32 [height, width] in [0,1]: the letters, cut to what is inked.

    Raises InputError for letters of less than 3 pixels, and for text that shows nothing.
    """
    from PIL import Image, ImageDraw, ImageFont

    if height < 3:
        raise InputError(f"letters of {height} pixels cannot be read; raise `height`.")
    font = ImageFont.load_default(size=DRAWN_AT)
    left, top, right, bottom = font.getbbox(text)
    if right <= left or bottom <= top:
        raise InputError(f"the text {text!r} shows nothing; give letters or digits.")
    canvas = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
    ImageDraw.Draw(canvas).text((1 - left, 1 - top), text, fill=255, font=font)
    inked = canvas.crop(canvas.getbbox() or (0, 0, 1, 1))
    width = max(1, round(inked.width * height / inked.height))
    return np.asarray(inked.resize((width, height), Image.Resampling.BOX), np.float32) / 255
