"""What methods against wrong labels share: a weight for every training sample, decided between epochs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from trueread.errors import InputError
from trueread.method.base import Method
from trueread.stats.bootstrap import point_values
from trueread.stats.ranking import binary_auroc
from trueread.training.hooks import Setup, Step
from trueread.training.ledger import Ledger

LEAST = 10  # samples of a class that are kept whatever their score, or all of a smaller class


class Selecting(Method):
    """Base of methods that leave samples out of the gradient, or let them count less.

    keep: float [N] in [0,1], the weight of each training sample. score: float [N], higher where the label is more
    doubtful; nan before there is one. Samples of weight 0 are still forwarded, so that their score stays alive.
    """

    keep: Tensor
    score: Tensor

    def prepare(self, setup: Setup) -> None:
        cohort = setup.cohort
        if cohort.task == "multilabel":
            raise InputError(f"'{self.name}' doubts one label per image; the task is multilabel.")
        n = len(setup.train_rows)
        self.keep, self.score = torch.ones(n), torch.full((n,), torch.nan)
        self._know(setup)

    def _know(self, setup: Setup) -> None:
        """What does not change: labels, classes, and the truth where a generator knows it."""
        self.labels, self.classes = setup.train_labels(), tuple(setup.cohort.classes)
        truth = setup.cohort.truth
        known = truth is not None and "flipped" in truth
        self.wrong = truth["flipped"].to_numpy(bool)[setup.train_rows] if known and truth is not None else None

    def weights(self, step: Step) -> Tensor | None:
        return self.keep.to(step.images.device)[step.index]

    def report(self) -> dict[str, Any]:
        """How many are left out, of which class, and, where the truth is known, how many of them rightly."""
        out = (self.keep < 0.5).numpy()
        labels = self.labels.numpy()
        told: dict[str, Any] = {
            "excluded": int(out.sum()),
            "excluded_share": {c: round(float(out[labels == k].mean()), 4) for k, c in enumerate(self.classes)},
        }
        if self.wrong is not None and self.wrong.any():
            told["against_the_truth"] = identified(out, self.score.numpy(), self.wrong)
        return told

    def state(self) -> dict[str, Any]:
        return {"keep": self.keep, "score": self.score}

    def load_state(self, state: dict[str, Any], setup: Setup) -> None:
        self.keep, self.score = state["keep"], state["score"]
        self._know(setup)


def identified(out: np.ndarray, score: np.ndarray, wrong: np.ndarray) -> dict[str, float | None]:
    """How well wrong labels were found: precision, recall and F1 of what is left out, AUROC of the score.

    out, wrong: bool [N]. score: float [N], nan counting as the lowest.
    """
    hit = int((out & wrong).sum())
    precision = hit / out.sum() if out.any() else None
    recall = hit / wrong.sum() if wrong.any() else None
    f1 = None if precision is None or recall is None or not hit else 2 * precision * recall / (precision + recall)
    auroc = None
    if wrong.any() and not wrong.all() and not np.isnan(score).all():
        filled = np.where(np.isnan(score), np.nanmin(score), score)
        auroc = float(point_values(binary_auroc(filled, wrong), len(wrong))[0])
    found = {"precision": precision, "recall": recall, "f1": f1, "auroc": auroc}
    return {k: None if v is None else round(float(v), 4) for k, v in found.items()}


def lowest(
    score: Tensor, share: float, *, labels: Tensor, per_class: bool = False, least: int = LEAST, at_least: float = 0.0
) -> Tensor:
    """bool [N]: the share of samples with the lowest score, and at least `least` of every class (or all that it has)
    and the share `at_least` of it.

    score: float [N]; a sample without one (nan) is kept before all others. labels: int64 [N]. per_class: the share of
    every class by itself. Ties are broken by position. At least one sample is kept.
    """
    filled = score.nan_to_num(nan=-torch.inf)
    order = torch.sort(filled, stable=True).indices
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    kept = rank < max(1, round(share * len(score)))
    if per_class:
        kept = torch.zeros_like(kept)
    for k in labels.unique():
        mine = order[labels[order] == k]  # of this class, the lowest score first
        wanted = round((share if per_class else 0) * len(mine))
        kept[mine[: max(wanted, min(least, len(mine)), round(at_least * len(mine)))]] = True
    return kept


def softly(score: Tensor, share: float, *, softness: float) -> Tensor:
    """float [N]: the logistic function of how far each score lies below the quantile `share`, in units of `softness`
    standard deviations; 1 for samples without a score.
    """
    known = score[~score.isnan()]
    edge, spread = torch.quantile(known.double(), share), known.double().std().clamp_min(1e-12)
    return torch.sigmoid((edge - score.double()) / (softness * spread)).nan_to_num(nan=1.0).float()


def latest(ledger: Ledger) -> Tensor:
    """float [N]: the loss of the epoch that has just ended; nan for samples that were not seen in it."""
    return ledger.loss[ledger.epoch]
