"""The scorecard: every method on every headline, as rows that the page, the model card and the terminal share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trueread.report.summary import (
    Json,
    audit_names,
    baseline_name,
    difference_of,
    findings_of,
)
from trueread.report.words import counted, difference_text, joined, p_text, reason
from trueread.stats.estimate import Estimate

# Measures besides the headline that a reader looks for beside it.
FURTHER = {
    "performance": ("balanced-accuracy",),
    "calibration": ("brier",),
    "subgroups": ("worst-group",),
    "shortcut-reliance": ("auroc-clean", "auroc-flipped"),
}
SIGNS = {"pass": "✓", "warn": "!", "fail": "✕", "no threshold": "·", "not measured": "–"}
JUDGED = ("pass", "warn", "fail")


@dataclass(frozen=True)
class ScoreRow:
    """One method on one measure.

    measure: its key; "" when the audit was not measured, and `why_not` says why. verdict: "" for all but the headline.
    unit: what `n_units` counts, "patient" or, where nobody said whose the images are, "image".
    difference: to the baseline, paired, with its p-value; None for the baseline and where it was not compared.
    """

    audit: str
    question: str
    method: str
    measure: str = ""
    title: str = ""
    better: str = ""
    definition: str = ""
    estimate: Estimate | None = None
    unit: str = "patient"
    verdict: str = ""
    threshold: float | None = None
    why_not: str = ""
    baseline: str = ""
    difference: Estimate | None = None
    p_value: float | None = None
    p_is_adjusted: bool = False

    @property
    def is_headline(self) -> bool:
        return bool(self.verdict)

    @property
    def rests_on(self) -> str:
        """ "3 seeds, 211 patients"."""
        if self.estimate is None:
            return ""
        units = self.estimate.n_clusters if self.unit == "patient" else self.estimate.n
        seeds = counted(self.estimate.n_seeds, "seed")
        return f"{seeds}, {counted(units, self.unit)}" if units else seeds

    @property
    def text(self) -> str:
        """ "0.914 (0.887 to 0.938), 3 seeds, 211 patients; +0.031 over erm (0.008 to 0.052)"."""
        if self.estimate is None:
            return reason(self.why_not)
        head = f"{self.estimate.text()}, {self.rests_on}"
        return head if self.difference is None else f"{head}; {difference_text(self.difference, self.baseline)}"

    @property
    def spread_text(self) -> str:
        """Standard deviation over seeds, "0.008", or "" for one seed."""
        spread = self.estimate.spread if self.estimate else None
        return "" if spread is None or spread != spread else f"{spread:.3f}"

    @property
    def p_text(self) -> str:
        """ "0.012", "< 0.001", or ""."""
        return p_text(self.p_value)


def scorecard(summary: Json) -> list[ScoreRow]:
    """The rows of every audit's headline, and of the few further measures that are read beside it."""
    return [row for audit in audit_names(summary) for row in audit_rows(summary, audit, further=FURTHER.get(audit, ()))]


def audit_rows(summary: Json, audit: str, *, further: Sequence[str] | None = None) -> list[ScoreRow]:
    """The rows of one audit, measure by measure, and within each method by method.

    further: keys of the measures to give besides the headline; None is every measure it has.
    """
    findings = findings_of(summary, audit)
    keys: list[str] = []
    for finding in findings.values():
        for position, key in enumerate(finding["measures"]):
            wanted = position == 0 or further is None or key in further
            if wanted and key not in keys:
                keys.append(key)
    rows = [_row(summary, name, f, key) for key in keys for name, f in findings.items() if key in f["measures"]]
    unmeasured = [
        ScoreRow(audit, f["question"], name, verdict=f["verdict"], why_not=f.get("reason") or "")
        for name, f in findings.items()
        if not f["measures"]
    ]
    return rows + unmeasured


def _row(summary: Json, method: str, finding: Json, key: str) -> ScoreRow:
    measure = finding["measures"][key]
    headline = key == next(iter(finding["measures"]))
    compared = difference_of(summary, audit=finding["audit"], measure=key, method=method)
    p, p_adjusted = (compared.get("p_value"), compared.get("p_adjusted")) if compared else (None, None)
    return ScoreRow(
        audit=finding["audit"],
        question=finding["question"],
        method=method,
        measure=key,
        title=measure["title"],
        better=measure["better"],
        definition=measure.get("definition") or "",
        estimate=Estimate.from_json(measure["estimate"]),
        unit="patient" if summary["cohort"].get("patients_known", True) else "image",
        verdict=finding["verdict"] if headline else "",
        threshold=finding.get("threshold") if headline else None,
        why_not=(finding.get("reason") or "") if headline else "",
        baseline=compared["baseline"] if compared else baseline_name(summary),
        difference=Estimate.from_json(compared["difference"]) if compared else None,
        p_value=p if p_adjusted is None else p_adjusted,
        p_is_adjusted=p_adjusted is not None,
    )


def grouped(rows: Sequence[ScoreRow]) -> list[tuple[ScoreRow, list[ScoreRow]]]:
    """Consecutive rows of one measure (or of one audit that was not measured) together, each group led by its first."""
    groups: list[tuple[ScoreRow, list[ScoreRow]]] = []
    for row in rows:
        if groups and (groups[-1][0].audit, groups[-1][0].measure) == (row.audit, row.measure):
            groups[-1][1].append(row)
        else:
            groups.append((row, [row]))
    return groups


def rule_text(row: ScoreRow, threshold: float | None) -> str:
    """ "higher is better, passes at 0.8 or more"."""
    if not row.better:
        return ""
    direction = f"{row.better} is better"
    if threshold is None:
        return direction
    return f"{direction}, passes at {threshold:g} or {'more' if row.better == 'higher' else 'less'}"


def verdict_sentence(summary: Json, method: str) -> str:
    """ "3 of 4 questions pass for erm; fail: subgroups; not measured: evidence."."""
    verdicts = {
        audit: f[method]["verdict"] for audit in audit_names(summary) if method in (f := findings_of(summary, audit))
    }
    judged = [a for a, v in verdicts.items() if v in JUDGED]
    if judged:
        n_passed = sum(verdicts[a] == "pass" for a in judged)
        verb = "passes" if 1 in (n_passed, len(judged)) else "pass"
        head = f"{n_passed} of {counted(len(judged), 'question')} {verb} for {method}"
    else:
        head = f"No question has a threshold and an answer for {method}"
    for verdict, word in (
        ("fail", "fail"),
        ("warn", "undecided"),
        ("no threshold", "without a threshold"),
        ("not measured", "not measured"),
    ):
        names = [a for a, v in verdicts.items() if v == verdict]
        if names:
            head += f"; {word}: {joined(names)}"
    return head + "."
