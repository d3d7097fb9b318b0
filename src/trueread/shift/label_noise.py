"""Wrong labels on purpose, the true ones kept: so that every method that looks for them can be scored.

Sources: symmetric and class-dependent noise as in Natarajan et al. 2013 and Patrini et al. 2017; from a weak model's
probabilities as in Xia et al. 2020 (instance-dependent) in outline; annotators of different care are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from trueread.cohort.cohort import SPLITS, Cohort
from trueread.errors import InputError, unknown
from trueread.shift.base import Draw

Kind = Literal["symmetric", "class-dependent", "feature-dependent", "annotators"]
By = Literal["image", "patient"]
NOISE = "label_noise"  # the key of a cohort's origin under which its noise is told
CARE = 2.0  # of the gamma distribution of annotators' rates: coefficient of variation 0.7


@dataclass(frozen=True)
class LabelNoise:
    """What is done to the labels.

    kind: "symmetric", any other class, each as likely; "class-dependent", the next class (or as `matrix` says);
    "feature-dependent", where a weak model is most inclined to another class, that class; "annotators", each with a
    rate of their own, to the neighbouring class in an ordinal task and to any other otherwise.
    rate: expected share of wrong labels, in [0,1). by: whether each image gets its own draw, or all of a patient the
    same. splits: whose labels may become wrong; those of test stay true. n_annotators: of that kind. seed: of draws.
    """

    kind: Kind = "symmetric"
    rate: float = 0.2
    by: By = "image"
    splits: tuple[str, ...] = ("train", "val")
    n_annotators: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise unknown("kind of label noise", self.kind, get_args(Kind))
        if self.by not in get_args(By):
            raise unknown("unit of label noise", self.by, get_args(By))
        if not 0 <= self.rate < 1:
            raise InputError(f"the rate of label noise must be in [0,1); found {self.rate}.")
        if self.n_annotators < 1:
            raise InputError(f"there must be at least one annotator; found {self.n_annotators}.")
        for split in self.splits:
            if split not in SPLITS:
                raise unknown("split", split, SPLITS)


def with_label_noise(
    cohort: Cohort, kind: Kind = "symmetric", *, rate: float = 0.2, by: By = "image",
    splits: Sequence[str] = ("train", "val"), n_annotators: int = 5, seed: int = 0, matrix: ArrayLike | None = None,
    probabilities: ArrayLike | None = None,
) -> Cohort:  # fmt: skip
    """The cohort with some labels wrong; images are shared. Options: see `LabelNoise`.

    matrix: float [K,K], rows sum to 1: the chance of each label given the true one, instead of `rate`, for
    "class-dependent". probabilities: float [N,K] of a weak model, which "feature-dependent" asks for.
    `truth` gets "true_label" (int64), "flipped" (bool) and, of annotators, "annotator" (int64, -1 where none).
    Raises InputError for a cohort without a split, a multilabel task, labels that were made wrong before, a matrix or
    probabilities of another shape or that are none, and a class that would lose all its images.
    """
    what = LabelNoise(kind, rate, by, tuple(splits), n_annotators, seed)
    _check(cohort, what, matrix, probabilities)
    rows = np.flatnonzero(cohort.table["split"].isin(what.splits).to_numpy())
    draw = _Draws(cohort, rows, what)
    labels = cohort.labels[rows]
    annotator = np.full(len(cohort), -1, np.int64)
    if kind == "feature-dependent":
        given = _most_inclined(labels, np.asarray(probabilities, np.float64)[rows], rate)
    elif kind == "annotators":
        annotator[rows] = np.floor(draw.uniform("annotator") * n_annotators).astype(np.int64)
        rates = _rates_of_annotators(what)[annotator[rows]]
        given = np.where(draw.uniform("wrong") < rates, _another(labels, draw, cohort), labels)
    else:
        given = _drawn(labels, draw.uniform("label"), _transition(cohort, what, matrix))
    made = cohort.labels.copy()
    made[rows] = given
    _refuse_empty(cohort, made)
    truth = pd.DataFrame(index=range(len(cohort))) if cohort.truth is None else cohort.truth
    columns: dict[str, Any] = {"true_label": cohort.labels, "flipped": made != cohort.labels}
    if kind == "annotators":
        columns["annotator"] = annotator
    told = {
        "kind": kind, "rate": None if matrix is not None else rate, "by": by, "splits": list(what.splits), "seed": seed,
        "wrong": int((made != cohort.labels).sum()), "of": len(rows),
        **({"n_annotators": n_annotators} if kind == "annotators" else {}),
    }  # fmt: skip
    return replace(cohort, labels=made, truth=truth.assign(**columns), origin={**cohort.origin, NOISE: told})


class _Draws:
    """Uniform numbers of images or of patients, the same whatever else is in the cohort."""

    def __init__(self, cohort: Cohort, rows: NDArray[np.int64], what: LabelNoise) -> None:
        names = cohort.table["id" if what.by == "image" else "patient"].iloc[rows]
        self.draw = Draw([str(name) for name in names], what.seed, "label-noise")

    def uniform(self, purpose: str) -> NDArray[np.float64]:
        like = torch.empty(0, dtype=torch.float64)
        return self.draw.uniform(purpose, like=like)[:, 0].numpy() if self.draw.ids else np.empty(0)


def _transition(cohort: Cohort, what: LabelNoise, matrix: ArrayLike | None) -> NDArray[np.float64]:
    """float [K,K]: the chance of each label given the true one."""
    k = cohort.n_classes
    if matrix is not None:
        return np.asarray(matrix, np.float64)
    if what.kind == "symmetric":
        return np.full((k, k), what.rate / (k - 1)) + (1 - what.rate - what.rate / (k - 1)) * np.eye(k)
    return (1 - what.rate) * np.eye(k) + what.rate * np.roll(np.eye(k), 1, axis=1)


def _drawn(labels: NDArray[np.int64], uniform: NDArray[np.float64], matrix: NDArray) -> NDArray[np.int64]:
    """Labels drawn from the rows of a transition matrix; the true one comes first, so that a small number keeps it."""
    k = len(matrix)
    order = (labels[:, None] + np.arange(k)) % k
    reached = np.take_along_axis(matrix[labels], order, axis=1).cumsum(axis=1)
    place = np.minimum((uniform[:, None] >= reached).sum(axis=1), k - 1)
    return order[np.arange(len(labels)), place]


def _most_inclined(labels: NDArray[np.int64], p: NDArray, rate: float) -> NDArray[np.int64]:
    """The share `rate` of the labels that a weak model doubts most, as the class it is most inclined to instead."""
    others = np.where(np.eye(p.shape[1], dtype=bool)[labels], -np.inf, p)
    doubt = others.max(axis=1) - p[np.arange(len(labels)), labels]
    chosen = np.argsort(-doubt, kind="stable")[: round(rate * len(labels))]
    given = labels.copy()
    given[chosen] = others.argmax(axis=1)[chosen]
    return given


def _rates_of_annotators(what: LabelNoise) -> NDArray[np.float64]:
    """float [A]: the share that each gets wrong; `rate` on average, below 0.9."""
    drawn = np.random.default_rng([what.seed, *b"annotators"]).gamma(CARE, size=what.n_annotators)
    return np.minimum(drawn / drawn.mean() * what.rate, 0.9)


def _another(labels: NDArray[np.int64], draw: _Draws, cohort: Cohort) -> NDArray[np.int64]:
    """Another class for each: a neighbouring one in an ordinal task, else any, each as likely."""
    k, u = cohort.n_classes, draw.uniform("another")
    if cohort.task != "ordinal":
        return (labels + 1 + np.floor(u * (k - 1)).astype(np.int64)) % k
    up = np.where(labels == 0, True, np.where(labels == k - 1, False, u < 0.5))
    return labels + np.where(up, 1, -1)


def _check(cohort: Cohort, what: LabelNoise, matrix: ArrayLike | None, probabilities: ArrayLike | None) -> None:
    if cohort.task == "multilabel":
        raise InputError(f"{cohort.name}: one label per image is made wrong; the task is multilabel.")
    wrong = cohort.truth is not None and "flipped" in cohort.truth and bool(cohort.truth["flipped"].any())
    if NOISE in cohort.origin or wrong:
        raise InputError(f"{cohort.name} has labels that were made wrong already; start from it as it was.")
    if not cohort.is_split:
        raise InputError(f"{cohort.name} has no split yet; split it first, because test labels stay true.")
    k, n = cohort.n_classes, len(cohort)
    if matrix is not None:
        m = np.asarray(matrix, np.float64)
        if what.kind != "class-dependent" or m.shape != (k, k) or not _are_distributions(m):
            raise InputError(
                f"`matrix` goes with class-dependent noise and is [{k},{k}], each row the chances of the labels given "
                f"the true one; found {list(m.shape)} for '{what.kind}'."
            )
    if what.kind == "feature-dependent":
        p = np.asarray(probabilities, np.float64) if probabilities is not None else np.empty(0)
        if p.shape != (n, k) or not _are_distributions(p):
            raise InputError(
                f"feature-dependent noise takes the `probabilities` [{n},{k}] of a weak model, a row per image; found "
                f"{'none' if probabilities is None else list(p.shape)}."
            )


def _are_distributions(p: NDArray) -> bool:
    return bool((p >= 0).all() and np.allclose(p.sum(axis=1), 1, atol=1e-4))


def _refuse_empty(cohort: Cohort, labels: NDArray[np.int64]) -> None:
    for split in SPLITS:
        rows = cohort.rows(split)  # type: ignore[arg-type]
        before, after = (np.bincount(x[rows], minlength=cohort.n_classes) for x in (cohort.labels, labels))
        lost = np.flatnonzero((before > 0) & (after == 0))
        if len(lost):
            raise InputError(
                f"{cohort.name}: no image of '{cohort.classes[lost[0]]}' would be left in {split}; lower the rate."
            )
