"""The one training loop. It knows no method by name: ideas enter by the hooks, everything random by the seed."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from trueread.cohort.cohort import Cohort
from trueread.errors import TruereadError
from trueread.model.classifier import Classifier
from trueread.progress import say, track
from trueread.training.augment import recipe_for
from trueread.training.batches import ImageStore, batches, epoch_order
from trueread.training.batchnorm import FEW_STEPS, refresh_batch_norm
from trueread.training.checkpoint import load_checkpoint, save_checkpoint
from trueread.training.config import SELECTION_RULES, TrainConfig
from trueread.training.device import choose_precision, own_device
from trueread.training.evaluate import predict_logits, set_operating_point
from trueread.training.hooks import Hooks, Setup
from trueread.training.interrupt import Interruption
from trueread.training.ledger import Ledger
from trueread.training.plan import announcement, check_trainable
from trueread.training.processes import processes
from trueread.training.schedule import make_optimizer
from trueread.training.selection import Selection, validation_entry
from trueread.training.steps import Epoch, Stepper, can_replay, mix

SAVE_EVERY_SECONDS = 600.0  # of a long epoch; its end is saved anyway
KERNELS = ("fused", "foreach", "capturable", "lr")  # of an optimiser: how it computes here, and a rate set each step
LOOK_EVERY_STEPS = 32  # whether the loss is still a number; each look makes a GPU wait


@dataclass
class Fitted:
    """A trained classifier and how it came about.

    history: one row per epoch (losses, validation metrics, learning rate, seconds, images per second).
    selected_epoch: counted from 1. report: what the method has to say of this run.
    """

    classifier: Classifier
    history: pd.DataFrame
    ledger: Ledger
    selected_epoch: int
    report: dict[str, Any] = field(default_factory=dict)


def fit(
    cohort: Cohort,
    hooks: Hooks | None = None,
    config: TrainConfig | None = None,
    *,
    seed: int = 0,
    folder: Path | None = None,
    what: str = "training",
    quiet: bool = False,
) -> Fitted:
    """Train a classifier on the cohort's training split and select, calibrate and set its threshold on validation.

    hooks: the method; ERM by default. folder: where checkpoints go; a run found there half done is continued.
    The same cohort, method, config and seed give the same weights on the same hardware, interrupted or not. Of several
    processes (torchrun, srun) each calls this; they share every batch, and all return the same classifier and ledger.
    Raises InputError for a split that cannot be trained on, TruereadError when the loss is no longer a number, and
    KeyboardInterrupt after Ctrl-C or SIGTERM, when the step is done and saved.
    """
    hooks, config = hooks or Hooks(), config or TrainConfig()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), Interruption() as interruption:
        return _Run(cohort, hooks, config, seed, folder, what, quiet, interruption).fit()


class _Run:
    """The state of one training run; `fit` is the story, the other methods are its sentences."""

    def __init__(
        self,
        cohort: Cohort,
        hooks: Hooks,
        config: TrainConfig,
        seed: int,
        folder: Path | None,
        what: str,
        quiet: bool,
        interruption: Interruption,
    ) -> None:
        self.cohort, self.hooks, self.config, self.seed, self.what = cohort, hooks, config, seed, what
        self.say = _silent if quiet else say
        self.interruption, self.together = interruption, processes()
        self.train_rows, self.val_rows = cohort.rows("train"), cohort.rows("val")
        check_trainable(cohort, self.train_rows, self.val_rows, config, n_processes=self.together.size)
        self.checkpoints = folder / "checkpoints" if folder is not None else None
        if config.threads:
            torch.set_num_threads(config.threads)
        self.device = own_device(config.device)
        self.precision = choose_precision(config.precision, self.device, volumes=cohort.is_volume)
        self.recipe_name, self.recipe = recipe_for(config.augment, cohort.modality)

        torch.manual_seed(mix(seed, "weights"))
        self.classifier = Classifier.build(
            config.backbone, cohort=cohort, rows=self.train_rows, stem=config.stem, weights=config.weights,
            head=config.head, dropout=config.dropout,
        )  # fmt: skip
        self.classifier.to(self.device).train()
        self.store = ImageStore(cohort, self.device)
        labels = torch.from_numpy(cohort.labels[self.train_rows])
        self.ledger = Ledger(torch.from_numpy(self.train_rows), labels, epochs=config.epochs)
        self.setup = Setup(
            cohort, self.classifier, self.train_rows, self.val_rows, self.store, self.ledger, config, seed, self.device,
            fit, folder, self.precision,
        )  # fmt: skip
        self.history: list[dict[str, float]] = []
        self.beside = 0.0  # seconds before the first epoch and after the last, where methods train as well
        self.best = Selection(config.select)
        self.steps_per_epoch = len(
            list(batches(self.train_rows, config.batch_size, at_least=max(2, self.together.size)))
        )

    def _batches(self, order: np.ndarray) -> list[np.ndarray]:
        return list(batches(order, self.config.batch_size, at_least=max(2, self.together.size)))

    def fit(self) -> Fitted:
        epoch = self._restore_or_prepare()
        while len(self.history) < self.config.epochs:
            number = len(self.history)
            if epoch is None and self.config.patience and number - self.best.epoch >= self.config.patience:
                self.say(
                    f"{self.what}: stopped after {number} epochs, the last {self.config.patience} without a better one."
                )
                break
            self._train_epoch(epoch or self._new_epoch(number))
            epoch = None
            self._validate()
            self.hooks.after_epoch(self.ledger)
            self._save()
            if self.interruption.asked:
                raise KeyboardInterrupt
        return self._finish()

    def _restore_or_prepare(self) -> Epoch | None:
        """Before the first step: either all the preparations, or the state of the run that was interrupted. Returns
        the epoch it was interrupted in, if it was not between two.
        """
        self.fingerprint = self._fingerprint()
        state = load_checkpoint(self.checkpoints, fingerprint=self.fingerprint) if self.checkpoints else None
        if state is None:
            self.say(announcement(self.what, self.setup, augmentation=self.recipe_name))
            with self._beside():
                self.hooks.prepare(self.setup)
        else:
            self.beside = state.get("beside", 0.0)
            self.classifier.load_state_dict(state["weights"])
            self.ledger.load_state(state["ledger"])
            self.hooks.load_state(state["hooks"], self.setup)
        self.together.same_everywhere(self.classifier.state_dict().values())
        self.classifier.train()
        self.optimizer = make_optimizer(
            self.classifier,
            self.hooks.parameters(),
            self.config,
            fused=self.precision != "fp16",
            capturable=can_replay(self.setup, self.hooks, self.together),
        )
        self.average = copy.deepcopy(self.classifier).eval() if self.config.ema_decay else None
        self.take_step = Stepper(
            self.setup, self.hooks, self.recipe, self.optimizer, self.average, self.together, self.steps_per_epoch,
        )  # fmt: skip
        if state is None:
            self._save()  # what `prepare` took hours for is not done twice
            return None
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        here = [{k: group[k] for k in KERNELS if k in group} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, mine in zip(self.optimizer.param_groups, here, strict=True):
            group.update(mine)  # the checkpoint may come from another kind of device
        self.take_step.scaler.load_state_dict(state["precision"])
        self.history = state["history"]
        self.best.load_state(state["best"])
        under_way = state["under_way"]
        where = f"step {state['step']} of epoch {state['epoch'] + 1}" if under_way else f"epoch {state['epoch']}"
        self.say(f"{self.what}: continuing after {where} of {self.config.epochs}.")
        return Epoch(**under_way | {"order": under_way["order"].numpy()}) if under_way else None

    @contextmanager
    def _beside(self) -> Iterator[None]:
        """Counts what is neither of an epoch nor of its validation; of a `prepare` that was interrupted, the rest."""
        started = time.perf_counter()
        yield
        self.beside += time.perf_counter() - started

    def _new_epoch(self, number: int) -> Epoch:
        self.ledger.epoch = number
        generator = torch.Generator().manual_seed(mix(self.seed, "order", number))
        order = epoch_order(len(self.train_rows), generator=generator, sampling=self.hooks.sampling(self.ledger))
        return Epoch(number, order)

    def _train_epoch(self, epoch: Epoch) -> None:
        """The steps of the epoch that are not done yet, and its line in the history."""
        self.ledger.open(epoch.number, self.device)
        started = saved = time.perf_counter() - epoch.seconds
        losses: list[tuple[Tensor, np.ndarray]] = []  # of the steps since the last look
        for index in self._shown(epoch):
            losses.append((self.take_step(epoch, index), index))
            epoch.done += 1
            last = epoch.done == self.steps_per_epoch
            stop = self._asked_to_stop()
            late = self.together.size == 1 and time.perf_counter() - saved > SAVE_EVERY_SECONDS
            if len(losses) == LOOK_EVERY_STEPS or last or stop or late:
                epoch.loss_sum += self._sum_of(losses, epoch.number)
                losses = []
            epoch.seconds = time.perf_counter() - started
            if not last and (stop or late):
                self._save(epoch)
                self.ledger.open(epoch.number, self.device)
                saved = time.perf_counter()
            if stop and not last:
                raise KeyboardInterrupt
        self.ledger.close(self.together)
        self.history.append(
            {
                "epoch": epoch.number + 1,
                "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
                "train_loss": epoch.loss_sum / len(epoch.order),
                "seconds": epoch.seconds,
                "images_per_second": len(epoch.order) / epoch.seconds,
            }
        )

    def _asked_to_stop(self) -> bool:
        """True in all processes in the same step, when any of them was interrupted."""
        if self.together.size == 1:
            return self.interruption.asked
        return bool(self.together.sum(torch.tensor(float(self.interruption.asked), device=self.device)))

    def _shown(self, epoch: Epoch) -> Iterator[np.ndarray]:
        """The epoch's batches that are still to come, under a bar that counts the whole training."""
        return track(
            self._batches(epoch.order)[epoch.done :],
            what=f"{self.what}, epoch {epoch.number + 1}/{self.config.epochs}",
            total=self.steps_per_epoch * self.config.epochs,
            before=epoch.number * self.steps_per_epoch + epoch.done,
            unit="batches",
        )

    def _sum_of(self, losses: list[tuple[Tensor, np.ndarray]], epoch: int) -> float:
        """The batches' losses times their sizes. Raises TruereadError when one is no number, with the images' ids."""
        values = self.together.sum(torch.stack([loss for loss, _ in losses]).float()).tolist()
        for value, (_, index) in zip(values, losses, strict=True):
            if not np.isfinite(value):
                ids = self.cohort.table["id"].iloc[self.train_rows[index]].tolist()
                shown = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
                raise TruereadError(
                    f"the loss became {value} in epoch {epoch + 1} on the images {shown}; "
                    "lower the learning rate, set clip_norm, or look at these images."
                )
        return float(sum(value * len(index) for value, (_, index) in zip(values, losses, strict=True)))

    def _validate(self) -> None:
        """Measure on validation and remember the weights when the selection rule prefers them."""
        entry = self.history[-1]
        if self.steps_per_epoch < FEW_STEPS:
            seed = mix(self.seed, "norm")  # the same images in every epoch, so that epochs compare
            refresh_batch_norm(self._evaluated, self.store, self.train_rows, seed=seed, precision=self.precision)
        if len(self.val_rows):
            logits = predict_logits(
                self._evaluated, self.store, self.val_rows, precision=self.precision, together=self.together
            )
            entry |= validation_entry(self.classifier, logits, self.cohort.labels[self.val_rows])
            self.ledger.validation[self.ledger.epoch] = entry["val_loss"]
        self.best.offer(len(self.history), entry, self._evaluated)

    @property
    def _evaluated(self) -> Classifier:
        return self.average if self.average is not None else self.classifier

    def _save(self, under_way: Epoch | None = None) -> None:
        """Write where the run is: between two epochs, or within the one under way."""
        if self.checkpoints is None:
            return
        self.ledger.close(self.together)
        if not self.together.leads:
            return
        state = {
            "fingerprint": self.fingerprint,
            "epoch": len(self.history),
            "step": under_way.done if under_way else 0,
            "under_way": vars(under_way) | {"order": torch.from_numpy(under_way.order)} if under_way else None,
            "weights": self.classifier.state_dict(),
            "average": self.average.state_dict() if self.average is not None else {},
            "optimizer": self.optimizer.state_dict(),
            "precision": self.take_step.scaler.state_dict(),  # of fp16
            "ledger": self.ledger.state(),
            "hooks": self.hooks.state(),
            "history": self.history,
            "beside": self.beside,
            "best": self.best.state(),
        }
        save_checkpoint(self.checkpoints, state)

    def _finish(self) -> Fitted:
        self.classifier.load_state_dict(self.best.weights)
        self.classifier.eval()
        torch.manual_seed(mix(self.seed, "finish"))
        with self._beside():
            self.hooks.finish(self.setup)
        self.classifier.eval()
        if len(self.val_rows):
            # in float32, as later predictions are
            logits = predict_logits(self.classifier, self.store, self.val_rows, together=self.together)
            set_operating_point(
                self.classifier, logits, self.cohort.labels[self.val_rows], rule=self.config.threshold_rule
            )
        history = pd.DataFrame(self.history)
        history["selected"] = history["epoch"] == self.best.epoch
        report = self.hooks.report()
        self.classifier.card.data_digest = self.cohort.digest
        self.classifier.card.training = {
            "seed": self.seed,
            "epochs": len(history),
            "selected_epoch": self.best.epoch,
            "selection_rule": SELECTION_RULES[self.config.select],
            "train_images": len(self.train_rows),
            "augmentation": self.recipe_name,
            "precision": self.precision,
            "seconds": round(float(history["seconds"].sum()) + self.beside, 1),
        }
        return Fitted(self.classifier, history, self.ledger, self.best.epoch, report)

    def _fingerprint(self) -> str:
        options = self.config.model_dump(exclude={"device", "threads", "cuda_graph"})  # where it runs may change
        split = self.cohort.table["split"].tolist()
        facts = [self.cohort.digest, split, options, self.recipe_name, repr(self.hooks), self.seed]
        return hashlib.blake2b(json.dumps(facts, default=str).encode(), digest_size=8).hexdigest()


def _silent(message: str) -> None:
    """For inner trainings, whose method speaks for them."""
