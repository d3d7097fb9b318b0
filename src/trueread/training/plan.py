"""Before the first step: can this be trained at all, and in one sentence, what will be."""

from __future__ import annotations

import numpy as np

from trueread.cohort.cohort import Cohort
from trueread.errors import InputError
from trueread.stats.metrics import METRICS, point
from trueread.training.config import TrainConfig
from trueread.training.device import describe
from trueread.training.hooks import Setup


def check_trainable(
    cohort: Cohort, train: np.ndarray, val: np.ndarray, config: TrainConfig, *, n_processes: int = 1
) -> None:
    """Raise InputError when the splits at positions `train` and `val` cannot be trained on and selected by."""
    if len(train) == 0:
        raise InputError(f"{cohort.name}: the training split is empty; split the cohort first (assign_splits).")
    if config.batch_size > len(train):
        raise InputError(
            f"batch_size is {config.batch_size}, but {cohort.name} has only {len(train)} training images; "
            f"use {max(2, len(train) // 4)} or fewer."
        )
    if config.batch_size < 2 * n_processes:
        raise InputError(
            f"batch_size is {config.batch_size} for all {n_processes} processes together; give each at least two "
            f"images (batch_size={2 * n_processes})."
        )
    if len(val) == 0 and config.select != "last":
        raise InputError(f"{cohort.name}: there is no validation split to select by; add one, or use `select: last`.")
    if config.select in METRICS:
        labels = cohort.labels[val]
        flat = np.full((len(val), cohort.n_classes), 1 / cohort.n_classes)
        if np.isnan(point(config.select, flat, labels, task=cohort.task)):
            raise InputError(
                f"{cohort.name}: the validation split has one class only, so {config.select} can select no epoch; "
                "split it otherwise, or use `select: loss`."
            )
    absent = [c for c, n in zip(cohort.classes, cohort.class_counts(train), strict=True) if n == 0]
    if absent:
        raise InputError(f"{cohort.name}: the training split has no image of class '{absent[0]}'; split it otherwise.")


def announcement(what: str, setup: Setup, *, augmentation: str) -> str:
    """What is trained, on what, from which images: the line that opens a training's log."""
    cohort = setup.cohort
    counts = cohort.class_counts(setup.train_rows)
    classes = ", ".join(f"{name} {count}" for name, count in zip(cohort.classes, counts, strict=True))
    million = sum(p.numel() for p in setup.classifier.parameters()) / 1e6
    return (
        f"{what}: {setup.config.backbone} ({million:.1f} M weights, start: {setup.classifier.card.weights}), "
        f"{describe(setup.device, setup.precision)}; {len(setup.train_rows)} images ({classes}); "
        f"augmentation '{augmentation}'."
    )
