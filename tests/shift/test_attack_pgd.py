"""Projected gradient descent: optimal on linear models, and never more than it may be."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from attack_nets import SHAPES, directions, distances, draw, linear, random_images, trained
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trueread.shift.attack import Ball, fgsm, pgd
from trueread.shift.attack.balls import NORMS
from trueread.shift.attack.objectives import OBJECTIVES
from trueread.shift.attack.search import Search
from trueread.shift.base import Draw

LABELS = torch.tensor([0, 1, 0, 1, 1])


def opposite(weights: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The direction that a two-class linear model's images are moved in: [B,C,...]."""
    return weights[1 - labels] - weights[labels]


class TestLinearModel:
    """Away from the edge of [0,1] the best perturbation is epsilon times the sign, or the direction, of the weights."""

    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    @pytest.mark.parametrize("objective", OBJECTIVES)
    def test_the_best_perturbation_is_found(self, shape, objective):
        x, w = random_images(shape, low=0.4, high=0.6), directions(shape, 2) / 10
        away = opposite(w, LABELS)
        for ball, best in (
            (Ball("linf", 0.1), x + 0.1 * away.sign()),
            (Ball("l2", 0.3), x + 0.3 * away / away.flatten(1).norm(dim=1).view(-1, *[1] * len(shape))),
        ):
            found = pgd(
                linear(w), x, LABELS, ball=ball, steps=20, step_size=ball.epsilon, draw=draw(5), objective=objective,
                stop_when_fooled=False,
            )  # fmt: skip
            assert torch.allclose(found.images, best, atol=1e-3)  # objectives are equal to the last digit before that
            highest = OBJECTIVES[objective](linear(w)(best), LABELS, None)
            assert torch.allclose(found.objective, highest, atol=2e-5)
            assert torch.equal(found.fooled, linear(w)(found.images).argmax(1) != LABELS)
            once = fgsm(linear(w), x, LABELS, ball=ball, objective=objective, stop_when_fooled=False)
            assert torch.allclose(once.images, best, atol=1e-5)
            assert once.forward_passes.tolist() == [2] * 5

    def test_at_the_edge_of_the_box_too(self):
        x, w = random_images((1, 6, 6)), directions((1, 6, 6), 2)
        found = pgd(linear(w), x, LABELS, ball=Ball("linf", 0.4), steps=20, draw=draw(5), stop_when_fooled=False)
        assert torch.allclose(found.images, (x + 0.4 * opposite(w, LABELS).sign()).clamp(0, 1), atol=1e-6)

    @pytest.mark.parametrize("norm", NORMS)
    @pytest.mark.parametrize("objective", OBJECTIVES)
    def test_the_target_is_reached(self, norm, objective):
        shape = (1, 6, 6)
        x, w = random_images(shape, low=0.4, high=0.6), directions(shape, 5)
        labels, targets = torch.tensor([0, 1, 2, 3, 4]), torch.tensor([3, 4, 0, 1, 2])
        ball = Ball(norm, {"linf": 0.4, "l2": 2.4}[norm])
        found = pgd(linear(w), x, labels, targets=targets, ball=ball, steps=20, draw=draw(5), objective=objective)
        reached = linear(w)(found.images).argmax(1) == targets
        assert torch.equal(found.fooled, reached)
        assert reached.sum() >= (4 if objective == "dlr" else 5), "DLR also rises where its denominator falls"

    def test_an_image_of_another_wrong_class_is_not_fooled_yet(self):
        x, labels, targets = random_images((1, 4, 4)), torch.zeros(5, dtype=torch.int64), torch.full((5,), 2)
        bias = torch.tensor([0.0, 9.0, 0.0])
        model = linear(directions((1, 4, 4), 3) / 10, bias)
        found = pgd(model, x, labels, targets=targets, ball=Ball("linf", 0.01), steps=3, draw=draw(5))
        assert not found.fooled.any()
        assert pgd(model, x, labels, ball=Ball("linf", 0.01), steps=3, draw=draw(5)).fooled.all()


