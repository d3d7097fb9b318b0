"""Distractors: DANIL beside its control and what one would try otherwise, on classes that look alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from trueread.audit.base import compare_findings
from trueread.audit.distractor import BY_PAIR, DistractorAudit
from trueread.audit.finding import Finding
from trueread.audit.performance import measure
from trueread.audit.subject import Subject
from trueread.cohort.cohort import Cohort
from trueread.paper.base import Paper, Rows, paper
from trueread.paper.bench import Arm, Bench
from trueread.paper.cohorts import paper_cohort
from trueread.progress import say
from trueread.report.evidence import write_strip
from trueread.report.words import slug
from trueread.stats import METRICS

ERM, OURS, FEATURE, CONTROL = "erm", "danil", "danil, feature", "gradient penalty"
SHOWN = (ERM, OURS, FEATURE, CONTROL)  # whose distractors are looked at
COLUMNS = ("balanced-accuracy", "auroc", "macro-f1", "weighted-f1", "accuracy", "quadratic-kappa")


@dataclass(frozen=True)
class Scale:
    """How much is done. sizes: of the cohorts' images in pixels. images: of the test, in the distractor audit."""

    sizes: Mapping[str, int]
    train_images: int
    seeds: int
    train: Mapping[str, Any]
    varied: str = ""
    images: int = 500
    resamples: int = 1000


@paper("danil", source="Gong, Ma and Zheng 2020, MICCAI, arXiv 2007.09979")
class DanilPaper(Paper):
    """DANIL, its gradient-penalty control, and methods for imbalanced classes, with the distractors of some."""

    title = "Distractors: DANIL and its alternatives"
    scales: ClassVar[Mapping[str, Scale]] = {
        "smoke": Scale({"phantom": 28}, 200, 1, {"epochs": 2, "batch_size": 32}, images=40, resamples=200),
        "cpu": Scale(
            {"ham10000-seven": 64, "retinamnist": 28, "breastmnist": 28}, 1000, 3, {"epochs": 10},
            varied="ham10000-seven",
        ),
        "gpu": Scale(
            {"ham10000-seven": 224, "retinamnist": 28, "breastmnist": 28}, 1_000_000, 3,
            {"epochs": 60, "backbone": "resnet18"}, varied="ham10000-seven",
        ),
    }  # fmt: skip

    def parts(self, scale: str) -> list[str]:
        return list(self.scales[scale].sizes)

    def run_part(self, part: str, scale: str, folder: Path, data: Path | None) -> Rows:
        wanted = self.scales[scale]
        masks: dict[str, Any] = {"mask": "mask"} if part.startswith("ham10000") else {}
        cohort = paper_cohort(part, size=wanted.sizes[part], train_images=wanted.train_images, data=data, **masks)
        task = Task(part, cohort, wanted, folder / part)
        found = task.rows()
        if part == wanted.varied:
            found["variations"] = task.variations()
        return found


class Task:
    """One cohort with all arms."""

    def __init__(self, name: str, cohort: Cohort, scale: Scale, folder: Path) -> None:
        self.name, self.cohort, self.scale, self.folder = name, cohort, scale, folder
        self.bench = self._bench(folder, scale.seeds)
        self.columns = [c for c in COLUMNS if cohort.task in METRICS[c].tasks]

    def _bench(self, folder: Path, seeds: int) -> Bench:
        train = {"select": "last", **self.scale.train}
        return Bench(folder, train=train, seeds=seeds, resamples=self.scale.resamples)

    def arms(self) -> list[Arm]:
        """All of them; the one that needs masks where there are any."""
        made = [
            Arm(ERM, "erm"),
            Arm(OURS, "danil"),
            Arm(FEATURE, "danil", {"where": "feature"}),
            Arm(CONTROL, "gradient-penalty"),
            Arm("class weights", "class-weights"),
            Arm("balanced sampling", "balanced-sampling"),
            Arm("balanced softmax", "balanced-softmax"),
            Arm("focal", "focal"),
            Arm("label smoothing", "label-smoothing"),
            Arm("ohem", "ohem"),
            Arm("ldam-drw", "ldam"),
            Arm("supcon", "supcon"),
            Arm("mil", "mil"),
        ]
        masked = self.cohort.masks is not None and bool(self.cohort.masks[self.cohort.rows("train")].any())
        return [*made, Arm("region attention", "region-attention")] if masked else made

    def rows(self) -> Rows:
        """Every arm measured, its differences to plain training, ours to the control, and what distracts some."""
        where = {"cohort": self.name, "classes": self.cohort.n_classes}
        rows: list[dict[str, Any]] = []
        findings: dict[str, list[Finding]] = {}
        subjects: dict[str, Subject] = {}
        for arm in self.arms():
            subjects[arm.name] = subject = self.bench.subject(arm, self.cohort)
            findings[arm.name] = [self._finding(subject)]
            rows.append(where | self._row(arm, self.bench, findings[arm.name][0]))
        differences = []
        for control, others in ((ERM, [a for a in findings if a != ERM]), (CONTROL, [OURS, FEATURE])):
            compared = [(name, findings[name]) for name in others]
            found = compare_findings((control, findings[control]), compared, subjects[control])
            differences += [where | d.to_json() for d in found]
        return {
            "rows": rows,
            "differences": differences,
            "distractors": [where | self._seen(subjects[a]) for a in SHOWN],
        }

    def _finding(self, subject: Subject) -> Finding:
        return Finding("performance", "", measures={key: measure(subject, key) for key in self.columns})

    def _row(self, arm: Arm, bench: Bench, finding: Finding) -> dict[str, Any]:
        values = {k: m.estimate.to_json() for k, m in finding.measures.items()}
        shown = {k: round(values[k]["value"], 3) for k in ("balanced-accuracy", "macro-f1")}
        say(f"{self.name}, {arm.name}: {shown}")
        return {"arm": arm.name, "measures": values, "told": bench.told(arm), "seconds": bench.seconds(arm)}

    def _seen(self, subject: Subject) -> dict[str, Any]:
        """What the distractor audit says of an arm; its pictures go into the cohort's folder."""
        found = DistractorAudit(images=self.scale.images).run(subject)
        for strip in found.strips:
            write_strip(strip, self.folder / f"distractors-{slug(subject.name)}.png")
        pairs = found.tables[BY_PAIR].head(5)
        return {
            "arm": subject.name,
            "measures": {k: m.estimate.to_json() for k, m in found.measures.items()},
            "pairs": pairs[["true class", "distractor", "images", "taken for it"]].to_dict("records"),
        }

    def variations(self) -> list[dict[str, Any]]:
        """DANIL with a single choice changed, first seed."""
        rows = []
        for what, options in VARIATIONS.items():
            bench, arm = self._bench(self.folder / "variations" / slug(what), 1), Arm(OURS, "danil", options)
            finding = self._finding(bench.subject(arm, self.cohort))
            rows.append({"what": what, "cohort": self.name, **self._row(arm, bench, finding)})
        return rows


VARIATIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "form A": {"form": "A"},
    "form B": {"form": "B"},
    "weight 1": {"weight": 1.0},
    "weight 10": {"weight": 10.0},
    "no warm-up": {"warmup": 0.0},
    "the whole batch": {"share": 1.0},
    "feature, weight 1": {"where": "feature", "weight": 1.0},
}
