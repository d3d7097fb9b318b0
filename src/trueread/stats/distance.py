"""How far one set of probabilities is from another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trueread.stats.tasks import Task


def total_variation(a: NDArray, b: NDArray, *, task: Task) -> NDArray[np.float64]:
    """Of probabilities [m,K] of the same images, [m] in [0,1]: half the summed |difference|; multilabel: its mean over
    labels.
    """
    moved = np.abs(np.asarray(a, np.float64) - b)
    return moved.mean(axis=1) if task == "multilabel" else moved.sum(axis=1) / 2
