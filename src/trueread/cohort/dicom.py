"""The source "dicom": a folder of DICOM files, whose patients and studies are in their headers."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from trueread.cohort.cache import cache_for
from trueread.cohort.classes import class_order, natural_key, refuse_empty_classes
from trueread.cohort.cohort import Cohort
from trueread.cohort.read import Channels, read_images
from trueread.cohort.rows import column, read_rows
from trueread.cohort.source import source
from trueread.errors import InputError
from trueread.imagefile.decode import Fit
from trueread.imagefile.dicom import MISSING, NotADicomImage, is_dicom, refuse_bomb
from trueread.progress import say, track

ATTRIBUTES = {  # of the header, as columns of the cohort
    "Manufacturer": "manufacturer", "ManufacturerModelName": "model", "PatientSex": "sex", "PatientAge": "age",
    "ViewPosition": "view", "InstitutionName": "institution", "Modality": "acquired_by",
}  # fmt: skip
NAMES = ("PatientID", "StudyInstanceUID", "SOPInstanceUID", "AccessionNumber")
YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}


@source("dicom", source="DICOM PS3.3 and PS3.10")
def dicom(
    location: str,
    *,
    labels: str | None = None,
    label: str = "label",
    key: Literal["SOPInstanceUID", "StudyInstanceUID", "PatientID", "AccessionNumber", "path"] = "SOPInstanceUID",
    identifiers: bool = False,
    salt: str = "",
    size: Annotated[int, Field(ge=16, le=1024)] = 64,
    channels: Channels = "auto",
    fit: Fit = "crop",
    classes: list[str] | None = None,
    modality: str = "any",
    task: Literal["auto", "binary", "multiclass", "ordinal"] = "auto",
    cache: bool | str = "auto",
    name: str | None = None,
) -> Cohort:
    """A folder of DICOM files, in whatever folders below it.

    labels: a CSV table with the columns `key`, by which a row is found in the headers (or the path below the folder),
        and `label`; files that it does not name are left out. Without it a file's class is its top folder.
    identifiers: whether ids and patients are those of the header. By default both are hashes, so that no output of a
        run names anybody; `salt` goes into them, and whoever has it could tell again who is who.
    size, channels, fit, classes, task, cache: as of the source "folder".

    The patient is the header's PatientID, or the study where that is blank. Manufacturer, model, sex, age in years,
    view, institution and acquiring modality are attributes. Each image is shown through its own window (see
    `imagefile.dicom`) and has 16 bits. Of several frames the one in the middle is taken. Files without an image
    (reports, plans) are passed over; broken ones are listed in `omitted`, by name only with `identifiers`.
    Raises InputError without pydicom, for a folder without DICOM images, labels that fit none, repeated instances, and
    whatever `read_images` refuses.
    """
    root = Path(os.path.realpath(Path(location).expanduser()))
    if not root.is_dir():
        raise InputError(f"'{location}' is not a folder; check the path.")
    heads = _heads(root)
    heads["class"] = _folders(root, heads) if labels is None else _listed(Path(labels), heads, label, key)
    heads = heads[heads["class"] != ""]
    if heads.empty:
        raise InputError(f"no row of {labels} has a {key} of the {root.name} headers; check `key`, or the table.")
    order = class_order(root.name, heads["class"], classes)
    heads = heads[heads["class"].isin(order)].reset_index(drop=True)
    table = _table(heads, identifiers=identifiers, salt=salt)
    place = cache_for(
        cache, name=root.name, root=str(root), classes=sorted(order), size=size, channels=channels, fit=fit
    )
    files = [f"{root}{os.sep}{path}" for path in heads["path"]]
    read = read_images(
        files, size=size, channels=channels, fit=fit, white=65535, cache=place, what=f"reading {root.name}"
    )
    names = heads["path"] if identifiers else heads["path"].map(lambda path: _hashed(path, salt, "f"))
    omitted = read.omitted.assign(path=names.to_numpy()[read.omitted.index]).reset_index(drop=True)
    targets = heads["class"].map({c: i for i, c in enumerate(order)}).to_numpy(np.int64)[read.kept]
    refuse_empty_classes(root.name, targets, order)
    options = {
        "labels": labels, "label": label, "key": key, "size": size, "channels": channels, "fit": fit,
        "classes": classes, "task": task,
    }  # fmt: skip
    return Cohort(
        name=name or root.name,
        images=read.images,
        labels=targets,
        table=table.iloc[read.kept],
        classes=tuple(order),
        task=("binary" if len(order) == 2 else "multiclass") if task == "auto" else task,
        white=read.white,
        patients_known=True,
        modality=modality,
        origin={"source": f"dicom:{location}", "options": options},
        omitted=omitted,
        files=read.files,
        known=read.known,
    )


def _heads(root: Path) -> pd.DataFrame:
    """A row for every DICOM file that says how large its image is: path below the root, and what the header says."""
    try:
        from pydicom import dcmread
        from pydicom.errors import InvalidDicomError
    except ImportError:
        raise InputError(f"{MISSING}.") from None
    paths = sorted((p for p in root.rglob("*") if p.is_file() and not p.name.startswith(".")), key=str)
    rows, without = [], 0
    for path in track(paths, what=f"reading headers of {root.name}", unit="files"):
        if not _inside(path, root):
            raise InputError(f"'{path}' is a link out of the folder, which is not followed; copy what it points to.")
        with path.open("rb") as file:
            if not is_dicom(file, path.suffix):
                continue
            try:
                refuse_bomb(file)
                head = dcmread(file, force=True, stop_before_pixels=True, specific_tags=["Rows", *NAMES, *ATTRIBUTES])
            except (InvalidDicomError, NotADicomImage, OSError, ValueError, KeyError, AttributeError):
                head = None  # decoding says why
        if head is not None and "Rows" not in head:
            without += 1
            continue
        said = {k: "" if head is None else _text(head.get(k)) for k in (*NAMES, *ATTRIBUTES)}
        rows.append({"path": path.relative_to(root).as_posix(), **said})
    if without:
        say(f"{root.name}: {without} DICOM files without an image are passed over.")
    if not rows:
        raise InputError(f"there is no DICOM image in {root}; check the folder, or read other files with folder:PATH.")
    heads = pd.DataFrame(rows)
    known = heads["SOPInstanceUID"]
    repeated = known[(known != "") & known.duplicated()]
    if len(repeated):
        same = heads.loc[known == repeated.iloc[0], "path"].tolist()
        raise InputError(
            f"{root.name}: {' and '.join(same[:2])} are one instance (SOPInstanceUID)"
            f"{f', and {len(repeated) - 1} more files repeat others' if len(repeated) > 1 else ''}; remove copies."
        )
    return heads.iloc[sorted(range(len(heads)), key=lambda i: natural_key(heads["path"][i]))].reset_index(drop=True)


def _inside(path: Path, root: Path) -> bool:
    return not path.is_symlink() or Path(os.path.realpath(path)).is_relative_to(root)


def _text(value: Any) -> str:
    """A header's value as one line."""
    if value is None:
        return ""
    if not isinstance(value, str) and hasattr(value, "__iter__"):
        return "/".join(str(v).strip() for v in value)
    return " ".join(str(value).split())


