"""The benchmarks of the repository can be started: a name that moved is noticed here and not in a long run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def test_every_benchmark_imports():
    names = sorted(p.stem for p in BENCHMARKS.glob("*.py"))
    assert len(names) > 15
    command = [sys.executable, "-c", f"import {', '.join(names)}"]
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
