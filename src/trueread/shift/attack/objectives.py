"""Objectives: what an attack makes larger, one number per image, higher being nearer to fooled.

Without targets an image is fooled by any class but its own; with targets, int64 [B], by that class alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Objective = Literal["cross-entropy", "margin", "dlr"]
Formula = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # logits [B,K], labels [B], targets -> [B]


def cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Cross-entropy of the label, or minus that of the target: [B] of logits float [B,K] and labels int64 [B]."""
    if targets is not None:
        return -F.cross_entropy(logits, targets, reduction="none")
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """The largest other logit less the label's, or the target's less the largest other: positive when fooled.

    Source: Carlini and Wagner 2017, the function f6 without its bound.
    """
    own = labels if targets is None else targets
    others = logits.masked_fill(F.one_hot(own, logits.shape[1]).bool(), -torch.inf).max(1).values
    return others - _of(logits, own) if targets is None else _of(logits, own) - others


def dlr(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Difference of logits ratio, which neither shifting nor scaling the logits changes.

    Without targets it divides the margin by z1 - z3, with them the target's logit less the label's by
    z1 - (z3 + z4) / 2, z being the sorted logits. That needs 3 and 4 classes; with fewer it is the `margin`.
    Source: Croce and Hein 2020, arXiv 2003.01690.
    """
    if logits.shape[1] < (3 if targets is None else 4):
        return margin(logits, labels, targets)
    if targets is None:
        z = logits.topk(3).values
        return margin(logits, labels) / (z[:, 0] - z[:, 2]).clamp_min(1e-12)
    z = logits.topk(4).values
    return (_of(logits, targets) - _of(logits, labels)) / (z[:, 0] - (z[:, 2] + z[:, 3]) / 2).clamp_min(1e-12)


def _of(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes[:, None]).squeeze(1)


OBJECTIVES: Mapping[str, Formula] = {
    "cross-entropy": cross_entropy,
    "margin": margin,
    "dlr": dlr,
}
