"""The page a person reads: one HTML file, complete without network or script, drawn from a run folder alone."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from trueread.files import write_text
from trueread.report import check_words, pictures, scorecard, strips, views, words
from trueread.report.summary import Json, baseline_name, read_summary

REPORT = "report.html"
MAX_BYTES = 5_000_000
FEWER_PICTURES = (None, 3, 2, 1, 0)  # of a kind, or rows of a strip: tried until the page is small

_ARXIV = re.compile(r"\barXiv:? ?(\d{4}\.\d{4,5})(v\d+)?\b", re.IGNORECASE)
_DOI = re.compile(r"\b(?:doi:? ?|https://doi\.org/)(10\.\d{4,9}/[^\s;,&]+[^\s;,.&])", re.IGNORECASE)


def write_report(run_folder: str | Path) -> Path:
    """Draw `report.html` of a finished run from its summary.json and pictures, and return its path.

    The page is one file of less than 5 MB; when pictures would make it larger, it shows fewer of them and says so.
    The same folder gives the same page. Raises InputError when the folder holds no finished run.
    """
    folder = Path(run_folder)
    summary = read_summary(folder)
    context = _context(summary)
    template = template_engine().get_template("template.html")
    html = ""
    for per_kind in FEWER_PICTURES:
        shown = {
            "galleries": pictures.gallery_views(summary, folder, per_kind=per_kind),
            "strips": strips.strip_views(summary, folder, per_kind=per_kind),
        }
        html = template.render(context | shown)
        if len(html.encode()) < MAX_BYTES:
            break
    path = folder / REPORT
    write_text(path, html)
    return path


def template_engine(*, autoescape: bool = True) -> Environment:
    """The template engine with the report's filters; escaping is on for HTML, and undefined names are errors."""
    made = Environment(
        loader=PackageLoader("trueread.report", "."),
        autoescape=select_autoescape(["html"]) if autoescape else False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "cell": words.cell_text,
        "counted": words.counted,
        "duration": words.duration,
        "joined": words.joined,
        "linked": linked,
        "p_phrase": words.p_phrase,
        "minus": lambda text: str(text).replace("-", words.MINUS),
        "reason": words.reason,
        "sentence": words.sentence,
        "slug": words.slug,
        "spelled": words.spelled,
    }
    return made


def linked(text: str) -> Markup:
    """The text escaped, with arXiv numbers and DOIs as links."""
    html = str(escape(text))
    html = _ARXIV.sub(lambda m: f'<a href="https://arxiv.org/abs/{m[1]}">{m[0]}</a>', html)
    return Markup(_DOI.sub(lambda m: f'<a href="https://doi.org/{m[1]}">{m[0]}</a>', html))


def _context(summary: Json) -> dict[str, Any]:
    rows = scorecard.scorecard(summary)
    asked = views.questions(summary)
    return {
        "s": summary,
        "css": Markup(files("trueread.report").joinpath("style.css").read_text(encoding="utf-8")),
        "baseline": baseline_name(summary),
        "several": len(summary["methods"]) > 1,
        "unit": "patient" if summary["cohort"].get("patients_known", True) else "image",
        "studied": views.studied_sentence(summary),
        "verdicts": [scorecard.verdict_sentence(summary, m["name"]) for m in summary["methods"]],
        "caveats": views.caveats(summary),
        "questions": asked,
        "rule_of": {q.audit: q.rule for q in asked},
        "rule_text": scorecard.rule_text,
        "score": scorecard.grouped(rows),
        "compared": any(r.difference is not None for r in rows),
        "facts_of_cohort": views.cohort_facts(summary),
        "split_rows": views.split_table(summary),
        "omitted": views.omitted_reasons(summary),
        "checked": summary.get("check"),
        "check_page": check_words.CHECK_PAGE,
        "curves": views.curves(summary),
        "scale": pictures.scale_stops(),
        "findings": views.finding_views(summary),
        "definitions": views.definitions(summary),
        "methods": [method_facts(m) for m in summary["methods"]],
        "signs": scorecard.SIGNS | {str(kind): sign for kind, sign in check_words.SIGNS.items()},
        "environment": [(k, v) for k, v in (summary.get("environment") or {}).items() if v not in (None, "")],
        "sources": list(dict.fromkeys(s for s in _sources(summary) if s)),
        "rules": _rules(summary),
    }


def _sources(summary: Json) -> list[str]:
    """Where the methods and the audits come from, in the order of the page."""
    return [*(m.get("source") or "" for m in summary["methods"]), *(summary.get("audit_sources") or {}).values()]


def method_facts(method: Json) -> dict[str, Any]:
    """A method's details as name and value, in the order in which a reader asks for them."""
    card, training = method.get("card") or {}, (method.get("card") or {}).get("training") or {}
    kept, speeds = [], []
    for history in method.get("histories") or []:
        table = history["table"]
        records = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
        kept += [f"{r['epoch']} of {len(records)} (seed {history['seed']})" for r in records if r.get("selected")]
        speeds += [r["images_per_second"] for r in records if r.get("images_per_second")]
    decision = card.get("threshold_rule")
    if card.get("threshold") is not None:
        decision = f"{decision}: {words.cell_text(card['threshold'])} (first seed)"
    facts = [
        ("Options", words.options_text(method.get("options") or {}) or "defaults"),
        ("Backbone", f"{card['backbone']}, {card.get('stem')} stem" if card.get("backbone") else None),
        ("Weights", f"{method['n_weights']:,}" if method.get("n_weights") else None),
        ("First weights", card.get("weights")),
        ("Seeds", words.joined(map(str, method.get("seeds") or []))),
        ("Epoch kept", words.joined(kept)),
        ("Selection", training.get("selection_rule")),
        ("Decision", decision),
        ("Temperature", f"{card['temperature']:.3f} (first seed)" if card.get("temperature") else None),
        ("Augmentation", training.get("augmentation")),
        ("Training time", f"{words.duration(method.get('seconds'))}, all seeds together"),
        ("Speed", f"{median(speeds):,.0f} images per second (median epoch)" if speeds else None),
        *((f"It reports: {str(k).replace('_', ' ')}", words.told(v)) for k, v in (method.get("report") or {}).items()),
    ]
    return {"name": method["name"], "summary": method.get("summary") or "", "source": method.get("source") or "",
            "facts": [(k, str(v)) for k, v in facts if v not in (None, "")]}  # fmt: skip


def _rules(summary: Json) -> dict[str, list[str]]:
    """How epochs were selected and decisions made, each rule once with the methods that use it."""
    found: dict[str, dict[str, list[str]]] = {"selection": {}, "decision": {}}
    for m in summary["methods"]:
        card = m.get("card") or {}
        rules = {
            "selection": (card.get("training") or {}).get("selection_rule"),
            "decision": card.get("threshold_rule"),
        }
        for what, rule in rules.items():
            if rule:
                found[what].setdefault(rule, []).append(m["name"])
    n = len(summary["methods"])
    return {
        what: [rule if len(names) == n else f"{rule} ({words.joined(names)})" for rule, names in by_rule.items()]
        for what, by_rule in found.items()
    }
