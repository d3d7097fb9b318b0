"""The cohorts of the protocols: real images that somebody has in a folder, and the phantom for the smallest scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trueread.cohort.cohort import Cohort
from trueread.cohort.source import load_cohort
from trueread.cohort.split import assign_splits

KERMANY_PATIENT = r"person\d+|(?:NORMAL2-)?IM-\d+"
KERMANY = {"source": "folder:{data}/kermany", "patient": KERMANY_PATIENT, "modality": "radiograph"}
HAM10000 = {
    "source": "csv:{data}/ham10000/metadata.csv", "name": "ham10000", "patient": "lesion_id", "mask": "",
    "modality": "dermatoscopy",
}  # fmt: skip
SPLIT = {"val": 0.15, "test": 0.25}
COHORTS: dict[str, dict[str, Any]] = {
    "phantom": {"source": "phantom", "n_images": 300},
    "kermany": KERMANY,
    "kermany-three": KERMANY | {"name": "kermany-three"},
    "ham10000": HAM10000 | {"classes": ["nv", "mel"]},
    "ham10000-seven": HAM10000 | {"name": "ham10000-seven"},
    "adrenalmnist3d": {"source": "medmnist:adrenalmnist3d", "root": "{data}", "size": 28},
    "breastmnist": {"source": "medmnist:breastmnist", "root": "{data}"},
    "retinamnist": {"source": "medmnist:retinamnist", "root": "{data}"},
}


def paper_cohort(
    name: str, *, size: int, train_images: int, data: Path | None, split: Mapping[str, Any] = SPLIT, **changes: Any
) -> Cohort:
    """The split cohort, with at most so many training images, whole patients. split: options of `assign_splits`, where
    the data come without one. changes: of its options.
    """
    options = {"size": size} | COHORTS[name] | changes
    options = {k: v.format(data=data) if k in ("source", "root") else v for k, v in options.items()}
    cohort = load_cohort(options.pop("source"), **options)
    if name in RELABELLED:
        cohort = RELABELLED[name](cohort)
    if not cohort.is_split:
        cohort = assign_splits(cohort, **split)
    training = cohort.rows("train")
    if len(training) <= train_images:
        return cohort
    patients = cohort.patient_codes(training)
    order = np.random.default_rng(0).permutation(np.unique(patients))
    sizes = np.bincount(patients)[order]
    kept = training[np.isin(patients, order[: np.searchsorted(sizes.cumsum(), train_images, side="right")])]
    return cohort.subset(np.sort(np.concatenate([kept, cohort.rows("val"), cohort.rows("test")])))


def by_germ(cohort: Cohort) -> Cohort:
    """Kermany's radiographs in three classes: the file names of pneumonia say whether bacteria or a virus caused it."""
    names = cohort.table["id"].str.lower()
    labels = np.where(names.str.contains("bacteria"), 1, np.where(names.str.contains("virus"), 2, 0)).astype(np.int64)
    return replace(cohort, labels=labels, classes=("normal", "bacteria", "virus"), task="multiclass")


RELABELLED: dict[str, Callable[[Cohort], Cohort]] = {"kermany-three": by_germ}
