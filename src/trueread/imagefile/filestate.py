"""Whether a file is still the one that was read: by its size and times, and by its content when these leave a doubt."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

CONTENT_BYTES = 16
UNREAD = bytes(CONTENT_BYTES)  # the content hash of a file that could not be read, or that changed while it was
GONE = (-1, -1, -1)
YOUNG_NS = 2_000_000_000  # a file written again within the resolution of its times (2 s on FAT) shows no difference


def stamp(path: str) -> tuple[int, int, int]:
    """(size in bytes, time of last modification, of last change of content or attributes), times in ns; or `GONE`.

    The second time tells what the first does not: a file that was replaced by one of the same size and date.
    """
    try:
        status = os.stat(path)  # noqa: PTH116  (called for every file of a cohort at every start)
    except OSError:
        return GONE
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def stamps(paths: Iterable[str | None]) -> np.ndarray:
    """int64 [N,3]: `stamp` of each; zeros where there is no path."""
    found = [(0, 0, 0) if path is None else stamp(path) for path in paths]
    return np.array(found, np.int64).reshape(-1, 3)


def settled(seen: tuple[int, int, int]) -> tuple[int, int, int]:
    """`seen`, or without its times when the file is so young that they cannot be relied on: it is hashed once more."""
    size, modified, changed = seen
    return seen if time.time_ns() - max(modified, changed) > YOUNG_NS else (size, 0, 0)


def content(path: str) -> bytes:
    """BLAKE2b of a regular file's bytes, or `UNREAD`."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            return UNREAD  # a pipe would wait for ever
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=CONTENT_BYTES)).digest()
    except OSError:
        return UNREAD


def unchanged(path: str, *, was: np.ndarray, hashed: np.ndarray) -> bool:
    """Whether a file whose times are others has the content that was read. was: int64 [3]. hashed: uint8 [16]."""
    return stamp(path)[0] == was[0] and content(path) == hashed.tobytes() != UNREAD