class TestProperties:
    @settings(max_examples=40, deadline=None)
    @given(
        norm=st.sampled_from(NORMS), epsilon=st.sampled_from([0.0, 1e-7, 0.01, 0.3, 5.0]), seed=st.integers(0, 50),
        shape=st.sampled_from(list(SHAPES)), objective=st.sampled_from(list(OBJECTIVES)), stop=st.booleans(),
        start=st.booleans(), classes=st.integers(2, 5),
    )  # fmt: skip
    def test_nothing_leaves_the_ball_or_the_box(self, norm, epsilon, seed, shape, objective, stop, start, classes):
        x, w = random_images(SHAPES[shape], seed=seed), directions(SHAPES[shape], classes, seed)
        labels, ball = torch.arange(5) % classes, Ball(norm, epsilon)
        found = pgd(
            linear(w), x, labels, ball=ball, steps=4, objective=objective, stop_when_fooled=stop, random_start=start,
            draw=draw(5, seed),
        )  # fmt: skip
        assert distances(ball, found.images, x).max() <= epsilon
        assert found.images.min() >= 0
        assert found.images.max() <= 1
        assert found.objective.isfinite().all()
        said = linear(w)(found.images)
        assert torch.allclose(OBJECTIVES[objective](said, labels, None), found.objective, atol=1e-4, rtol=1e-4)
        if epsilon == 0:
            assert torch.equal(found.images, x)

    @pytest.mark.parametrize("norm", NORMS)
    def test_an_images_result_is_its_own_in_any_batch(self, norm):
        net, x, y = trained()
        x, y, ball = x[:12], y[:12], Ball(norm, {"linf": 0.06, "l2": 0.5}[norm])
        together = pgd(net, x, y, ball=ball, steps=5, restarts=2, draw=draw(12))
        assert 0 < together.fooled.sum() < 12
        names = draw(12).ids
        turned = pgd(net, x.flip(0), y.flip(0), ball=ball, steps=5, restarts=2, draw=Draw(names[::-1], 0, "attack"))
        alone = [
            pgd(net, x[[k]], y[[k]], ball=ball, steps=5, restarts=2, draw=Draw([names[k]], 0, "attack"))
            for k in range(12)
        ]
        for other in (turned.images.flip(0), torch.cat([a.images for a in alone])):
            assert torch.allclose(other, together.images, atol=1e-4)
        assert torch.equal(torch.cat([a.fooled for a in alone]), together.fooled)
        assert torch.equal(torch.cat([a.forward_passes for a in alone]), together.forward_passes)

    def test_the_seed_decides_and_the_global_numbers_do_not(self):
        net, x, y = trained()
        state = torch.get_rng_state()
        results = [
            pgd(net, x, y, ball=Ball("l2", 0.2), steps=1, draw=draw(60, seed), stop_when_fooled=False).images
            for seed in (0, 0, 1)
        ]
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(results[0], results[1])
        assert not torch.equal(results[0], results[2])

    @pytest.mark.parametrize("stop", [True, False])
    def test_more_restarts_are_never_worse(self, stop):
        net, x, y = trained()
        found = [
            pgd(net, x, y, ball=Ball("linf", 0.04), steps=2, restarts=n, draw=draw(60), stop_when_fooled=stop)
            for n in (1, 2, 4)
        ]
        for fewer, more in pairwise(found):
            assert (more.fooled >= fewer.fooled).all()
            same = more.fooled == fewer.fooled
            assert (more.objective >= fewer.objective)[same].all()
        assert found[-1].objective.sum() > found[0].objective.sum()


def peak(x: torch.Tensor) -> torch.Tensor:
    """A two-class model that always says class 0, and is nearest to class 1 at a mean intensity of 0.55."""
    away = (x.flatten(1).mean(1) - 0.55).abs()
    return torch.stack([torch.full_like(away, 2.0), -away], 1)