def _folders(root: Path, heads: pd.DataFrame) -> list[str]:
    """Each file's top folder, its class."""
    beside = [path for path in heads["path"] if "/" not in path]
    if beside:
        raise InputError(
            f"'{beside[0]}' lies in {root.name} itself and so has no class; put files into a folder per class, or give "
            "a table with labels=..."
        )
    return [path.partition("/")[0] for path in heads["path"]]


def _listed(path: Path, heads: pd.DataFrame, label: str, key: str) -> list[str]:
    """Each file's label in the table, "" for none."""
    rows = read_rows(path.expanduser())
    names, found = (column(c, rows, file=path.name, role=r) for c, r in ((key, "key"), (label, "label")))
    twice = rows[names][rows[names].duplicated()]
    if len(twice):
        raise InputError(f"{path.name}: the {key} of row {twice.index[0]} is in an earlier row too; keep one of them.")
    of_key = dict(zip(rows[names], rows[found], strict=True))
    return [str(of_key.get(value, "")) for value in heads[key]]


def _table(heads: pd.DataFrame, *, identifiers: bool, salt: str) -> pd.DataFrame:
    """id, patient, split and the attributes of each file."""
    patients = heads["PatientID"].where(heads["PatientID"] != "", heads["StudyInstanceUID"])
    ids = heads["SOPInstanceUID"].where(heads["SOPInstanceUID"] != "", heads["path"])
    patients = patients.where(patients != "", ids)
    if not identifiers:
        ids, patients = (pd.Series([_hashed(v, salt, k) for v in s]) for s, k in ((ids, "i"), (patients, "p")))
    table = pd.DataFrame({"id": ids.to_numpy(), "patient": patients.to_numpy(), "split": ""})
    for tag, name in ATTRIBUTES.items():
        cells = heads[tag]
        if (cells == "").all():
            continue
        if name == "age":
            table[name] = [_years(cell) for cell in cells]
        else:
            table[name] = cells.where(cells != "", np.nan).to_numpy(dtype=object)
    return table


def _hashed(text: str, salt: str, kind: str) -> str:
    """A name of 64 bits that tells nobody; kind: its first letter."""
    return f"{kind}{hashlib.blake2b(text.encode(), digest_size=8, key=salt.encode()[:64]).hexdigest()}"


def _years(age: str) -> float:
    """Years of DICOM's age ("045Y", "006M"); nan for anything else."""
    match = re.fullmatch(r"(\d{1,3})([DWMY])", age)
    return float(match[1]) * YEARS[match[2]] if match else float("nan")
