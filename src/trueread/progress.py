"""Progress: a bar with rate and remaining time on a terminal, plain lines elsewhere, silence when asked."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

T = TypeVar("T")

PLAIN_LINE_SECONDS = 10.0  # how often a log file gets a line

_quiet = False
_last_line = 0.0  # when a log file got its last line
_live: Progress | None = None  # rich allows one live display: nested bars share it


def set_quiet(quiet: bool) -> None:
    """Switch all progress and messages off (for --quiet, --json and tests), or on again."""
    global _quiet
    _quiet = quiet


def say(message: str) -> None:
    """One line to the person, on stderr, so that stdout stays machine-readable. Goes above a running bar."""
    if _quiet:
        return
    if _live is not None:
        _live.console.print(message, markup=False, highlight=False)
    else:
        print(message, file=sys.stderr, flush=True)


def track(
    iterable: Iterable[T], *, what: str, total: int | None = None, unit: str = "images", before: int = 0
) -> Iterator[T]:
    """Pass `iterable` through and show how far it is.

    what: the work in two or three words ("reading kermany"). total: number of items, if `iterable` has no length.
    unit: what an item is, for the rate ("images", "epochs"). before: items of `total` that were done earlier, when
    `iterable` is a part of the work (one epoch of a training), so that the remaining time is that of the whole.
    """
    if total is None:
        total = len(iterable) if isinstance(iterable, Sized) else None
    if _quiet:
        yield from iterable
    elif sys.stderr.isatty():
        yield from _bar(iterable, what, total, unit, before)
    else:
        yield from _lines(iterable, what, total, unit, before)


def _bar(iterable: Iterable[T], what: str, total: int | None, unit: str, before: int) -> Iterator[T]:
    with _display() as progress:
        task = progress.add_task(what, total=total, completed=before, unit=unit)
        try:
            for item in iterable:
                yield item
                progress.advance(task)
        finally:
            progress.remove_task(task)


@contextmanager
def _display() -> Iterator[Progress]:
    """The one live display; the outermost user opens and closes it."""
    global _live
    if _live is not None:
        yield _live
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _rate_column(),
        TimeRemainingColumn(compact=True),
    )
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    _live = progress
    try:
        with progress:
            yield progress
    finally:
        _live = None


def _rate_column() -> ProgressColumn:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Rate(ProgressColumn):
        """Items per second, or seconds per item when slow."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(_rate(speed, task.fields["unit"]) if speed else "", style="dim")

    return Rate()


def _lines(iterable: Iterable[T], what: str, total: int | None, unit: str, before: int) -> Iterator[T]:
    """A line at the first item after each interval, and none for work that is over before the first.

    A part of longer work takes the interval over from the part before, or many short parts would never say anything.
    """
    global _last_line
    start = time.monotonic()
    if not before:
        _last_line = start
    for done, item in enumerate(iterable, start=1):
        yield item
        now = time.monotonic()
        if now - _last_line >= PLAIN_LINE_SECONDS:
            _last_line = now
            speed = done / max(now - start, 1e-9)
            left = f", {(total - before - done) / speed:.0f} s left" if total else ""
            say(f"{what}: {before + done}{f' of {total}' if total else ''} {unit}, {_rate(speed, unit)}{left}")


def _rate(per_second: float, unit: str) -> str:
    if per_second >= 2:
        return f"{per_second:,.0f} {unit}/s"
    one = unit[:-2] if unit.endswith(("ches", "sses")) else unit.removesuffix("s")
    return f"{1 / per_second:.1f} s per {one}"
