"""The source "folder": a sub-folder of images per class, with or without train, val and test folders above."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from trueread.cohort.cache import cache_for
from trueread.cohort.classes import class_order, natural_key, refuse_empty_classes
from trueread.cohort.cohort import Cohort
from trueread.cohort.read import IMAGE_ENDINGS, Channels, read_images
from trueread.cohort.source import source
from trueread.cohort.split import split_named
from trueread.errors import InputError
from trueread.imagefile.decode import Fit


@source("folder", source="ImageFolder layout")
def folder(
    location: str,
    *,
    size: Annotated[int, Field(ge=16, le=1024)] = 64,
    channels: Channels = "auto",
    fit: Fit = "crop",
    white: Annotated[int, Field(ge=1, le=65535)] | None = None,
    patient: str | None = None,
    classes: list[str] | None = None,
    use_split: bool = True,
    modality: str = "any",
    task: Literal["auto", "binary", "multiclass", "ordinal"] = "auto",
    cache: bool | str = "auto",
    name: str | None = None,
) -> Cohort:
    r"""A folder with a sub-folder of images per class, in train, val and test folders or not.

    location: PATH/CLASS/**/image.png or PATH/SPLIT/CLASS/**/image.png. Images in deeper folders belong to the class.
    size, channels, fit: side in pixels, 1 or 3, and how other shapes become square; see `read.read_image`.
    white: the stored intensity that becomes 1.0, such as 4095 for 12 bits in 16; default: the files' full range.
    patient: regular expression, searched in "CLASS/file.jpeg" (always with "/"). The group named `patient`, else the
        first group, else the whole match is the patient. Without it patients are unknown.
    classes: their order, when it is not to be alphabetical (numbers count by value): the last of two is the positive
        class. Classes left out are not read.
    use_split: False pools the images of the SPLIT folders, to be split anew.
    task: "auto" is binary for two classes and otherwise multiclass.
    cache: keep decoded images on disk and map them into memory: "auto" from 256 MiB of pixels on, True always, both in
        the user's cache folder; False never; or the folder to keep them in, always.

    The paediatric chest X-rays of Kermany et al. (Cell 2018) number their patients anew for bacteria, for viruses and
    for each of the two series of normals, so that word belongs to the patient::

        patient = r"person\d+_(?:bacteria|virus)|(?:NORMAL2-)?IM-\d+"

    Image ids are paths relative to the location. Hidden files and files that are no images are passed over; unreadable
    images are listed in `omitted`. Raises InputError for any other layout, for links that leave the folder, for images
    that the pattern does not fit, for a patient in two SPLIT folders, and for whatever `read_images` refuses.
    """
    root = Path(os.path.realpath(Path(location).expanduser()))
    if not root.is_dir():
        raise InputError(f"'{location}' is not a folder; check the path.")
    table = _list(root, classes)
    order = class_order(root.name, table["class"], classes)
    table["patient"] = table["id"] if patient is None else _patients(table, patient)
    if not use_split:
        table["split"] = ""
    _refuse_leaks(root.name, table)
    place = cache_for(
        cache, name=root.name, root=str(root), classes=sorted(order), size=size, channels=channels, fit=fit
    )
    files = [f"{root}{os.sep}{path}" for path in table["id"].tolist()]
    read = read_images(
        files, size=size, channels=channels, fit=fit, white=white, cache=place, what=f"reading {root.name}"
    )
    omitted = read.omitted.assign(path=table["id"].to_numpy()[read.omitted.index]).reset_index(drop=True)
    table = table.iloc[read.kept]
    labels = table["class"].map({c: i for i, c in enumerate(order)}).to_numpy(np.int64)
    refuse_empty_classes(root.name, labels, order)
    options = {"size": size, "channels": channels, "fit": fit, "patient": patient, "classes": classes, "task": task}
    options["white"] = white
    return Cohort(
        name=name or root.name,
        images=read.images,
        labels=labels,
        table=table[["id", "patient", "split"]],
        classes=tuple(order),
        task=("binary" if len(order) == 2 else "multiclass") if task == "auto" else task,
        white=white or read.white,
        patients_known=patient is not None,
        modality=modality,
        origin={"source": f"folder:{location}", "options": {**options, "use_split": use_split}},
        omitted=omitted,
        files=read.files,
        known=read.known,
    )


def _list(root: Path, chosen: Sequence[str] | None) -> pd.DataFrame:
    """All image files in natural order: `id` (path in root), `match` ("CLASS/file"), `class`, `split` ("" without)."""
    rows = []
    parents = [(split, parent, _class_folders(root, parent)) for split, parent in _parents(root)]
    if chosen is not None:  # a class that is not there, before its images are looked for
        class_order(root.name, (name for _, _, names in parents for name in names), chosen)
    for split, parent, names in parents:
        for name in names if chosen is None else [n for n in names if n in chosen]:
            found, others = _images(root, parent / name, inside=f"{name}/")
            if not found:
                endings = (
                    ", ".join(f"{n} {ending or 'without ending'}" for ending, n in others.most_common(5)) or "nothing"
                )
                raise InputError(
                    f"the class folder '{parent / name}' has no image (it holds {endings}); "
                    f"expected {', '.join(IMAGE_ENDINGS[:5])}, ... Add images or remove the folder."
                )
            above = "" if parent == root else f"{parent.name}/"
            rows += [(above + file, file, name, split) for file in found]
    rows.sort(key=lambda row: natural_key(row[0]))
    table = pd.DataFrame(rows, columns=["id", "match", "class", "split"])
    in_train = set(table.loc[table["split"] == "train", "class"])
    strange = sorted(set(table["class"]) - in_train) if in_train else []
    if strange:
        raise InputError(
            f"{root.name}: the class '{strange[0]}' has no folder in train, which has {', '.join(sorted(in_train))}; "
            "give the class folders the same names in every split."
        )
    return table


def _parents(root: Path) -> list[tuple[str, Path]]:
    """(split, folder that holds the class folders): one with split "" where there are no SPLIT folders."""
    names = _subfolders(root, root)
    splits = [(split_named(n), root / n) for n in names]
    found = [(split, parent) for split, parent in splits if split is not None]
    if not found:
        return [("", root)]
    if len(found) < len(splits):
        other = next(parent.name for split, parent in splits if split is None)
        raise InputError(
            f"{root.name} holds the split folder '{found[0][1].name}' beside '{other}'; expected only train, val and "
            "test folders there, or only class folders."
        )
    _refuse_images_beside(root, root, "split folders")
    return found


def _class_folders(root: Path, parent: Path) -> list[str]:
    names = _subfolders(root, parent)
    _refuse_images_beside(root, parent, "class folders")
    if not names:
        raise InputError(
            f"'{parent}' has no class folders; expected one sub-folder of images per class. Put the images of "
            "each class into a folder of its own, or list them in a table (csv:PATH)."
        )
    _refuse_one_level_too_high(root, parent, names)
    return names


def _refuse_one_level_too_high(root: Path, parent: Path, names: Sequence[str]) -> None:
    """Raise InputError when every would-be class holds the same sub-folders and no image: sites, say, of classes."""
    if len(names) == 1 or any(_is_image(e.name) for name in names for e in _visible(root, parent / name)):
        return
    inside = [set(_subfolders(root, parent / name)) for name in names]
    if len(inside[0]) > 1 and all(s == inside[0] for s in inside):
        shared = " and ".join(f"'{s}'" for s in sorted(inside[0], key=natural_key)[:3])
        raise InputError(
            f"'{names[0]}' and '{names[1]}' in '{parent.name}' both hold {shared}, so they do not look like classes; "
            f"did you mean folder:{parent / names[0]}? To join them, list the images in a table (csv:PATH)."
        )


def _refuse_images_beside(root: Path, parent: Path, what: str) -> None:
    stray = [e.name for e in _visible(root, parent) if not e.is_dir(follow_symlinks=False) and _is_image(e.name)]
    if stray:
        raise InputError(
            f"'{parent / min(stray)}' lies beside the {what} of '{parent.name}' and so has no class; move such images "
            "into their class folder, or list them in a table (csv:PATH)."
        )


def _subfolders(root: Path, parent: Path) -> list[str]:
    return sorted(e.name for e in _visible(root, parent) if e.is_dir(follow_symlinks=False))


def _images(root: Path, parent: Path, *, inside: str) -> tuple[list[str], Counter[str]]:
    """The image files anywhere below `parent` as `inside` and their path in it, and how many others there are of each
    ending. Text and not paths, which would take most of the time that a folder of 100,000 images takes to list.
    """
    images: list[str] = []
    others: Counter[str] = Counter()
    for entry in _visible(root, parent):
        if entry.is_dir(follow_symlinks=False):
            deeper, strange = _images(root, Path(entry.path), inside=f"{inside}{entry.name}/")
            images += deeper
            others += strange
        elif _is_image(entry.name):
            images.append(inside + entry.name)
        else:
            others[Path(entry.name).suffix.lower()] += 1
    return images, others


def _visible(root: Path, parent: Path) -> Iterator[os.DirEntry[str]]:
    """What a folder holds, without hidden files. Links to files inside the root are followed, others refused."""
    with os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if entry.is_symlink() and (
                Path(entry.path).is_dir() or not Path(os.path.realpath(entry.path)).is_relative_to(root)
            ):
                target = "a folder" if Path(entry.path).is_dir() else "a file outside"
                raise InputError(
                    f"'{entry.path}' is a link to {target}, which is not followed; copy what it points to, or list the "
                    "images in a table (csv:PATH with root=...)."
                )
            if not entry.name.isprintable() and "\udc80" <= max(entry.name) <= "\udcff":
                raise InputError(f"the file name {os.fsencode(entry.path)!r} is not UTF-8; rename the file.")
            yield entry


def _is_image(name: str) -> bool:
    return "." + name.rpartition(".")[2].lower() in IMAGE_ENDINGS


def _patients(table: pd.DataFrame, pattern: str) -> list[str]:
    """The patient in each "CLASS/file". Raises InputError that lists the first five files without one."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError(f"patient='{pattern}' is no regular expression: {error}; mend it.") from None
    group: str | int = "patient" if "patient" in expression.groupindex else min(expression.groups, 1)
    texts = table["match"].tolist()
    matches = [expression.search(text) for text in texts]
    patients = [match[group] if match else None for match in matches]
    strange = [text for text, patient in zip(texts, patients, strict=True) if not patient]
    if strange:
        more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
        raise InputError(
            f"patient='{pattern}' finds no patient in {', '.join(strange[:5])}{more}; change the pattern so that it "
            "fits every CLASS/file, or leave it out if patients are unknown."
        )
    return [str(patient) for patient in patients]


def _refuse_leaks(name: str, table: pd.DataFrame) -> None:
    n_splits = table.groupby("patient")["split"].nunique()
    leaking = n_splits[n_splits > 1].index
    if len(leaking):
        where = sorted(set(table.loc[table["patient"] == leaking[0], "split"]))
        others = f", and {len(leaking) - 1} more like it" if len(leaking) > 1 else ""
        raise InputError(
            f"{name}: patient '{leaking[0]}' is in {' and in '.join(where)}{others}. A patient must stay on one side; "
            "give use_split=false to let trueread split by patient, or a pattern that tells different patients apart."
        )
