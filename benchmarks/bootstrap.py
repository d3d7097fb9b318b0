"""How long the clustered bootstrap takes, and how long the plain loop over scikit-learn takes for the same numbers.

    python benchmarks/bootstrap.py [--images 10000] [--patients 5000] [--resamples 1000] [--loop 20]

Prints; writes nothing. Both use one core. The plain loop runs `--loop` resamples and is scaled to `--resamples`.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable

import numpy as np
import sklearn
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    roc_auc_score,
)
from threadpoolctl import threadpool_limits

from trueread.stats import distribution, statistic


def plain_loop(metric: Callable, labels: np.ndarray, given: np.ndarray, rows_of: list, *, resamples: int) -> np.ndarray:
    """The textbook bootstrap: draw patients, repeat their rows, call scikit-learn."""
    generator = np.random.default_rng(0)
    values = []
    for _ in range(resamples):
        drawn = generator.integers(0, len(rows_of), len(rows_of))
        rows = np.concatenate([rows_of[patient] for patient in drawn])
        values.append(metric(labels[rows], given[rows]))
    return np.array(values)


def seconds(work: Callable[[], object], *, repeats: int = 3) -> float:
    """The shortest of a few runs: the least disturbed by whatever else the machine does."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--patients", type=int, default=5_000)
    parser.add_argument("--resamples", type=int, default=1_000)
    parser.add_argument("--loop", type=int, default=20, help="resamples of the plain loop")
    given = parser.parse_args()

    generator = np.random.default_rng(0)
    labels = (generator.random(given.images) < 0.2).astype(np.int64)
    positive = 1 / (1 + np.exp(-generator.normal(2.0 * labels - 1.0)))
    probabilities = np.stack([1 - positive, positive], axis=1)
    clusters = np.sort(generator.integers(0, given.patients, given.images))
    rows_of = [np.flatnonzero(clusters == patient) for patient in np.unique(clusters)]
    decided = (positive >= 0.5).astype(np.int64)

    peers: dict[str, tuple[Callable, np.ndarray]] = {
        "auroc": (roc_auc_score, positive),
        "balanced-accuracy": (balanced_accuracy_score, decided),
        "auprc": (average_precision_score, positive),
        "macro-f1": (lambda y, d: f1_score(y, d, average="macro"), decided),
        "brier": (brier_score_loss, positive),
    }
    print(f"{given.resamples} resamples of {given.images} images of {len(rows_of)} patients, one core")
    print(f"numpy {np.__version__}, scikit-learn {sklearn.__version__}, {platform.processor() or platform.machine()}")
    print(f"{'':20}{'trueread':>10}{'plain loop':>12}{'ratio':>8}{'same numbers to':>18}")
    total = 0.0
    for name, (metric, values) in peers.items():

        def ours(name: str = name) -> np.ndarray:
            made = statistic(name, probabilities, labels, task="binary")
            return distribution(made, clusters, resamples=given.resamples, seed=0)

        took = seconds(ours)
        start = time.perf_counter()
        slow = plain_loop(metric, labels, values, rows_of, resamples=given.loop)
        loop_took = (time.perf_counter() - start) / given.loop * given.resamples
        error = np.abs(ours()[: given.loop] - slow).max()
        total += took if name in ("auroc", "balanced-accuracy") else 0.0
        print(f"{name:20}{took:9.3f}s{loop_took:11.1f}s{loop_took / took:7.0f}x{error:18.1e}")
    print(f"AUROC and balanced accuracy together: {total:.3f} s")


if __name__ == "__main__":
    with threadpool_limits(1):  # the comparison is per core
        main()
