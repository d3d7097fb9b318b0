"""What is in a figure: its columns, its series and how they look, its size, and its words for who cannot see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trueread.errors import InputError
from trueread.report.svg import SERIES, printable
from trueread.report.words import as_estimate, counted, is_number

DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (6, 1.6, 1.2, 1.6)))
NARROW, WIDE = 420, 660  # points; the page shows a point as about a CSS pixel
LEGEND_CHARACTERS = 26
MAX_CATEGORIES, MAX_MATRIX = 60, 30

Json = Mapping[str, Any]
Columns = dict[str, list[Any]]


def columns(figure: Json) -> Columns:
    """The figure's data by column. Raises InputError when a column that it names is not there."""
    names = [str(c) for c in figure["data"]["columns"]]
    for key in ("x", "y", "group", "low", "high", "colour", "dash", "mark"):
        wanted = figure.get(key)
        if wanted and figure["kind"] != "matrix" and wanted not in names:
            raise InputError(
                f"the figure '{figure.get('name')}' names '{wanted}' as its {key}, but its data have "
                f"{', '.join(names)}; name one of these."
            )
    rows = figure["data"]["rows"]
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def alt_text(figure: Json) -> str:
    """What someone who cannot see the figure needs first: its title, what is in it, and the range of its values."""
    data = columns(figure)
    n_rows = len(figure["data"]["rows"])
    title = printable(figure.get("title") or figure.get("name") or "figure")
    if figure["kind"] == "matrix":
        return (
            f"{title}: a table of {counted(n_rows, 'row')} and {counted(max(len(data) - 1, 0), 'column')} of numbers."
        )
    key = figure.get("colour") or figure.get("group")
    names = [printable(n) for n in dict.fromkeys(data[key])] if key else []
    listed = f" for {', '.join(names[:12])}{' and others' if len(names) > 12 else ''}" if names else ""
    values = numbers(data.get(figure.get("y") or "", []))
    known = values[~np.isnan(values)]
    extent = f", from {known.min():.3g} to {known.max():.3g}" if len(known) else ""
    what = {"line": "lines", "interval": "values with intervals", "bar": "bars", "scatter": "points"}.get(
        figure["kind"], "values"
    )
    return f"{title}: {what} of {printable(figure.get('y_label') or figure.get('y') or 'values')}{listed}{extent}."


def size_of(figure: Json, data: Columns) -> tuple[float, float]:
    """Width and height in points: fixed for lines, growing with the number of categories otherwise."""
    kind = figure["kind"]
    key = figure.get("colour") or figure.get("group")
    names = [str(n) for n in dict.fromkeys(data[key])] if key and kind != "matrix" else []
    names += [str(n) for n in dict.fromkeys(data[figure["dash"]])] if figure.get("dash") else []
    width = NARROW if kind in ("line", "scatter") else WIDE
    legend = 16 * -(-len(names) // legend_columns(names, width)) if len(names) > 1 else 0
    if kind in ("line", "scatter"):
        return NARROW, (390 if figure.get("diagonal") or kind == "scatter" else 270) + legend
    if kind == "matrix":
        rows, across = min(len(figure["data"]["rows"]), MAX_MATRIX), min(max(len(data) - 1, 1), MAX_MATRIX)
        return (NARROW if across <= 4 else WIDE), 90 + max(rows * 34, 60)
    categories = min(len(set(map(str, data.get(figure.get("x") or "", [])))), MAX_CATEGORIES)
    return WIDE, 52 + legend + categories * max(20, 10 * max(len(names), 1) + 10)


def cut_note(figure: Json) -> str:
    """What a reader must know when a figure has more than can be read: how much of it is shown; else ""."""
    data = columns(figure)
    if figure["kind"] == "matrix":
        sizes = [(len(figure["data"]["rows"]), "row"), (len(data) - 1, "column")]
        cut = [f"{MAX_MATRIX} of {counted(n, noun)}" for n, noun in sizes if n > MAX_MATRIX]
        return f"The first {' and '.join(cut)} are shown." if cut else ""
    n = len(set(map(str, data[figure["x"]]))) if figure["kind"] in ("interval", "bar") else 0
    return f"The first {MAX_CATEGORIES} of {counted(n, 'category')} are shown." if n > MAX_CATEGORIES else ""


def legend_columns(names: Sequence[str], width: float) -> int:
    """As many columns as fit the width, each as wide as its longest name, of characters about six points wide."""
    lengths = [min(len(str(n)), LEGEND_CHARACTERS) for n in names]
    for count in range(len(names), 1, -1):
        columns = np.array_split(lengths, count)  # as matplotlib fills them
        if sum(6 * column.max() + 44 for column in columns) <= width:
            return count
    return 1


@dataclass
class Series:
    """Rows that belong together: their positions, and how they look."""

    name: str
    rows: list[int]
    colour: str
    dash: Any


def series_of(figure: Json, data: Columns) -> list[Series]:
    """One series per combination of group, colour and dash, in order of appearance."""
    n = len(figure["data"]["rows"])
    group, by_colour, by_dash = (str(figure.get(k) or "") for k in ("group", "colour", "dash"))
    own = not by_colour and not by_dash  # then the group decides both
    keys = [c for c in (by_colour, by_dash, group) if c]
    found: dict[tuple[str, ...], list[int]] = {}
    for i in range(n):
        found.setdefault(tuple(str(data[k][i]) for k in keys), []).append(i)
    tones = list(figure.get("order") or dict.fromkeys(str(v) for v in data.get(by_colour or group, [])))
    dashes = tones if own else list(dict.fromkeys(str(v) for v in data[by_dash])) if by_dash else []
    series = []
    for rows in found.values():
        tone = str(data[by_colour or group][rows[0]]) if by_colour or group else ""
        dash = tone if own else str(data[by_dash][rows[0]]) if by_dash else ""
        series.append(
            Series(
                tone or str(figure.get("y") or ""),
                rows,
                SERIES[tones.index(tone) % len(SERIES)] if tone in tones and len(tones) > 1 else SERIES[1],
                DASHES[dashes.index(dash) % len(DASHES)] if dash in dashes else DASHES[0],
            )
        )
    return series


def numbers(cells: Sequence[Any]) -> np.ndarray:
    """float64 [n]: numbers, the value of estimates, nan for everything else."""
    values = [e.value if (e := as_estimate(c)) else float(c) if is_number(c) else np.nan for c in cells]
    return np.array(values, dtype=np.float64)


def ends_of(figure: Json, data: Columns, rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends of the rows' intervals: from the columns named, or from the estimates in `y`; else nan."""
    found = []
    for side in ("low", "high"):
        name = figure.get(side)
        if name:
            found.append(numbers([data[name][i] for i in rows]))
        else:
            estimates = [as_estimate(data[figure["y"]][i]) for i in rows]
            found.append(np.array([getattr(e, side) if e else np.nan for e in estimates], dtype=np.float64))
    return found[0], found[1]
