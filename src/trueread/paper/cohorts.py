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
    "lesion-or-skin": HAM10000 | {"name": "lesion-or-skin", "mask": "mask", "size": 240, "fit": "stretch"},
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


WINDOW = 96  # side in pixels of what is cut out of an image
PART_OF_IT = (0.05, 0.4)  # share of a window that a lesion fills


def lesion_or_skin(cohort: Cohort) -> Cohort:
    """One window of each image, drawn at random: of skin alone, or with a lesion anywhere in it.

    Of the images that have a window outside of the mask, half (by chance) give one of these; the others give one of
    which the mask fills 5 to 40 %; an image without either is left out. So a lesion is told from none, as a diagnosis
    from health, and lies as often off the middle as in it.
    """
    assert cohort.masks is not None
    rng, kept, corners, labels = np.random.default_rng(0), [], [], []
    for i, mask in enumerate(cohort.masks):
        summed = np.pad((mask > 0).astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        low, high = summed[:-WINDOW], summed[WINDOW:]
        share = (high[:, WINDOW:] - high[:, :-WINDOW] - low[:, WINDOW:] + low[:, :-WINDOW]) / WINDOW**2
        skin, lesion = np.argwhere(share == 0), np.argwhere((share >= PART_OF_IT[0]) & (share <= PART_OF_IT[1]))
        label = int(rng.random() < 0.5 or len(skin) == 0)
        found = lesion if label else skin
        if len(found):
            kept.append(i)
            corners.append(found[rng.integers(len(found))])
            labels.append(label)
    cut = [(slice(y, y + WINDOW), slice(x, x + WINDOW)) for y, x in corners]
    return replace(
        cohort.subset(kept), classes=("skin", "lesion"), labels=np.array(labels, np.int64), task="binary",
        images=np.stack([cohort.images[i][:, y, x] for i, (y, x) in zip(kept, cut, strict=True)]),
        masks=np.stack([cohort.masks[i][y, x] for i, (y, x) in zip(kept, cut, strict=True)]),
    )  # fmt: skip


RELABELLED: dict[str, Callable[[Cohort], Cohort]] = {"kermany-three": by_germ, "lesion-or-skin": lesion_or_skin}
