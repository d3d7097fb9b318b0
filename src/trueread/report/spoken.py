"""Numbers of a summary as parts of sentences: what was measured, and what a method changed against the baseline."""

from __future__ import annotations

from collections.abc import Sequence

from trueread.report.scorecard import ScoreRow, audit_rows
from trueread.report.summary import Json
from trueread.report.words import MINUS
from trueread.stats.estimate import Estimate

Rows = dict[str, ScoreRow]  # of one method, by measure


def measured_rows(summary: Json, audit: str) -> dict[str, Rows]:
    """Of each method what an audit measured, without what has no value."""
    rows: dict[str, Rows] = {}
    for row in audit_rows(summary, audit):
        if row.estimate is not None and row.estimate.value == row.estimate.value:
            rows.setdefault(row.method, {})[row.measure] = row
    return rows


def against_baseline(
    method: str, rows: Rows, compared: Sequence[tuple[str, str]], *, unjudged: Sequence[str] = ()
) -> str:
    """What a method bought and cost, from the paired differences; "" where it was not compared.

    compared: measures, each with the words before its number. unjudged: measures whose direction is not good or bad.
    """
    parts = [
        f"{phrase} {number(row.difference, signed=True)}{_judged(row, unjudged)}"
        for key, phrase in compared
        if (row := rows.get(key)) and row.difference is not None and row.difference.value == row.difference.value
    ]
    return f"{method} against {next(iter(rows.values())).baseline}: {'; '.join(parts)}." if parts else ""


def _judged(row: ScoreRow, unjudged: Sequence[str]) -> str:
    """ ", better", ", worse" or ", no clear difference" where the interval contains 0; "" without an interval."""
    difference = row.difference
    assert difference is not None
    if difference.low <= 0 <= difference.high:
        return ", no clear difference"
    if difference.low != difference.low or row.measure in unjudged:
        return ""
    return ", better" if (difference.value > 0) == (row.better == "higher") else ", worse"


def number(estimate: Estimate | None, *, signed: bool = False) -> str:
    """ "0.91 (0.88 to 0.94)", with true minus signs; of a small difference a digit more, or it would read as none."""
    if estimate is None:
        return ""
    digits = 3 if signed and abs(estimate.value) < 0.01 else 2
    return estimate.text(digits=digits, signed=signed).replace("-", MINUS)
