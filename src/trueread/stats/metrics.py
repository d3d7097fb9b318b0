"""The metrics by name: what each is called, when it is defined, and how its statistic is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trueread.errors import InputError, unknown
from trueread.stats import calibration, confusion, ranking
from trueread.stats.bootstrap import Statistic, Values, Weights, point_values
from trueread.stats.tasks import TASKS, Task, Threshold, check_probabilities

_ALL = TASKS
_YES_NO = ("binary", "multilabel")


@dataclass(frozen=True)
class Metric:
    """One row of the table of metrics.

    title: for people. higher_is_better: direction. tasks: for which it is defined. definition: one line.
    make: (probabilities, labels, task=...) -> Statistic; with `threshold=...` too when `decides`.
    decides: whether it depends on the decision threshold (binary and multilabel).
    """

    title: str
    higher_is_better: bool
    tasks: tuple[str, ...]
    definition: str
    make: Callable[..., Statistic]
    decides: bool = False


METRICS: dict[str, Metric] = {
    "balanced-accuracy": Metric(
        "Balanced accuracy",
        True,
        _ALL,
        "mean recall over classes; multilabel: mean over labels of (sensitivity + specificity) / 2",
        confusion.balanced_accuracy,
        decides=True,
    ),
    "auroc": Metric(
        "AUROC",
        True,
        _ALL,
        "chance that a positive scores higher than a negative, ties one half; macro one-vs-rest or over labels",
        ranking.auroc,
    ),
    "auprc": Metric(
        "AUPRC",
        True,
        _ALL,
        "average precision: sum of precision times gain in recall; macro one-vs-rest or over labels",
        ranking.average_precision,
    ),
    "macro-f1": Metric(
        "Macro F1",
        True,
        _ALL,
        "mean over classes or labels of 2 TP / (2 TP + FP + FN)",
        confusion.macro_f1,
        decides=True,
    ),
    "weighted-f1": Metric(
        "Weighted F1",
        True,
        _ALL,
        "mean over classes or labels of 2 TP / (2 TP + FP + FN), each as often as it is true",
        confusion.weighted_f1,
        decides=True,
    ),
    "f1": Metric(
        "F1",
        True,
        ("binary",),
        "2 TP / (2 TP + FP + FN) of the second class",
        confusion.f1,
        decides=True,
    ),
    "accuracy": Metric(
        "Accuracy",
        True,
        _ALL,
        "share of decisions that are right; multilabel: mean over labels",
        confusion.accuracy,
        decides=True,
    ),
    "sensitivity": Metric(
        "Sensitivity",
        True,
        _YES_NO,
        "share of positives that are called positive; multilabel: mean over labels",
        confusion.sensitivity,
        decides=True,
    ),
    "specificity": Metric(
        "Specificity",
        True,
        _YES_NO,
        "share of negatives that are called negative; multilabel: mean over labels",
        confusion.specificity,
        decides=True,
    ),
    "sensitivity-at-90-specificity": Metric(
        "Sensitivity at 90 % specificity",
        True,
        _YES_NO,
        "largest sensitivity on the sample's own ROC curve where the specificity is at least 0.9",
        ranking.sensitivity_at_specificity,
    ),
    "quadratic-kappa": Metric(
        "Quadratic weighted kappa",
        True,
        ("ordinal",),
        "agreement beyond chance, disagreement counted by the squared distance in classes",
        confusion.quadratic_kappa,
    ),
    "brier": Metric(
        "Brier score",
        False,
        _ALL,
        "mean squared error of p(class 1); multiclass: summed over classes; multilabel: mean over labels",
        calibration.brier,
    ),
    "brier-skill": Metric(
        "Brier skill",
        True,
        _ALL,
        "1 - Brier score / Brier score of always stating the test prevalence; 0: no better than that; 1: perfect",
        calibration.brier_skill,
    ),
    "ece": Metric(
        "Expected calibration error",
        False,
        _ALL,
        "mean |probability - share true| over 15 equal-width bins; binary: of class 1; multiclass: of the top label",
        calibration.ece,
    ),
}


def statistic(
    name: str, probabilities: Any, labels: Any, *, task: Task, threshold: Threshold | None = None
) -> Statistic:
    """The metric called `name` on these predictions, as a function of row weights.

    name: a key of METRICS. probabilities, labels, task: see `check_probabilities`.
    threshold: of the decision in a binary or multilabel task, in [0, 1]; None is 0.5. Tasks that decide by the largest
        probability, and metrics that do not decide, do not use it.
    Returns weights [R,n] -> [R]. Sorting and one-hot coding happen here, once.
    Raises InputError for an unknown name, a task the metric is not defined for, or predictions that cannot be right.
    """
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    metric = METRICS[name]
    probabilities, labels = check_probabilities(probabilities, labels, task)
    if task not in metric.tasks:
        raise InputError(
            f"'{name}' is not defined for a {task} task, only for {' and '.join(metric.tasks)}; "
            f"use one of {', '.join(n for n, m in METRICS.items() if task in m.tasks)}."
        )
    given = np.atleast_1d(0.5 if threshold is None else np.asarray(threshold, dtype=np.float64))
    if (
        len(given) not in (1, probabilities.shape[1] if task == "multilabel" else 1)
        or not ((given >= 0) & (given <= 1)).all()
    ):
        raise InputError(
            f"the threshold must be in 0..1 (multilabel: one, or one per label); found {threshold}; it is compared "
            "with probabilities."
        )
    decision = {"threshold": 0.5 if threshold is None else threshold} if metric.decides else {}
    made = metric.make(probabilities, labels, task=task, **decision)
    n = len(probabilities)

    def checked(weights: Weights) -> Values:
        if weights.shape[1] != n:  # a ranking would silently leave out the rows it does not know
            raise InputError(
                f"'{name}' was built on {n} predictions and is weighted over {weights.shape[1]} rows; "
                "take the clusters from the same split as the predictions."
            )
        return made(weights)

    return checked


def point(
    name: str, probabilities: NDArray, labels: NDArray, *, task: Task, threshold: Threshold | None = None
) -> float:
    """The value of a metric, each image counted once; nan where it is not defined. Arguments as for `statistic`."""
    made = statistic(name, probabilities, labels, task=task, threshold=threshold)
    return float(point_values(made, len(probabilities))[0])
