"""Tables as the page shows them: cells as text, numbers aligned, the same table of several methods as one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trueread.report.words import MINUS, as_estimate, cell_text, counted, is_number

MAX_ROWS = 60  # per method: a longer table is in findings.json, where a program can read it


@dataclass(frozen=True)
class Cell:
    """One cell: its text, and the interval's text for an estimate."""

    text: str
    interval: str = ""


@dataclass(frozen=True)
class TableView:
    """A table for reading. numeric: by column, whether it is aligned as numbers. blocks: (method or "", its rows)."""

    title: str
    columns: list[str]
    numeric: list[bool]
    blocks: list[tuple[str, list[list[Cell]]]]
    note: str = ""


def table_views(findings: Mapping[str, dict[str, Any]]) -> list[TableView]:
    """Every table of an audit's findings (by method). Those of one title and columns become one, block by block."""
    alike: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
    for method, finding in findings.items():
        for title, table in (finding.get("tables") or {}).items():
            alike.setdefault((title, *map(str, table["columns"])), {})[method] = table
    return [table_view(key[0], tables, named=len(findings) > 1) for key, tables in alike.items()]


def table_view(title: str, tables: Mapping[str, dict[str, Any]], *, named: bool) -> TableView:
    """Tables with the same columns, one block per method. named: show the method's name above its block."""
    columns = [str(c) for c in next(iter(tables.values()))["columns"]]
    every = [row for t in tables.values() for row in t["rows"]]
    digits = [_digits([row[i] for row in every]) for i in range(len(columns))]
    shown = {m: t["rows"][:MAX_ROWS] for m, t in tables.items()}
    left = max(len(t["rows"]) for t in tables.values()) - MAX_ROWS
    return TableView(
        title,
        columns,
        [_is_numeric([row[i] for row in every]) for i in range(len(columns))],
        [
            (m if named else "", [[cell(v, digits=d) for v, d in zip(row, digits, strict=True)] for row in rows])
            for m, rows in shown.items()
        ],
        f"{counted(left, 'further row')} in findings.json." if left > 0 else "",
    )


def cell(value: Any, *, digits: int = 3) -> Cell:
    """A cell with a true minus sign; an estimate's interval apart from its value, so that values align."""
    estimate = as_estimate(value)
    if estimate is None:
        if isinstance(value, float) and math.isfinite(value):
            return Cell(_minus(f"{value:,.{digits}f}"))
        return Cell(_minus(cell_text(value)) if is_number(value) else cell_text(value))
    value_text, _, interval = estimate.text(digits=digits).partition(" (")
    if value_text.startswith("not"):
        return Cell(estimate.text())
    return Cell(_minus(value_text), _minus(interval.removesuffix(")")))


def _minus(text: str) -> str:
    return text.replace("-", MINUS)


def _is_numeric(cells: Sequence[Any]) -> bool:
    known = [c for c in cells if c is not None]
    return bool(known) and all(is_number(c) or as_estimate(c) is not None for c in known)


def _digits(cells: Sequence[Any]) -> int:
    """Decimals for a column: three for shares and the like, fewer for large numbers, more where all are tiny."""
    sizes = [abs(c) for c in cells if isinstance(c, float) and math.isfinite(c)]
    largest = max(sizes, default=0.0)
    if 0 < largest < 0.01:
        return min(2 - math.floor(math.log10(largest)), 8)
    return 3 if largest < 10 else 2 if largest < 100 else 1
