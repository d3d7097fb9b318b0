"""DeLong's covariance of AUROCs and the test of their difference, also where patients have several images.

Sources: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988) 837; in O(n log n), the idea of Sun and Xu,
IEEE Signal Processing Letters 21 (2014) 1389; clusters after Obuchowski, Biometrics 53 (1997) 567.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from trueread.errors import InputError
from trueread.stats.bootstrap import check_clusters
from trueread.stats.estimate import Estimate
from trueread.stats.tasks import check_binary


def delong(
    scores: NDArray, labels: NDArray, *, clusters: NDArray | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """AUROCs of M classifiers on the same images, and their covariance.

    scores: float [M,n], higher = more likely positive; only the order counts. labels: [n] in {0, 1}.
    clusters: int64 [n], the code of each image's patient; None when all images are independent.
    Returns (aucs [M], covariance [M,M]); both nan without both classes, the covariance nan when the positives or the
    negatives come from a single patient. An AUROC of exactly 1 or 0 has covariance 0: the method does not see its
    uncertainty.

    With clusters: the structural components, centred at the AUROC, are summed within a patient (V10_i over its
    positives, V01_i over its negatives). With S10, S01 and S11 the covariances between patients of V10, of V01, and of
    one with the other, taken over the I10 patients that have positives, the I01 that have negatives and all I, the
    covariance of the AUROCs is S10 / P + S01 / N + (S11 + S11') / (P N), P and N being the numbers of positive and
    negative images. With one image per patient S11 is 0 and this is DeLong's formula.
    """
    components = _components(scores, labels, clusters)
    return components.aucs, _covariance(components)


def delong_test(
    scores_a: NDArray, scores_b: NDArray, labels: NDArray, clusters: NDArray | None = None, *, level: float = 0.95
) -> tuple[Estimate, float]:
    """The difference AUROC(a) - AUROC(b) on the same images, its normal interval, and the two-sided p-value.

    scores_a, scores_b: float [n]; or [S,n], one row per training seed, whose AUROCs are averaged: the mean is linear in
        the structural components, so its variance is exact too. labels: [n] in {0, 1}.
    clusters: int64 [n], each image's patient, or None.
    The p-value is 1 when both rank alike. It and the interval are nan where the variance is not defined, is 0 although
    the AUROCs differ, or (clusters, very few patients) comes out negative.
    """
    scores_a, scores_b = np.atleast_2d(scores_a), np.atleast_2d(scores_b)
    if scores_a.ndim != 2 or scores_a.shape[1] != scores_b.shape[1]:
        raise InputError(
            f"both classifiers must score the same images, [n] or [S,n]; found {scores_a.shape} and {scores_b.shape}; "
            "predict the same split with both."
        )
    both = _components(np.concatenate([scores_a, scores_b]), labels, clusters)
    n_a, n_b = len(scores_a), len(scores_b)
    means = np.concatenate([np.full(n_a, 1 / n_a), np.full(n_b, -1 / n_b)])[None]
    # The variance of the components' difference, not the difference of variances: that cancels for similar classifiers.
    contrast = replace(both, aucs=means @ both.aucs, v10=means @ both.v10, v01=means @ both.v01)
    difference, variance = float(contrast.aucs[0]), float(_covariance(contrast)[0, 0])
    spread = float((both.aucs[:n_a] - both.aucs[n_a:]).std(ddof=1)) if n_a == n_b > 1 else None

    def estimate(low: float, high: float) -> Estimate:
        return Estimate(difference, low, high, scores_a.shape[1], both.n_clusters, spread, min(n_a, n_b))

    nan = float("nan")
    rounding = 1e-14
    largest = max(np.abs(contrast.v10).max(initial=0), np.abs(contrast.v01).max(initial=0))
    if abs(difference) < rounding and largest < rounding:  # False for nan
        difference = 0.0
        return estimate(0.0, 0.0), 1.0
    if not variance > 1e-28:  # nan, negative, or what rounding leaves of 0
        return estimate(nan, nan), nan
    half = float(ndtri((1 + level) / 2)) * variance**0.5
    p_value = float(2 * ndtr(-abs(difference) / variance**0.5))
    return estimate(difference - half, difference + half), p_value


@dataclass(frozen=True, eq=False)
class _Components:
    """AUROCs [M], and per classifier and patient the centred structural components over their number, [M,G].

    with_positives, with_negatives: patients that have positive, and that have negative images.
    """

    aucs: NDArray[np.float64]
    v10: NDArray[np.float64]
    v01: NDArray[np.float64]
    with_positives: int
    with_negatives: int
    n_clusters: int


def _components(scores: NDArray, labels: NDArray, clusters: NDArray | None) -> _Components:
    scores, positive = check_binary(scores, labels)
    if scores.ndim != 2:
        raise InputError(
            f"scores must be [M,n], one row per classifier; found shape {scores.shape}; add the first axis."
        )
    clusters = np.arange(len(positive)) if clusters is None else check_clusters(clusters)
    if len(clusters) != len(positive):
        raise InputError(
            f"clusters and labels must have one entry per image; found {len(clusters)} and {len(positive)}; "
            "take both from the same split."
        )
    names, groups = np.unique(clusters, return_inverse=True)
    of_positives, of_negatives = groups[positive], groups[~positive]
    aucs, v10, v01 = _structural_components(scores, positive)
    return _Components(
        aucs,
        _sum_by_group(v10 - aucs[:, None], of_positives, len(names)) / max(len(of_positives), 1),
        _sum_by_group(v01 - aucs[:, None], of_negatives, len(names)) / max(len(of_negatives), 1),
        with_positives=len(np.unique(of_positives)),
        with_negatives=len(np.unique(of_negatives)),
        n_clusters=len(names),
    )


def _structural_components(scores: NDArray, positive: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """AUROCs [M]; V10 [M,P], share of negatives a positive beats; V01 [M,N], share of positives beating a negative."""
    of_positives, of_negatives = scores[:, positive], scores[:, ~positive]
    if of_positives.size == 0 or of_negatives.size == 0:
        return np.full(len(scores), np.nan), np.zeros_like(of_positives), np.zeros_like(of_negatives)
    v10 = np.stack([_share_below(p, n) for p, n in zip(of_positives, of_negatives, strict=True)])
    v01 = 1.0 - np.stack([_share_below(n, p) for p, n in zip(of_positives, of_negatives, strict=True)])
    return v10.mean(axis=1), v10, v01


def _share_below(values: NDArray, others: NDArray) -> NDArray[np.float64]:
    """The share of `others` below each value, equal ones counting one half, in O(n log n): what midranks give."""
    others = np.sort(others)
    return (np.searchsorted(others, values, "left") + np.searchsorted(others, values, "right")) / (2 * len(others))


def _covariance(components: _Components) -> NDArray[np.float64]:
    v10, v01 = components.v10, components.v01
    if components.with_positives < 2 or components.with_negatives < 2:
        return np.full((len(v10), len(v10)), np.nan)
    cross = v10 @ v01.T * _unbiased(components.n_clusters)
    return (
        v10 @ v10.T * _unbiased(components.with_positives)
        + v01 @ v01.T * _unbiased(components.with_negatives)
        + (cross + cross.T)
    )


def _unbiased(n: int) -> float:
    return n / (n - 1)


def _sum_by_group(values: NDArray, groups: NDArray, n_groups: int) -> NDArray[np.float64]:
    """[M,m] -> [M,n_groups]: sums over the entries of each group."""
    return np.stack([np.bincount(groups, weights=row, minlength=n_groups) for row in values])
