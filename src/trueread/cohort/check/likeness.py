"""How alike two images are when one is laid on the other, and whether that tells copies from images that are alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from trueread.cohort.check.descriptors import LEARN_FROM, POSES, Descriptor, appearance, half_and_back, learnt
from trueread.cohort.check.properties import Pixels
from trueread.cohort.check.registration import inside, inverse, resampled

COPY = 0.88  # likeness, after one was laid on the other, from which two images are called copies
CHANCE, MARGIN = 0.01, 1.5  # that different images are called copies, and how far beyond it the limit has to be
TAKEN_OFF = 0.08  # of the likeness of blurred images: of small moles as much more as different ones are alike
LEAST_OVERLAP = 0.5
NUMBERS, NUMBERS_BLURRED = 192, 96  # in the descriptors


@dataclass(frozen=True, eq=False)
class Likeness:
    """How alike two images are when one is laid on the other. in_full: compares all that the thumbnails show.
    blurred: compares what is left of them at half the side, where noise, blur and compression do not reach.
    """

    in_full: Descriptor
    blurred: Descriptor | None

    @classmethod
    def learnt(cls, small: NDArray, *, generator: np.random.Generator) -> Likeness | None:
        """From thumbnails [N,S,S]; None when they show too little to tell copies from others, as blurred ones may."""
        n, n_pairs = len(small) // 2, len(small) * (len(small) - 1) // 2
        chosen = np.sort(generator.choice(len(small), min(LEARN_FROM, len(small)), replace=False))
        sample = small[chosen].astype(np.float32)
        halves = half_and_back(sample)
        in_full = learnt(sample, appearance, n=min(NUMBERS, n), laid_back=True, generator=generator)
        blurred = learnt(halves, appearance, n=min(NUMBERS_BLURRED, n), laid_back=True, generator=generator)
        if not tells_apart(in_full(sample), n_pairs):
            return None
        return cls(in_full, blurred if tells_apart(blurred(halves), n_pairs) else None)

    def __call__(self, fixed: Pixels, moving: Pixels, maps: Pixels) -> Pixels:
        """float32 [n], up to 1. maps: from `fixed` to `moving`. 0 where too little of them overlaps.

        Both ways, because of an image and a part of it only the part can be covered by the other. Less is left of
        blurred images, so different ones are more alike; the difference is taken off.
        """
        best = np.zeros(len(fixed), np.float32)
        for still, other, way in ((fixed, moving, maps), (moving, fixed, inverse(maps))):
            laid = resampled(other, way)
            enough = inside(way, still.shape[1]).mean(axis=(1, 2)) >= LEAST_OVERLAP
            in_full = np.einsum("nd,nd->n", self.in_full(still), self.in_full(laid))
            best = np.maximum(best, np.where(enough, in_full, 0))
            if self.blurred is not None:
                halves = np.einsum("nd,nd->n", *(self.blurred(half_and_back(images)) for images in (still, laid)))
                halves -= TAKEN_OFF
                best = np.maximum(best, np.where(enough & (halves >= COPY), halves, 0))  # less proves nothing
        return best


def tells_apart(described: Pixels, n_pairs: int) -> bool:
    """Whether a likeness of `COPY` is beyond what different images reach by chance, among so many pairs in all poses.

    described: unit vectors [n,D] of different images. The mean square of their products is 1 over the number of
    directions that they use; with so many, Fisher's z of a product is normal with that less 3 for its precision. Half
    as much again is asked for, because each pair is laid on each other as well as can be.
    """
    products = (described @ described.T)[np.triu_indices(len(described), 1)]
    directions = 1 / np.mean(products**2)
    by_chance = -ndtri(CHANCE / (n_pairs * len(POSES))) / np.sqrt(max(directions - 3, 1))
    return bool(np.arctanh(COPY) >= MARGIN * by_chance)
