"""One step of the training: a batch, what the network sees of it, what it says, what it is told."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trueread.model.classifier import Classifier
from trueread.training.augment import Draws, Recipe, apply_move, draw_move, recolour
from trueread.training.hooks import Hooks, Setup, Step, as_targets, cross_entropy
from trueread.training.processes import Processes
from trueread.training.replay import Replay
from trueread.training.schedule import learning_rate_factor, update_average


@dataclass
class Epoch:
    """The epoch under way: its samples' order, how many steps are done, the sum of losses, the seconds it took."""

    number: int
    order: np.ndarray
    done: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0


@dataclass
class Stepper:
    """Takes one step. Everything random in it is seeded by epoch and step alone, so that a run can go on from any."""

    setup: Setup
    hooks: Hooks
    recipe: Recipe
    optimizer: torch.optim.Optimizer
    average: Classifier | None
    together: Processes
    steps_per_epoch: int

    def __post_init__(self) -> None:
        self.cohort, self.config, device = self.setup.cohort, self.setup.config, self.setup.device
        self.classifier, self.ledger = self.setup.classifier, self.setup.ledger
        self.labels = self.ledger.labels.to(device)
        self.train_rows = torch.from_numpy(self.setup.train_rows)
        self.generator = torch.Generator(device)
        self.rate = torch.zeros((), device=device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.setup.precision == "fp16")  # off, it does nothing
        self.replay: Replay | None = None
        if can_replay(self.setup, self.hooks, self.together):
            self.train_rows = self.train_rows.to(device)
            self.replay = Replay(self._learn, self.config.batch_size, device, self.generator)

    def __call__(self, epoch: Epoch, index: np.ndarray) -> Tensor:
        """Learn from the training samples at positions `index`. Returns this process's part of the batch's loss."""
        self._set_rate(epoch)
        seed = mix(self.setup.seed, "step", epoch.number, epoch.done)
        self.generator.manual_seed(seed)
        seed_default(mix(seed, "network", self.together.rank), self.setup.device)
        self.epoch, self.seed = epoch, seed
        positions = torch.from_numpy(index)
        if self.replay is not None and len(index) == self.config.batch_size:
            return self.replay(positions)
        return self._learn(positions)

    def _set_rate(self, epoch: Epoch) -> None:
        done, total = self._done(epoch)
        factor = learning_rate_factor(done, total, warmup=self.config.warmup, schedule=self.config.schedule)
        rate: float | Tensor = self.config.learning_rate * factor
        if self.replay is not None:  # which reads the number from its place on the GPU
            rate = self.rate.fill_(rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _done(self, epoch: Epoch) -> tuple[int, int]:
        """(steps that are over, all steps) of the training."""
        return epoch.number * self.steps_per_epoch + epoch.done, self.steps_per_epoch * self.config.epochs

    def _learn(self, index: Tensor) -> Tensor:
        step = self.batch(index)
        self.hooks.perturb(step)
        with step.autocast():
            step.output = self.classifier(step.images, taps=self.hooks.taps)
        loss = self.loss(step, len(index))
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.together.sum_gradients(trained)
        if self.config.clip_norm:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(trained, self.config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            update_average(self.average, self.classifier, decay=self.config.ema_decay or 0.0)
        with torch.no_grad():
            self.ledger.record(step.index, loss_of_given(step.logits, step.labels))
        return loss.detach()

    def batch(self, index: Tensor) -> Step:
        """This process's share of the samples at positions `index` int64 [B], augmented."""
        mine = self.together.share(len(index))
        draws = Draws(self.generator, len(index), mine)
        index = index[mine]
        picked = self.train_rows[index]
        stored = self.setup.store.batch(picked)
        rows = np.empty(0, np.int64) if picked.is_cuda else picked.numpy()  # a replayed step fetches nothing
        move = draw_move(stored, self.recipe, draws)
        images = recolour(stored if move is None else apply_move(stored, move), self.recipe, draws)
        if images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        if self.together.size > 1:  # what methods draw for their shares must differ
            self.generator.manual_seed(mix(self.seed, "rank", self.together.rank))
        labels = self.labels[index.to(self.labels.device, non_blocking=True)]
        done, total = self._done(self.epoch)
        return Step(
            index, rows, images, labels, as_targets(labels, self.cohort.n_classes), self.classifier, self.ledger,
            self.epoch.number, self.config.epochs, done / total, self.generator, precision=self.setup.precision,
            stored_masks=self.cohort.masks, move=move,
        )  # fmt: skip

    def loss(self, step: Step, n: int) -> Tensor:
        """The loss of the share `step` of a batch of n images: the shares' losses add up to that of the batch."""
        losses = self.hooks.losses(step)
        step.per_sample_loss = losses
        weights = self.hooks.weights(step)
        if weights is None:
            loss = losses.sum() / n
        else:
            weights = weights.detach().to(losses)
            loss = (weights * losses).sum() / self.together.sum(weights.sum()).clamp_min(1e-8)
        for term in self.hooks.penalty(step).values():
            loss = loss + term * (len(step.images) / n)
        return loss


def can_replay(setup: Setup, hooks: Hooks, together: Processes) -> bool:
    """True when every full step launches the same kernels: on a GPU that holds all images, alone, with a method that
    says so of itself (`replayable`).
    """
    return (
        setup.config.cuda_graph
        and setup.device.type == "cuda"
        and setup.precision != "fp16"  # whose loss scaling looks at the gradients
        and together.size == 1
        and getattr(setup.store, "resident", None) is not None
        and (hooks.replayable or type(hooks) is Hooks)
    )


def loss_of_given(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy float [B] of logits float [B,K] against the labels as given, int64 [B] or float [B,K] in {0,1,nan};
    nan where nothing is known of an image.
    """
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels, reduction="none")
    return torch.where(labels.isnan().all(1), torch.nan, cross_entropy(logits, labels, multilabel=True))


def seed_default(seed: int, device: torch.device) -> None:
    """Seed the generators that draw when none is given, on the CPU and on `device`.

    `torch.manual_seed` does so for every accelerator there might be and takes 90 times as long, in every step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def mix(*parts: object) -> int:
    """A 63-bit seed that depends on every part, so that epochs, steps and purposes never share random numbers."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
