"""Does it hold when images are noisy, blurred, compressed or otherwise exposed? The corruptions of MedMNIST-C."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from trueread.audit.base import Audit, Better, Figure, Finding, Measure, Subject, audit
from trueread.audit.changed import probabilities_with, some_patients
from trueread.audit.cue_strips import Column, drawn_at_random, strips_of, without_cue
from trueread.audit.performance import threshold_of
from trueread.audit.strip import Strip
from trueread.errors import InputError, NotMeasured
from trueread.progress import track
from trueread.shift.corruption import (
    LEVELS,
    Corruption,
    Scores,
    corruption,
    corruption_scores,
    corruptions_for,
    family_of,
)
from trueread.shift.corruption.lists import facts
from trueread.stats import METRICS, Estimate, Statistic, average, on_rows, statistic
from trueread.stats.bootstrap import Values, Weights, point_values

SHOWN_WORST, SHOWN_IMAGES = 5, 2  # in the strip of pictures
PUBLISHED_SIDE = 224


@dataclass(frozen=True, eq=False)
class Corrupted:
    """What a corruption at its five levels does.

    answers: by level, of each member the probabilities [m,K] of the images that were corrupted.
    """

    name: str
    levels: Sequence[Corruption]
    answers: Sequence[Sequence[NDArray[np.float64]]]

    @property
    def family(self) -> str:
        return family_of(self.name)


@audit("corruption", source="Di Salvo, Doerrich and Ledig 2024, MedMNIST-C, arXiv 2406.17536")
class CorruptionAudit(Audit):
    """Balanced accuracy under the corruptions that happen to images of this modality, at five levels each."""

    question = "Does it hold when images are noisy, blurred, compressed or otherwise exposed?"
    better = Better.LOWER

    def __init__(self, *, corruptions: str | None = None, images: Annotated[int, Field(ge=20)] = 100) -> None:
        """corruptions: whose list, as a modality, a MedMNIST cohort or a set of MedMNIST-C ("derma"); by default that
        of the cohort's modality. images: of at most so many test images; of volumes a quarter, but 20.
        """
        self.corruptions, self.images = corruptions, images

    def run(self, subject: Subject) -> Finding:
        benchmark = medmnist_name(subject)
        where = self.corruptions or benchmark or subject.cohort.modality
        names = self._names(where)
        fewer = subject.cohort.is_volume  # each costs a 3-D network as much as many images
        positions = some_patients(subject, max(20, self.images // 4) if fewer else self.images)
        found, skipped = corrupted(subject, where, names, positions)
        if not found:
            raise NotMeasured(" ".join(["no corruption fits these images.", *skipped]))
        measures = Measures(subject, positions, found)
        scored = measures.scores(benchmark) if where == benchmark else None
        return self.finding(
            measures=measures.all(),
            tables={
                "Per corruption, balanced accuracy": per_corruption(measures, found, scored),
                "Per family, balanced accuracy": per_family(measures, found),
            },
            figures=[families_figure(measures, found), levels_figure(measures, found)],
            strips=strips(subject, measures, found, positions),
            notes=[
                f"{len(found)} corruptions of the list for '{where}' at five levels each, on {len(positions)} of "
                f"{len(subject.rows)} test images, whole patients drawn within classes; lengths are scaled from the "
                f"{PUBLISHED_SIDE} pixels for which the levels were published.",
                *([] if scored is None else [_reference_note(scored, min(subject.cohort.spatial))]),
                *skipped,
            ],
        )

    def _names(self, where: str) -> tuple[str, ...]:
        try:
            return corruptions_for(where)
        except InputError:
            if self.corruptions is not None:
                raise
        raise NotMeasured(
            f"there is no list of corruptions for images of the modality '{where}'; load the cohort with its modality, "
            f"or name a list ({', '.join(facts()['modalities'])})."
        )


def corrupted(
    subject: Subject, where: str, names: Sequence[str], positions: NDArray[np.int64]
) -> tuple[list[Corrupted], list[str]]:
    """What every corruption does to the test images at `positions`, and a sentence for each that does not fit them."""
    cohort, skipped, fitting = subject.cohort, [], []
    for name in names:
        made = [corruption(where, name, level, seed=subject.seed) for level in LEVELS]
        try:
            probabilities_with(made[0], subject, positions[:1])
        except InputError as reason:
            skipped.append(f"'{name}' was left out: {reason}")
        else:
            fitting.append((name, made))
    passes = [(name, c) for name, made in fitting for c in made]
    told = track(passes, what=f"corrupting {cohort.name}", unit="passes")
    answers = [probabilities_with(c, subject, positions) for _, c in told]
    n = len(LEVELS)
    return [Corrupted(name, made, answers[i * n : i * n + n]) for i, (name, made) in enumerate(fitting)], skipped


class Measures:
    """The balanced accuracies, each one statistic per seed."""

    def __init__(self, subject: Subject, positions: NDArray[np.int64], found: Sequence[Corrupted]) -> None:
        self.subject, self.positions, self.found = subject, positions, found
        clean = [m.probabilities[positions].astype(np.float64) for m in subject.members]
        self.clean = self._scored("balanced-accuracy", clean)
        self.clean_auroc = self._scored("auroc", clean)
        self.by_level = {c.name: [self._scored("balanced-accuracy", a) for a in c.answers] for c in found}
        self.by_name = {name: averaged(levels) for name, levels in self.by_level.items()}
        self.corrupted = averaged(list(self.by_name.values()))
        self.corrupted_auroc = averaged([self._scored("auroc", a) for c in found for a in c.answers])

    def of_family(self, family: str) -> list[Statistic]:
        return averaged([self.by_name[c.name] for c in self.found if c.family == family])

    def lost(self, under: Sequence[Statistic]) -> list[Statistic]:
        """Clean less corrupted balanced accuracy, of each seed."""
        return [partial(_difference, a, b) for a, b in zip(self.clean, under, strict=True)]

    def estimate(self, statistics: Sequence[Statistic]) -> Estimate:
        patients = len(np.unique(self.subject.clusters[self.positions]))
        return replace(self.subject.interval(statistics), n=len(self.positions), n_clusters=patients)

    def value(self, statistics: Sequence[Statistic]) -> float:
        """Mean over seeds, without the resamples of an interval."""
        return float(np.mean([point_values(s, len(self.subject.rows)) for s in statistics]))

    def all(self) -> dict[str, Measure]:
        """The headline first, then what it is made of, then each family."""
        mean, before = "mean over the corruptions of the means over their five levels", "before any corruption"
        drop, every = self.lost(self.corrupted), "mean over all corruptions and levels"
        made = {
            "drop": ("Balanced accuracy lost to corruption", drop, f"on clean images less the {mean}"),
            "corrupted": ("Balanced accuracy on corrupted images", self.corrupted, mean),
            "clean": ("Balanced accuracy on the same images, clean", self.clean, before),
            "auroc-corrupted": ("AUROC on corrupted images", self.corrupted_auroc, every),
            "auroc-clean": ("AUROC on the same images, clean", self.clean_auroc, before),
        }
        for family in dict.fromkeys(c.family for c in self.found):
            title = f"Balanced accuracy, corruptions of the family {family}"
            made[f"family-{family}"] = (title, self.of_family(family), f"{mean} of this family")
        return {
            key: Measure(
                title, self.estimate(s), Better.LOWER if key == "drop" else Better.HIGHER, definition, s
            )
            for key, (title, s, definition) in made.items()
        }  # fmt: skip

    def scores(self, benchmark: str | None) -> Scores:
        """The benchmark's own numbers, mean over seeds."""
        errors = {name: [1 - self.value(s) for s in levels] for name, levels in self.by_level.items()}
        return corruption_scores(errors, clean=1 - self.value(self.clean), reference=benchmark)

    def _scored(self, name: str, answers: Sequence[NDArray[np.float64]]) -> list[Statistic]:
        labels, task = self.subject.labels[self.positions], self.subject.cohort.task
        made = []
        for p, member in zip(answers, self.subject.members, strict=True):
            threshold = threshold_of(member) if METRICS[name].decides else None
            made.append(on_rows(statistic(name, p, labels, task=task, threshold=threshold), self.positions))
        return made


