"""Linear probes: what a frozen layer says of the label, fitted once and for all."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trueread.cohort.cohort import Cohort
from trueread.method.distillation import layer_vectors
from trueread.model.classifier import Classifier
from trueread.training.batches import ImageStore, batch_slices
from trueread.training.device import forward_pass
from trueread.training.evaluate import evaluation_batch

STRENGTHS = (1.0, 0.1, 0.01, 0.001)  # C of the L2 penalty, on standardised features
FOLDS = 4


@torch.no_grad()
def layer_features(
    classifier: Classifier, store: ImageStore, rows: NDArray[np.int64], layers: list[str], *, precision: str = "fp32"
) -> dict[str, NDArray[np.float32]]:
    """float32 [n,C] of each layer: its mean over positions for the images at `rows`, in eval mode."""
    was_training = classifier.training
    classifier.eval()
    parts: dict[str, list[torch.Tensor]] = {layer: [] for layer in layers}
    for part in batch_slices(len(rows), evaluation_batch(store.images.shape[2:], store.device)):
        with forward_pass(store.device, precision):
            taps = classifier(store.batch(rows[part]), layers, trusted=True).taps
        for layer, vectors in layer_vectors(taps, classifier).items():
            parts[layer].append(vectors.cpu())
    classifier.train(was_training)
    return {layer: torch.cat(vectors).numpy() for layer, vectors in parts.items()}


def fitted_probe(features: NDArray, cohort: Cohort, rows: NDArray[np.int64], *, every: NDArray, seed: int) -> nn.Linear:
    """Multinomial logistic regression of the labels at `rows` on features float [n,F], as a linear layer, frozen.

    every: float [N,F], the same features of all training images, by which they are standardised: what a shortcut moves
    is nearly constant on clean images, and would be blown up. The standardisation is folded into the layer. The
    strength of the L2 penalty is the one of `STRENGTHS` with the smallest cross-validated log loss, folds by patient: a
    probe that is too sure of itself is a useless target. Multilabel: a logistic regression for each label on the images
    where it is known.
    """
    from sklearn.preprocessing import StandardScaler  # a second of import that few need

    scaler = StandardScaler().fit(every)
    x, patients = scaler.transform(features).astype(np.float64), cohort.patient_codes(rows)
    labels = cohort.labels[rows]
    if cohort.task == "multilabel":
        fits = [_of_label(x, labels[:, k], patients, seed=seed) for k in range(cohort.n_classes)]
    else:
        fits = [_regression(x, labels, patients, n_classes=cohort.n_classes, seed=seed)]
    weight, bias = np.concatenate([w for w, _ in fits]) / scaler.scale_, np.concatenate([b for _, b in fits])
    layer = nn.Linear(features.shape[1], len(weight))
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias - weight @ scaler.mean_))
    return layer.requires_grad_(False)


def _of_label(x: NDArray, labels: NDArray, patients: NDArray, *, seed: int) -> tuple[NDArray, NDArray]:
    """Weight [1,F] and bias [1] of one of several labels; a constant where only one of its values is known."""
    known = ~np.isnan(labels)
    y = labels[known].astype(np.int64)
    if len(np.unique(y)) < 2:
        share = (y.sum() + 0.5) / (len(y) + 1)
        return np.zeros((1, x.shape[1])), np.array([np.log(share / (1 - share))])
    weight, bias = _regression(x[known], y, patients[known], n_classes=2, seed=seed)
    return weight[1:] - weight[:1], bias[1:] - bias[:1]


def _regression(x: NDArray, y: NDArray, patients: NDArray, *, n_classes: int, seed: int) -> tuple[NDArray, NDArray]:
    """Weight [K,F] and bias [K]."""
    from sklearn.linear_model import LogisticRegression  # a second of import that few need

    strength = _best_strength(x, y, patients, n_classes=n_classes, seed=seed)
    model = LogisticRegression(C=strength, max_iter=1000).fit(x, y)
    return logits_of(model.coef_, model.intercept_)


def logits_of(weight: NDArray, bias: NDArray) -> tuple[NDArray, NDArray]:
    """Weight [K,F] and bias [K] of scikit-learn's model; of two classes it has the difference of their logits only."""
    if len(bias) == 1:
        return np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias


def _best_strength(x: NDArray, y: NDArray, patients: NDArray, *, n_classes: int, seed: int) -> float:
    from sklearn.linear_model import LogisticRegression  # a second of import that few need
    from sklearn.model_selection import StratifiedGroupKFold  # a second of import that few need

    first = np.unique(patients, return_index=True)[1]
    rarest = np.bincount(y[first], minlength=n_classes).min()
    if rarest < 2:  # a fold without the class could not be fitted
        return STRENGTHS[-1]
    folds = StratifiedGroupKFold(min(FOLDS, int(rarest)), shuffle=True, random_state=seed % 2**32)
    loss = np.zeros(len(STRENGTHS))
    for train, held in folds.split(x, y, patients):
        if len(np.unique(y[train])) < n_classes:
            return STRENGTHS[-1]
        for place, strength in enumerate(STRENGTHS):
            model = LogisticRegression(C=strength, max_iter=1000).fit(x[train], y[train])
            loss[place] -= model.predict_log_proba(x[held])[np.arange(len(held)), y[held]].sum()
    return STRENGTHS[int(loss.argmin())]
