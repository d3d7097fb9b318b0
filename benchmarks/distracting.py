"""What DANIL's second derivatives cost beside a plain step, and what the distractor audit takes."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import torch
from epochs import seconds_of_epochs
from options import Options
from sheet import Aim, Row, Sheet, row
from timing import in_turns, middle

from trueread import Classifier, Subject, TrainConfig, build_method, load_cohort
from trueread.audit.distractor import DistractorAudit
from trueread.cohort.cohort import Cohort
from trueread.training.device import cpu_has_bf16

TITLE = "Distractors: a training of one epoch beside a plain one, and the audit of 500 images of 64 px"
WHOLE = "danil, input, the whole batch"
AIMS = {
    name: Aim("ratio", "at most", most) for name, most in (("danil, input", 3.0), (WHOLE, 3.0), ("danil, feature", 1.5))
}
MINUTE = Aim("ours", "at most", 60.0)


def measure(sheet: Sheet, options: Options) -> None:
    """Ratios of the seconds of the epochs alone; the term is in every step. A plain step in bf16 takes less where the
    processor has it, and second derivatives are in float32 all the same.
    """
    torch.set_num_threads(1)
    rounds = 1 if options.smoke else 6
    precisions = ("fp32", "bf16") if cpu_has_bf16() else ("fp32",)
    for side, precision in ((28, "fp32"),) if options.smoke else product((28, 64), precisions):
        cohort = of_three_classes(load_cohort("phantom", n_images=200 if options.smoke else 600, size=side))
        methods = {
            "plain": build_method("erm"),
            "danil, input": build_method("danil", warmup=0.0),
            WHOLE: build_method("danil", warmup=0.0, share=1.0),
            "danil, feature": build_method("danil", warmup=0.0, where="feature"),
            "gradient-penalty": build_method("gradient-penalty", warmup=0.0),
        }
        config = TrainConfig(epochs=1, augment="none", select="last", precision=precision)
        taken = seconds_of_epochs(cohort, methods, config, rounds=rounds)
        for name, method in list(methods.items())[1:]:
            share = getattr(method, "share", 1.0)
            sheet.add(
                row(f"{name}, compact, {side} px, {precision}", "s", middle(taken[name]).value,
                    middle(taken[name] / taken["plain"]), peer="erm", theirs=middle(taken["plain"]).value,
                    aim=AIMS.get(name), note=f"{share:.0%} of each batch are asked" if share < 1 else "")
            )  # fmt: skip
    torch.set_num_threads(2)
    n = 60 if options.smoke else 500
    cohort = of_three_classes(load_cohort("phantom", n_images=n, size=64))
    subject = Subject.of(Classifier.build("compact", cohort=cohort).eval(), cohort.with_split(["test"] * n))
    seconds = in_turns({"audit": lambda: DistractorAudit(images=n).run(subject)}, rounds=1 if options.smoke else 3)
    sheet.add(Row(f"distractor audit, {n} images, 64 px", "s", middle(seconds["audit"]).value, aim=MINUTE))


def of_three_classes(cohort: Cohort) -> Cohort:
    """With labels that take turns, for time does not depend on them."""
    labels = np.arange(len(cohort), dtype=np.int64) % 3
    return replace(cohort, labels=labels, classes=("a", "b", "c"), task="multiclass")
