"""A mixture of two normal distributions of one number: how far apart the parts are, and how much lies in the higher."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from trueread.errors import InputError

ITERATIONS = 200
TOLERANCE = 1e-6  # of the mean log-likelihood
NARROWEST = 1e-3  # of the standard deviation of all values, so that no part shrinks to a point


@dataclass(frozen=True)
class Mixture:
    """low, high: mean and standard deviation of each part, the low one first. share_high: of all values.

    gain: mean log-likelihood per value above that of a single normal distribution; nearly 0 where there are no two.
    """

    low: tuple[float, float]
    high: tuple[float, float]
    share_high: float
    gain: float

    @property
    def separation(self) -> float:
        """The chance that a value of the high part is larger than one of the low part: 0.5 none, 1 all."""
        return float(ndtr((self.high[0] - self.low[0]) / np.hypot(self.low[1], self.high[1])))

    def chance_high(self, values: ArrayLike) -> NDArray[np.float64]:
        """For each value the chance that it is of the high part, in [0,1]."""
        x = np.asarray(values, np.float64)
        logs = _log_parts(x, np.array([self.low, self.high]), np.array([1 - self.share_high, self.share_high]))
        return np.exp(logs[1] - np.logaddexp(logs[0], logs[1]))


def two_normals(values: ArrayLike) -> Mixture:
    """The mixture of two normal distributions that fits best, by expectation maximisation from the two halves.

    values: float [n], n at least 4, finite. The same values give the same mixture in any order, up to rounding.
    Where all values are alike both parts are the same. Raises InputError for fewer values or such as are not finite.
    Source: Dempster, Laird and Rubin 1977.
    """
    x = np.sort(np.asarray(values, np.float64).reshape(-1))
    if len(x) < 4 or not np.isfinite(x).all():
        raise InputError(f"a mixture takes at least 4 finite values; found {len(x)}, {np.isnan(x).sum()} of them nan.")
    centre, spread = float(x.mean()), float(x.std())
    if spread < 1e-12 * max(1.0, abs(centre)):
        return Mixture((centre, 0.0), (centre, 0.0), 0.5, 0.0)
    least = NARROWEST * spread
    halves = x[: len(x) // 2], x[len(x) // 2 :]
    parts = np.array([[half.mean(), max(half.std(), least)] for half in halves])
    shares, before = np.array([0.5, 0.5]), -np.inf
    for _ in range(ITERATIONS):
        logs = _log_parts(x, parts, shares)
        total = np.logaddexp(logs[0], logs[1])
        fit = float(total.mean())
        if fit - before < TOLERANCE:
            break
        before = fit
        weight = np.exp(logs - total)
        sums = np.maximum(weight.sum(axis=1), 1e-12)
        means = (weight @ x) / sums
        sds = np.sqrt((weight * (x - means[:, None]) ** 2).sum(axis=1) / sums)
        parts, shares = np.stack([means, np.maximum(sds, least)], axis=1), sums / len(x)
    order = np.argsort(parts[:, 0])
    low, high = (tuple(float(v) for v in parts[i]) for i in order)
    single = -0.5 * np.log(2 * np.pi * spread**2) - 0.5
    return Mixture(low, high, float(shares[order[1]]), max(0.0, float(fit - single)))  # type: ignore[arg-type]


def _log_parts(x: NDArray[np.float64], parts: NDArray, shares: NDArray) -> NDArray[np.float64]:
    """float [2,n]: log of share times density."""
    mean, sd = parts[:, :1], parts[:, 1:]
    return (
        np.log(np.maximum(shares, 1e-300))[:, None]
        - np.log(sd)
        - 0.5 * np.log(2 * np.pi)
        - 0.5 * ((x - mean) / sd) ** 2
    )
