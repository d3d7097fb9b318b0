"""Is one classifier better than another on the same patients? Paired clustered bootstrap, and Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueread.errors import InputError
from trueread.stats.bootstrap import (
    Statistic,
    average,
    check_clusters,
    distribution,
    percentile_interval,
    point_values,
    stack,
)
from trueread.stats.estimate import Estimate


@dataclass(frozen=True)
class Comparison:
    """A paired difference a - b, its two-sided p-value, and that after correction for the number of comparisons.

    p_value: nan where it could not be computed. p_adjusted: None until a correction such as `holm` is applied.
    """

    difference: Estimate
    p_value: float
    p_adjusted: float | None = None


def paired_difference(
    statistic_a: Statistic | Sequence[Statistic],
    statistic_b: Statistic | Sequence[Statistic],
    clusters: NDArray,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    """a - b on the same images, both seen through the same draws of patients.

    statistic_a, statistic_b: scalar statistics, weights [R,n] -> [R]; or one per training seed, which are averaged.
    clusters: int64 [n], the code of each row's patient.
    Returns the difference with its percentile interval over patients and the two-sided bootstrap p-value
    2 min(1 + #{d* <= 0}, 1 + #{d* >= 0}) / (1 + R), at most 1, over the R resamples that define the difference: the
    level at which the percentile interval would just touch 0. The 1s count the sample itself (Davison and Hinkley,
    Bootstrap Methods and their Application, 1997, eq. 4.11), so p is never 0: at least 2 / (1 + R). nan where the
    interval is nan.
    With equally many seeds on both sides the k-th of a is paired with the k-th of b and `spread` is the standard
    deviation (ddof 1) of their differences. Interval and p-value are about other patients, not other trainings.
    """
    of_a, of_b = _as_list(statistic_a), _as_list(statistic_b)
    mean_a, mean_b = average(of_a), average(of_b)
    clusters = check_clusters(clusters)
    drawn = distribution(lambda w: (mean_a(w) - mean_b(w))[:, None], clusters, resamples=resamples, seed=seed)
    low, high = percentile_interval(drawn, level=level, clusters=clusters)
    n = len(clusters)
    points_a, points_b = point_values(stack(of_a), n), point_values(stack(of_b), n)
    paired = len(points_a) == len(points_b) > 1
    difference = Estimate(
        float(points_a.mean() - points_b.mean()),
        float(low[0]),
        float(high[0]),
        n=n,
        n_clusters=len(np.unique(clusters)),
        spread=float((points_a - points_b).std(ddof=1)) if paired else None,
        n_seeds=min(len(points_a), len(points_b)),
    )
    return Comparison(difference, float("nan") if np.isnan(low[0]) else _two_sided(drawn[:, 0]))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's step-down adjusted p-values: below alpha exactly where the family-wise error is held at alpha.

    p_values: float [m] in [0, 1]; nan (not computed) stays nan and does not count as a comparison.
    Source: Holm, Scandinavian Journal of Statistics 6 (1979) 65.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or np.any((p < 0) | (p > 1)):
        raise InputError("p-values must be a list of numbers in 0..1 or nan; found others.")
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p, kind="stable")[: np.sum(~np.isnan(p))]  # argsort puts nan last
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return adjusted


def holm_adjusted(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons, as one family, with `p_adjusted` filled in."""
    adjusted = holm([c.p_value for c in comparisons])
    return [replace(c, p_adjusted=float(p)) for c, p in zip(comparisons, adjusted, strict=True)]


def _two_sided(drawn: NDArray[np.float64]) -> float:
    defined = drawn[~np.isnan(drawn)]
    tail = min(np.sum(defined <= 0), np.sum(defined >= 0))
    return float(min(2 * (tail + 1) / (len(defined) + 1), 1.0))


def _as_list(statistics: Statistic | Sequence[Statistic]) -> list[Statistic]:
    found = [statistics] if callable(statistics) else list(statistics)
    if not found:
        raise InputError("a comparison needs at least one seed on each side; found none.")
    return found
