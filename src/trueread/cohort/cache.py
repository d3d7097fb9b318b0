"""Decoded images on disk: decoded once, mapped into memory at every later start, continued where they stopped.

Each cohort has a folder in the cache, in which `current` names the store that is finished (see `store.py`). What is
finished is never changed. When files differ, a new store is written beside it: unchanged images are copied, the others
decoded, and then `current` names the new one; whoever reads the old one keeps it until done. One process at a time
writes, under a lock that the system releases when the process ends; others wait, and find its work done.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trueread.cohort.decoding import Decoded, decoded, decoder, in_chunks
from trueread.cohort.index import block
from trueread.cohort.mapped import Known, content_digest
from trueread.cohort.reuse import Source, begun, let_go, outcomes, stores_in
from trueread.cohort.store import Store, compare, listing_of, open_store, remove_store, stamps_of
from trueread.cohort.writer import Writer
from trueread.errors import InputError
from trueread.files import DiskFull, whole, write_json
from trueread.imagefile.decode import Job, Recipe
from trueread.progress import say

try:
    import fcntl
except ImportError:  # Windows: without this lock two processes could write the same files
    fcntl = None  # type: ignore[assignment]

LEAST_BYTES = 2**28  # smaller cohorts stay in memory: decoding them takes seconds, and nothing is left on the disk


class NotCached(InputError):
    """The cache cannot be used, and nothing was decoded yet."""


@dataclass(frozen=True)
class Cache:
    """Where the decoded images of one cohort are kept.

    folder: of this cohort alone. name: for messages. least_bytes: of decoded pixels; less stays in memory.
    required: a person asked for it, so a cache that cannot be used is an error; else the images go into memory.
    mode: permissions of a folder that is made. What lies there are images of patients.
    """

    folder: Path
    name: str
    least_bytes: int = 0
    required: bool = True
    mode: int = 0o700


def cache_for(option: bool | str, *, name: str, **identity: Any) -> Cache | None:
    """The cache that an option `cache` means: "auto", True, False, or a folder. None for False.

    name: of the cohort. identity: whatever decides which files are listed and how they are decoded; data that differ
    in it do not displace each other. (What lies there is compared file by file in any case.)
    """
    if option is False or option == "off":
        return None
    key = hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=8).hexdigest()
    inside = Path("images", f"{re.sub(r'[^A-Za-z0-9_-]+', '_', name)[:40]}-{key}")
    if option == "auto":
        return Cache(default_folder() / inside, name, LEAST_BYTES, required=False)
    if option is True or option == "on":
        return Cache(default_folder() / inside, name)
    return Cache(Path(option).expanduser() / inside, name, mode=0o777)  # a named folder may be a group's


def default_folder() -> Path:
    """$TRUEREAD_CACHE, or this system's place for caches: $XDG_CACHE_HOME/trueread, ~/.cache/trueread, ..."""
    given = os.environ.get("TRUEREAD_CACHE")
    if given:
        return Path(given).expanduser()
    import pooch

    return Path(pooch.os_cache("trueread"))


def open_cached(
    cache: Cache, jobs: Sequence[Job], asked: Mapping[str, Any], *, tolerated: float | None
) -> Decoded | None:
    """The images of `jobs` when all are in the cache and no file has changed, else None. Call it in `pillow_ready`.

    asked: see `store.options_asked`. tolerated: see `read_images`; raises InputError as it does.
    """
    current = _current(cache)
    store = open_store(cache.folder / current["store"]) if current else None
    if store is None or store.asked != asked or store.listing != listing_of(jobs):
        return None
    if len(store.index.records) != len(jobs):
        return None
    found = compare(store, np.arange(len(jobs)), jobs, stamps_of(jobs), what=f"checking {cache.name}")
    if not found.same.all():
        return None
    if found.touched:
        _write_stamps(cache, store, found.records)
    try:
        return _result(store, jobs, current["digests"], tolerated=tolerated)
    except (OSError, KeyError, TypeError):  # another process has just put a new store in its place
        return None


