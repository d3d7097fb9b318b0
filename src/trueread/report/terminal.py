"""Scorecard and findings on a terminal: the same rows and words as the page, with or without colours."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from trueread.audit.finding import Finding
from trueread.report.scorecard import SIGNS, ScoreRow, grouped, rule_text, scorecard, verdict_sentence
from trueread.report.summary import Json, threshold_of
from trueread.report.words import p_phrase, reason

STYLES = {"pass": "green", "warn": "yellow", "fail": "red"}


def print_scorecard(summary: Json, console: Console | None = None) -> None:
    """Print every headline, the measures read beside it, and a sentence per method.

    summary: as `read_summary` gives it. console: rich's, by default one on standard output.
    """
    console = console or Console()
    for lead, rows in grouped(scorecard(summary)):
        if lead.is_headline:
            console.print(Text(f"\n{lead.question}", style="bold"))
        if lead.title:
            threshold = threshold_of(summary, lead.audit)[0] if lead.threshold is None else lead.threshold
            rule = rule_text(lead, threshold if lead.is_headline else None)
            console.print(Text(f"{lead.title}, {rule}", style="dim"))
        console.print(Padding(_table(rows, width=console.width), (0, 0, 0, 2)))
    console.print()
    for method in summary["methods"]:
        console.print(Text(verdict_sentence(summary, method["name"])))


def print_findings(findings: Sequence[Finding]) -> None:
    """Print each finding of one model: its headline with the verdict, the other measures and the notes below it."""
    for finding in findings:
        headline = finding.headline
        if headline is None:
            print(f"{finding.audit}: not measured, because {finding.reason}")
            continue
        against = f" (threshold {finding.threshold:g})" if finding.threshold is not None else ""
        print(f"{finding.audit}: {headline.title} {headline.estimate}, {finding.verdict}{against}")
        for measure in list(finding.measures.values())[1:]:
            print(f"  {measure.title} {measure.estimate}")
        for note in finding.notes:
            print(f"  {note}")


def _table(rows: list[ScoreRow], *, width: int) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, min_width=6)
    table.add_column(overflow="fold", max_width=max(12, width // 3))
    table.add_column(overflow="fold")
    reasons = {row.why_not for row in rows if row.estimate is None}
    if len(reasons) == 1 and all(row.estimate is None for row in rows):
        table.add_row(Text(SIGNS["not measured"]), Text(""), Text(reason(reasons.pop())))
        return table
    for row in rows:
        sign = Text(
            f"{SIGNS.get(row.verdict, ' ')} {row.verdict}" if row.verdict else "", style=STYLES.get(row.verdict, "")
        )
        p = p_phrase(row.p_value)
        table.add_row(
            sign,
            Text(row.method),
            Text(f"{row.text}{', ' + p if p else ''}{' (Holm)' if p and row.p_is_adjusted else ''}"),
        )
    return table
