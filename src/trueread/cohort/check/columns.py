"""The attributes of a cohort made ready to be compared: value names, numbers for a probe, and which are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trueread.cohort.check.probe import normal_scores, standardised
from trueread.cohort.check.properties import FILE_FACTS
from trueread.cohort.cohort import Cohort
from trueread.errors import NotMeasured

FEW_VALUES = 20  # with no more distinct values than this, a column is no identifier
LONGEST_LIFE = 120  # years: whole numbers within such a span may be ages, of which few patients share one
MOST_VALUES = 50  # more are free text
MANY_NUMBERS = 8  # distinct numbers; more become ranges
MISSING = "missing"


@dataclass(frozen=True, eq=False)
class Attribute:
    """One column of the table.

    values: object [N] of names: the column's own, ranges for numbers, "missing". features: float32 [N,F], what a linear
    probe is given to tell the label from it.
    """

    name: str
    values: NDArray[Any]
    features: NDArray[np.float32]

    @property
    def names(self) -> list[str]:
        """Its values, the commonest first."""
        return [str(v) for v in pd.Series(self.values).value_counts(sort=True).index]


def described(cohort: Cohort, chosen: Sequence[str] | None = None) -> tuple[list[Attribute], list[str]]:
    """The attributes that can be compared, and a sentence for each that cannot.

    chosen: their names; all by default but those that describe the file, which the check `cues` measures.
    Raises NotMeasured for a chosen name that the table lacks.
    """
    names = [a for a in cohort.attributes if a.lower() not in FILE_FACTS] if chosen is None else list(chosen)
    ready, skipped = [], []
    for name in names:
        if name not in cohort.attributes:
            raise NotMeasured(f"the table has no attribute '{name}' (it has {', '.join(cohort.attributes) or 'none'}).")
        column = cohort.table[name]
        n_values = int(column.nunique())
        if n_values == 0 or (n_values == 1 and column.notna().all()):
            skipped.append(f"'{name}' has {'no' if n_values == 0 else 'one'} value and is left out.")
        elif chosen is None and nearly_identifies(column, cohort.patient_codes()):
            skipped.append(
                f"'{name}' has {n_values:,} values for {cohort.n_patients:,} patients and is left out: it is an "
                "identifier or nearly one."
            )
        elif not pd.api.types.is_numeric_dtype(column) and n_values > MOST_VALUES:
            skipped.append(f"'{name}' has {n_values} values and is left out (up to {MOST_VALUES} are compared).")
        else:
            ready.append(Attribute(name, named_values(column), _features(column)))
    return ready, skipped


def nearly_identifies(values: pd.Series, clusters: NDArray) -> bool:
    """Whether a column is an identifier or nearly one: more than 20 distinct values, and more than half as many as
    patients (clusters: int64 [n], each row's patient).

    Measurements are none, though each may be unique: numbers with decimals, and whole numbers within 120 (ages in
    years).
    """
    distinct = values.nunique()
    if distinct <= FEW_VALUES or 2 * distinct <= len(np.unique(clusters)):
        return False
    if not pd.api.types.is_numeric_dtype(values):
        return True
    numbers = _numbers(values)
    numbers = numbers[np.isfinite(numbers)]
    return bool((numbers % 1 == 0).all() and np.ptp(numbers) > LONGEST_LIFE)


def named_values(values: pd.Series) -> NDArray[Any]:
    """object [n] of names. Numbers with more than eight distinct values become up to three ranges of about equal count,
    named by their least and greatest value; equal numbers share a range. What is not there is "missing".
    """
    if not pd.api.types.is_numeric_dtype(values) or values.nunique() <= MANY_NUMBERS:
        return np.array([MISSING if pd.isna(v) else str(v) for v in values], dtype=object)
    numbers = _numbers(values)
    known = np.isfinite(numbers)
    part = np.searchsorted(np.unique(np.quantile(numbers[known], [1 / 3, 2 / 3])), numbers)
    name = "{:.0f} to {:.0f}" if (numbers[known] % 1 == 0).all() else "{:.4g} to {:.4g}"
    names = np.full(len(numbers), MISSING, dtype=object)
    for p in np.unique(part[known]):
        mine = known & (part == p)
        names[mine] = name.format(numbers[mine].min(), numbers[mine].max())
    return names


def _features(column: pd.Series) -> NDArray[np.float32]:
    """A column for each value; for many numbers their rank and its square. That a value is missing may tell as well."""
    if not pd.api.types.is_numeric_dtype(column) or column.nunique() <= MANY_NUMBERS:
        return pd.get_dummies(pd.Series(named_values(column))).to_numpy(np.float32)
    numbers = _numbers(column)
    known = np.isfinite(numbers)
    scores = np.zeros((len(numbers), 1), np.float32)
    scores[known] = normal_scores(numbers[known, None])
    return np.concatenate([scores, standardised(scores**2), known[:, None].astype(np.float32)], axis=1)


def _numbers(values: pd.Series) -> NDArray[np.float64]:
    return values.to_numpy(dtype=float, na_value=np.nan)
