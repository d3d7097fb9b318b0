"""Image files to arrays: many at once, in parallel threads, broken ones listed and left out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import pandas as pd

from trueread.cohort.classes import natural_key
from trueread.cohort.decode import Fit, Picture, Unreadable, decode_image, decode_mask, pillow_ready
from trueread.errors import InputError
from trueread.progress import say, track

Job = TypeVar("Job")
AnyPath = str | os.PathLike[str]
Channels = Literal["auto", 1, 3]

IMAGE_ENDINGS = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2", ".pgm", ".ppm",
)  # fmt: skip
COLOUR_TOLERANCE = 2  # grey levels between the channels of a grey image that was stored as a colour JPEG
COLOUR_SAMPLE = 64  # images looked at to tell whether a cohort has colour
CHUNK = 16  # images per task: handing over single ones costs a fifth of the time


@dataclass(frozen=True)
class Decoded:
    """What `read_images` and `read_masks` return.

    images:  uint8 or uint16 [M,C,S,S]; masks: uint8 [M,S,S], 1 where marked.
    kept:    int64 [M], ascending: which of the given paths the rows are.
    omitted: `path` and `reason` of the others, indexed by their position among the given paths.
    white:   the stored intensity that becomes 1.0: 255, or 65535 when any image has 16 bits; 1 for masks.
    aspects: float64 [M], width / height of the originals.
    whites:  int64 [M], the white of each image's own file, before it was scaled: 255 or 65535. Empty for masks.
    """

    images: np.ndarray
    kept: np.ndarray
    omitted: pd.DataFrame
    white: int
    aspects: np.ndarray
    whites: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))


def read_image(path: AnyPath, *, size: int, channels: Literal[1, 3], fit: Fit = "crop") -> np.ndarray:
    """One image file as uint8 or uint16 [C,S,S].

    size: side S in pixels. channels: 1 (colour becomes ITU-R 601 luma) or 3 (grey is repeated).
    fit: "crop" resizes the shorter side to S and cuts the centre out. It is the default because black bars ("pad") tell
        the network the aspect ratio, which often tells the hospital, and "stretch" changes the shape of what is seen.

    8-bit files of any colour model become uint8, 16-bit grey ones uint16 (16-bit colour is read as 8 bits). Transparent
    pixels are shown over black. The EXIF orientation is applied. Of several frames the first is read. Resizing is
    bilinear with antialiasing; large JPEGs are decoded at a reduced scale of at least 1.5 S first.
    Raises InputError when the file is missing, broken, no image, float-valued or larger than 100 million pixels.
    """
    try:
        with pillow_ready():
            return np.array(decode_image(Path(path), size=size, channels=channels, fit=fit).pixels)
    except Unreadable as reason:
        raise InputError(f"{path} cannot be read: {reason}; replace the file or leave it out.") from None


def read_images(
    paths: Sequence[AnyPath], *, size: int, channels: Channels = "auto", fit: Fit = "crop",
    white: int | None = None, tolerated: float = 0.5, what: str = "reading images",
) -> Decoded:  # fmt: skip
    """Many image files as one array; see `read_image` for what happens to each.

    channels: "auto" is 3 when any of up to 64 images spread over `paths` has colour, else 1.
    white: what the caller will take for white, when that is known; nothing is then said of dark 16-bit files.
    tolerated: share of the files that may be broken. what: the words beside the progress bar.
    If any image has 16 bits, all are uint16 and the 8-bit ones are scaled by 257, so that white is 65535 for both; a
    line says so. Broken files are listed in `omitted`. Raises InputError when more than `tolerated` are, when all are,
    or when all do not fit in memory.
    """
    files = [Path(p) for p in paths]
    if not files:
        raise InputError("there is no image to read; check the path and the files' endings.")
    with pillow_ready():
        depth = _channels_of(files, size=size, fit=fit) if channels == "auto" else channels
        pictures = _in_threads(lambda file: decode_image(file, size=size, channels=depth, fit=fit), files, what=what)
        read = _gathered(files, pictures, shape=(depth, size, size), tolerated=tolerated)
    for line in depth_notes(read, white=white):
        say(line)
    return read


def depth_notes(read: Decoded, *, white: int | None = None) -> list[str]:
    """A line when files of 8 and of 16 bits are mixed, and one when no 16-bit file reaches 1/8 of its range."""
    deep = read.whites == 65535
    n, total = int(deep.sum()), len(deep)
    notes = []
    if 0 < n < total:
        has = "files has" if n == 1 else "files have"
        notes.append(f"{n} of {total} {has} 16 bits; the 8-bit ones are scaled by 257 to the same white.")
    if n and white is None:
        brightest = max(int(read.images[i].max()) for i in np.flatnonzero(deep))
        bits = max(12, brightest.bit_length())
        if brightest <= 65535 // 8:
            notes.append(
                f"no 16-bit file is brighter than {brightest:,} of 65,535: if the detector has {bits} bits, "
                f"give white={2**bits - 1}."
            )
    return notes


def white_levels(read: Decoded, white: int) -> np.ndarray:
    """int64 [M]: the value in `read.images` that becomes 1.0 of each, for a model whose own white is `white`.

    A file of the model's depth has the model's white (12 bits in 16 stay 12 bits), one of the other its full range.
    """
    scaled = read.white // 255  # 257 when 8-bit files lie among 16-bit ones
    return np.where(read.whites == 255, min(white, 255) * scaled, white if white > 255 else 65535).astype(np.int64)


def without_too_bright(read: Decoded, white: np.ndarray, files: Sequence[Path]) -> tuple[Decoded, np.ndarray]:
    """Images brighter than their white int64 [M] moved to `omitted`, and the white of the others: what they show there
    is not what the model learned from.
    """
    brightest = read.images.reshape(len(read.images), -1).max(axis=1)
    fits = brightest <= white
    if not fits.any():
        raise InputError(
            f"all {len(fits)} images are brighter than the model's white (the first reaches {brightest[0]}, white is "
            f"{white[0]}); give images of the kind it was trained on."
        )
    rows = read.kept[~fits]
    reasons = [
        f"brighter ({b}) than the model's white ({w})" for b, w in zip(brightest[~fits], white[~fits], strict=True)
    ]
    bright = pd.DataFrame({"path": [str(files[i]) for i in rows], "reason": reasons}, index=rows, dtype=str)
    omitted = pd.concat([read.omitted, bright]).sort_index() if len(rows) else read.omitted
    kept = {name: getattr(read, name)[fits] for name in ("images", "kept", "aspects", "whites")}
    return (replace(read, omitted=omitted, **kept) if len(rows) else read), white[fits]


def list_images(paths: Sequence[str | Path]) -> list[Path]:
    """Files as given, and the images below folders, "scan 2" before "scan 10"; hidden ones are passed over."""
    files: list[Path] = []
    for given in map(Path, paths):
        if given.is_dir():
            found = (p for p in given.rglob("*") if p.suffix.lower() in IMAGE_ENDINGS and p.is_file())
            files += sorted((p for p in found if not p.name.startswith(".")), key=lambda p: natural_key(str(p)))
        elif given.is_file():
            files.append(given)
        else:
            raise InputError(f"there is no file or folder {given}; check the path.")
    if not files:
        raise InputError(f"there is no image in {', '.join(map(str, paths))}; give image files or a folder of them.")
    return files


def read_masks(
    paths: Sequence[AnyPath | None],
    *,
    size: int,
    fit: Fit = "crop",
    aspects: np.ndarray | None = None,
    what: str = "reading masks",
) -> Decoded:
    """Mask files with the geometry of `read_images`: uint8 [M,S,S], 1 where at least half of the pixel is marked.

    paths: None stands for an image on which nothing is marked (all zero).
    aspects: float [N], width / height of the images that the masks belong to; a mask of another shape is omitted.
    Marked is what is brighter than half of white or, in a file of label numbers (nothing above half of white), not 0:
    half, because resized and JPEG-compressed masks have faint ringing around the edge. A mask too small to cover half
    of any pixel keeps the pixels it covers most. Raises InputError when more than half of the files are broken.
    """
    files = [None if p is None else Path(p) for p in paths]
    known = np.full(len(files), np.nan) if aspects is None else aspects
    with pillow_ready():
        pictures = _in_threads(
            lambda job: decode_mask(job[0], size=size, fit=fit, aspect=float(job[1])),
            list(zip(files, known, strict=True)),
            what=what,
        )
        found = _gathered([file or Path() for file in files], pictures, shape=(size, size))
    return replace(found, white=1, whites=np.empty(0, np.int64))


def _channels_of(files: Sequence[Path], *, size: int, fit: Fit) -> Literal[1, 3]:
    sample = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, COLOUR_SAMPLE).astype(int))]
    for picture in _in_threads(lambda file: decode_image(file, size=size, channels=3, fit=fit), sample, what=""):
        if isinstance(picture, Picture) and np.ptp(picture.pixels.astype(np.int32), axis=0).max() > COLOUR_TOLERANCE:
            return 3
    return 1


def _in_threads(work: Callable[[Job], Picture], jobs: Sequence[Job], *, what: str) -> Iterator[Picture | Unreadable]:
    """`work` of each job, in order. Threads do: Pillow releases the interpreter lock while it decodes and resizes."""

    def attempt(job: Job) -> Picture | Unreadable:
        try:
            return work(job)
        except Unreadable as reason:
            return reason

    def chunk(start: int) -> list[Picture | Unreadable]:
        return [attempt(job) for job in jobs[start : start + CHUNK]]

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pool = ThreadPoolExecutor(max_workers=min(2 * cores, 32))
    try:
        results = (result for done in pool.map(chunk, range(0, len(jobs), CHUNK)) for result in done)
        yield from track(results, what=what, total=len(jobs)) if what else results
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for the rest of the cohort


def _gathered(
    files: Sequence[Path], pictures: Iterator[Picture | Unreadable], *, shape: tuple[int, ...], tolerated: float = 0.5
) -> Decoded:
    """All readable pictures in one array of rows `shape`, and the list of the others."""
    _refuse_too_large((len(files), *shape))
    images, white = np.empty((len(files), *shape), np.uint8), 255
    kept: list[int] = []
    aspects: list[float] = []
    whites: list[int] = []
    omitted: dict[int, tuple[str, str]] = {}
    for position, picture in enumerate(pictures):
        if isinstance(picture, Unreadable):
            omitted[position] = (str(files[position]), str(picture))
            continue
        if picture.pixels.dtype == np.uint16 and white == 255:
            images, white = images.astype(np.uint16), 65535
            images *= 257
        images[len(kept)] = picture.pixels
        if picture.pixels.dtype != images.dtype:
            images[len(kept)] *= 257
        kept.append(position)
        aspects.append(picture.aspect)
        whites.append(int(np.iinfo(picture.pixels.dtype).max))
    if len(omitted) > tolerated * len(files) or not kept:
        first = "; ".join(f"{path}: {reason}" for path, reason in list(omitted.values())[:5])
        raise InputError(
            f"{len(omitted)} of {len(files)} files cannot be read ({first}); check the path and the files."
        )
    table = pd.DataFrame(list(omitted.values()), columns=["path", "reason"], index=list(omitted), dtype=str)
    rows = np.array(kept, np.int64)
    return Decoded(images[: len(kept)], rows, table, white, np.array(aspects), np.array(whites, np.int64))


def _refuse_too_large(shape: tuple[int, ...]) -> None:
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not told on this system: the allocation itself will fail
        return
    needed = int(np.prod(shape, dtype=np.int64))
    if needed > memory:
        each = " x ".join(str(side) for side in shape[1:])
        raise InputError(
            f"{shape[0]} images of {each} need {needed / 2**30:.0f} GiB, but this machine has {memory / 2**30:.0f} GiB "
            "of memory; choose a smaller size or fewer images."
        )
