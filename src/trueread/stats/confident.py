"""Confident learning: which labels are contradicted by the probabilities of networks that never saw them.

Source: Northcutt, Jiang and Chuang 2021, Confident learning, JAIR 70, arXiv 1911.00068: thresholds, joint, and pruning
by noise rate. Probabilities must be out of sample; those of a network that learned the label agree with it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueread.errors import InputError

SUREST, SUREST_LEAST = 0.1, 50  # share of the samples that a network is surest of, and how many at least
SLACK = 1e-6  # below a class's threshold that still counts as reaching it


def confident_counts(labels: ArrayLike, p: ArrayLike) -> NDArray[np.int64]:
    """int64 [K,K]: samples of the given class (row) that confidently look like a class (column).

    labels: int [n] in 0..K-1. p: float [n,K], out of sample. A sample looks like the most probable of the classes whose
    probability reaches that class's threshold, the mean probability of the class among samples labelled so; a sample
    that reaches none is not counted. Raises InputError for other shapes, labels out of range, and values that are no
    probabilities.
    """
    y, q = _checked(labels, p)
    k = q.shape[1]
    seen = looks_like(y, q)
    counted = seen >= 0
    return np.bincount(y[counted] * k + seen[counted], minlength=k * k).reshape(k, k)


def looks_like(labels: ArrayLike, p: ArrayLike) -> NDArray[np.int64]:
    """int64 [n]: the class that each sample confidently looks like, -1 for none; see `confident_counts`."""
    y, q = _checked(labels, p)
    reached = np.where(q >= _thresholds(y, q) - SLACK, q, -1.0)
    best = reached.argmax(axis=1)
    return np.where(np.take_along_axis(reached, best[:, None], axis=1)[:, 0] < 0, -1, best)


def noise_joint(labels: ArrayLike, p: ArrayLike) -> NDArray[np.float64]:
    """float [K,K], sum 1: the estimated joint distribution of given (row) and true label (column).

    The confident counts, each row scaled to the share of samples that are labelled so. A class that has no confident
    sample counts as right.
    """
    y, q = _checked(labels, p)
    counts = confident_counts(y, q).astype(np.float64)
    given = np.bincount(y, minlength=len(counts))
    empty = counts.sum(axis=1) == 0
    counts[empty, empty] = 1.0
    return counts / counts.sum(axis=1, keepdims=True) * given[:, None] / len(y)


def noise_rate(labels: ArrayLike, p: ArrayLike) -> float:
    """The estimated share of wrong labels, in [0,1]."""
    return float(1 - np.trace(noise_joint(labels, p)))


def wrong_among_surest(labels: ArrayLike, p: ArrayLike) -> float:
    """The share of wrong labels, in [0,1], told by the samples of which the network is surest: how many of these have
    another label than it says.

    Of all samples it is wrong about, whether they are hard or mislabelled; of the surest tenth, at least 50, hardly any
    is hard. Where people mislabel what is hard, it tells too little; where a network has learned nothing, too much.
    The argument is that of anchor points (Liu and Tao 2016, arXiv 1411.7718); counting among the surest is ours.
    """
    y, q = _checked(labels, p)
    said, sure = q.argmax(axis=1), q.max(axis=1)
    first = np.argsort(-sure, kind="stable")[: max(SUREST_LEAST, round(SUREST * len(y)))]
    return float((said[first] != y[first]).mean())


def doubt(labels: ArrayLike, p: ArrayLike) -> NDArray[np.float64]:
    """float [n] in [0,1], higher where the label is more doubtful: how far the most probable other class lies above
    the given one, from -1 to 1, brought to [0,1] (the normalised margin of the source).
    """
    y, q = _checked(labels, p)
    return (q[np.arange(len(y)), other_class(y, q)] - q[np.arange(len(y)), y] + 1) / 2


def other_class(labels: ArrayLike, p: ArrayLike) -> NDArray[np.int64]:
    """int64 [n]: the most probable class beside the given one."""
    y, q = _checked(labels, p)
    others = q.copy()
    others[np.arange(len(y)), y] = -1.0
    return others.argmax(axis=1)


def suspects(labels: ArrayLike, p: ArrayLike) -> NDArray[np.bool_]:
    """bool [n]: the samples whose label is probably wrong ("prune by noise rate" of the source).

    Of each pair of given and true class as many samples as the joint says, those with the largest margin of the true
    class's probability over the given one's. At least one sample of each class is left.
    """
    y, q = _checked(labels, p)
    counts = np.rint(noise_joint(y, q) * len(y)).astype(np.int64)
    flagged = np.zeros(len(y), bool)
    for given in range(q.shape[1]):
        mine = np.flatnonzero(y == given)
        for true in np.flatnonzero(counts[given]):
            if true != given:
                n = min(counts[given, true], len(mine) - 1)
                margin = q[mine, true] - q[mine, given]
                if n > 0:
                    flagged[mine[np.argpartition(-margin, n - 1)[:n]]] = True
        if len(mine) and flagged[mine].all():
            flagged[mine[q[mine, given].argmax()]] = False
    return flagged


def _thresholds(y: NDArray[np.int64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """float [K]: mean probability of each class among samples labelled so; infinite for a class that no one has."""
    own = q[np.arange(len(y)), y]
    n = np.bincount(y, minlength=q.shape[1])
    with np.errstate(invalid="ignore"):
        return np.where(n > 0, np.bincount(y, weights=own, minlength=q.shape[1]) / np.maximum(n, 1), np.inf)


def _checked(labels: ArrayLike, p: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    y, q = np.asarray(labels), np.asarray(p, np.float64)
    if q.ndim != 2 or q.shape[1] < 2 or y.shape != q.shape[:1] or len(y) == 0:
        raise InputError(
            f"confident learning takes labels [n] and probabilities [n,K] of at least two classes; found "
            f"{list(y.shape)} and {list(q.shape)}."
        )
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= q.shape[1]:
        raise InputError(f"labels must be integers in 0..{q.shape[1] - 1}; found {y.dtype}, {y.min()} to {y.max()}.")
    if not (np.isfinite(q).all() and q.min() >= 0 and np.allclose(q.sum(axis=1), 1, atol=1e-3)):
        raise InputError("the probabilities of each sample must be at least 0 and sum to 1; some do not.")
    return y.astype(np.int64, copy=False), q
