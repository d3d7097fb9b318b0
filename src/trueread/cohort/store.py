"""One array of decoded images on disk, with the files it came from, and how much of it still holds.

A store is files of one base name: BASE.list says how files are decoded (a line of JSON) and which, in order; BASE.index
what each was like and what came of it (see `index.py`); BASE.u8 or BASE.u16 are the pixels of the readable ones, one
after the other, and BASE.masks their masks.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import PIL
from PIL import features

from trueread.cohort.decoding import in_threads
from trueread.cohort.index import Index, read_index
from trueread.files import whole
from trueread.imagefile import decode as decoder
from trueread.imagefile.decode import Job, Picture, Recipe, Unreadable, decode
from trueread.imagefile.filestate import settled, stamps, unchanged

SUFFIXES = (".list", ".index", ".u8", ".u16", ".masks", ".list.part", ".index.part", ".u16.part")


@cache
def decoder_version() -> str:
    """Changes whenever the same file may give other pixels: with the text of decode.py, with Pillow and its libjpeg."""
    text = f"{inspect.getsource(decoder)}{PIL.__version__}{features.version('jpg')}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Store:
    """base: folder and name without ending. asked: the options of decoding, `channels` maybe "auto". recipe: what
    they came to. listing: the jobs as text. index: what is there of them.
    """

    base: Path
    asked: Mapping[str, Any]
    recipe: Recipe
    listing: bytes
    index: Index

    @cached_property
    def jobs(self) -> list[Job]:
        names = self.listing.decode("utf-8", "surrogateescape").split("\0")
        return [(image, mask or None) for image, mask in zip(names[::2], names[1::2], strict=True)]

    @cached_property
    def rows(self) -> np.ndarray:
        """int64 [n]: where the pixels of each job are; -1 when it could not be read."""
        readable = self.index.records["white"] > 0
        return np.where(readable, np.cumsum(readable) - 1, -1)

    @property
    def n_rows(self) -> int:
        return int((self.index.records["white"] > 0).sum())

    def images(self) -> np.ndarray:
        """uint8 or uint16 [M,C,S,S], memory-mapped. Raises OSError when they are not there."""
        file, dtype = pixel_file(self.base)
        return mapped(file, dtype, (self.n_rows, *self.recipe.shape))

    def masks(self) -> np.ndarray | None:
        """uint8 [M,S,S], memory-mapped, or None without masks. Raises OSError when they are not there."""
        if not self.recipe.masks:
            return None
        return mapped(self.base.with_suffix(".masks"), np.uint8, (self.n_rows, self.recipe.size, self.recipe.size))


def pixel_file(base: Path) -> tuple[Path, type[np.uint8] | type[np.uint16]]:
    """The file of the pixels and their type."""
    wide = base.with_suffix(".u16")
    return (wide, np.uint16) if wide.exists() else (base.with_suffix(".u8"), np.uint8)


def mapped(file: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> np.ndarray:
    """The file's first bytes as a read-only array."""
    if shape[0] == 0:
        return np.empty(shape, dtype)  # an empty file cannot be mapped
    if file.stat().st_size < np.prod(shape, dtype=np.int64) * np.dtype(dtype).itemsize:
        raise OSError(f"{file} is cut short")  # reading beyond its end would end this process
    return np.memmap(file, dtype, "r", shape=shape)


def options_asked(*, size: int, channels: Literal["auto", 1, 3], fit: str, masks: bool) -> dict[str, Any]:
    """What the pixels of a file depend on, besides the file."""
    return {"size": size, "channels": channels, "fit": fit, "masks": masks, "decoder": decoder_version()}


def listing_of(jobs: Sequence[Job]) -> bytes:
    """Image and mask of each job ("" for none), with zero bytes between."""
    return "\0".join(name or "" for job in jobs for name in job).encode("utf-8", "surrogateescape")


