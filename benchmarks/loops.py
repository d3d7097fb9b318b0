"""The real loop and its rivals on the same images, taking turns epoch by epoch within one run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from timing import Seconds, Work, rotated

from trueread import Classifier, Cohort, TrainConfig, fit, load_cohort
from trueread.training.device import choose_device, choose_precision
from trueread.training.hooks import Hooks
from trueread.training.ledger import Ledger

N_TRAIN, N_VAL = 4708, 524  # as PneumoniaMNIST has


def pneumonia_like(
    *, n_train: int = N_TRAIN, n_val: int = N_VAL, size: int = 28, distinct: int | None = None
) -> Cohort:
    """Grey phantoms, one per patient, in train and val.

    distinct: so many are made, and repeated up to the number wanted: speed does not depend on what is in an image, and
    rendering 224 px takes long. All of them by default.
    """
    n = n_train + n_val
    made = load_cohort("phantom", n_images=min(n, distinct or n), size=size, images_per_patient=1)
    split = np.array(["train"] * n_train + ["val"] * n_val, dtype=object)
    if len(made) == n:
        return made.with_split(split)
    rows = np.arange(n) % len(made)
    names = [f"{i:06d}" for i in range(n)]
    table = made.table.iloc[rows].reset_index(drop=True).assign(id=names, patient=names, split=split)
    return replace(
        made, images=made.images[rows], labels=made.labels[rows], table=table, masks=None, truth=None,
        origin={"source": "phantom, repeated"},
    )  # fmt: skip


def network_for(cohort: Cohort, config: TrainConfig, device: torch.device) -> Classifier:
    """A new classifier as the loop builds it."""
    torch.manual_seed(0)
    some = cohort.rows("train")[:256]  # for mean and standard deviation
    made = Classifier.build(config.backbone, cohort=cohort, rows=some, stem=config.stem)
    return made.to(device).train()


class Turns(Hooks):
    """Plain training that lets rivals train an epoch each after every one of its own epochs.

    seconds: of each rival's turns. whole: wall time of the loop's own epochs, validation and all; nan for the first.
    failed: why a rival takes no further turns.
    """

    replayable = True  # nothing of it is within a step

    def __init__(self, rivals: Mapping[str, Work]) -> None:
        self.rivals = dict(rivals)
        self.seconds: dict[str, list[float]] = {name: [] for name in rivals}
        self.whole: list[float] = []
        self.failed: dict[str, str] = {}
        self._left = float("nan")

    def after_epoch(self, ledger: Ledger) -> None:
        self.whole.append(time.perf_counter() - self._left)
        for name in rotated([n for n in self.rivals if n not in self.failed], len(self.whole)):
            start = time.perf_counter()
            try:
                self.rivals[name]()
            except RuntimeError as error:  # a DataLoader whose workers died must not end the race
                self.failed[name] = str(error).partition("\n")[0]
            self.seconds[name].append(time.perf_counter() - start)
        self._left = time.perf_counter()


@dataclass(frozen=True)
class Raced:
    """Seconds per epoch, float [rounds] each: of the loop's training, of its whole epoch with validation, of the
    rivals' epochs. failed: why a rival is not among them.
    """

    training: Seconds
    whole: Seconds
    rivals: dict[str, Seconds]
    failed: dict[str, str]
    n_images: int

    def rate(self, seconds: Seconds) -> float:
        """Images per second in the median round."""
        return self.n_images / float(np.median(seconds))


def race(cohort: Cohort, config: TrainConfig, rivals: Mapping[str, Work], *, rounds: int) -> Raced:
    """The loop trains `rounds` epochs and one before to warm up; after each, every rival does.

    rivals: functions that train one epoch, or whatever is to be compared with one of the loop's epochs.
    """
    turns = Turns(rivals)
    fitted = fit(cohort, turns, config.model_copy(update={"epochs": rounds + 1}), quiet=True)
    training = fitted.history["seconds"].to_numpy()[1:]
    return Raced(
        training,
        np.array(turns.whole[1:]),
        {name: np.array(taken[1:]) for name, taken in turns.seconds.items() if name not in turns.failed},
        turns.failed,
        len(cohort.rows("train")),
    )


def precision_of(config: TrainConfig) -> tuple[torch.device, str]:
    """The device and the precision that the loop will take."""
    device = choose_device(config.device)
    return device, choose_precision(config.precision, device)
