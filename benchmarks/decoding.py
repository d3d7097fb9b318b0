"""Image files to arrays: beside a plain loop, threads and a running pool; the cache, a second start, reading back.

    python benchmarks/decoding.py [FOLDER] [--rounds 9] [--many 100000] [--smoke] [--out FILE]

Writes results/decoding.json. FOLDER: of images, by default the 5,216 radiographs of Kermany et al. in
$TRUEREAD_DATA/kermany; without any, phantom radiographs of 224 pixels are made. All ways give the same pixels, bit for
bit, or nothing is written. --many: files of the last row's second start.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sheet import Aim, Row, Sheet, row
from timing import Work, in_turns, middle

from trueread.cohort import Cohort, load_cohort
from trueread.cohort.cache import Cache
from trueread.cohort.read import list_images, read_images
from trueread.imagefile.decode import decode_image, pillow_ready
from trueread.imagefile.workers import cores
from trueread.progress import set_quiet
from trueread.training.batches import ImageStore

HERE = Path(__file__).resolve().parents[1]
SIDE, BATCH = 64, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--smoke", action="store_true", help="see that everything runs; nothing is written")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "decoding.json")
    given = parser.parse_args()
    set_quiet(True)
    torch.set_num_threads(1)
    usual = Path(os.environ.get("TRUEREAD_DATA", HERE.parent / "shared" / "data")) / "kermany"
    folder = given.folder or (usual if usual.is_dir() and not given.smoke else None)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        files = list_images([folder or phantom_files(scratch / "phantom", 24 if given.smoke else 5216)])
        data = folder.name if folder else "phantom radiographs of 224 px"
        title = f"Decoding {len(files):,} files ({data}) to {SIDE} px on {cores()} cores"
        sheet = Sheet("decoding", title, None if given.smoke else given.out, "python benchmarks/decoding.py")
        decoding(sheet, files, rounds=1 if given.smoke else given.rounds, scratch=scratch)
        second_start(sheet, 48 if given.smoke else given.many, rounds=1 if given.smoke else 5, scratch=scratch)


def decoding(sheet: Sheet, files: Sequence[Path], *, rounds: int, scratch: Path) -> None:
    """All ways in turns; ratios are of the same round."""
    kept, n = Cache(scratch / "kept", "kept"), len(files)

    def into_the_cache() -> None:
        shutil.rmtree(scratch / "new", ignore_errors=True)
        read_images(files, size=SIDE, channels=1, cache=Cache(scratch / "new", "new"))

    images = read_images(files, size=SIDE, channels=1, cache=kept).images
    with ProcessPoolExecutor(cores(), mp_context=get_context("spawn")) as pool:
        others = [in_processes(pool, files), read_images(files, size=SIDE, channels=1).images]  # this starts the pool
        assert all(np.array_equal(images, other) for other in others)
        works: dict[str, Work] = {
            "loop": lambda: plain_loop(files),
            "ours": lambda: read_images(files, size=SIDE, channels=1),
            "threads": lambda: in_threads_of_this_process(files),
            "processes": lambda: in_processes(pool, files),
            "cache": into_the_cache,
            "again": lambda: read_images(files, size=SIDE, channels=1, cache=kept),
            "back": epoch_of(images),
        }
        taken = in_turns(works, rounds=rounds)
    per_second = {name: n / middle(seconds).value for name, seconds in taken.items()}
    sheet.detail["seconds"] = {name: [round(float(s), 4) for s in seconds] for name, seconds in taken.items()}
    peer, unit = "one process: open, convert, resize", "images/s"
    at_least = Aim("ratio", "at least", 1.8)
    for name, what in (("ours", "decoding"), ("cache", "decoding into the cache, which hashes every file too")):
        sheet.add(
            row(what, unit, per_second[name], middle(taken["loop"] / taken[name]), peer=peer,
                theirs=per_second["loop"], aim=at_least if name == "ours" else None)
        )  # fmt: skip
    shortest = {name: float(taken[name].min()) for name in ("loop", "ours")}  # the least disturbed of the rounds
    sheet.add(
        Row("decoding, shortest round", unit, n / shortest["ours"], peer=f"{peer}, shortest round",
            theirs=n / shortest["loop"], ratio=shortest["loop"] / shortest["ours"], aim=at_least)
    )  # fmt: skip
    sheet.add(
        row("decoding", unit, per_second["ours"], middle(taken["threads"] / taken["ours"]),
            peer="trueread's decoder in two threads a core", theirs=per_second["threads"]),
        row("decoding", unit, per_second["ours"], middle(taken["processes"] / taken["ours"]),
            peer="trueread's decoder in a pool that has started", theirs=per_second["processes"]),
        row("a second start", "s", middle(taken["again"]).value, middle(taken["cache"] / taken["again"]),
            peer="the first", theirs=middle(taken["cache"]).value),
        Row("reading back at random, as float batches of 64", unit, per_second["back"],
            aim=Aim("ours", "at least", 20_000)),
    )  # fmt: skip


def second_start(sheet: Sheet, n: int, *, rounds: int, scratch: Path) -> None:
    """Listing and checking n files that are all in the cache, until the cohort and its digest are there."""
    many_files(scratch / "many", n)
    options = {"size": SIDE, "channels": 1, "patient": r"patient\d+", "cache": str(scratch / "cache")}

    def start() -> str:
        return load_cohort(f"folder:{scratch / 'many'}", **options).digest

    sheet.say(f"{n:,} files")
    begun = time.perf_counter()
    first = start()
    first_seconds = time.perf_counter() - begun
    time.sleep(2.5)  # files that were made less than two seconds before they were read are hashed once more
    assert start() == first
    begun = time.process_time()
    seconds = in_turns({"again": start}, rounds=rounds)["again"]
    processor = (time.process_time() - begun) / (rounds + 1)  # one more to warm up
    sheet.add(
        row(f"a second start, folder of {n:,} small files", "s", middle(seconds).value, middle(first_seconds / seconds),
            peer="the first", theirs=first_seconds, aim=Aim("ours", "at most", 2.0)),
        Row("the same in processor time, which other work on the machine disturbs less", "s", processor),
    )  # fmt: skip


def plain_loop(files: Sequence[Path]) -> np.ndarray:
    """What a short script does: open, convert, resize, one after the other."""
    images = np.empty((len(files), 1, SIDE, SIDE), np.uint8)
    for i, file in enumerate(files):
        with Image.open(file) as image:
            images[i, 0] = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return images


def in_threads_of_this_process(files: Sequence[Path]) -> np.ndarray:
    """trueread's decoder, two threads a core."""
    with ThreadPoolExecutor(2 * cores()) as pool:
        return np.concatenate(list(pool.map(decode_part, [files[i : i + 16] for i in range(0, len(files), 16)])))


