"""Runs that are killed, interrupted or out of disk, as a person meets them: whole processes, and what they leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tiny_runs import write_pictures

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="POSIX signals and limits"),
]
TRAIN = {
    "epochs": 4, "batch_size": 16, "precision": "fp32", "threads": 1, "device": "cpu", "dropout": 0.1, "ema_decay": 0.8,
}  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def command(pictures: Path, out: Path, *methods: str) -> list[str]:
    """The run of a small study of `methods`, erm and mixup by default, into the folder `out`."""
    study = {
        "name": "small",
        "data": {"source": f"folder:{pictures}", "size": 16, "patient": r"patient\d+"},
        "check": False,
        "audits": ["performance", "corruption"],
        "methods": list(methods or ("erm", "mixup")),
        "train": TRAIN,
        "resamples": 100,
    }
    path = out.with_suffix(f".{len(study['methods'])}.yaml")
    path.write_text(json.dumps(study))  # which is YAML
    return [sys.executable, "-m", "trueread", "run", str(path), "--out", str(out)]


def start(arguments: list[str], **options) -> subprocess.Popen:
    return subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        **{"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options},
    )


def finish(arguments: list[str]) -> str:
    done = start(arguments)
    _, err = done.communicate(timeout=300)
    assert done.returncode == 0, err
    return err


def outcome(folder: Path) -> dict:
    """Every weight's bits, every prediction, and all that the report says but for times, dates and commands."""
    told = json.loads((folder / "findings.json").read_text())
    for findings in told.values():
        for finding in findings:
            finding.pop("seconds")
    found: dict = {"findings": told}
    for path in sorted(folder.glob("methods/*/seed-*/**/*")):
        if path.name in ("weights.safetensors", "predictions.csv"):
            found[str(path.relative_to(folder))] = path.read_bytes()
    summary = json.loads((folder / "summary.json").read_text())
    return found | {"cohort": summary["cohort"], "differences": summary["differences"], "gallery": summary["gallery"]}


@pytest.fixture(scope="module")
def uninterrupted(pictures, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    finish(command(pictures, folder))
    return folder


def wait_for(folder: Path, pattern: str, process: subprocess.Popen) -> None:
    end = time.monotonic() + 120
    while not list(folder.glob(pattern)) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)


MOMENTS = {  # in the order in which a run passes them
    "in the first training": ("methods/erm/seed-0/checkpoints/epoch-00002-*.pt", 0.0),
    "after the first training": ("methods/erm/seed-0/predictions.csv", 0.0),
    "while something is written": ("methods/mixup/seed-0/checkpoints/*.part", 0.0),
    "in the audits": ("methods/mixup/seed-0/predictions.csv", 0.1),
}


def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bits_and_the_same_report(
    tmp_path, pictures, uninterrupted
):
    folder = tmp_path / "run"
    for moment, (pattern, later) in MOMENTS.items():
        process = start(command(pictures, folder))
        wait_for(folder, pattern, process)
        time.sleep(later)
        process.kill()
        _, err = process.communicate()
        assert process.returncode == -signal.SIGKILL, moment
        if moment == "in the audits":
            assert "erm, seed 0, epoch" not in err  # what was done is not done again
    assert "mixup, seed 0, epoch" not in finish(command(pictures, folder))
    assert outcome(folder) == outcome(uninterrupted)
    assert not list(folder.rglob("*.pt"))
    assert not list(folder.rglob("*.part"))


def test_an_interrupted_run_says_how_to_go_on_and_does(tmp_path, pictures, uninterrupted):
    folder = tmp_path / "run"
    for number, method in ((signal.SIGINT, "erm"), (signal.SIGTERM, "mixup")):
        process = start(command(pictures, folder))
        wait_for(folder, f"methods/{method}/seed-0/checkpoints/epoch-00001-*.pt", process)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        lines = err.splitlines()
        assert "interrupted: ends this step and saves it (once more stops at once)." in lines
        assert lines[-1] == "trueread: interrupted; the same command continues where it stopped."
        assert "Traceback" not in err
    told = finish(command(pictures, folder))
    assert "continuing after" in told
    assert outcome(folder) == outcome(uninterrupted)


def test_a_full_disk_stops_the_run_and_leaves_what_was_finished(tmp_path, pictures, uninterrupted):
    """A limit on the size of files stands for the disk: from the second method's checkpoints on, nothing fits."""
    import resource

    folder = tmp_path / "run"
    finish(command(pictures, folder, "erm"))
    before = {p: p.read_bytes() for p in (folder / "methods").rglob("*") if p.is_file()}
    limit = 300_000  # bytes: tables fit, weights do not
    full = start(
        command(pictures, folder),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    _, err = full.communicate(timeout=120)
    assert full.returncode == 2, err
    last = err.splitlines()[-1]
    assert last.startswith("trueread: ")
    assert "the disk is full" in last
    assert "Traceback" not in err
    assert {p: p.read_bytes() for p in before} == before
    finish(command(pictures, folder))
    assert outcome(folder) == outcome(uninterrupted)
