"""The ensemble: as strong as each of its attacks, in order, and honest about what it could not ask."""

from __future__ import annotations

import pytest
import torch
from attack_nets import distances, draw, random_images, trained

from trueread.shift.attack import Ball, apgd, apgd_targeted, pgd, square_attack, strongest
from trueread.shift.attack.balls import NORMS


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [2, 4])
def test_at_least_as_strong_as_each_part(norm, classes):
    net, x, y = trained(classes=classes)
    ball = Ball(norm, {"linf": 0.045, "l2": 0.35}[norm])
    options = {"ball": ball, "draw": draw(60)}
    found = strongest(net, x, y, steps=10, queries=50, **options)
    parts = {
        "apgd-ce": apgd(net, x, y, steps=10, **options).fooled,
        "apgd-targeted": apgd_targeted(net, x, y, steps=10, **options).fooled,
        "square": square_attack(net, x, y, queries=50, **options).fooled,
        "pgd": pgd(net, x, y, steps=10, **options).fooled,
    }
    assert 0 < found.fooled.sum() < 60
    for name, fooled in parts.items():
        if name != "pgd":
            assert (found.fooled >= fooled).all(), name
    assert found.fooled.sum() >= parts["pgd"].sum()
    assert found.attacks == ("apgd-ce", "apgd-targeted", "square")
    assert "FAB" in found.note
    with torch.no_grad():
        assert torch.equal(net(found.images).argmax(1) != y, found.fooled)
        wrong = net(x).argmax(1) != y
    assert [by == "none" for by in found.by] == wrong.tolist()
    assert [by is not None for by in found.by] == found.fooled.tolist()
    assert [by == "apgd-ce" for by in found.by] == (parts["apgd-ce"] & ~wrong).tolist()
    assert torch.equal(found.images[~found.fooled], x[~found.fooled])
    assert distances(ball, found.images, x).max() <= ball.epsilon


def test_each_attack_gets_only_what_is_left():
    """A network whose gradients point the wrong way: their attacks fool few images, Square the others."""
    net, x, y = trained()
    sizes = []

    def forward(images):
        sizes.append(len(images))
        return net(2 * images.detach() - images)

    found = strongest(forward, x, y, ball=Ball("linf", 0.08), draw=draw(60), steps=5, queries=200)
    by = [found.by.count(name) for name in ("apgd-ce", "apgd-targeted", "square", "none", None)]
    assert by[2] > 0
    assert sum(by) == 60
    assert sizes[:2] == [60, 1], "one image answers whether there are gradients"
    left = 60 - found.by.count("none")
    assert sizes[2] == left
    assert left - by[0] in sizes, "apgd-targeted starts with what apgd-ce left"
    assert left - by[0] - by[1] in sizes


NO_GRADIENTS = {
    "no grad": lambda net: torch.no_grad()(lambda x: net(x)),
    "numpy": lambda net: lambda x: net(torch.from_numpy(x.numpy())),
    "detached": lambda net: lambda x: net(x.detach()),
    "rounded": lambda net: lambda x: net((x * 255).to(torch.uint8).float() / 255),
}


@pytest.mark.parametrize("kind", NO_GRADIENTS)
def test_without_gradients_it_is_square_alone_and_says_so(kind):
    net, x, y = trained()
    forward = NO_GRADIENTS[kind](net)
    with torch.no_grad():
        found = strongest(forward, x, y, ball=Ball("linf", 0.1), draw=draw(60), steps=5, queries=60)
    assert found.attacks == ("square",)
    assert "no gradients" in found.note
    assert set(found.by) <= {"square", "none", None}
    assert found.fooled.sum() > 10


def test_images_that_are_wrong_as_given_are_not_attacked():
    x = random_images((1, 4, 4))
    calls = []

    def forward(images):
        calls.append(len(images))
        return torch.stack([0 * images.sum((1, 2, 3)), 1 + images.sum((1, 2, 3))], 1)

    found = strongest(forward, x, torch.zeros(5, dtype=torch.int64), ball=Ball("l2", 0.1), draw=draw(5))
    assert found.by == ("none",) * 5
    assert torch.equal(found.images, x)
    assert calls == [5, 1]
