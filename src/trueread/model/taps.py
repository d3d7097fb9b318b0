"""Looking inside a network: named intermediate maps, caught in the same forward pass, for CNNs and transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: object) -> object:
            if isinstance(output, (tuple, list)):
                caught[name] = output[0]
                return None
            caught[name] = output  # type: ignore[assignment]
            return output.clone()  # type: ignore[attr-defined]  # an in-place activation that follows changes the copy

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


def as_map(tap: Tensor, *, channels: int, size: Sequence[int]) -> Tensor:
    """A tap as a feature map [B,C,h,w] (volumes: [B,C,d,h,w]), whatever the family's layout is.

    CNN maps pass; channels-last maps (Swin) are permuted; tokens [B,T,C] lose their prefix tokens (class, registers)
    and are laid out on their grid. channels: C, as the tap's entry states it; 0 when nobody said. size: (H, W) of the
    images, whose patches the tokens are. Raises ValueError when there are too few tokens for any grid.
    """
    if tap.ndim == 3:
        h, w = token_grid(tap.shape[1], size)
        return tap[:, tap.shape[1] - h * w :].transpose(1, 2).reshape(tap.shape[0], tap.shape[2], h, w)
    return _channels_first(tap, channels)


def token_grid(n_tokens: int, size: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of the patches of an image of `size` (H, W): the finest grid of square patches that has at most
    `n_tokens` of them. The tokens that are left over are the prefix.
    """
    for patch in range(1, min(size) + 1):
        h, w = size[0] // patch, size[1] // patch
        if h * w <= n_tokens:
            return h, w
    raise ValueError(f"{n_tokens} tokens are no image of {size[0]}x{size[1]}")


def pooled(tap: Tensor, *, channels: int) -> Tensor:
    """A tap as one vector per image float32 [B,C]: mean over positions; for tokens, over all of them."""
    tap = tap.float()  # a mixed-precision tap loses digits in a sum over positions
    if tap.ndim == 2:
        return tap
    if tap.ndim == 3:
        return tap.mean(1)
    return _channels_first(tap, channels).flatten(2).mean(2)


def _channels_first(tap: Tensor, channels: int) -> Tensor:
    """A map of an image [B,C,h,w] from [B,h,w,C]; told by `channels`, or, when that is 0, by which two axes agree."""
    if tap.ndim != 4:
        return tap
    last = tap.shape[1] == tap.shape[2] != tap.shape[3] if channels == 0 else tap.shape[3] == channels != tap.shape[1]
    return tap.permute(0, 3, 1, 2) if last else tap


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
