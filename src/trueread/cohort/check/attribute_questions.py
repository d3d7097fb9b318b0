"""The three questions about one attribute: does it tell the label, do the images tell it, does the label carry over?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trueread.cohort.check.columns import MISSING, Attribute
from trueread.cohort.check.probe import discriminant, patient_folds, told_out_of_fold, told_together
from trueread.cohort.check.targets import Target, classes_of, targets_of
from trueread.cohort.cohort import Cohort
from trueread.stats import Estimate
from trueread.stats.association import above, cramers_v, linked_together, mean_over_cells

MOST_READ = 12  # the commonest values are looked for in the images, and held out in turn
READ_PATIENTS = 10  # with a value, inside a class: fewer are not looked for
HELD_OUT_PATIENTS = 20  # with a value: fewer are not held out
LOSS_PATIENTS = 10  # of a class, with the value and without it: fewer are not judged
DRAWS = 3  # of patients for the probe that knows a value


def tells(
    attribute: Attribute, targets: Sequence[Target], cohort: Cohort, *, permutations: int, seed: Sequence[int]
) -> dict[str, Any]:
    """The label that the attribute alone tells best: `label`, `other`, `auroc` with `low` and `high`; `tells p` of a
    link with any label, and `cramers v` with all classes (multilabel: with that label).

    The AUROC is that of a linear probe of the attribute's values on patients it has not seen: with many values, the
    shares of the label in each of them would tell even a random label on the patients they were counted in.
    """
    clusters = cohort.patient_codes()
    matrix = np.full((len(cohort), len(targets)), np.nan)
    for k, target in enumerate(targets):
        matrix[target.rows, k] = target.values
    matrix = np.where(np.isnan(matrix), np.nanmean(matrix, axis=0), matrix)  # an unknown label pulls nowhere
    p = linked_together(attribute.features, matrix, clusters, permutations=permutations, seed=seed)
    each = [told_together(attribute.features[t.rows], t.values, clusters[t.rows], seed=seed) for t in targets]
    best = int(np.argmax([e.value if np.isnan(e.low) else e.low for e in each]))
    target, estimate = targets[best], each[best]
    labels = target.values if cohort.task == "multilabel" else cohort.labels[target.rows]
    votes = 1 / np.bincount(clusters)[clusters]  # a patient counts once in the table
    counts = pd.crosstab(attribute.values[target.rows], labels, values=votes[target.rows], aggfunc="sum").fillna(0)
    return {
        "label": target.label,
        "other": target.other,
        "auroc": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "tells p": p,
        "cramers v": cramers_v(counts.to_numpy()),
    }


def is_read(
    attribute: Attribute, features: NDArray, cohort: Cohort, *, permutations: int, seed: Sequence[int]
) -> dict[str, Any]:
    """How well a linear probe reads the attribute from the images inside each class: `read` (balanced accuracy, mean
    over classes) with its interval, `chance`, `read p`; nan when no class has two values with enough patients.

    Inside the classes, because across them it could read the label and guess the attribute from that. The p-value is of
    the link between the numbers and the values, with patients exchanged: the fits share patients, so that the spread of
    right answers over patients understates the luck in balanced accuracy (by a quarter in our simulations).
    Also `clearest`: for two values the images of one class that the probe is surest of.
    """
    clusters = cohort.patient_codes()
    right, cells, rows_of, chances = [], [], [], []
    clearest: list[tuple[str, NDArray[np.int64]]] = []
    classes = classes_of(cohort)
    for c in np.argsort(-np.bincount(classes), kind="stable"):
        inside = np.flatnonzero(classes == c)
        names = _common(attribute.values[inside], clusters[inside], READ_PATIENTS)
        if len(names) < 2:
            continue
        rows = inside[np.isin(attribute.values[inside], names)]
        codes = pd.Index(names).get_indexer(pd.Index(attribute.values[rows]))
        told = told_out_of_fold(features[rows], codes, clusters[rows], seed=seed)
        right.append(told.argmax(axis=1) == codes)
        cells.append(int(c) * MOST_READ + codes)
        rows_of.append(rows)
        chances.append(np.full(len(names), 1 / len(names)))
        for k, name in enumerate(names[:2] if not clearest else []):
            mine = np.flatnonzero(codes == k)
            clearest.append((name, rows[mine[np.argsort(-told[mine, k], kind="stable")]]))
    if not right:
        return {"read": np.nan, "read low": np.nan, "read high": np.nan, "chance": np.nan, "read p": np.nan,
                "clearest": []}  # fmt: skip
    chance = float(np.concatenate(chances).mean())  # cells count alike, as in the mean over cells
    rows = np.concatenate(rows_of)
    one_of = pd.get_dummies(pd.Series(attribute.values[rows])).to_numpy(np.float64)
    p = linked_together(
        features[rows], one_of, clusters[rows], within=classes[rows], permutations=permutations, seed=seed
    )
    estimate = mean_over_cells(np.concatenate(right).astype(float), np.concatenate(cells), clusters[rows])
    return {
        "read": estimate.value,
        "read low": estimate.low,
        "read high": estimate.high,
        "chance": chance,
        "read p": p,
        "clearest": clearest,
    }


def carries_over(attribute: Attribute, features: NDArray, cohort: Cohort, *, seed: Sequence[int]) -> dict[str, Any]:
    """What a linear probe for the label loses on a value that it has not seen: `loss` at the `held out` value that
    costs most, with its interval and `loss p` (corrected for the values); nan when no value can be held out.

    Each value in turn: a probe that learns from all other patients against one that learns from as many patients of
    all values, both judged by balanced accuracy on the same images of patients that neither has seen.
    """
    values = _common(attribute.values, cohort.patient_codes(), HELD_OUT_PATIENTS)
    losses = {name: _loss_at(attribute.values == name, features, cohort, seed=seed) for name in values}
    found = [(name, *loss) for name, loss in losses.items() if loss is not None]
    if not found:
        return {"held out": "", "loss": np.nan, "loss low": np.nan, "loss high": np.nan, "loss p": np.nan}
    name, worst, p = max(found, key=lambda one: one[1].value)
    p = min(p * len(found), 1.0)
    return {"held out": name, "loss": worst.value, "loss low": worst.low, "loss high": worst.high, "loss p": p}


def _loss_at(
    member: NDArray, features: NDArray, cohort: Cohort, *, seed: Sequence[int]
) -> tuple[Estimate, float] | None:
    """The loss of balanced accuracy at the images of `member`, bool [N], and its p-value; None without two classes that
    have enough patients both there and elsewhere.
    """
    clusters = cohort.patient_codes()
    lost, cells, patients = [], [], []
    fewest = len(cohort)
    for k, (rows, codes) in enumerate(_problems(cohort)):
        n_patients = {
            int(c): min(
                len(np.unique(clusters[rows[(codes == c) & (member[rows] == there)]])) for there in (True, False)
            )
            for c in np.unique(codes)
        }
        shared = [c for c, n in n_patients.items() if n >= LOSS_PATIENTS]
        if len(shared) < 2:
            continue
        kept = np.isin(codes, shared)
        rows, codes = rows[kept], codes[kept]
        here = member[rows]
        lost.append(_lost(features[rows], codes, here, clusters[rows], seed=seed))
        cells.append(k * cohort.n_classes + codes[here])
        patients.append(clusters[rows[here]])
        fewest = min(fewest, *(n_patients[c] for c in shared))
    if not lost:
        return None
    estimate = mean_over_cells(np.concatenate(lost), np.concatenate(cells), np.concatenate(patients))
    return estimate, above(estimate, 0.0, freedom=fewest - 1)


def _lost(features: NDArray, codes: NDArray, here: NDArray, clusters: NDArray, *, seed: Sequence[int]) -> NDArray:
    """float [m] of the m rows that are `here`: 1 where only the probe that knows the value is right, -1 where only the
    other is. The probe that knows it is fitted to several draws of as many patients, and counts by its mean.
    """
    n_values = int(codes.max()) + 1
    seen, asked, truth = features[~here], features[here], codes[here]
    stranger = discriminant(seen, codes[~here], asked, n_values=n_values).argmax(axis=1) == truth
    n_patients = len(np.unique(clusters[~here]))
    rng = np.random.default_rng(seed)
    knowing = np.zeros(len(truth))
    for draw in range(DRAWS):
        folds = patient_folds(clusters[here], seed=[*seed, draw])
        for fold in np.unique(folds):
            test = folds == fold
            others = np.setdiff1d(clusters, clusters[here][test])
            seen = np.isin(clusters, rng.choice(others, min(n_patients, len(others)), replace=False))
            told = discriminant(features[seen], codes[seen], asked[test], n_values=n_values).argmax(axis=1)
            knowing[test] += (told == truth[test]) / DRAWS
    return knowing - stranger


def _problems(cohort: Cohort) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(rows, codes): what a probe for the label has to tell; for multilabel one problem a label, where it is known."""
    if cohort.task != "multilabel":
        return [(np.arange(len(cohort)), cohort.labels)]
    return [(t.rows, t.values.astype(np.int64)) for t in targets_of(cohort)]


def _common(values: NDArray, clusters: NDArray, minimum: int) -> list[str]:
    """The values, not missing, that at least `minimum` patients have; no more than `MOST_READ`, commonest first."""
    patients = pd.DataFrame({"value": values, "patient": clusters}).drop_duplicates()["value"].value_counts()
    return [str(v) for v, n in patients.items() if n >= minimum and v != MISSING][:MOST_READ]