def medmnist_name(subject: Subject) -> str | None:
    """The MedMNIST data set that a cohort is, where MedMNIST-C has one of it."""
    kind, _, where = str(subject.cohort.origin.get("source", "")).partition(":")
    name = where.partition("@")[0]
    return name if kind == "medmnist" and name in facts()["alexnet"] else None


def averaged(of_each: Sequence[Sequence[Statistic]]) -> list[Statistic]:
    """The mean of several measures, for each seed: [[S] of M] -> [S]."""
    return [average(statistics) for statistics in zip(*of_each, strict=True)]


def _difference(a: Statistic, b: Statistic, weights: Weights) -> Values:
    return a(weights) - b(weights)


def per_corruption(measures: Measures, found: Sequence[Corrupted], scored: Scores | None) -> pd.DataFrame:
    """Per corruption, the worst first: mean over levels, what is lost, every level, and the benchmark's scores."""
    rows = []
    for c in sorted(found, key=lambda c: measures.value(measures.by_name[c.name])):
        levels = [measures.value(s) for s in measures.by_level[c.name]]
        row = {
            "corruption": c.name,
            "family": c.family,
            "mean": measures.estimate(measures.by_name[c.name]),
            "lost": measures.estimate(measures.lost(measures.by_name[c.name])),
            **{f"level {level}": value for level, value in zip(LEVELS, levels, strict=True)},
        }
        if scored is not None:
            score = scored.by_corruption[c.name]
            row |= {"bE": score.be, "rbE": score.rbe}
        rows.append(row)
    return pd.DataFrame(rows)


