"""From a map to boxes and back to numbers: connected places, how well they overlap with masks, average precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from trueread.stats.bootstrap import Statistic, Values, Weights

MOST = 10  # boxes of an image, the strongest first
CUTS = tuple(np.round(np.arange(0.1, 0.95, 0.1), 1).tolist())  # as shares of a map's largest value


@dataclass(frozen=True)
class Box:
    """A box in pixels, ends excluded, and its score: the largest evidence inside, in units of the map."""

    top: int
    left: int
    bottom: int
    right: int
    score: float

    @property
    def area(self) -> int:
        return (self.bottom - self.top) * (self.right - self.left)


def boxes_of(evidence: NDArray, *, cut: float) -> list[Box]:
    """The boxes around connected places of a map float [H,W] >= 0 of at least `cut` times its largest value, the
    highest score first, at most ten. None of an empty map. Places that touch at a corner are one.
    """
    top = float(evidence.max())
    if not top > 0:
        return []
    return boxes_of_mask(evidence >= cut * top, evidence)[:MOST]


def boxes_of_mask(mask: NDArray, evidence: NDArray | None = None) -> list[Box]:
    """The boxes around connected places of a mask bool [H,W], the highest score first (1 without evidence)."""
    labelled, n = ndimage.label(mask, structure=np.ones((3, 3)))
    found = []
    for k, (rows, columns) in enumerate(ndimage.find_objects(labelled), 1):
        score = 1.0 if evidence is None else float(evidence[labelled == k].max())
        found.append(Box(rows.start, columns.start, rows.stop, columns.stop, score))
    assert len(found) == n
    return sorted(found, key=lambda b: (-b.score, b.top, b.left))


def overlap(a: Box, b: Box) -> float:
    """Intersection over union, in [0,1]."""
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    width = min(a.right, b.right) - max(a.left, b.left)
    shared = max(0, height) * max(0, width)
    return shared / (a.area + b.area - shared)


def mask_overlap(evidence: NDArray, mask: NDArray, *, cut: float) -> float:
    """Intersection over union of a map's strongest part and a mask bool [H,W]; 0 for an empty map."""
    top = float(evidence.max())
    if not top > 0:
        return 0.0
    strong = evidence >= cut * top
    return float((strong & mask).sum() / (strong | mask).sum())


def best_cut(maps: Sequence[NDArray], masks: Sequence[NDArray]) -> float:
    """The cut of `CUTS` with the largest mean overlap; of equally good ones the lowest."""
    scores = [np.mean([mask_overlap(m, k, cut=cut) for m, k in zip(maps, masks, strict=True)]) for cut in CUTS]
    return CUTS[int(np.argmax(scores))]


def matched(found: Sequence[Box], true: Sequence[Box], *, at: float) -> list[bool]:
    """Of each found box, the highest score first, whether it takes a true one that no other has taken: the one with
    which it overlaps most, by at least `at`.
    """
    free, hits = list(true), []
    for box in found:
        best = max(free, key=lambda b: overlap(box, b), default=None)
        hit = best is not None and overlap(box, best) >= at
        if hit and best is not None:
            free.remove(best)
        hits.append(hit)
    return hits


def average_precision_of_boxes(
    found: Sequence[Sequence[Box]], true: Sequence[Sequence[Box]], *, at: float
) -> Statistic:
    """Average precision over the boxes of n images as a function of the images' weights [R,n] -> [R].

    Boxes of all images are ranked by score; precision is made monotone from the right before it is summed over recall,
    as in Pascal VOC since 2010. nan where no image has a true box.
    """
    image = np.array([i for i, boxes in enumerate(found) for _ in boxes], np.int64)
    scores = np.array([b.score for boxes in found for b in boxes])
    hits = np.array([h for f, t in zip(found, true, strict=True) for h in matched(f, t, at=at)], bool)
    order = np.argsort(-scores, kind="stable")
    image, hits = image[order], hits[order]
    count = np.array([len(t) for t in true], np.float64)

    def statistic(weights: Weights) -> Values:
        total = weights @ count
        if len(image) == 0:
            return np.where(total > 0, 0.0, np.nan)
        weight = weights[:, image].astype(np.float64)
        right = np.cumsum(weight * hits, axis=1)
        every = np.cumsum(weight, axis=1)
        precision = np.divide(right, every, out=np.zeros_like(right), where=every > 0)
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        summed = (best * weight * hits).sum(axis=1)
        return np.divide(summed, total, out=np.full(len(weights), np.nan), where=total > 0)

    return statistic
