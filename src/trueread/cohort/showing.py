"""What to show a reader of a cohort: which images, which slice of a volume, and the names of their classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from trueread.cohort.cohort import Cohort


def class_after_class(
    positions: Iterable[int], truth: Sequence[str], patients: NDArray | Sequence[int], *, count: int
) -> list[int]:
    """At most `count` of the positions: the first of every class, the second of every class, ..., no patient twice.

    So a common class does not fill the page. truth: each image's class; patients: each image's patient; both are
    indexed by position. Classes take turns in the order in which they first appear.
    """
    waiting: dict[str, list[int]] = {}
    for i in positions:
        waiting.setdefault(truth[i], []).append(int(i))
    picked: dict[int, int] = {}  # by patient
    while len(picked) < count and any(waiting.values()):
        for name, queue in waiting.items():
            free = [i for i in queue if int(patients[i]) not in picked]
            waiting[name] = free[1:]
            if free and len(picked) < count:
                picked[int(patients[free[0]])] = free[0]
    return list(picked.values())


def slice_to_show(evidence: NDArray | None, mask: NDArray | None, *, depth: int) -> int:
    """The slice of a volume with the most evidence; without any, with the largest mask; without that, the middle one.

    evidence: float [D,H,W] or None. mask: uint8 [D,H,W] or None.
    """
    for volume in (evidence, None if mask is None else mask > 0):
        if volume is not None:
            per_slice = volume.reshape(depth, -1).sum(axis=1)
            if per_slice.max() > 0:
                return int(per_slice.argmax())
    return depth // 2


def label_names(cohort: Cohort, rows: Sequence[int] | NDArray) -> list[str]:
    """The name of each row's class; of a multilabel image those that are present, or "none"."""
    labels = cohort.labels[np.asarray(rows, dtype=np.int64)]
    if cohort.task != "multilabel":
        return [cohort.classes[y] for y in labels]
    return [", ".join(c for c, y in zip(cohort.classes, row, strict=True) if y == 1) or "none" for row in labels]
