"""What stands between a backbone's features and the logits."""

from __future__ import annotations

from typing import Literal

from torch import nn

Head = Literal["linear", "mlp"]
WIDTHS, DROPOUTS = (512, 128), (0.3, 0.2)


def build_head(kind: Head, *, n_features: int, n_classes: int, dropout: float) -> nn.Sequential:
    """[B,n_features] -> logits [B,n_classes]; the last module is linear.

    "linear": dropout and one layer. "mlp": 512 units with batch norm, ReLU and dropout of 0.3, 128 with ReLU and 0.2,
    and one layer. Source of the latter: Shahi and Bagale 2025, arXiv 2511.00456.
    """
    if kind == "linear":
        return nn.Sequential(nn.Dropout(dropout), nn.Linear(n_features, n_classes))
    first, second = WIDTHS
    return nn.Sequential(
        nn.Linear(n_features, first), nn.BatchNorm1d(first), nn.ReLU(), nn.Dropout(DROPOUTS[0]),
        nn.Linear(first, second), nn.ReLU(), nn.Dropout(DROPOUTS[1]), nn.Linear(second, n_classes),
    )  # fmt: skip
