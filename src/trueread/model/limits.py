"""When an answer should not be relied on: the decision is a close one, or the image is unlike those of training.

Sources: El-Yaniv and Wiener 2010, JMLR 11 (a classifier with a reject option); Sun et al. 2022, ICML, arXiv 2204.06507
(distance to the k-th nearest features of training images, all of length 1).
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from trueread.model.card import Card

NEAREST = 10  # the image of training whose distance counts; one alone may be an odd one itself
SMALLEST = 1e-7  # probability whose log odds are still taken
UNSURE, UNUSUAL = "unsure", "unlike the training images"


def margins(probabilities: NDArray, card: Card) -> NDArray[np.float64]:
    """float64 [n] >= 0 of calibrated probabilities [n,K]: how far each decision is from another one, in log odds.

    Binary and multilabel: from the threshold (of the label that is nearest to its own). Otherwise the log of the ratio
    of the two largest probabilities.
    """
    p = np.clip(probabilities.astype(np.float64), SMALLEST, 1 - SMALLEST)
    if card.task in ("multiclass", "ordinal"):
        largest = np.sort(np.log(p), axis=1)
        return largest[:, -1] - largest[:, -2]
    p = p if card.task == "multilabel" else p[:, 1:]
    cut = np.clip(np.asarray(0.5 if card.threshold is None else card.threshold, np.float64), SMALLEST, 1 - SMALLEST)
    return np.abs(np.log(p / (1 - p)) - np.log(cut / (1 - cut))).min(axis=1)


def distances(features: Tensor, typical: Tensor) -> Tensor:
    """float [n], in [0,2]: 1 less the cosine between features [n,F] and the tenth nearest (of fewer, the furthest) of
    the typical features [m,F], whose length is 1.
    """
    alike = F.normalize(features.float(), dim=1) @ typical.to(features.device).float().T
    return 1 - alike.topk(min(NEAREST, len(typical)), dim=1).values[:, -1]


def abstentions(margin: NDArray, distance: NDArray | None, card: Card) -> list[str]:
    """For each image "", "unsure" or "unlike the training images"; the latter says more, and wins. distance: None where
    it is not known. Nothing is marked of a classifier without limits.
    """
    limits = card.limits
    if limits is None:
        return [""] * len(margin)
    said = np.where(margin < limits.margin, UNSURE, "")
    if distance is not None and limits.distance is not None:
        said = np.where(distance > limits.distance, UNUSUAL, said)
    return said.tolist()
