"""The nearest image that misleads: of a linear model its distance is known, and it is never beyond the ball."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from attack_nets import SHAPES, directions, draw, linear, random_images, trained

from trueread.errors import InputError
from trueread.shift.attack import pgd, square_attack
from trueread.shift.attack.nearest import nearest_fooling


def by_pgd(forward, images, labels, ball, draws, steps=30):
    return pgd(forward, images, labels, ball=ball, steps=steps, random_start=False, objective="margin", draw=draws)


def of_linear(shape, norm):
    """Images away from black and white, a linear model of two classes that is right, and the exact distances."""
    images, weights = random_images(shape, 12, low=0.4, high=0.6), directions(shape, 2)
    forward = linear(weights)
    logits = forward(images)
    labels = logits.argmax(1)
    apart = (weights[1] - weights[0]).flatten()
    length = apart.norm() if norm == "l2" else apart.abs().sum()
    return images, forward, labels, (logits[:, 1] - logits[:, 0]).abs() / length


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_distance_to_a_plane_is_found(shape, norm):
    images, forward, labels, exact = of_linear(shape, norm)
    largest = float(exact.max()) * 1.2
    found = nearest_fooling(
        forward, images, labels, attack=by_pgd, norm=norm, epsilons=[largest / 4, largest / 2, largest], draw=draw(12)
    )
    assert (found.distance >= exact * (1 - 1e-3)).all()
    assert (found.distance <= exact * 1.1).all()
    logits = forward(found.images)
    other = logits.gather(1, 1 - labels[:, None]) - logits.gather(1, labels[:, None])
    assert (other > -1e-4).all()  # at the border rounding differs with the batch
    moved = (found.images - images).flatten(1)
    assert torch.equal(found.distance, moved.norm(dim=1) if norm == "l2" else moved.abs().amax(1))


def test_nothing_is_found_in_a_ball_that_is_too_small_and_what_is_wrong_is_at_no_distance():
    images, forward, labels, exact = of_linear((1, 8, 8), "l2")
    wrong = labels.clone()
    wrong[:3] = 1 - wrong[:3]
    found = nearest_fooling(
        forward, images, wrong, attack=by_pgd, norm="l2", epsilons=[float(exact[3:].min()) / 2], draw=draw(12)
    )
    assert (found.distance[:3] == 0).all()
    assert found.distance[3:].isinf().all()
    assert torch.equal(found.images, images)


def test_an_image_does_not_depend_on_the_others():
    net, images, labels = trained()
    ask = partial(nearest_fooling, net, attack=by_pgd, norm="l2", epsilons=[0.5, 1.0, 2.0])
    together = ask(images[:20], labels[:20], draw=draw(20))
    alone = ask(images[7:9], labels[7:9], draw=type(draw(1))(draw(20).ids[7:9], 0, "attack"))
    torch.testing.assert_close(alone.distance, together.distance[7:9], rtol=1e-3, atol=1e-4)
    assert together.distance.isfinite().float().mean() > 0.5


def test_without_gradients_square_finds_some():
    net, images, labels = trained()

    def forward(x):
        with torch.no_grad():
            return net(x)

    def by_square(f, x, y, ball, draws):
        return square_attack(f, x, y, ball=ball, draw=draws, queries=200)

    found = nearest_fooling(
        forward, images[:16], labels[:16], attack=by_square, norm="linf", epsilons=[0.2, 0.4], draw=draw(16)
    )
    assert found.distance.isfinite().any()
    assert found.distance[found.distance.isfinite()].max() <= 0.4


def test_no_ball_is_one_sentence():
    images, forward, labels, _ = of_linear((1, 8, 8), "l2")
    for epsilons in ([], [0.0, 1.0]):
        with pytest.raises(InputError, match="above 0, at least one"):
            nearest_fooling(forward, images, labels, attack=by_pgd, norm="l2", epsilons=epsilons, draw=draw(12))
