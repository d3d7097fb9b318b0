"""A cell, one method with one seed, on disk: what is kept of its training, and how that is read back."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from trueread.cohort.cohort import Cohort
from trueread.errors import InputError
from trueread.files import write_csv, write_json
from trueread.model.card import CARD_FILE, read_card
from trueread.report.words import slug
from trueread.study import MethodSection

PREDICTIONS, HISTORY, METHOD = "predictions.csv", "history.csv", "method.json"

T = TypeVar("T")


def cell_folder(folder: Path, title: str, seed: int) -> Path:
    """Where one method with one seed lives inside a run folder."""
    return folder / "methods" / slug(title) / f"seed-{seed}"


def is_done(cell: Path) -> bool:
    """True when a cell was trained to its end: its model and its predictions are there."""
    return (cell / PREDICTIONS).is_file() and (cell / "model" / CARD_FILE).is_file()


def refuse_other(cell: Path, section: MethodSection, cohort: Cohort) -> None:
    """Raise InputError when a finished cell is damaged, or of another method, other options, other data or another
    split: its numbers would pass for those of this study.
    """
    stored, given = read_method(cell), _described(section)
    what = next((k for k in given if given[k] != stored[k]), None)
    if what is None and read_card(cell / "model").data_digest != cohort.digest:
        what = "data"
    if what is not None:
        raise InputError(
            f"{cell} holds a finished training of '{section.title}' with other {what}; give the method another "
            "label or the run another folder (--out), or delete that one to train again."
        )
    read_history(cell)
    read_predictions(cell, cohort, np.concatenate([cohort.rows("val"), cohort.rows("test")]))


def write_method(cell: Path, section: MethodSection, report: dict[str, Any]) -> None:
    """method.json: name and options of the method, and what it has to say of its training."""
    write_json(cell / METHOD, {**_described(section), "report": report})


def read_method(cell: Path) -> dict[str, Any]:
    """Name, options and report, as `write_method` stored them."""
    return _stored(cell, METHOD, _method)


def write_history(cell: Path, history: pd.DataFrame) -> None:
    """history.csv: a row per epoch, see `Fitted`."""
    write_csv(cell / HISTORY, history)


def read_history(cell: Path) -> pd.DataFrame:
    """One row per epoch, as `write_history` stored them."""
    return _stored(cell, HISTORY, _history)


def write_predictions(cell: Path, cohort: Cohort, rows: np.ndarray, probabilities: np.ndarray) -> None:
    """CSV of id, split, given label(s) and calibrated probabilities; nine digits, which keep a float32 exactly."""
    frame = cohort.table.loc[rows, ["id", "split"]].reset_index(drop=True)
    labels = cohort.labels[rows]
    if labels.ndim == 2:
        for k, name in enumerate(cohort.classes):
            frame[f"label:{name}"] = labels[:, k]
    else:
        frame["label"] = [cohort.classes[y] for y in labels]
    for k, name in enumerate(cohort.classes):
        frame[f"p:{name}"] = probabilities[:, k]
    write_csv(cell / PREDICTIONS, frame, float_format="%.9g")


def read_predictions(cell: Path, cohort: Cohort, rows: np.ndarray) -> np.ndarray:
    """float32 [n,K] probabilities of the cohort's `rows`, as `write_predictions` stored them.

    Raises InputError when the file is damaged, or an image was in another split when the cell was trained.
    """
    frame = _stored(cell, PREDICTIONS, lambda path: _predictions(path, cohort.classes))
    wanted = cohort.table[["id", "split"]].iloc[rows]
    moved = wanted[wanted["split"].to_numpy() != frame["split"].reindex(wanted["id"]).to_numpy()]
    if len(moved):
        raise InputError(
            f"image '{moved['id'].iloc[0]}' is in {moved['split'].iloc[0]} now and was not when {cell} was trained; "
            "restore the split, or delete that folder to train again."
        )
    return frame.loc[wanted["id"], [f"p:{c}" for c in cohort.classes]].to_numpy(np.float32)


def _described(section: MethodSection) -> dict[str, Any]:
    """A method's name and options, as they stand in JSON."""
    return {"name": section.name, "options": section.model_dump(mode="json", exclude={"name", "label"})}


def _stored(cell: Path, name: str, read: Callable[[Path], T]) -> T:
    """What `read` makes of a file of a finished cell.

    Raises InputError when the file is gone or is not what was written: without it the training is worth nothing.
    """
    try:
        return read(cell / name)
    except FileNotFoundError:
        why = "it is not there"
    except UnicodeDecodeError:
        why = "it is no text"
    except KeyError as error:
        why = f"it has no {error}"
    except (ValueError, RecursionError) as error:  # of JSON, of pandas and of the functions below
        why = " ".join(str(error).split())[:100]
    raise InputError(f"{cell / name} is damaged ({why}); delete the folder {cell} to train it again.")


def _method(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}")
    return {key: content[key] for key in ("name", "options", "report")}


def _history(path: Path) -> pd.DataFrame:
    return _table(path, numbers=["epoch", "train_loss", "seconds", "selected"])


def _predictions(path: Path, classes: Sequence[str]) -> pd.DataFrame:
    """`split` and the probability of each class, by image."""
    probabilities = [f"p:{c}" for c in classes]
    frame = _table(path, numbers=probabilities, texts=["id", "split"], keep_default_na=False).set_index("id")
    if not frame.index.is_unique:
        raise ValueError("an image is in it twice")
    return frame[["split", *probabilities]]


def _table(path: Path, *, numbers: Sequence[str], texts: Sequence[str] = (), **options: Any) -> pd.DataFrame:
    """A CSV file that has these columns, those of `numbers` finite in every row. options: of `pandas.read_csv`."""
    with path.open("rb") as file:  # one that is cut short can end in what looks like a number
        file.seek(max(0, path.stat().st_size - 1))
        if file.read() != b"\n":
            raise ValueError("it is cut short")
    frame = pd.read_csv(path, dtype=dict.fromkeys(texts, str), **options)
    for name in (*texts, *numbers):
        if name not in frame:
            raise KeyError(name)
        if name in numbers and not np.isfinite(frame[name].to_numpy(np.float64)).all():
            raise ValueError(f"its '{name}' is not always a number")
    return frame
