"""The four tasks, the one guard through which predictions enter this room, and their yes-or-no parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from trueread.errors import InputError, unknown

Task = Literal["binary", "multiclass", "ordinal", "multilabel"]
Threshold = float | Sequence[float]  # one for all labels of a multilabel task, or one per label
TASKS: tuple[str, ...] = get_args(Task)

_ROUNDING = 1e-6  # a float32 softmax may leave [0, 1] by this much; more is a mistake
_SUM_TOLERANCE = 1e-3  # how far the rows of a softmax may be from 1


@dataclass(frozen=True, eq=False)
class BinaryProblem:
    """One yes-or-no question inside a task: the positive class, one class against the rest, or one label.

    rows: int64 [m], the images whose answer is known; None when all are.
    scores: float64 [m], probability of yes. positive: bool [m], the answer.
    """

    rows: NDArray[np.int64] | None
    scores: NDArray[np.float64]
    positive: NDArray[np.bool_]

    @property
    def has_both(self) -> bool:
        """True when yes and no both occur, without which there is no ranking to measure."""
        return bool(self.positive.any() and not self.positive.all())


def binary_problems(probabilities: NDArray, labels: NDArray, *, task: Task) -> list[BinaryProblem]:
    """The yes-or-no questions of a task: one for binary (class 1), K one-vs-rest for multiclass and ordinal, K labels.

    probabilities, labels: as `check_probabilities` returns them.
    """
    if task == "binary":
        return [BinaryProblem(None, probabilities[:, 1], labels == 1)]
    if task != "multilabel":
        return [BinaryProblem(None, column, labels == k) for k, column in enumerate(probabilities.T)]
    problems = []
    for scores, answers in zip(probabilities.T, labels.T, strict=True):
        rows = np.flatnonzero(~np.isnan(answers))
        problems.append(BinaryProblem(rows, scores[rows], answers[rows] == 1))
    return problems


def check_probabilities(probabilities: Any, labels: Any, task: Task) -> tuple[NDArray[np.float64], NDArray]:
    """Predictions and labels that every metric can rely on.

    probabilities: float [n,K] in [0,1]; K = 2 for binary; rows sum to 1 within 1e-3 unless the task is multilabel.
    labels: integers [n] in [0,K), or float [n,K] in {0,1,nan} for multilabel (nan = unknown).
    task: "binary", "multiclass", "ordinal" or "multilabel".
    Returns float64 [n,K] and int64 [n] (multilabel: float32 [n,K]). float64, because a float32 probability compared
    with a threshold rounds the threshold and can change the decision.
    Raises InputError that says what was expected, what was found and what to do.
    """
    check_task(task)
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    if probabilities.ndim != 2 or probabilities.shape[1] < (1 if task == "multilabel" else 2):
        advice = "stack 1 - p and p as columns." if probabilities.ndim == 1 else "give one column per class."
        raise InputError(f"probabilities must be [n,K], one row per image; found shape {probabilities.shape}; {advice}")
    n, k = probabilities.shape
    if n == 0:
        raise InputError("probabilities must have at least one row; found none; check that the split is not empty.")
    if task == "binary" and k != 2:
        raise InputError(f"a binary task needs two columns of probabilities; found {k}; use the task 'multiclass'.")
    if not np.issubdtype(probabilities.dtype, np.floating):
        raise InputError(
            f"probabilities must be floats; found {probabilities.dtype}; give probabilities, not decided classes."
        )
    _check_range(probabilities)
    if task != "multilabel":
        _check_sums(probabilities)
    return np.clip(probabilities.astype(np.float64), 0.0, 1.0), _checked_labels(labels, n, k, task)


def check_task(task: str) -> None:
    """Raise InputError unless `task` is one of the four."""
    if task not in TASKS:
        raise unknown("task", str(task), TASKS)


def check_binary(scores: Any, labels: Any) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores float64 [..., n] (any finite number, higher = more likely positive) and whether positive, bool [n].

    Raises InputError when the lengths differ, a score is not finite, or a label is neither 0 nor 1.
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if labels.ndim != 1 or scores.ndim == 0 or scores.shape[-1] != len(labels) or len(labels) == 0:
        raise InputError(
            f"scores and labels must have one entry per image; found scores {scores.shape} and labels {labels.shape}; "
            "give the probability of the positive class alone."
        )
    if not np.all(np.isfinite(scores)):
        raise InputError(
            f"scores must be finite; found {np.sum(~np.isfinite(scores))} that are not; look at the model."
        )
    if not np.all((labels == 0) | (labels == 1)):
        raise InputError("labels must be 0 or 1 here; found others; choose one class against the rest first.")
    return scores, labels == 1


def _check_range(probabilities: NDArray) -> None:
    broken = np.isnan(probabilities)
    if broken.any():
        row = int(np.flatnonzero(broken.any(axis=1))[0])
        raise InputError(
            f"probabilities must be numbers; found nan in {broken.any(axis=1).sum()} of {len(probabilities)} rows, "
            f"first in row {row}; the network has diverged or was given broken images."
        )
    low, high = probabilities.min(), probabilities.max()
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise InputError(
            f"probabilities must be in 0..1; found {low:.3g} to {high:.3g}; these look like logits: "
            "apply softmax (multilabel: sigmoid) first."
        )


def _check_sums(probabilities: NDArray) -> None:
    sums = probabilities.sum(axis=1, dtype=np.float64)
    off = np.abs(sums - 1)
    if off.max() > _SUM_TOLERANCE:
        row = int(off.argmax())
        raise InputError(
            f"each row of probabilities must sum to 1 (within {_SUM_TOLERANCE:g}); row {row} sums to {sums[row]:.4f}; "
            "apply softmax, or use the task 'multilabel' when several classes can be true at once."
        )


def _checked_labels(labels: NDArray, n: int, k: int, task: Task) -> NDArray:
    if task == "multilabel":
        if labels.shape != (n, k) or not np.issubdtype(labels.dtype, np.number):
            raise InputError(
                f"multilabel labels must be numbers of shape {(n, k)}, as the probabilities; "
                f"found {labels.dtype} of shape {labels.shape}; give one column per label."
            )
        if not np.all(np.isin(labels, (0, 1)) | np.isnan(labels)):
            raise InputError("multilabel labels must be 0, 1 or nan (unknown); found others; encode them so.")
        return labels.astype(np.float32)
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"labels must be integers of shape {(n,)}, one per row of probabilities; "
            f"found {labels.dtype} of shape {labels.shape}; give the class index of each image."
        )
    if labels.min() < 0 or labels.max() >= k:
        raise InputError(
            f"labels must be in 0..{k - 1} for {k} columns of probabilities; found {labels.min()}..{labels.max()}; "
            "the model and the cohort must have the same classes."
        )
    return labels.astype(np.int64)
