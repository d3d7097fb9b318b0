"""Looking inside a network: named intermediate maps, caught in the same forward pass, for CNNs and transformers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


@contextmanager
def capture(network: nn.Module, outputs: Mapping[str, str], head: str | None) -> Iterator[dict[str, Tensor]]:
    """Collect, during the forward passes inside the block, what some modules put out and what the head takes in.

    outputs: tap name -> module path. head: path of the last layer, whose input is stored under "features".
    The tensors are part of the graph, so that gradients with respect to them can be asked for.
    """
    caught: dict[str, Tensor] = {}
    handles: list[RemovableHandle] = []

    def keep(name: str) -> object:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: object) -> None:
            caught[name] = output[0] if isinstance(output, (tuple, list)) else output  # type: ignore[assignment]

        return hook

    def keep_input(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        caught["features"] = inputs[0]

    try:
        for name, path in outputs.items():
            handles.append(network.get_submodule(path).register_forward_hook(keep(name)))  # type: ignore[arg-type]
        if head is not None:
            handles.append(network.get_submodule(head).register_forward_pre_hook(keep_input))
        yield caught
    finally:
        for handle in handles:
            handle.remove()


def as_map(tap: Tensor, *, channels: int) -> Tensor:
    """A tap as a feature map [B,C,h,w] (volumes: [B,C,d,h,w]), whatever the family's layout is.

    CNN maps pass; channels-last maps (Swin) are permuted; tokens [B,T,C] lose their prefix tokens (class, registers)
    and are laid out on their square grid. channels: C, as the tap's entry states it.
    Raises ValueError when the tokens do not form a square.
    """
    if tap.ndim == 3:
        side = math.isqrt(tap.shape[1])
        if side == 0:
            raise ValueError(f"{tap.shape[1]} tokens are no image")
        tokens = tap[:, tap.shape[1] - side * side :]
        return tokens.transpose(1, 2).reshape(tap.shape[0], tap.shape[2], side, side)
    if tap.ndim == 4 and tap.shape[1] != channels and tap.shape[-1] == channels:
        return tap.permute(0, 3, 1, 2)
    return tap


def pooled(tap: Tensor, *, channels: int) -> Tensor:
    """A tap as one vector per image [B,C]: mean over positions; for tokens, over all of them."""
    if tap.ndim == 2:
        return tap
    if tap.ndim == 3:
        return tap.mean(1)
    return as_map(tap, channels=channels).flatten(2).mean(2)


def find_taps(network: nn.Module) -> dict[str, tuple[str, int]]:
    """Taps of a network nobody has described: the last convolution of each resolution-bearing top-level part, in
    order.
    """
    taps: dict[str, tuple[str, int]] = {}
    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            taps[name] = (name, module.out_channels)
    names = list(taps)
    keep = {names[round(i * (len(names) - 1) / 4)] for i in range(5)} if len(names) > 5 else set(names)
    return {n: t for n, t in taps.items() if n in keep}


def find_head(network: nn.Module) -> str | None:
    """Path of the last linear layer, whose input is taken as the features; None when there is none."""
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    return linear[-1] if linear else None
