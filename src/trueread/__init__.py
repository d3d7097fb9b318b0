"""trueread trains medical-image classifiers that are right for the right reasons, and proves it.

The public names are below; each is imported when it is first used, so that `import trueread` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trueread._version import __version__

if TYPE_CHECKING:
    from trueread.audit.base import Audit, Needs, run_audits
    from trueread.audit.finding import Better, Figure, Finding, Measure, Verdict
    from trueread.audit.strip import Panel, Strip
    from trueread.audit.subject import Member, Subject
    from trueread.checking import check
    from trueread.cohort.check.base import Answer, Check, Concern, Example, Seriousness
    from trueread.cohort.check.driver import ranked
    from trueread.cohort.cohort import Cohort
    from trueread.cohort.decisions import with_decisions
    from trueread.cohort.saved import save_cohort
    from trueread.cohort.source import load_cohort
    from trueread.cohort.split import apply_split, assign_splits, save_split
    from trueread.commands import catalogue, run, train
    from trueread.errors import InputError, NotMeasured, TruereadError
    from trueread.estimator import ImageClassifier
    from trueread.method.base import Method, build_method
    from trueread.method.constructed import constructed
    from trueread.model.classifier import Classifier, Output
    from trueread.model.explain import explain, grad_cam
    from trueread.model.predictor import Predictor, ProbabilityFunction
    from trueread.predicting import predict
    from trueread.pretraining import pretrain
    from trueread.shift.base import Shift
    from trueread.shift.label_noise import with_label_noise
    from trueread.stats import Estimate
    from trueread.study import Study, load_study
    from trueread.training.config import TrainConfig
    from trueread.training.hooks import Setup, Step
    from trueread.training.loop import Fitted, fit

_HOMES = {
    "trueread.audit.base": ("Audit", "Needs", "run_audits"),
    "trueread.audit.finding": ("Better", "Figure", "Finding", "Measure", "Verdict"),
    "trueread.audit.strip": ("Panel", "Strip"),
    "trueread.audit.subject": ("Member", "Subject"),
    "trueread.checking": ("check",),
    "trueread.cohort.check.base": ("Answer", "Check", "Concern", "Example", "Seriousness"),
    "trueread.cohort.check.driver": ("ranked",),
    "trueread.cohort.cohort": ("Cohort",),
    "trueread.cohort.decisions": ("with_decisions",),
    "trueread.cohort.saved": ("save_cohort",),
    "trueread.cohort.source": ("load_cohort",),
    "trueread.cohort.split": ("apply_split", "assign_splits", "save_split"),
    "trueread.commands": ("catalogue", "run", "train"),
    "trueread.errors": ("InputError", "NotMeasured", "TruereadError"),
    "trueread.estimator": ("ImageClassifier",),
    "trueread.method.base": ("Method", "build_method"),
    "trueread.method.constructed": ("constructed",),
    "trueread.model.classifier": ("Classifier", "Output"),
    "trueread.model.explain": ("explain", "grad_cam"),
    "trueread.model.predictor": ("Predictor", "ProbabilityFunction"),
    "trueread.predicting": ("predict",),
    "trueread.pretraining": ("pretrain",),
    "trueread.shift.base": ("Shift",),
    "trueread.shift.label_noise": ("with_label_noise",),
    "trueread.stats": ("Estimate",),
    "trueread.study": ("Study", "load_study"),
    "trueread.training.config": ("TrainConfig",),
    "trueread.training.hooks": ("Setup", "Step"),
    "trueread.training.loop": ("Fitted", "fit"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Answer",
    "Audit",
    "Better",
    "Check",
    "Classifier",
    "Cohort",
    "Concern",
    "Estimate",
    "Example",
    "Figure",
    "Finding",
    "Fitted",
    "ImageClassifier",
    "InputError",
    "Measure",
    "Member",
    "Method",
    "Needs",
    "NotMeasured",
    "Output",
    "Panel",
    "Predictor",
    "ProbabilityFunction",
    "Seriousness",
    "Setup",
    "Shift",
    "Step",
    "Strip",
    "Study",
    "Subject",
    "TrainConfig",
    "TruereadError",
    "Verdict",
    "__version__",
    "apply_split",
    "assign_splits",
    "build_method",
    "catalogue",
    "check",
    "constructed",
    "explain",
    "fit",
    "grad_cam",
    "load_cohort",
    "load_study",
    "predict",
    "pretrain",
    "ranked",
    "run",
    "run_audits",
    "save_cohort",
    "save_split",
    "train",
    "with_decisions",
    "with_label_noise",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'trueread' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
