"""What the tests of attacks attack: linear models, whose best perturbations are known, and small trained networks."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn

from trueread.shift.attack.balls import Ball
from trueread.shift.base import Draw

SHAPES = {"grey": (1, 8, 8), "colour, oblong": (3, 6, 9), "volume": (1, 4, 5, 6)}


def ids(n: int) -> list[str]:
    return [f"image {k}" for k in range(n)]


def draw(n: int, seed: int = 0) -> Draw:
    return Draw(ids(n), seed, "attack")


def random_images(shape: tuple[int, ...], n: int = 5, *, low: float = 0.0, high: float = 1.0, seed: int = 0) -> Tensor:
    return low + (high - low) * torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


def directions(shape: tuple[int, ...], classes: int, seed: int = 1) -> Tensor:
    """Weights [K,C,...] of a linear model."""
    return torch.randn(classes, *shape, generator=torch.Generator().manual_seed(seed))


def linear(weights: Tensor, bias: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """Logits <w_k, x> + b_k."""
    return lambda x: x.flatten(1) @ weights.flatten(1).T + (0 if bias is None else bias)


def distances(ball: Ball, a: Tensor, b: Tensor) -> Tensor:
    """In float64, where float32 numbers and their differences are exact."""
    apart = (a.double() - b.double()).flatten(1)
    return apart.abs().amax(1) if ball.norm == "linf" else apart.norm(dim=1)


def blobs(n: int, classes: int, channels: int, side: int, depth: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy images with a blob at a place that tells the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    spatial = (depth, side, side) if depth else (side, side)
    images = 0.4 + 0.1 * torch.randn(n, channels, *spatial, generator=generator)
    for label in range(classes):
        row, column = divmod(label, 2)
        top, left = row * side // 2 + 1, column * side // 2 + 1
        images[labels == label, ..., top : top + side // 3, left : left + side // 3] += 0.2
    return images.clamp(0, 1), labels


@lru_cache(maxsize=8)
def trained(*, classes: int = 4, channels: int = 1, side: int = 12, depth: int = 0) -> tuple[nn.Module, Tensor, Tensor]:
    """A network trained in a second, and 60 other images with their labels."""
    conv, pool = (nn.Conv3d, nn.AdaptiveAvgPool3d) if depth else (nn.Conv2d, nn.AdaptiveAvgPool2d)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            conv(channels, 8, 3, padding=1), nn.ReLU(), conv(8, 16, 3, padding=1), nn.ReLU(), pool(4), nn.Flatten(),
            nn.Linear(16 * 4 ** (3 if depth else 2), classes),
        )  # fmt: skip
        images, labels = blobs(240, classes, channels, side, depth, seed=1)
        optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
        for _ in range(40):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images), labels).backward()
            optimizer.step()
    optimizer.zero_grad()
    return net.eval(), *blobs(60, classes, channels, side, depth, seed=2)
