"""The index of decoded files: a record for each, appended in blocks, of which a torn last one is passed over.

A block is a line of JSON (how many records, their CRC-32, and why some files could not be read) and then the records.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trueread.cohort.decoding import OUTCOME
from trueread.imagefile.filestate import CONTENT_BYTES

# Of each job: its image and its mask as they were when they were read, and what came of it.
RECORD = np.dtype([("stamp", "<i8", (2, 3)), ("content", "u1", (2, CONTENT_BYTES)), *OUTCOME.descr])


@dataclass(frozen=True)
class Index:
    """records: `RECORD` [n] of the first n jobs. reasons: of those that could not be read. n_bytes: that are whole."""

    records: np.ndarray
    reasons: dict[int, str]
    n_bytes: int

    @staticmethod
    def empty() -> Index:
        return Index(np.empty(0, RECORD), {}, 0)


def block(records: np.ndarray, reasons: Mapping[int, str]) -> bytes:
    """A block to append to an index. reasons: by position among these records."""
    content = records.tobytes()
    head = {"n": len(records), "crc": zlib.crc32(content), "reasons": {str(i): r for i, r in reasons.items()}}
    return json.dumps(head).encode() + b"\n" + content


def read_index(path: Path) -> Index:
    """All whole blocks up to the first that is not. Raises OSError."""
    data = path.read_bytes()
    parts: list[np.ndarray] = []
    reasons: dict[int, str] = {}
    n, at = 0, 0
    while at < len(data):
        end = data.find(b"\n", at)
        try:
            head = json.loads(data[at:end] if end >= 0 else b"")
            start, stop = end + 1, end + 1 + head["n"] * RECORD.itemsize
            if stop > len(data) or zlib.crc32(data[start:stop]) != head["crc"]:
                break
            told = {n + int(i): str(reason) for i, reason in head["reasons"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            break
        parts.append(np.frombuffer(data, RECORD, head["n"], start))
        reasons |= told
        n, at = n + head["n"], stop
    return Index(np.concatenate(parts) if parts else np.empty(0, RECORD), reasons, at)
