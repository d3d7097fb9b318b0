"""What a benchmark found: rows that each hold a ratio, printed and written to a JSON file as they come."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from timing import Middle

from trueread.files import write_json
from trueread.record import environment, today

Kind = Literal["times", "share", "exponent"]


@dataclass(frozen=True)
class Aim:
    """What a row should come to: its ratio, or its own value, at least or at most `value`."""

    of: Literal["ratio", "ours"]
    way: Literal["at least", "at most"]
    value: float


@dataclass(frozen=True)
class Row:
    """One line of the table.

    what: was measured, `ours` its value in `unit`; peer: with what it is compared, `theirs` its value; "" without one.
    ratio: median over the rounds of the comparison in one run, or None when the row is a bare number; low, high: its
    first and third quartile. kind: how the ratio reads: "times" (1.31x), "share" (4.2 %) or "exponent" (n^1.02).
    """

    what: str
    unit: str
    ours: float
    peer: str = ""
    theirs: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    kind: Kind = "times"
    aim: Aim | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the aim is met; None without one."""
        value = self.ratio if self.aim and self.aim.of == "ratio" else self.ours
        if self.aim is None or value is None:
            return None
        return value >= self.aim.value if self.aim.way == "at least" else value <= self.aim.value

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"met": self.met}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Row:
        aim = stored["aim"]
        return cls(**{k: v for k, v in stored.items() if k not in ("met", "aim")}, aim=Aim(**aim) if aim else None)


def row(what: str, unit: str, ours: float, ratio: Middle, **more: Any) -> Row:
    """A row whose ratio comes from the rounds."""
    return Row(what, unit, ours, ratio=ratio.value, low=ratio.low, high=ratio.high, **more)


HEAD = ("measured", "trueread", "beside it", "ratio", "middle half", "aim")


def cells(found: Row) -> tuple[str, ...]:
    """The row as the columns of `HEAD`."""
    beside = found.peer if found.theirs is None else f"{number(found.theirs)} {found.unit}, {found.peer}"
    middle = "-"
    if found.low is not None and found.high is not None:
        middle = f"{_ratio(found.low, found.kind)} to {_ratio(found.high, found.kind)}"
    ours = f"{number(found.ours)} {found.unit}".strip()
    what = f"{found.what} ({found.note})" if found.note else found.what
    return (what, ours, beside or "-", _ratio(found.ratio, found.kind), middle, _aim(found))


def _ratio(value: float | None, kind: Kind) -> str:
    if value is None:
        return "-"
    if kind == "share":
        return f"{100 * value:.1f} %"
    return f"{number(value)}x" if kind == "times" else f"n^{value:.2f}"


def _aim(found: Row) -> str:
    if found.aim is None:
        return "-"
    value = _ratio(found.aim.value, found.kind) if found.aim.of == "ratio" else f"{found.aim.value:g} {found.unit}"
    return f"{found.aim.way} {value}: {'met' if found.met else 'missed'}"


def number(value: float) -> str:
    """Three digits, and all digits before the point."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value else "0"


def table(rows: list[Row]) -> str:
    """The rows under their head, in columns."""
    lines = [HEAD, *(cells(r) for r in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


@dataclass
class Sheet:
    """The rows of one part, kept in its place in the file at `path` after every one; nowhere when that is None.

    device, precision: for the record, where a part takes others than the CPU's.
    """

    part: str
    title: str
    path: Path | None
    command: str
    device: str = ""
    precision: str = ""
    rows: list[Row] = field(default_factory=list)
    detail: dict[str, Any] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    load: float = field(default_factory=lambda: os.getloadavg()[0])

    def add(self, *rows: Row) -> None:
        """Enter rows, print them, and write the file."""
        for found in rows:
            self.rows.append(found)
            what, ours, beside, ratio, middle, aim = cells(found)
            print(f"  {what}: {ours}; {beside}; {ratio} ({middle}); aim: {aim}", flush=True)
        self.write()

    def say(self, text: str) -> None:
        """A line on what is being done."""
        print(f"[{time.perf_counter() - self.started:5.0f} s] {self.part}: {text}", flush=True)

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """A piece of the part; when it cannot be measured, that is entered with its reason, and the rest goes on."""
        self.say(what)
        try:
            yield
        except Exception as error:
            reason = f"{what}: {type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
            self.missing.append(reason)
            self.say(f"not measured: {reason}")
            self.write()

    def write(self) -> None:
        """Put the part into the file; what the file has of other parts stays."""
        if self.path is None:
            return
        stored = json.loads(self.path.read_text(encoding="utf-8")) if self.path.is_file() else {}
        parts = stored.get("parts", {})
        parts[self.part] = {
            "title": self.title,
            "command": self.command,
            "date": today(),
            "environment": environment(device=self.device, precision=self.precision),
            "load_at_start": round(self.load, 2),
            "seconds": round(time.perf_counter() - self.started, 1),
            "rows": [r.to_json() for r in self.rows],
            "detail": self.detail,
            "not_measured": self.missing,
        }
        where = "GPU" if self.path.stem.endswith("gpu") else "CPU"
        write_json(self.path, {"title": f"Speed on a {where}", "parts": parts})
