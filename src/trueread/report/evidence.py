"""Pictures of an image and of the evidence in it: grey as stored, evidence on one scale, no colour without it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

if TYPE_CHECKING:
    from trueread.audit.boxes import Box
    from trueread.audit.strip import Strip

LEVELS = 64  # steps of the colour scale; a palette this short keeps an overlay at a few kilobytes
DISPLAY_SIDE = 208  # longer side of a picture, in pixels
GAP = 6  # pixels between the pictures of a strip
STRONGEST_ALPHA = 0.72  # so that the anatomy is seen through the strongest evidence
OUTLINE = ((0, 0, 0, 0), (70, 230, 255, 255), (0, 0, 0, 150))  # nothing, the line, and its dark rim for bright images


@cache
def evidence_palette() -> tuple[tuple[int, int, int, int], ...]:
    """LEVELS colours (r, g, b, a) in 0..255: level 0 is fully transparent; lightness and opacity grow with the level.

    The colours are the upper part of inferno, which is perceptually uniform and told apart by colour-blind readers.
    """
    share = np.linspace(0, 1, LEVELS)
    colours = np.round(matplotlib.colormaps["inferno"](0.3 + 0.65 * share)[:, :3] * 255).astype(int)
    alpha = np.round(255 * STRONGEST_ALPHA * share**0.8).astype(int)
    return tuple((int(r), int(g), int(b), int(a)) for (r, g, b), a in zip(colours, alpha, strict=True))


def evidence_levels(evidence: NDArray, *, full_colour: float) -> NDArray[np.uint8]:
    """Level 0..LEVELS-1 of each pixel.

    evidence: float [H,W] in logit units. full_colour: the evidence at the top level, in the same units.
    The scale is absolute: a map without evidence is level 0 everywhere, whatever its own largest value.
    """
    if not full_colour > 0:
        return np.zeros(evidence.shape, np.uint8)
    share = np.clip(np.nan_to_num(evidence) / full_colour, 0, 1)
    return np.round(share * (LEVELS - 1)).astype(np.uint8)


def mask_outline(mask: NDArray) -> NDArray[np.uint8]:
    """The border of a mask [H,W] (non-zero inside): 1 on its inner edge, 2 on a rim outside, 0 elsewhere."""
    inside = mask > 0
    edge = inside & ~ndimage.binary_erosion(inside, border_value=1)
    rim = ndimage.binary_dilation(inside) & ~inside
    return (edge + 2 * rim).astype(np.uint8)


def display_size(height: int, width: int, *, side: int = DISPLAY_SIDE) -> tuple[int, int]:
    """(height, width) in which an image is shown: its longer side is `side`."""
    scale = side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def write_image(image: NDArray, path: Path, *, white: float) -> None:
    """An image [C,H,W] of stored intensities (white shown white) as an 8-bit PNG, smoothly resized to display size."""
    _picture(image, white=white).save(path, optimize=True)


def overlay(
    image: NDArray, evidence: NDArray, *, white: float, full_colour: float, boxes: Sequence[Box] = (),
    side: int = DISPLAY_SIDE,
) -> Image.Image:  # fmt: skip
    """An image [C,H,W] with its evidence map [H,W] and boxes laid over it; see `evidence_levels` for the scale."""
    picture = _overlaid(image, evidence, white=white, full_colour=full_colour, side=side)
    scale = side / max(image.shape[1:])
    draw = ImageDraw.Draw(picture)
    for box in boxes:
        at = [round(v * scale) for v in (box.left, box.top, box.right, box.bottom)]
        draw.rectangle((at[0], at[1], at[2] - 1, at[3] - 1), outline=OUTLINE[1][:3])
    return picture


def write_strip(strip: Strip, path: Path) -> None:
    """All panels of a strip, whose images have one size, as one PNG without words."""
    full_colour = strip.full_colour or 0.0
    sheet: Image.Image | None = None
    for r, row in enumerate(strip.rows):
        for c, panel in enumerate(row):
            nothing = np.zeros(panel.image.shape[1:])
            evidence = nothing if panel.evidence is None else panel.evidence
            cell = _overlaid(panel.image, evidence, white=strip.white, full_colour=full_colour)
            width, height = cell.width + GAP, cell.height + GAP
            if sheet is None:
                size = (width * len(row) - GAP, height * len(strip.rows) - GAP)
                sheet = Image.new("RGB", size, "white")
            sheet.paste(cell, (c * width, r * height))
    assert sheet is not None  # a strip has rows
    sheet.save(path, optimize=True)


def _overlaid(
    image: NDArray, evidence: NDArray, *, white: float, full_colour: float, side: int = DISPLAY_SIDE
) -> Image.Image:
    shown = _resized(evidence.astype(np.float32), Image.Resampling.BILINEAR, side=side)
    palette = np.array(evidence_palette(), dtype=np.uint8)
    colours = Image.fromarray(palette[evidence_levels(shown, full_colour=full_colour)])
    return Image.alpha_composite(_picture(image, white=white, side=side).convert("RGBA"), colours).convert("RGB")


def _picture(image: NDArray, *, white: float, side: int = DISPLAY_SIDE) -> Image.Image:
    eight = np.round(np.clip(image.astype(np.float64) / white, 0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(eight[0] if len(eight) == 1 else np.moveaxis(eight, 0, -1))
    height, width = display_size(*image.shape[1:], side=side)
    smooth = Image.Resampling.BICUBIC if max(image.shape[1:]) < side else Image.Resampling.LANCZOS
    return picture.resize((width, height), smooth)


def write_evidence(evidence: NDArray, path: Path, *, full_colour: float) -> None:
    """An evidence map [H,W] as a PNG to lay over its image: transparent where there is none."""
    shown = _resized(evidence.astype(np.float32), Image.Resampling.BILINEAR)  # bilinear: never above the map's peak
    _write_palette(evidence_levels(shown, full_colour=full_colour), path, evidence_palette())


def write_outline(mask: NDArray, path: Path) -> None:
    """The border of a mask [H,W] as a PNG to lay over its image."""
    shown = _resized((mask > 0).astype(np.float32), Image.Resampling.BILINEAR)
    _write_palette(mask_outline(shown > 0.5), path, OUTLINE)


def _resized(values: NDArray[np.float32], how: Image.Resampling, *, side: int = DISPLAY_SIDE) -> NDArray:
    height, width = display_size(*values.shape, side=side)
    return np.asarray(Image.fromarray(values).resize((width, height), how))


def _write_palette(levels: NDArray[np.uint8], path: Path, palette: tuple[tuple[int, int, int, int], ...]) -> None:
    """Indices as a PNG with a palette whose entries have an opacity."""
    picture = Image.fromarray(levels, mode=None).convert("L")
    picture.putpalette([v for colour in palette for v in colour[:3]])
    picture.save(path, optimize=True, transparency=bytes(colour[3] for colour in palette))
