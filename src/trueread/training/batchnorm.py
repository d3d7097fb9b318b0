"""Batch-norm statistics of the weights as they are, for cohorts too small for the running average to keep up."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from trueread.model.classifier import Classifier
from trueread.training.batches import ImageStore, batch_slices
from trueread.training.device import autocast

FEW_STEPS = 30  # per epoch; the default running average still holds 0.9 ** 30 = 4 % of what was before them
IMAGES, BATCH = 512, 128


@torch.no_grad()
def refresh_batch_norm(
    classifier: Classifier, store: ImageStore, rows: np.ndarray, *, seed: int, precision: str
) -> None:
    """Measure mean and variance of every batch norm anew, on up to 512 training images without augmentation.

    rows: int64 [N], the training images' positions in the cohort. seed: draws which of them.
    With few steps per epoch the running average mixes in the statistics of much older weights, and what is then
    validated is another network than the one that was trained.
    Source: Wu and Johnson 2021, Rethinking "batch" in BatchNorm, arXiv 2105.07576, section 3 (precise statistics).
    """
    norms = [m for m in classifier.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return
    drawn = np.random.default_rng(seed).permutation(rows)[:IMAGES]
    was_training, momenta = classifier.training, [m.momentum for m in norms]
    classifier.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches below
    with autocast(store.device, precision):
        for part in batch_slices(len(drawn), BATCH):
            images = store.batch(drawn[part])
            classifier(images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    classifier.train(was_training)
