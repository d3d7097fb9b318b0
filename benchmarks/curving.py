"""What curvature adds to a step of Barlow Twins, with batches of 256."""

from __future__ import annotations

from dataclasses import replace

import torch
from epochs import seconds_of_epochs
from options import Options
from sheet import Aim, Sheet, row
from timing import middle

from trueread import TrainConfig, build_method, load_cohort
from trueread.method.two_views import Pretraining, TwoViews
from trueread.training.augment import recipe_for

TITLE = "Pretraining: an epoch of CurvSSL beside one of Barlow Twins, batches of 256"
AIM = Aim("ratio", "at most", 1.15)


def measure(sheet: Sheet, options: Options) -> None:
    """Ratios of the seconds of the epochs alone, views and all."""
    torch.set_num_threads(1)
    n, batch = (128, 64) if options.smoke else (1024, 256)  # all batches are whole
    cohort = load_cohort("phantom", n_images=n + 60, size=28 if options.smoke else 32)
    cohort = replace(cohort, table=cohort.table.assign(patient=cohort.table["id"]))
    cohort = cohort.with_split(["train"] * n + ["val"] * 60)
    recipe = recipe_for("auto", cohort.modality, of="views")[1]
    arms = {
        "barlow-twins": ("barlow-twins", {}),
        "curvssl, corr": ("curvssl", {}),
        "curvssl, multi": ("curvssl", {"form": "multi"}),
        **{
            f"curvssl, corr, {kernel}": ("curvssl", {"kernel": kernel}) for kernel in ("rbf", "laplacian", "polynomial")
        },
    }
    hooks = {}
    for name, (method, given) in arms.items():
        made = build_method(method, **given)
        assert isinstance(made, Pretraining)
        hooks[name] = TwoViews(made.objective(), width=made.width, recipe=recipe)
    config = TrainConfig(epochs=1, batch_size=batch, augment="none", select="last")
    taken = seconds_of_epochs(cohort, hooks, config, rounds=1 if options.smoke else 6)
    for name in list(arms)[1:]:
        sheet.add(
            row(f"{name}, compact, {batch} images a batch", "s", middle(taken[name]).value,
                middle(taken[name] / taken["barlow-twins"]), peer="barlow-twins",
                theirs=middle(taken["barlow-twins"]).value, aim=AIM)
        )  # fmt: skip
