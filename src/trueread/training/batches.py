"""Batches without a per-image Python step: stored integers to float images in [0,1], on the device where they fit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from trueread.cohort.cohort import Cohort


class ImageStore:
    """The cohort's images as the network's input.

    On a GPU the stored integers move to the device once when they take less than a third of its free memory; otherwise,
    and on the CPU, each batch is picked from the (possibly memory-mapped) array.
    """

    def __init__(self, cohort: Cohort, device: torch.device) -> None:
        self.images, self.white, self.device = cohort.images, cohort.white, device
        self.resident: Tensor | None = None
        if device.type == "cuda" and cohort.images.nbytes < torch.cuda.mem_get_info(device)[0] / 3:
            array = np.ascontiguousarray(cohort.images)
            self.resident = torch.from_numpy(array.view(np.int16) if array.dtype == np.uint16 else array).to(device)

    def batch(self, rows: np.ndarray) -> Tensor:
        """float32 [B,C,...] in [0,1] of the images at `rows` (int64 [B])."""
        if self.resident is not None:
            picked = self.resident[torch.as_tensor(rows, device=self.device)]
            if picked.dtype == torch.int16:  # torch has no arithmetic on uint16
                picked = picked.to(torch.int32).bitwise_and(0xFFFF)
            return picked.float().div_(self.white)
        return unit_intensities(self.images[rows], self.white).to(self.device, non_blocking=True)


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


def batch_slices(n: int, batch_size: int) -> list[slice]:
    """Slices of at most batch_size; a last one of a single sample joins its neighbour, because batch norm cannot
    take it.
    """
    starts = list(range(0, n, batch_size))
    if len(starts) > 1 and n - starts[-1] == 1:
        starts.pop()
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], n], strict=True)]


def batches(order: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """The order cut into batches."""
    for part in batch_slices(len(order), batch_size):
        yield order[part]
