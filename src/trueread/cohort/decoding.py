"""Many image files at once: decoded in order, and gathered into one array with the broken ones listed."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Literal, TypeVar

import numpy as np
import pandas as pd

from trueread.cohort.mapped import Known
from trueread.errors import InputError
from trueread.imagefile import decode as files
from trueread.imagefile.decode import Fit, Job, Outcome, Picture, Recipe, Unreadable, decode
from trueread.imagefile.filestate import stamps
from trueread.imagefile.workers import Workers, cores
from trueread.progress import track

T = TypeVar("T")
R = TypeVar("R")

OUTCOME = np.dtype(  # white 0: it could not be read
    [("width", "<u4"), ("height", "<u4"), ("white", "<u2"), ("brightest", "<u2")]
)
COLOUR_TOLERANCE = 2  # grey levels between the channels of a grey image that was stored as a colour JPEG
COLOUR_SAMPLE = 64  # images looked at to tell whether a cohort has colour
CHUNK = 32  # images per task: handing over single ones costs a fifth of the time
CHUNK_BYTES = 2**22  # and at most so many of pixels, because some tasks' results wait for those before them
MANY = 1000  # images from which on processes are started: that takes as long as decoding some 400
AHEAD = 2  # tasks per thread that are done or queued before they are asked for


@dataclass(frozen=True)
class Decoded:
    """What `read_images` returns.

    images:  uint8 or uint16 [M,C,S,S], in memory or memory-mapped.
    kept:    int64 [M], ascending: which of the given paths the rows are.
    omitted: `path` and `reason` of the others, indexed by their position among the given paths.
    white:   the stored intensity that becomes 1.0: 255, or 65535 when any image has 16 bits.
    files:   a row for each image: `width` and `height` of the original in pixels, `bytes`, `bits` and `ending`.
    whites:  int64 [M], the white of each image's own file, before it was scaled: 255 or 65535.
    brightest: int64 [M], the largest value in each row of `images`.
    masks:   uint8 [M,S,S], 1 where marked; None when none were asked for.
    known:   what need not be measured again of arrays that come from the cache.
    """

    images: np.ndarray
    kept: np.ndarray
    omitted: pd.DataFrame
    white: int
    files: pd.DataFrame
    whites: np.ndarray
    brightest: np.ndarray
    masks: np.ndarray | None = None
    known: tuple[Known, ...] = field(default=())


def decode_to_memory(jobs: Sequence[Job], recipe: Recipe, *, tolerated: float | None, what: str) -> Decoded:
    """All readable images in one array. Raises InputError when they do not fit in memory, and as `decoded` does."""
    _refuse_too_large(len(jobs), recipe)
    images = InMemory(len(jobs), recipe.shape)
    masks = np.empty((len(jobs), recipe.size, recipe.size), np.uint8) if recipe.masks else None
    outcomes, reasons = np.zeros(len(jobs), OUTCOME), {}
    with decoder(len(jobs), recipe, watch=False) as work:
        for position, (picture, _) in enumerate(in_chunks(work, jobs, bytes_each=recipe.row_bytes, what=what)):
            if isinstance(picture, Unreadable):
                reasons[position] = str(picture)
                continue
            outcomes[position] = outcome_of(picture)
            if masks is not None and picture.mask is not None:
                masks[images.n] = picture.mask
            images.append(picture.pixels)
    kept = None if masks is None else masks[: images.n]
    return decoded(jobs, outcomes, reasons, images.rows(), kept, tolerated=tolerated)


def outcome_of(picture: Picture) -> tuple[int, int, int, int]:
    """(width, height, white, brightest) of a picture at the depth of its own file, for a row of `OUTCOME`."""
    return picture.width, picture.height, int(np.iinfo(picture.pixels.dtype).max), int(picture.pixels.max())


def decoded(
    jobs: Sequence[Job], outcomes: np.ndarray, reasons: Mapping[int, str], images: np.ndarray,
    masks: np.ndarray | None, *, tolerated: float | None, known: tuple[Known, ...] = (),
) -> Decoded:  # fmt: skip
    """The result of reading, from what came of each job. outcomes: of a type that has the fields of `OUTCOME`, and
    perhaps the `stamp` of each job's files, which then need not be asked for again.

    Raises InputError when more than `tolerated` of the files cannot be read, or all of them, unless it is None.
    """
    kept = np.flatnonzero(outcomes["white"])
    omitted = pd.DataFrame(
        {"path": [jobs[i][0] for i in sorted(reasons)], "reason": [reasons[i] for i in sorted(reasons)]},
        index=sorted(reasons), dtype=str,
    )  # fmt: skip
    if tolerated is not None and (len(omitted) > tolerated * len(jobs) or not len(kept)):
        shown = [f"{in_short(path)}: {in_short(reason)}" for path, reason in omitted.head(2).itertuples(index=False)]
        raise InputError(
            f"{len(omitted)} of {len(jobs)} files cannot be read ({'; '.join(shown)}{', ...' * (len(omitted) > 2)}); "
            "check the path and the files."
        )
    white = int(np.iinfo(images.dtype).max)
    whites = outcomes["white"][kept].astype(np.int64)
    brightest = outcomes["brightest"][kept] * (white // whites)
    files = _facts([jobs[i][0] for i in kept.tolist()], outcomes[kept])
    return Decoded(images, kept, omitted, white, files, whites, brightest, masks, known)


def _facts(paths: Sequence[str], outcomes: np.ndarray) -> pd.DataFrame:
    """What the files are, whatever they show."""
    known = "stamp" in (outcomes.dtype.names or ())
    return pd.DataFrame(
        {
            "width": outcomes["width"].astype(np.int64),
            "height": outcomes["height"].astype(np.int64),
            "bytes": outcomes["stamp"][:, 0, 0] if known else stamps(paths)[:, 0],
            "bits": np.where(outcomes["white"] == 255, 8, 16),
            "ending": [os.path.splitext(path)[1].lower() for path in paths],  # noqa: PTH122  (of every file)
        }
    )


def in_short(text: str, *, letters: int = 80) -> str:
    """The text, or its beginning and its end where it is long: of a path both say more than the middle."""
    return text if len(text) <= letters else f"{text[: letters // 4]}...{text[letters // 4 + 3 - letters :]}"


class InMemory:
    """Rows put one after the other into an array that is uint8 until the first row of 16 bits comes.

    From then on all are uint16, and 8-bit ones are scaled by 257, so that white is 65535 for both.
    """

    def __init__(self, capacity: int, shape: tuple[int, ...]) -> None:
        self.images, self.n = np.empty((capacity, *shape), np.uint8), 0

    def append(self, pixels: np.ndarray) -> None:
        if pixels.dtype == np.uint16 and self.images.dtype == np.uint8:
            self.images = _widened(self.images, self.n)
        self.images[self.n] = pixels
        if pixels.dtype != self.images.dtype:
            self.images[self.n] *= 257
        self.n += 1

    def rows(self) -> np.ndarray:
        return self.images[: self.n]


def _widened(images: np.ndarray, n: int) -> np.ndarray:
    """uint16, the first n rows 257 times what they were. In place, or the cohort would be in memory one and a half
    times: the block grows at its end, and rows move towards it, the last one first.
    """
    shape, row = images.shape, images[0].size
    images.resize(2 * images.size, refcheck=False)  # no one else has seen this array
    wide = images.view(np.uint16)
    step = max(1, CHUNK_BYTES // row)
    for start in range((n - 1) // step * step, -1, -step):
        stop = min(start + step, n)
        wide[start * row : stop * row] = images[start * row : stop * row].astype(np.uint16) * 257
    return wide.reshape(shape)


def channels_of(jobs: Sequence[Job], *, size: int, fit: Fit) -> Literal[1, 3]:
    """3 when any of up to 64 images spread over the jobs has colour, else 1."""
    recipe = Recipe(size, 3, fit)
    sample = [jobs[i] for i in np.unique(np.linspace(0, len(jobs) - 1, COLOUR_SAMPLE).astype(int))]
    for picture in in_threads(lambda job: decode(job, recipe), sample, bytes_each=recipe.row_bytes):
        if isinstance(picture, Picture) and np.ptp(picture.pixels.astype(np.int32), axis=0).max() > COLOUR_TOLERANCE:
            return 3
    return 1


@contextmanager
def decoder(n: int, recipe: Recipe, *, watch: bool) -> Iterator[Callable[[Sequence[Job]], list[Outcome]]]:
    """What decodes some of n jobs: processes when they are many and this one may use several cores, else this one."""
    if n < MANY or cores() == 1:
        yield partial(files.decoded, recipe=recipe, watch=watch)
    else:
        with Workers(threads(), recipe, watch=watch) as workers:
            yield workers


def threads() -> int:
    """That hand out work, or do it."""
    return min(cores(), 32)


def in_threads(work: Callable[[T], R], jobs: Sequence[T], *, bytes_each: int = 0, what: str = "") -> Iterator[R]:
    """`work` of each job, in order. For work that releases the interpreter lock, such as Pillow's and hashlib's."""
    return in_chunks(lambda some: [work(job) for job in some], jobs, bytes_each=bytes_each, what=what)


def in_chunks(
    work: Callable[[Sequence[T]], list[R]], jobs: Sequence[T], *, bytes_each: int = 0, what: str = "", before: int = 0
) -> Iterator[R]:
    """The results of jobs, in order. work: takes some of them at once, and runs in threads.

    bytes_each: size of a result; whoever takes them slowly then does not fill the memory with those that wait.
    what: words beside the progress bar, or "" for none. before: jobs that were done earlier, for the bar.
    """
    size = CHUNK if bytes_each == 0 else max(1, min(CHUNK, CHUNK_BYTES // bytes_each))
    pool = ThreadPoolExecutor(max_workers=threads())

    def in_order() -> Iterator[list[R]]:
        waiting: deque[Future[list[R]]] = deque()
        for start in range(0, len(jobs), size):
            waiting.append(pool.submit(work, jobs[start : start + size]))
            if len(waiting) > AHEAD * threads():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    try:
        results = chain.from_iterable(in_order())
        yield from track(results, what=what, total=before + len(jobs), before=before) if what else results
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for the rest of the cohort


def _refuse_too_large(n: int, recipe: Recipe) -> None:
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not told on this system: the allocation itself will fail
        return
    needed = n * recipe.row_bytes
    if needed > memory:
        each = " x ".join(str(side) for side in recipe.shape)
        raise InputError(
            f"{n} images of {each} need {needed / 2**30:.0f} GiB, but this machine has {memory / 2**30:.0f} GiB "
            "of memory; choose a smaller size or fewer images."
        )
