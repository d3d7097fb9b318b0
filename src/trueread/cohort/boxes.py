"""Boxes around findings, as tables hold them, to masks."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from trueread.cohort.rows import refuse_rows
from trueread.imagefile.decode import Fit, on_fitted

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels of the original
BETWEEN = re.compile(r"\]\s*[,;|]?\s*\[|[;|]")  # two boxes
BEYOND = 0.01  # share of a side by which a box may leave its image: people draw over edges
HOW = "Write x, y, width and height in pixels of the image as it is shown, as in '10 20 30 40', and ';' between boxes."


def read_boxes(file: str, cells: pd.Series) -> list[list[Box]]:
    """The boxes of every cell, [] for a blank one: x, y, width and height from the upper left corner, separated by
    blanks or commas; several are separated by ; or |, or are lists in a list. Raises InputError with the first five bad
    rows.
    """
    found, problems = [], []
    for row, cell in zip(cells.index.tolist(), cells.tolist(), strict=True):
        parts = [part.strip(" []()") for part in BETWEEN.split(cell)] if cell.strip(" []()") else []
        boxes = [_box(part) for part in parts]
        if any(box is None for box in boxes):
            problems.append((row, f"the {cells.name} is '{cell}'"))
        found.append([box for box in boxes if box is not None])
    refuse_rows(file, problems, HOW)
    return found


def _box(text: str) -> Box | None:
    """None when these are not four numbers with a width and a height."""
    try:
        x, y, width, height = (float(number) for number in re.split(r"[\s,]+", text))
    except ValueError:
        return None
    box = (x, y, x + width, y + height)
    return box if np.isfinite(box).all() and width > 0 and height > 0 else None


def masks_of(
    file: str, boxes: Sequence[Sequence[Box]], sides: pd.DataFrame, rows: Sequence[int], *, size: int, fit: Fit
) -> np.ndarray:
    """uint8 [N,S,S]: 1 where a box of the image covers at least half of the pixel, or the most of any when it covers
    half of none. sides: `width` and `height` of the originals. rows: of the table, for messages. Raises InputError with
    the first five rows whose boxes leave their image.
    """
    masks = np.zeros((len(boxes), size, size), np.uint8)
    leaving = []
    for i, (own, width, height) in enumerate(zip(boxes, sides["width"], sides["height"], strict=True)):
        for box in own:
            if _leaves(box, width, height):
                shown = " ".join(f"{v:g}" for v in (box[0], box[1], box[2] - box[0], box[3] - box[1]))
                leaving.append((rows[i], f"the box '{shown}' leaves its image of {width} x {height}"))
            left, top, right, bottom = on_fitted(box, size=size, fit=fit, width=width, height=height)
            covered = np.outer(_covered(top, bottom, size), _covered(left, right, size))
            if covered.any():
                masks[i] |= covered >= min(0.5, covered.max())
    refuse_rows(file, leaving, HOW)
    return masks


def _leaves(box: Box, width: int, height: int) -> bool:
    slack = 1 + BEYOND * max(width, height)
    return min(box[:2]) < -slack or box[2] > width + slack or box[3] > height + slack


def _covered(low: float, high: float, size: int) -> np.ndarray:
    """float64 [size]: the share of each pixel along one side that lies between low and high."""
    at = np.arange(size)
    return np.clip(np.minimum(high, at + 1) - np.maximum(low, at), 0.0, 1.0)
