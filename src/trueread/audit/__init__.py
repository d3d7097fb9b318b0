"""One file per question asked of a trained classifier. One line per audit registers it."""

from trueread.audit import (  # noqa: F401  (each registers its audit)
    adversarial,
    attribution_stability,
    calibration,
    corruption,
    distractor,
    embedding,
    feature_use,
    label,
    localisation,
    performance,
    shortcut_layers,
    shortcut_power,
    shortcut_reliance,
    subgroups,
)
from trueread.audit.base import (
    AUDITS,
    Audit,
    DataAudit,
    Needs,
    audit,
    build_audits,
    compare_findings,
    default_thresholds,
    run_audit,
    run_audits,
)
from trueread.audit.finding import Better, Difference, Figure, Finding, Measure, Verdict
from trueread.audit.strip import Panel, Strip
from trueread.audit.subject import Member, Subject

__all__ = [
    "AUDITS", "Audit", "Better", "DataAudit", "Difference", "Figure", "Finding", "Measure", "Member", "Needs", "Panel",
    "Strip", "Subject", "Verdict", "audit", "build_audits", "compare_findings", "default_thresholds", "run_audit",
    "run_audits",
]  # fmt: skip
