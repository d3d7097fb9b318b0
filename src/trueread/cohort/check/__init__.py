"""Questions asked of the data before anything is trained, one file each. One line per check registers it."""

from trueread.cohort.check import attributes, cues, intensities, unreadable  # noqa: F401  (each registers its checks)
from trueread.cohort.check.base import CHECKS, Answer, Check, Concern, Example, Seriousness, check
from trueread.cohort.check.driver import build_checks, ranked, run_check, run_checks

__all__ = [
    "CHECKS", "Answer", "Check", "Concern", "Example", "Seriousness", "build_checks", "check", "ranked", "run_check",
    "run_checks",
]  # fmt: skip
