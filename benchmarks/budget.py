"""Pieces of a benchmark within a budget of time: what fails or no longer fits is named, and the rest goes on."""

from __future__ import annotations

import gc
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import TypeVar

import torch
from options import Options
from sheet import Sheet

T = TypeVar("T")


@dataclass
class Bench:
    """One run of a part: where its results go, and the time that is left."""

    sheet: Sheet
    options: Options
    started: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds of the budget."""
        return self.options.budget - (time.monotonic() - self.started)

    def attempt(self, what: str, seconds: float, work: Callable[[], T]) -> T | None:
        """What `work` returns; None, and its reason on the sheet, when it fails or takes more than the time left.

        seconds: that it is expected to take; it is not begun with less.
        """
        if self.left < seconds:
            self.sheet.missing.append(f"{what}: left out, {max(self.left, 0):.0f} s of the budget were left")
            self.sheet.say(self.sheet.missing[-1])
            return None
        found: list[T] = []
        with self.sheet.attempt(what), _no_longer_than(self.left):
            found.append(work())
        _free()
        return found[0] if found else None


def _free() -> None:
    gc.collect()  # a DataLoader's kept workers, a graph's memory
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def _no_longer_than(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in the main thread when the body takes longer, such as a DataLoader that hangs."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    outer = signal.setitimer(signal.ITIMER_REAL, seconds)[0]  # of an attempt within an attempt
    start = time.monotonic()
    try:
        yield
    finally:
        left = outer - (time.monotonic() - start) if outer else 0.0
        signal.setitimer(signal.ITIMER_REAL, max(left, 0.01) if outer else 0.0)
        signal.signal(signal.SIGALRM, before)
