"""What do its features hold? Neighbours and a linear layer say how much of the class, and of everything else."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from trueread.audit.base import Audit, Better, Figure, Finding, Measure, Needs, Subject, audit
from trueread.audit.subject import Member
from trueread.cohort.showing import label_names
from trueread.errors import NotMeasured
from trueread.model.classifier import require_gradients
from trueread.progress import track
from trueread.stats import Statistic, on_rows, statistic
from trueread.stats.embedding import effective_rank, nearest_probabilities, spread_of_dimensions
from trueread.training.limits import features_of

NEIGHBOURS = 20
CATEGORIES = 12  # values of an attribute, at most
FEWEST = 10  # images of a value, in training and in test
SHOWN = 600  # points of a map


@audit("embedding", source="Wu et al. 2018, CVPR (neighbours); Roy and Vetterli 2007 (rank); controls")
class Embedding(Audit):
    """How much of the class, and of each attribute, a classifier's features hold, and a map of them."""

    question = "What do its features hold?"
    needs: ClassVar[set[Needs]] = set()
    better = Better.HIGHER
    on_request = True

    def __init__(self, *, images: Annotated[int, Field(ge=50)] = 2000) -> None:
        """images: at most so many of training, and as many of the test."""
        self.images = images

    def run(self, subject: Subject) -> Finding:
        cohort = subject.cohort
        if cohort.task == "multilabel":
            raise NotMeasured("it is asked of images with one class each.")
        generator = np.random.default_rng(subject.seed)
        train = np.sort(generator.permutation(cohort.rows("train"))[: self.images])
        at = np.sort(generator.permutation(len(subject.rows))[: self.images])
        if len(train) < FEWEST:
            raise NotMeasured("there are no training images whose features could be neighbours.")
        members = track(subject.members, what=f"embedding by {subject.name}", unit="classifiers")
        features = [_features(m, subject, train, subject.rows[at]) for m in members]
        targets = cohort.labels
        measures = {
            "nearest": _measure(
                subject, features, targets, train, at, "Balanced accuracy of neighbours",
                f"by the votes of the {NEIGHBOURS} training images with the nearest features",
            ),
            "linear": _linear(subject, features, train, at),
        }  # fmt: skip
        told = _attributes(subject, features, train, at)
        finding = self.finding(
            measures=measures,
            tables={"What features tell": told, "Directions": _directions(features)},
            figures=_maps(subject, features[0], at, told),
            notes=[
                f"Features of {len(train)} training and {len(at)} test images: what the last layer takes in. An "
                "attribute that neighbours tell far better than chance is in the features, used for decisions or not."
            ],
        )
        return finding


Pair = tuple[NDArray[np.float64], NDArray[np.float64]]  # features of training and of test images


def _features(member: Member, subject: Subject, train: NDArray, test: NDArray) -> Pair:
    classifier = require_gradients(member.predictor)
    found = [features_of(classifier, subject.cohort, rows) for rows in (train, test)]
    if found[0] is None or found[1] is None:
        raise NotMeasured("the features of this network are not known: it does not end in a linear layer.")
    return found[0].numpy().astype(np.float64), found[1].numpy().astype(np.float64)


def _balanced(p: NDArray, labels: NDArray, at: NDArray) -> Statistic:
    """Balanced accuracy of the largest of votes float [n,K], as a function of the weights of all test images."""
    return on_rows(statistic("balanced-accuracy", p, labels, task="multiclass"), at)


def _measure(
    subject: Subject, features: list[Pair], targets: NDArray, train: NDArray, at: NDArray, title: str, said: str
) -> Measure:
    """How well neighbours tell the targets int64 [N]."""
    k = int(targets.max()) + 1
    each = [
        _balanced(
            nearest_probabilities(bank, targets[train], asked, n_classes=k, k=NEIGHBOURS),
            targets[subject.rows[at]], at,
        )
        for bank, asked in features
    ]  # fmt: skip
    return Measure(title, subject.interval(each), Better.HIGHER, said, each)


