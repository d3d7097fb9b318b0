"""The most memory that reading a folder and training an epoch take: images in memory, and images in the cache.

    python benchmarks/memory.py [--smoke] [--out FILE]       all sizes; writes results/memory.json
    python benchmarks/memory.py STAGES FOLDER KEPT [CACHE]   one size, in this process; prints JSON on the last line

Folders of 1,000 to 100,000 JPEG files of 64 px and the compact network. Each measurement runs in a process of its own;
libraries and a small training before it are its base. Then an array of 4 GiB of zeros, memory-mapped: its digest, an
epoch of batches in random order and a subset, without a network, because that would take hours.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from decoding import epoch_of, many_files
from growth import Stages, peak_megabytes
from PIL import Image
from sheet import Aim, Row, Sheet

HERE = Path(__file__).resolve().parents[1]
TITLE = "Memory by the size of the cohort (64 px; compact network, one epoch)"
SIDE, SIZES = 64, (1_000, 10_000, 100_000)
LARGE = (28_000, 3, 224, 224)  # 3.9 GiB
MEGABYTE = 1e6


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] in STAGES:
        found = STAGES[sys.argv[1]](*sys.argv[2:])
        print(json.dumps({k: round(v, 1) for k, v in found.items()}))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="see that everything runs; nothing is written")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "memory.json")
    given = parser.parse_args()
    sheet = Sheet("memory", TITLE, None if given.smoke else given.out, "python benchmarks/memory.py")
    for n in (200,) if given.smoke else SIZES:
        with tempfile.TemporaryDirectory() as folder:
            many_files(Path(folder, "images"), n)
            measure_folder(sheet, n, Path(folder))
    shape = (64, *LARGE[1:]) if given.smoke else LARGE
    with tempfile.TemporaryDirectory() as folder:
        found = in_a_process(sheet, "batches", folder, *map(str, shape))
    sheet.add(row_of_cached(f"{found['cohort']:,.0f} MB of images, memory-mapped: digest, batches and subset", found))


def measure_folder(sheet: Sheet, n: int, folder: Path) -> None:
    """Rows of one size: in memory, into the cache, from the cache, and in memory with 16 bits at the end."""
    images, cache = str(folder / "images"), str(folder / "cache")
    found = in_a_process(sheet, "train", images, "memory")
    sheet.add(row_of_memory(f"{n:,} images in memory: read and trained", found))
    found = in_a_process(sheet, "train", images, "cache", cache)
    sheet.add(row_of_cached(f"{n:,} images into the cache: read and trained", found))
    found = in_a_process(sheet, "read", images, "cache", cache)
    sheet.add(row_of_cached(f"{n:,} images from the cache: read", found))
    deep = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) * 16
    Image.fromarray(deep).save(folder / "images" / "opacity" / "patient9999999_9.png")
    found = in_a_process(sheet, "read", images, "memory")
    sheet.add(row_of_memory(f"{n + 1:,} images in memory, the last of 16 bits: read", found))


def row_of_memory(what: str, found: dict[str, float]) -> Row:
    """What reading takes, and training beyond a small one, as so many times the images."""
    return Row(what, "MB", found["above"], peer="images", theirs=found["cohort"],
               ratio=found["above"] / found["cohort"],
               aim=Aim("ratio", "at most", 1.5) if found["cohort"] > 100 else None,
               note=f"besides {found['base']:,.0f} MB of libraries and network")  # fmt: skip


def row_of_cached(what: str, found: dict[str, float]) -> Row:
    """All that the process has, libraries and mapped pages included."""
    return Row(what, "MB", found["peak"], peer="libraries and network", theirs=found["base"],
               aim=Aim("ours", "at most", 2000))  # fmt: skip


def in_a_process(sheet: Sheet, *arguments: str) -> dict[str, float]:
    sheet.say(" ".join(arguments[:1]))
    command = [sys.executable, str(Path(__file__)), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    sheet.detail.setdefault("processes", []).append({"arguments": [arguments[0], *arguments[2:3]], **found})
    return found


def read_and_train(folder: str, kept: str, cache: str = "", *, train: bool = True) -> dict[str, float]:
    """base: the most that libraries and a small training took; above: how much more reading took than was in use before
    it, or training than the small one; peak: of the process; cohort: size of the images. All in MB.
    """
    from trueread import TrainConfig, assign_splits, fit, load_cohort
    from trueread.progress import set_quiet

    set_quiet(True)
    config = TrainConfig(epochs=1, batch_size=64, select="last", device="cpu")
    small = load_cohort("phantom", n_images=2500, size=SIDE)  # enough for the largest batch of the evaluation
    fit(small, config=config, quiet=True)
    base, stages = peak_megabytes(), Stages()
    options: dict[str, Any] = {"size": SIDE, "patient": r"patient\d+", "cache": cache if kept == "cache" else False}
    with stages.stage("read"):
        cohort = load_cohort(f"folder:{folder}", **options)
    above = stages.found["read"]["megabytes"]
    peak = stages.base + above
    if train:
        with stages.stage("train"):
            fit(assign_splits(cohort), config=config, quiet=True)
        peak = max(peak, stages.base + stages.found["train"]["megabytes"])
        above = max(above, peak - base)
    return {"base": base, "above": above, "peak": max(base, peak), "cohort": cohort.images.nbytes / MEGABYTE} | {
        f"{name}_seconds": found["seconds"] for name, found in stages.found.items()
    }


def read_alone(folder: str, kept: str, cache: str = "") -> dict[str, float]:
    return read_and_train(folder, kept, cache, train=False)


def batches_of_mapped(folder: str, *shape: str) -> dict[str, float]:
    """A file of zeros that takes no space: its pages are as large as any."""
    sides = tuple(map(int, shape))
    with Path(folder, "images").open("wb") as file:
        file.truncate(int(np.prod(sides)))
    images = np.memmap(Path(folder, "images"), np.uint8, "r", shape=sides)
    import torch

    torch.zeros(1)
    base = peak_megabytes()
    work = epoch_of(images)
    work()
    from trueread.cohort.mapped import content_digest, selected

    content_digest(images)
    selected(images, np.random.default_rng(0).permutation(len(images))[: len(images) // 4])
    return {"base": base, "peak": peak_megabytes(), "cohort": images.nbytes / MEGABYTE}


STAGES: dict[str, Callable[..., dict[str, float]]] = {
    "train": read_and_train,
    "read": read_alone,
    "batches": batches_of_mapped,
}


if __name__ == "__main__":
    main()
