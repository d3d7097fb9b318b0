"""Ctrl-C and a scheduler's SIGTERM, heard between two steps: what was done is saved before the run ends."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from trueread.progress import say


class Interruption:
    """A context in which the first Ctrl-C (or SIGTERM) only asks: `asked` becomes True, and the loop ends the step,
    saves and raises KeyboardInterrupt. The second one interrupts at once.

    Outside the main thread nothing is listened to, because Python gives signals to the main thread alone.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:  # a background job of a shell ignores Ctrl-C
                    self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        if self.asked and kind is None:  # it came too late for a step: what runs next must stop all the same
            raise KeyboardInterrupt

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        say("interrupted: ends this step and saves it (once more stops at once).")
