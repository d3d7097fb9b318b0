"""Time and memory from 1,000 to 300,000 images: made, split, trained for an epoch, evaluated, resampled.

    python benchmarks/growth.py IMAGES [--check]    one size, in this process; prints JSON on the last line

Phantoms of 28 px and the smallest network that is one, so that all sizes take minutes on two cores and the time is that
of the data's way through the loop; no image is left out at any size.
Each size runs in a process of its own. Linux can set a process's peak memory back, so each stage's peak is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from options import Options
from sheet import Aim, Row, Sheet
from timing import exponent

TITLE = "Growth from 1,000 to 300,000 images of 28 px (a network of 60,000 weights, one epoch)"
SIZES = {1_000: 3, 3_000: 3, 10_000: 3, 30_000: 2, 100_000: 1, 300_000: 1}  # how often each is done; the fastest counts
STAGES = ("make", "split", "train", "evaluate", "bootstrap")
LINEAR_FROM = 10_000  # below, what every run costs hides the growth
AIM = Aim("ratio", "at most", 1.1)  # of the exponent


def measure(sheet: Sheet, options: Options) -> None:
    """Every size in its own process, then the exponents."""
    if options.smoke:  # in this process, because a new one takes longer to start than to measure
        add_exponents(sheet, {n: all_stages(n) for n in (300, 600)}, STAGES, linear_from=0)
        return
    add_exponents(sheet, in_processes(sheet, SIZES, stages=STAGES), STAGES, linear_from=LINEAR_FROM)


def in_processes(
    sheet: Sheet, sizes: dict[int, int], *, stages: tuple[str, ...], arguments: tuple[str, ...] = ()
) -> dict[int, dict[str, Any]]:
    """Seconds and peak megabytes of each stage by size: the fastest of its repetitions. Stored in the sheet's detail.

    The repetitions of one size are not neighbours, so that a busy minute does not hit all of them.
    """
    found: dict[int, dict[str, Any]] = {}
    for repetition in range(max(sizes.values())):
        for n in (n for n, times in sizes.items() if repetition < times):
            sheet.say(f"{n:,} images")
            command = [sys.executable, str(Path(__file__)), str(n), *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                raise RuntimeError(f"{n} images: exit code {done.returncode}, {last}")
            one = json.loads(done.stdout.strip().splitlines()[-1])
            before = found.get(n, one)
            found[n] = {
                s: {k: min(one[s][k], before[s][k]) for k in ("seconds", "megabytes")} for s in stages
            }  # fmt: skip
            sheet.detail["sizes"] = {str(k): v for k, v in found.items()}
            sheet.write()
    return found


def add_exponents(sheet: Sheet, found: dict[int, dict[str, Any]], stages: tuple[str, ...], *, linear_from: int) -> None:
    """A row of time and a row of memory per stage: the exponent over the sizes from `linear_from` on."""
    sizes = np.array([n for n in sorted(found) if n >= linear_from], np.float64)
    if len(sizes) < 2:
        return
    last, first = int(sizes[-1]), int(sizes[0])
    for stage in stages:
        for what, key, unit in (("time", "seconds", "s"), ("memory", "megabytes", "MB")):
            values = np.array([found[int(n)][stage][key] for n in sizes])
            if key == "megabytes" and values[-1] < 50:
                continue  # too little to become a problem, or to fit a line to
            sheet.add(
                Row(f"{stage}, {last:,} images: {what}", unit, float(values[-1]), peer=f"at {first:,} images",
                    theirs=float(values[0]), ratio=exponent(sizes, np.maximum(values, 1e-3)), kind="exponent", aim=AIM)
            )  # fmt: skip


class Stages:
    """Seconds of each stage, and the most memory above that of the start: images stay in all that comes after them."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, float]] = {}
        _reset_peak()
        self.base = peak_megabytes()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        _reset_peak()
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.found[name] = {"seconds": seconds, "megabytes": max(peak_megabytes() - self.base, 0.0)}


def _reset_peak() -> None:
    """Set the peak back to what is in use, on Linux; elsewhere it stays that of the whole process."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_megabytes() -> float:
    """The most memory this process had at a time since `_reset_peak`."""
    status = Path("/proc/self/status")
    if status.is_file():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1e3
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 1e6 if sys.platform == "darwin" else used / 1e3


def register_tiny() -> None:
    """The compact network, a third as wide and on maps of 7x7 whatever the size, as the backbone "benchmark-tiny"."""
    from trueread.model.backbone import Backbone, backbone
    from trueread.model.compact import Compact

    @backbone("benchmark-tiny", source="benchmarks/growth.py")
    def tiny(*, channels: int, size: tuple[int, ...]) -> Backbone:
        """For measuring everything but the network."""
        del size
        made = Compact(channels=channels, size=224, widths=(8, 16, 32, 48))  # the stem of a large image
        return Backbone(made, made.num_features, {"stage4": ("stage4", 48)})


def all_stages(n: int) -> dict[str, dict[str, float]]:
    """A study of n images without its report."""
    from trueread import TrainConfig, assign_splits, fit, load_cohort
    from trueread.progress import set_quiet
    from trueread.stats import bootstrap, statistic
    from trueread.training.evaluate import predict_probabilities

    set_quiet(True)
    register_tiny()
    config = TrainConfig(backbone="benchmark-tiny", epochs=1, batch_size=min(256, n // 4), select="last", device="cpu")
    fit(load_cohort("phantom", n_images=200, size=28), config=config.model_copy(update={"batch_size": 32}), quiet=True)
    stages = Stages()  # the libraries are loaded now, and are not counted
    with stages.stage("make"):
        cohort = load_cohort("phantom", n_images=n, size=28)
    with stages.stage("split"):
        cohort = assign_splits(cohort.with_split([""] * n))
    with stages.stage("train"):
        fitted = fit(cohort, config=config, quiet=True)
    rows = cohort.rows("test")
    with stages.stage("evaluate"):
        probabilities = predict_probabilities(fitted.classifier, cohort, rows)
    with stages.stage("bootstrap"):
        clusters, labels = cohort.patient_codes(rows), cohort.labels[rows]
        for name in ("auroc", "balanced-accuracy"):
            bootstrap(statistic(name, probabilities.astype(np.float64), labels, task="binary"), clusters)
    return stages.found


def check_stage(n: int) -> dict[str, dict[str, float]]:
    """The checks of n images, and nothing else."""
    from trueread import load_cohort
    from trueread.checking import check
    from trueread.progress import set_quiet

    set_quiet(True)
    check(load_cohort("phantom", n_images=200, size=28))
    stages = Stages()
    cohort = load_cohort("phantom", n_images=n, size=28)
    with stages.stage("check"):
        check(cohort)
    return stages.found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=int)
    parser.add_argument("--check", action="store_true", help="the checks alone")
    given = parser.parse_args()
    print(json.dumps(check_stage(given.images) if given.check else all_stages(given.images)))


if __name__ == "__main__":
    main()
