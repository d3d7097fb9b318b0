"""What networks say of images that they were not trained on, for every image: each patient is left out once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trueread.cohort.cohort import Cohort
from trueread.errors import InputError
from trueread.progress import track
from trueread.training.checkpoint import drop_checkpoint
from trueread.training.config import TrainConfig
from trueread.training.evaluate import predict_probabilities
from trueread.training.hooks import Hooks, Setup, Step
from trueread.training.loop import fit as fit_with_loop
from trueread.training.processes import processes
from trueread.training.steps import mix

if TYPE_CHECKING:
    from trueread.training.loop import Fitted


class Margins(Hooks):
    """Plain training that keeps each sample's area under the margin: its label's logit less the largest other one, mean
    over the batches in which it was seen. Source: Pleiss et al. 2020, arXiv 2001.10528.
    """

    def prepare(self, setup: Setup) -> None:
        n = len(setup.train_rows)
        self.total, self.seen = (torch.zeros(n, device=setup.device) for _ in range(2))

    def weights(self, step: Step) -> None:
        logits, labels = step.logits.detach(), step.labels[:, None]
        own = logits.gather(1, labels)[:, 0]
        other = logits.scatter(1, labels, -torch.inf).amax(1)
        index = step.index.to(self.total.device)
        self.total[index] += own - other
        self.seen[index] += 1

    @property
    def margin(self) -> Tensor:
        """float [N], on the CPU: the mean so far; nan for samples that were never seen."""
        return (self.total / self.seen).cpu()

    def state(self) -> dict[str, Any]:
        return {"total": self.total.cpu(), "seen": self.seen.cpu()}

    def load_state(self, state: dict[str, Any], setup: Setup) -> None:
        self.total, self.seen = state["total"].to(setup.device), state["seen"].to(setup.device)


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Of n images of a cohort. rows: int64 [n], their positions.

    probabilities: float64 [n,K], of a network that was not trained on the image's patient; not calibrated.
    loss: float64 [n], the smoothed loss of the label at the end of training, and margin: float64 [n], the area under
    the margin: both of the networks that were trained on the image, mean over them.
    """

    rows: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    loss: NDArray[np.float64]
    margin: NDArray[np.float64]


def out_of_fold(
    cohort: Cohort, rows: NDArray[np.int64], config: TrainConfig, *, folds: int = 4, seed: int = 0,
    fit: Callable[..., Fitted] = fit_with_loop, folder: Path | None = None, keep: bool = False,
    what: str = "leaving out in turn",
) -> OutOfFold:  # fmt: skip
    """Train `folds` classifiers, each without a part of the patients, and ask each about the part that it lacks.

    rows: positions in the cohort. config: of each training; there is no validation, so the last epoch is kept. fit: the
    loop, which a method takes from its `Setup`. folder: for checkpoints, so that an interrupted call goes on; they are
    dropped once all trainings are done, unless they are to `keep`, which lets the same call give the same at once.
    Raises InputError for a multilabel task, and when a class has fewer than two patients.
    """
    of_fold = patient_folds(cohort, rows, folds=folds, seed=seed)
    few = cohort.subset(rows)
    config = config.model_copy(update={"select": "last", "patience": None})
    probabilities = np.full((len(rows), cohort.n_classes), np.nan)
    sums, n = np.zeros((2, len(rows))), max(1, folds - 1)
    for fold in track(range(folds), what=what, unit="trainings"):
        here = np.flatnonzero(of_fold == fold)
        split = np.where(of_fold == fold, "test", "train")
        margins, place = Margins(), None if folder is None else folder / f"fold-{fold}"
        made = fit(
            few.with_split(split), margins, config, seed=mix(seed, "fold", fold), folder=place, quiet=True,
            what=f"part {fold + 1} of {folds}",
        )  # fmt: skip
        probabilities[here] = predict_probabilities(made.classifier, few, here)
        trained = np.flatnonzero(of_fold != fold)
        sums[:, trained] += np.stack([made.ledger.smoothed_loss(), margins.margin]) / n
    if folder is not None and not keep and processes().leads:  # only now, so that no finished training is done twice
        for fold in range(folds):
            drop_checkpoint(folder / f"fold-{fold}" / "checkpoints")
    return OutOfFold(rows, probabilities, sums[0], sums[1])


def patient_folds(cohort: Cohort, rows: NDArray[np.int64], *, folds: int, seed: int) -> NDArray[np.int64]:
    """int64 [n]: the fold 0..folds-1 of each image, whole patients, each class spread evenly over folds by the class
    of a patient's first image. Raises InputError as `out_of_fold`.
    """
    if cohort.task == "multilabel":
        raise InputError(f"{cohort.name}: one label per image can be doubted in turn; the task is multilabel.")
    if folds < 2:
        raise InputError(f"images are left out in at least 2 parts; found {folds}.")
    codes, labels = cohort.patient_codes(rows), cohort.labels[rows]
    first = np.unique(codes, return_index=True)[1]
    patients = np.bincount(labels[first], minlength=cohort.n_classes)
    for k, name in enumerate(cohort.classes):
        if patients[k] < 2:
            raise InputError(
                f"{cohort.name}: '{name}' has {patients[k]} patient{'' if patients[k] == 1 else 's'} among these "
                "images; to leave each out in turn it needs two. Join the class with another, or leave it out."
            )
    shuffled = np.random.default_rng(seed).permutation(len(first))
    order = shuffled[np.argsort(labels[first][shuffled], kind="stable")]
    of_patient = np.empty(len(first), np.int64)
    of_patient[order] = np.arange(len(first)) % folds
    return of_patient[codes]
