"""The page of a check: one HTML file, complete without network or script, drawn from the check's folder alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from markupsafe import Markup

from trueread.files import write_text
from trueread.report import check_words, views
from trueread.report.check_examples import MAX_EXAMPLES
from trueread.report.check_words import CHECK_PAGE, MEANING, NOT_CHECKED, NOTHING_FOUND, SIGNS
from trueread.report.page import MAX_BYTES, template_engine
from trueread.report.pictures import embedded
from trueread.report.summary import Json
from trueread.report.tables import TableView, table_view
from trueread.report.words import counted, p_text

SPLIT_TITLES = {"train": "Training", "val": "Validation", "test": "Test"}
P_VALUE = re.compile(r"\bp\b|p_value|p_adjusted")  # a column in which 0.00002 is not shown as 0.000
SHOWN_ROWS = 12  # of what a check measured; all of it is in its table
FEWER_EXAMPLES = (MAX_EXAMPLES, 4, 2, 1, 0)  # of a concern, tried in this order until the page is small enough


@dataclass(frozen=True)
class ExampleView:
    """Images side by side. images: each entry of check.json with its picture as a data URI. left_out: images that are
    not shown."""

    images: list[tuple[Json, str]]
    caption: str
    left_out: int


@dataclass(frozen=True)
class ConcernView:
    """One concern as the page shows it. left_out: examples that are not shown."""

    entry: Json
    anchor: str
    examples: list[ExampleView]
    left_out: int


@dataclass(frozen=True)
class CheckView:
    """One check with the first rows of what it measured. details: where all of it is, or ""."""

    entry: Json
    outcome: str
    sign: str
    table: TableView | None
    details: str


def write_check_page(folder: str | Path) -> Path:
    """Draw check.html from check.json and the pictures in `folder`, and return its path.

    The page is one file of less than 5 MB; when the examples would make it larger, it shows fewer and says so.
    The same folder gives the same page. Raises InputError when the folder holds no check.
    """
    folder = Path(folder)
    content = check_words.read_check(folder)
    engine = template_engine()
    engine.filters |= {"looked_at": check_words.looked_at, "not_checked": check_words.why_not}
    template = engine.get_template("check_template.html")
    signs = {str(kind): sign for kind, sign in SIGNS.items()} | {NOTHING_FOUND: "✓", NOT_CHECKED: "–"}
    context = {
        "s": content,
        "css": Markup(files("trueread.report").joinpath("style.css").read_text(encoding="utf-8")),
        "signs": signs,
        "meaning": MEANING,
        "studied": check_words.cohort_sentence(content["cohort"]),
        "verdict_line": check_words.verdict_sentence(content),
        "caveats": check_words.caveats(content),
        "checks": [check_view(c) for c in content["checks"]],
        "facts_of_cohort": views.cohort_facts(content),
        "class_table": class_table(content["cohort"]),
        "environment": [(k, v) for k, v in (content.get("environment") or {}).items() if v not in (None, "")],
    }
    names = {image["image"] for c in content["concerns"] for e in c["examples"] for image in e["images"]}
    pictures = {name: embedded(folder, name, lossy=True) for name in names}
    html = ""
    for per_concern in FEWER_EXAMPLES:
        html = template.render(context | {"concerns": concern_views(content, pictures, per_concern=per_concern)})
        if len(html.encode()) < MAX_BYTES:
            break
    path = folder / CHECK_PAGE
    write_text(path, html)
    return path


def concern_views(content: Json, pictures: Mapping[str, str], *, per_concern: int) -> list[ConcernView]:
    """Every concern with its first `per_concern` examples. pictures: data URIs by the path of the image."""
    views = []
    for number, entry in enumerate(content["concerns"], start=1):
        shown = [_example(e, pictures) for e in entry["examples"][:per_concern]]
        views.append(ConcernView(entry, f"concern-{number}", shown, entry["n_examples"] - len(shown)))
    return views


def check_view(entry: Json) -> CheckView:
    """One check with the first rows of what it measured."""
    outcome = check_words.outcome(entry)
    sign = outcome if outcome in (NOTHING_FOUND, NOT_CHECKED) else "found"
    measured = entry["measured"]
    details = f"Details: {entry['table']}, {counted(entry['n_measured'], 'line')}." if entry["table"] else ""
    if not measured or not measured["rows"]:
        return CheckView(entry, outcome, sign, None, details)
    columns = measured["columns"]
    is_p = [P_VALUE.search(name) is not None for name in columns]
    rows = [
        [p_text(value) if one else value for one, value in zip(is_p, row, strict=True)]
        for row in measured["rows"][:SHOWN_ROWS]
    ]
    view = table_view(f"What {entry['check']} measured", {"": {"columns": columns, "rows": rows}}, named=False)
    numeric = [a or b for a, b in zip(is_p, view.numeric, strict=True)]
    return CheckView(entry, outcome, sign, replace(view, numeric=numeric), details)


def class_table(cohort: Json) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Images of each class, in all and, where the data are split, in each split: the columns, and a row per class."""
    parts = {"All": {"images": cohort["images"], "classes": cohort["class_counts"]}}
    if cohort["is_split"]:
        parts |= {title: cohort["split"][name] for name, title in SPLIT_TITLES.items()}
    rows = [(name, [_with_share(part, name) for part in parts.values()]) for name in cohort["classes"]]
    return list(parts), [*rows, ("Images", [f"{p['images']:,}" for p in parts.values()])]


def _with_share(part: Json, name: str) -> str:
    n = part["classes"][name]
    return f"{n:,} ({100 * n / max(part['images'], 1):.0f} %)"


def _example(entry: Json, pictures: Mapping[str, str]) -> ExampleView:
    images = [(image, pictures[image["image"]]) for image in entry["images"]]
    return ExampleView(images, entry["caption"], len(entry["rows"]) - len(images))
