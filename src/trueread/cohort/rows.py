"""A CSV file as rows that know their number, so that an error can point at the row a person sees in a spreadsheet."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from trueread.errors import InputError, nearest

SHOWN = 5  # bad rows that an error lists
DELIMITERS = ",;\t"


def read_rows(path: Path, *, encoding: str = "utf-8", strip: bool = True) -> pd.DataFrame:
    """All cells of a CSV file as text; the index is the row number as a spreadsheet counts, the header being row 1.

    The delimiter (comma, semicolon or tab) is the one that the header has most of. Blank rows are passed over.
    strip: remove white space around cells, as people leave it; column names are always stripped.
    Raises InputError for a missing file, another encoding, broken quotes, rows of another length, or repeated columns.
    """
    text = _text(path, encoding)
    delimiter = max(DELIMITERS, key=text.partition("\n")[0].count)
    numbers: list[int] = []
    records: list[list[str]] = []
    header: list[str] | None = None
    number = 0
    try:
        for number, record in enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), 1):
            if header is None:
                header = [cell.strip() for cell in record]
                _refuse_repeated(path.name, header)
            elif any(cell.strip() for cell in record):
                if len(record) != len(header):
                    raise InputError(
                        f"{path.name}, row {number}: expected {len(header)} cells as in the header, found "
                        f"{len(record)}; put quotes around cells that contain the delimiter."
                    )
                numbers.append(number)
                records.append([cell.strip() for cell in record] if strip else record)
    except csv.Error as error:
        raise InputError(f"{path.name}, row {number + 1}: {error}; mend the quotes of this row.") from None
    if header is None or not records:
        raise InputError(f"{path.name} has no rows below its header; expected one row per image: add them.")
    return pd.DataFrame(records, columns=header, index=numbers, dtype=object)


def column(name: str, rows: pd.DataFrame, *, file: str, role: str) -> str:
    """`name` when it is a column of `rows`; else InputError with the nearest column. role: what the column is for."""
    if name in rows.columns:
        return name
    columns = [c for c in rows.columns if c]
    hint = nearest(name, columns) or " Name another."
    raise InputError(f"{file} has no column '{name}' for the {role}.{hint} Its columns: {', '.join(columns)}.")


def refuse_rows(file: str, problems: Sequence[tuple[int, str]], advice: str) -> None:
    """Raise InputError when there are problems (row number, what is wrong): the first five, and how many more."""
    if not problems:
        return
    listed = "; ".join(f"row {row}: {text}" for row, text in problems[:SHOWN])
    more = f" (and {len(problems) - SHOWN} more like it)" if len(problems) > SHOWN else ""
    raise InputError(f"{file}, {listed}{more}. {advice}")


def _text(path: Path, encoding: str) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check the path.") from None
    try:
        text = raw.decode("utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding)
    except UnicodeError as error:
        row = raw.count(b"\n", 0, getattr(error, "start", 0)) + 1
        advice = "save it as UTF-8, or give encoding=latin-1 (or utf-16)."
        raise InputError(f"{path.name}, row {row}: this is not {encoding} text; {advice}") from None
    except (LookupError, ValueError):  # no such encoding, none of text, and a name that can be none
        raise InputError(f"'{encoding}' is no text encoding; try utf-8, latin-1, cp1252 or utf-16.") from None
    if "\0" in text:
        raise InputError(f"{path.name} holds zero bytes, so it is no {encoding} text; export it as CSV (UTF-8).")
    return text


def _refuse_repeated(name: str, header: Sequence[str]) -> None:
    repeated = sorted({cell for cell in header if cell and header.count(cell) > 1})
    if repeated:
        raise InputError(f"{name}: the column '{repeated[0]}' occurs more than once; give every column its own name.")
