"""Audits: questions asked of a trained classifier, and the driver that asks them all."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any, ClassVar

import yaml

from trueread.audit.finding import Better, Difference, Figure, Finding, Measure, Verdict, verdict_of
from trueread.audit.subject import Member, Subject
from trueread.errors import InputError, NotMeasured, unknown
from trueread.model.classifier import require_gradients
from trueread.progress import track
from trueread.registry import Registry
from trueread.stats import Comparison, Estimate, delong_test, holm_adjusted, paired_difference

AUDITS: Registry[Audit] = Registry("audit", "audits", package="trueread.audit")
audit = AUDITS.register


class Needs(StrEnum):
    """What a question cannot be asked without."""

    PROBABILITIES = "probabilities"
    GRADIENTS = "gradients"
    MASKS = "masks"
    PATIENTS = "patients"
    ATTRIBUTES = "attributes"
    VALIDATION = "validation"


class Audit:
    """A question asked of a subject.

    question: as a person would ask it. needs: what must be there. better: direction of the headline number.
    on_request: asked only when named, because it costs much or answers a question that few ask; "all" leaves it out.
    `run` answers with a Finding whose first measure is the headline; it raises NotMeasured when it finds that it
    cannot.
    """

    name: ClassVar[str] = ""
    question: ClassVar[str] = ""
    needs: ClassVar[set[Needs]] = {Needs.PROBABILITIES}
    better: ClassVar[Better] = Better.HIGHER
    on_request: ClassVar[bool] = False

    def run(self, subject: Subject) -> Finding:
        """Answer the question about `subject`."""
        raise NotImplementedError

    def finding(self, **parts: Any) -> Finding:
        """A Finding that carries this audit's name and question."""
        return Finding(audit=self.name, question=self.question, **parts)


class DataAudit(Audit):
    """A question about the data alone: the methods of a study share the answer, and nothing is trained twice.

    `answer` is in the place of `run`.
    """

    _known: tuple[Any, Finding] | None = None

    def run(self, subject: Subject) -> Finding:
        asked = (subject.cohort, subject.rows.tolist(), subject.val_rows.tolist(), subject.resamples, subject.seed)
        if self._known is None or self._known[0] != asked:
            self._known = asked, self.answer(subject)
        return copy.deepcopy(self._known[1])

    def answer(self, subject: Subject) -> Finding:
        """Answer the question about the subject's cohort and splits."""
        raise NotImplementedError

    def finding(self, **parts: Any) -> Finding:
        return super().finding(about_data=True, **parts)


def run_audit(asked: Audit, subject: Subject, *, thresholds: Mapping[str, float | None]) -> Finding:
    """Ask one audit: check what it needs, run it, time it, judge its headline.

    A failed precondition becomes "not measured, because ..."; other errors are bugs and are raised.
    """
    start = time.perf_counter()
    try:
        for need in sorted(asked.needs):  # in one order, so that the same lack is named every time
            _require(need, subject)
        finding = asked.run(subject)
    except NotMeasured as reason:
        finding = asked.finding(verdict=Verdict.NOT_MEASURED, reason=str(reason))
    finding.seconds = time.perf_counter() - start
    if finding.verdict is not Verdict.NOT_MEASURED and finding.headline is not None:
        finding.threshold = thresholds.get(asked.name)
        doubtful = finding.verdict is Verdict.WARN  # the audit itself knows why the headline is not enough
        finding.verdict = verdict_of(finding.headline.estimate, finding.threshold, finding.headline.better)
        switched_off = asked.name in thresholds and default_thresholds().get(asked.name) is not None
        if doubtful and (finding.verdict is Verdict.PASS or (finding.threshold is None and not switched_off)):
            finding.verdict = Verdict.WARN
        finding.notes += _why_no_interval(finding.headline.estimate)
    return finding


def _why_no_interval(estimate: Estimate) -> list[str]:
    """The note that a headline without an interval needs; none for one with an interval, or without a value."""
    if estimate.value != estimate.value or estimate.low == estimate.low:
        return []
    if estimate.n_clusters > 1 and min(abs(estimate.value), abs(estimate.value - 1)) < 1e-6:
        return [f"Every resample gives {abs(estimate.value):.3f}: too few patients for an interval."]
    return ["The resamples do not give an interval: too few patients, or a class that most resamples lack."]


def run_audits(
    subject: Subject, audits: Sequence[Audit], *, thresholds: Mapping[str, float | None] | None = None
) -> list[Finding]:
    """Ask every audit of one subject. thresholds: by audit name, over the packaged defaults; None switches one off."""
    merged = merged_thresholds(thresholds or {})
    named = track(audits, what=f"auditing {subject.name}", unit="audits")
    return [run_audit(asked, subject, thresholds=merged) for asked in named]


