"""Pneumonia on radiographs: one recipe for eight backbones, choices taken back one by one, and where they look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from trueread.audit.base import compare_findings
from trueread.audit.finding import Finding, warnings_in
from trueread.audit.localisation import Localisation
from trueread.audit.performance import measure, threshold_of
from trueread.audit.subject import Subject
from trueread.cohort.cohort import Cohort
from trueread.errors import InputError
from trueread.model.classifier import Classifier
from trueread.model.limits import abstentions, distances, margins
from trueread.paper.base import Paper, Rows, paper
from trueread.paper.bench import Arm, Bench
from trueread.paper.cohorts import paper_cohort
from trueread.paper.places import HOWS, Ask, View, cams, located
from trueread.progress import say
from trueread.report.words import slug
from trueread.stats import Statistic, decide, weighted_mean
from trueread.stats.bootstrap import row_mean
from trueread.training.limits import features_of

BACKBONES = (
    "resnet18", "resnet50", "densenet121", "efficientnet_b0", "mobilenetv2_100", "mobilenetv3_large_100",
    "vit_base_patch16_224", "alexnet",
)  # fmt: skip
SWAPPED = ("efficientnet_b0", "mobilenetv2_100", "mobilenetv3_large_100")  # whose last layer alone is new
METHOD = "focal+class-weights+balanced-sampling"
RECIPE: dict[str, Any] = {
    "optimizer": "adam", "learning_rate": 1e-4, "weight_decay": 1e-4, "schedule": "constant", "warmup": 0.0,
    "batch_size": 32, "epochs": 10, "patience": 3, "select": "accuracy", "augment": "pneumonia",
}  # fmt: skip
SPLIT = {"val": 0.15, "test": 0.15, "seed": 42}
COLUMNS = ("balanced-accuracy", "auroc", "accuracy", "f1", "sensitivity", "specificity")
LOCALISATION = "localisation"  # the part whose maps are of a diagnosis
LESION, REMEDY = "lesion-or-skin", "region-attention"  # parts that ask further; the first has windows of its own size
FURTHER: dict[str, dict[str, Ask]] = {  # by scale and part
    "smoke": {REMEDY: Ask("phantom", {"compact": cams()}, ("erm", "region-attention"), {"epochs": 2})},
    "cpu": {
        LESION: Ask(LESION, {"compact": cams("stage3"), "mobilenetv3_large_100": cams()}, train={"epochs": 12}),
        REMEDY: Ask("ham10000", {"compact": cams()}, ("erm", "region-attention"), {"epochs": 12}),
    },
    "gpu": {
        LESION: Ask(LESION, {"resnet18": cams("layer3")}, train={"epochs": 30}),
        REMEDY: Ask(
            "ham10000", {"resnet18": (*cams("layer3"), View("occlusion"))}, ("erm", "region-attention"), {"epochs": 30}
        ),
    },
}  # fmt: skip


@dataclass(frozen=True)
class Scale:
    """How much is done. backbones: each a part. size: of the images in pixels. weights: the first ones. train: over the
    recipe. varied: whose recipe is taken apart. located: backbones whose maps are held against masks, and the layers
    that these are of. images: of the test, in the localisation audit.
    """

    cohort: str
    masked: str
    backbones: tuple[str, ...]
    size: int
    train_images: int
    seeds: int
    weights: str = "none"
    train: Mapping[str, Any] = field(default_factory=dict)
    varied: str = ""
    located: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    located_train: Mapping[str, Any] = field(default_factory=dict)
    images: int = 300
    resamples: int = 1000


def recipe_of(backbone: str, **changes: Any) -> dict[str, Any]:
    """Options of `TrainConfig` for one backbone."""
    head = "linear" if backbone in SWAPPED else "mlp"
    return RECIPE | {"backbone": backbone, "head": head, "stem": "standard"} | changes


@paper("pneumonia", source="Shahi and Bagale 2025, arXiv 2511.00456")
class PneumoniaPaper(Paper):
    """Backbones under one published recipe, its choices taken back one by one, and their maps against masks."""

    title = "Pneumonia: one recipe for many backbones"
    scales: ClassVar[Mapping[str, Scale]] = {
        "smoke": Scale(
            "phantom", "phantom", ("compact", "resnet18"), 32, 150, 1, train={"epochs": 1, "batch_size": 16},
            varied="compact", located={"compact": ("auto",)}, located_train={"epochs": 2}, images=24, resamples=200,
        ),
        "cpu": Scale(
            "kermany", "ham10000",
            ("resnet18", "efficientnet_b0", "mobilenetv2_100", "mobilenetv3_large_100"), 96, 2000, 3,
            train={"learning_rate": 1e-3, "patience": None}, varied="mobilenetv3_large_100",
            located={"resnet18": ("auto", "layer3"), "mobilenetv3_large_100": ("auto", "blocks.4")},
            located_train={"epochs": 12},
        ),
        "gpu": Scale(
            "kermany", "ham10000", BACKBONES, 224, 1_000_000, 3,
            train={"learning_rate": 3e-4, "epochs": 30, "patience": None}, varied="resnet18",
            located={"resnet18": ("auto", "layer3"), "vit_base_patch16_224": ("auto",)}, located_train={"epochs": 30},
        ),
    }  # fmt: skip

    def parts(self, scale: str) -> list[str]:
        return [*self.scales[scale].backbones, LOCALISATION, *FURTHER.get(scale, {})]

    def setting(self, scale: str) -> dict[str, Any]:
        return super().setting(scale) | {"recipe": {"method": METHOD, **RECIPE}, "split": SPLIT}

    def setting_of(self, part: str, scale: str) -> dict[str, Any]:
        further = FURTHER.get(scale, {})
        return super().setting_of(part, scale) | ({"ask": asdict(further[part])} if part in further else {})

    def run_part(self, part: str, scale: str, folder: Path, data: Path | None) -> Rows:
        wanted = self.scales[scale]
        if part not in wanted.backbones:
            ask = _ask(wanted) if part == LOCALISATION else FURTHER[scale][part]
            masks: dict[str, Any] = {} if ask.cohort == "phantom" else {"mask": "mask"}
            cohort = paper_cohort(ask.cohort, size=wanted.size, train_images=wanted.train_images, data=data, **masks)
            places = located(ask, cohort, folder / slug(part), seeds=wanted.seeds, resamples=wanted.resamples)
            return {"places": [{"part": part, **row} for row in places]}
        pooled: dict[str, Any] = {} if wanted.cohort == "phantom" else {"use_split": False}
        size, images = wanted.size, wanted.train_images
        cohort = paper_cohort(wanted.cohort, size=size, train_images=images, data=data, split=SPLIT, **pooled)
        rows: Rows = {"rows": [], "split": [_split(cohort)], "variations": []}
        changes = {"weights": wanted.weights, **wanted.train}
        bench = _bench(wanted, folder / part, recipe_of(part, **changes), seeds=wanted.seeds)
        subject = bench.subject(Arm("recipe", METHOD), cohort)
        rows["rows"].append(_row(part, subject, _performance(subject), wanted, bench.seconds(Arm("recipe", METHOD))))
        found: dict[str, list[Finding]] = {}
        for what, (method, options) in VARIATIONS.items() if part == wanted.varied else ():
            train = recipe_of(part, **{**changes, **options})
            arm = Arm("recipe", method)
            kept = folder / part / "variations" / slug(what) if what != AS_IT_IS else folder / part
            other = _bench(wanted, kept, train, seeds=1)
            subject = other.subject(arm, cohort)
            found[what] = [_performance(subject)]
            rows["variations"].append({
                "what": what, "backbone": part, "n_weights": _n_weights(subject), "measures": _values(found[what][0]),
                "seconds": other.seconds(arm),
            })  # fmt: skip
        if found:
            (first, mine), *others = found.items()
            rows["differences"] = [d.to_json() for d in compare_findings((first, mine), others, subject)]
        return rows


AS_IT_IS = "as it is"
VARIATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    AS_IT_IS: (METHOD, {}),
    "without the loss's weights": ("focal+balanced-sampling", {}),
    "without the sampler": ("focal+class-weights", {}),
    "without either": ("focal", {}),
    "cross-entropy alone": ("erm", {}),
    "the other head": (METHOD, {"head": "other"}),
    "augmentation of radiographs": (METHOD, {"augment": "radiograph"}),
    "AdamW, warm-up, cosine": (METHOD, {"optimizer": "adamw", "schedule": "cosine", "warmup": 0.1}),
}


def _ask(wanted: Scale) -> Ask:
    """What the scale says of maps against masks."""
    views = {
        backbone: tuple(View(how, layer, wanted.images) for layer, how in product(layers, HOWS))
        for backbone, layers in wanted.located.items()
    }
    return Ask(wanted.masked, views, train={"weights": wanted.weights, **wanted.located_train})


def _bench(wanted: Scale, folder: Path, train: dict[str, Any], *, seeds: int) -> Bench:
    if train["head"] == "other":
        train["head"] = "linear" if train["backbone"] not in SWAPPED else "mlp"
    return Bench(folder, train=train, seeds=seeds, resamples=wanted.resamples)


def _split(cohort: Cohort) -> dict[str, Any]:
    """How many images of each class and how many patients each split has, and that no patient is in two."""
    table = cohort.table.assign(label=cohort.labels)
    in_two = int((table.groupby("patient")["split"].nunique() > 1).sum())
    if in_two:
        raise InputError(f"each patient of {cohort.name} has to be in one split; found {in_two} in two; split anew.")
    return {
        str(split): {"images": np.bincount(rows["label"]).tolist(), "patients": rows["patient"].nunique()}
        for split, rows in table.groupby("split", sort=False)
    }


def _performance(subject: Subject) -> Finding:
    return Finding("performance", "", measures={key: measure(subject, key) for key in COLUMNS})


def _values(finding: Finding) -> dict[str, Any]:
    return {k: m.estimate.to_json() for k, m in finding.measures.items()}


def _row(backbone: str, subject: Subject, finding: Finding, wanted: Scale, seconds: float) -> dict[str, Any]:
    """One backbone: measured, what its limits leave out, and what the localisation audit says without masks."""
    values = _values(finding)
    say(f"{backbone}: accuracy {values['accuracy']['value']:.3f}, AUROC {values['auroc']['value']:.3f}")
    first = subject.members[0].predictor
    maps = Localisation(images=wanted.images).run(subject)
    return {
        "backbone": backbone,
        "weights": first.card.weights,
        "n_weights": _n_weights(subject),
        "measures": values,
        "abstained": _abstained(subject),
        "maps": {k: maps.measures[k].estimate.to_json() for k in MAPS if k in maps.measures},
        "layer": maps.notes[0],
        "warnings": warnings_in(maps.notes),
        "seconds": seconds,
    }


def _n_weights(subject: Subject) -> int:
    """Of one member's network."""
    first = subject.members[0].predictor
    assert isinstance(first, Classifier)
    return sum(p.numel() for p in first.parameters())


