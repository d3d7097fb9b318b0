"""Runs that are killed, interrupted, starved of disk and shared by two processes: do they end where they should?

    python benchmarks/reliability.py [--kills N] [--smoke]

Writes results/reliability.json, from which `make results` makes docs/reliability.md. Every row is a whole run of the
command line in processes of its own, on the built-in phantom.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trueread.files import write_json
from trueread.record import environment, today

HERE = Path(__file__).resolve().parents[1]
STUDY = {
    "name": "survivor",
    "data": {"source": "phantom", "n_images": 400, "size": 28, "n_sites": 2},
    "methods": ["erm", "mixup"],
    "train": {"epochs": 6, "precision": "auto", "threads": 1, "dropout": 0.1, "ema_decay": 0.9},
    "resamples": 200,
}
FILE_LIMIT = 300_000  # bytes: tables fit, weights do not
TIMES = {"seconds", "date", "command", "histories"}


class Runs:
    """Runs of one study in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.study = folder / "study.yaml"
        self.study.write_text(json.dumps(STUDY))

    def start(self, name: str, *, before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "trueread", "run", str(self.study), "--out", str(self.folder / name)]

        def prepare() -> None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if before is not None:
                before()

        pipe = subprocess.PIPE
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env, preexec_fn=prepare)

    def finish(self, name: str) -> str:
        """Run to the end; returns what was said."""
        process = self.start(name)
        _, said = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{name} ended with {process.returncode}: {said}")
        return said

    def outcome(self, name: str) -> dict[str, str]:
        """Hashes of every trained weight, every prediction, and everything that the findings say but times."""
        folder = self.folder / name
        files = [
            *folder.glob("methods/*/seed-*/model/weights.safetensors"),
            *folder.glob("methods/*/*/predictions.csv"),
        ]
        found = {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
        for told in ("findings.json", "summary.json"):
            content = without_times(json.loads((folder / told).read_text()))
            found[told] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return found


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def killed(runs: Runs, n: int, expected: dict[str, str], whole_seconds: float) -> dict[str, Any]:
    """n kills at random moments of one run, each followed by the same command; then it may finish."""
    moments = random.Random(0)
    times = []
    for _ in range(n):
        process = runs.start("killed")
        wait = moments.uniform(2.0, 0.6 * whole_seconds)
        time.sleep(wait)
        if process.poll() is None:
            times.append(round(wait, 2))
        process.kill()
        process.communicate()
    runs.finish("killed")
    return {"kills": len(times), "after_seconds": times, "same": runs.outcome("killed") == expected}


def interrupted(runs: Runs, number: signal.Signals, expected: dict[str, str]) -> dict[str, Any]:
    """One Ctrl-C (or SIGTERM) in the second epoch: exit code, time until it stopped, and the outcome when continued."""
    name = number.name
    process = runs.start(name)
    pattern = "methods/erm/seed-0/checkpoints/epoch-00001-*.pt"
    while not list((runs.folder / name).glob(pattern)) and process.poll() is None:
        time.sleep(0.005)
    start = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate()
    seconds = time.monotonic() - start
    runs.finish(name)
    last = said.splitlines()[-1]
    return {"exit": process.returncode, "seconds": seconds, "says": last, "same": runs.outcome(name) == expected}


def starved(runs: Runs, expected: dict[str, str]) -> dict[str, Any]:
    """The run under a limit on the size of files, which stands for a full disk; continued without."""
    process = runs.start("starved", before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, FILE_LIMIT)))
    _, said = process.communicate()
    runs.finish("starved")
    says = said.splitlines()[-1].replace(f"{runs.folder}/", "")
    return {"exit": process.returncode, "says": says, "same": runs.outcome("starved") == expected}


def damaged(runs: Runs, expected: dict[str, str]) -> dict[str, Any]:
    """The newest checkpoint of a killed run loses its second half; the run goes on from the one before it."""
    process = runs.start("damaged")
    folder = runs.folder / "damaged" / "methods/erm/seed-0/checkpoints"
    while not list(folder.glob("epoch-00003-*.pt")) and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    newest = max(folder.glob("epoch-*.pt"))
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    said = runs.finish("damaged")
    return {"warned": "is damaged and passed over" in said, "same": runs.outcome("damaged") == expected}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--smoke", action="store_true", help="two kills, and nothing is written")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(folder))
        start = time.monotonic()
        runs.finish("whole")
        seconds = time.monotonic() - start
        expected = runs.outcome("whole")
        runs.finish("again")
        result = {
            "title": "Reliability",
            "command": "python benchmarks/reliability.py",
            "date": today(),
            "environment": environment(device="CPU, 1 thread"),
            "study": STUDY,
            "whole_seconds": round(seconds, 1),
            "files_compared": len(expected),
            "again": {"same": runs.outcome("again") == expected},
            "killed": killed(runs, 2 if given.smoke else given.kills, expected, seconds),
            "SIGINT": interrupted(runs, signal.SIGINT, expected),
            "SIGTERM": interrupted(runs, signal.SIGTERM, expected),
            "starved": starved(runs, expected),
            "damaged": damaged(runs, expected),
        }
    print(json.dumps(result, indent=1))
    if not given.smoke:
        write_json(HERE / "results" / "reliability.json", result)


if __name__ == "__main__":
    main()
