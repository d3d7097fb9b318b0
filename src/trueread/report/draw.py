"""A Figure's JSON as an SVG that is right in light, dark and print: one painter per kind, and one legend.

Beyond the keys of `trueread.audit.finding.Figure`, a figure that `combine` made may name columns for the report's use:
`colour` and `dash` (what these tell apart; both are `group` otherwise), `mark` (true where a point is emphasised), and
`order` (all names that share the colours, so that a method keeps its colour when another is missing).
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from typing import Any

import matplotlib
from matplotlib.figure import Figure as Canvas

from trueread.errors import unknown
from trueread.report.paint import PAINTERS
from trueread.report.plotdata import WIDE, Json, alt_text, columns, size_of
from trueread.report.svg import INK, MUTED, RULE, tidy

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "trueread",
    "text.parse_math": False,  # a class may be called "$5$"
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.6,
    "path.simplify_threshold": 0.2,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "legend.columnspacing": 1.4,
}


def draw(figure: Json) -> str:
    """The figure as an SVG element, text as text, transparent, colours as CSS variables with fallbacks for white paper.

    figure: as `Figure.to_json` gives it. The same figure gives the same text.
    Raises InputError for a kind that is not known and for a column that is not in the data.
    """
    painter = PAINTERS.get(figure["kind"])
    if painter is None:
        raise unknown("kind of figure", str(figure["kind"]), PAINTERS)
    data = columns(figure)
    width, height = size_of(figure, data)
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # matplotlib measures with its own font, which lacks many scripts; the browser, which draws the text, does not
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        canvas = Canvas(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
        axes = canvas.add_subplot()
        if any(data.values()):
            painter(axes, figure, data)
        else:
            axes.axis("off")
            axes.text(0.5, 0.5, "nothing to draw", ha="center", va="center", color=MUTED)
        canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    digest = hashlib.blake2b(json.dumps(figure, sort_keys=True, default=str).encode(), digest_size=4).hexdigest()
    return tidy(buffer.getvalue(), prefix=f"f{digest}-", label=alt_text(figure))


def is_wide(figure: Json) -> bool:
    """True when the figure needs the page's whole width."""
    return size_of(figure, columns(figure))[0] == WIDE
