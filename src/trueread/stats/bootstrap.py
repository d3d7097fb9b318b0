"""The patient-clustered bootstrap as one matrix expression.

A statistic is a function of row weights. Weights of one give the point estimate; weights that count how often each
row's patient was drawn give a resample. So a metric is written once, for all resamples at a time, and rows are never
copied. Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), ch. 13 (percentile interval); whole
patients are drawn as in Rutter, Academic Radiology 7 (2000) 413.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from trueread.errors import InputError
from trueread.stats.estimate import Estimate

Weights = NDArray[np.floating]  # [R,n], not negative: how often each of n rows counts in each of R resamples
Values = NDArray[np.float64]  # [R], or [R,M] for M numbers at once; nan where not defined
Statistic = Callable[[Weights], Values]

# Weights per chunk of resamples (2 MB): the few temporaries of a metric stay in the processor's cache, which is what
# makes it fast, and the working memory stays far below 256 MB for any cohort of less than several million images.
_CHUNK_WEIGHTS = 1 << 19

# The ends of the scales of metrics and of gaps between them. Where every resample gives one of these, no patient in the
# sample was ever wrong (or right), and the bootstrap cannot draw one who would be.
_EDGES = (0.0, 1.0)
_SAME = 1e-6  # float32 weights round a sum of equal values by less than this


def cluster_weights(clusters: NDArray, *, resamples: int, seed: int) -> NDArray[np.float32]:
    """How often each row counts in each resample, when whole clusters are drawn with replacement.

    clusters: int64 [n], the code of each row's patient; any integers.
    resamples: R, at least 1. seed: the same seed gives the same draws for the same patients, in any order of the rows.
    Returns float32 [R,n] of whole numbers (exact up to 2**24). Rows of one cluster share their weight; over the G
    clusters the weights are multinomial (G draws, equal chances).
    """
    return np.concatenate(list(_chunks(clusters, resamples=resamples, seed=seed)))


def distribution(statistic: Statistic, clusters: NDArray, *, resamples: int = 1000, seed: int = 0) -> Values:
    """The statistic of every resample, [R] or [R,M]; nan where a resample does not define it. See `cluster_weights`."""
    return np.concatenate([statistic(weights) for weights in _chunks(clusters, resamples=resamples, seed=seed)])


def bootstrap(
    statistic: Statistic, clusters: NDArray, *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Estimate:
    """A scalar statistic with its percentile interval over patients.

    statistic: weights [R,n] -> [R]. clusters: int64 [n], the code of each row's patient.
    level: of the interval, in (0, 1).
    Resamples that do not define the statistic (nan; a class is absent, say) are left out; when they are more than half,
    when there is only one patient, or when every resample gives 0 or every one gives 1 (a perfect score in too few
    patients, which says nothing about the next one), the interval is nan.
    """
    return bootstrap_many(
        lambda weights: statistic(weights)[:, None], clusters, resamples=resamples, seed=seed, level=level
    )[0]


def bootstrap_many(
    statistic: Statistic, clusters: NDArray, *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> list[Estimate]:
    """As `bootstrap` for a statistic of M numbers, weights [R,n] -> [R,M]: M estimates from the same draws."""
    clusters = check_clusters(clusters)
    values = point_values(statistic, len(clusters))
    drawn = distribution(statistic, clusters, resamples=resamples, seed=seed)
    low, high = _informative(*percentile_interval(drawn, level=level, clusters=clusters), drawn)
    n, n_clusters = len(clusters), len(np.unique(clusters))
    return [
        Estimate(float(v), float(a), float(b), n=n, n_clusters=n_clusters)
        for v, a, b in zip(values, low, high, strict=True)
    ]


def mean_over_seeds(
    statistics: Sequence[Statistic],
    clusters: NDArray,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    correct_bias: bool = False,
) -> Estimate:
    """One scalar statistic of several training runs (seeds) on the same rows: the mean and its interval over patients.

    statistics: one per seed, each weights [R,n] -> [R] over the same rows.
    Returns the mean over seeds; the interval of that mean over patients (all seeds see the same draws; nan as for
    `bootstrap`); `spread`, the
    standard deviation over seeds (ddof 1; None for one seed). The interval does not contain the spread: it says how
    the mean would vary with other patients, the spread how it varies with another training.
    correct_bias: for a distance that noise can only push up (a calibration error). Its percentile interval may not even
        contain it, because every resample adds noise to that of the sample. Noise adds in squares, so the squared value
        is freed of the bias that the squared resamples show; the squared lower end of twice that, the sample's and the
        resamples' own; the squared upper end of it once, because twice puts that end below a real error too often.
        None below 0 (bootstrap bias, Efron and Tibshirani 1993, chapter 10; in squares, ours). In simulations of an
        ECE of 0, 0.1 and 0.2 at 300 and 1000 images (200 runs each) the interval lay below the truth in 0 to 3.5 %
        of runs, and above it in 0 to 3 % (nominal 2.5 %); with the bias taken twice from the upper end, below it in
        up to 6 %.
    """
    if len(statistics) == 0:
        raise InputError("the mean over seeds needs at least one seed; found none.")
    clusters = check_clusters(clusters)
    points = point_values(stack(statistics), len(clusters))
    value = float(points.mean())
    drawn = distribution(stack([average(statistics)]), clusters, resamples=resamples, seed=seed)
    ends = _informative(*percentile_interval(drawn, level=level, clusters=clusters), drawn)
    low, high = (float(end[0]) for end in ends)
    if correct_bias and low == low:
        bias = float(np.nanmean(drawn**2)) - value**2
        squares = (value**2 - bias, low**2 - 2 * bias, high**2 - bias)
        value, low, high = (max(square, 0.0) ** 0.5 for square in squares)
        if low == high:  # cut off at 0 on both sides: as little an interval as that of a perfect score
            low = high = float("nan")
    return Estimate(
        value,
        low,
        high,
        n=len(clusters),
        n_clusters=len(np.unique(clusters)),
        spread=float(points.std(ddof=1)) if len(points) > 1 else None,
        n_seeds=len(points),
    )


def weighted_mean(values: NDArray) -> Statistic:
    """The mean of a per-row value as a statistic.

    values: float or bool [n], or [n,M] for M means at once; nan = not measured for this row, which is left out.
    """
    values = np.asarray(values, dtype=np.float64)
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    if known.all():
        return lambda weights: ratio((weights @ filled).T, weights.sum(axis=1, dtype=np.float64)).T
    return lambda weights: ratio(weights @ filled, weights @ known.astype(np.float64))


def stack(statistics: Sequence[Statistic]) -> Statistic:
    """Several scalar statistics as one of [R,M], so that they are computed on the same draws."""
    return lambda weights: np.stack([statistic(weights) for statistic in statistics], axis=1)


def average(statistics: Sequence[Statistic]) -> Statistic:
    """The unweighted mean of several scalar statistics; nan where any is nan, or when there is none."""
    if not statistics:
        return undefined
    return lambda weights: np.mean([statistic(weights) for statistic in statistics], axis=0)


def on_rows(statistic: Statistic, rows: NDArray) -> Statistic:
    """A statistic of some rows as a statistic of all: for a subgroup, resampled together with the whole cohort.

    rows: int64 [m], positions among the n rows; `statistic` is built on these m rows, in this order.
    """
    return lambda weights: statistic(np.take(weights, rows, axis=1))


def undefined(weights: Weights) -> Values:
    """The statistic that is never defined: nan [R]."""
    return np.full(len(weights), np.nan)


def row_mean(values: Values) -> Values:
    """The mean of each row of [R,M]; nan (and no warning) when there is no column."""
    return values.mean(axis=1) if values.shape[1] else undefined(values)


def mean_of_known(values: NDArray) -> Values:
    """The mean over the first axis of float [S,...] of what is not nan; nan where nothing is known."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0))


