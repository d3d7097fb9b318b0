"""Appends decoded images to a store, so that a process killed at any time leaves a whole beginning behind."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from trueread.cohort.decoding import outcome_of
from trueread.cohort.index import RECORD, block
from trueread.cohort.mapped import PIECE_BYTES, pieces
from trueread.cohort.store import Store, mapped, pixel_file
from trueread.errors import TruereadError
from trueread.files import DiskFull, is_disk_full, whole
from trueread.imagefile.decode import Picture, Seen, Unreadable

SECONDS = 2.0  # of decoding that a killed process loses at most, or `PIECE_BYTES` of pixels


class Writer:
    """Pixels are written first and are on the disk before their records are, so a record never promises too much.

    The first image of 16 bits turns all before it into 16 bits, as in memory. A context: leaving it writes nothing,
    because what fails may be the disk. Raises DiskFull.
    """

    def __init__(self, store: Store) -> None:
        self.store, self.n_rows = store, store.n_rows
        self.records: list[np.ndarray] = []
        self.reasons: dict[int, str] = {}
        self.pictures: list[Picture] = []
        self.waiting_bytes, self.last = 0, time.monotonic()
        base, recipe = store.base, store.recipe
        file, self.dtype = pixel_file(base)
        n_values = self.n_rows * int(np.prod(recipe.shape))
        self.pixels = _opened(file, n_values * np.dtype(self.dtype).itemsize)
        self.masks = _opened(base.with_suffix(".masks"), self.n_rows * recipe.size**2) if recipe.masks else None
        self.index = _opened(base.with_suffix(".index"), store.index.n_bytes)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for file in (self.pixels, self.masks, self.index):
            if file is not None:
                file.close()

    def add(self, result: Picture | Unreadable, seen: Seen) -> bool:
        """The next job's outcome, and what its files were like. True when this has written what was waiting."""
        record = np.zeros((), RECORD)
        record["stamp"], record["content"] = seen
        if isinstance(result, Unreadable):
            self.reasons[len(self.records)] = str(result)
        else:
            record["width"], record["height"], record["white"], record["brightest"] = outcome_of(result)
            if result.pixels.dtype == np.uint16 and self.dtype == np.uint8:
                self._widen()
            self.pictures.append(result)
            self.waiting_bytes += result.pixels.nbytes
        self.records.append(record)
        is_due = self.waiting_bytes > PIECE_BYTES or time.monotonic() - self.last > SECONDS
        if is_due:
            self.flush()
        return is_due

    def flush(self) -> None:
        """Write what waits."""
        self.last = time.monotonic()
        if not self.records:
            return
        try:
            if self.pictures:
                _append(self.pixels, np.stack([_at_depth(p.pixels, self.dtype) for p in self.pictures]))
                if self.masks is not None:
                    _append(self.masks, np.stack([p.mask for p in self.pictures if p.mask is not None]))
            _append(self.index, block(np.stack(self.records), self.reasons))
        except OSError as error:
            folder = self.store.base.parent
            if not is_disk_full(error):
                raise TruereadError(f"{folder} cannot be written ({error.strerror}); check the disk.") from None
            raise DiskFull(
                f"decoded images cannot be kept in {folder}: the disk is full (or a quota is). Make space and give the "
                "same command again, which continues; or name a folder on a larger disk with cache=PATH, or keep the "
                "images in memory with cache=false."
            ) from None
        self.n_rows += len(self.pictures)
        self.records, self.reasons, self.pictures, self.waiting_bytes = [], {}, [], 0

    def _widen(self) -> None:
        """All rows in the file as 16 bits; those that wait become so when they are written. A process killed before the
        end leaves the 8-bit file as it was.
        """
        base, shape = self.store.base, (self.n_rows, *self.store.recipe.shape)
        narrow, wide = base.with_suffix(".u8"), base.with_suffix(".u16")
        with whole(wide) as part, part.open("wb", buffering=0) as file:
            if self.n_rows:
                for piece in pieces(mapped(narrow, np.uint8, shape)):
                    _append(file, _at_depth(piece, np.uint16))
        self.pixels.close()
        self.pixels, self.dtype = _opened(wide, wide.stat().st_size), np.uint16
        narrow.unlink()


def _at_depth(pixels: np.ndarray, dtype: type[np.generic]) -> np.ndarray:
    return pixels if pixels.dtype == dtype else pixels.astype(np.uint16) * 257


def _opened(path: Path, n_bytes: int) -> BinaryIO:
    """A file to append to, cut to the bytes that count. Not buffered: what could not be written is not tried again."""
    path.touch()
    file = path.open("r+b", buffering=0)
    file.truncate(n_bytes)
    file.seek(0, os.SEEK_END)
    return file


def _append(file: BinaryIO, content: bytes | np.ndarray) -> None:
    """All of it, and on to the disk."""
    left = memoryview(content if isinstance(content, bytes) else np.ascontiguousarray(content).data).cast("B")
    while left:
        left = left[file.write(left) :]
    os.fsync(file.fileno())
