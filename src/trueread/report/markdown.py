"""The report without pictures, in Markdown: for a pull request, a wiki, or a mail."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from trueread.files import write_text
from trueread.report import views
from trueread.report.page import template_engine
from trueread.report.scorecard import scorecard, verdict_sentence
from trueread.report.summary import Json, baseline_name, read_summary, threshold_of
from trueread.report.words import sentence

REPORT = "report.md"


def write_markdown_report(run_folder: str | Path) -> Path:
    """Write `report.md` of a finished run from its summary.json, and return its path: the sentences, the scorecard and
    the data of the page. Raises InputError when the folder holds no finished run.
    """
    folder = Path(run_folder)
    path = folder / REPORT
    write_text(path, rendered("report.md.j2", _context(read_summary(folder))))
    return path


def rendered(template: str, context: Json) -> str:
    """A Markdown template filled in; values are text in it and never markup."""
    engine = template_engine(autoescape=False)
    engine.finalize = as_markdown
    return re.sub(r"\n{3,}", "\n\n", engine.get_template(template).render(context)).strip() + "\n"


def as_markdown(value: Any) -> Any:
    """A value that stands in Markdown, also in a table, as the text it is: no markup, no HTML, one line."""
    if not isinstance(value, str):
        return value
    text = " ".join(value.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*|\[\]])", r"\\\1", text)


def thresholds(summary: Json) -> list[str]:
    """A line for each threshold that a headline is compared with, and why it is that."""
    lines = []
    for question in views.questions(summary):
        threshold, why = threshold_of(summary, question.audit)
        if threshold is not None and question.title:
            lines.append(f"{question.title}: {question.rule}. {sentence(why)}".strip())
    return lines


def _context(summary: Json) -> dict[str, Any]:
    rows = scorecard(summary)
    return {
        "s": summary,
        "studied": views.studied_sentence(summary),
        "verdicts": [verdict_sentence(summary, m["name"]) for m in summary["methods"]],
        "rows": rows,
        "compared": any(r.difference is not None for r in rows),
        "baseline": baseline_name(summary),
        "unit": "patient" if summary["cohort"].get("patients_known", True) else "image",
        "thresholds": thresholds(summary),
        "caveats": views.caveats(summary),
        "cohort": views.cohort_facts(summary),
        "split_rows": views.split_table(summary),
    }
