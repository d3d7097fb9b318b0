"""How many altered copies the check `duplicates` finds in real images, beside a perceptual hash.

    python benchmarks/copies.py [--smoke] [--out FILE]

Into each cohort copies of its images are planted, 60 for each alteration, every one of another image and a patient of
its own. Pillow alters them, not trueread. The perceptual hash (pHash, ImageHash) compares all pairs in the same eight
poses and calls a copy what is at most 8 of 64 bits apart. Counted besides are pairs of images of two patients that were
there before (a cohort may have copies of its own; the check's page shows them), and pairs of a copy and a stranger.
Writes results/copies.json.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageEnhance

from trueread import load_cohort
from trueread.cohort import Cohort
from trueread.cohort.check.copies import copies_of
from trueread.cohort.check.descriptors import POSES, posed
from trueread.cohort.check.likeness import COPY
from trueread.files import write_json
from trueread.progress import set_quiet
from trueread.record import environment, today
from trueread.study import load_study

HERE = Path(__file__).resolve().parents[1]
COHORTS = ("kermany", "ham10000", "breastmnist", "retinamnist", "adrenalmnist3d")
PER_ALTERATION = 60
BITS_APART = 8  # of 64: a usual limit for "the same picture"
Scores = dict[str, Any]
Alter = Callable[[Image.Image, np.random.Generator], Image.Image]


def turned(degrees: float) -> Alter:
    return lambda p, rng: p.rotate(degrees * rng.choice([-1, 1]), resample=Image.Resampling.BILINEAR)


def cropped(share: float) -> Alter:
    def crop(p: Image.Image, rng: np.random.Generator) -> Image.Image:
        w, h = int(p.width * share), int(p.height * share)
        x, y = int(rng.integers(0, p.width - w + 1)), int(rng.integers(0, p.height - h + 1))
        return p.crop((x, y, x + w, y + h)).resize(p.size, Image.Resampling.BILINEAR)

    return crop


def shifted(share: float) -> Alter:
    def shift(p: Image.Image, rng: np.random.Generator) -> Image.Image:
        dx, dy = rng.choice([-1, 1], 2) * share * np.array(p.size)
        return p.transform(p.size, Image.Transform.AFFINE, (1, 0, dx, 0, 1, dy), Image.Resampling.BILINEAR)

    return shift


def saved_anew(p: Image.Image, _rng: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    p.save(buffer, "JPEG", quality=40)
    return Image.open(buffer).convert(p.mode)


def smaller(p: Image.Image, _rng: np.random.Generator) -> Image.Image:
    return p.resize((p.width // 2, p.height // 2), Image.Resampling.BILINEAR).resize(p.size, Image.Resampling.BILINEAR)


def noisy(p: Image.Image, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(p).astype(float)
    return Image.fromarray(np.clip(pixels + rng.normal(0, 0.05 * 255, pixels.shape), 0, 255).astype(np.uint8))


def labelled(p: Image.Image, _rng: np.random.Generator) -> Image.Image:
    pixels = np.array(p)
    pixels[: p.height // 10, : p.width // 5] = 255
    return Image.fromarray(pixels)


def darker(p: Image.Image, _rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Contrast(p.point(lambda v: round(255 * (v / 255) ** 1.4))).enhance(0.8)


def mixed(p: Image.Image, rng: np.random.Generator) -> Image.Image:
    return darker(cropped(0.92)(turned(6)(p.transpose(Image.Transpose.FLIP_LEFT_RIGHT), rng), rng), rng)


ALTERATIONS: dict[str, Alter] = {
    "saved as JPEG of quality 40": saved_anew,
    "half the size and back": smaller,
    "darker, less contrast": darker,
    "noise of 5 %": noisy,
    "mirrored": lambda p, _rng: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "turned by 90°": lambda p, _rng: p.transpose(Image.Transpose.ROTATE_90),
    "turned by 5°": turned(5),
    "turned by 10°": turned(10),
    "cropped to 0.9": cropped(0.9),
    "cropped to 0.8": cropped(0.8),
    "shifted by 5 %": shifted(0.05),
    "shifted by 10 %": shifted(0.1),
    "a label in the corner": labelled,
    "mirrored, turned by 6°, cropped to 0.92, darker": mixed,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="see that everything runs; nothing is written")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "copies.json")
    given = parser.parse_args()
    set_quiet(True)
    rows = []
    for name in ("phantom",) if given.smoke else COHORTS:
        cohort = load_cohort("phantom", n_images=300, size=48) if given.smoke else real(name)
        rows.append(measured(cohort, n=8 if given.smoke else PER_ALTERATION))
        print(rows[-1], flush=True)
    if not given.smoke:
        found = {
            "title": "Altered copies among real images",
            "command": "python benchmarks/copies.py",
            "alterations": list(ALTERATIONS),
            "rows": rows,
            "environment": environment(),
            "date": today(),
        }
        write_json(given.out, found)


def real(name: str) -> Cohort:
    """A development cohort, as its study in studies/real reads it."""
    data = load_study(HERE / "studies" / "real" / f"{name}.yaml").data
    return load_cohort(data.source, **data.options)


def measured(cohort: Cohort, *, n: int) -> dict[str, Any]:
    """The share of planted copies that each way finds, by alteration, its false pairs, and its time."""
    rng = np.random.default_rng(0)
    n = min(n, len(cohort) // len(ALTERATIONS))
    originals = rng.permutation(len(cohort))[: n * len(ALTERATIONS)]
    planted = with_copies(cohort, originals, rng)
    patients = np.concatenate([cohort.patient_codes(), cohort.patient_codes()[originals]])
    truth = {(int(row), len(cohort) + k): k // n for k, row in enumerate(originals)}
    alone = copies_of(cohort)
    start = time.perf_counter()
    pairs = copies_of(planted).pairs
    seconds = time.perf_counter() - start
    pairs = pairs[pairs["alike"] >= COPY]
    ours = set(zip(pairs["row"], pairs["other"], strict=True))
    start = time.perf_counter()
    theirs = hashed(planted)
    return {
        "cohort": cohort.name,
        "images": len(cohort),
        "size": list(cohort.spatial),
        "per_alteration": n,
        "promised": round(100 * alone.n_found / alone.n_planted),
        "trueread": scored(ours, truth, n, patients) | {"seconds": round(seconds, 1)},
        "phash": scored(theirs, truth, n, patients) | {"seconds": round(time.perf_counter() - start, 1)},
    }


def with_copies(cohort: Cohort, originals: np.ndarray, rng: np.random.Generator) -> Cohort:
    """The cohort and behind it an altered copy of each of the images `originals`, one alteration after the other."""
    n = len(originals) // len(ALTERATIONS)
    copies = []
    for k, row in enumerate(originals):
        alter = list(ALTERATIONS.values())[k // n]
        copies.append(altered(cohort.images[row], alter, rng))
    table = pd.DataFrame({"id": [f"copy {k}" for k in range(len(originals))], "split": ""})
    table["patient"] = table["id"]
    return replace(
        cohort,
        images=np.concatenate([cohort.images, np.stack(copies)]),
        labels=np.concatenate([cohort.labels, cohort.labels[originals]]),
        table=pd.concat([cohort.table.assign(split="")[["id", "patient", "split"]], table], ignore_index=True),
        masks=None,
        truth=None,
        files=None,
        known=(),
    )


def altered(image: np.ndarray, alter: Alter, rng: np.random.Generator) -> np.ndarray:
    """One image [C,H,W] altered; of a volume [C,D,H,W] every slice in the same way."""
    if image.ndim == 4:
        seed = int(rng.integers(2**32))
        slices = [altered(image[:, d], alter, np.random.default_rng(seed)) for d in range(image.shape[1])]
        return np.stack(slices, axis=1)
    picture = Image.fromarray(image[0] if len(image) == 1 else np.moveaxis(image, 0, -1))
    pixels = np.asarray(alter(picture, rng))
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def hashed(cohort: Cohort) -> set[tuple[int, int]]:
    """Pairs of different patients whose perceptual hashes are alike in some of the eight poses."""
    grey = cohort.images.astype(np.float32)
    grey = grey.mean(axis=(1, 2)) if cohort.is_volume else grey.mean(axis=1)
    grey = grey.round().astype(np.uint8)
    bits = [np.stack([bits_of(image) for image in posed(grey, pose)]) for pose in range(len(POSES))]
    patients = cohort.patient_codes()
    apart = np.full((len(grey), len(grey)), 64, np.float32)
    for other in bits:
        both = bits[0] @ other.T
        apart = np.minimum(apart, bits[0].sum(1)[:, None] + other.sum(1)[None] - 2 * both)
    close = np.triu(apart <= BITS_APART, 1) & (patients[:, None] != patients[None])
    return {(int(a), int(b)) for a, b in np.argwhere(close)}


def bits_of(image: np.ndarray) -> np.ndarray:
    import imagehash  # of the extra `bench`

    return imagehash.phash(Image.fromarray(np.ascontiguousarray(image))).hash.reshape(-1).astype(np.float32)


def scored(found: set[tuple[int, int]], truth: dict[tuple[int, int], int], n: int, patients: np.ndarray) -> Scores:
    """patients: [N], of a copy its original's: a copy may well look like its original's sister."""
    hits = np.bincount([kind for pair, kind in truth.items() if pair in found], minlength=len(ALTERATIONS))
    before = len(patients) - len(truth)
    others = [pair for pair in found if patients[pair[0]] != patients[pair[1]]]
    old = sum(second < before for _, second in others)
    return {"found": (hits / n).round(3).tolist(), "pairs_before": old, "wrong_pairs": len(others) - old}


if __name__ == "__main__":
    main()
