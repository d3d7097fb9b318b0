"""The least a training step can be: forward, loss, backward, optimiser, on batches that lie ready on the device."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trueread.training.device import autocast


def bare_step(
    network: nn.Module, *, precision: str, device: torch.device, lr: float = 1e-3
) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of images float [B,C,H,W], normalised, and labels int64 [B] that learns from them; returns the loss.

    precision: "fp32" or "bf16", as the loop's. The optimiser is the fastest that torch has for the loop's default.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, fused=True)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        with autocast(device, precision):
            logits = network(images)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def trainer(
    network: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int, precision: str, device: torch.device
) -> Callable[[], int]:
    """A function that trains one epoch on images float [N,C,H,W] and labels int64 [N], both on the device, in order,
    and returns how many images it took.
    """
    step = bare_step(network, precision=precision, device=device)
    batches = [
        (x.contiguous(memory_format=torch.channels_last), y)
        for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True)
    ]

    def epoch() -> int:
        network.train()
        loss = torch.zeros(())
        for x, y in batches:
            loss = step(x, y)
        loss.item()  # a GPU has to be done
        return len(images)

    return epoch
