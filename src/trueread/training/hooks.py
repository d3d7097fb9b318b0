"""What a method may hook into: the seam between the one loop and every idea about how to train.

The loop calls these and knows no method by name. All of them do nothing by default, which is empirical risk
minimisation (ERM).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trueread.cohort.cohort import Cohort
from trueread.model.classifier import Classifier, Output
from trueread.training.augment import apply_move
from trueread.training.batches import ImageStore
from trueread.training.config import TrainConfig
from trueread.training.device import forward_pass
from trueread.training.ledger import Ledger

if TYPE_CHECKING:
    from trueread.training.loop import Fitted


@dataclass
class Setup:
    """What is known before the first step, for `prepare` and `finish`.

    classifier: the one that will be trained; its weights may be replaced in `prepare` (pretraining).
    train_rows, val_rows: int64 positions in the cohort. store: gives batches of the cohort's images; a method that
        makes its own training images (perturbed ones) puts its store here, and validation keeps the cohort's.
    fit: trains another classifier with the same loop: `fit(cohort, hooks, config, seed=...) -> Fitted` (a teacher, an
        identification model). folder: where a method may keep files for this run, or None.
    precision: of the run's forward passes; see `autocast`.
    """

    cohort: Cohort
    classifier: Classifier
    train_rows: np.ndarray
    val_rows: np.ndarray
    store: ImageStore
    ledger: Ledger
    config: TrainConfig
    seed: int
    device: torch.device
    fit: Callable[..., Fitted]
    folder: Path | None = None
    precision: str = "fp32"

    def autocast(self) -> AbstractContextManager[None]:
        """The run's precision for the forward passes of a method's own training; outside of it, they are float32."""
        return forward_pass(self.device, self.precision)

    def train_labels(self) -> Tensor:
        """Given labels of the training split: int64 [N] or float32 [N,K]."""
        return self.ledger.labels


@dataclass
class Step:
    """One batch on its way through the loop.

    index: int64 [B] positions in the ledger. rows: int64 [B] positions in the cohort. images: float [B,C,...] in [0,1],
    augmented; `perturb` may replace them. labels: as given, int64 [B] or float32 [B,K]. targets: float [B,K], what the
    loss is taken against (one-hot of the labels; `perturb` may soften or mix them; nan = unknown label).
    classifier: in training mode, where each further forward pass moves the batch norms' statistics; an attack puts it
    in eval() and back. output: what the network said, in the run's precision; there from `losses` on.
    per_sample_loss: float [B], there from `weights` on. precision: of the run's forward passes; see `autocast`.
    done: share of the whole training that is over, in [0,1). generator: on the batch's device, seeded by the step.
    stored_masks, move: the cohort's masks and how augmentation moved each image; `masks` puts them together.
    notes: for a method to carry something from one of its hooks to the next.
    """

    index: Tensor
    rows: np.ndarray
    images: Tensor
    labels: Tensor
    targets: Tensor
    classifier: Classifier
    ledger: Ledger
    epoch: int
    epochs: int
    done: float
    generator: torch.Generator
    output: Output | None = None
    per_sample_loss: Tensor | None = None
    precision: str = "fp32"
    stored_masks: np.ndarray | None = None
    move: Tensor | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def autocast(self) -> AbstractContextManager[None]:
        """The run's precision for further forward passes (a teacher's, an attack's). The hooks themselves run in
        float32, where sums and second derivatives keep their digits.
        """
        return forward_pass(self.images.device, self.precision)

    def masks(self) -> Tensor | None:
        """float [B,1,...] in [0,1]: the images' masks (see `Cohort.masks`), moved along with them; None without any."""
        if self.stored_masks is None:
            return None
        masks = torch.from_numpy((self.stored_masks[self.rows] > 0).astype(np.float32))[:, None].to(self.images.device)
        return masks if self.move is None else apply_move(masks, self.move)

    @property
    def multilabel(self) -> bool:
        return self.labels.ndim == 2

    @property
    def logits(self) -> Tensor:
        """float32 [B,K]; there from `losses` on."""
        assert self.output is not None, (
            "the network has not seen this batch yet: use logits in losses, weights or penalty"
        )
        return self.output.logits.float()


class Hooks:
    """A method, as the loop sees it. Override what the idea needs."""

    taps: tuple[str, ...] = ()  # intermediate maps the training's forward pass should bring along
    replayable: bool = False  # True: within a step, these hooks are tensor operations on the device and nothing else;
    # they read neither `rows` nor `epoch` nor `done`, and what they keep stays in place. See `training.replay`.

    def prepare(self, setup: Setup) -> None:
        """Once, before the first step: train a teacher, pretrain the backbone, estimate a prior."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """Further weights to train along with the classifier's (probes, projectors)."""
        return ()

    def sampling(self, ledger: Ledger) -> Tensor | None:
        """At each epoch's start: probability of drawing each training sample, float [N], drawn with replacement; None
        is every sample once."""
        return None

    def perturb(self, step: Step) -> None:
        """Before the network sees the batch: replace `step.images` or `step.targets`."""

    def losses(self, step: Step) -> Tensor:
        """Loss of each sample, float [B]. At most one of several composed methods may replace it."""
        return cross_entropy(step.logits, step.targets, multilabel=step.multilabel)

    def weights(self, step: Step) -> Tensor | None:
        """Weight of each sample, float [B] >= 0, a constant to the gradient; None is one. The batch's loss is divided
        by their sum.
        """
        return None

    def penalty(self, step: Step) -> dict[str, Tensor]:
        """Named extra terms of the loss, each a scalar."""
        return {}

    def after_epoch(self, ledger: Ledger) -> None:
        """Look at every sample's history and change the plan."""

    def finish(self, setup: Setup) -> None:
        """Once, after the last epoch, with the selected weights in place: refit a layer, keep what was found out."""

    def report(self) -> dict[str, Any]:
        """What the run's record should say of this method beyond its options: weights used, noise rate found, ..."""
        return {}

    def state(self) -> dict[str, Any]:
        """What a killed run needs to go on: tensors, numbers, strings and containers of them."""
        return {}

    def load_state(self, state: dict[str, Any], setup: Setup) -> None:
        """The inverse of `state`, called instead of `prepare` in a run that goes on after an interruption."""

    def __repr__(self) -> str:
        """What tells this method and its options from another: a checkpoint is only continued by the same."""
        return type(self).__name__


def cross_entropy(logits: Tensor, targets: Tensor, *, multilabel: bool = False) -> Tensor:
    """Cross-entropy per sample [B] of logits [B,K] against targets [B,K].

    Softmax for distributions over classes. Multilabel: binary cross-entropy, mean over the known labels (nan =
    unknown).
    """
    if not multilabel:
        return F.cross_entropy(logits, targets, reduction="none")
    known = ~targets.isnan()
    loss = F.binary_cross_entropy_with_logits(logits, targets.nan_to_num(0.0), reduction="none")
    return (loss * known).sum(1) / known.sum(1).clamp_min(1)


def as_targets(labels: Tensor, n_classes: int) -> Tensor:
    """Given labels as float targets [B,K]: one-hot for int64 [B], themselves for float [B,K]."""
    return labels.float() if labels.ndim == 2 else F.one_hot(labels, n_classes).float()
