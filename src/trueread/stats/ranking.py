"""Metrics of the order of the scores: AUROC, average precision, sensitivity at a fixed specificity.

Everything that depends on the scores alone is sorted and counted once; a resample then costs two running sums of its
weights. In descending order of the score, a positive is described by how many negatives rank above it and how many
positives and negatives rank at least as high, which is all that these three metrics need, ties included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trueread.stats.bootstrap import Statistic, Values, Weights, average, on_rows, ratio, undefined
from trueread.stats.tasks import Task, binary_problems

_SLACK = 1e-9  # a share such as 1 - 0.9 is not exact in binary; 3 of 30 negatives must still count as 0.1


@dataclass(frozen=True, eq=False)
class Ranking:
    """Who ranks where, best score first.

    positives, negatives: int64 [P], [N], rows in descending order of the score.
    above: int64 [P], negatives with a higher score than each positive.
    reached: int64 [P], negatives with a score at least as high. found: int64 [P], positives likewise (itself included).
    """

    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]
    above: NDArray[np.int64]
    reached: NDArray[np.int64]
    found: NDArray[np.int64]


def rank(scores: NDArray, positive: NDArray) -> Ranking:
    """The ranking of scores float [n] with answers bool [n]."""
    descending = np.argsort(-scores, kind="stable")
    positives, negatives = descending[positive[descending]], descending[~positive[descending]]
    of_positives, of_negatives = -scores[positives], -scores[negatives]  # ascending, as searchsorted needs
    return Ranking(
        positives,
        negatives,
        above=np.searchsorted(of_negatives, of_positives, side="left"),
        reached=np.searchsorted(of_negatives, of_positives, side="right"),
        found=np.searchsorted(of_positives, of_positives, side="right"),
    )


def binary_auroc(scores: NDArray, positive: NDArray) -> Statistic:
    """Area under the ROC curve: the chance that a positive scores higher than a negative, ties counting one half.

    scores: float [n]. positive: bool [n]. Returns weights [R,n] -> [R]; nan where a resample lacks one of the two.
    Source: Hanley and McNeil, Radiology 143 (1982) 29 (equality with the Mann-Whitney statistic).
    """
    ranking = rank(scores, positive)
    tied = not np.array_equal(ranking.above, ranking.reached)

    def statistic(weights: Weights) -> Values:
        of_positives = np.take(weights, ranking.positives, axis=1)
        negatives = _running_sum(np.take(weights, ranking.negatives, axis=1))
        lost = np.take(negatives, ranking.above, axis=1)  # to each positive: the negatives that rank above it
        if tied:
            lost = 0.5 * (lost + np.take(negatives, ranking.reached, axis=1))
        pairs = _total(of_positives) * negatives[:, -1].astype(np.float64)
        return 1.0 - ratio(_total(of_positives * lost), pairs)

    return statistic


def binary_average_precision(scores: NDArray, positive: NDArray) -> Statistic:
    """Area under the precision-recall curve as average precision: the sum of precision times the gain in recall.

    scores: float [n]. positive: bool [n]. Returns weights [R,n] -> [R]; nan where a resample lacks one of the two.
    Equal to sklearn.metrics.average_precision_score; equal scores share one point of the curve.
    """
    ranking = rank(scores, positive)

    def statistic(weights: Weights) -> Values:
        of_positives = np.take(weights, ranking.positives, axis=1)
        positives = _running_sum(of_positives)
        negatives = _running_sum(np.take(weights, ranking.negatives, axis=1))
        hits = np.take(positives, ranking.found, axis=1)
        called = hits + np.take(negatives, ranking.reached, axis=1)
        precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
        both = (positives[:, -1] > 0) & (negatives[:, -1] > 0)
        return np.where(both, ratio(_total(of_positives * precision), _total(of_positives)), np.nan)

    return statistic


def binary_sensitivity_at_specificity(scores: NDArray, positive: NDArray, *, specificity: float) -> Statistic:
    """The largest sensitivity of a threshold whose specificity is at least `specificity`, on the sample's own ROC.

    scores: float [n]. positive: bool [n]. specificity: in [0, 1].
    Returns weights [R,n] -> [R]; nan where a resample lacks one of the two classes.

    A positive is found exactly if the negatives that score at least as high are no more than a share 1 - specificity.
    No point between two thresholds is interpolated. The threshold is chosen anew in every resample, so that the
    interval contains the uncertainty of that choice.
    """
    ranking = rank(scores, positive)

    def statistic(weights: Weights) -> Values:
        of_positives = np.take(weights, ranking.positives, axis=1)
        negatives = _running_sum(np.take(weights, ranking.negatives, axis=1))
        allowed = (1.0 - specificity + _SLACK) * negatives[:, -1:].astype(np.float64)
        is_found = np.take(negatives, ranking.reached, axis=1) <= allowed
        sensitivity = ratio(_total(of_positives * is_found), _total(of_positives))
        return np.where(negatives[:, -1] > 0, sensitivity, np.nan)

    return statistic


def auroc(probabilities: NDArray, labels: NDArray, *, task: Task) -> Statistic:
    """AUROC of class 1 (binary), macro one-vs-rest (multiclass, ordinal) or macro over labels (multilabel).

    probabilities, labels: as `check_probabilities` returns them. Classes that do not occur, or alone occur, in these
    data are left out of the mean; a resample that lacks one of the others is nan.
    """
    return _macro(binary_auroc, probabilities, labels, task=task)


def average_precision(probabilities: NDArray, labels: NDArray, *, task: Task) -> Statistic:
    """Average precision (AUPRC), averaged over classes or labels as in `auroc`."""
    return _macro(binary_average_precision, probabilities, labels, task=task)


def sensitivity_at_specificity(
    probabilities: NDArray, labels: NDArray, *, task: Task, specificity: float = 0.9
) -> Statistic:
    """Sensitivity at a fixed specificity, averaged over classes or labels as in `auroc`."""

    def build(scores: NDArray, positive: NDArray) -> Statistic:
        return binary_sensitivity_at_specificity(scores, positive, specificity=specificity)

    return _macro(build, probabilities, labels, task=task)


def _macro(
    build: Callable[[NDArray, NDArray], Statistic], probabilities: NDArray, labels: NDArray, *, task: Task
) -> Statistic:
    parts = []
    for problem in binary_problems(probabilities, labels, task=task):
        if problem.has_both:
            part = build(problem.scores, problem.positive)
            parts.append(part if problem.rows is None else on_rows(part, problem.rows))
    return average(parts) if parts else undefined


def _running_sum(weights: Weights) -> Weights:
    """[R,m] -> [R,m+1]: entry j is the sum of the first j; whole numbers stay exact in float32 up to 2**24."""
    sums = np.zeros((len(weights), weights.shape[1] + 1), dtype=weights.dtype)
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums


def _total(weights: Weights) -> Values:
    return weights.sum(axis=1, dtype=np.float64)
