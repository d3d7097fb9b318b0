"""Questions asked of the data before anything is trained, one file each. One line per check registers it."""

from trueread.cohort.check import (  # noqa: F401  (each registers its check)
    attributes,
    balance,
    cues,
    duplicates,
    intensities,
    label_conflicts,
    patients,
    unreadable,
)
from trueread.cohort.check.base import CHECKS, Answer, Check, Concern, Example, Seriousness, check
from trueread.cohort.check.driver import build_checks, ranked, run_check, run_checks

__all__ = [
    "CHECKS", "Answer", "Check", "Concern", "Example", "Seriousness", "build_checks", "check", "ranked", "run_check",
    "run_checks",
]  # fmt: skip
