"""Are numbers linked with the label? Rank statistics, and p-values from exchanging whole patients.

The test asks whether a number is independent of the label once patients are kept together. Every permutation lets each
patient take the labels of another one. The statistic is studentised with a variance over patients, because without it
a class whose patients have more images than others, or are few among many, alarms too often (Janssen, Statistics and
Probability Letters 36 (1997) 9; DiCiccio and Romano, Journal of the American Statistical Association 112 (2017) 1211).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from trueread.errors import InputError
from trueread.stats.bootstrap import check_clusters
from trueread.stats.estimate import Estimate

Seed = int | Sequence[int]

_CHUNK = 1 << 22  # numbers in a temporary array (16 MB of float32): a few permutations of a large cohort at a time
_SAME = 1e-5  # relative; the same statistic from another order of float32 sums must count as equal
_NOTHING = 1e-9  # a sum of squares of numbers of order 1 that rounding leaves of 0
_TAIL = 0.99
_ALIKE = 20  # patients of about as many images, among whom labels are exchanged
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
    blocks = _Blocks.of(values, midranks(target), clusters)
    exchanged = exchanged_rows(blocks.clusters, permutations=permutations, rng=rng)
    drawn = np.concatenate([blocks.statistic(rows) for rows in exchanged])
    observed = blocks.statistic(np.arange(len(blocks.targets))[None])[0]
    return observed.astype(np.float64), drawn.astype(np.float64)


def midranks(values: NDArray) -> NDArray[np.float64]:
    """Ranks 1..n of each column of [n,P]; equal numbers share the mean of theirs."""
    return np.stack([_count_below(column, column) + 0.5 for column in values.T], axis=1)


def exchanged_rows(clusters: NDArray, *, permutations: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """For each permutation and row, the row whose label it takes: int64 [r,n], a few permutations at a time.

    Every patient takes the labels of one other patient that has as many images, or nearly as many where fewer than 20
    have as many. One with more images than the other goes round them again, one with fewer takes a stretch of them;
    where that stretch begins is drawn.
    """
    groups, codes, sizes = np.unique(check_clusters(clusters), return_inverse=True, return_counts=True)
    at_a_time = max(1, _CHUNK // len(codes))
    chunks = [min(at_a_time, permutations - start) for start in range(0, permutations, at_a_time)]
    if len(groups) == len(codes):
        for r in chunks:
            yield rng.permuted(np.tile(np.arange(len(codes)), (r, 1)), axis=1)
        return
    order = np.argsort(codes, kind="stable")
    starts = np.cumsum(sizes) - sizes
    place = np.empty(len(codes), np.int64)  # of each row among the rows of its patient
    place[order] = np.arange(len(codes)) - starts[codes[order]]
    by_size = np.argsort(sizes, kind="stable")
    stratum = _strata(sizes[by_size])
    for r in chunks:
        partner = np.empty((r, len(groups)), np.int64)
        partner[:, by_size] = by_size[np.argsort(stratum + rng.random((r, len(groups))), axis=1)]
        begin = rng.integers(0, 1 << 30, size=partner.shape) % sizes[partner]
        stretch = (begin[:, codes] + place) % sizes[partner][:, codes]
        yield order[starts[partner][:, codes] + stretch]


def _strata(ascending: NDArray) -> NDArray[np.int64]:
    """Of sizes in ascending order [G], the stratum of each: equal sizes together, and at least 20 in each stratum."""
    stratum = np.zeros(len(ascending), np.int64)
    begin = 0
    for end in [*np.flatnonzero(np.diff(ascending)) + 1, len(ascending)]:
        if end - begin >= _ALIKE and len(ascending) - end >= _ALIKE:
            stratum[end:] += 1
            begin = end
    return stratum


def p_values(observed: NDArray, drawn: NDArray) -> NDArray[np.float64]:
    """(1 + #{drawn >= observed}) / (1 + R): the sample itself counts (Davison and Hinkley 1997, eq. 4.11).

    observed: float [..., P]. drawn: float [R,P], the same statistic after R permutations; nan (not defined) is left
    out.
    """
    at_least = (drawn >= observed[..., None, :] * (1 - _SAME)).sum(axis=-2)
    return (1 + at_least) / (1 + (~np.isnan(drawn)).sum(axis=0))


def step_down(observed: NDArray, drawn: NDArray) -> NDArray[np.float64]:
    """p-values [P] that hold the family-wise error over P numbers, two-sided.

    observed: float [P]. drawn: float [R,P], of the same permutations, so that they depend on each other as the numbers
    do. Holm's procedure with the permutation distribution of the largest statistic in place of the factor P: as safe,
    and 1000 permutations are enough for any P, while Holm's smallest p-value would be P / 1001. Each statistic is
    first divided by the 99th percentile of its own draws: one with a heavy tail (a number that is 0 for most images,
    and a rare class) would else be the largest in most permutations and hide the others.
    Source: Westfall and Young, Resampling-Based Multiple Testing (1993), algorithm 4.1 (free step-down maxT).
    """
    size = np.abs(np.concatenate([observed[None], drawn]))  # the sample is one of the draws: then p stays exact
    scale = np.quantile(size, _TAIL, axis=0)
    size = np.divide(size, scale, out=np.zeros_like(size), where=scale > 0)
    weakest_first = np.argsort(size[0], kind="stable")
    largest = np.maximum.accumulate(size[1:, weakest_first], axis=1)
    p = p_values(size[0, weakest_first], largest)
    adjusted = np.empty(len(p))
    adjusted[weakest_first] = np.maximum.accumulate(p[::-1])[::-1]
    return adjusted


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


@dataclass(frozen=True, eq=False)
class _Blocks:
    """Rows of patients in the shape that makes a permutation a matrix product.

    values: float32 [m,P], standardised and divided by the number of rows of the patient. targets: float32 [m,K].
    weights: float32 [m], 1 over that number. clusters: int64 [m]. by_size: for every number of rows s that a patient
    has, the rows of those patients, int64 [G,s].
    When the images of every patient share one label, a patient is one row, the mean of its images: then a permutation
    is two products of large matrices.
    """

    values: NDArray[np.float32]
    targets: NDArray[np.float32]
    weights: NDArray[np.float32]
    clusters: NDArray[np.int64]
    by_size: list[NDArray[np.int64]]

    @classmethod
    def of(cls, values: NDArray, target: NDArray, clusters: NDArray) -> _Blocks:
        groups, first, codes, sizes = np.unique(clusters, return_index=True, return_inverse=True, return_counts=True)
        if np.array_equal(target, target[first][codes]):  # the images of every patient share one label
            values = np.stack([np.bincount(codes, weights=column) for column in values.T], axis=1) / sizes[:, None]
            target, codes, sizes = target[first], np.arange(len(groups)), np.ones(len(groups), np.int64)
        weights = 1 / sizes[codes]
        values, target = _standardised(values, weights), _standardised(target, weights)  # of order 1, for float32
        order = np.argsort(codes, kind="stable")
        starts = np.cumsum(sizes) - sizes
        by_size = [order[starts[sizes == s][:, None] + np.arange(s)] for s in np.unique(sizes)]
        values = values * weights[:, None]
        single = np.float32
        return cls(values.astype(single), target.astype(single), weights.astype(single), codes, by_size)

    def statistic(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """[r,K,P]: sum U / sqrt(sum U^2) when row i takes the target of rows[:, i]; 0 where U is 0 for all."""
        return np.stack([self._of_column(column, rows) for column in self.targets.T], axis=1)

    def _of_column(self, target: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        taken = target[rows]
        taken -= (taken @ self.weights / self.weights.sum())[:, None]
        r, p = len(rows), self.values.shape[1]
        total, squares = np.zeros((r, p), np.float32), np.zeros((r, p), np.float32)
        for block in self.by_size:
            if block.shape[1] == 1:
                alone, values = taken[:, block[:, 0]], self.values[block[:, 0]]
                total += alone @ values
                squares += (alone * alone) @ (values * values)
                continue
            at_a_time = max(1, _CHUNK // (r * max(p, block.shape[1])))
            for part in (block[start : start + at_a_time] for start in range(0, len(block), at_a_time)):
                of_patients = taken[:, part].transpose(1, 0, 2) @ self.values[part]  # U of each patient, [G,r,P]
                total += of_patients.sum(axis=0)
                squares += np.einsum("grp,grp->rp", of_patients, of_patients)
        return np.divide(total, np.sqrt(squares), out=np.zeros_like(total), where=squares > _NOTHING)


def _standardised(values: NDArray, weights: NDArray) -> NDArray[np.float64]:
    """[m] or [m,P] with weighted mean 0 and standard deviation 1; 0 where nothing varies."""
    weights = weights / weights.sum()
    centred = values - weights @ values
    spread = np.sqrt(weights @ centred**2)
    return np.divide(centred, spread, out=np.zeros_like(centred), where=spread > _SAME * np.abs(values).max())


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
