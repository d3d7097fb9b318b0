"""Wrong labels: Step-E and what one would try otherwise, on labels that people got wrong and on injected errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from trueread.audit.base import compare_findings
from trueread.audit.finding import Finding
from trueread.audit.performance import measure
from trueread.cohort.cohort import Cohort
from trueread.paper.base import Paper, Rows, paper
from trueread.paper.bench import Arm, Bench
from trueread.paper.cifar10n import cifar10n
from trueread.paper.cohorts import paper_cohort
from trueread.progress import say
from trueread.shift.label_noise import Kind, with_label_noise

ERM, OURS, SOFT, ORACLE = "erm", "step-e", "step-e, soft", "true labels"
TRUNCATION, SELF_PACED, CONFIDENT = "loss truncation", "self-paced", "confident learning"
ERM_CHOSEN, OURS_CHOSEN = "erm, epoch by validation", "step-e, epoch by validation"  # its labels are wrong too
CLAIMED = (ERM, OURS, SOFT, TRUNCATION, SELF_PACED, ORACLE, ERM_CHOSEN, OURS_CHOSEN)  # what the claims are about
METRICS = ("balanced-accuracy", "auroc", "accuracy")
LONG, SHORT = "long", "short"


@dataclass(frozen=True)
class Setting:
    """One table. cohort: of the protocols', or "cifar10n-LABELS". kind, rate: of the injected errors, None for human
    ones or none. regime: "long", without augmentation, in which plain training learns wrong labels by heart, or
    "short", with augmentation, in which it hardly does. train: what is different. arms: which, all by default.
    """

    cohort: str
    regime: str = LONG
    kind: Kind | None = None
    rate: float = 0.0
    train: Mapping[str, Any] = field(default_factory=dict)
    tag: str = ""
    arms: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        noise = "" if self.kind is None else f"-{self.kind}-{self.rate:g}"
        return f"{self.cohort}{noise}-{self.regime}{f'-{self.tag}' if self.tag else ''}"


@dataclass(frozen=True)
class Scale:
    """How much is done. images: of CIFAR-10N; train_images: of a medical cohort, at most. regimes: options of training.
    varied: the setting on which single choices of Step-E are changed, one seed each. folds: of confident learning.
    once: the settings that have one seed.
    """

    settings: tuple[Setting, ...]
    size: int
    images: int
    train_images: int
    seeds: int
    train: Mapping[str, Any]
    regimes: Mapping[str, Mapping[str, Any]]
    varied: str = ""
    folds: int = 4
    once: tuple[str, ...] = ()
    resamples: int = 1000


INJECTED: tuple[tuple[str, Kind, float], ...] = (
    ("kermany", "symmetric", 0.2),
    ("kermany", "symmetric", 0.4),
    ("ham10000-seven", "symmetric", 0.2),
    ("ham10000-seven", "symmetric", 0.4),
    ("ham10000-seven", "class-dependent", 0.2),
    ("ham10000-seven", "class-dependent", 0.4),
)
HUMAN = ("cifar10n-worse", "cifar10n-aggre", "cifar10n-random1")
STANDARD = {"backbone": "resnet18", "stem": "standard"}
REAL = (
    Setting("cifar10n-worse"),
    *(Setting(cohort, LONG, kind, rate) for cohort, kind, rate in INJECTED),
    Setting("kermany"),
    Setting("ham10000-seven"),
    Setting("kermany", SHORT, "symmetric", 0.4),
    Setting("cifar10n-worse", SHORT),
    *(Setting(name) for name in HUMAN[1:]),
    Setting("cifar10n-worse", train=STANDARD, tag="7x7"),
)


def cut(setting: Setting) -> Setting:
    """With fewer arms where it is not one of the two settings that have all."""
    if setting.tag:
        return replace(setting, arms=(ERM, OURS, ORACLE))
    if setting.cohort in HUMAN[1:] or setting.regime == SHORT:
        return replace(setting, arms=CLAIMED)
    if setting.kind is None and setting.cohort not in HUMAN:
        return replace(setting, arms=(ERM, OURS, SOFT))
    if setting.kind is None or setting.name == "ham10000-seven-symmetric-0.4-long":
        return setting
    return replace(setting, arms=(*CLAIMED, CONFIDENT))


@paper("step-e", source="Du 2025, arXiv 2511.17040; CIFAR-10N: Wei et al. 2022, ICLR")
class StepEPaper(Paper):
    """Plain training, Step-E, its alternatives and the oracle, on human and injected label noise."""

    title = "Wrong labels: Step-E and its alternatives"
    scales: ClassVar[Mapping[str, Scale]] = {
        "smoke": Scale(
            (Setting("phantom", LONG, "symmetric", 0.3),), 28, 0, 200, 1, {"batch_size": 32},
            {LONG: {"epochs": 4, "augment": "none"}}, varied="phantom-symmetric-0.3-long", folds=2, resamples=200,
        ),
        "cpu": Scale(
            tuple(cut(setting) for setting in REAL), 28, 2000, 800, 3, {},
            {LONG: {"epochs": 20, "augment": "none"}, SHORT: {"epochs": 10}},
            varied="ham10000-seven-symmetric-0.4-long",
            folds=2, once=("cifar10n-aggre-long", "cifar10n-random1-long", "cifar10n-worse-long-7x7"),
        ),
        "gpu": Scale(
            REAL, 64, 50_000, 1_000_000, 3, {"batch_size": 128, "backbone": "resnet18"},
            {LONG: {"epochs": 100, "augment": "none"}, SHORT: {"epochs": 30}}, varied="cifar10n-worse-long",
        ),
    }  # fmt: skip

    def parts(self, scale: str) -> list[str]:
        return [setting.name for setting in self.scales[scale].settings]

    def run_part(self, part: str, scale: str, folder: Path, data: Path | None) -> Rows:
        wanted = self.scales[scale]
        setting = next(s for s in wanted.settings if s.name == part)
        cohort = cohort_of(setting, wanted, data)
        task = Task(setting, cohort, wanted, folder / part)
        found = task.rows()
        if part == wanted.varied:
            found["variations"] = task.variations()
        where = {"setting": part, "cohort": setting.cohort, "regime": setting.regime, "wrong": wrong_share(cohort)}
        return {table: [where | row for row in rows] for table, rows in found.items()}


def cohort_of(setting: Setting, scale: Scale, data: Path | None) -> Cohort:
    """The cohort with its wrong labels."""
    kind, _, labels = setting.cohort.partition("cifar10n-")
    if not kind and labels:
        return cifar10n(data, labels, images=scale.images)
    plain = paper_cohort(setting.cohort, size=scale.size, train_images=scale.train_images, data=data)
    return plain if setting.kind is None else with_label_noise(plain, setting.kind, rate=setting.rate)


def wrong_share(cohort: Cohort) -> float:
    """The share of the training labels that are wrong."""
    if cohort.truth is None or "flipped" not in cohort.truth:
        return 0.0
    return round(float(cohort.truth["flipped"].to_numpy(bool)[cohort.rows("train")].mean()), 4)


class Task:
    """One cohort with all arms."""

    def __init__(self, setting: Setting, cohort: Cohort, scale: Scale, folder: Path) -> None:
        self.setting, self.cohort, self.scale, self.folder = setting, cohort, scale, folder
        self.wrong = wrong_share(cohort)
        self.train = {"select": "last", **scale.train, **scale.regimes[setting.regime], **setting.train}
        seeds = 1 if setting.name in scale.once else scale.seeds
        self.bench = self._bench(folder, seeds)
        self.chosen = self._bench(folder / "chosen", seeds, select="auroc")

    def _bench(self, folder: Path, seeds: int, **train: Any) -> Bench:
        return Bench(folder, train=self.train | train, seeds=seeds, resamples=self.scale.resamples)

    def arms(self) -> list[Arm]:
        """All of them. Those that must be told the share of wrong labels are told the true one."""
        told = {"noise": max(0.01, self.wrong)}
        made = [
            Arm(ERM, "erm"),
            Arm(OURS, "step-e"),
            Arm(SOFT, "step-e", {"mode": "soft"}),
            Arm("step-e, share told", "step-e", told),
            Arm(TRUNCATION, "loss-truncation", told),
            Arm(SELF_PACED, "self-paced"),
            Arm("one-shot", "one-shot", told),
            Arm(CONFIDENT, "confident-learning", {"folds": self.scale.folds}),
            Arm("aum", "aum"),
        ]
        if self.wrong:
            made += [Arm(ORACLE, "true-labels"), Arm(ERM_CHOSEN, "erm"), Arm(OURS_CHOSEN, "step-e")]
        return [arm for arm in made if not self.setting.arms or arm.name in self.setting.arms]

    def rows(self) -> Rows:
        """Every arm measured on the true labels of the test, what it identified, and its differences."""
        rows: list[dict[str, Any]] = []
        findings: dict[str, list[Finding]] = {}
        subjects = {}
        for arm in self.arms():
            bench = self.chosen if arm.name in (ERM_CHOSEN, OURS_CHOSEN) else self.bench
            subjects[arm.name] = subject = bench.subject(arm, self.cohort)
            measures = {key: measure(subject, key) for key in METRICS}
            findings[arm.name] = [Finding("performance", "", measures=measures)]
            rows.append(self._row(arm, bench, findings[arm.name][0]))
        differences = []
        for control in (name for name in (ERM, TRUNCATION, SELF_PACED, ERM_CHOSEN) if name in findings):
            ours = [(name, findings[name]) for name in (OURS, SOFT, OURS_CHOSEN) if name in findings]
            found = compare_findings((control, findings[control]), ours, subjects[control])
            differences += [d.to_json() for d in found]
        return {"rows": rows, "differences": differences}

    def _row(self, arm: Arm, bench: Bench, finding: Finding) -> dict[str, Any]:
        values = {k: m.estimate.to_json() for k, m in finding.measures.items()}
        say(f"{self.setting.name}, {arm.name}: balanced accuracy {values['balanced-accuracy']['value']:.3f}")
        return {"arm": arm.name, "measures": values, "told": bench.told(arm), "seconds": bench.seconds(arm)}

    def variations(self) -> list[dict[str, Any]]:
        """Step-E with a single choice changed, first seed."""
        rows = []
        for what, options in VARIATIONS.items():
            bench = self._bench(self.folder / "variations" / what.replace(" ", "-"), 1)
            arm = Arm(OURS, "step-e", options)
            subject = bench.subject(arm, self.cohort)
            finding = Finding("performance", "", measures={key: measure(subject, key) for key in METRICS})
            rows.append({"what": what, **self._row(arm, bench, finding)})
        return rows


VARIATIONS: dict[str, dict[str, Any]] = {
    **{f"ramp {share:g}": {"ramp": share} for share in (0.0, 0.25, 0.5)},
    **{f"warm-up {share:g}": {"warmup": share} for share in (0.05, 0.1, 0.2, 0.4)},
    "last epoch's loss alone": {"smoothing": 0.0},
    "same share of each class": {"per_class": True},
    "any share of a class": {"most": 1.0},
}
