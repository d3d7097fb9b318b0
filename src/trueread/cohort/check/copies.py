"""Which images are copies of each other: pixel for pixel, or altered (mirrored, turned, cropped, brightened).

Near copies are found in two steps. Every image is compared with every other one, in eight poses, by a descriptor that
altering moves little. The most alike pairs are then laid on each other and compared by one that tells more.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trueread.cohort.check.descriptors import (
    PLANTED,
    POSES,
    SIDE,
    UNDONE_BY,
    Descriptor,
    altered,
    gist,
    learnt,
    posed,
)  # fmt: skip
from trueread.cohort.check.likeness import COPY, Likeness
from trueread.cohort.check.properties import Pixels, area_means, grey_and_colour, n_chunks
from trueread.cohort.check.registration import registered
from trueread.cohort.check.targets import classes_of
from trueread.cohort.cohort import Cohort
from trueread.progress import track

ALIKE = 0.8  # from which a person should look
LEAST_LIKENESS = 0.3  # of what is laid on each other at all
FROM_AFAR, HOPEFUL = 16, 0.5  # side at which pairs are laid on each other first, and what is then worth going on with
FEWEST_IMAGES = 100  # to learn from what tells images apart
SMALLEST_SIDE = 16
NUMBERS = 96  # in the descriptor
NEIGHBOURS = 4  # of each image that are looked at more closely
MOST_PAIRS = 20_000  # of all images
ROWS_AT_A_TIME, COLUMNS_AT_A_TIME, PAIRS_AT_A_TIME = 512, 2048, 256
N_PLANTED = 100
MOVED = 0.03  # of half the side: less is no turn, crop or shift

_FOUND: WeakKeyDictionary[Cohort, dict[int, Copies]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Copies:
    """What was found.

    pairs: `row`, `other` (row < other), `alike` in [ALIKE, 1], `exact`, `how` (in words), the most alike first. Of
    several equal images each is paired with the next. Near copies of one patient with one label are left out: images
    of one visit are alike, and do no harm.
    n_compared: pairs of images. n_planted, n_found: altered copies of images of this cohort, and how many of them this
    search finds; 0 when there was none, because of `reason`.
    """

    pairs: pd.DataFrame
    n_compared: int = 0
    n_planted: int = 0
    n_found: int = 0
    reason: str = ""


class Pairs(NamedTuple):
    """Pairs of rows [n], the pose of the second one, and how alike they are."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    pose: NDArray[np.int64]
    alike: NDArray[np.float32]

    def at(self, chosen: NDArray) -> Pairs:
        return Pairs(*(column[chosen] for column in self))


def copies_of(cohort: Cohort, *, seed: int = 0) -> Copies:
    """Every pair of copies in a cohort; searched once for a cohort and seed, because two checks ask."""
    found = _FOUND.setdefault(cohort, {})
    if seed not in found:
        found[seed] = _search(cohort, seed)
    return found[seed]


