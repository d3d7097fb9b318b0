"""What a step of distillation costs beside a plain one, with a frozen teacher of the student's size."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from epochs import seconds_of_epochs
from options import Options
from sheet import Aim, Sheet, row
from timing import middle

from trueread import TrainConfig, build_method, fit, load_cohort
from trueread.shift.planting import planted, planting

TITLE = "Distillation beside plain training: a training of one epoch, frozen teacher of the same size"
AIM = Aim("ratio", "at most", 1.6)


def measure(sheet: Sheet, options: Options) -> None:
    """Ratios of the seconds of the epochs alone: without the teacher's training, its probes and validation."""
    torch.set_num_threads(1)
    sizes = ((28, "compact"),) if options.smoke else ((64, "compact"), (28, "resnet18"))
    for side, backbone in sizes:
        cohort = load_cohort("phantom", n_images=200 if options.smoke else 400, size=side)
        biased = planted(cohort, planting(cohort, "square", severity=1.0, side=0.1, clean=0.2))
        config = TrainConfig(epochs=1, backbone=backbone, stem="standard", augment="none", select="last")
        with tempfile.TemporaryDirectory() as folder:
            fit(biased, build_method("clean-only"), config, quiet=True).classifier.save(Path(folder) / "teacher")
            teacher = str(Path(folder) / "teacher")
            methods = {
                "plain": build_method("erm"),
                "specialist": build_method("specialist", teacher=teacher),
                "final-layer-distillation": build_method("final-layer-distillation", teacher=teacher),
            }
            taken = seconds_of_epochs(biased, methods, config, rounds=1 if options.smoke else 6)
        for name in ("specialist", "final-layer-distillation"):
            sheet.add(
                row(f"{name}, {backbone}, {side} px", "s", middle(taken[name]).value,
                    middle(taken[name] / taken["plain"]), peer="erm", theirs=middle(taken["plain"]).value,
                    aim=AIM if name == "specialist" else None)
            )  # fmt: skip
