"""The ledger: what the network made of every training sample, epoch by epoch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trueread.training.processes import Processes


class Ledger:
    """Loss and probability of the given label for each of N training samples, by epoch.

    rows: int64 [N], the samples' positions in the cohort. labels: as given, int64 [N] or float32 [N,K].
    loss, probability: float32 [epochs,N]; nan where a sample was not seen, or has no known label. Both are measured on
    the batch as the network saw it (augmented, in training mode), against the given label whatever the method trains
    on. For multilabel, the loss is the mean over known labels, the probability the geometric mean of theirs.
    validation: float32 [epochs], the cross-entropy of validation's labels after each epoch; nan without validation.
    epoch: the one being filled; epochs: how many there will be. Its row is filled when the epoch closes.
    """

    def __init__(self, rows: Tensor, labels: Tensor, *, epochs: int) -> None:
        self.rows, self.labels, self.epochs = rows, labels, epochs
        self.loss = torch.full((epochs, len(rows)), torch.nan)
        self.probability = torch.full((epochs, len(rows)), torch.nan)
        self.validation = torch.full((epochs,), torch.nan)
        self.epoch = 0
        self._now: Tensor | None = None  # losses of the epoch being filled, where the batches are
        self._open = False

    def open(self, epoch: int, device: torch.device) -> None:
        """Go on with entries for `epoch`, which stay on `device` until it closes: fetching them would make a GPU wait
        in every step.
        """
        self.epoch, self._open = epoch, True
        if self._now is None:
            self._now = torch.empty(len(self), device=device)
        self._now.copy_(self.loss[epoch])

    def __len__(self) -> int:
        return len(self.rows)

    def record(self, index: Tensor, loss: Tensor) -> None:
        """Enter a batch of the open epoch. index: int64 [B] positions in the ledger. loss: float [B], cross-entropy of
        the given label.
        """
        assert self._now is not None, "open the epoch first"
        self._now[index.to(self._now.device, non_blocking=True)] = loss.detach().float()

    def close(self, together: Processes | None = None) -> None:
        """Bring what was entered since into `loss` and `probability`, from all processes that train `together`."""
        if not self._open or self._now is None:
            return
        loss = self._now
        if together is not None and together.size > 1:
            seen = together.sum((~loss.isnan()).float())
            loss = together.sum(loss.nan_to_num(0.0)) / seen  # 0 / 0 where no process has seen it
        self.loss[self.epoch] = loss.cpu()
        self.probability[self.epoch] = torch.exp(-self.loss[self.epoch])
        self._open = False

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
        entries = {"loss": self.loss, "probability": self.probability, "validation": self.validation}
        return entries | {"epoch": self.epoch}

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.loss, self.probability, self.epoch = state["loss"], state["probability"], state["epoch"]
        self.validation = state["validation"]
