"""What marks that have nothing to do with the disease do to a classifier's probabilities, cue by cue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trueread.audit.changed import probabilities_with
from trueread.audit.finding import Better, Figure, Measure
from trueread.audit.performance import threshold_of
from trueread.audit.subject import Subject
from trueread.errors import InputError
from trueread.progress import track
from trueread.shift.base import SHIFTS, Shift
from trueread.stats import (
    Estimate,
    Statistic,
    Task,
    Threshold,
    bootstrap_many,
    decide,
    on_rows,
    total_variation,
    weighted_mean,
)
from trueread.stats.bootstrap import Weights, mean_of_known, point_values
from trueread.training.batches import unit_intensities

KINDS = ("local", "diffuse")  # a mark at a place, or a change of the whole image


@dataclass(frozen=True, eq=False)
class Effect:
    """What a shift, one cue at one severity, does to m images. S: seeds.

    reliance: [S,m] in [0,1], see `total_variation`. flipped: [S,m] in [0,1], see `decisions_changed`.
    change: [S,m,K] in [-1,1], probability with the cue minus without.
    """

    shift: Shift
    kind: str
    reliance: NDArray[np.float64]
    flipped: NDArray[np.float64]
    change: NDArray[np.float64]

    @property
    def cue(self) -> str:
        return self.shift.name

    @property
    def severity(self) -> float:
        return self.shift.severity


def decisions_changed(
    with_cue: NDArray, without: NDArray, *, task: Task, threshold: Threshold = 0.5
) -> NDArray[np.float64]:
    """Whether the decision on an image changed, [m], 0 or 1; multilabel: the share of its labels."""
    before, after = (decide(p, task=task, threshold=threshold) for p in (without, with_cue))
    changed = (before != after).astype(np.float64)
    return changed.mean(axis=1) if task == "multilabel" else changed


def effect_of(shift: Shift, kind: str, subject: Subject, positions: NDArray[np.int64]) -> Effect:
    """What a cue does to the test images at `positions`; one pass, because the subject knows the one without it."""
    task = subject.cohort.task
    without = [m.probabilities[positions].astype(np.float64) for m in subject.members]
    answers = probabilities_with(shift, subject, positions)
    pairs = list(zip(answers, without, strict=True))
    flipped = [
        decisions_changed(*p, task=task, threshold=threshold_of(m)) for p, m in zip(pairs, subject.members, strict=True)
    ]
    return Effect(
        shift, kind, np.stack([total_variation(*p, task=task) for p in pairs]), np.stack(flipped),
        np.stack([a - b for a, b in pairs]),
    )  # fmt: skip


def library_effects(
    subject: Subject, positions: NDArray[np.int64], strengths: Sequence[float]
) -> tuple[list[Effect], list[str]]:
    """Every registered cue at every severity, and a sentence for each cue that does not fit these images."""
    cohort, row = subject.cohort, subject.rows[positions[:1]]
    image, ids = unit_intensities(cohort.images[row], cohort.white), [str(i) for i in cohort.table["id"].iloc[row]]
    passes, skipped = [], []
    for entry in SHIFTS.entries():
        try:
            made = [SHIFTS.build(entry.name, {"severity": s, "seed": subject.seed}) for s in strengths]
            where = made[0].pair(image, ids).where
        except InputError as reason:
            skipped.append(f"'{entry.name}' was left out: {reason}")
            continue
        kind = "diffuse" if where is None else "local"
        passes += [(shift, kind) for shift in made]
    told = track(passes, what="inserting cues", unit="passes")
    return [effect_of(shift, kind, subject, positions) for shift, kind in told], skipped


def means(subject: Subject, values: NDArray, positions: NDArray[np.int64]) -> list[Estimate]:
    """The mean over the images at `positions` of M numbers, values [S,m,M] (nan: this image does not count in this
    seed), averaged over the seeds in which any counts, with intervals clustered by patient. All M from the same draws.
    """
    known = ~np.isnan(values)
    each = [weighted_mean(v) for v in values]
    same = bool((known == known[0]).all())
    over_seeds = weighted_mean(values.mean(axis=0)) if same else _average_of_known(each)
    found = bootstrap_many(
        on_rows(over_seeds, positions), subject.clusters, resamples=subject.resamples, seed=subject.seed
    )
    per_seed = np.stack([point_values(statistic, len(positions)) for statistic in each])
    counted = []
    for j, estimate in enumerate(found):
        at = positions[known[:, :, j].any(axis=0)]
        of_seeds = per_seed[known[:, :, j].any(axis=1), j]
        spread = float(of_seeds.std(ddof=1)) if len(of_seeds) > 1 else None
        patients = len(np.unique(subject.clusters[at]))
        counted.append(replace(estimate, n=len(at), n_clusters=patients, spread=spread, n_seeds=len(values)))
    return counted


def _average_of_known(statistics: Sequence[Statistic]) -> Statistic:
    """The mean of statistics of [R,M], of those that are not nan."""

    return lambda weights: mean_of_known(np.stack([statistic(weights) for statistic in statistics]))


def worst_of(values: NDArray) -> Statistic:
    """The largest of the means of several per-row values [m,C], found anew in every resample."""
    of_each = weighted_mean(values)

    def largest(weights: Weights) -> NDArray[np.float64]:
        return of_each(weights).max(axis=1)

    return largest


def worst_measure(subject: Subject, effects: list[Effect], positions: NDArray[np.int64]) -> Measure:
    """The reliance on the worst of some cues of one kind and severity, each seed's own worst.

    The largest of several is high by selection, and more so in a resample: the estimate is freed of the bias that the
    resamples show (see `mean_over_seeds`), without which the interval lies above the truth where cues are alike.
    """
    first = effects[0]
    values = np.stack([e.reliance for e in effects], axis=2)  # [S,m,C]
    statistics = [on_rows(worst_of(v), positions) for v in values]
    patients = len(np.unique(subject.clusters[positions]))
    estimate = replace(subject.interval(statistics, correct_bias=True), n=len(positions), n_clusters=patients)
    listed = ", ".join(e.cue for e in effects)
    return Measure(
        f"Reliance on the worst {first.kind} cue", estimate, Better.LOWER,
        f"mean total variation between the probabilities with and without the cue at severity {first.severity:g}; the "
        f"largest over {listed}, found anew in every resample, less the bias of that choice", statistics,
    )  # fmt: skip


def per_cue(subject: Subject, effects: list[Effect], positions: NDArray[np.int64]) -> pd.DataFrame:
    """Per cue of one severity: reliance, share of decisions that flip, and the class it pushes towards most."""
    reliance = means(subject, np.stack([e.reliance for e in effects], axis=2), positions)
    flipped = means(subject, np.stack([e.flipped for e in effects], axis=2), positions)
    return pd.DataFrame(
        {
            "cue": [e.cue for e in effects],
            "kind": [e.kind for e in effects],
            "reliance": reliance,
            "decisions that flip": flipped,
            "pushes most towards": [_pushes(e, subject.cohort.classes) for e in effects],
        }
    )


def _pushes(effect: Effect, classes: Sequence[str]) -> str:
    change = effect.change.mean(axis=(0, 1))
    k = int(change.argmax())
    return f"{classes[k]} ({change[k]:+.3f})" if change[k] > 0 else "none"


def per_class(subject: Subject, effects: list[Effect], positions: NDArray[np.int64]) -> pd.DataFrame:
    """Per cue and class: reliance over the images of the class, and how its probability changes over all images."""
    labels = subject.labels[positions]
    k = len(subject.cohort.classes)
    member = labels == 1 if labels.ndim == 2 else labels[:, None] == np.arange(k)
    frames = []
    for effect in effects:
        inside = means(subject, np.where(member, effect.reliance[:, :, None], np.nan), positions)
        frames.append(
            pd.DataFrame(
                {
                    "cue": effect.cue,
                    "class": list(subject.cohort.classes),
                    "images of the class": [e.n for e in inside],
                    "reliance": inside,
                    "change of its probability": means(subject, effect.change, positions),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def curve(subject: Subject, effects: list[Effect], positions: NDArray[np.int64]) -> Figure:
    """Reliance against severity, one line per cue."""
    found = means(subject, np.stack([e.reliance for e in effects], axis=2), positions)
    data = pd.DataFrame(
        {
            "cue": [e.cue for e in effects],
            "severity": [e.severity for e in effects],
            "reliance": [e.value for e in found],
            "low": [e.low for e in found],
            "high": [e.high for e in found],
        }
    )
    return Figure(
        "severity", "Reliance by severity", "line", data, x="severity", y="reliance", group="cue", low="low",
        high="high", x_label="severity of the cue", y_label="reliance",
        caption="How far the probabilities move when the cue is inserted: 0 not at all, 1 from certain to certain.",
    )  # fmt: skip
