"""Every label's doubt in four ways, and how many planted errors each of them finds: what the label audit goes by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trueread.stats.confident import doubt, other_class, suspects
from trueread.training.out_of_fold import OutOfFold

TITLES = {
    "combined": "combined",
    "confident": "confident learning",
    "margin": "area under the margin",
    "loss": "smoothed loss (Step-E)",
}
RANKINGS = tuple(TITLES)


def doubts(labels: NDArray[np.int64], found: OutOfFold) -> dict[str, NDArray[np.float64]]:
    """By ranking float [n], higher where the label is more doubtful.

    "confident": the margin of the most probable other class by networks that never saw the patient. "margin", "loss":
    of networks that were trained on the image. "combined": the mean of the three ranks, in [0,1].
    """
    of_each = {"confident": doubt(labels, found.probabilities), "margin": -found.margin, "loss": found.loss}
    combined = np.mean([rank_share(score) for score in of_each.values()], axis=0)
    return {"combined": combined} | of_each


def rank_share(score: NDArray[np.float64]) -> NDArray[np.float64]:
    """float [n] in [0,1]: the rank of each value, the highest 1; equal values share their mean rank."""
    values, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    if len(values) < 2:
        return np.full(len(score), 0.5)
    below = np.cumsum(counts) - counts
    return ((below + (counts - 1) / 2) / (len(score) - 1))[place]


@dataclass(frozen=True, eq=False)
class Planted:
    """Errors that were put among the labels. labels: int64 [n], as they then are. wrong: bool [n], where."""

    labels: NDArray[np.int64]
    wrong: NDArray[np.bool_]


def with_errors(labels: NDArray[np.int64], found: OutOfFold, *, share: float, seed: int) -> Planted:
    """A share of the labels, drawn at random among those that were not suspected, as the class that the networks find
    most probable beside the given one: an error that a reader could make. No class loses more than half of its images.
    """
    suspected, other = suspects(labels, found.probabilities), other_class(labels, found.probabilities)
    order = np.random.default_rng([seed, *b"label-errors"]).permutation(np.flatnonzero(~suspected))
    room = np.bincount(labels, minlength=found.probabilities.shape[1]) // 2
    place = np.zeros(len(labels), np.int64)  # of each image among those of its class, in the order of the draw
    for k in range(len(room)):
        mine = order[labels[order] == k]
        place[mine] = np.arange(len(mine))
    order = order[place[order] < room[labels[order]]]
    wrong = np.zeros(len(labels), bool)
    wrong[order[: max(1, round(share * len(labels)))]] = True
    return Planted(np.where(wrong, other, labels), wrong)


def found_among_first(score: NDArray[np.float64], wrong: NDArray[np.bool_]) -> NDArray[np.float64]:
    """float [n]: the share of the wrong labels among the first 1, 2, ... n of the most doubtful."""
    return np.cumsum(wrong[np.argsort(-score, kind="stable")]) / max(1, int(wrong.sum()))