MAPS = ("insertion-over-random", "deletion-over-random", "random-weights", "under-noise", "empty")


def _abstained(subject: Subject) -> dict[str, Any]:
    """Mean over seeds, with intervals: the share of test images that are marked, and the balanced accuracy of the
    others and of the marked.
    """
    cohort, rows = subject.cohort, subject.rows
    labels = cohort.labels[rows]
    made: dict[str, list[Statistic]] = {"share": [], "answered": [], "marked": []}
    for member in subject.members:
        classifier, p = member.predictor, member.probabilities
        assert isinstance(classifier, Classifier)
        features, distance = features_of(classifier, cohort, rows), None
        if features is not None and classifier.typical is not None:
            distance = distances(features, classifier.typical).numpy()
        marked = np.array([bool(a) for a in abstentions(margins(p, classifier.card), distance, classifier.card)])
        right = decide(p.astype(np.float64), task=cohort.task, threshold=threshold_of(member)) == labels
        made["share"].append(weighted_mean(marked))
        made["answered"].append(_balanced(right, labels, ~marked))
        made["marked"].append(_balanced(right, labels, marked))
    return {key: subject.interval(statistics).to_json() for key, statistics in made.items()}


def _balanced(right: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> Statistic:
    """The balanced accuracy of those that are asked; nan where a class has none."""
    of_class = [np.where(asked & (labels == k), right, np.nan) for k in (0, 1)]
    each = weighted_mean(np.stack(of_class, axis=1))
    return lambda weights: row_mean(each(weights))
