"""Image files to arrays: many at once, in memory or in the cache, broken ones listed and left out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from trueread.cohort.cache import Cache, NotCached, decode_to_cache, open_cached
from trueread.cohort.classes import natural_key
from trueread.cohort.decoding import Decoded, channels_of, decode_to_memory
from trueread.cohort.store import options_asked
from trueread.errors import InputError
from trueread.imagefile.decode import Fit, Job, Recipe, Unreadable, decode_image, pillow_ready
from trueread.imagefile.dicom import DICOM_ENDINGS, is_dicom
from trueread.progress import say

AnyPath = str | os.PathLike[str]
Channels = Literal["auto", 1, 3]

IMAGE_ENDINGS = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2", ".pgm", ".ppm",
    *DICOM_ENDINGS,
)  # fmt: skip


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
    masks: Sequence[AnyPath | None] | None = None, white: int | None = None, tolerated: float | None = 0.5,
    cache: Cache | None = None, what: str = "reading images",
) -> Decoded:  # fmt: skip
    """Many image files as one array; see `read_image` for what happens to each.

    channels: "auto" is 3 when any of up to 64 images spread over `paths` has colour, else 1.
    masks: a mask file for each image, None where nothing is marked; see `decode_mask`. An image whose mask cannot be
        read is left out too.
    white: what the caller will take for white, when that is known; nothing is then said of dark 16-bit files.
    tolerated: share of the files that may be broken; with None all may be. what: the words beside the progress bar.
    cache: where to keep the pixels; the array is then a file mapped into memory, and bit for bit what it is without.
    If any image has 16 bits, all are uint16 and the 8-bit ones are scaled by 257, so that white is 65535 for both; a
    line says so. Broken files are listed in `omitted`. Raises InputError when more than `tolerated` are, when all are,
    or when all do not fit in memory; DiskFull when the cache's disk is.
    """
    if not len(paths):
        raise InputError("there is no image to read; check the path and the files' endings.")
    marked = [None] * len(paths) if masks is None else [None if m is None else os.fspath(m) for m in masks]
    jobs = list(zip([os.fspath(path) for path in paths], marked, strict=True))
    with pillow_ready():
        read = _decoded(jobs, size, channels, fit, masks is not None, tolerated, cache, what)
    for line in depth_notes(read, white=white):
        say(line)
    return read


def _decoded(
    jobs: Sequence[Job], size: int, channels: Channels, fit: Fit, with_masks: bool, tolerated: float | None,
    cache: Cache | None, what: str,
) -> Decoded:  # fmt: skip
    """From the cache when they are there; else decoded, into the cache when there is one and they are many."""
    at_most = Recipe(size, 3 if channels == "auto" else channels, fit, with_masks).row_bytes * len(jobs)
    if cache is not None and at_most < cache.least_bytes:
        cache = None
    asked = options_asked(size=size, channels=channels, fit=fit, masks=with_masks)
    if cache is not None:  # before the channels are known: telling them takes decoding
        found = open_cached(cache, jobs, asked, tolerated=tolerated)
        if found is not None:
            return found
    depth = channels_of(jobs, size=size, fit=fit) if channels == "auto" else channels
    recipe = Recipe(size, depth, fit, with_masks)
    if cache is not None and recipe.row_bytes * len(jobs) >= cache.least_bytes:
        try:
            return decode_to_cache(cache, jobs, recipe, asked, tolerated=tolerated, what=what)
        except NotCached as reason:
            if cache.required:
                raise
            say(f"{reason} The images are kept in memory this time.")
    return decode_to_memory(jobs, recipe, tolerated=tolerated, what=what)


def depth_notes(read: Decoded, *, white: int | None = None) -> list[str]:
    """A line when files of 8 and of 16 bits are mixed, and one when no 16-bit file reaches 1/8 of its range."""
    deep = read.whites == 65535
    n, total = int(deep.sum()), len(deep)
    notes = []
    if 0 < n < total:
        has = "files has" if n == 1 else "files have"
        notes.append(f"{n} of {total} {has} 16 bits; the 8-bit ones are scaled by 257 to the same white.")
    if n and white is None:
        brightest = int(read.brightest[deep].max())
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
    brightest = read.brightest
    fits = brightest <= white
    rows = read.kept[~fits]
    reasons = [
        f"brighter ({b}) than the model's white ({w})" for b, w in zip(brightest[~fits], white[~fits], strict=True)
    ]
    bright = pd.DataFrame({"path": [str(files[i]) for i in rows], "reason": reasons}, index=rows, dtype=str)
    omitted = pd.concat([read.omitted, bright]).sort_index() if len(rows) else read.omitted
    kept = {name: getattr(read, name)[fits] for name in ("images", "kept", "files", "whites", "brightest")}
    return (replace(read, omitted=omitted, **kept) if len(rows) else read), white[fits]


def _is_image(path: Path) -> bool:
    """By its ending, or by DICOM's mark, for such files often have none."""
    if path.suffix.lower() in IMAGE_ENDINGS:
        return True
    try:
        with path.open("rb") as file:
            return is_dicom(file, path.suffix)
    except OSError:
        return False


def list_images(paths: Sequence[str | Path]) -> list[Path]:
    """Files as given, and the images below folders, "scan 2" before "scan 10"; hidden ones are passed over."""
    files: list[Path] = []
    for given in map(Path, paths):
        if given.is_dir():
            found = (p for p in given.rglob("*") if not p.name.startswith(".") and p.is_file() and _is_image(p))
            files += sorted(found, key=lambda p: natural_key(str(p)))
        elif given.is_file():
            files.append(given)
        else:
            raise InputError(f"there is no file or folder {given}; check the path.")
    if not files:
        raise InputError(f"there is no image in {', '.join(map(str, paths))}; give image files or a folder of them.")
    return files
