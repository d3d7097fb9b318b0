"""The bias-free training images that some remedies need: a few in which the shortcut does not go along with a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trueread.cohort.cohort import Cohort
from trueread.errors import InputError, nearest
from trueread.training.hooks import Setup

PLANTED = "planted"
YES = ("1", "1.0", "true", "yes", "y")


def clean_rows(setup: Setup, clean: str | list[str], *, fraction: float | None = None) -> NDArray[np.int64]:
    """int64 positions in the cohort of the training images that are bias-free, in the cohort's order.

    clean: a list of image ids; the path of a text file with an id per line, as "ids:PATH"; the name of a column of the
    cohort's table that is 1, true or yes for them; or "planted": those that a planting kept clean.
    fraction: at most this share of each class's training patients, in (0,1], drawn by the run's seed.
    Raises InputError when there is none, when a class has none, and for an id or a column that is not there.
    """
    cohort, training = setup.cohort, np.zeros(len(setup.cohort), bool)
    training[setup.train_rows] = True
    rows = np.flatnonzero(_marked(cohort, clean) & training)
    if fraction is not None:
        rows = some_of_each_class(cohort, rows, fraction, of=setup.train_rows, seed=setup.seed)
    present = np.unique(cohort.labels[rows]) if cohort.task != "multilabel" else np.arange(cohort.n_classes)
    lacking = [name for k, name in enumerate(cohort.classes) if k not in present]
    if len(rows) == 0 or lacking:
        found = f"{len(rows)}, none of '{lacking[0]}'" if len(rows) else "none"
        raise InputError(
            f"{cohort.name}: clean training images of every class are needed; found {found}, among the "
            f"{len(setup.train_rows)} of training. Mark some in a column of the table, or list their ids."
        )
    return rows


def _marked(cohort: Cohort, clean: str | list[str]) -> NDArray[np.bool_]:
    """bool [N]: what `clean` names, in any split."""
    if isinstance(clean, list) or clean.startswith("ids:"):
        return _with_ids(cohort, clean if isinstance(clean, list) else _read_ids(Path(clean[4:]).expanduser()))
    if clean == PLANTED:
        if cohort.truth is None or "clean" not in cohort.truth.columns:
            raise InputError(
                f"{cohort.name} has no planted cue, so no image is known to be clean; name the column that marks them "
                f"(clean=COLUMN; it has {_listed(cohort.attributes)}) or a file of their ids (clean=ids:PATH)."
            )
        return cohort.truth["clean"].to_numpy(bool)
    if clean not in cohort.attributes:
        raise InputError(
            f"{cohort.name} has no column '{clean}' that could mark clean images.{nearest(clean, cohort.attributes)} "
            f"It has {_listed(cohort.attributes)}."
        )
    return cohort.table[clean].map(lambda value: str(value).strip().lower() in YES).to_numpy(bool)


def _read_ids(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the list of clean images {path} cannot be read ({error}); give a text file of ids."
        ) from None


def _with_ids(cohort: Cohort, ids: list[str]) -> NDArray[np.bool_]:
    known = cohort.table["id"].astype(str)
    strange = sorted(set(ids) - set(known))
    if strange:
        raise InputError(
            f"{cohort.name} has no image '{strange[0]}', which is listed as clean"
            f"{f' (and {len(strange) - 1} more)' if len(strange) > 1 else ''}; give ids as in the cohort's table "
            f"('{known.iloc[0]}')."
        )
    return known.isin(ids).to_numpy(bool)


def some_of_each_class(
    cohort: Cohort, rows: NDArray[np.int64], share: float, *, of: NDArray[np.int64], seed: int
) -> NDArray[np.int64]:
    """The rows of some patients, drawn by the seed: of each class at least one, and at most this share of the class's
    patients among the rows `of`.
    """
    return _some(cohort, rows, share * _patients_per_class(cohort, of), seed=seed)


def _patients_per_class(cohort: Cohort, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Patients per class, each counted with the class of their first image."""
    return np.bincount(_first_of_each(cohort, rows)["label"], minlength=cohort.n_classes).astype(float)


def _some(cohort: Cohort, rows: NDArray[np.int64], at_most: NDArray[np.float64], *, seed: int) -> NDArray[np.int64]:
    """The rows of some patients: at most so many of each class, at least one."""
    first = _first_of_each(cohort, rows).sample(frac=1.0, random_state=np.random.default_rng(seed))
    place = first.groupby("label").cumcount()
    limits = np.maximum(1, np.round(at_most))
    chosen = first.loc[place.to_numpy() < limits[first["label"].to_numpy()], "patient"]
    return rows[cohort.table["patient"].iloc[rows].isin(chosen).to_numpy(bool)]


def _first_of_each(cohort: Cohort, rows: NDArray[np.int64]) -> pd.DataFrame:
    if cohort.task == "multilabel":
        raise InputError(
            "a fraction of the clean images is drawn by class, but the task is multilabel; list their ids."
        )
    frame = pd.DataFrame({"patient": cohort.table["patient"].to_numpy()[rows], "label": cohort.labels[rows]})
    return frame.drop_duplicates("patient")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) or "none"
