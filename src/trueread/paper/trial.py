"""Arms trained on one cohort with one planted cue, and what the cue does to each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trueread.audit.finding import Finding
from trueread.audit.planted_cue import PlantedCue
from trueread.audit.subject import Subject
from trueread.cells import cell_folder, is_done, read_history, refuse_other
from trueread.cohort.cohort import Cohort
from trueread.method.base import build_method
from trueread.progress import say
from trueread.runner import train_method, trained_method
from trueread.shift.planting import Planting, planted
from trueread.study import DataSection, MethodSection, Study
from trueread.training.config import TrainConfig

KEYS = (
    "auroc-clean", "auroc-flipped", "auroc-biased", "auroc-balanced", "planted", "delta-tpr", "delta-fpr",
    "worst-group",
)  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """A row of the table: a method, its options, and what it is trained on: "mixed" has the bias-free images, "biased"
    has the cue in them as in the others, "unbiased" has it in half of every class.
    """

    name: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    on: str = "mixed"


@dataclass(frozen=True)
class Measured:
    """An arm after training. finding: its measures, by `KEYS`; row: the same as plain values, with the seconds."""

    arm: str
    subject: Subject
    finding: Finding
    row: dict[str, Any]


class Trial:
    """One cohort, one cue, one budget; what is trained already in the folder is not trained again.

    plain: the split cohort without the cue. train: options of `TrainConfig`.
    """

    def __init__(
        self, plain: Cohort, what: Planting, folder: Path, *, train: Mapping[str, Any], seeds: int, resamples: int
    ) -> None:
        self.plain, self.what, self.folder = plain, what, folder
        everywhere = Planting(what.shift, what.prevalence, seed=what.seed)
        self.cohorts = {
            "mixed": planted(plain, what),
            "biased": planted(plain, everywhere),
            "unbiased": planted(plain, everywhere, {"train": "balanced", "val": "balanced", "test": "clean"}),
        }
        self.study = Study(
            name="paper", data=DataSection(source="paper"), train=TrainConfig(**train), seeds=list(range(seeds)),
            resamples=resamples,
        )  # fmt: skip

    def like(
        self, name: str, *, what: Planting | None = None, train: Mapping[str, Any] | None = None,
        plain: Cohort | None = None,
    ) -> Trial:  # fmt: skip
        """The same with one seed and something else, in a folder of its own. train: over this one's options."""
        return Trial(
            plain or self.plain, what or self.what, self.folder / "variations" / name,
            train=self.study.train.model_dump() | dict(train or {}), seeds=1, resamples=self.study.resamples,
        )  # fmt: skip

    def model_of(self, arm: str) -> str:
        """Where an arm's classifiers are, "{seed}" standing for the seed."""
        return str(cell_folder(self.folder, arm, 0).with_name("seed-{seed}") / "model")

    def subject(self, arm: Arm) -> Subject:
        """The arm's classifiers, one per seed, trained if they are not there."""
        section = MethodSection(name=arm.method, label=arm.name, **arm.options)
        for seed in self.study.seeds:
            cell = cell_folder(self.folder, arm.name, seed)
            if is_done(cell):
                refuse_other(cell, section, self.cohorts[arm.on])
        train_method(self.study, self.cohorts[arm.on], section, build_method(arm.method, **arm.options), self.folder)
        return trained_method(self.study, self.cohorts["mixed"], section, self.folder)

    def measured(self, arm: Arm) -> Measured:
        """The arm, trained and asked what the cue does to it."""
        subject = self.subject(arm)
        histories = [read_history(cell_folder(self.folder, arm.name, seed)) for seed in self.study.seeds]
        return self.of_subject(subject, seconds=float(np.mean([h["seconds"].sum() for h in histories])))

    def of_subject(self, subject: Subject, *, seconds: float | None = None) -> Measured:
        """A classifier, wherever it is from. seconds: of its training, mean over seeds."""
        found = PlantedCue(subject, self.what).measures()
        measures = {key: found[key] for key in KEYS}
        values = {key: m.estimate.to_json() for key, m in measures.items()}
        clean, flipped = (f"{measures[f'auroc-{a}'].estimate.value:.3f}" for a in ("clean", "flipped"))
        say(f"{subject.name}: AUROC clean {clean}, flipped {flipped}")
        row = {"arm": subject.name, "measures": values, "seconds": seconds}
        return Measured(subject.name, subject, Finding("shortcut-reliance", "", measures=measures), row)
