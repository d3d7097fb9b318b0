"""The last layer, fitted once more on features that no longer move."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from trueread.method.base import head_of
from trueread.method.probes import logits_of
from trueread.model.classifier import Classifier
from trueread.training.batches import ImageStore, batch_slices
from trueread.training.evaluate import evaluation_batch
from trueread.training.processes import processes

if TYPE_CHECKING:
    from sklearn.preprocessing import StandardScaler

STRENGTHS = (0.001, 0.01, 0.1, 1.0)  # C of the L2 penalty


@torch.no_grad()
def features_of(classifier: Classifier, store: ImageStore, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """float32 [n,F]: what the last layer sees of the images at `rows`, in eval mode; processes share the work."""
    together, parts = processes(), []
    mine = rows[together.share(len(rows))]
    classifier.eval()
    for part in batch_slices(len(mine), evaluation_batch(store.images.shape[2:], store.device)):
        features = classifier(store.batch(mine[part]), trusted=True).features
        assert features is not None
        parts.append(features.float())
    return together.gathered(torch.cat(parts), len(rows)).cpu().numpy()


def put_last_layer(
    classifier: Classifier, weight: NDArray[np.float64], bias: NDArray[np.float64], scaler: StandardScaler
) -> None:
    """Make weight [K,F] and bias [K], found on scaled features, the classifier's last layer, in every process."""
    weight = weight / scaler.scale_
    head = head_of(classifier)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias - weight @ scaler.mean_))
    processes().same_everywhere([head.weight.data, head.bias.data])


def refit_balanced(
    classifier: Classifier, store: ImageStore, labels: NDArray[np.int64],
    train: NDArray[np.int64], val: NDArray[np.int64],
) -> float:  # fmt: skip
    """Fit the last layer on the images at `train`, classes of equal weight, and return the strength C.

    labels: int64, of all images; every class is in `train`. Of `STRENGTHS` that with the lowest cross-entropy on the
    images at `val`, mean over classes, is taken; the weakest penalty without any.
    """
    from sklearn.linear_model import LogisticRegression  # a second of import that few need
    from sklearn.preprocessing import StandardScaler  # a second of import that few need

    scaler = StandardScaler()
    x = scaler.fit_transform(features_of(classifier, store, train).astype(np.float64))
    fits = [
        LogisticRegression(C=c, class_weight="balanced", max_iter=1000).fit(x, labels[train])
        for c in (STRENGTHS if len(val) else STRENGTHS[-1:])
    ]
    best = 0
    if len(val):
        held, y = scaler.transform(features_of(classifier, store, val).astype(np.float64)), labels[val]
        own = [-model.predict_log_proba(held)[np.arange(len(y)), y] for model in fits]
        best = int(np.argmin([np.mean([loss[y == k].mean() for k in np.unique(y)]) for loss in own]))
    put_last_layer(classifier, *logits_of(fits[best].coef_, fits[best].intercept_), scaler)
    return float(fits[best].C)
