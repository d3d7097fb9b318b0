"""What features hold: how many directions they use, and what their neighbours say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TEMPERATURE = 0.07  # of the votes of neighbours
AT_ONCE = 1024  # rows whose neighbours are looked for


def effective_rank(features: NDArray) -> float:
    """The exponential of the entropy of the singular values (each over their sum) of centred features float [n,d]: in
    [1, d], and 1 for features that are all alike. Source: Roy and Vetterli 2007, EUSIPCO.
    """
    x = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    values = np.linalg.svd(x, compute_uv=False)
    total = values.sum()
    if not total > 1e-8 * max(1.0, float(np.abs(features).max())) * np.sqrt(x.size):
        return 1.0
    share = values[values > 0] / total
    return float(np.exp(-(share * np.log(share)).sum()))


def spread_of_dimensions(features: NDArray) -> float:
    """Mean standard deviation of the dimensions of features float [n,d] of length 1, times the root of d: 1 for even
    ones, 0 when all are alike. Source: Chen and He 2021, CVPR, section 4.1.
    """
    x = unit(features)
    return float(x.std(axis=0).mean() * np.sqrt(x.shape[1]))


def nearest_probabilities(
    bank: NDArray, labels: NDArray, asked: NDArray, *, n_classes: int, k: int = 20
) -> NDArray[np.float64]:
    """float64 [n,K]: the votes of the k nearest of a bank float [m,d] with labels int64 [m], by cosine, for features
    float [n,d]; a vote weighs exp(cosine / 0.07). Source: Wu et al. 2018, CVPR, section 3.4.
    """
    x, y = unit(bank), unit(asked)
    k = min(k, len(x))
    votes = np.zeros((len(y), n_classes))
    for start in range(0, len(y), AT_ONCE):
        alike = y[start : start + AT_ONCE] @ x.T
        near = np.argpartition(-alike, k - 1, axis=1)[:, :k]
        weight = np.exp((np.take_along_axis(alike, near, axis=1) - 1) / TEMPERATURE)
        rows = np.repeat(np.arange(len(near)), k)
        np.add.at(votes[start : start + AT_ONCE], (rows, labels[near].ravel()), weight.ravel())
    return votes / votes.sum(axis=1, keepdims=True)


def unit(features: NDArray) -> NDArray[np.float64]:
    """Rows of length 1; rows of zeros stay zero."""
    x = features.astype(np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
