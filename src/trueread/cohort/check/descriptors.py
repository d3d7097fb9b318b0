"""A few numbers per image by which copies are found: alike for an image and its altered copy, unlike for two images.

What tells images apart differs between chest radiographs and moles, so the numbers are learnt from the cohort itself:
some of its images are altered, and a linear discriminant keeps what tells images apart and drops what altering moves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from trueread.cohort.check.properties import Pixels, area_means
from trueread.cohort.check.registration import inside, inverse, resampled

SIDE = 32  # pixels of the thumbnails that are compared
COARSE = 16  # side at which grey values are used as they are
FREQUENCIES = 8  # cycles per image, per direction
DIRECTIONS, CELLS = 8, 6  # of edges: how much of each direction in each cell of a grid
LEARN_FROM, ALTERED = 800, 12  # images, and altered copies of each
SHRINKAGE = 0.1  # of the covariance within, towards its mean variance
POSES = ("", "turned by 90°", "turned by 180°", "turned by 270°",
         "mirrored", "mirrored and turned by 90°", "upside down", "mirrored and turned by 270°")  # fmt: skip
UNDONE_BY = (0, 3, 2, 1, 4, 5, 6, 7)


Features = Callable[[NDArray], NDArray]  # of thumbnails [n,S,S], [n,F]


@dataclass(frozen=True)
class Alteration:
    """How strongly an image is altered: each parameter is drawn evenly up to these ends.

    degrees: turned by. least_kept: of the side, by a crop. shift: of the side. log_gamma: brighter or darker.
    noise: of white. blurred: the share that is shrunk to half the side and back. black: the share of which what lies
    outside the image is black; of the others the edge goes on.
    """

    degrees: float
    least_kept: float
    shift: float
    log_gamma: float = 0.35
    noise: float = 0.04
    blurred: float = 0.3
    black: float = 0.5


MODERATE = Alteration(degrees=12, least_kept=0.78, shift=0.05, noise=0.02, blurred=0.1, black=0.3)  # of copies as such
LARGE = Alteration(degrees=15, least_kept=0.75, shift=0.05)  # of copies that are then laid back
INEXACT = Alteration(degrees=1.5, least_kept=0.97, shift=0.01, log_gamma=0, noise=0, blurred=0, black=0)  # laid back
PLANTED = Alteration(degrees=10, least_kept=0.9, shift=0.02, log_gamma=0.25, noise=0.02, blurred=0)  # to be found


@dataclass(frozen=True, eq=False)
class Descriptor:
    """centre: [F]. directions: [F,D]."""

    features: Features
    centre: NDArray
    directions: NDArray

    def __call__(self, small: Pixels) -> Pixels:
        """float32 [n,D] of unit length: what tells these images from others."""
        return self._of(self.features(small))

    def in_poses(self, small: Pixels) -> list[Pixels]:
        """The same for the images in every pose of `POSES`; a pose only exchanges features, which are computed once."""
        found = self.features(small)
        orders = (permutation(self.features, small.shape[1], pose) for pose in range(len(POSES)))
        return [self._of(found[:, order]) for order in orders]

    def _of(self, features: NDArray) -> Pixels:
        described = (features - self.centre) @ self.directions
        length = np.maximum(np.linalg.norm(described, axis=1, keepdims=True), 1e-9)
        return (described / length).astype(np.float32)


def posed(small: NDArray, pose: int) -> NDArray:
    """Images [n,S,S] in a pose of `POSES`."""
    turned = np.rot90(small[:, :, ::-1] if pose >= 4 else small, pose % 4, axes=(1, 2))
    return np.ascontiguousarray(turned)


def learnt(
    small: NDArray, features: Features, *, n: int, laid_back: bool, generator: np.random.Generator
) -> Descriptor:
    """A linear discriminant with up to `n` directions: between images against between altered copies of an image.

    small: thumbnails [N,S,S] in [0,1]; up to 800 of them are altered. laid_back: whether the copies are laid back on
    the images, as exactly as registration can.
    """
    chosen = generator.choice(len(small), min(LEARN_FROM, len(small)), replace=False)
    originals = np.asarray(small[np.sort(chosen)], np.float32)
    copies = []
    for _ in range(ALTERED):
        copy, maps = altered(originals, LARGE if laid_back else MODERATE, generator)
        if laid_back:
            copy = altered(resampled(copy, inverse(maps)), INEXACT, generator)[0]
        copies.append(features(copy))
    described = np.stack(copies).astype(np.float64)
    of_image = described.mean(axis=0)
    centre = of_image.mean(axis=0)
    apart = (described - of_image).reshape(-1, described.shape[-1])
    within = apart.T @ apart / (len(originals) * (ALTERED - 1))
    within += SHRINKAGE * np.trace(within) / len(within) * np.eye(len(within))
    variance, axes = np.linalg.eigh(within)
    sphered = axes / np.sqrt(np.maximum(variance, 1e-12))
    between = (of_image - centre) @ sphered
    strength, axes = np.linalg.eigh(between.T @ between / len(originals))
    best = np.argsort(-strength)[:n]
    # All directions weigh alike where images differ, and less where their copies differ as much.
    directions = sphered @ axes[:, best] / np.sqrt(np.maximum(strength[best], 0) + 1)
    return Descriptor(features, centre, directions)


def altered(small: Pixels, how: Alteration, generator: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Copies of images [n,S,S] in [0,1], and the maps [n,2,3] from places in the copy to places in the image."""
    n, side = len(small), small.shape[1]
    angle = np.deg2rad(generator.uniform(-how.degrees, how.degrees, n))
    scale = generator.uniform(how.least_kept, 1 + (1 - how.least_kept) / 5, n)
    room = np.maximum(1 - scale, 2 * how.shift)
    maps = np.zeros((n, 2, 3), np.float32)
    maps[:, 0, 0] = maps[:, 1, 1] = np.cos(angle) * scale
    maps[:, 0, 1], maps[:, 1, 0] = -np.sin(angle) * scale, np.sin(angle) * scale
    maps[:, :, 2] = generator.uniform(-1, 1, (n, 2)) * room[:, None]
    moved = np.clip(resampled(small, maps), 0, 1)
    black, blurred = generator.random(n) < how.black, generator.random(n) < how.blurred
    moved[black] *= inside(maps[black], side)
    moved[blurred] = half_and_back(moved[blurred])
    gamma = np.exp(generator.uniform(-how.log_gamma, how.log_gamma, (n, 1, 1)))
    noise = generator.uniform(0, how.noise, (n, 1, 1)) * generator.standard_normal(small.shape)
    return (moved**gamma + noise).astype(np.float32), maps


