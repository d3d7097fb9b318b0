"""Tiny cohorts with a planted truth, and tiny pieces of a training run, for tests that run or train a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from trueread.cohort.cohort import Cohort
from trueread.model.classifier import Output
from trueread.training.batches import ImageStore
from trueread.training.config import TrainConfig
from trueread.training.hooks import Hooks, Setup, Step, as_targets
from trueread.training.ledger import Ledger

PLACES = ((2, 2), (2, 9), (9, 2), (9, 9))  # top left corners of the blobs, in sixteenths of the side
TURNS = ("train", "val", "test", "train", "train")  # the split of a class's first, second, ... patient


def tiny_cohort(
    task: str = "binary", *, n: int = 120, side: int = 16, channels: int = 1, depth: int = 0, share: float = 0.5,
    white: int = 255, seed: int = 0,
) -> Cohort:  # fmt: skip
    """n noisy images of which each class but the first has a bright blob at its own place.

    task: binary (class 1 is `share` of all), multiclass (3 classes: 1 - share and twice share / 2), ordinal (4 equal
    classes, the blob is brighter from one to the next) or multilabel (3 labels, each a third, one in ten unknown).
    depth: of volumes; 0 for images. Two images per patient; every class is in every split.
    """
    generator = np.random.default_rng(seed)
    place = [tuple(slice(a * side // 16, (a + 5) * side // 16) for a in corner) for corner in PLACES]
    spatial = (depth, side, side) if depth else (side, side)
    images = generator.normal(0.3, 0.08, size=(n, channels, *spatial))
    if task == "multilabel":
        truth = (generator.random((n, 3)) < 1 / 3).astype(np.float32)
        blocks = truth[:, 0].astype(int)
        strength = [(k, truth[:, k] * 0.4) for k in range(3)]
        labels = np.where(generator.random(truth.shape) < 0.1, np.nan, truth).astype(np.float32)
        classes: tuple[str, ...] = ("opacity", "nodule", "effusion")
    else:
        shares = {"binary": [1 - share, share], "multiclass": [1 - share, share / 2, share / 2], "ordinal": [0.25] * 4}
        counts = np.maximum(np.round(np.array(shares[task]) * n).astype(int), 6)
        counts[0] = n - counts[1:].sum()
        labels = blocks = np.repeat(np.arange(len(counts)), counts).astype(np.int64)
        classes = ("normal", "mild", "moderate", "severe")[: len(counts)]
        strength = [(0, labels * 0.15)] if task == "ordinal" else [(k - 1, (labels == k) * 0.4) for k in set(labels)]
    for where, added in strength:
        images[..., place[where][0], place[where][1]] += added.reshape(n, *(1 for _ in images.shape[1:]))
    table = pd.DataFrame({"patient": "", "split": ""}, index=range(n), dtype=object)
    for block in np.unique(blocks):
        for turn, row in enumerate(np.flatnonzero(blocks == block)):
            table.loc[row] = (f"p{block}-{turn // 2}", TURNS[turn // 2 % len(TURNS)])
    order = generator.permutation(n)
    table = table.iloc[order].reset_index(drop=True)
    table.insert(0, "id", [f"i{k:04d}" for k in range(n)])
    stored = (images.clip(0, 1) * white).round().astype(np.uint8 if white <= 255 else np.uint16)
    return Cohort(
        name=f"tiny-{task}", images=stored[order], labels=labels[order], table=table, classes=classes,
        task=task, white=white,  # type: ignore[arg-type]
    )  # fmt: skip


def tiny_config(**changed: Any) -> TrainConfig:
    """One epoch of the compact network in fp32 on the CPU without augmentation, but for what is `changed`."""
    plain = {"epochs": 1, "batch_size": 24, "precision": "fp32", "device": "cpu", "augment": "none"}
    return TrainConfig(**{**plain, **changed})


def tiny_setup(cohort: Cohort) -> Setup:
    """What `prepare` is given, without a classifier and a loop."""
    rows, cpu = cohort.rows("train"), torch.device("cpu")
    ledger = Ledger(torch.from_numpy(rows), torch.from_numpy(cohort.labels[rows]), epochs=1)
    return Setup(cohort, None, rows, cohort.rows("val"), ImageStore(cohort, cpu), ledger, None, 0, cpu, None)


def tiny_step(logits: torch.Tensor, labels: torch.Tensor, *, images: torch.Tensor | None = None, seed: int = 0) -> Step:
    """One batch for which the network has said `logits`."""
    b = len(labels)
    images = torch.rand(b, 1, 4, 4, generator=torch.Generator().manual_seed(9)) if images is None else images
    return Step(
        torch.arange(b), np.arange(b), images, labels, as_targets(labels, logits.shape[1]), None, None, 0, 1, 0.0,
        torch.Generator().manual_seed(seed), Output(logits, None, {}),
    )  # fmt: skip


class Foreign(nn.Module):
    """A network as somebody else writes it: nested, with in-place activations."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(inplace=True)
        )
        self.out = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.body(x).mean((2, 3)))


class Frozen(Hooks):
    """Learns nothing: no sample weighs anything, and the batch norms keep their statistics."""

    def prepare(self, setup: Setup) -> None:
        for module in setup.classifier.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.0

    def weights(self, step: Step) -> torch.Tensor:
        return torch.zeros(len(step.index))
