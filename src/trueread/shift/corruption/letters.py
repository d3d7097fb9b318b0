"""Words of small letters for the corruption `characters`, drawn for a whole batch at once."""

from __future__ import annotations

import math
import string
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LETTERS = len(string.ascii_lowercase)
CAPITAL = 64  # pixels of a capital on the sheet
CAPITAL_AT_ONE = 22  # pixels of a capital of font scale 1 in an image of 224 pixels
STROKE = 6  # pixels that the sheet's strokes are widened by on each side: about a pixel in the image
PIXEL = 18  # pixels of the sheet under one of the image
FEWEST = 16  # the same for the largest letters
ADVANCE, ABOVE, BELOW = 60, 88, 36  # the cell of a letter on the sheet: its width, and its rows from the baseline


def word(
    chosen: Tensor, length: Tensor, size: Tensor, left: Tensor, baseline: Tensor
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """One word per image: how much it inks of each pixel, float [B,r,c] in [0,1], and which rows [B,r] and columns
    [B,c] those are.

    chosen: int64 [B,L] in [0,26), of which the first `length` [B] are written. size: [B], font scale, up to 0.18.
    left, baseline: [B], where the word stands, in pixels.
    """
    sheet = torch.from_numpy(_sheet()).to(left)
    per_pixel = CAPITAL / CAPITAL_AT_ONE / size  # pixels of the sheet for one of the image
    tall, wide = (math.ceil(n / FEWEST) + 1 for n in (ABOVE + BELOW, ADVANCE * chosen.shape[1]))
    top = (baseline - ABOVE / per_pixel).floor()
    rows = top[:, None] + torch.arange(tall, device=left.device)
    columns = left.floor()[:, None] + torch.arange(wide, device=left.device)
    down = ((rows + 0.5 - baseline[:, None]) * per_pixel[:, None] + ABOVE).floor().long()
    across = (columns + 0.5 - left[:, None]) * per_pixel[:, None]
    place = (across / ADVANCE).floor().long()
    written = (place >= 0) & (place < length[:, None])
    letter = chosen.gather(1, place.clamp(0, chosen.shape[1] - 1))
    on_sheet = (down >= 0) & (down < ABOVE + BELOW)
    row, column = down.clamp(0, ABOVE + BELOW - 1)[:, :, None], (across % ADVANCE).long()[:, None]
    return sheet[letter[:, None], row, column] * (on_sheet[:, :, None] & written[:, None]), rows, columns


@cache
def _sheet() -> NDArray[np.float32]:
    """float32 [26, rows, columns] in [0,1]: the letters, each averaged over what a pixel of the image covers."""
    from PIL import Image, ImageDraw, ImageFilter, ImageFont

    font = ImageFont.load_default(size=CAPITAL / 0.7)  # a capital is about 0.7 of the size of a font
    cells = []
    for letter in string.ascii_lowercase:
        cell = Image.new("L", (ADVANCE, ABOVE + BELOW))
        ImageDraw.Draw(cell).text(
            (ADVANCE / 2, ABOVE), letter, fill=255, font=font, anchor="ms", stroke_width=STROKE, stroke_fill=255
        )
        cells.append(np.asarray(cell.filter(ImageFilter.BoxBlur(PIXEL / 2 - 0.5)), np.float32) / 255)
    return np.stack(cells)