def _search(cohort: Cohort, seed: int) -> Copies:
    groups = equal_images(cohort)
    exact = _exact_pairs(cohort, groups)
    if len(cohort) < FEWEST_IMAGES:
        return Copies(exact, reason=f"near copies are looked for among {FEWEST_IMAGES} images or more")
    if min(cohort.spatial[-2:]) < SMALLEST_SIDE:
        return Copies(exact, reason=f"near copies are looked for from {SMALLEST_SIDE} pixels a side on")
    generator = np.random.default_rng([seed, len(cohort)])
    small = small_images(cohort)
    coarse = learnt(small, gist, n=min(NUMBERS, len(cohort) // 2), laid_back=False, generator=generator)
    fine = Likeness.learnt(small, generator=generator)
    if fine is None:
        return Copies(exact, reason="the images show too little to tell altered copies from images that are alike")
    described = _described(coarse, small)
    patients, labels = cohort.patient_codes(), classes_of(cohort)
    harmless = np.unique(np.stack([patients, labels]), axis=1, return_inverse=True)[1].reshape(-1)
    candidates = alike_pairs(described, harmless)
    least = float(candidates.alike[-1]) if len(candidates.alike) == MOST_PAIRS else LEAST_LIKENESS
    candidates = candidates.at(groups[candidates.first] != groups[candidates.second])
    likeness, maps = laid_on(fine, small, candidates)
    is_alike = likeness >= ALIKE
    near = candidates.at(is_alike)
    table = pd.DataFrame(
        {"row": near.first, "other": near.second, "alike": np.minimum(likeness[is_alike], 1.0), "exact": False,
         "how": [in_words(p, m) for p, m in zip(near.pose, maps[is_alike], strict=True)]}
    )  # fmt: skip
    found = _planted_found(cohort, small, coarse, fine, described, least, generator)
    pairs = pd.concat([exact, table], ignore_index=True) if len(table) else exact
    pairs = pairs.sort_values("alike", ascending=False, kind="stable", ignore_index=True)
    return Copies(pairs, len(cohort) * (len(cohort) - 1) // 2, min(N_PLANTED, len(cohort)), found)


def equal_images(cohort: Cohort) -> NDArray[np.int64]:
    """int64 [N]: a number for each image, the same for images that are equal pixel for pixel. Images of a single value
    are equal to none: they show nothing that could be copied."""
    codes: dict[bytes, int] = {}
    groups = np.empty(len(cohort), np.int64)
    for row in track(range(len(cohort)), what=f"equal images of {cohort.name}", unit="images"):
        image = np.ascontiguousarray(cohort.images[row])
        key = hashlib.blake2b(image.data, digest_size=16).digest()
        if image.min() == image.max():
            key = row.to_bytes(8, "big")
        groups[row] = codes.setdefault(key, len(codes))
    return groups


def small_images(cohort: Cohort) -> NDArray:
    """Grey thumbnails, float16 [N,S,S] in [0,1], S = 32 or the smallest side; of a volume the mean over its depth."""
    height, width = cohort.spatial[-2:]
    side = min(SIDE, height, width)
    down, across = area_means(height, side), area_means(width, side).T
    small = np.empty((len(cohort), side, side), np.float16)
    start = 0
    for grey, _ in track(grey_and_colour(cohort), what="thumbnails", total=n_chunks(cohort), unit="parts"):
        small[start : start + len(grey)] = down @ grey.mean(axis=1) @ across
        start += len(grey)
    return small


def alike_pairs(described: list[Pixels], harmless: NDArray) -> Pairs:
    """The pairs that are most alike in some pose, the most alike first: of each image the 4 nearest of those behind it
    in the cohort, and 20,000 at most.

    described: [N,D] for every pose. harmless: [N], images of equal number are not compared.
    """
    starts = range(0, len(harmless), ROWS_AT_A_TIME)
    n_compared = len(harmless) * (len(harmless) - 1) // 2
    parts = [
        _nearest_behind(described, harmless, start)
        for start in track(starts, what=f"comparing {n_compared:,} pairs", unit="parts")
    ]
    first, second, alike = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(-alike, kind="stable")[:MOST_PAIRS]
    first, second, alike = first[order], second[order], alike[order]
    per_pose = np.stack([np.einsum("nd,nd->n", described[0][first], d[second]) for d in described])
    return Pairs(first, second, per_pose.argmax(axis=0), alike)


def _nearest_behind(described: list[Pixels], harmless: NDArray, start: int) -> tuple[NDArray, NDArray, NDArray]:
    """For a block of rows the nearest rows behind each: rows, those, and how alike. Tile by tile, because a tile stays
    in the processor's cache while the poses are gone through."""
    import torch

    here = slice(start, start + ROWS_AT_A_TIME)
    rows, kind = torch.from_numpy(described[0][here]), torch.from_numpy(harmless)
    tops, places = [], []
    for begin in range(start, len(harmless), COLUMNS_AT_A_TIME):
        there = slice(begin, begin + COLUMNS_AT_A_TIME)
        tiles = [torch.from_numpy(other[there]) for other in described]
        best = rows @ tiles[0].T
        product = torch.empty_like(best)
        for tile in tiles[1:]:
            torch.maximum(best, torch.mm(rows, tile.T, out=product), out=best)
        best.masked_fill_(kind[here, None] == kind[None, there], -1)
        if begin == start:  # behind means above the diagonal
            best.masked_fill_(torch.ones_like(best, dtype=torch.bool).tril(), -1)
        top, place = best.topk(min(NEIGHBOURS, best.shape[1]), dim=1)
        tops.append(top)
        places.append(place + begin)
    top, order = torch.cat(tops, dim=1).topk(min(NEIGHBOURS, sum(t.shape[1] for t in tops)), dim=1)
    place = torch.cat(places, dim=1).gather(1, order)
    keep = top >= LEAST_LIKENESS
    first = torch.arange(start, start + len(rows))[:, None].expand_as(place)
    return first[keep].numpy(), place[keep].numpy(), top[keep].numpy()


def laid_on(fine: Likeness, small: NDArray, pairs: Pairs) -> tuple[Pixels, Pixels]:
    """How alike the images of each pair are after one was laid on the other, [n], and the maps [n,2,3] of that."""
    likeness, maps = np.zeros(len(pairs.first), np.float32), np.zeros((len(pairs.first), 2, 3), np.float32)
    starts = range(0, len(likeness), PAIRS_AT_A_TIME)
    for start in track(starts, what="laying pairs on each other", unit="parts"):
        part = slice(start, start + PAIRS_AT_A_TIME)
        fixed = small[pairs.first[part]].astype(np.float32)
        turned = zip(pairs.second[part], pairs.pose[part], strict=True)
        moving = np.concatenate([posed(small[row][None].astype(np.float32), pose) for row, pose in turned])
        likeness[part], maps[part] = overlaid(fine, fixed, moving)
    return likeness, maps


def overlaid(fine: Likeness, fixed: Pixels, moving: Pixels) -> tuple[Pixels, Pixels]:
    """The likeness [n] of images [n,S,S] after registration, and the maps from `fixed` to `moving`.

    First as seen from afar, which is quick; the pairs that are at all alike then once more.
    """
    maps = registered(fixed, moving, side=FROM_AFAR)
    best = fine(fixed, moving, maps)
    near = np.flatnonzero(best >= HOPEFUL)
    if len(near):
        maps[near] = registered(fixed[near], moving[near], side=fixed.shape[1], start=maps[near])
        best[near] = fine(fixed[near], moving[near], maps[near])
    return best, maps


def in_words(pose: int, matrix: NDArray) -> str:
    """ "mirrored, turned by 5°, scaled by 0.91, shifted": how the second image of a pair differs from the first."""
    parts = [POSES[UNDONE_BY[pose]]]
    degrees = np.rad2deg(np.arctan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1]))
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if abs(degrees) >= 2:
        parts.append(f"turned by {abs(degrees):.0f}°")
    if abs(scale - 1) >= MOVED:
        parts.append(f"scaled by {scale:.2f}")
    if np.abs(matrix[:, 2]).max() >= 2 * MOVED:
        parts.append("shifted")
    return ", ".join(p for p in parts if p) or "in place"


def _described(coarse: Descriptor, small: NDArray) -> list[Pixels]:
    starts = range(0, len(small), ROWS_AT_A_TIME)
    parts = [
        coarse.in_poses(small[start : start + ROWS_AT_A_TIME].astype(np.float32))
        for start in track(starts, what="describing images", unit="parts")
    ]
    return [np.concatenate(pose) for pose in zip(*parts, strict=True)]


def _exact_pairs(cohort: Cohort, groups: NDArray[np.int64]) -> pd.DataFrame:
    """Each image of a group with the next one, in the order of splits, so that a group in two splits gives a pair of
    two splits."""
    order = np.lexsort((cohort.table["split"].to_numpy(str), groups))
    equal = np.flatnonzero(groups[order][1:] == groups[order][:-1])
    ends = np.sort(np.stack([order[equal], order[equal + 1]]), axis=0)
    return pd.DataFrame({"row": ends[0], "other": ends[1], "alike": 1.0, "exact": True, "how": "pixel for pixel"})


def _planted_found(
    cohort: Cohort, small: NDArray, coarse: Descriptor, fine: Likeness, described: list[Pixels], least: float,
    generator: np.random.Generator,
) -> int:  # fmt: skip
    """How many altered copies of up to 100 images the search finds: mirrored or turned, then `PLANTED`.

    least: the likeness from which pairs were looked at closely.
    """
    rows = np.sort(generator.choice(len(cohort), min(N_PLANTED, len(cohort)), replace=False))
    poses = generator.integers(0, len(POSES), len(rows))
    whole = _square(cohort.subset(rows))
    copies = np.concatenate([posed(image[None], pose) for image, pose in zip(whole, poses, strict=True)])
    means = area_means(whole.shape[1], small.shape[1])
    copies = (means @ altered(copies, PLANTED, generator)[0] @ means.T).astype(np.float32)
    # The pose that undoes the planted one is among the eight, so that copies in all of them are compared.
    per_pose = np.stack([mine @ described[0].T for mine in coarse.in_poses(copies)])
    alike = per_pose.max(axis=0)
    own = alike[np.arange(len(rows)), rows]
    nearer = (alike > own[:, None]).sum(axis=1)
    pose = per_pose[:, np.arange(len(rows)), rows].argmax(axis=0)
    turned = np.concatenate([posed(image[None], p) for image, p in zip(copies, pose, strict=True)])
    likeness, _ = overlaid(fine, small[rows].astype(np.float32), turned)
    return int(((nearer < NEIGHBOURS) & (own >= least) & (likeness >= COPY)).sum())


def _square(cohort: Cohort) -> Pixels:
    """Grey images [n,S,S] of a few images, S the smaller side."""
    height, width = cohort.spatial[-2:]
    side = min(height, width)
    grey = np.concatenate([part.mean(axis=1) for part, _ in grey_and_colour(cohort)])
    return area_means(height, side) @ grey @ area_means(width, side).T
