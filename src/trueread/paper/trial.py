"""Arms trained on one cohort with one planted cue, and what the cue does to each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trueread.audit.finding import Finding
from trueread.audit.planted_cue import PlantedCue
from trueread.audit.subject import Subject
from trueread.cohort.cohort import Cohort
from trueread.paper.bench import Arm, Bench
from trueread.progress import say
from trueread.shift.planting import Planting, planted
from trueread.study import Study

KEYS = (
    "auroc-clean", "auroc-flipped", "auroc-biased", "auroc-balanced", "planted", "delta-tpr", "delta-fpr",
    "worst-group",
)  # fmt: skip


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
        self.bench = Bench(folder, train=train, seeds=seeds, resamples=resamples)

    def like(
        self, name: str, *, what: Planting | None = None, train: Mapping[str, Any] | None = None,
        plain: Cohort | None = None,
    ) -> Trial:  # fmt: skip
        """The same with one seed and something else, in a folder of its own. train: over this one's options."""
        return Trial(
            plain or self.plain, what or self.what, self.folder / "variations" / name,
            train=self.study.train.model_dump() | dict(train or {}), seeds=1, resamples=self.study.resamples,
        )  # fmt: skip

    @property
    def study(self) -> Study:
        return self.bench.study

    def model_of(self, arm: str) -> str:
        """Where an arm's classifiers are, "{seed}" standing for the seed."""
        return self.bench.model_of(arm)

    def subject(self, arm: Arm) -> Subject:
        """The arm's classifiers, one per seed, trained if they are not there: on "mixed" images, which have the
        bias-free ones; on "biased" ones, where these carry the cue as the others do; or on "unbiased" ones, with the
        cue in half of every class.
        """
        return self.bench.subject(arm, self.cohorts[arm.on or "mixed"], asked=self.cohorts["mixed"])

    def measured(self, arm: Arm) -> Measured:
        """The arm, trained and asked what the cue does to it."""
        return self.of_subject(self.subject(arm), seconds=self.bench.seconds(arm))

    def of_subject(self, subject: Subject, *, seconds: float | None = None) -> Measured:
        """A classifier, wherever it is from. seconds: of its training, mean over seeds."""
        found = PlantedCue(subject, self.what).measures()
        measures = {key: found[key] for key in KEYS}
        values = {key: m.estimate.to_json() for key, m in measures.items()}
        clean, flipped = (f"{measures[f'auroc-{a}'].estimate.value:.3f}" for a in ("clean", "flipped"))
        say(f"{subject.name}: AUROC clean {clean}, flipped {flipped}")
        row = {"arm": subject.name, "measures": values, "seconds": seconds}
        return Measured(subject.name, subject, Finding("shortcut-reliance", "", measures=measures), row)
