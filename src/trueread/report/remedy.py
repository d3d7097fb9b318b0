"""What each model leans on, and what a remedy bought and cost, in sentences: from the summary alone."""

from __future__ import annotations

import re

from trueread.report import cleaning, robustness
from trueread.report.scorecard import ScoreRow
from trueread.report.spoken import Rows, against_baseline, measured_rows, number
from trueread.report.summary import Json, baseline_name, findings_of
from trueread.report.words import as_estimate

AUDIT = "shortcut-reliance"
METRICS = ("auroc", "balanced-accuracy")  # the first that was measured
LEANS = {"fail": "leans on", "warn": "may lean on", "pass": "is moved little by"}
PER_CUE = re.compile(r"Per cue, severity (\S+)")  # the title of the audit's table


def in_words(summary: Json, audit: str) -> list[str]:
    """Sentences for the article of an audit: of shortcut-reliance, those of robustness, and of performance; none of
    others.

    First what moves each method, then each method against the baseline. Where a cue was planted they are about that
    cue, else about the worst cues of the library. Only what was measured; what is missing has no sentence.
    """
    if audit in robustness.AUDITS:
        return robustness.in_words(summary, audit)
    if audit == cleaning.AUDIT:
        return cleaning.in_words(summary)
    if audit != AUDIT:
        return []
    rows = measured_rows(summary, AUDIT)
    findings = findings_of(summary, AUDIT)
    it, each = ("the probability", "it") if summary["cohort"].get("task") == "binary" else ("the probabilities", "them")
    mark = re.match(r"'[^']+'", summary["cohort"].get("planted") or "")
    told = []
    for name, mine in rows.items():
        if "planted" in mine:
            told.append(_planted(name, mine, f"{mark[0]} (planted)" if mark else "the planted cue", it))
        else:
            told.append(_library(name, mine, findings[name], it, each))
    told += [_against_baseline(name, mine) for name, mine in rows.items() if name != baseline_name(summary)]
    return [text for text in told if text]


def _planted(method: str, rows: Rows, mark: str, it: str) -> str:
    """How far the planted cue moves a method, and what becomes of its metric when the cue is turned round."""
    verdict = LEANS.get(rows["planted"].verdict)
    head = f"{method} {verdict} {mark}" if verdict else f"{method} and {mark}"
    return f"{head}: putting it into a test image moves {it} by {_on_average(rows['planted'])}{_turned_round(rows)}."


def _turned_round(rows: Rows) -> str:
    main = next((m for m in METRICS if {f"{m}-biased", f"{m}-flipped", f"{m}-gap"} <= set(rows)), None)
    if main is None:
        return ""
    biased, flipped = (number(rows[f"{main}-{a}"].estimate).partition(" (")[0] for a in ("biased", "flipped"))
    title, gap = rows[f"{main}-biased"].title.partition(",")[0], rows[f"{main}-gap"].estimate
    assert gap is not None
    if gap.low > 0:
        return f"; {title} falls from {biased} where the cue goes with the label to {flipped} where it is turned round"
    unclear = ", no clear difference" if gap.low <= 0 <= gap.high else ""
    return f"; {title} is {biased} where the cue goes with the label and {flipped} where it is turned round{unclear}"


def _library(method: str, rows: Rows, finding: Json, it: str, each: str) -> str:
    """How far the library's worst local and worst diffuse cue move a method."""
    parts = []
    if "local" in rows:
        cue, severity = _worst_cue(finding, "local")
        verdict = LEANS.get(rows["local"].verdict)
        head = f"{method} {verdict} the" if verdict else f"{method} and the"
        moves = f"it moves {it} by {_on_average(rows['local'])}."
        parts.append(f"{head} worst local mark of the library{cue}: {severity}{moves}")
    if "diffuse" in rows:
        cue, severity = _worst_cue(finding, "diffuse")
        head, what = ("The", each) if parts else (f"{method}: {severity}the", it)
        named = f"worst change of the whole image{cue}{',' if cue else ''}"
        parts.append(f"{head} {named} moves {what} by {_on_average(rows['diffuse'])}.")
    return " ".join(parts)


def _worst_cue(finding: Json, kind: str) -> tuple[str, str]:
    """(", 'ruler'", "at severity 0.5 "), both "" when the table of cues is not there."""
    for title, table in (finding.get("tables") or {}).items():
        named = PER_CUE.fullmatch(title)
        if named is None or not {"cue", "kind", "reliance"} <= set(table["columns"]):
            continue
        records = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
        of_kind = {r["cue"]: e.value for r in records if r["kind"] == kind and (e := as_estimate(r["reliance"]))}
        if of_kind:
            return f", '{max(of_kind, key=lambda cue: of_kind[cue])}'", f"at severity {named[1]} "
    return "", ""


def _against_baseline(method: str, rows: Rows) -> str:
    """What a method bought and cost, from the paired differences; "" where it was not compared."""
    main = next((m for m in METRICS if f"{m}-flipped" in rows), "")
    if "planted" in rows and main:
        title = rows[f"{main}-flipped"].title.partition(",")[0]
        compared = (
            (f"{main}-flipped", f"with the cue turned round {title}"),
            (f"{main}-clean", f"on clean images {title}"),
        )
    else:
        compared = (
            ("local", "reliance on the worst local mark"),
            ("diffuse", "reliance on the worst change of the whole image"),
        )
    return against_baseline(method, rows, compared, unjudged=("diffuse",))  # which also hide evidence


def _on_average(row: ScoreRow) -> str:
    """ "0.91 on average (0.88 to 0.94)"."""
    value, _, interval = number(row.estimate).partition(" (")
    return f"{value} on average{f' ({interval}' if interval else ''}"
