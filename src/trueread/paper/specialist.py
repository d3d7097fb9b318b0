"""Specialist-teacher distillation against what one would try otherwise, on planted shortcuts of two kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from trueread.audit.base import compare_findings
from trueread.audit.finding import table_to_json
from trueread.audit.shortcut_layers import ShortcutLayers
from trueread.cohort.cohort import Cohort
from trueread.paper.base import Paper, Rows, paper
from trueread.paper.cohorts import paper_cohort
from trueread.paper.specialist_arms import CORE, ERM, FINAL, MIXED, OURS, TEACHER, UNLABELLED, arms
from trueread.paper.specialist_variations import measured_variations
from trueread.paper.trial import Measured, Trial
from trueread.shift.planting import Planting, planting

FEWER = {"adrenalmnist3d": CORE}  # the arms of a cohort, where it does not have all
ELSEWHERE: dict[str, dict[str, Any]] = {  # other lesions, benign and malignant, for a teacher from another cohort
    "ham10000": {"classes": ["bkl", "bcc"]}
}
CUES: dict[str, dict[str, Any]] = {
    "gaussian-noise": {"kind": "diffuse", "severity": 0.4},
    "square": {"kind": "local", "severity": 1.0, "side": 0.15, "place": "random"},
}


@dataclass(frozen=True)
class Scale:
    """How much is done. train_images: at most, whole patients. clean: share of the training patients that are
    bias-free. varied: the cohort on which single choices are changed, one seed each, and which of them. own: what is
    different for a cohort.
    """

    cohorts: tuple[str, ...]
    size: int
    train_images: int
    seeds: int
    train: Mapping[str, Any]
    clean: float = 0.1
    prevalence: float = 0.98
    resamples: int = 1000
    varied: str = ""
    choices: tuple[str, ...] | None = None
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def of(self, cohort: str) -> Scale:
        """The scale as it is for a cohort."""
        return replace(self, **self.own.get(cohort, {}))


@paper("specialist", source="Boland, Tsaftaris and Dahdouh 2025, MELBA 2025:020, arXiv 2511.17421")
class SpecialistPaper(Paper):
    """A diffuse and a local cue in every cohort, all arms on the same test images in four arrangements of the cue."""

    title = "Planted shortcuts: specialist-teacher distillation and its alternatives"
    scales: ClassVar[Mapping[str, Scale]] = {
        "smoke": Scale(
            ("phantom",), 28, 300, 1, {"epochs": 2, "batch_size": 32}, resamples=200, varied="phantom",
            choices=("labels",),
        ),
        "cpu": Scale(
            ("kermany", "ham10000", "adrenalmnist3d"), 64, 1800, 3, {"epochs": 8, "batch_size": 64}, varied="ham10000",
            own={"adrenalmnist3d": {"train_images": 600, "seeds": 1, "train": {"epochs": 6, "batch_size": 32}}},
        ),
        "gpu": Scale(
            ("kermany", "ham10000", "adrenalmnist3d"), 128, 1_000_000, 3,
            {"epochs": 20, "batch_size": 64, "backbone": "resnet18"}, varied="ham10000",
        ),
    }  # fmt: skip

    def parts(self, scale: str) -> list[str]:
        wanted = self.scales[scale]
        order = sorted(wanted.cohorts, key=lambda name: name != wanted.varied)  # it has the most to do
        return [_part(name, cue) for name in order for cue in CUES]

    def setting(self, scale: str) -> dict[str, Any]:
        return super().setting(scale) | {"cues": CUES, "arms": [vars(arm) for arm in arms("")]}

    def run_part(self, part: str, scale: str, folder: Path, data: Path | None) -> Rows:
        wanted = self.scales[scale]
        name, cue = next((n, c) for n in wanted.cohorts for c in CUES if _part(n, c) == part)
        mine = wanted.of(name)
        trial = trial_of(cohort_of(name, mine, data), cue, mine, folder / name / cue)
        found = _main(trial, name)
        if name == wanted.varied:
            other = ELSEWHERE.get(name)
            elsewhere = None if other is None else cohort_of(name, mine, data, **other)
            found["variations"] = list(measured_variations(trial, only=wanted.choices, elsewhere=elsewhere))
        where = {"cohort": name, "cue": cue, "kind": CUES[cue]["kind"]}
        return {table: [where | row for row in rows] for table, rows in found.items()}


def _part(cohort: str, cue: str) -> str:
    return f"{cohort}-{cue}"


def _main(trial: Trial, cohort: str) -> Rows:
    """All arms, the differences of ours to the controls, and what the layers of plain training and ours do."""
    found: dict[str, Measured] = {}
    for arm in arms(trial.model_of(TEACHER)):
        if arm.name in FEWER.get(cohort, (arm.name,)):
            found[arm.name] = trial.measured(arm)
    ours = [(OURS, [found[OURS].finding])]
    differences = [
        difference.to_json()
        for control in (MIXED, FINAL, UNLABELLED, TEACHER)
        for difference in compare_findings((control, [found[control].finding]), ours, found[control].subject)
    ]
    layers = [
        {"arm": arm, "tables": {title: table_to_json(table) for title, table in finding.tables.items()}}
        for arm, finding in ((arm, ShortcutLayers().run(found[arm].subject)) for arm in (ERM, OURS))
    ]
    return {"rows": [m.row for m in found.values()], "differences": differences, "layers": layers}


def trial_of(plain: Cohort, cue: str, scale: Scale, folder: Path) -> Trial:
    """A cue in a cohort, at the scale's budget."""
    return Trial(
        plain, planting_of(plain, cue, scale), folder, train=scale.train, seeds=scale.seeds, resamples=scale.resamples
    )


def planting_of(plain: Cohort, cue: str, scale: Scale) -> Planting:
    """Which images carry the cue: those of the positive class, but in the bias-free ones half of either class."""
    options = {k: v for k, v in CUES[cue].items() if k != "kind"}
    return planting(plain, cue, prevalence=scale.prevalence, clean=scale.clean, clean_arrangement="balanced", **options)


def cohort_of(name: str, scale: Scale, data: Path | None, **changes: Any) -> Cohort:
    """The cohort at the scale's size. changes: of its options."""
    return paper_cohort(name, size=scale.size, train_images=scale.train_images, data=data, **changes)
