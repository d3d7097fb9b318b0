"""What a planted cue does to a classifier: its answers on the same test images in the four arrangements of the cue."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trueread.audit.cues import means, probabilities_with
from trueread.audit.finding import Better, Figure, Measure
from trueread.audit.performance import threshold_of
from trueread.audit.subject import Subject
from trueread.shift.planting import ARRANGEMENTS, Planting
from trueread.stats import METRICS, Statistic, decide, statistic, total_variation, weighted_mean
from trueread.stats.bootstrap import Weights

GAP = "biased - flipped"


class PlantedCue:
    """The test images with and without the planted cue, and what follows for each arrangement of it.

    subject: whose test images are clean. The four arrangements need no passes of their own: each image of them is one
    of its pair.
    """

    def __init__(self, subject: Subject, what: Planting) -> None:
        self.subject, self.what = subject, what
        self.task, self.labels = subject.cohort.task, subject.labels
        self.metrics = ("auroc", "balanced-accuracy") if self.task == "binary" else ("balanced-accuracy",)
        self.all = np.arange(len(subject.rows))
        self.without = [m.probabilities.astype(np.float64) for m in subject.members]
        self.with_cue = probabilities_with(what.shift, subject, self.all)
        self.carries = {a: what.carries(subject.cohort, a)[subject.rows] for a in ARRANGEMENTS}  # type: ignore[arg-type]
        self.found = {(name, a): self._measure(name, a) for name in self.metrics for a in (*ARRANGEMENTS, GAP)}
        balanced = zip(subject.members, self.probabilities("balanced"), strict=True)
        self.decided = [decide(p, task=self.task, threshold=threshold_of(m)) for m, p in balanced]
        self.groups = groups(self.labels, self.carries["balanced"])
        inside = np.stack(list(self.groups.values()), axis=1)
        self.right = [np.where(inside, (d == self.labels)[:, None], np.nan) for d in self.decided]

    def probabilities(self, arrangement: str) -> list[NDArray[np.float64]]:
        """Of each member, [n,K] in an arrangement."""
        carries = self.carries[arrangement][:, None]
        return [np.where(carries, a, b) for a, b in zip(self.with_cue, self.without, strict=True)]

    def measures(self) -> dict[str, Measure]:
        """Reliance on the cue first; then each arrangement, and what the cue does to decisions on the balanced one."""
        made = {"planted": self._reliance()}
        main = self.metrics[0]
        for a in ARRANGEMENTS:
            made[f"{main}-{a}"] = self.found[main, a]
        made[f"{main}-gap"] = self.found[main, GAP]
        if self.task == "binary":
            made |= {"delta-tpr": self._rate_gap(1, "delta-TPR"), "delta-fpr": self._rate_gap(0, "delta-FPR")}
        worst = [lowest(r) for r in self.right]
        sizes = [int(inside.sum()) for inside in self.groups.values()]
        made["worst-group"] = Measure(
            "Worst group's accuracy", self.subject.interval(worst), Better.HIGHER,
            f"the lowest of the {len(sizes)} groups of class and cue of the balanced arrangement ({min(sizes)} to "
            f"{max(sizes)} images each), found anew in every resample", worst,
        )  # fmt: skip
        return made

    def tables(self) -> dict[str, pd.DataFrame]:
        """The arrangements, and the groups of the balanced one with their sizes."""
        rows: list[dict[str, Any]] = []
        for a in (*ARRANGEMENTS, GAP):
            carried = int(self.carries[a].sum()) if a in self.carries else None
            values = {METRICS[name].title: self.found[name, a].estimate for name in self.metrics}
            rows.append({"arrangement": a, "images with the cue": carried, **values})
        found = means(self.subject, np.stack(self.right), self.all)
        return {
            "Arrangements of the planted cue": pd.DataFrame(rows, dtype=object),
            "Groups of the balanced arrangement": pd.DataFrame(
                {
                    "class": [self.subject.cohort.classes[k] for k, _ in self.groups],
                    "cue": ["with" if cue else "without" for _, cue in self.groups],
                    "images": [e.n for e in found],
                    "patients": [e.n_clusters for e in found],
                    "accuracy": found,
                }
            ),
        }

    def figure(self) -> Figure:
        """The main metric in every arrangement."""
        main = self.metrics[0]
        found = [self.found[main, a].estimate for a in ARRANGEMENTS]
        data = pd.DataFrame(
            {
                "arrangement": list(ARRANGEMENTS),
                "value": [e.value for e in found],
                "low": [e.low for e in found],
                "high": [e.high for e in found],
            }
        )
        title = METRICS[main].title
        return Figure(
            "arrangements", f"{title} by arrangement of the cue", "interval", data, x="arrangement", y="value",
            low="low", high="high", y_label=title,
            caption="The same test images; only which of them carry the planted cue differs.",
        )  # fmt: skip

    def _measure(self, name: str, arrangement: str) -> Measure:
        """A metric in an arrangement, or its fall from biased to flipped."""
        title = f"{METRICS[name].title}, {arrangement}"
        if arrangement == GAP:
            pairs = zip(self._statistics(name, "biased"), self._statistics(name, "flipped"), strict=True)
            falls = [minus(biased, flipped) for biased, flipped in pairs]
            definition = "the same test images, with the cue as in training and turned round"
            return Measure(title, self.subject.interval(falls), Better.LOWER, definition, falls)
        statistics = self._statistics(name, arrangement)
        definition = f"where {int(self.carries[arrangement].sum())} of {len(self.all)} test images carry the cue"
        scores = np.stack([p[:, 1] for p in self.probabilities(arrangement)]) if name == "auroc" else None
        return Measure(title, self.subject.interval(statistics), Better.HIGHER, definition, statistics, scores)

    def _statistics(self, name: str, arrangement: str) -> list[Statistic]:
        members = zip(self.subject.members, self.probabilities(arrangement), strict=True)
        return [
            statistic(name, p, self.labels, task=self.task, threshold=m.threshold if METRICS[name].decides else None)
            for m, p in members
        ]

    def _reliance(self) -> Measure:
        pairs = zip(self.with_cue, self.without, strict=True)
        statistics = [weighted_mean(total_variation(a, b, task=self.task)) for a, b in pairs]
        return Measure(
            "Reliance on the planted cue", self.subject.interval(statistics), Better.LOWER,
            f"mean total variation between the probabilities with and without '{self.what.shift.name}' at severity "
            f"{self.what.shift.severity:g}", statistics,
        )  # fmt: skip

    def _rate_gap(self, label: int, title: str) -> Measure:
        cue, mine = self.carries["balanced"], self.labels == label
        with_and_without = np.stack([mine & cue, mine & ~cue], axis=1)
        statistics = [distance(np.where(with_and_without, d[:, None] == 1, np.nan)) for d in self.decided]
        of, called = self.subject.cohort.classes[label], self.subject.cohort.classes[1]
        return Measure(
            title, self.subject.interval(statistics, correct_bias=True), Better.LOWER,
            f"|share called '{called}' with the cue - without| among '{of}' of the balanced arrangement, at the "
            "classifier's threshold; less the bias of few images", statistics,
        )  # fmt: skip


def groups(labels: NDArray, cue: NDArray[np.bool_]) -> dict[tuple[int, bool], NDArray[np.bool_]]:
    """Class and whether the cue is there -> bool [n], for those that have an image."""
    every = {(int(k), c): (labels == k) & (cue == c) for k in np.unique(labels) for c in (False, True)}
    return {group: inside for group, inside in every.items() if inside.any()}


def minus(a: Statistic, b: Statistic) -> Statistic:
    """The difference of two statistics, on the same draws."""
    return lambda weights: a(weights) - b(weights)


def distance(values: NDArray) -> Statistic:
    """|mean of the first column - mean of the second| as a statistic; values [n,2], nan where a row is not in it."""
    of_both = weighted_mean(values)

    def statistic(weights: Weights) -> NDArray[np.float64]:
        both = of_both(weights)
        return np.abs(both[:, 0] - both[:, 1])

    return statistic


def lowest(values: NDArray) -> Statistic:
    """The lowest of the means of the columns of [n,G]; a group that a resample lacks does not count in it."""
    of_each = weighted_mean(values)
    return lambda weights: np.fmin.reduce(of_each(weights), axis=1)
