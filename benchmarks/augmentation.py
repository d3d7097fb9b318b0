"""Augmentation on the CPU: ours against kornia and torchvision v2, and its share of a compact training step.

Prints a table of times in one run; run it with `python benchmarks/augmentation.py`. kornia is only needed here.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trueread.model.compact import Compact
from trueread.training.augment import augment_batch, recipes
from trueread.training.device import cpu_has_bf16

BATCH, REPEATS = 64, 20


def milliseconds(work: Callable[[], object]) -> float:
    """Median wall time of one call."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[3:])


def ours(images: Tensor) -> Callable[[], object]:
    recipe, generator = recipes()["radiograph"], torch.Generator().manual_seed(0)
    return lambda: augment_batch(images, recipe, generator)


def kornia_same(images: Tensor) -> Callable[[], object] | None:
    """The same changes by kornia, per-sample parameters."""
    try:
        import kornia.augmentation as K
    except ImportError:
        return None
    changes = K.AugmentationSequential(
        K.RandomAffine(10, translate=(0.05, 0.05), scale=(0.9, 1.1), padding_mode="reflection", p=1.0),
        K.RandomBrightness((0.92, 1.08), p=1.0),
        K.RandomContrast((0.85, 1.15), p=1.0),
        K.RandomGamma((0.8, 1.2), p=1.0),
        K.RandomGaussianNoise(std=0.02, p=1.0),
    )
    return lambda: changes(images)


def torchvision_same(images: Tensor) -> Callable[[], object]:
    """The same changes by torchvision v2, image by image, because its parameters are one draw per call."""
    from torchvision.transforms import v2

    changes = v2.Compose(
        [
            v2.RandomAffine(10, translate=(0.05, 0.05), scale=(0.9, 1.1), interpolation=v2.InterpolationMode.BILINEAR),
            v2.ColorJitter(brightness=0.08, contrast=0.15),
            v2.GaussianNoise(sigma=0.02),
        ]
    )
    return lambda: torch.stack([changes(image) for image in images])


def step(size: int) -> Callable[[], object]:
    """One training step of the compact network, as the loop does it."""
    network = nn.Sequential(Compact(channels=1, size=size), nn.Linear(160, 2)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), foreach=True)
    images = torch.rand(BATCH, 1, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(BATCH) % 2

    def work() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=cpu_has_bf16()):
            logits = network(images)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return work


def main() -> None:
    print(f"batch {BATCH}, {torch.get_num_threads()} threads, radiograph recipe; median of {REPEATS - 3} calls")
    print(f"{'side':>5} {'ours ms':>8} {'kornia':>8} {'torchvision':>12} {'step ms':>8} {'share of step':>14}")
    for size in (28, 64, 128):
        images = torch.rand(BATCH, 1, size, size)
        own, whole = milliseconds(ours(images)), milliseconds(step(size))
        other = kornia_same(images)
        kornia = f"{milliseconds(other) / own:7.1f}x" if other else "-"
        vision = f"{milliseconds(torchvision_same(images)) / own:11.1f}x"
        print(f"{size:>5} {own:8.1f} {kornia:>8} {vision:>12} {whole:8.1f} {own / (own + whole):13.0%}")


if __name__ == "__main__":
    main()
