"""Finding suspects beside cleanlab on given probabilities, ranking, and what Step-E costs over plain training."""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from options import Options
from sheet import Aim, Sheet, row
from timing import Work, in_turns, middle

from trueread import TrainConfig, build_method, fit, load_cohort, with_label_noise
from trueread.cohort.split import assign_splits
from trueread.method.base import Method
from trueread.method.selecting import lowest
from trueread.stats.confident import doubt, suspects

TITLE = "Wrong labels: suspects and ranking beside cleanlab; Step-E over plain training; one thread"
AT_LEAST_AS_FAST, OVERHEAD = Aim("ratio", "at least", 1.0), Aim("ratio", "at most", 1.15)


def measure(sheet: Sheet, options: Options) -> None:
    torch.set_num_threads(1)
    with sheet.attempt("cleanlab"):
        beside_cleanlab(sheet, options)
    over_plain_training(sheet, options)


def beside_cleanlab(sheet: Sheet, options: Options) -> None:
    """The same probabilities to both: who is suspected, and the order of doubt."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    n, rounds = (2_000, 1) if options.smoke else (100_000, 7)
    labels, p = answers(n)
    score = torch.from_numpy(-np.log(p[np.arange(n), labels])).float()
    half, given = n // 2, torch.from_numpy(labels)
    works: dict[str, Work] = {
        "suspects": lambda: suspects(labels, p),
        "theirs": lambda: find_label_issues(labels, p, filter_by="prune_by_noise_rate", n_jobs=1),
        "order": lambda: np.argsort(-doubt(labels, p), kind="stable"),
        "their order": lambda: np.argsort(
            get_label_quality_scores(labels, p, method="normalized_margin"), kind="stable"
        ),
        "kept": lambda: lowest(score[:half], 0.6, labels=given[:half]),
        "their half": lambda: np.argsort(
            get_label_quality_scores(labels[:half], p[:half], method="self_confidence"), kind="stable"
        ),
    }
    taken = in_turns(works, rounds=rounds)
    for what, mine, theirs in (
        (f"suspects among {n:,} images x 10 classes", "suspects", "theirs"),
        (f"order of doubt of {n:,} images", "order", "their order"),
        (f"who is kept of {half:,} by loss", "kept", "their half"),
    ):
        sheet.add(
            row(what, "ms", 1e3 * middle(taken[mine]).value, middle(taken[theirs] / taken[mine]), peer="cleanlab",
                theirs=1e3 * middle(taken[theirs]).value, aim=AT_LEAST_AS_FAST)
        )  # fmt: skip


def answers(n: int, k: int = 10) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels of which a fifth is wrong, and probabilities that know the true ones rather well."""
    generator = np.random.default_rng(0)
    true = generator.integers(0, k, n)
    labels = np.where(generator.random(n) < 0.2, generator.integers(0, k, n), true)
    logits = generator.normal(0, 1, (n, k)) + 3 * np.eye(k)[true]
    p = np.exp(logits)
    return labels, p / p.sum(axis=1, keepdims=True)


def over_plain_training(sheet: Sheet, options: Options) -> None:
    """Seconds of the epochs and of what Step-E does between them, beside those of plain training."""
    sizes = ((28, 120, 2),) if options.smoke else ((28, 600, 6), (64, 300, 4))
    for side, n, epochs in sizes:
        plain = assign_splits(load_cohort("phantom", n_images=n, size=side))
        cohort = with_label_noise(plain, "symmetric", rate=0.3)
        config = TrainConfig(epochs=epochs, augment="none", select="last")

        def train(method: Method, cohort=cohort, config=config) -> None:  # type: ignore[no-untyped-def]
            fit(cohort, method, config, quiet=True)

        works: dict[str, Work] = {
            "erm": partial(train, build_method("erm")),
            "step-e": partial(train, build_method("step-e", warmup=0.2)),
        }
        taken = in_turns(works, rounds=1 if options.smoke else 5)
        sheet.add(
            row(f"Step-E, {epochs} epochs of {len(cohort.rows('train'))} images, {side} px", "s",
                middle(taken["step-e"]).value, middle(taken["step-e"] / taken["erm"]), peer="erm",
                theirs=middle(taken["erm"]).value, aim=OVERHEAD)
        )  # fmt: skip
