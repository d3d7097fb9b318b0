"""Auto-PGD: projected gradient descent with momentum that halves its own step size where it gets no further."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from trueread.shift.attack.balls import Ball, per_image
from trueread.shift.attack.checks import check_count, check_draw
from trueread.shift.attack.objectives import Objective
from trueread.shift.attack.search import Attacked, Forward, Search
from trueread.shift.base import Draw

MOMENTUM, RHO = 0.75, 0.75  # alpha and rho of the paper
MOST_TARGETS = 9


def apgd(
    forward: Forward, images: Tensor, labels: Tensor, *, ball: Ball, draw: Draw, steps: int = 100,
    objective: Objective = "cross-entropy", restarts: int = 1,
) -> Attacked:  # fmt: skip
    """Auto-PGD without a target, for evaluation: the images as given are tried first, and fooled images leave.

    Arguments, result and errors as those of `pgd`. Takes a forward pass per step, and one for the start.
    Source: Croce and Hein 2020, arXiv 2003.01690, algorithm 1.
    """
    check_count("steps", steps)
    check_count("restarts", restarts)
    search = Search(forward, images, labels, objective=objective)
    check_draw(draw, images)
    search.look(search.center)
    search.drop_fooled()
    for restart in range(restarts):
        _climb(search, ball, draw, f"apgd, restart {restart}", steps)
    return search.result()


def apgd_targeted(
    forward: Forward, images: Tensor, labels: Tensor, *, ball: Ball, draw: Draw, steps: int = 100
) -> Attacked:
    """Auto-PGD with the targeted DLR, one run towards each of the K-1, at most 9, likeliest wrong classes of the image.

    An image is fooled by any class but its label. Arguments, result and errors as those of `apgd`.
    Source: Croce and Hein 2020, the targeted version of APGD-DLR.
    """
    check_count("steps", steps)
    search = Search(forward, images, labels, objective="dlr")
    check_draw(draw, images)
    logits = search.look(search.center)
    n_classes = logits.shape[1]
    wrong = logits.masked_fill(F.one_hot(labels, n_classes).bool(), -torch.inf)
    likeliest = wrong.argsort(1, descending=True)
    search.drop_fooled()
    search.value[search.rows] = -torch.inf  # that was of no target; runs towards one are compared with each other
    for place in range(min(n_classes - 1, MOST_TARGETS)):
        search.aims = likeliest[:, place]
        _climb(search, ball, draw, f"apgd, target {place}", steps)
    return search.result()


def checkpoints(steps: int) -> list[int]:
    """After which steps the step size is reconsidered: ceil(p_j steps), p = 0, .22, then in strides shorter by .03, to
    .06 at least.
    """
    p = [0, 22]
    while p[-1] + max(p[-1] - p[-2] - 3, 6) <= 100:  # in hundredths, or 0.41 * 100 would be rounded up to 42
        p.append(p[-1] + max(p[-1] - p[-2] - 3, 6))
    return sorted({-(-share * steps // 100) for share in p})


@dataclass
class _State:
    """Of each image under way: where it is and was, its best so far, its step size, and what happened since the last
    checkpoint.
    """

    x: Tensor
    previous: Tensor
    value: Tensor
    gradient: Tensor
    best: Tensor
    best_value: Tensor
    best_gradient: Tensor
    size: Tensor
    rises: Tensor
    halved: Tensor
    best_then: Tensor

    def kept(self, stay: Tensor) -> _State:
        return replace(self, **{f.name: getattr(self, f.name)[stay] for f in fields(self)})


def _climb(search: Search, ball: Ball, draw: Draw, purpose: str, steps: int) -> None:
    """One run on the images under way."""
    if not len(search):
        return
    marks = checkpoints(steps)
    x = ball.random_start(search.center, search.draw(draw), purpose)
    value, g = search.gradient(x)
    size = torch.full_like(value, 2 * ball.epsilon)
    none = torch.zeros_like(value)
    s = _State(x, x, value, g, x, value, g, size, none, torch.zeros_like(none, dtype=torch.bool), value)
    for step in range(1, steps + 1):
        stay = search.drop_fooled()
        s = s if stay is None else s.kept(stay)
        if not len(search):
            return
        z = ball.project_(s.x + per_image(s.size, s.x) * ball.steepest(s.gradient), search.center)
        if step > 1:
            z = s.x + MOMENTUM * (z - s.x) + (1 - MOMENTUM) * (s.x - s.previous)
            ball.project_(z, search.center)
        s.previous, s.x, before = s.x, z, s.value
        s.value, s.gradient = search.gradient(z)
        s.rises = s.rises + (s.value > before)
        better = s.value > s.best_value
        s.best_value = torch.where(better, s.value, s.best_value)
        s.best, s.best_gradient = _where(better, s.x, s.best), _where(better, s.gradient, s.best_gradient)
        if step in marks:
            _reconsider(s, step - marks[marks.index(step) - 1])
    search.drop_fooled()


def _reconsider(s: _State, stride: int) -> None:
    """Halves the step size and goes back to the best, of images whose objective rose in less than the share rho of
    the `stride` steps since the last checkpoint, or whose best and step size are both what they were then.
    """
    stuck = ~s.halved & (s.best_value == s.best_then)
    halve = (s.rises < RHO * stride) | stuck
    s.size = torch.where(halve, s.size / 2, s.size)
    s.value = torch.where(halve, s.best_value, s.value)
    s.x, s.gradient = _where(halve, s.best, s.x), _where(halve, s.best_gradient, s.gradient)
    s.halved, s.best_then, s.rises = halve, s.best_value, torch.zeros_like(s.rises)


def _where(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(per_image(mask, yes), yes, no)
