"""Specialist-teacher distillation against what one would try otherwise, on planted shortcuts of two kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from trueread.audit.base import compare_findings
from trueread.audit.finding import Finding
from trueread.audit.planted_cue import PlantedCue
from trueread.audit.subject import Subject
from trueread.cells import cell_folder, is_done, read_history, refuse_other
from trueread.cohort.cohort import Cohort
from trueread.cohort.source import load_cohort
from trueread.cohort.split import assign_splits
from trueread.errors import InputError
from trueread.method.base import build_method
from trueread.paper.base import Paper, paper
from trueread.progress import say
from trueread.runner import train_method, trained_method
from trueread.shift.planting import Planting, planted, planting
from trueread.study import DataSection, MethodSection, Study
from trueread.training.config import TrainConfig

ERM, MIXED, TEACHER, FINAL, OURS, CEILING = (
    "erm",
    "erm + clean",
    "teacher alone",
    "final layer",
    "specialist",
    "ceiling",
)
KEYS = (
    "auroc-clean",
    "auroc-flipped",
    "auroc-biased",
    "auroc-balanced",
    "planted",
    "delta-tpr",
    "delta-fpr",
    "worst-group",
)
KERMANY_PATIENT = r"person\d+|(?:NORMAL2-)?IM-\d+"
COHORTS: dict[str, dict[str, Any]] = {
    "phantom": {"source": "phantom", "n_images": 400},
    "kermany": {"source": "folder:{data}/kermany", "patient": KERMANY_PATIENT, "modality": "radiograph"},
    "ham10000": {
        "source": "csv:{data}/ham10000/metadata.csv", "name": "ham10000", "patient": "lesion_id", "mask": "",
        "classes": ["nv", "mel"], "modality": "dermatoscopy",
    },
}  # fmt: skip
CUES: dict[str, dict[str, Any]] = {
    "gaussian-noise": {"kind": "diffuse", "severity": 0.4},
    "square": {"kind": "local", "severity": 1.0, "side": 0.08},
}


@dataclass(frozen=True)
class Arm:
    """A row of the table: a method, its options, and what it is trained on: "mixed" has the clean images, "biased" has
    the cue in them too, "plain" has no cue at all.
    """

    name: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    on: str = "mixed"


@dataclass(frozen=True)
class Scale:
    """How much is done. train_images: at most, whole patients. clean: share of the training patients without a cue."""

    cohorts: tuple[str, ...]
    size: int
    train_images: int
    seeds: int
    train: Mapping[str, Any]
    clean: float = 0.1
    prevalence: float = 0.98
    resamples: int = 1000


@paper("specialist", source="Boland, Tsaftaris and Dahdouh 2025, MELBA 2025:020, arXiv 2511.17421")
class SpecialistPaper(Paper):
    """A diffuse and a local cue in two cohorts, all arms on the same test images in four arrangements of the cue."""

    title = "Planted shortcuts: specialist-teacher distillation and its alternatives"
    scales: ClassVar[Mapping[str, Scale]] = {
        "smoke": Scale(("phantom",), 28, 400, 1, {"epochs": 2, "batch_size": 32}, resamples=200),
        "cpu": Scale(("kermany", "ham10000"), 64, 2400, 3, {"epochs": 8, "batch_size": 64}),
        "gpu": Scale(
            ("kermany", "ham10000"), 128, 1_000_000, 3, {"epochs": 20, "batch_size": 64, "backbone": "resnet18"}
        ),
    }

    def run(self, scale: str, folder: Path, data: Path | None) -> dict[str, Any]:
        wanted = self.scales[scale]
        result: dict[str, Any] = {"arms": [vars(arm) for arm in arms(Path())], "rows": [], "differences": []}
        for name in wanted.cohorts:
            plain = cohort_of(name, wanted, data)
            for cue, options in CUES.items():
                given = {k: v for k, v in options.items() if k != "kind"}
                what = planting(plain, cue, prevalence=wanted.prevalence, clean=wanted.clean, **given)
                part = self._part(wanted, plain, what, folder / name, cue)
                result["rows"] += [{"cohort": name, "cue": cue, "kind": options["kind"], **row} for row in part[0]]
                result["differences"] += [{"cohort": name, "cue": cue, **row} for row in part[1]]
                self.save(scale, folder, result)
        return result

    def _part(
        self, scale: Scale, plain: Cohort, what: Planting, folder: Path, cue: str
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The rows of all arms for one cue, and their differences to the controls."""
        cohorts = {
            "plain": plain,
            "mixed": planted(plain, what),
            "biased": planted(plain, Planting(what.shift, what.prevalence, 0.0, what.seed)),
        }
        study = Study(
            name="paper", data=DataSection(source="paper"), train=TrainConfig(**scale.train),
            seeds=list(range(scale.seeds)), resamples=scale.resamples,
        )  # fmt: skip
        found: list[tuple[str, list[Finding]]] = []
        subjects: list[Subject] = []
        rows = []
        for arm in arms(folder / cue):
            home = folder / ("plain" if arm.on == "plain" else cue)
            section = MethodSection(name=arm.method, label=arm.name, **arm.options)
            for seed in study.seeds:
                cell = cell_folder(home, arm.name, seed)
                if is_done(cell):
                    refuse_other(cell, section, cohorts[arm.on])
            train_method(study, cohorts[arm.on], section, build_method(arm.method, **arm.options), home)
            subject = trained_method(study, cohorts["mixed"], section, home)
            measures = PlantedCue(subject, what).measures()
            subjects.append(subject)
            found.append((arm.name, [Finding("shortcut-reliance", "", measures={k: measures[k] for k in KEYS})]))
            seconds = [read_history(cell_folder(home, arm.name, s))["seconds"].sum() for s in study.seeds]
            values = {k: measures[k].estimate.to_json() for k in KEYS}
            rows.append({"arm": arm.name, "measures": values, "seconds": float(np.mean(seconds))})
            say(f"{arm.name}: AUROC clean {_text(values, 'clean')}, flipped {_text(values, 'flipped')}")
        differences = []
        for control in (MIXED, FINAL, TEACHER):
            base = next(f for f in found if f[0] == control)
            others = [f for f in found if f[0] == OURS]
            differences += [d.to_json() for d in compare_findings(base, others, subjects[0])]
        return rows, differences


