"""What there is to give away: each label as numbers, where it is known and enough patients have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trueread.cohort.cohort import SPLITS, Cohort
from trueread.errors import NotMeasured

MINIMUM_PATIENTS = 5  # with the label and without it; fewer are not tested
EVERYWHERE = "all"  # beside train, val and test


@dataclass(frozen=True, eq=False)
class Target:
    """One label in one place.

    label, other: the names of what is told apart; other is "" for grades. split: "train", "val", "test" or "all".
    rows: int64 [m], the images there whose label is known. values: float64 [m], 0 or 1, or grades.
    """

    label: str
    other: str
    split: str
    rows: NDArray[np.int64]
    values: NDArray[np.float64]

    @property
    def is_graded(self) -> bool:
        return not self.other


def targets_of(cohort: Cohort) -> list[Target]:
    """Binary: the positive class. Multiclass: each class against the rest. Ordinal: the grades. Multilabel: each
    label, where it is known. All of the whole cohort.
    """
    rows, labels = np.arange(len(cohort)), cohort.labels
    if cohort.task == "binary":
        return [Target(cohort.classes[1], cohort.classes[0], EVERYWHERE, rows, labels.astype(float))]
    if cohort.task == "ordinal":
        return [Target("grade", "", EVERYWHERE, rows, labels.astype(float))]
    if cohort.task == "multiclass":
        return [
            Target(name, "the rest", EVERYWHERE, rows, (labels == k).astype(float))
            for k, name in enumerate(cohort.classes)
        ]
    known = [np.flatnonzero(~np.isnan(column)) for column in labels.T]
    return [
        Target(name, f"no {name}", EVERYWHERE, known[k], labels[known[k], k].astype(float))
        for k, name in enumerate(cohort.classes)
    ]


def classes_of(cohort: Cohort) -> NDArray[np.int64]:
    """int64 [N]: the class, or for multilabel the combination of labels (an unknown one being a kind of its own)."""
    if cohort.task != "multilabel":
        return cohort.labels
    return np.unique(np.nan_to_num(cohort.labels, nan=2), axis=0, return_inverse=True)[1].reshape(-1)


def in_splits(cohort: Cohort, targets: Sequence[Target]) -> list[Target]:
    """The same targets inside train, val and test, where the cohort has more than one of them."""
    split = cohort.table["split"].to_numpy()
    present = [s for s in SPLITS if (split == s).any() and not (split == s).all()]
    return [
        Target(t.label, t.other, place, t.rows[split[t.rows] == place], t.values[split[t.rows] == place])
        for t in targets
        for place in present
    ]


def with_enough_patients(targets: Sequence[Target], clusters: NDArray) -> tuple[list[Target], str]:
    """Those with enough patients on both sides, and a sentence that names the others, or "".

    clusters: int64 [N], each image's patient. Raises NotMeasured when none of the whole cohort is left.
    """
    enough = [t for t in targets if n_of_the_rarer(t.values, clusters[t.rows]) >= MINIMUM_PATIENTS]
    if not any(t.split == EVERYWHERE for t in enough):
        raise NotMeasured(f"no label has {MINIMUM_PATIENTS} patients with it and {MINIMUM_PATIENTS} without.")
    few = [t.label if t.split == EVERYWHERE else f"{t.label} in {t.split}" for t in targets if t not in enough]
    if not few:
        return enough, ""
    return enough, f" Not tested, because fewer than {MINIMUM_PATIENTS} patients have it or lack it: {', '.join(few)}."


def n_of_the_rarer(values: NDArray, clusters: NDArray) -> int:
    """Patients that have the most common value, or that have another one: whichever are fewer."""
    if len(values) == 0:
        return 0
    found, counts = np.unique(values, return_counts=True)
    common = values == found[counts.argmax()]
    return min(len(np.unique(clusters[common])), len(np.unique(clusters[~common])))
