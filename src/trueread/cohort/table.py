"""The source "csv": a table with one row per image."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from trueread.cohort.boxes import masks_of, read_boxes
from trueread.cohort.cache import cache_for
from trueread.cohort.classes import class_order, refuse_empty_classes
from trueread.cohort.cohort import OWN_COLUMNS, Cohort, Task
from trueread.cohort.read import Channels, read_images
from trueread.cohort.rows import column, read_rows, refuse_rows
from trueread.cohort.source import source
from trueread.cohort.split import split_named
from trueread.errors import InputError
from trueread.imagefile.decode import Fit

BLANK = frozenset({"", "na", "n/a", "nan", "null", "none"})  # cells of an attribute that say nothing
SEPARATOR = "|"  # between the names of a list of labels


@source("csv", source="CSV table")
def csv(
    location: str,
    *,
    image: str = "image",
    label: str = "label",
    labels: list[str] | None = None,
    patient: str | None = None,
    split: str | None = None,
    mask: str | None = None,
    box: str | None = None,
    id: str | None = None,
    root: str | None = None,
    size: Annotated[int, Field(ge=16, le=1024)] = 64,
    channels: Channels = "auto",
    fit: Fit = "crop",
    white: Annotated[int, Field(ge=1, le=65535)] | None = None,
    classes: list[str] | None = None,
    modality: str = "any",
    task: Literal["auto", "binary", "multiclass", "ordinal", "multilabel"] = "auto",
    attributes: list[str] | None = None,
    encoding: str = "utf-8",
    cache: bool | str = "auto",
    name: str | None = None,
) -> Cohort:
    """A CSV table with one row per image; the options name its columns.

    image: column of image paths, relative to `root`. label: column of class names, or of lists of them ("mass|nodule").
    labels: several columns of 0, 1 or nothing (unknown) instead of `label`, one for each class: a multilabel task.
    patient, split, mask, id: columns of whose image it is, its split, the path of its mask (blank: nothing is marked)
        and its name (else the image path). When not given, a column of that very name is used if there is one; "" uses
        none. box: so too, instead of masks: boxes around what is to be seen; see `read_boxes`.
    root: the folder of the images (default: that of the table). Paths that leave it are refused.
    size, channels, fit: side in pixels, 1 or 3, and how other shapes become square; see `read.read_image`.
    white: the stored intensity that becomes 1.0, such as 4095 for 12 bits in 16; default: the files' full range.
    classes: their order, when it is not to be alphabetical (numbers count by value): the last of two is the positive
        class. Rows of other classes are left out; in lists of labels only the other names are.
    task: "auto" is multilabel with `labels` or lists, else binary for two classes and otherwise multiclass.
    attributes: columns to keep (default: all others). Columns of numbers become float64; blank cells are NaN.
    encoding: of the table.
    cache: where decoded images are kept; see the source "folder".

    Missing or broken images are listed in `omitted`, and so are images whose mask is. Raises InputError with the first
    five bad rows, counted as a spreadsheet does (the header is row 1), for blank cells, repeated ids, unknown splits, a
    patient in two splits and paths outside `root`; and for missing columns, text that is no CSV, and what `read_images`
    refuses.
    """
    options = {k: v for k, v in locals().items() if k not in ("location", "cache") and v is not None}
    path = Path(location).expanduser()
    file = path.name
    rows = read_rows(path, encoding=encoding)
    given = {"patient": patient, "split": split, "mask": mask, "box": box, "id": id}
    used = {role: _optional_column(role, wanted, rows, file) for role, wanted in given.items()}
    if used["mask"] and used["box"]:
        raise InputError(
            f'{file} has masks and boxes; take one of them, and leave the other out with mask="" or box="".'
        )
    column(image, rows, file=file, role="image")
    rows, targets, order, task = _targets(file, rows, label, labels, classes, task)

    folder = os.path.realpath(Path(root).expanduser() if root is not None else path.parent)
    table = pd.DataFrame({"id": _unique(file, rows[used["id"] or image]).to_numpy()})
    table["patient"] = _filled(file, rows[used["patient"]]).to_numpy() if used["patient"] else table["id"]
    table["split"] = _splits(file, rows[used["split"]], table["patient"]) if used["split"] else ""
    roles = {image, label, *(labels or []), *used.values(), *OWN_COLUMNS, ""}
    for kept in attributes if attributes is not None else [c for c in rows.columns if c not in roles]:
        if kept in OWN_COLUMNS:
            raise InputError(
                f"{file}: '{kept}' cannot be an attribute, because trueread has a column of that name; rename it."
            )
        table[kept] = _typed(rows[column(kept, rows, file=file, role="attribute")])

    files = _paths(file, _filled(file, rows[image]), folder)
    there = [path for path in files if path is not None]
    masks = _paths(file, rows[used["mask"]], folder) if used["mask"] else None
    boxes = read_boxes(file, rows[used["box"]]) if used["box"] else None
    place = cache_for(
        cache, name=path.stem, table=os.path.realpath(path), root=folder, image=image, mask=used["mask"],
        classes=sorted(order), size=size, channels=channels, fit=fit,
    )  # fmt: skip
    read = read_images(
        there, size=size, channels=channels, fit=fit, masks=masks, white=white, cache=place, what=f"reading {file}"
    )
    marked = read.masks
    if boxes is not None:
        own = [boxes[i] for i in read.kept]
        marked = masks_of(file, own, read.files, rows.index[read.kept].tolist(), size=size, fit=fit)
    targets, table = targets[read.kept], table.iloc[read.kept]
    if task != "multilabel":
        refuse_empty_classes(file, targets, order)
    return Cohort(
        name=name or path.stem,
        images=read.images,
        labels=targets,
        table=table,
        classes=tuple(order),
        task=task,
        masks=marked,
        files=read.files,
        known=read.known,
        white=white or read.white,
        patients_known=used["patient"] is not None,
        modality=modality,
        origin={"source": f"csv:{location}", "options": options},
        omitted=read.omitted.assign(path=rows[image].to_numpy()[read.omitted.index]).reset_index(drop=True),
    )


def _optional_column(role: str, wanted: str | None, rows: pd.DataFrame, file: str) -> str | None:
    """The column of a role that a table need not have; one that is simply called so counts as meant."""
    if wanted is None:
        return role if role in rows.columns else None
    return column(wanted, rows, file=file, role=role) if wanted else None


def _targets(
    file: str, rows: pd.DataFrame, label: str, labels: list[str] | None, classes: list[str] | None, task: str
) -> tuple[pd.DataFrame, np.ndarray, list[str], Task]:
    """The rows to keep, their labels as a Cohort has them, the classes and the task."""
    if labels:
        if classes is not None or task not in ("auto", "multilabel"):
            raise InputError(
                f"{file}: the columns in `labels` are the classes of a multilabel task; leave out classes and task."
            )
        return rows, _zeros_and_ones(file, rows, labels), labels, "multilabel"
    cells = rows[column(label, rows, file=file, role="label")]
    if task == "multilabel" or (task == "auto" and cells.str.contains(SEPARATOR, regex=False).any()):
        lists = [[part.strip() for part in cell.split(SEPARATOR) if part.strip()] for cell in cells]
        order = class_order(file, (part for parts in lists for part in parts), classes)
        targets = np.array(
            [[c in parts for c in order] if parts else [np.nan] * len(order) for parts in lists], np.float32
        )
        return rows, targets, order, "multilabel"
    _filled(file, cells)
    n_values = cells.nunique()
    if classes is None and n_values > max(20, len(cells) // 2):
        raise InputError(
            f"{file}: the column '{label}' has {n_values} different values in {len(cells)} rows, too many for classes; "
            "name the column of class names with label=..., or the classes with classes=[...]."
        )
    order = class_order(file, cells, classes)
    rows = rows[cells.isin(order)]
    code = {c: i for i, c in enumerate(order)}
    chosen: Mapping[str, Task] = {"binary": "binary", "multiclass": "multiclass", "ordinal": "ordinal"}
    single = chosen.get(task, "binary" if len(order) == 2 else "multiclass")
    return rows, np.array([code[cell] for cell in rows[label]], np.int64), order, single


def _zeros_and_ones(file: str, rows: pd.DataFrame, labels: list[str]) -> np.ndarray:
    """float32 [N,K] of columns that hold 0, 1 or nothing."""
    known = {"0": 0.0, "0.0": 0.0, "1": 1.0, "1.0": 1.0, **dict.fromkeys(BLANK, np.nan)}
    columns, problems = [], []
    for name in labels:
        cells = rows[column(name, rows, file=file, role="label")].str.casefold()
        problems += [(row, f"'{name}' is '{cell}'") for row, cell in _numbered(cells) if cell not in known]
        columns.append(cells.map(known).to_numpy(np.float32))
    refuse_rows(
        file,
        sorted(problems),
        "Expected 0, 1, or a blank cell for unknown; mend the cells, or leave that column out of labels.",
    )
    return np.stack(columns, axis=1)


def _filled(file: str, cells: pd.Series) -> pd.Series:
    """The same cells, none of them blank."""
    blank = [(row, f"the {cells.name} is blank") for row, cell in _numbered(cells) if not cell]
    refuse_rows(file, blank, "Fill the cell or remove the row.")
    return cells


def _unique(file: str, cells: pd.Series) -> pd.Series:
    """The same cells, none of them blank and no two alike."""
    first: dict[str, int] = {}
    repeated = []
    for row, cell in _numbered(_filled(file, cells)):
        if first.setdefault(cell, row) != row:
            repeated.append((row, f"the {cells.name} '{cell}' is also in row {first[cell]}"))
    refuse_rows(file, repeated, "Every image needs an id of its own; remove repeated rows or name an id column.")
    return cells


def _splits(file: str, cells: pd.Series, patients: pd.Series) -> list[str]:
    """The split of each row. patients: of the same rows."""
    strange = [(row, f"the {cells.name} is '{cell}'") for row, cell in _numbered(cells) if split_named(cell) is None]
    advice = "Expected train, val or test; mend the column, or drop it to let trueread split by patient."
    refuse_rows(file, strange, advice)
    splits = [str(split_named(cell)) for cell in cells]
    first: dict[str, str] = {}
    leaks: dict[str, tuple[int, str]] = {}  # one row for each patient
    for (row, _), split, patient in zip(_numbered(cells), splits, patients, strict=True):
        if first.setdefault(patient, split) != split:
            leaks.setdefault(patient, (row, f"patient '{patient}' is in {first[patient]} and in {split}"))
    advice = "A patient must stay on one side; drop the split column to let trueread split by patient."
    refuse_rows(file, list(leaks.values()), advice)
    return splits


def _paths(file: str, cells: pd.Series, folder: str) -> list[str | None]:
    """The files that the cells name, in `folder` (a real path) even after following links; None for a blank cell."""
    inside = str(Path(folder, "_"))[:-1]  # with a separator at its end
    parents: dict[str, str] = {}  # by what is before the file's name: looking each up anew is slow for many files
    full = [_real(cell.replace("\\", "/"), folder, parents) if cell else None for cell in cells]
    leaving = [
        (row, f"the path '{cell}' leaves the folder '{folder}'")
        for (row, cell), real in zip(_numbered(cells), full, strict=True)
        if real is not None and not real.startswith(inside)
    ]
    refuse_rows(file, leaving, "Give the folder that holds all images as root=...")
    return full


def _real(path: str, folder: str, parents: dict[str, str]) -> str:
    """`os.path.realpath` of a path in `folder`; `parents` remembers that of the folders on the way."""
    head, slash, name = path.rpartition("/")
    if name in ("", ".", "..") or (slash and not head):
        return os.path.realpath(Path(folder, path))
    if head not in parents:
        parents[head] = os.path.realpath(Path(folder, head))
    real = f"{parents[head].rstrip(os.sep)}{os.sep}{name}"
    return os.path.realpath(real) if os.path.islink(real) else real  # noqa: PTH114  (of every file, at every start)


def _numbered(cells: pd.Series) -> Iterator[tuple[int, str]]:
    """(row number, cell)."""
    return zip(cells.index.tolist(), cells.tolist(), strict=True)


def _typed(cells: pd.Series) -> np.ndarray:
    """float64 when every cell that says something is a number, else text; NaN where it says nothing."""
    told = ~cells.str.casefold().isin(BLANK)
    numbers = pd.to_numeric(cells.where(told, np.nan), errors="coerce").astype(np.float64)
    if numbers[told].notna().all():
        return numbers.to_numpy()
    return cells.where(told, np.nan).to_numpy(dtype=object)