def decode_to_cache(
    cache: Cache, jobs: Sequence[Job], recipe: Recipe, asked: Mapping[str, Any], *, tolerated: float | None, what: str
) -> Decoded:
    """Decode what is not in the cache yet, and open it. Call it in `pillow_ready`.

    Raises NotCached before the first image is decoded, DiskFull, and InputError as `decoded` does.
    """
    with _locked(cache):
        found = open_cached(cache, jobs, asked, tolerated=tolerated)  # another process may have done it meanwhile
        if found is not None:
            return found
        current = _current(cache)
        name = current["store"] if current else ""
        store, sources = begun(cache.folder, name, jobs, recipe=recipe, asked=asked, what=f"checking {cache.name}")
        _refuse_without_room(cache, (len(jobs) - len(store.index.records)) * recipe.row_bytes)
        _announce(cache, store, sources, jobs)
        done = len(store.index.records)
        with decoder(len(jobs) - done, recipe, watch=True) as decode, Writer(store) as writer:
            work = partial(outcomes, jobs=jobs, sources=sources, decode=decode)
            left = range(done, len(jobs))
            for result, seen in in_chunks(work, left, bytes_each=recipe.row_bytes, what=what, before=done):
                assert seen is not None
                if writer.add(result, seen):
                    let_go(sources)
            writer.flush()
        finished = open_store(store.base)
        assert finished is not None
        digests = _digests(finished)
        write_json(cache.folder / "current", {"store": store.base.name, "digests": digests})
        for base in stores_in(cache.folder) - {store.base}:
            remove_store(base)
        return _result(finished, jobs, digests, tolerated=tolerated)


def _current(cache: Cache) -> Any:
    """What `current` says; None when it is not there or makes no sense."""
    try:
        told = json.loads((cache.folder / "current").read_bytes())
        return told if isinstance(told["store"], str) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _announce(cache: Cache, store: Store, sources: Sequence[Source], jobs: Sequence[Job]) -> None:
    """A line on what is decoded and where to, since it takes long and takes space."""
    done, n = len(store.index.records), len(jobs)
    copied = int(np.any([source.at[done:] >= 0 for source in sources], axis=0).sum()) if sources else 0
    if done:
        say(f"{cache.name}: decoding continues after {done:,} of {n:,} images.")
    elif copied:
        say(f"{cache.name}: {n - copied:,} of {n:,} images are new or changed; only these are decoded.")
    else:
        size = _in_words(n * store.recipe.row_bytes)
        say(f"{cache.name}: {n:,} images are decoded once and kept in {cache.folder} ({size}).")


def _digests(store: Store) -> dict[str, str]:
    masks = store.masks()
    return {"images": content_digest(store.images())} | ({} if masks is None else {"masks": content_digest(masks)})


def _result(store: Store, jobs: Sequence[Job], digests: Mapping[str, str], *, tolerated: float | None) -> Decoded:
    images, masks = store.images(), store.masks()
    read = decoded(jobs, store.index.records, store.index.reasons, images, masks, tolerated=tolerated)
    known = [Known(images, digests["images"], int(read.brightest.max()))]
    if masks is not None:
        known.append(Known(masks, digests["masks"], 1))
    return replace(read, known=tuple(known))


def _write_stamps(cache: Cache, store: Store, records: np.ndarray) -> None:
    """The new times of files whose content is the same, so that it is not hashed again; if that can be written."""
    with suppress(OSError, NotCached, DiskFull), _locked(cache, wait=False) as mine:
        if mine and (_current(cache) or {}).get("store") == store.base.name:
            with whole(store.base.with_suffix(".index")) as part:
                part.write_bytes(block(records, store.index.reasons))


def _refuse_without_room(cache: Cache, needed: int) -> None:
    """Raise before an hour of decoding rather than after it."""
    free = shutil.disk_usage(cache.folder).free
    if needed > free:
        message = (
            f"the decoded images of {cache.name} need {_in_words(needed)} in {cache.folder}, whose disk has "
            f"{_in_words(free)} left; make space, or name a folder on a larger disk with cache=PATH or "
            "$TRUEREAD_CACHE."
        )
        raise DiskFull(message) if cache.required else NotCached(message)


def _in_words(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.0f} MiB"


@contextmanager
def _locked(cache: Cache, *, wait: bool = True) -> Iterator[bool]:
    """The right to write in the cache's folder, which this makes; False when it is another's and `wait` is."""
    if fcntl is None:
        raise NotCached("decoded images can only be kept on systems with file locks (not Windows); give cache=false.")
    try:
        cache.folder.mkdir(parents=True, exist_ok=True, mode=cache.mode)
        file = (cache.folder / "lock").open("ab")
    except OSError as error:
        raise NotCached(
            f"decoded images cannot be kept in {cache.folder} ({error.strerror}); name another folder with cache=PATH "
            "or $TRUEREAD_CACHE."
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                yield False
                return
            say(f"{cache.name}: another process is decoding it; waiting for that.")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise NotCached(
                f"{cache.folder} is on a disk without file locks ({error.strerror}); name another folder with "
                "cache=PATH or $TRUEREAD_CACHE."
            ) from None
        yield True
