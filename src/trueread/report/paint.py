"""The painters of each kind of figure on matplotlib axes, and the one legend they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from trueread.report.plotdata import (
    DASHES,
    LEGEND_CHARACTERS,
    MAX_CATEGORIES,
    MAX_MATRIX,
    NARROW,
    WIDE,
    Columns,
    Json,
    Series,
    ends_of,
    legend_columns,
    numbers,
    series_of,
)
from trueread.report.svg import CLASS, INK, MUTED, PAPER, RULE, SERIES, printable
from trueread.report.words import MINUS, cell_text, is_number, shortened


def _lines(axes: Axes, figure: Json, data: Columns) -> None:
    names = list(dict.fromkeys(map(str, data[figure["x"]])))
    in_words = not all(is_number(v) or v is None for v in data[figure["x"]])
    x_all = (
        np.array([names.index(str(v)) for v in data[figure["x"]]], float) if in_words else numbers(data[figure["x"]])
    )
    y_all = numbers(data[figure["y"]])
    if figure.get("diagonal"):
        _equality(axes, x_all, y_all)
    series = series_of(figure, data)
    thin = len(series) > 8
    for s in series:
        x, y = x_all[s.rows], y_all[s.rows]
        low, high = ends_of(figure, data, s.rows)
        there = ~np.isnan(low) & ~np.isnan(high)
        if there.any() and there.sum() <= 30:
            axes.vlines(x[there], low[there], high[there], color=s.colour, linewidth=1, alpha=0.45)
        elif there.any():
            axes.fill_between(x, low, high, color=s.colour, alpha=0.15, linewidth=0)
        n_points = np.sum(~np.isnan(y))
        dotted = n_points == 1 or (n_points <= 30 and there.any())
        axes.plot(
            x, y, color=s.colour, linestyle=s.dash, linewidth=1.1 if thin else 1.6, gid=CLASS + "line",
            marker="o" if dotted else "", markersize=3.2, markeredgewidth=0,
        )  # fmt: skip
        marked = [i for i, row in enumerate(s.rows) if figure.get("mark") and data[figure["mark"]][row] is True]
        if marked:
            axes.plot(
                x[marked], y[marked], "o", markersize=5, color=s.colour, markeredgecolor=PAPER, markeredgewidth=0.8,
                gid=CLASS + "mark",
            )  # fmt: skip
    if in_words:
        axes.set_xticks(range(len(names)), [shortened(printable(n), 16) for n in names])
    elif x_all.size and np.all(x_all[~np.isnan(x_all)] % 1 == 0):
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(True)
    axes.set_xlabel(printable(figure.get("x_label") or figure["x"]))
    axes.set_ylabel(printable(figure.get("y_label") or figure["y"]))
    _legend(axes, figure, data, series)


def _equality(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """The line on which x is y, on square axes; from 0 to 1 when the values are shares."""
    both = np.concatenate([x, y])
    both = both[~np.isnan(both)]
    low, high = (0.0, 1.0) if not both.size or (both.min() >= 0 and both.max() <= 1) else (both.min(), both.max())
    axes.plot([low, high], [low, high], color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)), gid=CLASS + "equality")
    pad = 0.015 * (high - low)
    axes.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + pad), aspect="equal")


def _categories(axes: Axes, figure: Json, data: Columns) -> None:
    """Intervals or bars, lying: long names of categories are read from left to right, and values share one axis."""
    is_bar = figure["kind"] == "bar"
    labels = [printable(v) if isinstance(v, str) else cell_text(v) for v in data[figure["x"]]]
    names = list(dict.fromkeys(labels))[:MAX_CATEGORIES]
    series = series_of(figure, data)
    step = 0.76 / max(len(series), 1)
    if len(series) > 1:
        for band in range(0, len(names), 2):
            axes.axhspan(band - 0.5, band + 0.5, color=RULE, alpha=0.4, linewidth=0)
    everything = numbers(data[figure["y"]])
    for number, s in enumerate(series):
        rows = [i for i in s.rows if labels[i] in names]
        at = np.array([names.index(labels[i]) for i in rows], float) + (number - (len(series) - 1) / 2) * step
        values = everything[rows]
        low, high = ends_of(figure, data, rows)
        if is_bar:
            axes.barh(at, np.nan_to_num(values), height=step * 0.82, color=s.colour, alpha=0.8, gid=CLASS + "bar")
            for y, v in zip(at, values, strict=True):
                shown = cell_text(float(v)).replace("-", MINUS)
                axes.annotate(
                    shown, (0.0 if np.isnan(v) else v, y), (4 if not v < 0 else -4, 0),
                    textcoords="offset points", va="center", ha="left" if not v < 0 else "right", fontsize=9, color=INK,
                )  # fmt: skip
        axes.hlines(at, low, high, color=INK if is_bar else s.colour, linewidth=1 if is_bar else 2, alpha=0.75)
        if not is_bar:
            axes.plot(values, at, "o", color=s.colour, markersize=5, markeredgewidth=0, gid=CLASS + "values")
    axes.set_yticks(range(len(names)), [shortened(n, 40) for n in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(True, axis="x")
    axes.spines["left"].set_visible(False)
    if np.nanmin(everything, initial=0) < 0 < np.nanmax(everything, initial=0):
        axes.axvline(0, color=MUTED, linewidth=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    if is_bar:
        axes.margins(x=0.12)
    axes.set_xlabel(printable(figure.get("y_label") or figure["y"]))
    axes.set_ylabel(printable(figure.get("x_label") or ""))
    _legend(axes, figure, data, series)


def _points(axes: Axes, figure: Json, data: Columns) -> None:
    """A point per row, of one size; the axes have no numbers where nobody named them."""
    x, y = numbers(data[figure["x"]]), numbers(data[figure["y"]])
    series = series_of(figure, data)
    for s in series:
        axes.plot(
            x[s.rows], y[s.rows], "o", color=s.colour, markersize=3.2, markeredgewidth=0, alpha=0.65,
            gid=CLASS + "point",
        )  # fmt: skip
    axes.grid(True)
    axes.set_xlabel(printable(figure.get("x_label") or figure["x"]))
    axes.set_ylabel(printable(figure.get("y_label") or figure["y"]))
    _legend(axes, figure, data, series)


def _matrix(axes: Axes, figure: Json, data: Columns) -> None:
    """Cells shaded by size, up to a tone on which the number stays legible; negative numbers have another hue."""
    first, *names = data
    names, rows = names[:MAX_MATRIX], [printable(v) for v in data[first]][:MAX_MATRIX]
    values = np.stack([numbers(data[n])[: len(rows)] for n in names], axis=1)
    largest = np.nanmax(np.abs(values), initial=0) or 1.0
    whole = all(isinstance(c, int) for n in names for c in data[n] if c is not None)
    for (r, c), value in np.ndenumerate(values):
        share = 0.0 if np.isnan(value) else abs(value) / largest
        axes.fill(
            [c - 0.48, c + 0.48, c + 0.48, c - 0.48], [r - 0.47, r - 0.47, r + 0.47, r + 0.47],
            color=SERIES[2] if value < 0 else SERIES[1], alpha=round(0.04 + 0.46 * share, 3), linewidth=0,
            gid=CLASS + "cell",
        )  # fmt: skip
        if len(names) <= 20:
            text = "–" if np.isnan(value) else f"{value:,.0f}" if whole or largest >= 1000 else f"{value:.2f}"
            axes.text(c, r, text, ha="center", va="center", fontsize=9.5)
    limit = 14 if len(names) > 4 else 18
    tilted = max((len(n) for n in names), default=0) > 60 // max(len(names), 1)
    axes.set_xticks(range(len(names)), [shortened(printable(n), limit if not tilted else 24) for n in names])
    axes.set_yticks(range(len(rows)), [shortened(r, 28) for r in rows])
    if tilted:
        for label in axes.get_xticklabels():
            label.set(rotation=35, ha="right", rotation_mode="anchor")
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.spines[:].set_visible(False)
    axes.set_xlabel(printable(figure.get("x_label") or ""))
    axes.set_ylabel(printable(figure.get("y_label") or ""))


def _legend(axes: Axes, figure: Json, data: Columns, series: Sequence[Series]) -> None:
    """One entry per colour, and per dash where that tells something else apart; none when there is one series."""
    looks = {s.name: s for s in reversed(series)}
    names = list(dict.fromkeys(s.name for s in series))
    by_dash = figure.get("dash")
    plain = figure["kind"] != "line"
    handles = [
        Line2D(
            [],
            [],
            color=looks[n].colour,
            linestyle="" if plain else "-" if by_dash else looks[n].dash,
            marker="o" if plain else "",
        )
        for n in names
    ]
    labels = [shortened(printable(n), LEGEND_CHARACTERS) for n in names]
    if len(names) < 2 and (by_dash or not figure.get("colour")):
        handles, labels = [], []
    if by_dash:
        kinds = list(dict.fromkeys(str(v) for v in data[by_dash]))
        handles += [
            Line2D([], [], color=INK, linestyle=DASHES[i % len(DASHES)], linewidth=1.2) for i in range(len(kinds))
        ]
        labels += [shortened(printable(k), LEGEND_CHARACTERS) for k in kinds]
    if handles:
        canvas = axes.get_figure()
        assert canvas is not None
        width = NARROW if figure["kind"] in ("line", "scatter") else WIDE
        canvas.legend(handles, labels, loc="outside upper left", ncols=legend_columns(labels, width))


PAINTERS: dict[str, Callable[[Axes, Json, Columns], None]] = {
    "line": _lines,
    "interval": _categories,
    "bar": _categories,
    "matrix": _matrix,
    "scatter": _points,
}
