"""Arrays that lie in a file: read in pieces, let go of what was read, and remember what is known of them."""

from __future__ import annotations

import hashlib
import mmap
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trueread.files import DiskFull, is_disk_full

PIECE_BYTES = 2**24  # read, written and hashed at a time
HELD_BYTES = 2**28  # of a file's pages that stay in this process before it lets go of them; also: a large selection
FAULT_BYTES = 2**17  # what the system maps around the first and the last page of a row that is touched


@dataclass(frozen=True, eq=False)
class Known:
    """What was measured of `array` when it was written, so that opening it again need not read it.

    digest: see `content_digest`. brightest: its largest value. Holds for this very object and for no copy of it.
    """

    array: np.ndarray
    digest: str
    brightest: int


def content_digest(array: np.ndarray) -> str:
    """BLAKE2b, 32 hex digits, of shape, type and content; the same wherever the array lies and however it is cut."""
    h = hashlib.blake2b(f"{array.shape}{array.dtype.str}".encode(), digest_size=16)
    for piece in pieces(array):
        h.update(np.ascontiguousarray(piece).data)
    return h.hexdigest()


def brightest_of(array: np.ndarray) -> int:
    """The largest value of an array that is not empty."""
    return max(int(piece.max()) for piece in pieces(array))


def pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    """The array cut along its first axis into views of about `PIECE_BYTES`; a file's pages are let go of after each."""
    rows = max(1, PIECE_BYTES // max(1, array.nbytes // max(1, len(array))))
    for start in range(0, len(array), rows):
        yield array[start : start + rows]
        release(array)


def release(array: np.ndarray) -> None:
    """Let go of the pages of the array's file. The system keeps them for as long as nobody needs the memory."""
    mapping = _mapping(array)
    if mapping is not None:
        mapping.madvise(mmap.MADV_DONTNEED)


class Rows:
    """Picks rows out of an array; out of one that lies in a file, in bounded memory and with the disk well used.

    All rows of a request are announced before the first is read, so that the disk serves them together: from a cold
    disk that is 15 times as many images of 64 pixels a second. (Sorting the rows alone changes nothing there.)
    """

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.held = array, 0
        self.mapping = _mapping(array) if array.flags.c_contiguous else None
        if self.mapping is not None:
            self.row_bytes = array.nbytes // max(1, len(array))
            self.offset = _address(array) - _address(np.frombuffer(self.mapping, np.uint8))

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """A copy of `rows` (int64 [B])."""
        if self.mapping is None:
            return self.array[rows]
        for start in (self.offset + np.sort(rows) * self.row_bytes).tolist():
            page = start // mmap.PAGESIZE * mmap.PAGESIZE
            self.mapping.madvise(mmap.MADV_WILLNEED, page, start + self.row_bytes - page)
        picked = np.asarray(self.array[rows])
        self.held += len(rows) * (self.row_bytes + FAULT_BYTES)
        if self.held > HELD_BYTES:
            self.mapping.madvise(mmap.MADV_DONTNEED)
            self.held = 0
        return picked


def selected(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The rows (int64 [M], not empty) of an array, without filling the memory when it lies in a file.

    Then neighbouring rows are a view, and a large selection lies in a file too: one without a name beside the array's
    (or where temporary files go), which is gone when nobody uses it any more. Raises DiskFull.
    """
    if not isinstance(array, np.memmap):
        return array[rows]
    if rows[0] >= 0 and (np.diff(rows) == 1).all():
        return array[rows[0] : rows[-1] + 1]
    row_bytes = array.nbytes // len(array)
    if len(rows) * row_bytes <= HELD_BYTES:
        return np.asarray(array[rows])
    reader, step = Rows(array), max(1, PIECE_BYTES // row_bytes)
    with _nameless_file(array) as file:
        try:
            for start in range(0, len(rows), step):
                file.write(reader[rows[start : start + step]].data)
            file.flush()
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise DiskFull(
                f"{len(rows)} of {len(array)} images are to be selected, and the disk has no room for them "
                f"({len(rows) * row_bytes / 2**30:.1f} GiB); make space, or select fewer."
            ) from None
        return np.memmap(file, array.dtype, "r", shape=(len(rows), *array.shape[1:]))


def _nameless_file(array: np.memmap) -> tempfile._TemporaryFileWrapper[bytes]:
    folder = Path(array.filename).parent if array.filename is not None else None
    try:
        return tempfile.TemporaryFile(dir=folder)  # type: ignore[return-value]
    except OSError:  # the array's folder may not be written to
        return tempfile.TemporaryFile()  # type: ignore[return-value]


def _mapping(array: np.ndarray) -> mmap.mmap | None:
    """The read-only mapping that the array is a view of. One that was written to would lose what was written."""
    if isinstance(array, np.memmap) and array.mode == "r" and hasattr(mmap, "MADV_DONTNEED"):
        return getattr(array, "_mmap", None)
    return None


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])
