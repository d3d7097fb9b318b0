"""A whole training step recorded once and replayed: at small images a GPU waits for Python, not Python for the GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trueread.errors import TruereadError

WARM_STEPS = 3  # taken as usual first: libraries choose and allocate in them what a recording may not


class Replay:
    """Takes steps by replaying a CUDA graph of `learn`, which has the same kernels and so gives the same numbers.

    learn: does a whole step, weights included, for samples at positions int64 [batch_size] on `device`, and returns the
        loss; every call must launch the same kernels on the same memory, and fetch nothing.
    generators: those that `learn` draws from; seeded anew before each step, they give what they would without a graph.
    """

    def __init__(
        self, learn: Callable[[Tensor], Tensor], batch_size: int, device: torch.device, *generators: torch.Generator
    ) -> None:
        self.learn, self.generators = learn, generators
        self.index = torch.zeros(batch_size, dtype=torch.int64, device=device)
        self.warm = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, index: Tensor) -> Tensor:
        """The loss of one step on the samples at `index` int64 [batch_size], on any device."""
        self.index.copy_(index, non_blocking=True)
        if self.warm < WARM_STEPS:
            self.warm += 1
            return self.learn(self.index)
        if self.graph is None:
            self.graph = torch.cuda.CUDAGraph()
            for generator in self.generators:
                self.graph.register_generator_state(generator)
            try:
                # records; nothing is computed yet. Other threads may go on using the GPU meanwhile
                with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                    self.loss = self.learn(self.index)
            except RuntimeError as error:
                raise TruereadError(
                    f"a step of this training cannot be recorded as a CUDA graph ({str(error).splitlines()[0]}); "
                    "train with cuda_graph=false."
                ) from error
        self.graph.replay()
        return self.loss.clone()
