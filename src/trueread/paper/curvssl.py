"""Few labels: CurvSSL in its forms beside Barlow Twins, VICReg and no pretraining, frozen and fine-tuned."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

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
from trueread.training.batches import ImageStore
from trueread.training.batchnorm import refresh_batch_norm
from trueread.training.checkpoint import drop_checkpoint
from trueread.training.config import TrainConfig
from trueread.training.evaluate import predict_probabilities
from trueread.training.loop import fit
from trueread.training.steps import mix

SCRATCH, BARLOW = "no pretraining", "barlow-twins"
CHOSEN = "curvssl, corr"  # what the claims are about, before any number is seen
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    BARLOW: ("barlow-twins", {}),
    "vicreg": ("vicreg", {}),
    "curvssl, corr": ("curvssl", {"form": "corr"}),
    "curvssl, outer": ("curvssl", {"form": "outer"}),
    "curvssl, multi": ("curvssl", {"form": "multi"}),
    "curvssl, corr, rbf": ("curvssl", {"form": "corr", "kernel": "rbf"}),
    "curvssl, corr, light": ("curvssl", {"form": "corr", "share": 0.01}),
    "curvssl, corr, polynomial": ("curvssl", {"form": "corr", "kernel": "polynomial"}),
}
OURS = tuple(name for name in ARMS if name.startswith("curvssl"))
# added once the others had been seen: what did best of weights and of kernels on validation (lesions, one seed)
LATER = LIGHT, POLYNOMIAL = "curvssl, corr, light", "curvssl, corr, polynomial"
VARIATIONS: dict[str, dict[str, Any]] = {
    "ten times the weight": {"share": 1.0},
    "neighbours of the first view": {"neighbours": "first"},
    "5 neighbours": {"k": 5},
    "20 neighbours": {"k": 20},
    "Laplacian kernel": {"kernel": "laplacian"},
}
COLUMNS = ("balanced-accuracy", "auroc", "accuracy")
CIFAR = "cifar10"


@dataclass(frozen=True)
class Scale:
    """How much is done. sizes: of the cohorts' images in pixels. images: for training (of CIFAR-10: with validation),
    by cohort. pretraining: options of the methods. epochs, train: of the fine-tuning. shares: of the labels. arms: that
    learn an encoder, and fewer: instead of them, by cohort. tuned: of these, the arms that are fine-tuned. varied: the
    cohort on which single choices of CurvSSL are changed, one seed each.
    """

    sizes: Mapping[str, int]
    images: Mapping[str, int]
    seeds: int
    pretraining: Mapping[str, Mapping[str, Any]]
    epochs: Mapping[str, int]
    train: Mapping[str, Any] = field(default_factory=dict)
    shares: tuple[float, ...] = (0.01, 0.1, 1.0)
    arms: tuple[str, ...] = tuple(ARMS)
    fewer: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tuned: tuple[str, ...] = tuple(ARMS)
    varied: str = ""
    resamples: int = 1000


@paper("curvssl", source="Ghojogh, Sepanj and Fieguth 2025, arXiv 2511.17426")
class CurvsslPaper(Paper):
    """CurvSSL, Barlow Twins, VICReg and no pretraining: linear layer, neighbours, fine-tuning with few labels."""

    title = "Few labels: CurvSSL and its alternatives"
    scales: ClassVar[Mapping[str, Scale]] = {
        "smoke": Scale(
            {"phantom": 28}, {"phantom": 150}, 1, {"phantom": {"epochs": 2, "batch_size": 32, "width": 32}},
            {"phantom": 1}, {"batch_size": 16}, (0.1, 1.0), (BARLOW, CHOSEN), resamples=200,
        ),
        "cpu": Scale(
            {CIFAR: 32, "ham10000-seven": 48, "kermany": 48}, {CIFAR: 10_000, "ham10000-seven": 2000, "kermany": 1000},
            3,
            {
                CIFAR: {"epochs": 6, "width": 512, "batch_size": 64},
                "ham10000-seven": {"epochs": 20, "width": 512, "batch_size": 64},
                "kermany": {"epochs": 100, "width": 512, "batch_size": 64},
            },
            {CIFAR: 3, "ham10000-seven": 8, "kermany": 8}, {"threshold_rule": "0.5"},
            fewer={CIFAR: (BARLOW, "vicreg", *OURS[:3], LIGHT, POLYNOMIAL), "kermany": (BARLOW, CHOSEN, LIGHT)},
            tuned=(BARLOW, CHOSEN),
            varied="ham10000-seven",
        ),
        "gpu": Scale(
            {CIFAR: 32, "ham10000-seven": 64, "kermany": 64},
            {CIFAR: 50_000, "ham10000-seven": 1_000_000, "kermany": 1_000_000}, 3,
            {name: {"epochs": 200, "width": 2048} for name in (CIFAR, "ham10000-seven", "kermany")},
            dict.fromkeys((CIFAR, "ham10000-seven", "kermany"), 30),
            {"backbone": "resnet18", "threshold_rule": "0.5"}, varied=CIFAR,
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
        self.arms = scale.fewer.get(name, scale.arms)
        self.tuned = tuple(arm for arm in self.arms if arm in scale.tuned)

    def rows(self) -> Rows:
        """Of every arm: what its frozen features hold, and what fine-tuning makes of them with few labels."""
        where = {"cohort": self.name}
        found: Rows = {"rows": [], "tuned": [], "differences": []}
        frozen: dict[str, Finding] = {}
        tuned: dict[tuple[str, float], Finding] = {}
        for arm in (SCRATCH, *self.arms):
            subject = self._random() if arm == SCRATCH else self._encoders(arm, seeds=self.scale.seeds)
            frozen[arm], row = self._frozen(subject, arm)
            found["rows"].append(where | row)
            for share in self.scale.shares if arm == SCRATCH or arm in self.tuned else ():
                asked = self._tuned(arm, share)
                measures = {key: measure(asked, key) for key in COLUMNS}
                tuned[arm, share] = Finding("performance", "", measures=measures)
                values = {k: m.estimate.to_json() for k, m in measures.items()}
                found["tuned"].append({**where, "arm": arm, "share": share, "measures": values})
                say(f"{self.name}, {arm}, {share:.0%}: {values['balanced-accuracy']['value']:.3f}")
        ours = [(a, [f]) for a, f in frozen.items() if a != BARLOW]
        compared = compare_findings((BARLOW, [frozen[BARLOW]]), ours, subject)
        found["differences"] += [{**where, "share": None, **d.to_json()} for d in compared]
        for share in self.scale.shares:
            mine = [(a, [tuned[a, share]]) for a in self.tuned]
            compared = compare_findings((SCRATCH, [tuned[SCRATCH, share]]), mine, asked)
            found["differences"] += [{**where, "share": share, **d.to_json()} for d in compared]
        return found

    def _frozen(self, subject: Subject, arm: str) -> tuple[Finding, dict[str, Any]]:
        finding = Embedding(images=5000).run(subject)
        values = {k: m.estimate.to_json() for k, m in finding.measures.items()}
        say(f"{self.name}, {arm}: linear {values['linear']['value']:.3f}, neighbours {values['nearest']['value']:.3f}")
        told = [m.predictor.card.training.get("pretraining") for m in subject.members]
        rank = float(finding.tables["Directions"]["effective rank"].iloc[0])
        return finding, {"arm": arm, "measures": values, "rank": rank, "told": told}

    def _random(self) -> Subject:
        """Random weights, whose batch norms have seen the training images: what the features hold of themselves."""
        config, made = TrainConfig(**self.scale.train), []
        store, train = ImageStore(self.cohort, torch.device("cpu")), self.cohort.rows("train")
        for seed in range(self.scale.seeds):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(mix(seed, "random"))
                classifier = Classifier.build(config.backbone, cohort=self.cohort)
            refresh_batch_norm(classifier, store, train, seed=seed, precision="fp32")
            made.append(classifier.eval())
        return self._subject(SCRATCH, made)

    def _encoders(self, name: str, *, seeds: int) -> Subject:
        """One encoder for each seed, learned if it is not there."""
        made = []
        for seed in range(seeds):
            folder = self._folder(name, seed)
            if not (folder / CARD_FILE).is_file():
                self._learn(folder, name, seed)
            made.append(Classifier.load(folder))
        return self._subject(name, made)

    def _subject(self, name: str, classifiers: list[Classifier]) -> Subject:
        rows, members = self.cohort.rows("test"), []
        for seed, classifier in enumerate(classifiers):
            members.append(Member(classifier, seed, predict_probabilities(classifier, self.cohort, rows), None))
        return Subject(name, self.cohort, rows, members, self.cohort.rows("val"), resamples=self.scale.resamples)

    def _asked(self, name: str) -> tuple[str, dict[str, Any]]:
        """Method and options of an arm, or of a variation."""
        method, options = ARMS[name] if name in ARMS else ("curvssl", VARIATIONS[name])
        return method, {**self.scale.pretraining[self.name], **options}

    def _key(self, name: str) -> str:
        """Short, and another wherever another encoder would be learned, so that none passes for another."""
        facts = [self._asked(name), self.scale.train, self.cohort.digest, self.cohort.table["split"].tolist()]
        return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=4).hexdigest()

    def _folder(self, name: str, seed: int) -> Path:
        return self.folder / "encoders" / f"{slug(name)}-{self._key(name)}" / f"seed-{seed}"

    def _learn(self, folder: Path, name: str, seed: int) -> None:
        method, options = self._asked(name)
        made = build_method(method, **options)
        assert isinstance(made, Pretraining)
        config = TrainConfig(**{k: v for k, v in self.scale.train.items() if k != "threshold_rule"})
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
            key = "none" if arm == SCRATCH else self._key(arm)
            train = {"select": "last", "epochs": self.scale.epochs[self.name], **self.scale.train, "weights": weights}
            bench = Bench(
                self.folder / "tuned" / f"{slug(arm)}-{key}" / f"from-{seed}", train=train, seeds=[seed],
                resamples=self.scale.resamples,
            )  # fmt: skip
            method = Arm(f"{share:g}", "few-labels", {"share": share})
            subject = bench.subject(method, self.cohort)
            members += subject.members
        assert subject is not None
        return replace(subject, name=arm, members=members)

    def variations(self) -> list[dict[str, Any]]:
        """CurvSSL with a single choice changed, first seed."""
        rows = []
        for what in VARIATIONS:
            subject = self._encoders(what, seeds=1)
            rows.append({"what": what, "cohort": self.name, **self._frozen(subject, what)[1]})
        return rows
