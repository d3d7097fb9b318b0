"""Self-paced learning: easy samples first, harder ones as the training goes on."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trueread.method.base import method
from trueread.method.selecting import LEAST, Selecting, latest, lowest
from trueread.training.ledger import Ledger


@method(
    "self-paced", source="Kumar, Packer and Koller 2010, NeurIPS; a share of the samples instead of a loss threshold"
)
class SelfPaced(Selecting):
    """Learns from the share of samples with the lowest loss, a share that grows."""

    def __init__(
        self,
        *,
        first: Annotated[float, Field(gt=0, le=1)] = 0.5,
        last: Annotated[float, Field(gt=0, le=1)] = 1.0,
        reached: Annotated[float, Field(gt=0, le=1)] = 0.8,
    ) -> None:
        """first, last: the share of samples, after the first epoch and when the share `reached` of the run is over."""
        self.first, self.last, self.reached = first, last, reached

    def after_epoch(self, ledger: Ledger) -> None:
        self.score = latest(ledger)
        grown = min(1.0, (ledger.epoch + 1) / max(1.0, self.reached * ledger.epochs))
        share = self.first + (self.last - self.first) * grown
        self.keep = lowest(self.score, share, labels=self.labels, least=LEAST).float()
