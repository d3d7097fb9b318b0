"""Projected gradient descent: the attack that adversarial training trains against."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from trueread.errors import InputError, unknown
from trueread.shift.attack.balls import Ball
from trueread.shift.attack.checks import check_count, check_draw
from trueread.shift.attack.objectives import Formula, Objective
from trueread.shift.attack.search import Attacked, Forward, Search
from trueread.shift.base import Draw

Keep = Literal["best", "last"]


def pgd(
    forward: Forward,
    images: Tensor,
    labels: Tensor,
    *,
    ball: Ball,
    steps: int,
    step_size: float | None = None,
    targets: Tensor | None = None,
    restarts: int = 1,
    random_start: bool = True,
    objective: Objective | Formula = "cross-entropy",
    draw: Draw | torch.Generator | None = None,
    stop_when_fooled: bool = True,
    keep: Keep = "best",
    trusted: bool = False,
) -> Attacked:
    """Steepest ascent of the objective, projected onto the ball after each step; of each image the best iterate.

    A fooled iterate is better than any that is not, then a higher objective is; the start and the last step count.
    forward: float [B,C,...] in [0,1] -> logits [B,K]; its own normalisation and autocast inside, in evaluation mode.
    images, labels: float [B,C,...] in [0,1] and int64 [B]. targets: int64 [B], towards which; None is away from the
    label. step_size: 2.5 epsilon / steps by default. objective: by name, or any function of logits, labels and targets.
    draw: for the random starts. A `Draw` gives an image the same start in any batch, so that its result depends on
    the batch only through the rounding of `forward`; a torch.Generator is for training.
    stop_when_fooled: for evaluation. The images as given are tried first, and an image leaves as soon as it is fooled,
    so `fooled` is what accuracy under attack counts. Without it every image takes every step, as training needs.
    keep: "best"; or "last", for training, which saves the time of judging each iterate and the forward pass of the
    last one: `fooled` and `objective` are then those of the one before it.
    trusted: neither images nor labels nor logits are looked at; then, without `stop_when_fooled`, nothing waits for the
    device.
    Raises InputError for what `forward`, images, labels or options cannot be; see `checks`.
    Source: Madry et al. 2018, ICLR; L2 and the best iterate as in the MadryLab package robustness.
    """
    check_count("steps", steps)
    check_count("restarts", restarts)
    if restarts > 1 and not random_start:
        raise InputError(f"{restarts} restarts from the same point are one; use random_start=True or restarts=1.")
    if keep not in get_args(Keep):
        raise unknown("iterate to keep", keep, get_args(Keep))
    if keep == "last" and (stop_when_fooled or restarts > 1):
        raise InputError(
            "the last iterate is that of one run in training; use stop_when_fooled=False and restarts=1, or keep=best."
        )
    size = 2.5 * ball.epsilon / steps if step_size is None else step_size
    if not size >= 0:
        raise InputError(f"step_size must be at least 0; found {size}.")
    search = Search(forward, images, labels, objective=objective, targets=targets, trusted=trusted)
    if random_start:
        check_draw(draw, images)
    if stop_when_fooled and random_start:
        search.look(search.center)
        search.drop_fooled()
    for restart in range(restarts):
        if not len(search):
            break
        if random_start and draw is not None:
            x = ball.random_start(search.center, search.draw(draw), f"restart {restart}")
        else:
            x = search.center.clone()
        x = _climb(search, x, ball=ball, steps=steps, size=size, stop_when_fooled=stop_when_fooled, keep=keep)
        if keep == "last":
            search.found = x
        elif len(x):
            search.look(x)
        if stop_when_fooled:
            search.drop_fooled()
    return search.result()


def fgsm(
    forward: Forward, images: Tensor, labels: Tensor, *, ball: Ball, targets: Tensor | None = None,
    objective: Objective = "cross-entropy", stop_when_fooled: bool = True, trusted: bool = False,
) -> Attacked:  # fmt: skip
    """The fast gradient sign method: `pgd` with one step of size epsilon from the image itself.

    Source: Goodfellow et al. 2015, ICLR, and its counterpart in L2.
    """
    return pgd(
        forward, images, labels, ball=ball, steps=1, step_size=ball.epsilon, targets=targets, random_start=False,
        objective=objective, stop_when_fooled=stop_when_fooled, trusted=trusted,
    )  # fmt: skip


def _climb(
    search: Search, x: Tensor, *, ball: Ball, steps: int, size: float, stop_when_fooled: bool, keep: Keep
) -> Tensor:
    """The last iterate of those that stay, from x, which is changed in place."""
    for step in range(1, steps + 1):
        _, gradient = search.gradient(x, judge=keep == "best" or step == steps)
        stay = search.drop_fooled() if stop_when_fooled else None
        if stay is not None:
            x, gradient = x[stay], gradient[stay]
            if not len(x):
                break
        ball.project_(x.add_(ball.steepest(gradient), alpha=size), search.center)
    return x
