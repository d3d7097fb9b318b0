"""What a training step could cost on a GPU: eager, captured in CUDA graphs, compiled; images lie on the device.

None of these can be hooked into, resumed or asked anything: they say what the loop leaves on the table. On a CPU
nothing is captured and `compiled` compiles nothing, so that the same code can be tried there.
Source of the capture: torch's notes on CUDA semantics, "CUDA Graphs" (whole-network and partial-network capture).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timing import Work
from torch import Tensor, nn

from trueread.training.augment import Recipe, augment_batch
from trueread.training.device import autocast

EAGER, TRUE_CHANNELS_LAST = "eager", "eager, grey images in channels-last strides"
NETWORK, STEP, STEP_AUGMENTED = "network captured", "step captured", "step captured, augmentation and all"
COMPILED, COMPILED_STEP = "compiled", "compiled, step captured"
UNCOMPILED = (EAGER, TRUE_CHANNELS_LAST, NETWORK, STEP, STEP_AUGMENTED)
WARM_UP = 3  # eager steps before a capture, so that libraries are initialised and optimiser state is there


@dataclass(frozen=True)
class Given:
    """images: uint8 [N,C,H,W] and labels: int64 [N], on the device. mean, std: of the network's normalisation, for
    images in [0,1]. recipe: for the variant that augments.
    """

    images: Tensor
    labels: Tensor
    white: int
    mean: Tensor
    std: Tensor
    batch_size: int
    precision: str
    recipe: Recipe

    @property
    def device(self) -> torch.device:
        return self.images.device


class Forward(nn.Module):
    """The network in its precision; logits are float32. Autocast's cache is off, as captures ask for."""

    def __init__(self, network: nn.Module, given: Given) -> None:
        super().__init__()
        self.network, self.precision, self.kind = network, given.precision, given.device.type

    def forward(self, images: Tensor) -> Tensor:
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        with torch.autocast(self.kind, dtype=dtype, enabled=self.precision == "bf16", cache_enabled=False):
            return self.network(images).float()


def variant(name: str, network: nn.Module, given: Given, *, steps: int) -> Work:
    """A function that takes `steps` steps of the variant `name` and waits until they are done.

    network: normalised images -> logits, in training mode, on the device; a variant takes it over.
    """
    forward = _forward(name, network, given)
    captured = name in (STEP, STEP_AUGMENTED, COMPILED_STEP) and given.device.type == "cuda"
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True, capturable=captured)
    generator = torch.Generator(given.device)
    index = torch.zeros(given.batch_size, dtype=torch.int64, device=given.device)

    def step() -> Tensor:
        images = _prepared(name, given, index, generator)
        loss = F.cross_entropy(forward(images), given.labels[index])
        loss.backward()
        optimizer.step()
        return loss.detach()

    def eager() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        return step()

    one = _captured(eager, step, optimizer, generator) if captured else eager
    order = torch.randperm(len(given.images), device=given.device)
    order = order.repeat(1 + steps * given.batch_size // len(order))

    def work() -> None:
        loss = torch.zeros(())
        for at in range(0, steps * given.batch_size, given.batch_size):
            index.copy_(order[at : at + given.batch_size])
            loss = one()
        loss.item()  # waits for the device

    return work


def _forward(name: str, network: nn.Module, given: Given) -> Callable[[Tensor], Tensor]:
    forward = Forward(network, given)
    if name in (COMPILED, COMPILED_STEP):
        gpu = given.device.type == "cuda"
        compiled: Callable[[Tensor], Tensor] = torch.compile(forward, backend="inductor" if gpu else "eager")
        return compiled
    if name == NETWORK and given.device.type == "cuda":
        index = torch.zeros(given.batch_size, dtype=torch.int64, device=given.device)
        sample = _prepared(name, given, index, torch.Generator(given.device))
        made: Callable[[Tensor], Tensor] = torch.cuda.make_graphed_callables(forward, (sample,))
        return made
    return forward


def _prepared(name: str, given: Given, index: Tensor, generator: torch.Generator) -> Tensor:
    """The batch as the network wants it, float32 [B,C,H,W]."""
    images = given.images[index].float().div_(given.white)
    if name == STEP_AUGMENTED:
        images = augment_batch(images, given.recipe, generator)
    images = (images - given.mean) / given.std
    if name == TRUE_CHANNELS_LAST:  # of one channel, torch takes any strides for channels-first
        b, c, h, w = images.shape
        return images.permute(0, 2, 3, 1).contiguous().as_strided((b, c, h, w), (h * w * c, 1, w * c, c))
    return images.contiguous(memory_format=torch.channels_last)


def _captured(
    eager: Callable[[], Tensor],
    step: Callable[[], Tensor],
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> Callable[[], Tensor]:
    """A function that replays the whole step; its gradients live in the graph's own memory."""
    eager()  # compiles, on the stream that compiles everything else
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            eager()
    torch.cuda.current_stream().wait_stream(side)
    optimizer.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may pin memory meanwhile
        loss = step()

    def replay() -> Tensor:
        graph.replay()
        return loss

    return replay


def flops_per_image(network: nn.Module, given: Given) -> float:
    """Floating-point operations of convolutions and matrix products, forward and backward; a multiply-add is two."""
    from torch.utils.flop_counter import FlopCounterMode

    index = torch.arange(given.batch_size, device=given.device) % len(given.images)
    images = _prepared(EAGER, given, index, torch.Generator(given.device))
    with FlopCounterMode(display=False) as counter, autocast(given.device, given.precision):
        network(images).float().sum().backward()
    return counter.get_total_flops() / given.batch_size