def create_store(base: Path, *, asked: Mapping[str, Any], recipe: Recipe, jobs: Sequence[Job]) -> Store:
    """A store without any image yet."""
    store = Store(base, asked, recipe, listing_of(jobs), Index.empty())
    head = {"asked": dict(asked), "recipe": asdict(recipe), "bytes": len(store.listing)}
    with whole(base.with_suffix(".list")) as part:
        part.write_bytes(json.dumps(head).encode() + b"\n" + store.listing)
    return store


def open_store(base: Path) -> Store | None:
    """The store of that name, finished or not; None when it is not there or makes no sense."""
    try:
        head, _, listing = base.with_suffix(".list").read_bytes().partition(b"\n")
        told = json.loads(head)
        if len(listing) != told["bytes"]:
            return None
        index = read_index(base.with_suffix(".index"))
        return Store(base, told["asked"], Recipe(**told["recipe"]), listing, index)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove_store(base: Path) -> None:
    """Remove its files. Whoever has them open keeps them until they are closed."""
    for suffix in SUFFIXES:
        try:
            base.with_suffix(suffix).unlink(missing_ok=True)
        except OSError:  # Windows does not remove what is open; the next process will
            continue


class Compared(NamedTuple):
    """same: bool [M], whether the file is as it was read. records: of these, with the stamps that files have now.
    touched: whether any of these is another than in the index.
    """

    same: np.ndarray
    records: np.ndarray
    touched: bool


def compare(store: Store, at: np.ndarray, jobs: Sequence[Job], now: np.ndarray, *, what: str = "") -> Compared:
    """Which jobs still are what a store has of them. Call it inside `pillow_ready`.

    at: int64 [M], positions in the store's index. now: int64 [M,2,3], stamps of the jobs' images and masks.
    A file of the same size and times counts as the same. One of the same size and another time is hashed: touched, or
    copied there and back, it is the same; written anew, it is not. One that could not be opened is tried once more.
    """
    records = store.index.records[at]  # a copy
    given = np.ones((len(jobs), 2), bool)
    given[:, 1] = [mask is not None for _, mask in jobs]
    hashed = records["content"].any(axis=2)
    equal = (records["stamp"] == now).all(axis=2) & hashed
    touched = False
    doubtful = np.argwhere(given & hashed & ~equal & (records["stamp"][..., 0] == now[..., 0]))

    def verify(place: np.ndarray) -> bool:
        i, part = place
        was, seen = records["stamp"][i, part], records["content"][i, part]
        return unchanged(str(jobs[i][part]), was=was, hashed=seen)

    for (i, part), verdict in zip(doubtful, in_threads(verify, list(doubtful), what=what), strict=True):
        equal[i, part] = verdict
        if verdict:
            records["stamp"][i, part] = settled(tuple(now[i, part].tolist()))
            touched = True
    same = (equal | ~given).all(axis=1)
    unopened = np.flatnonzero((records["white"] == 0) & (given & ~hashed).any(axis=1))
    attempts = in_threads(lambda i: decode(jobs[i], store.recipe), unopened.tolist(), bytes_each=store.recipe.row_bytes)
    for i, picture in zip(unopened.tolist(), attempts, strict=True):
        same[i] = isinstance(picture, Unreadable) and str(picture) == store.index.reasons.get(int(at[i]))
    return Compared(same, records, touched)


def stamps_of(jobs: Sequence[Job]) -> np.ndarray:
    """int64 [N,2,3]: size and times of each job's image and mask."""
    images = stamps([image for image, _ in jobs])
    masks = stamps([mask for _, mask in jobs])
    return np.stack([images, masks], axis=1)


def picture_at(store: Store, images: np.ndarray, masks: np.ndarray | None, position: int) -> Picture | Unreadable:
    """What decoding a job gave, at the depth of its own file. images, masks: of the store."""
    row, record = int(store.rows[position]), store.index.records[position]
    if row < 0:
        return Unreadable(store.index.reasons.get(position, "broken image data"))
    pixels = np.asarray(images[row])
    if pixels.dtype == np.uint16 and record["white"] == 255:
        pixels = (pixels // 257).astype(np.uint8)
    mask = None if masks is None else np.asarray(masks[row])
    return Picture(pixels, int(record["width"]), int(record["height"]), mask)
