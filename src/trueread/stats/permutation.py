"""Permutations of whole patients: who takes whose labels, the statistic of each permutation, and p-values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trueread.stats.bootstrap import check_clusters

Seed = int | Sequence[int]

_CHUNK = 1 << 22  # numbers in a temporary array (16 MB of float32): a few permutations of a large cohort at a time
_SAME = 1e-5  # relative; the same statistic from another order of float32 sums must count as equal
_NOTHING = 1e-9  # a sum of squares of numbers of order 1 that rounding leaves of 0
_TAIL = 0.99
_ALIKE = 20  # patients of about as many images, among whom labels are exchanged


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


@dataclass(frozen=True, eq=False)
class Blocks:
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
    def of(cls, values: NDArray, target: NDArray, clusters: NDArray) -> Blocks:
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
