"""Metrics of decisions: everything that follows from the confusion matrix, for all resamples at a time.

Decision rule: binary, p(class 1) >= threshold; multiclass and ordinal, the class of the largest probability (the first
one of a tie); multilabel, p >= threshold for each label.

A class that does not occur in the data is left out of a mean over classes. A class that occurs in the data and not in
a resample makes the resample's value nan, so that every resample estimates the same quantity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from trueread.stats.bootstrap import Statistic, Values, Weights, ratio, row_mean, weighted_mean
from trueread.stats.tasks import Task, Threshold

_DENSE_CELLS = 64  # up to here one dense matrix product is faster than a sparse one


def decide(probabilities: NDArray, *, task: Task, threshold: Threshold = 0.5) -> NDArray[np.int64]:
    """The decided class int64 [n]; multilabel: 0 or 1 per label, int64 [n,K]. Probabilities float64 [n,K]."""
    if task == "binary":
        return (probabilities[:, 1] >= threshold).astype(np.int64)
    if task == "multilabel":
        return (probabilities >= np.asarray(threshold)).astype(np.int64)
    return probabilities.argmax(axis=1)


def confusion_matrices(probabilities: NDArray, labels: NDArray, *, task: Task, threshold: Threshold = 0.5) -> Statistic:
    """Weighted confusion matrices: weights [R,n] -> float64 [R,K,K]; multilabel [R,K,2,2], unknown labels ignored.

    Rows are the truth, columns the decision. probabilities, labels: as `check_probabilities` returns them.
    """
    decided = decide(probabilities, task=task, threshold=threshold)
    n, k = probabilities.shape
    if task == "multilabel":
        rows, columns = np.nonzero(~np.isnan(labels))
        cells = columns * 4 + labels[rows, columns].astype(np.int64) * 2 + decided[rows, columns]
        shape: tuple[int, ...] = (k, 2, 2)
    else:
        rows, cells, shape = np.arange(n), labels * k + decided, (k, k)
    n_cells = int(np.prod(shape))
    ones = np.ones(len(rows), dtype=np.float32)
    member = sparse.csr_array((ones, (rows, cells)), shape=(n, n_cells))
    indicator = member.toarray() if n_cells <= _DENSE_CELLS else member

    def statistic(weights: Weights) -> Values:
        return (weights @ indicator).astype(np.float64).reshape(-1, *shape)

    return statistic


def confusion_matrix(
    probabilities: NDArray, labels: NDArray, *, task: Task, threshold: Threshold = 0.5
) -> NDArray[np.int64]:
    """Images per truth (row) and decision (column): int64 [K,K]; multilabel [K,2,2]."""
    counts = confusion_matrices(probabilities, labels, task=task, threshold=threshold)
    return counts(np.ones((1, len(probabilities))))[0].round().astype(np.int64)


@dataclass(frozen=True, eq=False)
class _Counts:
    """Each class (multilabel: each label) against the rest, [R,K]: weight of true and false positives and negatives."""

    tp: Values
    fp: Values
    fn: Values
    tn: Values

    @property
    def recall(self) -> Values:
        return ratio(self.tp, self.tp + self.fn)

    @property
    def true_negative_rate(self) -> Values:
        return ratio(self.tn, self.tn + self.fp)


def _count(matrices: Values) -> _Counts:
    if matrices.ndim == 4:
        return _Counts(matrices[..., 1, 1], matrices[..., 0, 1], matrices[..., 1, 0], matrices[..., 0, 0])
    tp = np.diagonal(matrices, axis1=1, axis2=2)
    fn, fp = matrices.sum(axis=2) - tp, matrices.sum(axis=1) - tp
    return _Counts(tp, fp, fn, matrices.sum(axis=(1, 2))[:, None] - tp - fp - fn)


def accuracy(probabilities: NDArray, labels: NDArray, *, task: Task, threshold: Threshold = 0.5) -> Statistic:
    """Share of decisions that are right; multilabel: mean over labels, each over the images whose label is known."""
    right = (decide(probabilities, task=task, threshold=threshold) == labels).astype(np.float64)
    if task != "multilabel":
        return weighted_mean(right)
    known = ~np.isnan(labels)
    per_label = weighted_mean(np.where(known, right, np.nan)[:, known.any(axis=0)])
    return lambda weights: row_mean(per_label(weights))


def balanced_accuracy(probabilities: NDArray, labels: NDArray, *, task: Task, threshold: Threshold = 0.5) -> Statistic:
    """Mean recall over the classes that occur; multilabel: mean over labels of (sensitivity + specificity) / 2.

    A binary task with only one class in the data is nan. Otherwise equal to sklearn.metrics.balanced_accuracy_score.
    """
    matrices = confusion_matrices(probabilities, labels, task=task, threshold=threshold)
    positive, negative = _occurring(matrices, len(probabilities))
    if task == "multilabel":
        both = positive & negative

        def over_labels(weights: Weights) -> Values:
            counts = _count(matrices(weights))
            return row_mean(0.5 * (counts.recall + counts.true_negative_rate)[:, both])

        return over_labels
    kept = np.ones(2, dtype=bool) if task == "binary" else positive
    return lambda weights: row_mean(_count(matrices(weights)).recall[:, kept])


def macro_f1(probabilities: NDArray, labels: NDArray, *, task: Task, threshold: Threshold = 0.5) -> Statistic:
    """Mean over classes (multilabel: labels) of F1 = 2 TP / (2 TP + FP + FN).

    As in scikit-learn, a class that is decided but never true counts 0, and one that is neither does not count.
    """
    return _f1(probabilities, labels, task, threshold, lambda f1, there, _: ratio(f1.sum(axis=1), there.sum(axis=1)))


def weighted_f1(probabilities: NDArray, labels: NDArray, *, task: Task, threshold: Threshold = 0.5) -> Statistic:
    """Mean over classes (multilabel: labels) of F1 = 2 TP / (2 TP + FP + FN), each as often as it is true."""
    return _f1(probabilities, labels, task, threshold, lambda f1, _, n: ratio((f1 * n).sum(axis=1), n.sum(axis=1)))


def f1(probabilities: NDArray, labels: NDArray, *, task: Task, threshold: Threshold = 0.5) -> Statistic:
    """Binary alone: 2 TP / (2 TP + FP + FN) of class 1."""
    return _f1(probabilities, labels, task, threshold, lambda both, *_: both[:, 1])


def _f1(
    probabilities: NDArray, labels: NDArray, task: Task, threshold: Threshold,
    mean: Callable[[Values, NDArray, Values], Values],
) -> Statistic:  # fmt: skip
    """mean: of F1 [R,K], whether a class occurs or is decided [R,K], and how often it occurs [R,K], gives [R]."""
    matrices = confusion_matrices(probabilities, labels, task=task, threshold=threshold)
    positive, _ = _occurring(matrices, len(probabilities))

    def statistic(weights: Weights) -> Values:
        counts = _count(matrices(weights))
        denominator = 2 * counts.tp + counts.fp + counts.fn
        f1 = np.nan_to_num(ratio(2 * counts.tp, denominator))
        true = counts.tp + counts.fn
        lacks_a_class = np.any(true[:, positive] == 0, axis=1)
        return np.where(lacks_a_class, np.nan, mean(f1, denominator > 0, true))

    return statistic


def per_class_recall(probabilities: NDArray, labels: NDArray, *, task: Task, threshold: Threshold = 0.5) -> Statistic:
    """Recall of each class (multilabel: sensitivity of each label): weights [R,n] -> [R,K], nan for an absent class."""
    matrices = confusion_matrices(probabilities, labels, task=task, threshold=threshold)
    return lambda weights: _count(matrices(weights)).recall


def sensitivity(probabilities: NDArray, labels: NDArray, *, task: Task, threshold: Threshold = 0.5) -> Statistic:
    """Binary: share of class 1 that is called positive. Multilabel: its mean over the labels that occur."""
    matrices = confusion_matrices(probabilities, labels, task=task, threshold=threshold)
    if task == "binary":
        return lambda weights: _count(matrices(weights)).recall[:, 1]
    positive, _ = _occurring(matrices, len(probabilities))
    return lambda weights: row_mean(_count(matrices(weights)).recall[:, positive])


def specificity(probabilities: NDArray, labels: NDArray, *, task: Task, threshold: Threshold = 0.5) -> Statistic:
    """Binary: share of class 0 that is called negative. Multilabel: its mean over the labels that have negatives."""
    matrices = confusion_matrices(probabilities, labels, task=task, threshold=threshold)
    if task == "binary":
        return lambda weights: _count(matrices(weights)).true_negative_rate[:, 1]
    _, negative = _occurring(matrices, len(probabilities))
    return lambda weights: row_mean(_count(matrices(weights)).true_negative_rate[:, negative])


def quadratic_kappa(probabilities: NDArray, labels: NDArray, *, task: Task) -> Statistic:
    """Cohen's kappa with quadratic weights over all K ordered classes.

    1 - sum(d^2 observed) / sum(d^2 expected by chance), d = distance between truth and decision in classes.
    nan where chance expects no disagreement. Source: Cohen, Psychological Bulletin 70 (1968) 213.
    """
    matrices = confusion_matrices(probabilities, labels, task=task)
    k = probabilities.shape[1]
    distance = (np.arange(k)[:, None] - np.arange(k)[None, :]).astype(np.float64) ** 2

    def statistic(weights: Weights) -> Values:
        observed = matrices(weights)
        truth, decision = observed.sum(axis=2), observed.sum(axis=1)
        by_chance = ratio(np.einsum("ri,ij,rj->r", truth, distance, decision), truth.sum(axis=1))
        return 1.0 - ratio(np.einsum("rij,ij->r", observed, distance), by_chance)

    return statistic


def _occurring(matrices: Statistic, n: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of each class or label, bool [K]: whether it is true of some image, and whether it is false of some."""
    counts = _count(matrices(np.ones((1, n))))
    return (counts.tp + counts.fn)[0] > 0, (counts.tn + counts.fp)[0] > 0
