"""VICReg: two views' embeddings are near each other, no dimension is constant, and none repeats another."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from trueread.method.base import method
from trueread.method.two_views import Batch, Epochs, Objective, Pretraining, Rate, Width

EPSILON = 1e-4  # of the standard deviation
Weight = Annotated[float, Field(ge=0, le=1000)]


def vicreg_terms(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Invariance (mean squared distance), variance (hinge of the standard deviation at 1, mean over dimensions and
    views) and covariance (sum of squared off-diagonal entries over d, sum over views) of embeddings float [b,d].
    Source: Bardes, Ponce and LeCun 2022, ICLR, eq. 1 to 5.
    """
    centred = [z - z.mean(0) for z in (first, second)]
    variance = torch.stack([F.relu(1 - (z.var(0) + EPSILON).sqrt()).mean() for z in centred]).mean()
    covariance = torch.zeros((), device=first.device)
    for z in centred:
        matrix = z.T @ z / (len(z) - 1)
        covariance = covariance + (matrix.square().sum() - matrix.diagonal().square().sum()) / z.shape[1]
    return F.mse_loss(first, second), variance, covariance


class VicregObjective(Objective):
    """weights: of invariance, variance and covariance."""

    def __init__(self, weights: tuple[float, float, float]) -> None:
        self.weights = weights

    def __repr__(self) -> str:
        return f"VicregObjective{self.weights}"

    def __call__(self, first: Tensor, second: Tensor) -> dict[str, Tensor]:
        names, terms = ("invariance", "variance", "covariance"), vicreg_terms(first, second)
        return {n: w * t for n, w, t in zip(names, self.weights, terms, strict=True)}


@method("vicreg", source="Bardes, Ponce and LeCun 2022, VICReg, ICLR, arXiv 2105.04906")
class Vicreg(Pretraining):
    """First weights from two views of each image, without labels; variance, invariance and covariance in turn."""

    what = "VICReg"

    def __init__(
        self,
        *,
        invariance: Weight = 25.0,
        variance: Weight = 25.0,
        covariance: Weight = 1.0,
        epochs: Epochs = 50,
        batch_size: Batch = 256,
        learning_rate: Rate = 1e-3,
        weight_decay: Annotated[float, Field(ge=0)] = 1e-4,
        width: Width = 1024,
        views: str = "auto",
    ) -> None:
        """invariance, variance, covariance: weights of the three terms. The others: see `Pretraining`."""
        super().__init__(
            epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, weight_decay=weight_decay, width=width,
            views=views,
        )  # fmt: skip
        self.of_terms = (invariance, variance, covariance)

    def objective(self) -> Objective:
        return VicregObjective(self.of_terms)
