"""Deep feature reweighting: the last layer is refitted on clean images, in which the shortcut does not help."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field

from trueread.method.base import Method, class_counts, method
from trueread.method.clean import PLANTED, clean_rows
from trueread.method.groups import groups_of
from trueread.method.last_layer import features_of, put_last_layer
from trueread.method.probes import logits_of
from trueread.training.batches import ImageStore
from trueread.training.hooks import Setup
from trueread.training.steps import mix

STRENGTHS = (0.01, 0.03, 0.07, 0.1, 0.3, 0.7, 1.0)  # C of the L2 penalty; of equally good ones the first is taken
REFITS = 10


@method("dfr", source="Kirichenko et al. 2023, Last layer re-training is sufficient, ICLR, section 5")
class DFR(Method):
    """Plain training, then the last layer is refitted on bias-free images, balanced over classes and groups."""

    reads_all_labels = True

    replayable = True

    def __init__(
        self, *, clean: str | list[str] = PLANTED, fraction: Annotated[float | None, Field(gt=0, le=1)] = None,
        attribute: str | None = None,
    ) -> None:  # fmt: skip
        """clean, fraction: which training images are bias-free, and how many of them are used; see `clean_rows`.

        attribute: a column whose values, with the classes, make the groups that are balanced; classes only by default.
        """
        self.clean, self.fraction, self.attribute = clean, fraction, attribute
        self.rows = torch.empty(0, dtype=torch.int64)  # of the clean images, in the cohort
        self.groups = torch.empty(0, dtype=torch.int64)  # of each of them
        self.found: dict[str, Any] = {}

    def prepare(self, setup: Setup) -> None:
        """Choose images and groups now: what is wrong with them should not be found out after the training."""
        cohort = setup.cohort
        class_counts(setup.train_labels(), cohort.n_classes)  # refuses a multilabel task
        rows = clean_rows(setup, self.clean, fraction=self.fraction)
        names = list(cohort.classes)
        groups = cohort.labels[rows]
        if self.attribute is not None:
            groups, names = groups_of(cohort, rows, self.attribute)
        sizes = np.bincount(groups, minlength=len(names)).tolist()
        self.rows, self.groups = torch.from_numpy(rows), torch.from_numpy(groups)
        self.found = {"clean_images": len(rows), "group_sizes": dict(zip(names, sizes, strict=True))}

    def finish(self, setup: Setup) -> None:
        from sklearn.preprocessing import StandardScaler  # a second of import that few need

        cohort, classifier, rows, groups = setup.cohort, setup.classifier, self.rows.numpy(), self.groups.numpy()
        features = features_of(classifier, ImageStore(cohort, setup.device), setup.train_rows)
        # by all training images: what the shortcut moves is nearly constant on the clean ones, and would be blown up
        scaler = StandardScaler().fit(features)
        x = scaler.transform(features[np.isin(setup.train_rows, rows)]).astype(np.float64)
        y, seed = cohort.labels[rows], mix(setup.seed, "dfr")
        c, score = chosen_strength(
            x, y, groups, cohort.patient_codes(rows), seed=seed, worst=self.attribute is not None
        )
        weight, bias = balanced_fit(x, y, groups, c=c, seed=seed)
        put_last_layer(classifier, weight, bias, scaler)
        self.found |= {"c": c, "held_out_accuracy": None if score is None else round(score, 4)}

    def report(self) -> dict[str, Any]:
        return self.found

    def state(self) -> dict[str, Any]:
        return {"rows": self.rows, "groups": self.groups, "found": self.found}

    def load_state(self, state: dict[str, Any], setup: Setup) -> None:
        self.rows, self.groups, self.found = state["rows"], state["groups"], state["found"]


def balanced_fit(
    x: NDArray[np.float64], y: NDArray[np.int64], groups: NDArray[np.int64], *, c: float, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight [K,F] and bias [K]: the mean of `REFITS` logistic regressions of the labels y on x float [n,F].

    groups: int64 [n]; each regression has as many samples of every group as the smallest group has, drawn by the seed,
    and classes of unequally many groups weigh the same. Every class must be in y.
    """
    from sklearn.linear_model import LogisticRegression  # a second of import that few need

    generator = np.random.default_rng(seed)
    size = np.unique(groups, return_counts=True)[1].min()
    fits = []
    for _ in range(REFITS):
        each = [generator.choice(np.flatnonzero(groups == g), size, replace=False) for g in np.unique(groups)]
        rows = np.concatenate(each)
        fits.append(LogisticRegression(C=c, class_weight="balanced", max_iter=1000).fit(x[rows], y[rows]))
    return logits_of(np.mean([f.coef_ for f in fits], axis=0), np.mean([f.intercept_ for f in fits], axis=0))


def chosen_strength(
    x: NDArray[np.float64], y: NDArray[np.int64], groups: NDArray[np.int64], patients: NDArray[np.int64],
    *, seed: int, worst: bool,
) -> tuple[float, float | None]:  # fmt: skip
    """The C with the best accuracy on one half of the patients, fitted on the other half, and that accuracy.

    worst: the accuracy is that of the worst group, otherwise the mean over groups. With too few patients for all
    classes to be in both halves it is the strongest penalty, and None.
    """
    held = held_out(groups, patients, seed=seed)
    if any(len(np.unique(y[half])) < len(np.unique(y)) for half in (held, ~held)):
        return STRENGTHS[0], None
    scores = []
    for c in STRENGTHS:
        weight, bias = balanced_fit(x[~held], y[~held], groups[~held], c=c, seed=seed)
        right = (x[held] @ weight.T + bias).argmax(1) == y[held]
        by_group = pd.Series(right).groupby(groups[held]).mean()
        scores.append(float(by_group.min() if worst else by_group.mean()))
    best = int(np.argmax(scores))
    return STRENGTHS[best], scores[best]


def held_out(groups: NDArray[np.int64], patients: NDArray[np.int64], *, seed: int) -> NDArray[np.bool_]:
    """bool [n]: the images of every second patient of each group, in random order; a patient is of its first group."""
    first = pd.DataFrame({"patient": patients, "group": groups}).drop_duplicates("patient")
    first = first.sample(frac=1.0, random_state=np.random.default_rng(seed))
    odd = first.groupby("group").cumcount() % 2 == 1
    return np.isin(patients, first.loc[odd, "patient"])