def per_family(measures: Measures, found: Sequence[Corrupted]) -> pd.DataFrame:
    """Per family of corruptions: mean over its corruptions, and what is lost."""
    families = list(dict.fromkeys(c.family for c in found))
    of_each = [measures.of_family(family) for family in families]
    return pd.DataFrame(
        {
            "family": families,
            "corruptions": [sum(c.family == family for c in found) for family in families],
            "mean": [measures.estimate(s) for s in of_each],
            "lost": [measures.estimate(measures.lost(s)) for s in of_each],
        }
    )


def families_figure(measures: Measures, found: Sequence[Corrupted]) -> Figure:
    """Balanced accuracy on clean images, under each family, and under all corruptions."""
    families = dict.fromkeys(c.family for c in found)
    told = {"clean": measures.clean, **{f: measures.of_family(f) for f in families}, "all": measures.corrupted}
    rows = [
        {"images": name, "value": e.value, "low": e.low, "high": e.high}
        for name, e in ((name, measures.estimate(s)) for name, s in told.items())
    ]
    return Figure(
        "families", "Balanced accuracy, clean and corrupted", "interval", pd.DataFrame(rows), x="images", y="value",
        low="low", high="high", y_label="balanced accuracy",
        caption="Mean over the corruptions of each family and their five levels; 'all' is that of all corruptions.",
    )  # fmt: skip


def levels_figure(measures: Measures, found: Sequence[Corrupted]) -> Figure:
    """Balanced accuracy against the level, one line per family, from the clean images at level 0."""
    rows = []
    for family in dict.fromkeys(c.family for c in found):
        members = [c for c in found if c.family == family]
        for level in (0, *LEVELS):
            at = [measures.by_level[c.name][level - 1] if level else measures.clean for c in members]
            e = measures.estimate(averaged(at))
            rows.append({"family": family, "level": level, "value": e.value, "low": e.low, "high": e.high})
    return Figure(
        "levels", "Balanced accuracy by level of corruption", "line", pd.DataFrame(rows), x="level", y="value",
        group="family", low="low", high="high", x_label="level of corruption (0: clean)", y_label="balanced accuracy",
        caption="Mean over the corruptions of each family.",
    )  # fmt: skip


def strips(
    subject: Subject, measures: Measures, found: Sequence[Corrupted], positions: NDArray[np.int64]
) -> list[Strip]:
    """Two test images under the corruptions that cost most, at the highest level."""
    worst = sorted(found, key=lambda c: measures.value(measures.by_name[c.name]))[:SHOWN_WORST]
    drawn = drawn_at_random(subject, positions, count=SHOWN_IMAGES)
    at = [int(np.flatnonzero(positions == i)[0]) for i in drawn]
    columns = [Column("as it is", None, without_cue(subject, drawn))]
    columns += [Column(c.name, c.levels[-1], np.mean([p[at] for p in c.answers[-1]], axis=0)) for c in worst]
    title = f"The corruptions that cost most, at level {LEVELS[-1]}"
    return strips_of(subject, drawn, columns, name="corruptions", title=title)


def _reference_note(scored: Scores, side: int) -> str:
    """The benchmark's two numbers, and whether they may be compared with published ones."""
    assert scored.mean.be is not None
    assert scored.mean.rbe is not None
    said = (
        f"MedMNIST-C: bE {scored.mean.be:.2f}, rbE {scored.mean.rbe:.2f} (AlexNet is 1; less is better; mean over "
        "seeds, on the images asked)."
    )
    if side == PUBLISHED_SIDE:
        return said
    return f"{said} AlexNet read {PUBLISHED_SIDE} pixels, these are {side}: not to be compared with published numbers."
