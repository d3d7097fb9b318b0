"""The limits of a trained classifier, from its validation images."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trueread.cohort.cohort import Cohort
from trueread.model.card import Limits
from trueread.model.classifier import Classifier
from trueread.model.limits import distances, margins
from trueread.model.predictor import device_of
from trueread.training.batches import ImageStore, batch_slices
from trueread.training.evaluate import evaluating, evaluation_batch

KEPT = 1000  # training images whose features are kept
ASKED = 2000  # validation images, at most
LEAST_SURE, MOST_UNUSUAL = 0.1, 0.01  # shares of validation that the limits leave out


def set_limits(classifier: Classifier, cohort: Cohort, *, probabilities: np.ndarray) -> None:
    """Write into the card, beside the threshold, when an answer is unsure and when an image is unusual, and keep the
    features of up to 1,000 training images in `classifier.typical`.

    probabilities: calibrated, float [n,K], of the cohort's validation images. The tenth of them with the smallest
    margin is unsure, the hundredth with the largest distance unusual. Nothing is done without validation.
    """
    val, train = cohort.rows("val"), cohort.rows("train")
    if not len(val):
        return
    margin = float(np.quantile(margins(probabilities, classifier.card), LEAST_SURE))
    rule = f"the {LEAST_SURE:.0%} of validation with the smallest margin are unsure"
    typical, asked = (features_of(classifier, cohort, _spread(rows, n)) for rows, n in ((train, KEPT), (val, ASKED)))
    distance = None
    if typical is not None and asked is not None:
        classifier.typical = F.normalize(typical, dim=1).half()
        found = distances(asked, classifier.typical).numpy()
        distance = float(np.quantile(found, 1 - MOST_UNUSUAL))
        rule += f", the {MOST_UNUSUAL:.0%} furthest from training images unusual"
    classifier.card.limits = Limits(margin=margin, distance=distance, rule=rule)


@torch.no_grad()
def features_of(classifier: Classifier, cohort: Cohort, rows: np.ndarray) -> Tensor | None:
    """float32 [n,F], on the CPU, of the cohort's images at `rows`; None of a network whose features are not known."""
    store, found = ImageStore(cohort, device_of(classifier)), []
    with evaluating(classifier):
        for part in batch_slices(len(rows), evaluation_batch(cohort.spatial, store.device), at_least=1):
            features = classifier(store.batch(rows[part]), trusted=True).features
            if features is None:
                return None
            found.append(features.float().cpu())
    return torch.cat(found)


def _spread(rows: np.ndarray, n: int) -> np.ndarray:
    """At most n of the rows, from all over them."""
    return rows[np.linspace(0, len(rows) - 1, min(n, len(rows))).astype(int)]
