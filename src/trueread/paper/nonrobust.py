"""Nonrobust features: what networks that see nothing else can do, and what adversarial training buys and costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from trueread.audit.adversarial import AdversarialAudit
from trueread.audit.attribution_stability import AttributionStability
from trueread.audit.base import compare_findings
from trueread.audit.corruption import CorruptionAudit
from trueread.audit.finding import Better, Finding, Measure
from trueread.audit.performance import measure
from trueread.audit.subject import Subject
from trueread.cohort.cohort import Cohort
from trueread.method.constructed import CONSTRUCTED, Construction, constructed
from trueread.model.classifier import Classifier
from trueread.paper.base import Paper, Rows, paper
from trueread.paper.bench import Arm, Bench
from trueread.paper.cohorts import paper_cohort
from trueread.progress import say
from trueread.report.evidence import write_strip
from trueread.report.words import slug
from trueread.shift.attack import grey_levels, usual_epsilon
from trueread.stats import on_rows, statistic

STANDARD = "standard"
D_RAND: Construction = "d_rand"
D_DET: Construction = "d_det"
D_R: Construction = "d_r"
D_NR: Construction = "d_nr"
NOISE, SHUFFLED, AUGMENTED = "noise (control)", "shuffled (control)", "corruption-augment"
FOOLED, TRIED_ON = 0.9, 200  # the share that an epsilon has to fool, and of how many images
RAISED = (1.0, 2.0, 4.0, 8.0)  # times the usual epsilon, until that share is fooled
CORRUPTIONS = {"kermany": "pneumonia", "kermany-three": "pneumonia"}  # whose list, where not the modality's
KEYS = {  # of the audits' measures that are kept
    "corruption": ("corrupted", "auroc-corrupted"),
    "adversarial": ("robust", "smallest-change"),
}


@dataclass(frozen=True)
class Scale:
    """How much is done. train: of standard and adversarial networks; student: what is different for those that learn
    from constructed sets. multiples: of the usual epsilon, for adversarial training. matched: cohorts with the arms of
    matched features. steps, matched_steps: of gradient, to construct a set. images: of test, asked by the audits.
    """

    cohorts: tuple[str, ...]
    size: int
    train_images: int
    seeds: int
    train: Mapping[str, Any]
    student: Mapping[str, Any]
    multiples: tuple[float, ...] = (0.25, 0.5, 1.0)
    matched: tuple[str, ...] = ()
    steps: int = 50
    matched_steps: int = 200
    attack_steps: int = 50
    images: int = 300
    explained: int = 40
    resamples: int = 1000
    adversarial_steps: int = 7


@paper("nonrobust", source="Mouton et al. 2026, arXiv 2604.22579; Ilyas et al. 2019, arXiv 1905.02175")
class NonrobustPaper(Paper):
    """Standard, nonrobust-only and adversarial networks on clean, attacked and corrupted test images."""

    title = "Nonrobust features: how far they carry, and what adversarial training buys"
    scales: ClassVar[Mapping[str, Scale]] = {
        "smoke": Scale(
            ("phantom",), 28, 200, 1, {"epochs": 2, "batch_size": 32}, {"epochs": 2}, (1.0,), steps=3, attack_steps=3,
            images=40, explained=8, resamples=200, adversarial_steps=1,
        ),
        "cpu": Scale(
            ("ham10000-seven", "kermany-three", "retinamnist", "breastmnist", "kermany"), 28, 1000, 3,
            {"epochs": 12, "batch_size": 32}, {"epochs": 25, "learning_rate": 1e-3}, (0.25, 1.0),
            matched=("breastmnist",), matched_steps=100, attack_steps=20, images=200,
        ),
        "gpu": Scale(
            ("ham10000-seven", "kermany-three", "kermany", "retinamnist", "breastmnist"), 64, 1_000_000, 3,
            {"epochs": 50, "batch_size": 128, "backbone": "resnet18"},
            {"epochs": 80, "learning_rate": 1e-3, "backbone": "resnet18"}, matched=("breastmnist", "retinamnist"),
            steps=100, matched_steps=1000, images=1000,
        ),
    }  # fmt: skip

    def parts(self, scale: str) -> list[str]:
        return list(self.scales[scale].cohorts)

    def run_part(self, part: str, scale: str, folder: Path, data: Path | None) -> Rows:
        wanted = self.scales[scale]
        options = {} if part in ("breastmnist", "retinamnist") else {"size": wanted.size}
        cohort = paper_cohort(part, size=options.get("size", 28), train_images=wanted.train_images, data=data)
        return Task(part, cohort, wanted, folder / part).rows()


class Task:
    """One cohort with all arms."""

    def __init__(self, name: str, cohort: Cohort, scale: Scale, folder: Path) -> None:
        self.name, self.cohort, self.scale, self.folder = name, cohort, scale, folder
        self.shape = (cohort.channels, *cohort.spatial)
        self.usual = usual_epsilon("l2", prod(self.shape))
        plain = {"select": "last", **scale.train}
        shared: dict[str, Any] = {"seeds": scale.seeds, "resamples": scale.resamples}
        self.plain = Bench(folder, train=plain, **shared)
        self.student = Bench(folder, train={**plain, "augment": "none", **scale.student}, **shared)

    def rows(self) -> Rows:
        """Every arm measured, its differences to the standard one, how far maps stay, and how sets were made."""
        findings: dict[str, list[Finding]] = {}
        rows: list[dict[str, Any]] = []
        arms = self.arms()
        subjects = {arm.name: bench.subject(arm, self.cohort) for arm, bench in arms}  # all of them before they are
        for arm, bench in arms:  # asked, which takes minutes an arm and is done again in a run that goes on
            subject = subjects[arm.name]
            findings[arm.name] = found = self.measured(subject, against_next=arm.name == D_DET)
            values = {k: m.estimate.to_json() for f in found for k, m in f.measures.items()}
            shown = {k: round(v["value"], 3) for k, v in values.items() if k in ("clean", "robust", "corrupted")}
            say(f"{self.name}, {arm.name}: {shown}")
            rows.append({"arm": arm.name, "measures": values, "told": bench.told(arm), "seconds": bench.seconds(arm)})
        base = (STANDARD, findings[STANDARD])
        others = [(name, found) for name, found in findings.items() if name != STANDARD]
        differences = [d.to_json() for d in compare_findings(base, others, subjects[STANDARD])]
        where: dict[str, Any] = {
            "cohort": self.name, "classes": self.cohort.n_classes, "epsilon": round(self.usual, 4),
            "grey_levels": round(grey_levels(self.usual, "l2", self.shape), 3),
        }  # fmt: skip
        return {
            "rows": [where | row for row in rows],
            "differences": [where | d for d in differences],
            "stability": [where | row for row in self.stability(subjects)],
        }

    def arms(self) -> list[tuple[Arm, Bench]]:
        """The standard networks first: the sets are made with them."""
        made = [(Arm(STANDARD, "balanced-sampling"), self.plain)]
        made += [
            (_with_balance(self.robust(multiple), "adversarial", epsilon=multiple * self.usual,
                           steps=self.scale.adversarial_steps), self.plain)
            for multiple in self.scale.multiples
        ]  # fmt: skip
        made.append((_with_balance(AUGMENTED, "corruption-augment", corruptions=self.corruptions), self.plain))
        self.plain.subject(made[0][0], self.cohort)
        epsilon = self.epsilon_that_fools(D_DET if self.cohort.n_classes > 2 else D_RAND)
        kinds: list[tuple[str, Construction]] = [(D_RAND, D_RAND), (NOISE, "noise"), (SHUFFLED, "shuffled")]
        if self.cohort.n_classes > 2:
            kinds.insert(1, (D_DET, D_DET))
        for name, kind in kinds:
            arm = self._student(name, STANDARD, construction=kind, epsilon=epsilon, steps=self.scale.steps)
            made.append((arm, self.student))
        if self.name in self.scale.matched:
            for kind, source in ((D_NR, STANDARD), (D_R, self.robust(self.scale.multiples[-1]))):
                arm = self._student(kind, source, construction=kind, steps=self.scale.matched_steps)
                made.append((arm, self.student))
        return made

    @staticmethod
    def robust(multiple: float) -> str:
        return f"adversarial, {multiple:g} epsilon"

    def _student(self, name: str, source: str, **options: Any) -> Arm:
        """What learns from a set made with the networks of the arm `source`."""
        return _with_balance(name, "nonrobust-only", classifier=self.plain.model_of(source), **options)

    @property
    def corruptions(self) -> str | None:
        return CORRUPTIONS.get(self.name)

    def epsilon_that_fools(self, construction: Construction) -> float:
        """The smallest of the raised epsilons with which the first standard network takes nine of ten training images
        for their new class; the largest when none does.
        """
        classifier = Classifier.load(self.plain.model_of(STANDARD).replace("{seed}", "0"))
        rows = np.random.default_rng(0).permutation(self.cohort.rows("train"))[:TRIED_ON]
        few = self.cohort.subset(rows)
        for factor in RAISED:
            epsilon = factor * self.usual
            made = constructed(few, classifier, construction, epsilon=epsilon, steps=self.scale.steps)
            rate = made.origin[CONSTRUCTED]["fooling_rate"]
            say(f"{self.name}: L2 {epsilon:.3g} fools {rate:.0%} of {len(few)} training images ({construction}).")
            if rate >= FOOLED:
                break
        return float(epsilon)

    def measured(self, subject: Subject, *, against_next: bool) -> list[Finding]:
        """What an arm is asked, as findings with the measures that are kept."""
        first = {"clean": measure(subject, "balanced-accuracy"), "auroc": measure(subject, "auroc")}
        if against_next:
            first["next-class"] = _against_next(subject)
        audits = {
            "corruption": CorruptionAudit(corruptions=self.corruptions, images=self.scale.images),
            "adversarial": AdversarialAudit(
                epsilon=self.usual, balls=(0.25, 1.0), steps=self.scale.attack_steps, images=self.scale.images
            ),
        }
        found = [Finding("performance", "", measures=first)]
        for name, asked in audits.items():
            every = asked.run(subject).measures
            kept = {k: m for k, m in every.items() if k in KEYS[name] or k.startswith("family-")}
            found.append(Finding(name, "", measures=kept))
        return found

    def stability(self, subjects: Mapping[str, Subject]) -> list[dict[str, Any]]:
        """How alike maps are before and after an attack, of the standard and the most robust networks; some of them
        are pictures in the task's folder.
        """
        asked, rows = AttributionStability(images=self.scale.explained, epsilon=self.usual), []
        for name in (STANDARD, self.robust(self.scale.multiples[-1])):
            found = asked.run(replace(subjects[name], members=subjects[name].members[:1]))
            for strip in found.strips:
                write_strip(strip, self.folder / f"maps-{slug(name)}.png")
            rows.append({"arm": name, "measures": {k: m.estimate.to_json() for k, m in found.measures.items()}})
        return rows


def _with_balance(name: str, method: str, **options: Any) -> Arm:
    """The method on batches in which every class is drawn equally often."""
    return Arm(name, f"{method}+balanced-sampling", {method: options})


def _against_next(subject: Subject) -> Measure:
    """Balanced accuracy if the next class were the right one: what the labels of d_det say of what is seen."""
    k, task = subject.cohort.n_classes, subject.cohort.task
    rows = np.arange(len(subject.labels))
    expected = (subject.labels + 1) % k
    made = [
        on_rows(statistic("balanced-accuracy", m.probabilities.astype(np.float64), expected, task=task), rows)
        for m in subject.members
    ]
    what = "balanced accuracy against the class after the true one, which is what d_det says of what is seen"
    return Measure("Balanced accuracy against the next class", subject.interval(made), Better.LOWER, what, made)
