"""Numbers and lists as a person writes them: pure functions that the page, the card and the terminal share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from trueread.stats.estimate import Estimate

IRREGULAR = {"class": "classes", "category": "categories"}
SMALL = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
LONG = 6  # values, of which only the ends are written
MINUS = "\u2212"


def counted(n: int, noun: str) -> str:
    """ "1 patient", "1,203 patients"."""
    return f"{n:,} {plural(noun, n)}"


def plural(noun: str, n: int) -> str:
    """The noun as it follows the number n."""
    return noun if n == 1 else IRREGULAR.get(noun, noun + "s")


def spelled(n: int) -> str:
    """A small number as a word, for the start of a sentence or a noun's adjective; digits above ten."""
    return SMALL[n] if 0 <= n < len(SMALL) else f"{n:,}"


def joined(names: Iterable[str], *, last: str = "and") -> str:
    """ "a", "a and b", "a, b and c"."""
    names = list(names)
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} {last} {names[-1]}"


def sentence(text: str) -> str:
    """The text with a capital and a full stop, for text that others wrote as the end of a sentence; "" stays ""."""
    text = text.strip()
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def reason(text: str) -> str:
    """ "Not measured, because ..." from the reason as audits give it."""
    return f"Not measured, because {text.strip().rstrip('.') or 'no reason was given'}."


def duration(seconds: float | None) -> str:
    """ "4.2 s", "3 min 5 s", "2 h 10 min"; "not measured" for None."""
    if seconds is None:
        return "not measured"
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def p_text(p: float | None) -> str:
    """ "0.012", "< 0.001", or "" when there is none."""
    if p is None or p != p:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_phrase(p: float | None) -> str:
    """ "p = 0.012", "p < 0.001", or ""."""
    text = p_text(p)
    return "" if not text else f"p {text}" if text.startswith("<") else f"p = {text}"


def difference_text(difference: Estimate, baseline: str) -> str:
    """ "+0.031 over erm (0.008 to 0.052)", or "-0.012 against erm (...)"; the interval is that of the difference."""
    if difference.value != difference.value:
        return f"difference to {baseline} not defined"
    interval = ""
    if difference.low == difference.low and difference.high == difference.high:
        interval = f" ({difference.low:.3f} to {difference.high:.3f})"
    word = "over" if difference.value >= 0 else "against"
    return f"{difference.value:+.3f} {word} {baseline}{interval}"


def as_estimate(cell: Any) -> Estimate | None:
    """The Estimate that a table's or measure's JSON holds, or None when the cell is something else."""
    if isinstance(cell, Mapping) and "value" in cell and set(cell) <= set(Estimate.__dataclass_fields__):
        return Estimate.from_json(dict(cell))
    return None


def is_number(cell: Any) -> bool:
    """True for a plain number; True and False are not numbers here."""
    return isinstance(cell, (int, float)) and not isinstance(cell, bool)


def cell_text(cell: Any, *, digits: int = 3) -> str:
    """One cell of a table as text: estimates with their interval, numbers rounded, None as a dash."""
    estimate = as_estimate(cell)
    if estimate is not None:
        return estimate.text(digits=digits)
    if cell is None or cell != cell:
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return fixed(cell, digits=digits)
    if isinstance(cell, (list, tuple)):
        return ", ".join(cell_text(c, digits=digits) for c in cell) or "–"
    if isinstance(cell, Mapping):
        return "; ".join(f"{k}: {cell_text(v, digits=digits)}" for k, v in cell.items()) or "–"
    return str(cell)


def told(content: Any) -> str:
    """What a method says of itself, on one line: "labelled images 54; weights: nv 0.42, mel 1.9". Of rows by epoch the
    last one, of a long list both ends; what is empty is left out.
    """
    if isinstance(content, Mapping):
        found = {str(k).replace("_", " "): v for k, v in content.items() if not _empty(v)}
        return "; ".join(f"{k}: {_inside(v)}" if _has_parts(v) else f"{k} {_inside(v)}" for k, v in found.items())
    return _inside(content)


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, (Mapping, list, tuple)) and not value)


def _has_parts(value: Any) -> bool:
    rows = isinstance(value, (list, tuple)) and len(value) > 0 and isinstance(value[-1], Mapping)
    return isinstance(value, Mapping) or rows


def _inside(value: Any) -> str:
    """A value below the first level, whose keys may be names of classes and stay as they are."""
    if isinstance(value, Mapping):
        found = {k: v for k, v in value.items() if not _empty(v)}
        return ", ".join(f"{k} ({_inside(v)})" if _has_parts(v) else f"{k} {_inside(v)}" for k, v in found.items())
    if isinstance(value, (list, tuple)):
        if _has_parts(value):
            return _inside(value[-1])
        if len(value) > LONG:
            return f"{cell_text(value[0])} … {cell_text(value[-1])} ({len(value)} values)"
    return cell_text(value)


def options_text(options: Mapping[str, Any]) -> str:
    """ "share = 0.1", and of a composition "curvssl (epochs = 8), few-labels (share = 0.1)"."""
    return ", ".join(
        f"{k} ({options_text(v)})" if isinstance(v, Mapping) and v else f"{k} = {v}" for k, v in options.items()
    )


def fixed(value: float, *, digits: int = 3) -> str:
    """Fixed digits for ordinary sizes, thousands separated without decimals for large ones, powers for tiny ones."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}f}" if value == 0 or abs(value) >= 10**-digits / 2 else f"{value:.1e}"


def shortened(text: str, limit: int) -> str:
    """The text in at most `limit` characters, cut in its middle, where long names differ least."""
    if len(text) <= limit:
        return text
    head = limit // 2
    return f"{text[:head].rstrip()}…{text[len(text) - (limit - 1 - head) :].lstrip()}"


def slug(text: str) -> str:
    """A name as it can stand in a file name or an anchor."""
    return re.sub(r"[^A-Za-z0-9.+=-]+", "_", text) or "_"
