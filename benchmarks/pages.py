"""What the sections of docs/results.md share: rows of tables, signed differences, claims that held or not, figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trueread import Estimate
from trueread.audit.finding import Figure
from trueread.report.draw import draw

WHITE = '<svg style="background:#fff"'


def line(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def rule(n: int) -> str:
    """The row below a table's head of n columns."""
    return line(["---"] * n)


def shown(found: Estimate | dict[str, Any]) -> str:
    """An estimate with its interval and, of several seeds, their standard deviation."""
    estimate = found if isinstance(found, Estimate) else Estimate.from_json(found)
    return estimate.text() + _spread(estimate)


def signed(found: Estimate) -> str:
    """The same of a difference."""
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})" + _spread(found)


def _spread(found: Estimate) -> str:
    return "" if found.spread is None else f" ±{found.spread:.3f}"


def alone(rows: Sequence[dict[str, Any]]) -> str:
    """For a heading: that what is below it is of a single training each."""
    return ", one seed" if {m["n_seeds"] for r in rows for m in r["measures"].values()} == {1} else ""


def held(holds: bool) -> str:
    return "Holds" if holds else "**Missed**"


def svg(figure: Figure, **looks: str) -> str:
    """The figure as a file, on white. looks: columns that tell colours and dashes apart; see `draw`."""
    return draw(figure.to_json() | looks).replace("<svg", WHITE, 1) + "\n"


def made_by(result: dict[str, Any]) -> str:
    """The command, with date and machine."""
    machine = result["environment"]
    return (
        f"- `{result['command']}`: {result['date']}; {machine['machine']}, torch {machine['torch']}, Python "
        f"{machine['python']}."
    )
