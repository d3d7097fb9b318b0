"""Subjects whose every probability is written by hand, so that the right answer of an audit is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from trueread.audit.subject import Member, Subject
from trueread.cohort.cohort import Cohort
from trueread.model.card import Card

NAMES = ("normal", "mild", "moderate", "severe", "critical")


class Oracle:
    """A predictor that is only a card: its probabilities are given to the subject, not asked for."""

    has_gradients = False

    def __init__(self, card: Card) -> None:
        self.card = card

    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("an audit of given probabilities must not predict")


def oracle(classes: Sequence[str], task: str, *, threshold: Any = None, temperature: float = 1.0) -> Oracle:
    rule = {"threshold_rule": "balanced-accuracy on validation"} if threshold is not None else {}
    card = Card(
        backbone="function", classes=list(classes), task=task, channels=1, size=[2, 2], mean=[0.0], std=[1.0],
        threshold=threshold, temperature=temperature, **rule,
    )  # fmt: skip
    return Oracle(card)


def cohort_of(
    labels: np.ndarray, *, task: str, k: int, patients: Sequence[Any] | None = None,
    split: str | Sequence[str] = "test", masks: np.ndarray | None = None, patients_known: bool = True,
    **attributes: Any,
) -> Cohort:  # fmt: skip
    """A cohort of black images with these labels; every image its own patient unless `patients` says otherwise."""
    n = len(labels)
    ids = [f"image-{i:04d}" for i in range(n)]
    table = pd.DataFrame({"id": ids, "patient": ids if patients is None else list(patients), "split": split})
    return Cohort(
        name="planted", images=np.zeros((n, 1, 2, 2), np.uint8), labels=labels, table=table.assign(**attributes),
        classes=NAMES[:k], task=task, masks=masks, patients_known=patients_known,  # type: ignore[arg-type]
    )  # fmt: skip


def subject_of(
    probabilities: np.ndarray | Sequence[np.ndarray], labels: np.ndarray, *, task: str = "binary",
    threshold: Any = None, temperature: float | Sequence[float] = 1.0, resamples: int = 200, name: str = "planted",
    **cohort: Any,
) -> Subject:  # fmt: skip
    """One member per array of `probabilities`, each float [n,K]; a threshold and temperature for all or for each."""
    each = [probabilities] if isinstance(probabilities, np.ndarray) else list(probabilities)
    each = [np.asarray(p, dtype=np.float32) for p in each]
    thresholds = threshold if isinstance(threshold, tuple) else (threshold,) * len(each)
    temperatures = [temperature] * len(each) if isinstance(temperature, float) else list(temperature)
    made = cohort_of(labels, task=task, k=each[0].shape[1], **cohort)
    members = [
        Member(oracle(made.classes, task, threshold=c, temperature=t), seed, p, None)
        for seed, (p, c, t) in enumerate(zip(each, thresholds, temperatures, strict=True))
    ]
    rows = np.arange(len(labels))
    return Subject(name, made, rows, members, resamples=resamples)


def pair(p: np.ndarray) -> np.ndarray:
    """Probabilities [n,2] of a binary task from those of the second class."""
    return np.stack([1 - p, p], axis=1)


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def binary(n: int = 300, *, share: float = 0.5, seed: int = 0, strength: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [n,2] that rank honestly but not perfectly, and labels [n] of which a `share` is positive."""
    generator = np.random.default_rng(seed)
    labels = np.zeros(n, np.int64)
    labels[: max(2, round(share * n))] = 1
    generator.shuffle(labels)
    logit = np.log(share / (1 - share))
    return pair(sigmoid(logit + strength * (labels - 0.5) + generator.normal(size=n))), labels


def multiclass(n: int = 300, k: int = 4, *, seed: int = 0, absent: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [n,k] and labels [n]; the first class is half of all, and `absent` is never true."""
    generator = np.random.default_rng(seed)
    labels = np.where(generator.random(n) < 0.5, 0, generator.integers(0, k, n))
    labels[labels == absent] = 0
    return softmax(generator.normal(size=(n, k)) + 1.3 * np.eye(k)[labels]), labels.astype(np.int64)


def multilabel(n: int = 300, k: int = 3, *, seed: int = 0, unknown: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [n,k] and labels float32 [n,k], a share of them unknown; the last label is rare."""
    generator = np.random.default_rng(seed)
    labels = (generator.random((n, k)) < np.array([0.5, 0.3, 0.05])[:k]).astype(np.float32)
    p = sigmoid(1.5 * (labels - 0.5) + generator.normal(size=(n, k)))
    labels[generator.random((n, k)) < unknown] = np.nan
    labels[:4] = np.array([[1], [0], [1], [0]])
    return p, labels
