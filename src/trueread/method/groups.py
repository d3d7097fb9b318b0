"""Groups for methods that know the shortcut: every class with and without the cue, or at every site."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trueread.cohort.cohort import Cohort
from trueread.errors import InputError, nearest

PLANTED = "planted"


def groups_of(cohort: Cohort, rows: NDArray[np.int64], attribute: str) -> tuple[NDArray[np.int64], list[str]]:
    """Group of each of the images at `rows`, int64 [n] in [0,G), and the G names: every class with every value.

    attribute: a column of the cohort's table, or "planted": the cue that was planted. A missing value is a value of its
    own. Groups are those of classes x values that have an image.
    Raises InputError for a column that is not there, one with a single value, and a multilabel task.
    """
    if cohort.task == "multilabel":
        raise InputError("groups are a class and an attribute's value, but the task is multilabel; use another method.")
    values = _values(cohort, attribute).iloc[rows]
    text = values.astype(object).where(values.notna(), "unknown").astype(str).to_numpy()
    if len(set(text)) < 2:
        raise InputError(
            f"{cohort.name}: '{attribute}' has one value in the {len(rows)} images to be grouped ({text[0]}), so it "
            "makes no groups; name another attribute."
        )
    named = [f"{cohort.classes[k]}, {attribute}: {v}" for k, v in zip(cohort.labels[rows], text, strict=True)]
    codes, names = pd.factorize(np.array(named, dtype=object), sort=True)
    return codes.astype(np.int64), [str(name) for name in names]


def _values(cohort: Cohort, attribute: str) -> pd.Series:
    if attribute == PLANTED:
        if cohort.truth is None or "cue" not in cohort.truth.columns:
            raise InputError(
                f"{cohort.name} has no planted cue; name the attribute that makes the groups (attribute=COLUMN; it has "
                f"{', '.join(cohort.attributes[:8]) or 'none'})."
            )
        return cohort.truth["cue"]
    if attribute not in cohort.attributes:
        raise InputError(
            f"{cohort.name} has no attribute '{attribute}'.{nearest(attribute, cohort.attributes)} It has "
            f"{', '.join(cohort.attributes[:8]) or 'none'}."
        )
    return cohort.table[attribute]
