"""Files that are there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueread.errors import TruereadError

if TYPE_CHECKING:
    import pandas as pd

FULL = ("no space left", "disk quota", "file too large")  # libraries in Rust and C++ pass on the words alone


class DiskFull(TruereadError):
    """Nothing more can be stored. What was written before is whole, and the same command goes on from it."""


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Gives a path to write to, which takes the place of `path` when the body ends well and is gone otherwise.

    The bytes are on the disk before the name is: a power cut leaves the old file or the new one. Makes the folder.
    Raises DiskFull in place of whatever the body raises when there is no space left.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, Exception) and is_disk_full(error):
            raise DiskFull(
                f"{path} cannot be written: the disk is full (or a quota is); make space and give the same command "
                "again: what was finished before is kept."
            ) from None
        raise


def is_disk_full(error: BaseException | None) -> bool:
    """True for what Python, torch and safetensors raise when a disk or a quota is full, also as the cause of another
    exception.
    """
    if error is None:
        return False
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return any(words in str(error).lower() for words in FULL) or is_disk_full(error.__cause__ or error.__context__)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def write_csv(path: Path, table: pd.DataFrame, **options: Any) -> None:
    """Write a table without its index, whole or not at all. options: of `DataFrame.to_csv`."""
    texts = table.select_dtypes(exclude=["number", "bool"])
    if any(texts[name].astype(str).str.contains("\r", regex=False).any() for name in texts):
        options["quoting"] = csv.QUOTE_ALL  # else a file name with a carriage return would be read as two rows
    with whole(path) as part:
        table.to_csv(part, index=False, **options)


def write_json(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all; what is not a finite number becomes null, because JSON has no nan."""
    write_text(path, json.dumps(plain(content), indent=1, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """`value` in the types of JSON. A method may report anything, and must not lose its training by it."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    to_list = getattr(value, "tolist", None)  # numpy arrays and scalars, torch tensors
    return plain(to_list()) if callable(to_list) else str(value)


def without_folders(text: str) -> str:
    """ "folder:kermany" from "folder:/home/somebody/kermany": a shared report does not show where things lie.

    What comes before a path (`key=`, `folder:`) stays; a text that is no absolute path of somebody's stays whole.
    """
    start = re.match(r"([\w-]+[=:])*", text).end()  # type: ignore[union-attr]
    path = Path(text[start:]).expanduser()
    is_folder_of_somebody = path.is_absolute() and len(path.parts) > 2 and path.parent.exists()
    return text[:start] + path.name if is_folder_of_somebody else text
