"""Times of rivals that take turns, so that what else the machine does is in all of them alike.

Ratios are formed round by round and then summarised by their median and the middle half of the rounds: a burst of other
work spoils one round, a slow drift spoils none.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Work = Callable[[], object]
Seconds = NDArray[np.float64]


class Middle(NamedTuple):
    """The median over the rounds, and their first and third quartile."""

    value: float
    low: float
    high: float


def middle(values: Seconds) -> Middle:
    """Median and quartiles of the rounds' values float [rounds]; rounds that are nan are left out."""
    low, value, high = np.nanquantile(np.asarray(values, np.float64), (0.25, 0.5, 0.75))
    return Middle(float(value), float(low), float(high))


def in_turns(works: Mapping[str, Work], *, rounds: int, least: float = 0.0) -> dict[str, Seconds]:
    """Seconds per call of each work, float [rounds]; all of them in each round, each round starting with another one.

    Every work is called once before, to warm up, and is itself responsible for waiting until a GPU is done.
    least: in seconds; a work that is over sooner is called as often in its turn as it takes to last that long.
    """
    calls = {name: _calls(work, least) for name, work in works.items()}
    taken = {name: np.empty(rounds) for name in works}
    for round_ in range(rounds):
        for name in rotated(list(works), round_):
            taken[name][round_] = _seconds(works[name], calls[name])
    return taken


def rotated(names: list[str], by: int) -> list[str]:
    """The names with the first `by` of them (modulo their number) moved to the end."""
    by %= max(len(names), 1)
    return names[by:] + names[:by]


def _calls(work: Work, least: float) -> int:
    work()
    return max(1, math.ceil(least / max(_seconds(work, 1), 1e-9))) if least else 1


def _seconds(work: Work, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - start) / calls


def exponent(sizes: Seconds, values: Seconds) -> float:
    """The slope of log(values) over log(sizes) by least squares: 1 is proportional growth, 2 is quadratic."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])
