"""Which epoch's weights are kept: measured on validation, decided by one stated rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trueread.model.classifier import Classifier, to_probabilities
from trueread.stats.metrics import point
from trueread.training.hooks import as_targets, cross_entropy


def validation_entry(classifier: Classifier, logits: Tensor, labels: np.ndarray) -> dict[str, float]:
    """Loss, AUROC and both accuracies of validation logits float [n,K] for labels int64 [n] or float32 [n,K]."""
    task = classifier.card.task
    targets = as_targets(torch.from_numpy(labels), len(classifier.card.classes))
    probabilities = to_probabilities(logits, classifier.card).numpy()
    return {
        "val_loss": float(cross_entropy(logits, targets, multilabel=task == "multilabel").mean()),
        "val_auroc": point("auroc", probabilities, labels, task=task),
        "val_balanced_accuracy": point("balanced-accuracy", probabilities, labels, task=task),
        "val_accuracy": point("accuracy", probabilities, labels, task=task),
    }


class Selection:
    """The best epoch so far and its weights.

    rule: a key of `SELECTION_RULES`; a tie goes to the lower validation loss, and without validation to the last epoch.
    epoch: counted from 1; 0 before the first. weights: state dict, on the network's device, because fetching it would
    make a GPU wait.
    """

    def __init__(self, rule: str) -> None:
        self.rule = rule
        self.epoch = 0
        self.key: list[float] | None = None
        self.weights: dict[str, Tensor] = {}

    def offer(self, epoch: int, entry: dict[str, float], network: nn.Module) -> None:
        """Keep the weights of `network` when the rule prefers epoch number `epoch` (from 1) to all before it."""
        key = self._key(epoch, entry)
        if self.key is None or key > self.key:
            self.key, self.epoch = key, epoch
            self.weights = {k: v.detach().clone() for k, v in network.state_dict().items()}

    def _key(self, epoch: int, entry: dict[str, float]) -> list[float]:
        if self.rule == "last" or "val_loss" not in entry:
            return [float(epoch), 0.0]
        loss = entry["val_loss"]
        value = -loss if self.rule == "loss" else entry["val_" + self.rule.replace("-", "_")]
        return [value if value == value else -np.inf, -loss]

    def state(self) -> dict[str, Any]:
        """What a killed run needs to go on."""
        return {"key": self.key, "epoch": self.epoch, "weights": self.weights}

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.key, self.epoch, self.weights = state["key"], state["epoch"], state["weights"]