def arms(folder: Path) -> list[Arm]:
    """All arms, in the order of the table. folder: of one cue, where the teacher of each seed is found again."""
    teacher = str(cell_folder(folder, TEACHER, 0).with_name("seed-{seed}") / "model")
    return [
        Arm(ERM, "erm", on="biased"),
        Arm(MIXED, "erm"),
        Arm(TEACHER, "clean-only"),
        Arm(FINAL, "final-layer-distillation", {"teacher": teacher, "alpha": 1.0}),
        Arm(OURS, "specialist", {"teacher": teacher, "alpha": 1.0, "beta": 5.0}),
        Arm("mixup", "mixup"),
        Arm("groupdro", "groupdro"),
        Arm("jtt", "jtt"),
        Arm("dfr", "dfr"),
        Arm(CEILING, "erm", on="plain"),
    ]


def cohort_of(name: str, scale: Scale, data: Path | None) -> Cohort:
    """The split cohort at the scale's size, with at most so many training images."""
    options = dict(COHORTS[name])
    if "{data}" in options["source"]:
        if data is None:
            raise InputError(f"'{name}' is read from the folder of real images; name it with --data or $TRUEREAD_DATA.")
        options["source"] = options["source"].format(data=data)
    cohort = assign_splits(load_cohort(options.pop("source"), size=scale.size, **options), val=0.15, test=0.25)
    training = cohort.rows("train")
    if len(training) <= scale.train_images:
        return cohort
    patients = cohort.patient_codes(training)
    order = np.random.default_rng(0).permutation(np.unique(patients))
    sizes = np.bincount(patients)[order]
    kept = training[np.isin(patients, order[: np.searchsorted(sizes.cumsum(), scale.train_images, side="right")])]
    return cohort.subset(np.sort(np.concatenate([kept, cohort.rows("val"), cohort.rows("test")])))


def _text(values: Mapping[str, Any], arrangement: str) -> str:
    return f"{values[f'auroc-{arrangement}']['value']:.3f}"


def gap_closed(rows: Sequence[Mapping[str, Any]], arm: str, key: str) -> float:
    """Share of the way from plain training on the biased images to training without any cue; nan where there is none
    to go (less than 0.01).
    """
    value = {row["arm"]: row["measures"][key]["value"] for row in rows}
    way = value[CEILING] - value[ERM]
    return float((value[arm] - value[ERM]) / way) if way > 0.01 else float("nan")
