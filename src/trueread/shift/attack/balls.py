"""Balls: how far an attack may move an image, where it starts, which way it steps, and how it is brought back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from trueread.errors import InputError, unknown
from trueread.shift.base import Draw

Norm = Literal["linf", "l2"]
NORMS: tuple[str, ...] = get_args(Norm)
USUAL = 0.5, 3 * 32 * 32  # an L2 epsilon, and the values of the images (CIFAR-10) for which it is usual
USUAL_LINF = 4 / 255


@dataclass(frozen=True)
class Ball:
    """All images in [0,1] within `epsilon` of a given one.

    norm: "linf", the largest change of an intensity; "l2", the root of the summed squares over channels and pixels.
    epsilon: in intensities of [0,1]; 0 allows nothing.
    Rounding never leaves the ball: projections aim at a radius that is shorter by more than float32 can be off,
    2^-20 epsilon + 2^-24 (linf) or 2^-20 epsilon + 2^-24 sqrt(values of an image) (l2).
    Raises InputError for an unknown norm and an epsilon that is negative or no number.
    """

    norm: Norm
    epsilon: float

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise unknown("norm", self.norm, NORMS)
        if not (self.epsilon >= 0 and math.isfinite(self.epsilon)):
            raise InputError(f"epsilon must be a number of at least 0; found {self.epsilon}.")

    def radius(self, images: Tensor) -> float:
        """What projections aim at: epsilon, less what rounding may add."""
        slack = 2**-24 * (math.sqrt(images[0].numel()) if self.norm == "l2" else 1)
        return max(0.0, self.epsilon * (1 - 2**-20) - slack)

    def project_(self, perturbed: Tensor, images: Tensor) -> Tensor:
        """Brings `perturbed` back, in place: onto the ball around `images`, then into [0,1]. Both float [B,C,...].

        For linf that is the nearest point of both; for l2 the usual one, which is in both and not always the nearest.
        """
        radius = self.radius(images)
        if self.norm == "linf":
            perturbed.clamp_(images - radius, images + radius)
        else:
            perturbed.sub_(images)
            perturbed.mul_((radius / lengths(perturbed).clamp_min(1e-30)).clamp_max(1)).add_(images)
        return perturbed.clamp_(0, 1)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The step of length 1 along which a linear function rises most: the sign, or the gradient over its norm.
        Where the gradient is zero, so is the step.
        """
        if self.norm == "linf":
            return gradient.sign()
        peak = gradient.abs().amax(tuple(range(1, gradient.ndim)), keepdim=True)
        # first by the peak, or the squares of a saturated network's gradients would be zero
        scaled = gradient / torch.where(peak > 0, peak, 1)
        return scaled.div_(lengths(scaled).clamp_min(1))

    def random_start(self, images: Tensor, draw: Draw | torch.Generator, purpose: str = "start") -> Tensor:
        """Images [B,C,...] moved by a uniformly random member of the ball, then into [0,1].

        draw: of the images' ids, so that an image's start is its own in any batch; or a generator on their device.
        """
        if self.norm == "linf":
            noise = _uniform(images, draw, purpose, images[0].numel()).view(images.shape).mul_(2).sub_(1)
        else:
            noise = _normal(images, draw, f"{purpose}, direction")
            share = _uniform(images, draw, f"{purpose}, length", 1) ** (1 / images[0].numel())
            noise.mul_(per_image(share, images) / lengths(noise).clamp_min(1e-30))
        return self.project_(noise.mul_(self.radius(images)).add_(images), images)


def lengths(x: Tensor) -> Tensor:
    """The L2 norm of each image, shaped [B,1,...] to scale it by."""
    return torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)), keepdim=True)


def per_image(values: Tensor, images: Tensor) -> Tensor:
    """Values [B] or [B,1] shaped [B,1,...], to be combined with images [B,C,...]."""
    return values.view(-1, *(1 for _ in images.shape[1:]))


def grey_levels(epsilon: float, norm: Norm, shape: Sequence[int]) -> float:
    """Epsilon in grey levels of 8-bit images: the largest change (linf), or the root mean square one (l2).

    shape: of one image, [C,...]. Raises InputError for an unknown norm.
    """
    if norm not in NORMS:
        raise unknown("norm", norm, NORMS)
    return 255 * epsilon / (math.sqrt(math.prod(shape)) if norm == "l2" else 1)


def usual_epsilon(norm: Norm, n_values: int) -> float:
    """The epsilon that changes an image of so many values by as much, root mean square, as L2 0.5 changes CIFAR-10's;
    linf: 4/255.
    """
    epsilon, values = USUAL
    return epsilon * (n_values / values) ** 0.5 if norm == "l2" else USUAL_LINF


def _uniform(images: Tensor, draw: Draw | torch.Generator, purpose: str, n: int) -> Tensor:
    if isinstance(draw, Draw):
        return draw.uniform(purpose, n=n, like=images)
    return torch.rand(len(images), n, generator=draw, device=images.device, dtype=images.dtype)


def _normal(images: Tensor, draw: Draw | torch.Generator, purpose: str) -> Tensor:
    if isinstance(draw, Draw):
        return draw.normal(purpose, tuple(images.shape[1:]), like=images)
    return torch.randn(images.shape, generator=draw, device=images.device, dtype=images.dtype)
