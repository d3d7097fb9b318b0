"""Test images that are changed: which of them, and what the classifiers say of them then."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from trueread.audit.subject import Subject
from trueread.shift.base import Change
from trueread.shift.planting import with_cue
from trueread.training.batches import batch_slices
from trueread.training.evaluate import evaluation_batch, predict_probabilities


def some_patients(subject: Subject, images: int) -> NDArray[np.int64]:
    """Positions among the test rows of the images of whole patients, drawn by the subject's seed, each class with its
    share: at most `images` of them, but one patient of every class whatever that takes.

    Whose images have several classes (labels) counts with the rarest. The order of the test rows does not matter.
    """
    counts = subject.cohort.class_counts(subject.rows)
    rarity = np.argsort(np.argsort(counts, kind="stable"))
    labels = subject.labels
    positive = labels == 1 if labels.ndim == 2 else labels[:, None] == np.arange(len(counts))
    stratum = np.where(positive, rarity, len(rarity)).min(axis=1)
    names = subject.cohort.table["patient"].iloc[subject.rows].astype(str).to_numpy()
    frame = pd.DataFrame({"patient": names, "stratum": stratum}).groupby("patient")["stratum"].agg(["min", "size"])
    frame = frame.sample(frac=1.0, random_state=np.random.default_rng([subject.seed, *b"shortcut-reliance"]))
    strata = frame.groupby("min")
    turn = (strata.cumcount() / strata["size"].transform("count")).to_numpy()  # strata take turns, each by its share
    order = np.argsort(turn, kind="stable")
    taken = (frame["size"].to_numpy()[order].cumsum() <= images) | (turn[order] == 0)
    return np.flatnonzero(np.isin(names, frame.index.to_numpy()[order][taken]))


def probabilities_with(change: Change, subject: Subject, positions: NDArray[np.int64]) -> list[NDArray[np.float64]]:
    """Of each member, probabilities [m,K] of the test images at `positions` after a change, stored as an image file
    would be.
    """
    cohort, rows = subject.cohort, subject.rows[positions]
    answers: list[list[np.ndarray]] = [[] for _ in subject.members]
    for part in batch_slices(len(rows), evaluation_batch(cohort.spatial, torch.device("cpu"))):
        piece = replace(
            cohort, images=with_cue(cohort, change, rows[part]), labels=cohort.labels[rows[part]],
            table=cohort.table.iloc[rows[part]], masks=None, truth=None, files=None,
        )  # fmt: skip
        for answer, member in zip(answers, subject.members, strict=True):
            answer.append(predict_probabilities(member.predictor, piece))
    return [np.concatenate(answer).astype(np.float64) for answer in answers]
