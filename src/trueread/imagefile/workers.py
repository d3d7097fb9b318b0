"""Processes that decode image files for this one.

Threads do not do for small images: Python's own work on each file, under one lock, takes longer than decoding, and on
two cores four threads are slower than one. And `multiprocessing` does not do in a library: it runs a user's script once
more in every process, unless that is guarded. These processes run `worker.py`, and nothing of the user's.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from trueread.imagefile.decode import Job, Outcome, Recipe, decoded
from trueread.imagefile.worker import READY, read_answer, request

_START = "import sys; sys.path[:] = {path!r}; from trueread.imagefile.worker import main; main()"


class Workers:
    """n processes, n >= 1. A context: leaving it ends them, whatever they are at. Used from n threads at once.

    What a process does not do, because it cannot be started or has died, is done in this one.
    """

    def __init__(self, n: int, recipe: Recipe, *, watch: bool) -> None:
        self.recipe, self.watch = recipe, watch
        self.started = [process for process in (_Process.start() for _ in range(n)) if process is not None]
        self.idle: queue.SimpleQueue[_Process | None] = queue.SimpleQueue()
        for place in range(n):
            self.idle.put(self.started[place] if place < len(self.started) else None)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self.started:
            process.end()

    def __call__(self, jobs: Sequence[Job]) -> list[Outcome]:
        """As `decoded`, in the first process that is idle."""
        process = self.idle.get()
        try:
            if process is not None:
                try:
                    return process.ask(jobs, self.recipe, watch=self.watch)
                except (OSError, EOFError, ValueError):
                    process = None
            return decoded(jobs, self.recipe, watch=self.watch)
        finally:
            self.idle.put(process)


class _Process:
    """One of them, and the pipes to and from it."""

    def __init__(self, popen: subprocess.Popen[bytes], requests: IO[bytes], answers: IO[bytes]) -> None:
        self.popen, self.requests, self.answers, self.is_ready = popen, requests, answers, False

    @classmethod
    def start(cls) -> _Process | None:
        """None when it cannot be, among others where `sys.executable` is a program that Python is built into."""
        if getattr(sys, "frozen", False) or "py" not in Path(sys.executable or "").stem.lower():
            return None
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        try:
            popen = subprocess.Popen(
                [sys.executable, "-c", _START.format(path=sys.path)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ | one_thread,
            )  # fmt: skip
        except OSError:
            return None
        return None if popen.stdin is None or popen.stdout is None else cls(popen, popen.stdin, popen.stdout)

    def ask(self, jobs: Sequence[Job], recipe: Recipe, *, watch: bool) -> list[Outcome]:
        """Raises OSError, EOFError or ValueError when it has died."""
        if not self.is_ready:  # importing takes it some 0.2 s; all do it at once
            if self.answers.readline() != READY:
                raise EOFError
            self.is_ready = True
        self.requests.write(request(recipe, watch, jobs))
        self.requests.flush()
        return read_answer(self.answers, recipe)

    def end(self) -> None:
        self.popen.kill()
        with suppress(OSError):  # what it was not told any more
            self.requests.close()
        self.answers.close()
        self.popen.wait()


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
