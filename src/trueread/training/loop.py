"""The one training loop. It knows no method by name: ideas enter by the hooks, everything random by the seed."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from trueread.cohort.cohort import Cohort
from trueread.errors import TruereadError
from trueread.model.classifier import Classifier, to_probabilities
from trueread.progress import say, track
from trueread.stats.metrics import point
from trueread.training.augment import apply_move, draw_move, recipe_for, recolour
from trueread.training.batches import ImageStore, batches, epoch_order
from trueread.training.batchnorm import FEW_STEPS, refresh_batch_norm
from trueread.training.checkpoint import load_checkpoint, save_checkpoint
from trueread.training.config import SELECTION_RULES, TrainConfig
from trueread.training.device import choose_precision, make_fabric
from trueread.training.evaluate import predict_logits, set_operating_point
from trueread.training.hooks import Hooks, Setup, Step, as_targets, cross_entropy
from trueread.training.ledger import Ledger
from trueread.training.plan import announcement, check_trainable
from trueread.training.schedule import learning_rate_factor, make_optimizer, update_average


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
    The same cohort, method, config and seed give the same weights on the same hardware.
    Raises InputError for a split that cannot be trained on, TruereadError when the loss is no longer a number.
    """
    hooks, config = hooks or Hooks(), config or TrainConfig()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        return _Run(cohort, hooks, config, seed, folder, what, quiet).fit()


