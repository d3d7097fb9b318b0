"""Parts of a protocol in processes of their own, a thread in each: small networks hardly gain from a second one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event

from trueread.errors import InputError
from trueread.progress import say

MOST = 8  # each has a cohort of its own in memory


def how_many(jobs: int | None) -> int:
    """How many processes: as asked, else one for each core, and one alone where there is a GPU for it."""
    if jobs is not None:
        if jobs < 1:
            raise InputError(f"jobs must be at least 1; found {jobs}.")
        return jobs
    import torch  # here, because the command line is asked for help without it

    if torch.cuda.is_available():
        return 1
    return min(MOST, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def side_by_side(commands: Mapping[str, Sequence[str]], *, jobs: int) -> None:
    """Run trueread with each list of arguments, `jobs` at a time, one thread in each.

    What they say is passed on, with the part's name before it; an interrupt too, once, so that they save what they
    have. commands: by part. Raises InputError when one fails, once those that run are done; no other is started then.
    """
    running: list[subprocess.Popen[str]] = []
    failed: list[str] = []
    stop = Event()

    def run(part: str) -> None:
        if stop.is_set():
            return
        # a session of its own, or the terminal's interrupt would reach it beside ours, and two mean "at once"
        process = subprocess.Popen(
            [sys.executable, "-m", "trueread", *commands[part]], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
        )  # fmt: skip
        running.append(process)
        with process:
            assert process.stderr is not None
            for line in process.stderr:
                say(f"{part}: {line.rstrip()}")
        running.remove(process)
        if process.returncode:
            failed.append(part)
            stop.set()

    with ThreadPoolExecutor(jobs) as pool:
        try:
            list(pool.map(run, commands))
        except KeyboardInterrupt:
            stop.set()
            for process in list(running):
                process.send_signal(signal.SIGINT)
            raise
    if failed:
        raise InputError(f"{', '.join(failed)}: not done, for the reason above; what is done is kept.")