def half_and_back(images: NDArray) -> NDArray:
    """Images of which every second pixel is lost, and made again between the others."""
    side = images.shape[1]
    means, places = area_means(side, side // 2), np.linspace(-0.5, side / 2 - 0.5, side)
    weights = np.maximum(1 - np.abs(np.clip(places, 0, side // 2 - 1)[:, None] - np.arange(side // 2)), 0) @ means
    return (weights @ images @ weights.T).astype(images.dtype)


def appearance(small: NDArray) -> NDArray:
    """Grey values and edges: what of where."""
    even = _standardised(small)
    return np.concatenate([_grey(even), _edges(even)], axis=1)


def gist(small: NDArray) -> NDArray:
    """Grey values, edges, and the spectrum, which a shift leaves as it is."""
    even = _standardised(small)
    return np.concatenate([_grey(even), _edges(even), _spectrum(even)], axis=1)


@cache
def permutation(features: Features, side: int, pose: int) -> NDArray[np.int64]:
    """Where each feature of a posed image stands among those of the image as it is: int64 [F].

    Found by comparing the two on an image of noise in double precision, in which no two features are alike.
    """
    noise = np.random.default_rng(0).random((1, side, side))
    before, after = features(noise)[0], features(posed(noise, pose))[0]
    order = np.empty(len(before), np.int64)
    order[np.argsort(after, kind="stable")] = np.argsort(before, kind="stable")
    return order


def _standardised(small: NDArray) -> NDArray:
    centred = small - small.mean(axis=(1, 2), keepdims=True)
    return centred / np.maximum(centred.std(axis=(1, 2), keepdims=True), 0.02)


def _grey(even: NDArray) -> NDArray:
    return _pooled(even, min(COARSE, even.shape[1])).reshape(len(even), -1) / COARSE


def _edges(even: NDArray) -> NDArray:
    down, across = np.gradient(even, axis=(1, 2))
    strength = np.maximum(np.hypot(down, across), 1e-6)
    parts = []
    for k in range(DIRECTIONS):
        angle = 2 * np.pi * k / DIRECTIONS
        along = np.maximum(np.cos(angle) * across + np.sin(angle) * down, 0)
        parts.append(_pooled((along * along / strength).astype(even.dtype), CELLS))
    amount = np.sqrt(np.stack(parts, axis=1).reshape(len(even), -1))
    return amount / np.maximum(np.linalg.norm(amount, axis=1, keepdims=True), 1e-9)


def _spectrum(even: NDArray) -> NDArray:
    window = np.hanning(even.shape[1] + 2)[1:-1].astype(even.dtype)
    wave = np.log1p(np.abs(np.fft.rfft2(even * window[:, None] * window)))[:, :, : FREQUENCIES + 1]
    # Each frequency once: those without a part across are their own mirror images.
    rising, falling = wave[:, : FREQUENCIES + 1], wave[:, -FREQUENCIES:, 1:]
    n = len(even)
    return np.concatenate([rising.reshape(n, -1), falling.reshape(n, -1)], axis=1) / 12


def _pooled(images: NDArray, side: int) -> NDArray:
    means = area_means(images.shape[1], side).astype(images.dtype)
    return means @ images @ means.T
