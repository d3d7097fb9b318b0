"""Balls: nothing ever leaves them, starts are uniform in them, steps are steepest."""

from __future__ import annotations

import math

import pytest
import torch
from attack_nets import SHAPES, distances, draw, random_images
from hypothesis import given, settings
from hypothesis import strategies as st

from trueread.errors import InputError
from trueread.shift.attack.balls import NORMS, Ball, grey_levels
from trueread.shift.base import Draw

BALLS = st.builds(Ball, st.sampled_from(NORMS), st.sampled_from([0.0, 1e-9, 1e-6, 1e-3, 8 / 255, 0.25, 1.0, 3.5, 40.0]))


class TestProjection:
    @settings(max_examples=150, deadline=None)
    @given(
        ball=BALLS, shape=st.sampled_from(list(SHAPES)), scale=st.sampled_from([1e-6, 0.01, 1.0, 1e4]),
        seed=st.integers(0, 99),
    )  # fmt: skip
    def test_nothing_leaves_the_ball_or_the_box_by_a_single_bit(self, ball, shape, scale, seed):
        x = random_images(SHAPES[shape], seed=seed).round(decimals=seed % 3 + 1)  # with exact zeros and ones
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
        moved = ball.project_(x + scale * noise, x)
        assert distances(ball, moved, x).max() <= ball.epsilon
        assert moved.min() >= 0
        assert moved.max() <= 1
        assert moved.dtype == torch.float32

    def test_large_images_do_not_either(self):
        x = random_images((3, 224, 224), 2)
        moved = Ball("l2", 3.5).project_(x + torch.randn_like(x), x)
        apart = distances(Ball("l2", 3.5), moved, x)
        assert (apart <= 3.5).all()

    def test_closed_forms(self):
        x = random_images((1, 4, 4), low=0.4, high=0.6)
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
        assert torch.allclose(Ball("linf", 0.1).project_(x + noise, x), x + noise.clamp(-0.1, 0.1), atol=2e-7)
        unit = noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        assert torch.allclose(Ball("l2", 0.3).project_(x + noise, x), x + 0.3 * unit, atol=1e-6)
        assert torch.allclose(Ball("l2", 0.3).project_(x + 0.2 * unit, x), x + 0.2 * unit, atol=2e-7)

    @pytest.mark.parametrize("norm", NORMS)
    def test_epsilon_zero_is_the_image_itself(self, norm):
        x = random_images((3, 5, 5))
        ball = Ball(norm, 0.0)
        assert torch.equal(ball.project_(x + torch.randn_like(x), x), x)
        assert torch.equal(ball.random_start(x, draw(5)), x)

    def test_double_images_stay_double(self):
        x = random_images((1, 4, 4)).double()
        assert Ball("l2", 0.1).project_(x + 1, x).dtype == torch.float64


class TestRandomStart:
    def test_linf_is_uniform(self):
        x = torch.full((200, 1, 10, 10), 0.5)
        moves = (Ball("linf", 0.3).random_start(x, draw(200)) - x) / 0.3
        assert moves.abs().max() <= 1
        assert moves.quantile(torch.linspace(0.1, 0.9, 9)) == pytest.approx(
            torch.linspace(-0.8, 0.8, 9).numpy(), abs=0.03
        )

    def test_l2_is_uniform_in_the_ball(self):
        """The share of the ball's volume that is nearer is uniform, and no direction is preferred."""
        x = torch.full((1000, 1, 2, 3), 0.5)
        moves = (Ball("l2", 0.3).random_start(x, draw(1000)) - x).flatten(1) / 0.3
        nearer = moves.norm(dim=1) ** 6
        assert nearer.quantile(torch.tensor([0.1, 0.5, 0.9])) == pytest.approx([0.1, 0.5, 0.9], abs=0.05)
        covariance = moves.T @ moves / 1000
        assert torch.allclose(covariance, torch.eye(6) / 8, atol=0.02)  # 1 / (d + 2)

    @pytest.mark.parametrize("norm", NORMS)
    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    def test_it_is_the_images_own_in_any_batch(self, norm, shape):
        ball, x = Ball(norm, 0.2), random_images(shape, 4)
        named = Draw(["a", "b", "c", "d"], 7, "attack")
        start = ball.random_start(x, named)
        assert torch.equal(ball.random_start(x.flip(0), Draw(["d", "c", "b", "a"], 7, "attack")).flip(0), start)
        assert torch.equal(ball.random_start(x[2:3], Draw(["c"], 7, "attack")), start[2:3])
        assert not torch.equal(ball.random_start(x, named, "again"), start)
        assert distances(ball, start, x).max() <= 0.2
        assert not torch.equal(start[0] - x[0], start[1] - x[1])

    @pytest.mark.parametrize("norm", NORMS)
    def test_a_generator_gives_the_same_numbers_again(self, norm):
        ball, x = Ball(norm, 0.2), random_images((1, 6, 6))
        first, again = (ball.random_start(x, torch.Generator().manual_seed(3)) for _ in range(2))
        assert torch.equal(first, again)
        assert distances(ball, first, x).max() <= 0.2


class TestSteepest:
    def test_closed_forms(self):
        g = torch.tensor([[[[3.0, -4.0, 0.0]]]])
        assert Ball("linf", 1.0).steepest(g).flatten().tolist() == [1, -1, 0]
        assert Ball("l2", 1.0).steepest(g).flatten().tolist() == pytest.approx([0.6, -0.8, 0])

    @pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e30])
    def test_the_direction_survives_tiny_and_huge_gradients(self, scale):
        g = torch.tensor([[[[3.0, -4.0]]]]) * scale
        assert Ball("l2", 1.0).steepest(g).flatten().tolist() == pytest.approx([0.6, -0.8], rel=1e-3)

    @pytest.mark.parametrize("norm", NORMS)
    def test_no_gradient_is_no_step(self, norm):
        g = torch.zeros(2, 1, 3, 3)
        g[1] = 1
        step = Ball(norm, 1.0).steepest(g)
        assert (step[0] == 0).all()
        assert (step[1] > 0).all()


class TestGreyLevels:
    def test_linf_is_the_largest_change(self):
        assert grey_levels(8 / 255, "linf", (3, 28, 28)) == pytest.approx(8)

    def test_l2_is_the_root_mean_square(self):
        assert grey_levels(0.25, "l2", (1, 28, 28)) == pytest.approx(255 * 0.25 / 28)
        same = [grey_levels(0.5 * math.sqrt(math.prod(s) / 3072), "l2", s) for s in ((1, 28, 28), (3, 32, 32))]
        assert same[0] == pytest.approx(same[1])


class TestMistakes:
    def test_each_is_a_sentence(self):
        with pytest.raises(InputError, match=r"'l-2' is not a norm\. Did you mean 'l2'"):
            Ball("l-2", 0.1)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="'L2' is not a norm"):
            grey_levels(0.1, "L2", (1, 28, 28))  # type: ignore[arg-type]
        for epsilon in (-0.1, math.nan, math.inf):
            with pytest.raises(InputError, match="epsilon must be a number of at least 0; found"):
                Ball("l2", epsilon)
