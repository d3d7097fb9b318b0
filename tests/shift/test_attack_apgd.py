"""Auto-PGD: its schedule, its rule for the step size, and that it is no weaker than PGD."""

from __future__ import annotations

import pytest
import torch
from attack_nets import SHAPES, directions, distances, draw, linear, random_images, trained

from trueread.shift.attack import Ball, apgd, apgd_targeted, pgd
from trueread.shift.attack.apgd import _reconsider, _State, checkpoints
from trueread.shift.attack.balls import NORMS
from trueread.shift.attack.objectives import margin
from trueread.shift.base import Draw

EPSILON = {"linf": 0.045, "l2": 0.4}


def test_checkpoints_are_the_papers():
    assert checkpoints(100) == [0, 22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(10) == [0, 3, 5, 6, 7, 8, 9, 10]
    assert checkpoints(1) == [0, 1]


class TestReconsider:
    def state(self, **changed):
        n = 4
        parts = {
            "x": torch.zeros(n, 1, 1, 1), "previous": torch.zeros(n, 1, 1, 1), "value": torch.full((n,), 1.0),
            "gradient": torch.zeros(n, 1, 1, 1), "best": torch.ones(n, 1, 1, 1), "best_value": torch.full((n,), 2.0),
            "best_gradient": torch.ones(n, 1, 1, 1), "size": torch.full((n,), 0.8), "rises": torch.full((n,), 10.0),
            "halved": torch.zeros(n, dtype=torch.bool), "best_then": torch.zeros(n),
        }  # fmt: skip
        return _State(**{**parts, **changed})

    def test_who_rises_too_rarely_or_is_stuck_is_halved_and_goes_back_to_the_best(self):
        """Of 20 steps, 15 are 0.75: the first rose in 14 and the second in 15, the third and fourth are no higher than
        at the last checkpoint, where the fourth was halved.
        """
        s = self.state(
            rises=torch.tensor([14.0, 15.0, 20.0, 20.0]), best_then=torch.tensor([0.0, 0.0, 2.0, 2.0]),
            halved=torch.tensor([False, False, False, True]),
        )  # fmt: skip
        _reconsider(s, 20)
        halved = [True, False, True, False]
        assert s.halved.tolist() == halved
        assert s.size.tolist() == pytest.approx([0.4 if h else 0.8 for h in halved])
        for moved in (s.x, s.gradient):
            assert moved.flatten().tolist() == [float(h) for h in halved]
        assert s.value.tolist() == [2.0 if h else 1.0 for h in halved]
        assert s.rises.tolist() == [0] * 4
        assert s.best_then.tolist() == [2] * 4


def bumpy(x: torch.Tensor) -> torch.Tensor:
    """Two logits of images of two pixels, whose difference has hills and a ridge, and never fools."""
    a, b = x.flatten(1).unbind(1)
    return torch.stack([torch.full_like(a, 3.0), torch.sin(9 * a) - 4 * (b - a).abs() + 0.5 * b], 1)


def algorithm_1(start: torch.Tensor, center: torch.Tensor, norm: str, epsilon: float, steps: int) -> list[torch.Tensor]:
    """Every point where the paper's algorithm 1 looks, for one image, step by step."""

    def value_and_slope(x):
        x = x.detach().requires_grad_()
        value = bumpy(x.view(1, 1, 1, 2))[0, 1] - 3
        return value.item(), torch.autograd.grad(value, x)[0]

    def project(x):
        if norm == "linf":
            return x.clamp(center - epsilon, center + epsilon).clamp(0, 1)
        return (center + (x - center) * min(1.0, epsilon / float((x - center).norm()))).clamp(0, 1)

    def step(x, slope):
        return project(x + eta * (slope.sign() if norm == "linf" else slope / slope.norm()))

    w, eta, x = checkpoints(steps), 2 * epsilon, [start]
    values, slopes = map(list, zip(value_and_slope(start), strict=True))
    looked, f_max, best, at_checkpoint = [start], values[0], 0, [(eta, values[0])]
    for k in range(steps):
        z = step(x[k], slopes[k])
        x.append(z if k == 0 else project(x[k] + 0.75 * (z - x[k]) + 0.25 * (x[k] - x[k - 1])))
        looked.append(x[-1])
        value, slope = value_and_slope(x[-1])
        values.append(value)
        slopes.append(slope)
        if value > f_max:
            f_max, best = value, k + 1
        if k + 1 in w:
            j = w.index(k + 1)
            rises = sum(values[i + 1] > values[i] for i in range(w[j - 1], w[j]))
            stuck = at_checkpoint[-1] == (eta, f_max)
            at_checkpoint.append((eta, f_max))
            if rises < 0.75 * (w[j] - w[j - 1]) or stuck:
                eta /= 2
                x[-1], values[-1], slopes[-1] = x[best], values[best], slopes[best]
    return looked


@pytest.mark.parametrize("norm", NORMS)
def test_it_looks_where_the_papers_algorithm_does(norm):
    epsilon, apart = 0.2, []
    for seed in range(12):
        x = random_images((1, 1, 2), 1, low=0.2, high=0.8, seed=seed).double()
        looked = []

        def forward(images, looked=looked):
            looked.append(images.detach().flatten())
            return bumpy(images)

        apgd(
            forward, x, torch.tensor([0]), ball=Ball(norm, epsilon), steps=30, draw=draw(1, seed), objective="dlr"
        )  # the DLR of two classes is the margin
        expected = algorithm_1(looked[1], x.flatten(), norm, epsilon, 30)
        assert len(looked) == 1 + len(expected)
        apart.append(float((torch.stack(looked[1:]) - torch.stack(expected)).abs().max()))
    assert max(apart) < 1e-5


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("objective", ["cross-entropy", "dlr"])
def test_the_best_perturbation_of_a_linear_model_is_found(shape, objective):
    """A bias keeps every image from being fooled, which would end its search."""
    x, w = random_images(shape, low=0.4, high=0.6), directions(shape, 2) / 10
    model, labels = linear(w, torch.tensor([9.0, 0.0])), torch.zeros(5, dtype=torch.int64)
    away = w[1] - w[0]
    for ball, best in ((Ball("linf", 0.05), x + 0.05 * away.sign()), (Ball("l2", 0.2), x + 0.2 * away / away.norm())):
        found = apgd(model, x, labels, ball=ball, steps=40, draw=draw(5), objective=objective)
        assert not found.fooled.any()
        assert found.forward_passes.tolist() == [42] * 5
        assert torch.allclose(margin(model(found.images), labels), margin(model(best), labels), atol=1e-3)
        assert torch.allclose(found.images, best, atol=0.01)


@pytest.mark.parametrize("norm", NORMS)
class TestStrength:
    def test_no_weaker_than_pgd_at_equal_steps(self, norm):
        net, x, y = trained()
        for share in (0.6, 0.8, 1.0):
            ball = Ball(norm, share * EPSILON[norm])
            plain = pgd(net, x, y, ball=ball, steps=20, draw=draw(60))
            auto = apgd(net, x, y, ball=ball, steps=20, draw=draw(60))
            targeted = apgd_targeted(net, x, y, ball=ball, steps=20, draw=draw(60))
            assert 0 < plain.fooled.sum() < 60
            assert auto.fooled.sum() >= plain.fooled.sum()
            assert targeted.fooled.sum() >= plain.fooled.sum()

    def test_what_is_fooled_is_within_the_ball_and_really_fooled(self, norm):
        net, x, y = trained(channels=3)
        ball = Ball(norm, EPSILON[norm])
        for found in (
            apgd(net, x, y, ball=ball, steps=8, draw=draw(60)),
            apgd(net, x, y, ball=ball, steps=8, draw=draw(60), objective="dlr", restarts=2),
            apgd_targeted(net, x, y, ball=ball, steps=8, draw=draw(60)),
        ):
            assert distances(ball, found.images, x).max() <= ball.epsilon
            assert found.images.min() >= 0
            assert found.images.max() <= 1
            with torch.no_grad():
                assert torch.equal(net(found.images).argmax(1) != y, found.fooled)
            assert not found.images.requires_grad

    def test_an_images_result_is_its_own_in_any_batch(self, norm):
        net, x, y = trained()
        x, y, ball, names = x[:9], y[:9], Ball(norm, EPSILON[norm]), draw(9).ids
        for attack in (apgd, apgd_targeted):
            together = attack(net, x, y, ball=ball, steps=6, draw=draw(9))
            turned = attack(net, x.flip(0), y.flip(0), ball=ball, steps=6, draw=Draw(names[::-1], 0, "attack"))
            part = attack(net, x[3:5], y[3:5], ball=ball, steps=6, draw=Draw(names[3:5], 0, "attack"))
            assert torch.allclose(turned.images.flip(0), together.images, atol=1e-4)
            assert torch.allclose(part.images, together.images[3:5], atol=1e-4)
            assert torch.equal(part.forward_passes, together.forward_passes[3:5])

    def test_epsilon_zero_changes_nothing(self, norm):
        net, x, y = trained()
        for attack in (apgd, apgd_targeted):
            assert torch.equal(attack(net, x, y, ball=Ball(norm, 0.0), steps=3, draw=draw(60)).images, x)


def test_more_restarts_are_never_worse():
    net, x, y = trained()
    few, many = (apgd(net, x, y, ball=Ball("linf", 0.03), steps=3, draw=draw(60), restarts=n) for n in (1, 3))
    assert (many.fooled >= few.fooled).all()
    assert many.objective.sum() > few.objective.sum()


def test_targets_are_the_likeliest_wrong_classes_and_at_most_nine():
    """Nothing is fooled, so every image takes the image as given and a start and the steps of each run."""
    for classes, runs in ((2, 1), (5, 4), (12, 9)):
        x = random_images((1, 4, 4), 3)
        bias = torch.zeros(classes)
        bias[0] = 100
        model = linear(directions((1, 4, 4), classes), bias)
        labels = torch.zeros(3, dtype=torch.int64)
        found = apgd_targeted(model, x, labels, ball=Ball("linf", 0.1), steps=4, draw=draw(3))
        assert found.forward_passes.tolist() == [1 + 5 * runs] * 3
    x = random_images((1, 4, 4), 3, low=0.4, high=0.6)
    narrow = linear(0.1 * directions((1, 4, 4), 5), torch.tensor([0.0, -50, -50, 0.3, -50]))
    found = apgd_targeted(narrow, x, torch.full((3,), 3), ball=Ball("linf", 0.4), steps=9, draw=draw(3))
    assert (narrow(found.images).argmax(1) == 0).all()
    assert (found.forward_passes <= 11).all(), "the first run is towards the likeliest"


def test_fooled_images_leave():
    sizes = []
    net, x, y = trained()

    def forward(images):
        sizes.append(len(images))
        return net(images)

    found = apgd(forward, x, y, ball=Ball("linf", 0.06), steps=12, draw=draw(60), restarts=2)
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) == found.forward_passes.sum()