class TestBestIterate:
    def test_it_is_kept_when_later_steps_are_worse(self):
        x, y = torch.full((2, 1, 3, 3), 0.5), torch.tensor([0, 0])
        for steps, best in ((1, 0.56), (2, 0.56), (5, 0.56)):
            found = pgd(peak, x, y, ball=Ball("linf", 0.2), steps=steps, step_size=0.06, random_start=False)
            assert not found.fooled.any()
            assert torch.allclose(found.images, torch.full_like(x, best), atol=1e-6)
        found = pgd(peak, x, y, ball=Ball("linf", 0.2), steps=1, step_size=0.2, random_start=False)
        assert torch.equal(found.images, x), "the start is an iterate too"

    def test_the_last_one_is_kept_on_request_and_not_looked_at(self):
        x, y, calls = torch.full((2, 1, 3, 3), 0.5), torch.tensor([0, 0]), []

        def forward(images):
            calls.append(len(images))
            return peak(images)

        options = {"ball": Ball("linf", 0.2), "step_size": 0.06, "random_start": False, "stop_when_fooled": False}
        found = pgd(forward, x, y, steps=2, keep="last", **options)
        assert torch.allclose(found.images, x, atol=1e-6)
        assert calls == [2, 2]
        assert found.forward_passes.tolist() == [2, 2]
        assert torch.equal(found.objective, pgd(peak, x, y, steps=1, **options).objective)
        assert torch.allclose(pgd(peak, x, y, steps=1, keep="last", **options).images, x + 0.06, atol=1e-6)

    def test_a_fooled_one_is_better_than_a_higher_objective(self):
        """Beyond an intensity of 0.575 a third class wins, and the way on leads there."""

        def model(x):
            m = x.flatten(1).mean(1)
            return torch.stack([0 * m, 4 * m - 2.1, torch.where(m < 0.575, -9.0, 4 * m - 2.0)], 1)

        x, y, t = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0]), torch.tensor([1])
        found = pgd(
            model, x, y, targets=t, ball=Ball("linf", 0.2), steps=9, step_size=0.02, random_start=False,
            objective="margin", stop_when_fooled=False,
        )  # fmt: skip
        assert found.fooled.tolist() == [True]
        assert found.images.mean().item() == pytest.approx(0.56, abs=1e-5)

        search = Search(model, x, y, objective="margin")
        search.value.fill_(50.0)
        search.look(torch.full_like(x, 0.6))
        assert search.fooled.tolist() == [True]
        assert search.value.item() < 50
        search.value.fill_(-50.0)
        search.look(x)
        assert search.found.mean().item() == pytest.approx(0.6), "one that does not fool never replaces one that does"


class TestLeaving:
    def model(self, sizes):
        def forward(x):
            sizes.append(len(x))
            mean = x.flatten(1).mean(1)
            return torch.stack([torch.full_like(mean, 0.5), mean], 1)

        return forward

    x = torch.tensor([0.6, 0.485, 0.465, 0.1]).view(4, 1, 1, 1).expand(4, 1, 3, 3)
    y = torch.zeros(4, dtype=torch.int64)

    def test_fooled_images_leave_and_take_no_more_passes(self):
        sizes = []
        found = pgd(
            self.model(sizes), self.x, self.y, ball=Ball("linf", 0.1), steps=6, step_size=0.01, random_start=False
        )
        assert sizes == [4, 3, 3, 2, 2, 1, 1]
        assert found.forward_passes.tolist() == [1, 3, 5, 7]
        assert found.fooled.tolist() == [True, True, True, False]
        assert found.images[:, 0, 0, 0].tolist() == pytest.approx([0.6, 0.505, 0.505, 0.16], abs=1e-6)

    def test_images_that_are_wrong_as_given_are_returned_as_given(self):
        sizes = []
        found = pgd(self.model(sizes), self.x, self.y, ball=Ball("linf", 0.1), steps=2, draw=draw(4))
        assert sizes[:2] == [4, 3]
        assert torch.equal(found.images[0], self.x[0])
        assert found.forward_passes[0] == 1

    def test_in_training_all_stay(self):
        sizes = []
        found = pgd(
            self.model(sizes), self.x, self.y, ball=Ball("linf", 0.1), steps=6, restarts=2, stop_when_fooled=False,
            draw=torch.Generator().manual_seed(0),
        )  # fmt: skip
        assert sizes == [4] * 14
        assert found.forward_passes.tolist() == [14] * 4
        assert found.fooled.tolist() == [True, True, True, False]

    def test_nothing_is_asked_once_all_have_left(self):
        sizes = []
        pgd(self.model(sizes), self.x[:1], self.y[:1], ball=Ball("linf", 0.1), steps=6, restarts=3, draw=draw(1))
        assert sizes == [1]


class TestTheNetworkIsLeftAlone:
    def test_no_parameter_gets_a_gradient_or_loses_its_own(self):
        net, x, y = trained()
        net[0].weight.requires_grad_(False)
        net[2].bias.grad = torch.full_like(net[2].bias, 3.0)
        try:
            found = pgd(net, x, y, ball=Ball("l2", 0.3), steps=3, draw=draw(60))
            assert [p.requires_grad for p in net.parameters()] == [False, True, True, True, True, True]
            assert (net[2].bias.grad == 3).all()
            assert all(p.grad is None for p in net.parameters() if p is not net[2].bias)
            assert not found.images.requires_grad
            assert not found.objective.requires_grad
            assert not x.requires_grad
        finally:
            net[0].weight.requires_grad_(True)
            net[2].bias.grad = None

    def test_the_given_images_are_left_alone_and_no_grad_outside_does_not_matter(self):
        net, x, y = trained()
        before = x.clone()
        with torch.no_grad():
            inside = pgd(net, x, y, ball=Ball("linf", 0.05), steps=3, draw=draw(60))
        assert torch.equal(x, before)
        assert torch.equal(inside.images, pgd(net, x, y, ball=Ball("linf", 0.05), steps=3, draw=draw(60)).images)
        assert inside.images.data_ptr() != x.data_ptr()


