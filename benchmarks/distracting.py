"""What DANIL's second derivatives cost beside a plain step, and what the distractor audit takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from epochs import seconds_of_epochs
from options import Options
from sheet import Aim, Row, Sheet, row
from timing import in_turns, middle

from trueread import Classifier, Subject, TrainConfig, build_method, load_cohort
from trueread.audit.distractor import DistractorAudit
from trueread.cohort.cohort import Cohort

TITLE = "Distractors: a training of one epoch beside a plain one, and the audit of 500 images of 64 px"
AIMS = {"danil, input": Aim("ratio", "at most", 3.0), "danil, feature": Aim("ratio", "at most", 1.5)}
MINUTE = Aim("ours", "at most", 60.0)


def measure(sheet: Sheet, options: Options) -> None:
    """Ratios of the seconds of the epochs alone; the term is in every step."""
    torch.set_num_threads(1)
    rounds = 1 if options.smoke else 6
    for side in (28,) if options.smoke else (28, 64):
        cohort = of_three_classes(load_cohort("phantom", n_images=200 if options.smoke else 400, size=side))
        methods = {
            "plain": build_method("erm"),
            "danil, input": build_method("danil", warmup=0.0),
            "danil, feature": build_method("danil", warmup=0.0, where="feature"),
            "gradient-penalty": build_method("gradient-penalty", warmup=0.0),
        }
        taken = seconds_of_epochs(cohort, methods, TrainConfig(epochs=1, augment="none", select="last"), rounds=rounds)
        for name in list(methods)[1:]:
            sheet.add(
                row(f"{name}, compact, {side} px", "s", middle(taken[name]).value,
                    middle(taken[name] / taken["plain"]), peer="erm", theirs=middle(taken["plain"]).value,
                    aim=AIMS.get(name))
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