def in_processes(pool: ProcessPoolExecutor, files: Sequence[Path]) -> np.ndarray:
    """trueread's decoder, file after file in each process."""
    return np.concatenate(list(pool.map(decode_part, [files[i : i + 128] for i in range(0, len(files), 128)])))


def decode_part(files: Sequence[Path]) -> np.ndarray:
    with pillow_ready():
        return np.stack([decode_image(file, size=SIDE, channels=1, fit="crop").pixels for file in files])


def epoch_of(images: np.ndarray) -> Work:
    """Reading every image once, in random order."""
    names = [str(i) for i in range(len(images))]
    table = pd.DataFrame({"id": names, "patient": names, "split": ""})
    cohort = Cohort("back", images, np.arange(len(images)) % 2, table, ("a", "b"), "binary")
    store, order = ImageStore(cohort, torch.device("cpu")), np.random.default_rng(0).permutation(len(images))

    def epoch() -> None:
        for start in range(0, len(order), BATCH):
            store.batch(order[start : start + BATCH])

    return epoch


def phantom_files(folder: Path, n: int) -> Path:
    """Radiographs of 224 pixels as JPEG."""
    folder.mkdir()
    for i, image in enumerate(load_cohort("phantom", n_images=n, size=224).images):
        Image.fromarray(image[0]).save(folder / f"{i:05d}.jpg", quality=90)
    return folder


def many_files(folder: Path, n: int) -> None:
    """n JPEG files of 64 pixels in two classes, of 500 different images."""
    generator, contents = np.random.default_rng(0), []
    for _ in range(500):
        buffer = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (SIDE, SIDE), np.uint8)).save(buffer, "JPEG", quality=30)
        contents.append(buffer.getvalue())
    for name in ("normal", "opacity"):
        (folder / name).mkdir(parents=True)
    for i in range(n):
        (folder / ("normal" if i % 3 else "opacity") / f"patient{i // 2}_{i}.jpg").write_bytes(contents[i % 500])


if __name__ == "__main__":
    main()
