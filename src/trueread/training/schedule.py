"""Learning rate, optimiser and averaged weights; functions of the step, so that resuming needs no extra state."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from trueread.training.config import TrainConfig


def learning_rate_factor(step: int, steps: int, *, warmup: float, schedule: str) -> float:
    """Share of the full learning rate at `step` of `steps`, in (0, 1]: linear warm-up, then cosine, linear or constant.

    warmup: share of all steps. The first step already moves, the last one still does.
    """
    warm = math.ceil(warmup * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    if schedule == "constant":
        return 1.0
    over = (step - warm) / max(steps - warm, 1)
    return 1 - over if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * over))


def make_optimizer(
    modules: nn.Module,
    extra: Iterable[nn.Parameter],
    config: TrainConfig,
    *,
    fused: bool = True,
    capturable: bool = False,
) -> torch.optim.Optimizer:
    """The configured optimiser; norms, biases and other vectors are not decayed.

    fused: one pass over all weights (6 times faster on a CPU); not with fp16, whose loss scaling has to look between.
    capturable: its steps will be recorded in a CUDA graph.
    """
    parameters = [p for p in (*modules.parameters(), *extra) if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=config.learning_rate, momentum=config.momentum, nesterov=config.momentum > 0, fused=fused
        )
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.learning_rate, fused=fused, capturable=capturable)


@torch.no_grad()
def update_average(average: nn.Module, current: nn.Module, *, decay: float) -> None:
    """Move `average` towards `current`: parameters by 1 - decay, buffers (batch-norm statistics) all the way."""
    torch._foreach_lerp_(list(average.parameters()), list(current.parameters()), 1 - decay)
    for mine, theirs in zip(average.buffers(), current.buffers(), strict=True):
        mine.copy_(theirs)
