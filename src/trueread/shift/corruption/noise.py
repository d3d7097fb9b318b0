"""Noise of four kinds. The random numbers are given, so that the same ones make every level of a corruption."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GREY_LEVELS = 255
LIKELY = 4096


def gaussian(images: Tensor, sigma: float, normal: Tensor) -> Tensor:
    """Additive noise. images: float [B,C,H,W] in [0,1]; normal: standard normal of that shape. Not clamped."""
    return images + sigma * normal


def speckle(images: Tensor, sigma: float, normal: Tensor) -> Tensor:
    """Noise in proportion to the intensity. images: float [B,C,H,W] in [0,1]; normal: of that shape. Not clamped."""
    return images * (1 + sigma * normal)


def impulse(images: Tensor, share: float, uniform: Tensor) -> Tensor:
    """Salt and pepper, as much of the one as of the other, each channel for itself.

    images: float [B,C,H,W]. share: of the values that become 0 or 1. uniform: in [0,1), of the shape of the images.
    """
    salted = torch.where(uniform >= 1 - share / 2, torch.ones_like(images), images)
    return torch.where(uniform < share / 2, torch.zeros_like(images), salted)


def shot(images: Tensor, photons: float, uniform: Tensor) -> Tensor:
    """Photon noise: Poisson counts of mean `photons` times the intensity, over `photons`.

    images: float [B,C,H,W] in [0,1], taken to 255 grey levels, each of which has its table of counts. photons: of a
    white pixel. uniform: in [0,1), of the shape of the images, taken to one of 4096 equally likely counts; what is
    rarer does not occur. A larger one gives no smaller count. Not clamped.
    """
    counts = torch.from_numpy(_counts(float(photons))).to(images).flatten() / photons
    place = LIKELY * (GREY_LEVELS * images).round().int() + (LIKELY * uniform).int()
    return counts.index_select(0, place.flatten()).view_as(images)  # faster than two indices


@cache
def _counts(photons: float) -> NDArray[np.int16]:
    """int16 [256,4096]: for each grey level, counts that are equally likely, in rising order."""
    from scipy.stats import poisson  # slow to import, and one corruption's need

    most = np.arange(math.ceil(photons + 8 * math.sqrt(photons) + 8))
    middles = (np.arange(LIKELY) + 0.5) / LIKELY
    means = np.arange(GREY_LEVELS + 1) / GREY_LEVELS * photons
    return np.stack([poisson.cdf(most, mean).searchsorted(middles) for mean in means]).astype(np.int16)