def merged_thresholds(given: Mapping[str, float | None]) -> dict[str, float | None]:
    """The packaged thresholds with the `given` ones over them. Raises InputError for an audit that does not exist."""
    known = [e.name for e in AUDITS.entries()]
    stray = sorted(set(given) - set(known))
    if stray:
        raise unknown("audit", stray[0], known)
    return default_thresholds() | dict(given)


def build_audits(names: Sequence[str | Mapping[str, Any]] | str = "all") -> list[Audit]:
    """Audits by name, with options as mappings ({"name": "calibration", "bins": 10}); "all", also among others
    ("all,localisation"), is every registered one that is neither asked on request only nor named beside it.
    """
    entries = [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names)
    named = {entry if isinstance(entry, str) else entry.get("name") for entry in entries}
    built: list[Audit] = []
    for entry in entries:
        if entry == "all":
            built += [a for a in _standard() if a.name not in named]
            continue
        options = {} if isinstance(entry, str) else dict(entry)
        name = entry if isinstance(entry, str) else options.pop("name", None)
        if not isinstance(name, str) or not name:
            raise InputError(f"an audit needs a name; found {entry!r}; write {{name: calibration, ...}}.")
        built.append(AUDITS.build(name, options))
    asked = [a.name for a in built]
    twice = next((n for n in asked if asked.count(n) > 1), None)
    if twice is not None:
        raise InputError(f"the audit '{twice}' is asked twice; one of the answers would be lost. Ask it once.")
    return built


def _standard() -> list[Audit]:
    """Those that need not be asked for, in the reader's order; without a threshold they come last."""
    order = list(default_thresholds())
    ranked = sorted(AUDITS.entries(), key=lambda e: order.index(e.name) if e.name in order else len(order))
    return [a for a in (AUDITS.build(e.name) for e in ranked) if not a.on_request]


def compare_findings(
    baseline: tuple[str, list[Finding]], others: Sequence[tuple[str, list[Finding]]], subject: Subject
) -> list[Difference]:
    """Every other method against the baseline, on every measure both have, paired on the same test patients.

    The AUROC of a binary task is compared by DeLong's test, clustered by patient; every other measure by the paired
    clustered bootstrap. The p-values of one measure are corrected for the number of methods compared (Holm).
    """
    base_name, base_findings = baseline
    measures = {(f.audit, key): m for f in base_findings for key, m in f.measures.items() if m.statistics}
    differences: list[Difference] = []
    for (audit_name, key), base in measures.items():
        theirs = [
            (name, f.measures[key])
            for name, findings in others
            for f in findings
            if f.audit == audit_name and key in f.measures and f.measures[key].statistics
        ]
        compared = [_compare(measure, base, subject) for _, measure in theirs]
        adjusted = holm_adjusted([comparison for comparison, _ in compared])
        for (name, _), comparison, (_, test) in zip(theirs, adjusted, compared, strict=True):
            differences.append(Difference(audit_name, key, name, base_name, comparison, test))
    return differences


def _compare(measure: Measure, base: Measure, subject: Subject) -> tuple[Comparison, str]:
    """Measure minus base on the subject's test patients, and the name of the test."""
    if measure.scores is not None and base.scores is not None:
        difference, p_value = delong_test(measure.scores, base.scores, subject.labels, subject.clusters)
        if p_value == p_value:  # DeLong's variance is not defined at an AUROC of exactly 1
            return Comparison(difference, p_value), "DeLong, clustered by patient"
    comparison = paired_difference(
        measure.statistics, base.statistics, subject.clusters, resamples=subject.resamples, seed=subject.seed
    )
    return comparison, "paired bootstrap"


@cache
def default_thresholds() -> dict[str, float | None]:
    """Thresholds by audit name, as thresholds.yaml has them."""
    content = yaml.safe_load(files("trueread.audit").joinpath("thresholds.yaml").read_text())
    return {name: entry["threshold"] for name, entry in content.items()}


def _require(need: Needs, subject: Subject) -> None:
    """Raise NotMeasured, in words that complete "not measured, because ...", when `need` is not met."""
    if need is Needs.GRADIENTS:
        for member in subject.members:
            require_gradients(member.predictor)
    if need is Needs.MASKS and (subject.cohort.masks is None or not subject.cohort.masks[subject.rows].any()):
        raise NotMeasured("the cohort has no masks on its test images.")
    if need is Needs.PATIENTS and not subject.cohort.patients_known:
        raise NotMeasured("nobody said which images belong to the same patient.")
    if need is Needs.ATTRIBUTES and not subject.cohort.attributes:
        raise NotMeasured("the cohort's table has no attribute (site, sex, age, ...).")
    if need is Needs.VALIDATION and any(m.val_probabilities is None for m in subject.members):
        raise NotMeasured("there is no validation split.")


__all__ = [
    "AUDITS", "Audit", "Better", "DataAudit", "Difference", "Figure", "Finding", "Measure", "Member", "Needs",
    "Subject", "Verdict", "audit", "build_audits", "compare_findings", "run_audit", "run_audits",
]  # fmt: skip
