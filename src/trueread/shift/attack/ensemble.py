"""Several attacks in the order of AutoAttack, each on the images that the ones before could not fool."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from trueread.errors import InputError
from trueread.shift.attack.apgd import apgd, apgd_targeted
from trueread.shift.attack.balls import Ball
from trueread.shift.attack.checks import check_count, check_draw
from trueread.shift.attack.search import Attacked, Forward, Search
from trueread.shift.attack.square_attack import square_attack
from trueread.shift.base import Draw

UNTOUCHED = "none"  # wrong without any attack


@dataclass(frozen=True)
class Strongest:
    """What the attacks found together.

    images: float [B,C,...], those that fool; an image that no attack fooled is as given. fooled: bool [B].
    by: what fooled each image: an attack's name, "none" for one that was wrong as given, None for one that stands.
    attacks: names of those that were run. note: which attacks were left out, and why.
    """

    images: Tensor
    fooled: Tensor
    by: tuple[str | None, ...]
    attacks: tuple[str, ...]
    note: str


def strongest(
    forward: Forward, images: Tensor, labels: Tensor, *, ball: Ball, draw: Draw, steps: int = 100, queries: int = 5000
) -> Strongest:
    """APGD on cross-entropy, targeted APGD on the DLR, and Square, each on the images still classified rightly.

    That is AutoAttack's order without FAB, the third of its four. A forward without gradients gets Square alone.
    steps: of each APGD run. queries: of Square. Arguments and errors as those of `pgd`.
    Source: Croce and Hein 2020, arXiv 2003.01690, AutoAttack.
    """
    check_count("steps", steps)
    check_count("queries", queries)
    as_given = Search(forward, images, labels, objective="margin")
    check_draw(draw, images)
    as_given.look(as_given.center)
    as_given.drop_fooled()
    found, fooled = as_given.found, as_given.fooled
    by: list[str | None] = [UNTOUCHED if wrong else None for wrong in fooled.tolist()]
    note = "FAB, the third of AutoAttack's four attacks, is not among these."
    attacks = ["apgd-ce", "apgd-targeted", "square"]
    if not _has_gradients(forward, images, labels):
        attacks, note = ["square"], "The classifier gives no gradients: Square alone, so accuracy may be overestimated."
    for name in attacks:
        rows = (~fooled).nonzero().squeeze(1)
        if not len(rows):
            continue
        theirs = replace(draw, ids=[draw.ids[row] for row in rows.tolist()])
        result = _attack(name, forward, images[rows], labels[rows], ball, theirs, steps, queries)
        for row in rows[result.fooled].tolist():
            by[row] = name
        found[rows[result.fooled]] = result.images[result.fooled]
        fooled[rows] = result.fooled
    return Strongest(found, fooled, tuple(by), tuple(attacks), note)


def _attack(
    name: str, forward: Forward, images: Tensor, labels: Tensor, ball: Ball, draw: Draw, steps: int, queries: int
) -> Attacked:
    if name == "apgd-ce":
        return apgd(forward, images, labels, ball=ball, draw=draw, steps=steps)
    if name == "apgd-targeted":
        return apgd_targeted(forward, images, labels, ball=ball, draw=draw, steps=steps)
    return square_attack(forward, images, labels, ball=ball, draw=draw, queries=queries)


def _has_gradients(forward: Forward, images: Tensor, labels: Tensor) -> bool:
    """Asked of the first image; a mistake in images or labels has been found by now."""
    first = Search(forward, images[:1], labels[:1], objective="margin")
    try:
        first.gradient(first.center)
    except InputError:
        return False
    return True
