"""Batches without a per-image Python step: stored integers to float images in [0,1], on the device where they fit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from trueread.cohort.cohort import Cohort
from trueread.cohort.mapped import Rows, pieces


class ImageStore:
    """The cohort's images as the network's input.

    On a GPU the stored integers move to the device once when they take less than a third of its free memory; otherwise,
    and on the CPU, each batch is picked from the array, and from a memory-mapped one in bounded memory.
    """

    def __init__(self, cohort: Cohort, device: torch.device) -> None:
        self.images, self.white, self.device = cohort.images, cohort.white, device
        self.resident: Tensor | None = None
        if device.type == "cuda" and cohort.images.nbytes < torch.cuda.mem_get_info(device)[0] / 3:
            self.resident = _on_device(cohort.images, device)
        self.divisor = torch.tensor(float(cohort.white), device=device)  # by a number, CUDA multiplies with its inverse
        self.stored = Rows(cohort.images)

    def batch(self, rows: np.ndarray | Tensor) -> Tensor:
        """float32 [B,C,...] in [0,1] of the images at `rows` (int64 [B], on any device)."""
        rows = torch.as_tensor(rows)
        if self.resident is not None:
            picked = self.resident[rows.to(self.device, non_blocking=True)]
            if picked.dtype == torch.int16:  # torch has no arithmetic on uint16
                picked = picked.to(torch.int32).bitwise_and(0xFFFF)
            return picked.float().div_(self.divisor)
        return unit_intensities(self.stored[rows.numpy()], self.white).to(self.device, non_blocking=True)


def _on_device(images: np.ndarray, device: torch.device) -> Tensor:
    """uint8, or int16 with the bits of uint16, copied piece by piece: a memory-mapped array may exceed the memory."""
    there = torch.empty(images.shape, dtype=torch.int16 if images.dtype == np.uint16 else torch.uint8, device=device)
    start = 0
    for piece in pieces(images):
        own = np.array(piece)  # one that torch may write to
        there[start : start + len(own)] = torch.from_numpy(own.view(np.int16) if own.dtype == np.uint16 else own)
        start += len(own)
    return there


def unit_intensities(stored: np.ndarray, white: int) -> Tensor:
    """Stored integers as float32 in [0,1], `white` being 1.

    Divided, not multiplied by 1 / white, so that a GPU and a CPU see the same bits.
    """
    return torch.from_numpy(np.divide(stored, np.float32(white), dtype=np.float32))


def epoch_order(n: int, *, generator: torch.Generator, sampling: Tensor | None = None) -> np.ndarray:
    """int64 [n]: a permutation; or, given sampling probabilities float [n], n draws with replacement."""
    if sampling is None:
        return torch.randperm(n, generator=generator).numpy()
    return torch.multinomial(sampling.double(), n, replacement=True, generator=generator).numpy()


def batch_slices(n: int, batch_size: int, *, at_least: int = 2) -> list[slice]:
    """Slices of at most batch_size; a last one of fewer than `at_least` joins its neighbour, because batch norm cannot
    take a single sample, nor several processes a batch with nothing for one of them.
    """
    starts = list(range(0, n, batch_size))
    if len(starts) > 1 and n - starts[-1] < at_least:
        starts.pop()
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], n], strict=True)]


def batches(order: np.ndarray, batch_size: int, *, at_least: int = 2) -> Iterator[np.ndarray]:
    """The order cut into batches; see `batch_slices`."""
    for part in batch_slices(len(order), batch_size, at_least=at_least):
        yield order[part]