class _Run:
    """The state of one training run; `fit` is the story, the other methods are its sentences."""

    def __init__(
        self, cohort: Cohort, hooks: Hooks, config: TrainConfig, seed: int, folder: Path | None, what: str, quiet: bool
    ) -> None:
        self.cohort, self.hooks, self.config, self.seed, self.what = cohort, hooks, config, seed, what
        self.say = _silent if quiet else say
        self.train_rows, self.val_rows = cohort.rows("train"), cohort.rows("val")
        check_trainable(cohort, self.train_rows, self.val_rows, config)
        self.checkpoints = folder / "checkpoints" if folder is not None else None
        if config.threads:
            torch.set_num_threads(config.threads)
        self.fabric = make_fabric(config.device, config.precision, volumes=cohort.is_volume)
        self.device = self.fabric.device
        self.precision = choose_precision(config.precision, self.device, volumes=cohort.is_volume)
        self.recipe_name, self.recipe = recipe_for(config.augment, cohort.modality)

        torch.manual_seed(_mix(seed, "weights"))
        self.classifier = Classifier.build(
            config.backbone, cohort=cohort, rows=self.train_rows, stem=config.stem, weights=config.weights,
            dropout=config.dropout,
        )  # fmt: skip
        self.classifier.to(self.device).train()
        self.store = ImageStore(cohort, self.device)
        self.labels = torch.from_numpy(cohort.labels[self.train_rows])
        self.ledger = Ledger(torch.from_numpy(self.train_rows), self.labels, epochs=config.epochs)
        self.setup = Setup(
            cohort, self.classifier, self.train_rows, self.val_rows, self.store, self.ledger, config, seed, self.device,
            fit, folder, self.precision,
        )  # fmt: skip
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Any] = {"key": None, "epoch": 0, "weights": None}
        self.generator = torch.Generator(self.device)

    def fit(self) -> Fitted:
        started = self._restore_or_prepare()
        self.steps_per_epoch = len(list(batches(self.train_rows, self.config.batch_size)))
        for epoch in range(started, self.config.epochs):
            if self.config.patience and epoch - self.best["epoch"] >= self.config.patience:
                self.say(
                    f"{self.what}: stopped after {epoch} epochs, the last {self.config.patience} without a better one."
                )
                break
            self._train_epoch(epoch)
            self._validate(epoch)
            self.hooks.after_epoch(self.ledger)
            self._save(epoch + 1)
        return self._finish()

    def _restore_or_prepare(self) -> int:
        """Before the first step: either all the preparations, or the state of the run that was interrupted."""
        self.fingerprint = self._fingerprint()
        state = load_checkpoint(self.checkpoints, fingerprint=self.fingerprint) if self.checkpoints else None
        if state is None:
            self.say(announcement(self.what, self.setup, augmentation=self.recipe_name))
            self.hooks.prepare(self.setup)
        else:
            self.classifier.load_state_dict(state["weights"])
            self.ledger.load_state(state["ledger"])
            self.hooks.load_state(state["hooks"], self.setup)
        self.classifier.train()
        self.optimizer = make_optimizer(self.classifier, self.hooks.parameters(), self.config)
        self.wrapped, self.optimizer = self.fabric.setup(self.classifier, self.optimizer)
        self.average = copy.deepcopy(self.classifier).eval() if self.config.ema_decay else None
        if state is None:
            self._save(0)  # what `prepare` took hours for is not done twice
            return 0
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.history, self.best = state["history"], state["best"]
        self.say(f"{self.what}: continuing after epoch {state['epoch']} of {self.config.epochs}.")
        return int(state["epoch"])

    def _train_epoch(self, epoch: int) -> None:
        start = time.perf_counter()
        steps = self.steps_per_epoch
        total = steps * self.config.epochs
        self.ledger.epoch = epoch
        torch.manual_seed(_mix(self.seed, "epoch", epoch))  # dropout and whatever else draws without a generator
        order_generator = torch.Generator().manual_seed(_mix(self.seed, "order", epoch))
        order = epoch_order(len(self.train_rows), generator=order_generator, sampling=self.hooks.sampling(self.ledger))
        pending: tuple[Tensor, np.ndarray] | None = None
        loss_sum = torch.zeros((), device=self.device)
        for number, index in enumerate(self._shown(order, epoch)):
            step_number = epoch * steps + number
            factor = learning_rate_factor(step_number, total, warmup=self.config.warmup, schedule=self.config.schedule)
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate * factor
            loss = self._step(epoch, number, index, step_number / total)
            loss_sum += loss.detach() * len(index)
            if pending is not None:  # one step late, so that a GPU need not be waited for
                self._refuse_nan(*pending, epoch)
            pending = (loss.detach(), index)
        if pending is not None:
            self._refuse_nan(*pending, epoch)
        seconds = time.perf_counter() - start
        self.history.append(
            {
                "epoch": epoch + 1,
                "learning_rate": self.optimizer.param_groups[0]["lr"],
                "train_loss": float(loss_sum) / len(order),
                "seconds": seconds,
                "images_per_second": len(order) / seconds,
            }
        )

    def _shown(self, order: np.ndarray, epoch: int) -> Iterator[np.ndarray]:
        """The epoch's batches under a bar that counts the whole training."""
        return track(
            batches(order, self.config.batch_size),
            what=f"{self.what}, epoch {epoch + 1}/{self.config.epochs}",
            total=self.steps_per_epoch * self.config.epochs,
            before=epoch * self.steps_per_epoch,
            unit="batches",
        )

    def _step(self, epoch: int, number: int, index: np.ndarray, done: float) -> Tensor:
        """One batch: what the network sees, what it says, what it is told."""
        rows = self.train_rows[index]
        self.generator.manual_seed(_mix(self.seed, "step", epoch, number))
        stored = self.setup.store.batch(rows)
        move = draw_move(stored, self.recipe, self.generator)
        images = recolour(stored if move is None else apply_move(stored, move), self.recipe, self.generator)
        if images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        positions = torch.from_numpy(index)
        labels = self.labels[positions].to(self.device)
        step = Step(
            positions, rows, images, labels, as_targets(labels, self.cohort.n_classes), self.classifier, self.ledger,
            epoch, self.config.epochs, done, self.generator, precision=self.precision,
            stored_masks=self.cohort.masks, move=move,
        )  # fmt: skip
        self.hooks.perturb(step)
        with step.autocast():  # not through Fabric's wrapper: in bf16 it rounds the images before they are normalised,
            # cuts the taps off from the logits, and forbids gradients with respect to the images
            step.output = self.classifier(step.images, taps=self.hooks.taps)
        losses = self.hooks.losses(step)
        step.per_sample_loss = losses
        weights = self.hooks.weights(step)
        if weights is None:
            loss = losses.mean()
        else:
            weights = weights.to(losses)
            loss = (weights * losses).sum() / weights.sum().clamp_min(1e-8)
        for term in self.hooks.penalty(step).values():
            loss = loss + term
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        if self.config.clip_norm:
            self.fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=self.config.clip_norm)
        self.optimizer.step()
        if self.average is not None:
            update_average(self.average, self.classifier, decay=self.config.ema_decay or 0.0)
        with torch.no_grad():
            given = as_targets(labels, self.cohort.n_classes)
            loss_of_given = cross_entropy(step.logits, given, multilabel=step.multilabel)
            self.ledger.record(positions, torch.where(given.isnan().all(1), torch.nan, loss_of_given))
        return loss

    def _refuse_nan(self, loss: Tensor, index: np.ndarray, epoch: int) -> None:
        if torch.isfinite(loss):
            return
        ids = self.cohort.table["id"].iloc[self.train_rows[index]].tolist()
        shown = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
        raise TruereadError(
            f"the loss became {float(loss)} in epoch {epoch + 1} on the images {shown}; "
            "lower the learning rate, set clip_norm, or look at these images."
        )

    def _validate(self, epoch: int) -> None:
        """Measure on validation and remember the weights when the selection rule prefers them."""
        entry, rule = self.history[-1], self.config.select
        if self.steps_per_epoch < FEW_STEPS:
            seed = _mix(self.seed, "norm")  # the same images in every epoch, so that epochs compare
            refresh_batch_norm(self._evaluated, self.store, self.train_rows, seed=seed, precision=self.precision)
        key: tuple[float, float] | None = None
        if len(self.val_rows):
            logits = predict_logits(self._evaluated, self.store, self.val_rows, precision=self.precision)
            labels = self.cohort.labels[self.val_rows]
            targets = as_targets(torch.from_numpy(labels), self.cohort.n_classes)
            val_loss = float(cross_entropy(logits, targets, multilabel=self.cohort.task == "multilabel").mean())
            probabilities = to_probabilities(logits, self.classifier.card).numpy()
            measured = {
                m: point(m, probabilities, labels, task=self.cohort.task) for m in ("auroc", "balanced-accuracy")
            }
            entry |= {
                "val_loss": val_loss,
                "val_auroc": measured["auroc"],
                "val_balanced_accuracy": measured["balanced-accuracy"],
            }
            if rule != "last":
                value = -val_loss if rule == "loss" else measured[rule]
                key = (value if value == value else -np.inf, -val_loss)  # a tie goes to the lower loss
        if key is None:
            key = (float(epoch), 0.0)
        if self.best["key"] is None or key > tuple(self.best["key"]):
            weights = {k: v.detach().cpu().clone() for k, v in self._evaluated.state_dict().items()}
            self.best = {"key": list(key), "epoch": epoch + 1, "weights": weights}

    @property
    def _evaluated(self) -> Classifier:
        return self.average if self.average is not None else self.classifier

    def _save(self, epochs_done: int) -> None:
        if self.checkpoints is None:
            return
        state = {
            "fingerprint": self.fingerprint,
            "epoch": epochs_done,
            "weights": self.classifier.state_dict(),
            "average": self.average.state_dict() if self.average is not None else {},
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),  # the loss scale of fp16
            "ledger": self.ledger.state(),
            "hooks": self.hooks.state(),
            "history": self.history,
            "best": self.best,
        }
        save_checkpoint(self.checkpoints, state)

    def _finish(self) -> Fitted:
        self.classifier.load_state_dict(self.best["weights"])
        self.classifier.eval()
        torch.manual_seed(_mix(self.seed, "finish"))
        self.hooks.finish(self.setup)
        self.classifier.eval()
        if len(self.val_rows):
            logits = predict_logits(self.classifier, self.store, self.val_rows)  # in float32, as later predictions are
            set_operating_point(
                self.classifier, logits, self.cohort.labels[self.val_rows], rule=self.config.threshold_rule
            )
        history = pd.DataFrame(self.history)
        history["selected"] = history["epoch"] == self.best["epoch"]
        report = self.hooks.report()
        self.classifier.card.data_digest = self.cohort.digest
        self.classifier.card.training = {
            "seed": self.seed,
            "epochs": len(history),
            "selected_epoch": self.best["epoch"],
            "selection_rule": SELECTION_RULES[self.config.select],
            "train_images": len(self.train_rows),
            "augmentation": self.recipe_name,
            "precision": self.precision,
            "seconds": round(float(history["seconds"].sum()), 1),
        }
        return Fitted(self.classifier, history, self.ledger, int(self.best["epoch"]), report)

    def _fingerprint(self) -> str:
        options = self.config.model_dump(exclude={"device", "threads"})  # where it runs may change
        split = self.cohort.table["split"].tolist()
        facts = [self.cohort.digest, split, options, self.recipe_name, repr(self.hooks), self.seed]
        return hashlib.blake2b(json.dumps(facts, default=str).encode(), digest_size=8).hexdigest()


def _silent(message: str) -> None:
    """For inner trainings, whose method speaks for them."""


def _mix(*parts: object) -> int:
    """A 63-bit seed that depends on every part, so that epochs, steps and purposes never share random numbers."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
