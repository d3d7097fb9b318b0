"""Logits of many images in one pass, and the operating point that validation gives."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from trueread.cohort.cohort import Cohort
from trueread.model.classifier import Classifier, to_probabilities
from trueread.model.predictor import Predictor, device_of
from trueread.stats.calibration import fit_temperature
from trueread.stats.threshold import choose_threshold
from trueread.training.batches import ImageStore, batch_slices
from trueread.training.device import autocast
from trueread.training.processes import Processes

LARGEST_BATCH = {"cpu": 256}  # where more only fills the cache; a GPU is left waiting by less than 2048
PIXELS_AT_ONCE = 2**22  # 4 million pixels or voxels: 83 images of 224 px, 16 volumes of 64^3


def evaluation_batch(spatial: tuple[int, ...], device: torch.device) -> int:
    """Images per forward pass: as many as keep the network's maps in bounded memory, whatever their size."""
    return max(1, min(LARGEST_BATCH.get(device.type, 2048), PIXELS_AT_ONCE // math.prod(spatial)))


@contextmanager
def evaluating(classifier: Classifier) -> Iterator[None]:
    """The classifier in evaluation mode, where a forward pass leaves the batch norms' statistics alone."""
    was_training = classifier.training
    classifier.eval()
    try:
        yield
    finally:
        classifier.train(was_training)


@torch.no_grad()
def predict_logits(
    classifier: Classifier,
    store: ImageStore,
    rows: np.ndarray,
    *,
    precision: str = "fp32",
    together: Processes | None = None,
) -> Tensor:
    """Logits float32 [n,K], on the CPU, of the cohort's images at `rows`, without augmentation, in eval mode.

    together: processes that all call this with the same rows, share the work and all get all logits.
    """
    together = together or Processes()
    mine = rows[together.share(len(rows))]
    was_training = classifier.training
    classifier.eval()
    logits = [torch.empty(0, len(classifier.card.classes), device=store.device)]
    with autocast(store.device, precision):
        for part in batch_slices(len(mine), evaluation_batch(store.images.shape[2:], store.device)):
            images = store.batch(mine[part])
            if images.ndim == 4:
                images = images.contiguous(memory_format=torch.channels_last)
            logits.append(classifier(images, trusted=True).logits.float())
    classifier.train(was_training)
    return together.gathered(torch.cat(logits), len(rows)).cpu()


def predict_probabilities(predictor: Predictor, cohort: Cohort, rows: np.ndarray | None = None) -> np.ndarray:
    """Calibrated probabilities float32 [n,K] of the cohort's images at `rows` (all by default), for any predictor.

    Always in float32, as the threshold was chosen: a lower precision would move scores across it.
    """
    rows = np.arange(len(cohort)) if rows is None else rows
    if isinstance(predictor, Classifier):
        store = ImageStore(cohort, device_of(predictor))
        logits = predict_logits(predictor, store, rows)
        return to_probabilities(logits, predictor.card).numpy()
    store = ImageStore(cohort, torch.device("cpu"))
    parts = [
        predictor.probabilities(store.batch(rows[part]))
        for part in batch_slices(len(rows), evaluation_batch(store.images.shape[2:], store.device))
    ]
    return torch.cat(parts).float().cpu().numpy()


def set_operating_point(classifier: Classifier, logits: Tensor, labels: np.ndarray, *, rule: str) -> None:
    """Fit the temperature and, where a threshold decides, the threshold on validation, and write both into the card.

    logits: float [n,K] of validation images. labels: int64 [n] or float32 [n,K]. rule: see `choose_threshold`.
    """
    card = classifier.card
    card.temperature = fit_temperature(logits.numpy(), labels, task=card.task)
    probabilities = to_probabilities(logits, card).numpy()
    if card.task == "binary" and len(np.unique(labels)) == 2:
        card.threshold = choose_threshold(probabilities[:, 1], labels, rule=rule)
        card.threshold_rule = f"{rule} on validation"
    elif card.task == "multilabel":
        card.threshold = [_label_threshold(p, y, rule=rule) for p, y in zip(probabilities.T, labels.T, strict=True)]
        card.threshold_rule = f"{rule} on validation, per label (0.5 where validation has one class only)"


def _label_threshold(scores: np.ndarray, labels: np.ndarray, *, rule: str) -> float:
    known = ~np.isnan(labels)
    if len(np.unique(labels[known])) < 2:
        return 0.5
    return choose_threshold(scores[known], labels[known].astype(np.int64), rule=rule)
