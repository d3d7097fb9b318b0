"""What an audit answers: numbers with intervals, a verdict, tables, and figures described as data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import numpy as np
import pandas as pd

from trueread.audit.strip import Strip
from trueread.stats import Comparison, Estimate, Statistic

WARNING = "Warning: "


class Better(StrEnum):
    """Which direction is good."""

    HIGHER = "higher"
    LOWER = "lower"


class Verdict(StrEnum):
    """What the interval says about the threshold: wholly on the good side, across it, wholly on the bad side."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    NO_THRESHOLD = "no threshold"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Measure:
    """One number of a finding.

    title: for people, with the unit if it has one. better: direction. definition: how it is made, in one line.
    statistics: one per seed, functions of the test rows' weights; they make the interval and the paired difference to
    another method, and are not stored. scores: for the AUROC of a binary task, float [S,n], each seed's score of the
    positive class, so that the difference can be tested by DeLong's method instead of the bootstrap; else None.
    """

    title: str
    estimate: Estimate
    better: Better
    definition: str = ""
    statistics: Sequence[Statistic] = field(default=(), repr=False, compare=False)
    scores: np.ndarray | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "estimate": self.estimate.to_json(),
            "better": str(self.better),
            "definition": self.definition,
        }


@dataclass(frozen=True)
class Figure:
    """A figure as data, so that every room draws the same way and no audit needs a drawing library.

    kind: "line" (x against y, one line per value of `group`), "interval" (y with `low` and `high` per category x),
    "bar" (y per category x), "matrix" (a table of numbers, row names in the first column), "scatter" (a point per row,
    coloured by `group`).
    diagonal: draw the line of equality. The columns named must be in `data`.
    """

    name: str
    title: str
    kind: Literal["line", "interval", "bar", "matrix", "scatter"]
    data: pd.DataFrame
    x: str = ""
    y: str = ""
    group: str | None = None
    low: str | None = None
    high: str | None = None
    x_label: str = ""
    y_label: str = ""
    diagonal: bool = False
    caption: str = ""

    def to_json(self) -> dict[str, Any]:
        values = {k: v for k, v in self.__dict__.items() if k != "data"}
        return values | {"data": table_to_json(self.data)}


@dataclass
class Finding:
    """The answer to an audit's question about one subject (a method's classifiers, one per seed).

    measures: by key; the first one is the headline, which has the verdict. threshold: what the verdict compares with.
    verdict: of the driver, from the headline; an audit that sets WARN itself keeps it where the headline alone would
    pass, and where there never was a threshold.
    tables: by title. strips: pictures. notes: sentences the reader needs to judge the numbers.
    lists: by file name; they name images, so they are written as CSV beside the report and are no part of it.
    about_data: the classifiers took no part, and every method of a study has the same answer.
    reason: why it was not measured, else "".
    """

    audit: str
    question: str
    measures: dict[str, Measure] = field(default_factory=dict)
    verdict: Verdict = Verdict.NO_THRESHOLD
    threshold: float | None = None
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    strips: list[Strip] = field(default_factory=list)
    lists: dict[str, pd.DataFrame] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    about_data: bool = False
    reason: str = ""
    seconds: float = 0.0

    @property
    def headline(self) -> Measure | None:
        return next(iter(self.measures.values()), None)

    def to_json(self) -> dict[str, Any]:
        """A dict for json.dump; nan becomes None. Neither the statistics, nor the pixels of strips, nor lists."""
        return {
            "audit": self.audit,
            "question": self.question,
            "measures": {k: m.to_json() for k, m in self.measures.items()},
            "verdict": str(self.verdict),
            "threshold": self.threshold,
            "tables": {k: table_to_json(t) for k, t in self.tables.items()},
            "figures": [f.to_json() for f in self.figures],
            "strips": [s.to_json() for s in self.strips],
            "notes": self.notes,
            "about_data": self.about_data,
            "reason": self.reason,
            "seconds": round(self.seconds, 2),
        }


@dataclass(frozen=True)
class Difference:
    """A method against the baseline on one measure, paired on the same test patients."""

    audit: str
    measure: str
    method: str
    baseline: str
    comparison: Comparison
    test: str = "paired bootstrap"

    def to_json(self) -> dict[str, Any]:
        c = self.comparison
        return {
            "audit": self.audit,
            "measure": self.measure,
            "method": self.method,
            "baseline": self.baseline,
            "difference": c.difference.to_json(),
            "test": self.test,
            "p_value": _number(c.p_value),
            "p_adjusted": _number(c.p_adjusted),
        }


def verdict_of(estimate: Estimate, threshold: float | None, better: Better) -> Verdict:
    """Pass when the whole 95 % interval is on the good side of the threshold, fail when it is on the bad side, else
    warn; warn also without an interval, because a number alone leaves it undecided.
    """
    if threshold is None:
        return Verdict.NO_THRESHOLD
    if estimate.value != estimate.value:
        return Verdict.NOT_MEASURED
    low, high = estimate.low, estimate.high
    if low != low or high != high:
        return Verdict.WARN
    if better is Better.LOWER:
        low, high, threshold = -high, -low, -threshold
    if low >= threshold:
        return Verdict.PASS
    return Verdict.FAIL if high < threshold else Verdict.WARN


def warnings_in(notes: Iterable[str]) -> list[str]:
    """Those of a finding's notes that advise against a use of what was found; they begin with WARNING."""
    return [note for note in notes if note.startswith(WARNING)]


def table_to_json(table: pd.DataFrame) -> dict[str, Any]:
    """{"columns": [...], "rows": [[...], ...]} with nan as None; Estimate cells become their dict."""
    rows = [[_cell(v) for v in row] for row in table.itertuples(index=False, name=None)]
    return {"columns": [str(c) for c in table.columns], "rows": rows}


def _cell(value: Any) -> Any:
    if isinstance(value, Estimate):
        return value.to_json()
    if hasattr(value, "item"):
        value = value.item()
    return _number(value)


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value