def _linear(subject: Subject, features: list[Pair], train: NDArray, at: NDArray) -> Measure:
    """A logistic regression on standardised features."""
    from sklearn.linear_model import LogisticRegression

    labels, k, each = subject.cohort.labels, subject.cohort.n_classes, []
    for bank, asked in features:
        centre, scale = bank.mean(axis=0), np.maximum(bank.std(axis=0), 1e-6)
        made = LogisticRegression(C=0.1, max_iter=500).fit((bank - centre) / scale, labels[train])
        p = np.zeros((len(asked), k))
        p[:, made.classes_] = made.predict_proba((asked - centre) / scale)
        each.append(_balanced(p, labels[subject.rows[at]], at))
    said = "of a logistic regression on the features, fitted on training images"
    return Measure("Balanced accuracy of a linear layer", subject.interval(each), Better.HIGHER, said, each)


def _attributes(subject: Subject, features: list[Pair], train: NDArray, at: NDArray) -> pd.DataFrame:
    """The class and each attribute with some values: how well neighbours tell it, beside chance."""
    cohort, rows = subject.cohort, subject.rows[at]
    table: list[dict[str, Any]] = []
    told = {"the class": cohort.labels} | {name: _codes(cohort.table[name]) for name in cohort.attributes}
    for name, codes in told.items():
        if codes is None:
            continue
        counts = [np.bincount(codes[r][codes[r] >= 0], minlength=codes.max() + 1) for r in (train, rows)]
        values = np.flatnonzero((counts[0] >= FEWEST) & (counts[1] >= FEWEST))
        if len(values) < 2:
            continue
        new = np.full(codes.max() + 2, -1)
        new[values] = np.arange(len(values))
        of_train, of_test = new[codes[train]], new[codes[rows]]
        each = [
            _balanced(
                nearest_probabilities(
                    bank[of_train >= 0], of_train[of_train >= 0], asked[of_test >= 0], n_classes=len(values),
                    k=NEIGHBOURS,
                ),
                of_test[of_test >= 0], at[of_test >= 0],
            )
            for bank, asked in features
        ]  # fmt: skip
        estimate = subject.interval(each)
        table.append({"told": name, "values": len(values), "by neighbours": estimate, "by chance": 1 / len(values)})
    return pd.DataFrame(table)


def _codes(values: pd.Series) -> NDArray[np.int64] | None:
    """A code for each value, -1 where it is missing; None when there are too many, or only one."""
    codes, names = pd.factorize(values)
    return codes.astype(np.int64) if 2 <= len(names) <= CATEGORIES else None


def _directions(features: list[Pair]) -> pd.DataFrame:
    rank, spread = (np.mean([f(bank) for bank, _ in features]) for f in (effective_rank, spread_of_dimensions))
    n = features[0][0].shape[1]
    return pd.DataFrame([{"dimensions": n, "effective rank": rank, "spread of a dimension": spread}])


def _maps(subject: Subject, features: Pair, at: NDArray, told: pd.DataFrame) -> list[Figure]:
    """The first two principal directions of the test images' features, coloured by class, and by the two attributes
    that neighbours tell best, over chance. told: as `_attributes` makes it.
    """
    from sklearn.decomposition import PCA

    cohort, drawn = subject.cohort, np.arange(len(at))[:: max(1, -(-len(at) // SHOWN))]
    rows = subject.rows[at[drawn]]
    found = PCA(n_components=2, random_state=0).fit(features[0])
    places = found.transform(features[1][drawn]).round(3)
    share = found.explained_variance_ratio_
    labels = [f"direction {i + 1} ({share[i]:.0%} of the variance)" for i in range(2)]
    groups = {"class": label_names(cohort, rows)}
    over_chance = {r["told"]: r["by neighbours"].value - r["by chance"] for r in told.to_dict("records")}
    drawable = [name for name in cohort.attributes if name in over_chance]
    for name in sorted(drawable, key=over_chance.__getitem__, reverse=True)[:2]:
        groups[name] = [str(v) for v in cohort.table[name].iloc[rows]]
    return [
        Figure(
            f"embedding-{i}", f"Features of test images by {name}", "scatter",
            pd.DataFrame({"x": places[:, 0], "y": places[:, 1], name: values}), x="x", y="y", group=name,
            x_label=labels[0], y_label=labels[1],
            caption=f"{len(rows)} test images, first seed; principal directions of the training images' features.",
        )
        for i, (name, values) in enumerate(groups.items())
    ]  # fmt: skip
