"""What a training epoch takes with one method and with another, in turns."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from timing import Seconds, Work, in_turns

from trueread import TrainConfig, fit
from trueread.cohort.cohort import Cohort
from trueread.training.hooks import Hooks


def seconds_of_epochs(
    cohort: Cohort, methods: Mapping[str, Hooks], config: TrainConfig, *, rounds: int
) -> dict[str, Seconds]:
    """By method, the seconds of the epochs alone, float [rounds]: without validation and what a method does before."""
    taken: dict[str, list[float]] = {name: [] for name in methods}

    def epoch(name: str) -> None:
        history = fit(cohort, methods[name], config, quiet=True).history
        taken[name].append(float(history["seconds"].sum()))

    works: dict[str, Work] = {name: partial(epoch, name) for name in methods}
    in_turns(works, rounds=rounds)
    return {name: np.array(values[1:]) for name, values in taken.items()}  # the first warmed up