class TestPrecision:
    @pytest.mark.parametrize("norm", NORMS)
    def test_a_network_in_bf16_is_attacked_in_float32(self, norm):
        net, x, y = trained()
        seen = []

        def forward(images):
            seen.append(images.dtype)
            with torch.autocast("cpu", torch.bfloat16):
                logits = net(images)
            assert logits.dtype == torch.bfloat16
            return logits

        ball = Ball(norm, {"linf": 0.05, "l2": 0.4}[norm])
        found = pgd(forward, x, y, ball=ball, steps=5, draw=draw(60))
        exact = pgd(net, x, y, ball=ball, steps=5, draw=draw(60))
        assert set(seen) == {torch.float32}
        assert found.images.dtype == found.objective.dtype == torch.float32
        assert distances(ball, found.images, x).max() <= ball.epsilon
        assert abs(int(found.fooled.sum()) - int(exact.fooled.sum())) <= 4
        with torch.autocast("cpu", torch.bfloat16):
            around = pgd(net, x, y, ball=ball, steps=5, draw=draw(60))
        assert around.objective.dtype == torch.float32
        assert torch.equal(around.images, found.images)
        assert 5 < exact.fooled.sum() < 60

    def test_images_in_half_precision_become_float32_and_double_stays(self):
        net, x, y = trained()
        ball = Ball("linf", 0.02)
        half = pgd(net, x.half(), y, ball=ball, steps=2, draw=draw(60))
        assert half.images.dtype == torch.float32
        assert distances(ball, half.images, x.half()).max() <= 0.02
        weights = directions((1, 12, 12), 4).double()
        assert pgd(linear(weights), x.double(), y, ball=ball, steps=2, draw=draw(60)).images.dtype == torch.float64


@pytest.mark.parametrize(("channels", "depth"), [(1, 0), (3, 0), (1, 4)], ids=["grey", "colour", "volume"])
@pytest.mark.parametrize("norm", NORMS)
def test_trained_networks_are_fooled_and_more_by_larger_balls(channels, depth, norm):
    net, x, y = trained(channels=channels, side=8 if depth else 12, depth=depth)
    assert (net(x).argmax(1) == y).float().mean() > 0.9
    scale = {"linf": 0.1, "l2": 0.05 * (x[0].numel() ** 0.5)}[norm]
    wrong = [
        int(pgd(net, x, y, ball=Ball(norm, share * scale), steps=8, draw=draw(60)).fooled.sum())
        for share in (0.0, 0.3, 0.6, 2.0)
    ]
    assert wrong == sorted(wrong)
    assert wrong[-1] == 60


def test_in_training_what_is_no_number_is_neither_fooled_nor_returned():
    x, y, calls = random_images((1, 4, 4)), torch.ones(5, dtype=torch.int64), []

    def forward(images):
        calls.append(len(images))
        logits = linear(directions((1, 4, 4), 2) / 100, torch.tensor([0.0, 9.0]))(images)
        return torch.where(torch.arange(5)[:, None] == 2, torch.nan, logits) if len(calls) > 1 else logits

    found = pgd(forward, x, y, ball=Ball("l2", 0.2), steps=3, draw=draw(5), stop_when_fooled=False, trusted=True)
    assert not found.fooled.any()
    assert found.images.isfinite().all()
    assert found.objective.isfinite().all()


def test_training_waits_for_no_device():
    """Tensors without data refuse to be looked at."""
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3)).to("meta")
    x = torch.empty(4, 1, 8, 8, device="meta")
    for norm in NORMS:
        found = pgd(
            net, x, torch.empty(4, dtype=torch.int64, device="meta"), ball=Ball(norm, 0.1), steps=3, restarts=2,
            draw=torch.Generator(), stop_when_fooled=False, trusted=True,
        )  # fmt: skip
        assert found.images.shape == x.shape
    assert found.images.device.type == "meta"
