"""Task-specific corruptions that are painted: stain deposits, bubbles, a black corner, characters.

What is painted is drawn on a canvas whose shorter side is 224 pixels, where sizes are defined, and brought to the
image's size by area, so that small things fade in small images as they would in a photograph.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trueread.shift.corruption.colour import grey
from trueread.shift.corruption.letters import LETTERS, word

SIDE = 224  # pixels, where the levels are defined
FRAME = 40  # pixels around the canvas
MARGIN = 10  # pixels around the image that marks and words leave free
MOST_MARKS, WAVES = 5, 4
MOST_BUBBLES, RIM = 25, 2
RING, INSIDE = 130 / 255, 100 / 255  # how white a bubble is
MOST_WORDS, MOST_LETTERS = 6, 10
MARK_NUMBERS = 1 + MOST_MARKS * (2 + 2 * WAVES)  # uniform numbers that a picture of each kind takes
BUBBLE_NUMBERS = 1 + MOST_BUBBLES * 3
CHARACTER_NUMBERS = 1 + MOST_WORDS * (7 + MOST_LETTERS)


def stain_deposit(images: Tensor, most: int, side: int, uniform: Tensor) -> Tensor:
    """Dark blobs on images float [B,C,H,W], 1 to `most` of them.

    side: of a blob, pixels at 224. uniform: [B, MARK_NUMBERS] in [0,1). The package stamps pictures of ink that come
    with it; these blobs are ours: round, with a wavy outline, and cover about as much of their square (0.64).
    """
    count, rest = _count(uniform[:, 0], 1, most), uniform[:, 1:].view(len(images), MOST_MARKS, -1)
    at = torch.arange(-side, side + 1, device=images.device)
    distance, angle = (at[:, None] ** 2 + at**2).sqrt(), torch.atan2(at[:, None].to(images), at.to(images))
    dark = _canvas(images)
    h, w = (n - 2 * FRAME for n in dark.shape[1:])
    for k in range(min(most, MOST_MARKS)):
        middle_y, middle_x = (
            _count(rest[:, k, n], MARGIN + side // 2, size - MARGIN - side // 2) for n, size in ((0, h), (1, w))
        )
        outline = images.new_full((1, 1, 1), 0.9)
        for n in range(WAVES):
            size, phase = rest[:, k, 2 + 2 * n, None, None], rest[:, k, 3 + 2 * n, None, None]
            outline = outline + 0.15 * size / (n + 1) * torch.cos((n + 2) * angle + 2 * torch.pi * phase)
        blob = (distance < side / 2 * outline) & (k < count)[:, None, None]
        place = _place(middle_y[:, None] + at, middle_x[:, None] + at)
        dark[place] = dark[place].maximum(blob.to(dark))
    return images * (1 - _fitted(dark, images))


def bubble(images: Tensor, largest: int, most: int, uniform: Tensor) -> Tensor:
    """Whitish bubbles with a brighter rim on images float [B,C,H,W]: 7 to `most`, of a radius of 3 to `largest`.

    largest: pixels at 224. uniform: [B, BUBBLE_NUMBERS] in [0,1). Where two overlap, the later one is seen alone.
    """
    count, rest = _count(uniform[:, 0], 7, most), uniform[:, 1:].view(len(images), MOST_BUBBLES, 3)
    at = torch.arange(-largest - RIM, largest + RIM + 1, device=images.device)
    distance = (at[:, None] ** 2 + at**2).sqrt()
    white = _canvas(images)
    h, w = (n - 2 * FRAME for n in white.shape[1:])
    for k in range(min(most, MOST_BUBBLES)):
        radius = _count(rest[:, k, 0], 3, largest)
        middle_y, middle_x = ((radius + (size - 2 * radius) * rest[:, k, n]).floor() for n, size in ((1, h), (2, w)))
        there = (distance <= (radius + RIM)[:, None, None]) & (k < count)[:, None, None]
        paint = torch.where(distance <= radius[:, None, None], INSIDE, RING).to(white)
        place = _place(middle_y[:, None] + at, middle_x[:, None] + at)
        white[place] = torch.where(there, paint, white[place])
    return torch.lerp(images, torch.ones_like(images), _fitted(white, images))


def black_corner(images: Tensor, field: float) -> Tensor:
    """Images float [B,C,H,W], black outside a circle, as through a dermatoscope. field: its radius over half a side."""
    h, w = (n - 2 * FRAME for n in _canvas(images[:1]).shape[1:])
    radius = int(field * (min(h, w) // 2))
    y, x = (torch.arange(-FRAME, n + FRAME, device=images.device) - n // 2 for n in (h, w))
    seen = (y[:, None] ** 2 + x**2 <= radius**2).to(images)
    return images * _fitted(seen[None], images)


def characters(images: Tensor, words: int, letters: int, font_scale: float, uniform: Tensor) -> Tensor:
    """Random words on images float [B,C,H,W]: 1 to `words`, of 3 to `letters` letters, each in a colour of its own.

    font_scale: the largest, at 224; the smallest is 0.14. Capitals are 22 pixels high at 1 and strokes a pixel wide,
    as with OpenCV's Hershey duplex in the package; the font is PIL's. uniform: [B, CHARACTER_NUMBERS] in [0,1).
    """
    count, rest = _count(uniform[:, 0], 1, words), uniform[:, 1:].view(len(images), MOST_WORDS, -1)
    h, w = (n - 2 * FRAME for n in _canvas(images[:1]).shape[1:])
    for k in range(min(words, MOST_WORDS)):
        u = rest[:, k]
        length, size = _count(u[:, 0], 3, letters), _count(u[:, 1], 14, round(100 * font_scale)) / 100
        left = MARGIN + (w - 8 * length - MARGIN) * u[:, 2]
        baseline = MARGIN + (h - 2 * MARGIN) * u[:, 3]
        ink, rows, columns = word((u[:, 7:] * LETTERS).long(), length, size, left, baseline)
        plane = _canvas(images)
        plane[_place(rows, columns)] = ink * (k < count)[:, None, None]
        colour = u[:, 4:7, None, None] if images.shape[1] == 3 else grey(u[:, 4:7, None, None])
        images = torch.lerp(images, colour.expand_as(images), _fitted(plane, images))
    return images


def _count(uniform: Tensor, low: int, high: int) -> Tensor:
    """Whole numbers from low to high, both among them, as floats."""
    return low + (uniform * (high - low + 1)).floor()


def _canvas(images: Tensor) -> Tensor:
    """zeros [B,h,w] in the image's proportions, shorter side 224 pixels, in a frame for what hangs over the border."""
    h, w = images.shape[-2:]
    sides = (round(n * SIDE / min(h, w)) + 2 * FRAME for n in (h, w))
    return images.new_zeros(len(images), *sides)


def _place(rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where each image's patch of rows [B,r] and columns [B,c], counted without the frame, is on the canvas."""
    image = torch.arange(len(rows), device=rows.device)[:, None, None]
    return image, rows.long()[:, :, None] + FRAME, columns.long()[:, None] + FRAME


def _fitted(plane: Tensor, images: Tensor) -> Tensor:
    """A canvas [B,h,w] without its frame, at the size of the images: [B,1,H,W]."""
    plain = plane[:, None, FRAME:-FRAME, FRAME:-FRAME]
    return F.interpolate(plain, size=images.shape[-2:], mode="area")
