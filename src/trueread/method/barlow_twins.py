"""Barlow Twins: each dimension of the embedding agrees between two views and says what no other says."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from trueread.method.base import method
from trueread.method.curvature import cross_correlation_loss
from trueread.method.two_views import Batch, Epochs, Objective, Pretraining, Rate, Width

EPSILON = 1e-5  # of the batch norm that the embeddings are standardised with


def barlow_twins_loss(first: Tensor, second: Tensor, *, redundancy: float) -> Tensor:
    """sum_i (1 - C_ii)^2 + redundancy sum_{i != j} C_ij^2, with C float [d,d] the correlation over the batch of the
    dimensions of one embedding with those of the other, float [b,d]. Source: Zbontar et al. 2021, ICML, eq. 1 and 2.
    """
    a, b = ((z - z.mean(0)) / (z.var(0, unbiased=False) + EPSILON).sqrt() for z in (first, second))
    return cross_correlation_loss(a.T @ b / len(a), redundancy=redundancy)


class BarlowObjective(Objective):
    """redundancy: weight of the off-diagonal terms."""

    def __init__(self, redundancy: float) -> None:
        self.redundancy = redundancy

    def __repr__(self) -> str:
        return f"BarlowObjective({self.redundancy})"

    def __call__(self, first: Tensor, second: Tensor) -> dict[str, Tensor]:
        return {"barlow": barlow_twins_loss(first, second, redundancy=self.redundancy)}


@method("barlow-twins", source="Zbontar et al. 2021, Barlow Twins, ICML, arXiv 2103.03230")
class BarlowTwins(Pretraining):
    """First weights from two views of each image, without labels; redundancy between dimensions is reduced."""

    what = "Barlow Twins"

    def __init__(
        self,
        *,
        redundancy: Annotated[float, Field(ge=0, le=10)] = 0.005,
        epochs: Epochs = 50,
        batch_size: Batch = 256,
        learning_rate: Rate = 1e-3,
        weight_decay: Annotated[float, Field(ge=0)] = 1e-4,
        width: Width = 1024,
        views: str = "auto",
    ) -> None:
        """redundancy: weight of the off-diagonal terms. The others: see `Pretraining`."""
        super().__init__(
            epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, weight_decay=weight_decay, width=width,
            views=views,
        )  # fmt: skip
        self.redundancy = redundancy

    def objective(self) -> Objective:
        return BarlowObjective(self.redundancy)
