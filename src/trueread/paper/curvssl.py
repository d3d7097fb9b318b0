"""Few labels: CurvSSL in its forms beside Barlow Twins, VICReg and no pretraining, frozen and fine-tuned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from trueread.audit.base import compare_findings
from trueread.audit.embedding import Embedding
from trueread.audit.finding import Finding
from trueread.audit.performance import measure
from trueread.audit.subject import Member, Subject
from trueread.cohort.cohort import Cohort
from trueread.files import write_json
from trueread.method.base import build_method
from trueread.method.two_views import Pretraining
from trueread.model.card import CARD_FILE
from trueread.model.classifier import Classifier
from trueread.model.weights import save_weights
from trueread.paper.base import Paper, Rows, paper
from trueread.paper.bench import Arm, Bench
from trueread.paper.cifar10n import cifar10n
from trueread.paper.cohorts import paper_cohort
from trueread.progress import say
from trueread.report.words import slug
from trueread.training.checkpoint import drop_checkpoint
from trueread.training.config import TrainConfig
from trueread.training.evaluate import predict_probabilities
from trueread.training.loop import fit

SCRATCH, BARLOW = "no pretraining", "barlow-twins"
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    BARLOW: ("barlow-twins", {}),
    "vicreg": ("vicreg", {}),
    "curvssl, corr": ("curvssl", {"form": "corr"}),
    "curvssl, outer": ("curvssl", {"form": "outer"}),
    "curvssl, multi": ("curvssl", {"form": "multi"}),
    "curvssl, corr, rbf": ("curvssl", {"form": "corr", "kernel": "rbf"}),
}
OURS = tuple(name for name in ARMS if name.startswith("curvssl"))
VARIATIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "a third of the weight": {"share": 0.03},
    "three times the weight": {"share": 0.3},
    "neighbours of the first view": {"neighbours": "first"},
    "5 neighbours": {"k": 5},
    "20 neighbours": {"k": 20},
    "RBF kernel": {"kernel": "rbf"},
    "Laplacian kernel": {"kernel": "laplacian"},
    "polynomial kernel": {"kernel": "polynomial"},
}
COLUMNS = ("balanced-accuracy", "auroc", "accuracy")
CIFAR = "cifar10"


@dataclass(frozen=True)
class Scale:
    """How much is done. sizes: of the cohorts' images in pixels. images: for training (of CIFAR-10: with validation),
    by cohort. pretraining: options of the methods. train: of the fine-tuning. shares: of the labels.
    """

    sizes: Mapping[str, int]
    images: Mapping[str, int]
    seeds: int
    pretraining: Mapping[str, Mapping[str, Any]]
    train: Mapping[str, Any] = field(default_factory=dict)
    shares: tuple[float, ...] = (0.01, 0.1, 1.0)
    arms: tuple[str, ...] = tuple(ARMS)
    varied: str = ""
    resamples: int = 1000


@paper("curvssl", source="Ghojogh, Sepanj and Fieguth 2025, arXiv 2511.17426")
class CurvsslPaper(Paper):
    """CurvSSL, Barlow Twins, VICReg and no pretraining: linear layer, neighbours, fine-tuning with few labels."""

    title = "Few labels: CurvSSL and its alternatives"
    scales: ClassVar[Mapping[str, Scale]] = {
        "smoke": Scale(
            {"phantom": 28}, {"phantom": 150}, 1, {"phantom": {"epochs": 2, "batch_size": 32, "width": 32}},
            {"epochs": 1, "batch_size": 16}, (0.1, 1.0), (BARLOW, "curvssl, corr"), varied="", resamples=200,
        ),
        "cpu": Scale(
            {CIFAR: 32, "ham10000-seven": 28, "kermany": 28}, {CIFAR: 3000, "ham10000-seven": 1000, "kermany": 1000},
            3, {CIFAR: {"epochs": 15}, "ham10000-seven": {"epochs": 30}, "kermany": {"epochs": 30}}, {"epochs": 8},
            arms=(BARLOW, "vicreg", *OURS[:3]), varied=CIFAR,
        ),
        "gpu": Scale(
            {CIFAR: 32, "ham10000-seven": 64, "kermany": 64},
            {CIFAR: 50_000, "ham10000-seven": 1_000_000, "kermany": 1_000_000}, 3,
            {name: {"epochs": 200, "width": 2048} for name in (CIFAR, "ham10000-seven", "kermany")},
            {"epochs": 30, "backbone": "resnet18"}, varied=CIFAR,
        ),
    }  # fmt: skip

    def parts(self, scale: str) -> list[str]:
        return list(self.scales[scale].sizes)

    def run_part(self, part: str, scale: str, folder: Path, data: Path | None) -> Rows:
        wanted = self.scales[scale]
        task = Task(part, cohort_of(part, wanted, data), wanted, folder / part)
        found = task.rows()
        if part == wanted.varied:
            found["variations"] = task.variations()
        return found


def cohort_of(name: str, scale: Scale, data: Path | None) -> Cohort:
    """CIFAR-10 with its true labels, or a cohort of the protocols."""
    if name == CIFAR:
        return replace(cifar10n(data, "clean", images=scale.images[name]), name=CIFAR)
    return paper_cohort(name, size=scale.sizes[name], train_images=scale.images[name], data=data)


class Task:
    """One cohort with all arms."""

    def __init__(self, name: str, cohort: Cohort, scale: Scale, folder: Path) -> None:
        self.name, self.cohort, self.scale, self.folder = name, cohort, scale, folder

    def rows(self) -> Rows:
        """Of every arm: what its frozen features hold, and what fine-tuning makes of them with few labels."""
        where = {"cohort": self.name}
        found: Rows = {"rows": [], "tuned": [], "differences": []}
        frozen: dict[str, Finding] = {}
        tuned: dict[tuple[str, float], Finding] = {}
        subject: Subject | None = None
        for arm in (SCRATCH, *self.scale.arms):
            if arm != SCRATCH:
                subject = self._encoders(arm, *ARMS[arm], seeds=self.scale.seeds)
                frozen[arm], row = self._frozen(subject, arm)
                found["rows"].append(where | row)
            for share in self.scale.shares:
                asked = self._tuned(arm, share)
                measures = {key: measure(asked, key) for key in COLUMNS}
                tuned[arm, share] = Finding("performance", "", measures=measures)
                values = {k: m.estimate.to_json() for k, m in measures.items()}
                found["tuned"].append({**where, "arm": arm, "share": share, "measures": values})
                say(f"{self.name}, {arm}, {share:.0%}: {values['balanced-accuracy']['value']:.3f}")
        assert subject is not None
        ours = [(a, [f]) for a, f in frozen.items() if a != BARLOW]
        compared = compare_findings((BARLOW, [frozen[BARLOW]]), ours, subject)
        found["differences"] += [{**where, "share": None, **d.to_json()} for d in compared]
        for share in self.scale.shares:
            mine = [(a, [tuned[a, share]]) for a in self.scale.arms]
            compared = compare_findings((SCRATCH, [tuned[SCRATCH, share]]), mine, asked)
            found["differences"] += [{**where, "share": share, **d.to_json()} for d in compared]
        return found

    def _frozen(self, subject: Subject, arm: str) -> tuple[Finding, dict[str, Any]]:
        finding = Embedding(images=5000).run(subject)
        values = {k: m.estimate.to_json() for k, m in finding.measures.items()}
        say(f"{self.name}, {arm}: linear {values['linear']['value']:.3f}, neighbours {values['nearest']['value']:.3f}")
        told = [m.predictor.card.training["pretraining"] for m in subject.members]
        rank = float(finding.tables["Directions"]["effective rank"].iloc[0])
        return finding, {"arm": arm, "measures": values, "rank": rank, "told": told}

    def _encoders(self, name: str, method: str, options: Mapping[str, Any], *, seeds: int) -> Subject:
        """One encoder for each seed, learned if it is not there."""
        rows, members = self.cohort.rows("test"), []
        for seed in range(seeds):
            folder = self._folder(name, seed)
            if not (folder / CARD_FILE).is_file():
                self._learn(folder, method, {**self.scale.pretraining[self.name], **options}, seed)
            classifier = Classifier.load(folder)
            members.append(Member(classifier, seed, predict_probabilities(classifier, self.cohort, rows), None))
        return Subject(name, self.cohort, rows, members, self.cohort.rows("val"), resamples=self.scale.resamples)

    def _folder(self, name: str, seed: int) -> Path:
        return self.folder / "encoders" / slug(name) / f"seed-{seed}"

    def _learn(self, folder: Path, method: str, options: Mapping[str, Any], seed: int) -> None:
        made = build_method(method, **options)
        assert isinstance(made, Pretraining)
        config = TrainConfig(**{k: v for k, v in self.scale.train.items() if k != "epochs"})
        encoder = made.learn(self.cohort, config, fit=fit, seed=seed, folder=folder)
        encoder.card.training["pretraining"] = made.told
        save_weights(encoder.network.get_submodule("backbone"), folder / "encoder.safetensors")  # without any label
        write_json(folder / "told.json", made.told)
        encoder.save(folder)
        drop_checkpoint(folder / "checkpoints")

    def _tuned(self, arm: str, share: float) -> Subject:
        """All weights trained with a share of the labels, from the arm's encoder of the same seed."""
        members, subject = [], None
        for seed in range(self.scale.seeds):
            weights = "none" if arm == SCRATCH else str(self._folder(arm, seed) / "encoder.safetensors")
            bench = Bench(
                self.folder / "tuned" / slug(arm), train={"select": "last", **self.scale.train, "weights": weights},
                seeds=[seed], resamples=self.scale.resamples,
            )  # fmt: skip
            method = Arm(f"{share:g}", "few-labels", {"share": share})
            subject = bench.subject(method, self.cohort)
            members += subject.members
        assert subject is not None
        return replace(subject, name=arm, members=members)

    def variations(self) -> list[dict[str, Any]]:
        """CurvSSL with a single choice changed, first seed."""
        rows = []
        for what, options in VARIATIONS.items():
            subject = self._encoders(f"variation {what}", "curvssl", options, seeds=1)
            rows.append({"what": what, "cohort": self.name, **self._frozen(subject, what)[1]})
        return rows