def ratio(numerator: NDArray, denominator: NDArray) -> Values:
    """numerator / denominator, nan (and no warning) where the denominator is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator == 0, np.nan, numerator / denominator)


def point_values(statistic: Statistic, n: int) -> Values:
    """The statistic with every row counted once: [1] for a scalar one, [M] otherwise."""
    return np.ravel(statistic(np.ones((1, n))))


def percentile_interval(values: Values, *, level: float, clusters: NDArray) -> tuple[Values, Values]:
    """Both ends [M] of the percentile interval of each column of `values` [R,M]; nan as `bootstrap` says."""
    if not 0 < level < 1:
        raise InputError(f"the level of an interval must be between 0 and 1; found {level}; 0.95 is usual.")
    ends = np.full((2, values.shape[1]), np.nan)
    defined = ~np.isnan(values)
    usable = defined.mean(axis=0) >= 0.5
    if usable.any() and np.ptp(clusters) > 0:  # one patient alone says nothing about other patients
        ends[:, usable] = np.nanquantile(values[:, usable], [(1 - level) / 2, (1 + level) / 2], axis=0)
    return ends[0], ends[1]


def _informative(low: Values, high: Values, drawn: Values) -> tuple[Values, Values]:
    """The ends [M] of intervals, nan where every resample of the column of `drawn` [R,M] is at one edge."""
    known = np.where(np.isnan(drawn), low, drawn)
    empty = np.any([np.all(np.abs(known - edge) <= _SAME, axis=0) for edge in _EDGES], axis=0)
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


def check_clusters(clusters: NDArray) -> NDArray[np.int64]:
    """The clusters as int64 [n]. Raises InputError when they are not integers in one dimension."""
    clusters = np.asarray(clusters)
    if clusters.ndim != 1 or len(clusters) == 0 or not np.issubdtype(clusters.dtype, np.integer):
        raise InputError(
            f"clusters must be integers [n], the code of each row's patient; found {clusters.dtype} of shape "
            f"{clusters.shape}; give the cohort's patient codes."
        )
    return clusters.astype(np.int64)


def _chunks(clusters: NDArray, *, resamples: int, seed: int) -> Iterator[NDArray[np.float32]]:
    """The weights of `cluster_weights`, a few resamples at a time; how many does not change the draws."""
    if resamples < 1:
        raise InputError(f"the bootstrap needs at least one resample; found {resamples}; 1000 is usual.")
    groups, codes = np.unique(check_clusters(clusters), return_inverse=True)
    singletons_in_order = np.array_equal(codes, np.arange(len(groups)))
    generator = np.random.default_rng(seed)
    size = max(1, _CHUNK_WEIGHTS // len(codes))
    for start in range(0, resamples, size):
        counts = _draw(generator, len(groups), min(size, resamples - start))
        yield counts if singletons_in_order else np.take(counts, codes, axis=1)


def _draw(generator: np.random.Generator, n_groups: int, resamples: int) -> NDArray[np.float32]:
    """Multinomial counts [resamples, n_groups]: counting uniform draws is ten times faster than `multinomial`."""
    drawn = generator.integers(0, n_groups, size=(resamples, n_groups))
    drawn += np.arange(resamples)[:, None] * n_groups  # each resample counts in its own stretch of one long bincount
    counts = np.bincount(drawn.ravel(), minlength=resamples * n_groups)
    return counts.reshape(resamples, n_groups).astype(np.float32)
