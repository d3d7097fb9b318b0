"""The source "medmnist": the eighteen MedMNIST data sets, from a local file or by download, md5 verified."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import yaml
from numpy.lib.format import read_array, read_array_header_1_0, read_array_header_2_0, read_magic

from trueread.cohort.cohort import SPLITS, Cohort
from trueread.cohort.source import source
from trueread.errors import InputError, unknown

SMALLEST = 28  # the side whose files carry no size in their name
HEADER_BYTES = 64 * 1024  # more than the npy headers of a whole file
NPY_HEADERS = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0}


@source("medmnist", source="Yang et al. 2023, MedMNIST v2, Sci Data 10:41")
def medmnist(
    location: str,
    *,
    root: str | None = None,
    size: int | None = None,
    download: bool = True,
    modality: str | None = None,
    name: str | None = None,
) -> Cohort:
    """One of the eighteen MedMNIST data sets, with its official split.

    location: NAME or NAME@SIZE, for example breastmnist@64. Sides: 28 (default), 64, 128, 224; volumes 28 and 64.
    root: the folder of the .npz files. Without it $TRUEREAD_DATA, the cache of trueread and ~/.medmnist are searched,
        in each of them also the sub-folder medmnist.
    size: another way to give the side. download: fetch a file that is in none of them into `root` or the cache.
    modality: instead of the one of the data set.

    MedMNIST does not say which images are of one patient, so patients are unknown. Two things differ from the official
    files: arrays are channels first, and in breastmnist, whose official label 0 is malignant, the two labels are
    swapped, because the positive class of a binary task is the second one. (In synapsemnist3d it is "excitatory".)
    Raises InputError for an unknown name or size, for a file whose md5 is not the official one, and for a file that is
    nowhere and cannot be downloaded.
    """
    key, side = parse_location(location, size)
    fact = facts()["sets"][key]
    path = find_file(key, side, md5=fact["md5"][side], root=root, download=download, url=facts()["url"])
    images, labels, splits = read_npz(path, fact, side=side)
    if fact.get("swap"):
        labels = 1 - labels
    order = fact["classes"][::-1] if fact.get("swap") else fact["classes"]
    counter = np.concatenate([np.arange((splits == s).sum()) for s in SPLITS])
    ids = [f"{split}/{i:06d}" for split, i in zip(splits, counter, strict=True)]
    return Cohort(
        name=name or (key if side == SMALLEST else f"{key}_{side}"),
        images=images,
        labels=labels,
        table=pd.DataFrame({"id": ids, "patient": ids, "split": splits}),
        classes=tuple(order),
        task=fact["task"],
        patients_known=False,
        modality=modality or fact["modality"],
        origin={"source": f"medmnist:{key}@{side}", "options": {"md5": fact["md5"][side], "licence": fact["licence"]}},
    )


@cache
def facts() -> dict[str, Any]:
    """What medmnist.yaml says: the download `url` and, by name, the `sets`."""
    return yaml.safe_load(files("trueread.cohort").joinpath("medmnist.yaml").read_text(encoding="utf-8"))


def parse_location(location: str, size: int | None) -> tuple[str, int]:
    """("breastmnist", 64) from "BreastMNIST@64", or from "breastmnist" and 64. Raises InputError for unknown ones."""
    key, at, side_text = location.strip().lower().partition("@")
    sets = facts()["sets"]
    if key not in sets:
        raise unknown("MedMNIST data set", key, sets)
    if at and size is not None and side_text != str(size):
        raise InputError(f"'{location}' and size={size} are two sizes; give one.")
    wanted = side_text if at else str(SMALLEST if size is None else size)
    sides = {str(s): s for s in sets[key]["md5"]}
    if wanted not in sides:
        raise InputError(f"{key} has no size '{wanted}'; choose one of {', '.join(sides)}.")
    return key, sides[wanted]


def file_name(key: str, side: int) -> str:
    """The official file name: "breastmnist.npz" for side 28, "breastmnist_64.npz" for 64."""
    return f"{key}.npz" if side == SMALLEST else f"{key}_{side}.npz"


def find_file(key: str, side: int, *, md5: str, root: str | None, download: bool, url: str) -> Path:
    """The data set's verified file, downloaded when it is nowhere.

    url: where files are, with "{file}" for their name. md5: 32 hex digits.
    Raises InputError when a file is found that differs, or when none is found and none can be fetched.
    """
    file = file_name(key, side)
    folders = [Path(root).expanduser()] if root is not None else _usual_folders()
    for path in (place / file for folder in folders for place in (folder, folder / "medmnist")):
        if path.is_file():
            return _verified(path, md5)
    target = folders[0] if root is not None else _cache()
    where = url.format(file=file)
    manually = f"get {where} and put it at '{target / file}', or give its folder as root=..."
    if not download:
        looked = ", ".join(str(folder) for folder in folders)
        raise InputError(f"{file} is not in {looked}, and download is off; {manually}")
    return _downloaded(where, target / file, md5, manually)


def _usual_folders() -> list[Path]:
    given = os.environ.get("TRUEREAD_DATA")
    return [*([Path(given).expanduser()] if given else []), _cache(), Path.home() / ".medmnist"]


def _cache() -> Path:
    import pooch

    return Path(pooch.os_cache("trueread"))


def _verified(path: Path, md5: str) -> Path:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        raise InputError(
            f"'{path}' has md5 {found}, the official file {md5}; it is damaged or another version: delete it."
        )
    return path


def _downloaded(url: str, path: Path, md5: str, manually: str) -> Path:
    """Fetch into a temporary file beside `path`, which appears there only when whole and verified."""
    import pooch

    fetch = pooch.HTTPDownloader(progressbar=sys.stderr.isatty())
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("ERROR")  # its notes on hashes are for developers
    try:
        pooch.retrieve(url, known_hash=f"md5:{md5}", fname=path.name, path=path.parent, downloader=fetch)
    except (OSError, ValueError) as error:  # no connection, an HTTP error, a full disk; another md5
        reason = str(error) if isinstance(error, ValueError) else type(error).__name__
        raise InputError(
            f"{path.name} cannot be downloaded from {urlsplit(url).netloc} ({reason}); {manually}"
        ) from None
    finally:
        logger.setLevel(level)
    return path


def read_npz(path: Path, fact: Mapping[str, Any], *, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """images uint8 [N,C,(D,)H,W], labels int64 [N] or float32 [N,K], splits object [N]: first train, then val, test.

    fact: an entry of `facts()["sets"]`. Never unpickles, and refuses a file that would unpack to more than it should.
    Raises InputError for missing arrays, other shapes or types, and labels out of range.
    """
    counts = [fact["splits"][s] for s in SPLITS]
    space = (side,) * (3 if fact["volume"] else 2)
    colour = (3,) if fact["channels"] == 3 else ()
    images = np.empty((sum(counts), fact["channels"], *space), np.uint8)
    n_classes = len(fact["classes"])
    labels = np.empty((sum(counts), n_classes if fact["task"] == "multilabel" else 1), np.int64)
    try:
        with zipfile.ZipFile(path) as archive:
            _refuse_bomb(path, archive, images.nbytes + labels.nbytes + HEADER_BYTES)
            for split, start, n in zip(SPLITS, np.cumsum([0, *counts]), counts, strict=False):
                mine = slice(start, start + n)
                pixels = _array(archive, f"{split}_images", path, (n, *space, *colour))
                images[mine] = np.moveaxis(pixels, -1, 1) if colour else pixels[:, None]
                labels[mine] = _array(archive, f"{split}_labels", path, (n, labels.shape[1]))
    except InputError:
        raise
    except Exception as error:  # a broken archive raises nearly anything
        raise InputError(f"'{path}' is no .npz file of plain arrays ({error}); get the official file again.") from None
    highest = 1 if fact["task"] == "multilabel" else n_classes - 1
    if labels.min() < 0 or labels.max() > highest:
        raise InputError(
            f"'{path}': labels must be in 0..{highest}; found {labels.min()}..{labels.max()}; "
            "get the official file again."
        )
    splits = np.repeat(np.array(SPLITS, dtype=object), counts)
    return images, (labels.astype(np.float32) if fact["task"] == "multilabel" else labels[:, 0]), splits


def _refuse_bomb(path: Path, archive: zipfile.ZipFile, limit: int) -> None:
    unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > limit:
        raise InputError(
            f"'{path}' would unpack to {unpacked:,} bytes, expected at most {limit:,}; get the official file again."
        )


def _array(archive: zipfile.ZipFile, key: str, path: Path, shape: Sequence[int]) -> np.ndarray:
    """One array, whose header is looked at first: memory is taken for what it promises, not for what is there."""
    if f"{key}.npy" not in archive.namelist():
        raise InputError(
            f"'{path}' has no array '{key}'; expected a MedMNIST file of train, val and test images and labels; "
            "get the official file."
        )
    with archive.open(f"{key}.npy") as member:
        read_header = NPY_HEADERS[read_magic(member)]
        found, _, dtype = read_header(member)
    wrong_type = dtype.kind not in "ui" or (key.endswith("images") and dtype != np.uint8)
    if not dtype.hasobject and (found != tuple(shape) or wrong_type):
        raise InputError(
            f"'{path}': {key} must be integers of shape {tuple(shape)}; found {dtype} of {found}; "
            "get the official file again."
        )
    with archive.open(f"{key}.npy") as member:
        return read_array(member, allow_pickle=False)
