"""Are numbers linked with the label? Rank statistics, and p-values from exchanging whole patients.

The test asks whether a number is independent of the label once patients are kept together. Every permutation lets each
patient take the labels of another one. The statistic is studentised with a variance over patients, because without it
a class whose patients have more images than others, or are few among many, alarms too often (Janssen, Statistics and
Probability Letters 36 (1997) 9; DiCiccio and Romano, Journal of the American Statistical Association 112 (2017) 1211).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from trueread.errors import InputError
from trueread.stats.bootstrap import check_clusters
from trueread.stats.estimate import Estimate
from trueread.stats.permutation import Blocks, Seed, exchanged_rows, p_values, step_down

_NOTHING = 1e-9  # a sum of squares of numbers of order 1 that rounding leaves of 0
_TWO_SIDED = 1.959964  # standard errors to either side of a 95 % interval


@dataclass(frozen=True, eq=False)
class Links:
    """How P numbers go with one label. All arrays float64 [P].

    statistic: studentised; positive when the number rises with the label. p_value: two-sided, of each number alone.
    p_adjusted: for having looked at P numbers, see `step_down`.
    """

    statistic: NDArray[np.float64]
    p_value: NDArray[np.float64]
    p_adjusted: NDArray[np.float64]


def linked(values: NDArray, target: NDArray, clusters: NDArray, *, permutations: int = 1000, seed: Seed = 0) -> Links:
    """Test P numbers for a monotone link with one label.

    values: float [n,P], finite. target: [n], 0 or 1, or grades. clusters: int64 [n], the code of each row's patient.
    With x the centred midranks of a number, t those of the target, and U_g the mean of x t over the images of patient
    g, the statistic is sum U_g / sqrt(sum U_g^2): a patient counts once, or one with hundreds of images would decide.
    p = (1 + #{|T*| >= |T|}) / (1 + permutations), so it is never 0.

    Exact when patients are exchangeable and each has one label, or all have equally many images; otherwise approximate,
    and the studentised statistic keeps it near its level. A number that does not vary has p = 1.
    """
    values, clusters = _checked(values, target, clusters)
    column, rng = np.asarray(target)[:, None], np.random.default_rng(seed)
    [observed], drawn = _permuted(midranks(values), column, clusters, permutations=permutations, rng=rng)
    drawn = drawn[:, 0]
    return Links(observed, p_values(np.abs(observed), np.abs(drawn)), step_down(observed, drawn))


def linked_together(
    values: NDArray,
    target: NDArray,
    clusters: NDArray,
    *,
    within: NDArray | None = None,
    permutations: int = 1000,
    seed: Seed = 0,
) -> float:
    """The p-value of P numbers as one: are they together linked with the target in a linear way?

    values, clusters: as in `linked`. target: [n] as there, or [n,K] for a target of several columns, such as one for
    each value of a category. within: int64 [n]; labels are exchanged inside each group alone, and a link between groups
    does not count. None is one group.
    The numbers of a group are first made uncorrelated; the statistic is the sum of the squares of the studentised
    statistics of all numbers, columns and groups. 1 when none of them varies.
    """
    values, clusters = _checked(values, target, clusters)
    target = np.asarray(target, dtype=np.float64).reshape(len(values), -1)
    groups = np.zeros(len(values), np.int64) if within is None else within
    rng = np.random.default_rng(seed)
    observed, drawn = np.zeros(1), np.zeros(permutations)
    for group in np.unique(groups):
        rows = groups == group
        apart = _uncorrelated(values[rows])
        if apart.shape[1] and np.ptp(target[rows], axis=0).any():
            own, permuted = _permuted(apart, target[rows], clusters[rows], permutations=permutations, rng=rng)
            observed += np.sum(own**2)
            drawn += np.sum(permuted**2, axis=(1, 2))
    return float(p_values(observed, drawn[:, None])[0])


def _uncorrelated(values: NDArray) -> NDArray[np.float64]:
    """The principal axes of [n,P] along which it varies at all."""
    centred = values - values.mean(axis=0)
    spread, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    return centred @ axes[:, spread > _NOTHING * max(spread.max(initial=0.0), _NOTHING)]


def _permuted(
    values: NDArray, target: NDArray, clusters: NDArray, *, permutations: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The studentised statistics of K target columns and P numbers: of the sample, [K,P], and permuted, [R,K,P]."""
    blocks = Blocks.of(values, midranks(target), clusters)
    exchanged = exchanged_rows(blocks.clusters, permutations=permutations, rng=rng)
    drawn = np.concatenate([blocks.statistic(rows) for rows in exchanged])
    observed = blocks.statistic(np.arange(len(blocks.targets))[None])[0]
    return observed.astype(np.float64), drawn.astype(np.float64)


def midranks(values: NDArray) -> NDArray[np.float64]:
    """Ranks 1..n of each column of [n,P]; equal numbers share the mean of theirs."""
    return np.stack([_count_below(column, column) + 0.5 for column in values.T], axis=1)


def concordance(
    values: NDArray, target: NDArray, clusters: NDArray, *, within: NDArray | None = None
) -> list[Estimate]:
    """The chance that, of two images whose target differs, the one with the higher target has the higher number.

    values: float [n,P], finite. target: [n]; 0 and 1 (then it is the AUROC), or grades. clusters: int64 [n].
    within: int64 [n]; only pairs inside a group are compared, such as a fold of cross-validation, whose scores come
    from a fit of its own. None compares all.
    Returns P estimates; equal numbers count one half. The interval is value +- 1.96 standard errors, cut at 0 and 1,
    from the sums over patients of each image's share in the pairs: for two classes DeLong's variance, clustered
    (Obuchowski, Biometrics 53 (1997) 567) but for its factors G / (G - 1). nan without two different targets.
    """
    values, clusters = _checked(values, target, clusters)
    codes = np.unique(clusters, return_inverse=True)[1]
    n, n_patients = len(values), int(codes.max()) + 1
    won, pairs = np.zeros_like(values), np.zeros(n)
    groups = np.zeros(n, np.int64) if within is None else within
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        won[rows], pairs[rows] = _pairs_won(values[rows], target[rows])
    if not pairs.any():
        return [Estimate(float("nan"), n=n, n_clusters=n_patients) for _ in values.T]
    estimates = []
    for wins in won.T:
        value = float(wins.sum() / pairs.sum())
        of_patients = np.bincount(codes, weights=wins - value * pairs)
        half = _TWO_SIDED * 2 * float(np.sqrt(np.sum(of_patients**2)) / pairs.sum())
        low, high = (max(value - half, 0.0), min(value + half, 1.0)) if half > 0 else (float("nan"), float("nan"))
        estimates.append(Estimate(value, low, high, n=n, n_clusters=n_patients))
    return estimates


def _pairs_won(values: NDArray, target: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each row: with how many of another target its order is right, [n,P], and how many there are, [n]."""
    won, pairs = np.zeros_like(values), np.zeros(len(values))
    for grade in np.unique(target):
        mine, lower, higher = target == grade, target < grade, target > grade
        pairs[mine] = lower.sum() + higher.sum()
        for p, column in enumerate(values.T):
            beaten = _count_below(column[mine], column[lower])
            won[mine, p] = beaten + higher.sum() - _count_below(column[mine], column[higher])
    return won, pairs


def mean_over_cells(values: NDArray, cells: NDArray, clusters: NDArray) -> Estimate:
    """The unweighted mean over cells of the mean of each cell, with its interval over patients.

    values: float [n]. cells: int64 [n]. clusters: int64 [n]. With values "was right" and cells the true classes it is
    balanced accuracy; with the paired difference of two probes it is what one loses. The interval is value +- 1.96
    standard errors, from sums over patients; nan where nothing varies.
    """
    codes, n_images = np.unique(cells, return_inverse=True, return_counts=True)[1:]
    means = np.bincount(codes, weights=values) / n_images
    parts = (values - means[codes]) / (n_images[codes] * len(n_images))
    of_patients = np.bincount(np.unique(check_clusters(clusters), return_inverse=True)[1], weights=parts)
    half = _TWO_SIDED * float(np.sqrt(np.sum(of_patients**2)))
    value = float(means.mean())
    low, high = (value - half, value + half) if half > 0 else (float("nan"), float("nan"))
    return Estimate(value, low, high, n=len(values), n_clusters=len(of_patients))


def above(estimate: Estimate, null: float, *, freedom: int) -> float:
    """One-sided p-value of an estimate whose interval is +- 1.96 standard errors, by Student's t; 0 or 1 without an
    interval.

    freedom: degrees of freedom, at least 1: one less than the patients of the smallest cell, who decide how well the
    standard error is known.
    """
    if np.isnan(estimate.low):
        return float(not estimate.value > null)
    return float(stdtr(freedom, (null - estimate.value) * 2 * _TWO_SIDED / (estimate.high - estimate.low)))


def cramers_v(table: NDArray) -> float:
    """Cramer's V of a table of counts [A,K], corrected for bias, in [0,1]: 0 for no link, 1 when one tells the other.

    Rows and columns of zeros do not count; nan when fewer than two of either are left. Without the correction V of
    independent columns grows with the number of values. Source: Bergsma, Journal of the Korean Statistical Society 42
    (2013) 323.
    """
    table = np.asarray(table, dtype=np.float64)
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    rows, columns = table.shape
    n = table.sum()
    if rows < 2 or columns < 2 or n < 2:
        return float("nan")
    phi2 = max(0.0, float(chi_squared(table) / n) - (rows - 1) * (columns - 1) / (n - 1))
    fewer = min(rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)) - 1
    return min(float(np.sqrt(phi2 / fewer)), 1.0) if fewer > 0 else float("nan")


def chi_squared(tables: NDArray) -> NDArray[np.float64]:
    """Pearson's statistic of tables of counts [...,A,K]; rows and columns of zeros add nothing."""
    expected = tables.sum(axis=-1, keepdims=True) * tables.sum(axis=-2, keepdims=True)
    expected = expected / np.maximum(tables.sum(axis=(-2, -1), keepdims=True), 1e-300)
    parts = np.divide((tables - expected) ** 2, expected, out=np.zeros_like(expected), where=expected > 0)
    return parts.sum(axis=(-2, -1))


def _count_below(values: NDArray, others: NDArray) -> NDArray[np.float64]:
    """How many of `others` are below each value, equal ones counting one half."""
    others = np.sort(others)
    return (np.searchsorted(others, values, "left") + np.searchsorted(others, values, "right")) / 2


def _checked(values: NDArray, target: NDArray, clusters: NDArray) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    values, clusters = np.asarray(values, dtype=np.float64), check_clusters(clusters)
    if values.ndim != 2 or not len(values) == len(target) == len(clusters) or not np.all(np.isfinite(values)):
        raise InputError(
            f"values must be finite numbers [n,P] with a target and a patient for each row; found shape {values.shape} "
            f"for {len(target)} targets and {len(clusters)} patients; leave out what was not measured."
        )
    return values, clusters
