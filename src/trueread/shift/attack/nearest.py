"""The smallest change that misleads: attacks in growing balls, each success then drawn back towards the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trueread.errors import InputError
from trueread.shift.attack.balls import Ball, Norm, lengths, per_image
from trueread.shift.attack.search import Attacked, Forward
from trueread.shift.base import Draw

Attack = Callable[[Forward, Tensor, Tensor, Ball, Draw], Attacked]  # forward, images, labels, ball, draw


@dataclass(frozen=True)
class Nearest:
    """images: float [B,C,...], the nearest found that fools; as given where none does. distance: float [B] in the
    norm, intensities of [0,1]: 0 where it was wrong as given, inf where nothing in the largest ball fools.
    """

    images: Tensor
    distance: Tensor


def nearest_fooling(
    forward: Forward, images: Tensor, labels: Tensor, *, attack: Attack, norm: Norm, epsilons: Sequence[float],
    draw: Draw, halvings: int = 8,
) -> Nearest:  # fmt: skip
    """Of each image the nearest that is classified wrongly, as far as the attack finds it: an upper bound.

    attack: is tried with each of `epsilons`, the smallest first, on the images that no smaller ball held a success for.
    halvings: of the way between an image and its success, each towards the nearer end that still fools.
    Other arguments and errors as those of `pgd`.
    """
    if not len(epsilons) or min(epsilons) <= 0:
        raise InputError(f"epsilons must be above 0, at least one; found {list(epsilons)}.")
    found, fooled = images.clone(), torch.zeros_like(labels, dtype=torch.bool)
    for epsilon in sorted(epsilons):
        rows = (~fooled).nonzero().squeeze(1)
        if not len(rows):
            break
        theirs = replace(draw, ids=[draw.ids[row] for row in rows.tolist()])
        result = attack(forward, images[rows], labels[rows], Ball(norm, epsilon), theirs)
        won = rows[result.fooled]
        if len(won):
            found[won] = _drawn_back(forward, images[won], labels[won], result.images[result.fooled], halvings)
            fooled[won] = True
    moved = found - images
    distance = moved.flatten(1).abs().amax(1) if norm == "linf" else lengths(moved).flatten()
    return Nearest(found, torch.where(fooled, distance, torch.inf))


def _drawn_back(forward: Forward, images: Tensor, labels: Tensor, fooling: Tensor, halvings: int) -> Tensor:
    """The nearest point that fools among those tried on the line from each image to its success."""
    near, far = images, fooling
    with torch.no_grad():
        wrong = forward(images).argmax(1) != labels
        far = torch.where(per_image(wrong, images), images, far)
        for _ in range(halvings):
            middle = (near + far) / 2
            wrong = per_image(forward(middle).argmax(1) != labels, images)
            near, far = torch.where(wrong, near, middle), torch.where(wrong, middle, far)
    return far
