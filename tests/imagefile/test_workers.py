"""Decoding in processes of their own gives what decoding in this one gives, whatever happens to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trueread.cohort import decoding
from trueread.cohort.cache import Cache
from trueread.cohort.read import read_images
from trueread.imagefile.decode import Recipe, Unreadable, decoded, pillow_ready
from trueread.imagefile.workers import Workers

N = 90


@pytest.fixture
def files(tmp_path):
    """8-bit and 16-bit images, one cut short, one missing, one whose name is no UTF-8."""
    generator, found = np.random.default_rng(0), []
    for i in range(N):
        found.append(tmp_path / f"{i}.png")
        deep = i % 7 == 3
        pixels = generator.integers(0, 65536 if deep else 256, (40, 30 + i % 9))
        Image.fromarray(pixels.astype(np.uint16 if deep else np.uint8)).save(found[i])
    found[10].write_bytes(found[10].read_bytes()[:90])
    found[20].unlink()
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    found[30] = found[30].rename(odd)
    return found


@pytest.fixture
def in_processes(monkeypatch):
    """Cohorts of any size are decoded by two."""
    monkeypatch.setattr(decoding, "MANY", 0)
    monkeypatch.setattr(decoding, "cores", lambda: 2)
    monkeypatch.setattr(decoding, "CHUNK", 8)


def assert_same(found, expected):
    assert found.images.dtype == expected.images.dtype
    np.testing.assert_array_equal(found.images, expected.images)
    np.testing.assert_array_equal(found.kept, expected.kept)
    assert found.omitted.equals(expected.omitted)
    assert found.files.equals(expected.files)
    if expected.masks is not None:
        np.testing.assert_array_equal(found.masks, expected.masks)


@pytest.mark.usefixtures("in_processes")
@pytest.mark.parametrize("masked", [False, True])
def test_the_same_in_processes_in_memory_and_in_the_cache(files, masked, tmp_path, monkeypatch):
    masks = None
    if masked:
        Image.fromarray(np.eye(40, dtype=np.uint8) * 255).save(tmp_path / "mask.png")
        masks = [tmp_path / "mask.png" if i % 2 else None for i in range(N)]
    options = {"size": 16, "channels": 1, "masks": masks, "tolerated": 1.0}
    found = read_images(files, **options)
    kept = read_images(files, **options, cache=Cache(tmp_path / "cache", "clinic"))
    monkeypatch.setattr(decoding, "MANY", 10**9)
    expected = read_images(files, **options)
    assert set(expected.omitted["reason"]) >= {"no such file"}
    assert_same(found, expected)
    assert_same(kept, expected)
    again = read_images(files, **options, cache=Cache(tmp_path / "cache", "clinic"))
    assert_same(again, expected)


def told(outcome):
    picture, seen = outcome
    part = str(picture) if isinstance(picture, Unreadable) else (picture.pixels.tolist(), picture[1:3], picture.mask)
    return part, None if seen is None else (seen.stamps.tolist(), seen.contents.tolist())


@pytest.mark.parametrize("watch", [False, True])
def test_processes_that_die_are_replaced_by_this_one(files, watch):
    recipe, jobs = Recipe(16, 1, "crop"), [(str(file), None) for file in files]
    with pillow_ready():
        expected = [told(outcome) for outcome in decoded(jobs, recipe, watch=watch)]
        with Workers(2, recipe, watch=watch) as workers:
            assert [told(outcome) for outcome in workers(jobs)] == expected
            assert [process.is_ready for process in workers.started] == [True, False]
            workers.started[0].popen.kill()
            workers.started[1].popen.kill()
            for _ in range(3):
                assert [told(outcome) for outcome in workers(jobs)] == expected
    assert all(process.popen.returncode is not None for process in workers.started)


@pytest.mark.parametrize("program", ["/bin/false-python", "/usr/bin/notepad", "", None])
def test_a_program_that_python_is_built_into_is_not_started(files, program, monkeypatch):
    monkeypatch.setattr(sys, "executable", program)
    recipe, jobs = Recipe(16, 1, "crop"), [(str(file), None) for file in files[:5]]
    with pillow_ready(), Workers(2, recipe, watch=False) as workers:
        assert workers.started == []
        assert [told(outcome) for outcome in workers(jobs)] == [told(o) for o in decoded(jobs, recipe, watch=False)]


SCRIPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job ignores
from pathlib import Path
from trueread.cohort import decoding
from trueread.cohort.read import read_images
decoding.MANY, decoding.cores = 0, lambda: 2
print("begun", flush=True)
files = sorted(Path(sys.argv[1]).glob("*.png"))
print(len(read_images(files * int(sys.argv[2]), size=16, channels=1, tolerated=1.0).kept), flush=True)
"""


def start(files, times):
    command = [sys.executable, "-c", SCRIPT, str(files[0].parent), str(times)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_an_unguarded_script_runs_once(files):
    process = start(files, 1)
    assert process.communicate(timeout=120)[0] == f"begun\n{N - 2}\n"


def children_of(pid):
    task = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in task.read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are counted by way of /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_none_outlives_the_process_that_started_it(files, how):
    process = start(files, 2000)
    with process:
        assert process.stdout.readline() == "begun\n"
        deadline = time.monotonic() + 60
        while len(started := children_of(process.pid)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(how)
        process.communicate(timeout=60)
        assert process.returncode != 0
        while any(Path(f"/proc/{child}/cmdline").exists() for child in started):
            assert time.monotonic() < deadline
            time.sleep(0.05)
