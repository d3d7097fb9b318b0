"""The clustered bootstrap beside the plain loop over scikit-learn, for the same numbers, on one core."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from options import Options
from sheet import Sheet, row
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    roc_auc_score,
)
from threadpoolctl import threadpool_limits
from timing import in_turns, middle

from trueread.stats import distribution, statistic

TITLE = "Clustered bootstrap: 1,000 resamples of 10,000 images of about 4,300 patients, one core"
PLAIN = 20  # resamples of the plain loop, whose time is scaled up
SAME = 1e-5  # float32 weights round a sum of this many values by less


def measure(sheet: Sheet, options: Options) -> None:
    """Every metric in turns with its plain loop; raises AssertionError when the two disagree."""
    images, patients, resamples = (300, 150, 40) if options.smoke else (10_000, 5_000, 1_000)
    generator = np.random.default_rng(0)
    labels = (generator.random(images) < 0.2).astype(np.int64)
    positive = 1 / (1 + np.exp(-generator.normal(2.0 * labels - 1.0)))
    probabilities = np.stack([1 - positive, positive], axis=1)
    clusters = np.sort(generator.integers(0, patients, images))
    rows_of = [np.flatnonzero(clusters == patient) for patient in np.unique(clusters)]
    decided = (positive >= 0.5).astype(np.int64)
    peers: dict[str, tuple[Callable[..., float], np.ndarray]] = {
        "auroc": (roc_auc_score, positive),
        "balanced-accuracy": (balanced_accuracy_score, decided),
        "auprc": (average_precision_score, positive),
        "macro-f1": (lambda y, d: f1_score(y, d, average="macro"), decided),
        "brier": (brier_score_loss, positive),
    }
    with threadpool_limits(1):  # the comparison is per core
        for name, (metric, values) in peers.items():

            def ours(name: str = name) -> np.ndarray:
                made = statistic(name, probabilities, labels, task="binary")
                return distribution(made, clusters, resamples=resamples, seed=0)

            def plain(metric: Callable[..., float] = metric, values: np.ndarray = values) -> np.ndarray:
                return plain_loop(metric, labels, values, rows_of, resamples=PLAIN)

            error = np.abs(ours()[:PLAIN] - plain()).max()
            assert error < SAME, f"{name}: the two bootstraps differ by {error:.1e}"
            taken = in_turns({"ours": ours, "plain": plain}, rounds=2 if options.smoke else 5)
            theirs = taken["plain"] * resamples / PLAIN
            sheet.add(
                row(name, "s", middle(taken["ours"]).value, middle(theirs / taken["ours"]),
                    peer="plain loop over scikit-learn", theirs=middle(theirs).value,
                    note=f"the same numbers to {error:.0e}")
            )  # fmt: skip


def plain_loop(
    metric: Callable[..., float], labels: np.ndarray, given: np.ndarray, rows_of: list[np.ndarray], *, resamples: int
) -> np.ndarray:
    """The textbook bootstrap: draw patients, repeat their rows, call scikit-learn. float [resamples]."""
    generator = np.random.default_rng(0)
    values = []
    for _ in range(resamples):
        drawn = generator.integers(0, len(rows_of), len(rows_of))
        rows = np.concatenate([rows_of[patient] for patient in drawn])
        values.append(metric(labels[rows], given[rows]))
    return np.array(values)
