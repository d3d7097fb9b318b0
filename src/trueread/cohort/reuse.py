"""What need not be decoded again: an interrupted store to go on with, and others to copy unchanged images from."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trueread.cohort.index import RECORD
from trueread.cohort.mapped import release
from trueread.cohort.store import Store, compare, create_store, listing_of, open_store, picture_at, stamps_of
from trueread.imagefile.decode import Job, Outcome, Recipe, Seen


@dataclass(frozen=True)
class Source:
    """A store that unchanged images are copied from. at: int64 [N], where each job is in it, or -1. records: `RECORD`
    [N] of those that are, with the stamps that their files have now.
    """

    store: Store
    at: np.ndarray
    records: np.ndarray
    images: np.ndarray
    masks: np.ndarray | None


def stores_in(folder: Path) -> set[Path]:
    """The base of every store in a folder, finished or not."""
    return {path.with_suffix("") for path in folder.glob("*.list")}


def begun(
    folder: Path, finished: str, jobs: Sequence[Job], *, recipe: Recipe, asked: Mapping[str, Any], what: str
) -> tuple[Store, list[Source]]:
    """The store to go on with, an interrupted one of the very same files or a new one; and those to copy from.

    finished: the name of the store that is never written to. what: the words beside the progress bar.
    """
    now, sources = stamps_of(jobs), []
    going_on: Store | None = None
    for base in sorted(stores_in(folder)):
        store = open_store(base)
        if store is None or store.asked != asked or store.recipe != recipe:
            continue
        try:
            images, masks = store.images(), store.masks()
        except OSError:
            continue
        n = len(store.index.records)
        place = {job: i for i, job in enumerate(store.jobs[:n])}
        at = np.array([place.get(job, -1) for job in jobs], np.int64)
        there = np.flatnonzero(at >= 0)
        found = compare(store, at[there], [jobs[i] for i in there.tolist()], now[there], what=what)
        at[there[~found.same]] = -1
        if base.name != finished and n and store.listing == listing_of(jobs) and (at[:n] == np.arange(n)).all():
            going_on = store
        else:
            records = np.zeros(len(jobs), RECORD)
            records[there] = found.records
            sources.append(Source(store, at, records, images, masks))
    if going_on is None:
        going_on = create_store(folder / secrets.token_hex(6), asked=asked, recipe=recipe, jobs=jobs)
    return going_on, sources


def outcomes(
    positions: Sequence[int], *, jobs: Sequence[Job], sources: Sequence[Source],
    decode: Callable[[Sequence[Job]], list[Outcome]],
) -> list[Outcome]:  # fmt: skip
    """What came of some jobs, copied from a source or decoded, and what their files were like. Runs in threads."""
    copies = {i: _copied(sources, i) for i in positions}
    new = [i for i, copy in copies.items() if copy is None]
    decoded = iter(decode([jobs[i] for i in new]) if new else [])
    return [copy or next(decoded) for copy in copies.values()]


def _copied(sources: Sequence[Source], position: int) -> Outcome | None:
    for source in sources:
        if source.at[position] >= 0:
            record = source.records[position]
            picture = picture_at(source.store, source.images, source.masks, int(source.at[position]))
            return picture, Seen(record["stamp"], record["content"])
    return None


def let_go(sources: Sequence[Source]) -> None:
    """Release what was copied: otherwise all of it would stay in this process."""
    for source in sources:
        release(source.images)
        if source.masks is not None:
            release(source.masks)
