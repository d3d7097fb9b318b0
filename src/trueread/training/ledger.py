"""The ledger: what the network made of every training sample, epoch by epoch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Ledger:
    """Loss and probability of the given label for each of N training samples, by epoch.

    rows: int64 [N], the samples' positions in the cohort. labels: as given, int64 [N] or float32 [N,K].
    loss, probability: float32 [epochs,N]; nan where a sample was not seen, or has no known label. Both are measured on
    the batch as the network saw it (augmented, in training mode), against the given label whatever the method trains
    on. For multilabel, the loss is the mean over known labels, the probability the geometric mean of theirs.
    epoch: the one being filled; epochs: how many there will be.
    """

    def __init__(self, rows: Tensor, labels: Tensor, *, epochs: int) -> None:
        self.rows, self.labels, self.epochs = rows, labels, epochs
        self.loss = torch.full((epochs, len(rows)), torch.nan)
        self.probability = torch.full((epochs, len(rows)), torch.nan)
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.rows)

    def record(self, index: Tensor, loss: Tensor) -> None:
        """Enter a batch. index: int64 [B] positions in the ledger. loss: float [B], cross-entropy of the given
        label.
        """
        loss = loss.detach().float().cpu()
        index = index.cpu()
        self.loss[self.epoch, index] = loss
        self.probability[self.epoch, index] = torch.exp(-loss)

    def smoothed_loss(self, beta: float = 0.7) -> Tensor:
        """Exponential moving average of the loss over the epochs so far, float32 [N]; nan for samples never seen.

        beta: weight of the past in [0,1); 0 is the last seen loss alone. An epoch in which a sample was not seen leaves
        its average as it was.
        """
        average = torch.full((len(self),), torch.nan)
        for loss in self.loss[: self.epoch + 1]:
            seen = ~loss.isnan()
            start = seen & average.isnan()
            average = torch.where(seen & ~start, beta * average + (1 - beta) * loss, average)
            average = torch.where(start, loss, average)
        return average

    def state(self) -> dict[str, Any]:
        """What a killed run needs to go on."""
        return {"loss": self.loss, "probability": self.probability, "epoch": self.epoch}

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.loss, self.probability, self.epoch = state["loss"], state["probability"], state["epoch"]
