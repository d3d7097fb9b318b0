"""The Square attack: its shapes and its schedule, and that it needs no gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attack_nets import SHAPES, directions, distances, draw, linear, random_images, trained
from hypothesis import given, settings
from hypothesis import strategies as st

from trueread.shift.attack import Ball, square_attack
from trueread.shift.attack.balls import NORMS
from trueread.shift.attack.square_attack import _paint, _shift_mass, _stripes, _tiles, hills, square_side
from trueread.shift.base import Draw

ANY = {"one pixel": (1, 1, 1), "tiny": (3, 2, 3), "oblong": (1, 5, 11), "grey": (1, 12, 12), "volume": (1, 3, 4, 6)}


def numbers(b: int, n: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(b, n, generator=torch.Generator().manual_seed(seed))


class TestSchedule:
    def test_it_starts_at_eight_tenths_and_is_halved_nine_times(self):
        assert square_side(0, 10000, (100, 100)) == round((0.8 * 10000) ** 0.5)
        assert square_side(11, 10000, (100, 100)) == round((0.4 * 10000) ** 0.5)
        assert square_side(9999, 10000, (512, 512)) == round((0.8 / 512) ** 0.5 * 512)

    def test_it_is_stretched_over_the_queries(self):
        whole = [square_side(q, 10000, (28, 28)) for q in range(0, 10000, 20)]
        assert [square_side(q, 500, (28, 28)) for q in range(500)] == whole
        assert whole == sorted(whole, reverse=True)

    def test_cubes_oblong_and_small_images(self):
        assert square_side(0, 100, (10, 10, 10)) == round(800 ** (1 / 3))
        assert square_side(0, 100, (5, 20)) == round(80**0.5)
        assert square_side(99, 100, (2, 2)) == 1
        assert square_side(99, 100, (2, 2), least=3) == 3


class TestHills:
    @pytest.mark.parametrize("sides", [(1, 1), (1, 2), (3, 3), (5, 5), (4, 4), (3, 7), (3, 3, 3), (2, 4, 6)])
    def test_unit_length_and_one_hill_up_and_one_down(self, sides):
        for axis in range(len(sides)):
            h = hills(sides, axis)
            assert h.shape == sides
            assert h.norm().item() == pytest.approx(1)
            half = sides[axis] // 2
            up, down = h.split([half, sides[axis] - half], dim=axis)
            assert (up > 0).all()
            assert (down < 0).all()
            if sides[axis] % 2 == 0:
                assert up.sum().item() == pytest.approx(-down.sum().item())

    def test_the_papers_closed_form(self):
        """Of side 4 along the first axis each hill is 2 x 4; distance 0 weighs 1 + 1/4 + 1/9, 1 weighs 1/4 + 1/9."""
        top, middle, foot = 1 + 1 / 4 + 1 / 9, 1 / 4 + 1 / 9, 1 / 9
        expected = torch.tensor([[foot, middle, middle, middle], [foot, middle, top, middle]])
        expected = torch.cat([expected, -expected])
        assert torch.allclose(hills((4, 4), 0), expected / expected.norm())
        assert torch.allclose(hills((4, 4), 1), expected.T / expected.norm())


class TestMoves:
    """Away from the edge of [0,1], every move stays exactly on the ball."""

    @pytest.mark.parametrize("shape", ANY.values(), ids=ANY)
    def test_linf(self, shape):
        x = random_images(shape, 4, low=0.4, high=0.6)
        best = _stripes(x, 0.1, numbers(4, x[0].numel()))
        assert torch.allclose((best - x).abs(), torch.full_like(x, 0.1))
        assert ((best - x).sign().diff(dim=-2) == 0).all(), "stripes run from top to bottom"
        sides = [min(2, n) for n in shape[1:]]
        moved = _paint(best, x, 0.1, sides, numbers(4, 20, seed=1))
        assert torch.allclose((moved - x).abs(), torch.full_like(x, 0.1))
        for change in (moved - best).abs() > 0.05:
            where = change.any(0).nonzero()
            if len(where):
                assert (where.amax(0) - where.amin(0) < torch.tensor(sides)).all(), "outside the square all stays"

    @pytest.mark.parametrize("shape", ANY.values(), ids=ANY)
    def test_l2(self, shape):
        x = random_images(shape, 4, low=0.4, high=0.6)
        best = _tiles(x, 0.1, numbers(4, x[0].numel()))
        assert (best - x).flatten(1).norm(dim=1) == pytest.approx([0.1] * 4, rel=1e-3)
        for query in range(20):
            sides = [min(3, n) for n in shape[1:]]
            best = _shift_mass(best, x, 0.1, sides, numbers(4, shape[0] + 2 * len(shape[1:]) + 1, seed=query))
            length = (best - x).flatten(1).norm(dim=1)
            assert (length <= 0.1001).all()
        if min(shape[1:]) >= 3:
            assert length == pytest.approx([0.1] * 4, rel=1e-3)

    @pytest.mark.parametrize("axis", [0, 1])
    def test_from_no_change_the_whole_length_goes_into_hills_along_either_axis(self, axis):
        x = torch.full((1, 2, 7, 7), 0.5)
        drawn = torch.tensor([[0.9, 0.1, 0.0, 0.5, 0.99, 0.99, (axis + 0.5) / 2]])
        moved = _shift_mass(x.clone(), x, 0.2, [3, 3], drawn) - x
        expected = torch.zeros(1, 2, 7, 7)
        for channel, sign in enumerate((1, -1)):
            expected[0, channel, 0:3, 2:5] = sign * hills((3, 3), axis) * 0.2 / 2**0.5
        assert torch.allclose(moved, expected, atol=1e-7)


class TestProperties:
    @settings(max_examples=30, deadline=None)
    @given(
        shape=st.sampled_from(list(ANY)), norm=st.sampled_from(NORMS), epsilon=st.sampled_from([0.0, 1e-3, 0.2, 3.0]),
        seed=st.integers(0, 20), classes=st.integers(2, 4),
    )  # fmt: skip
    def test_nothing_leaves_the_ball_or_the_box_and_more_queries_are_never_worse(
        self, shape, norm, epsilon, seed, classes
    ):
        x, ball = random_images(ANY[shape], seed=seed), Ball(norm, epsilon)
        labels, model = torch.arange(5) % classes, linear(directions(ANY[shape], classes, seed))
        found = square_attack(model, x, labels, ball=ball, draw=draw(5, seed), queries=20)
        assert distances(ball, found.images, x).max() <= epsilon
        assert found.images.min() >= 0
        assert found.images.max() <= 1
        assert torch.equal(model(found.images).argmax(1) != labels, found.fooled)
        assert found.forward_passes.max() <= 22
        if epsilon == 0:
            assert torch.equal(found.images, x)

    @pytest.mark.parametrize("norm", NORMS)
    def test_an_images_result_is_its_own_in_any_batch(self, norm):
        """Also when others leave on the way, and across two portions of random numbers."""
        net, x, y = trained()
        x, y, names = x[:8], y[:8], draw(8).ids
        ball = Ball(norm, {"linf": 0.09, "l2": 0.8}[norm])
        together = square_attack(net, x, y, ball=ball, draw=draw(8), queries=100)
        assert 0 < together.fooled.sum() < 8
        turned = square_attack(net, x.flip(0), y.flip(0), ball=ball, draw=Draw(names[::-1], 0, "attack"), queries=100)
        assert torch.allclose(turned.images.flip(0), together.images, atol=1e-5)
        for k in range(8):
            alone = square_attack(net, x[[k]], y[[k]], ball=ball, draw=Draw([names[k]], 0, "attack"), queries=100)
            assert torch.allclose(alone.images[0], together.images[k], atol=1e-5)
            assert alone.forward_passes[0] == together.forward_passes[k]

    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    def test_linf_comes_near_the_optimum_of_a_linear_model(self, shape):
        x = random_images(shape, low=0.4, high=0.6)
        w = directions(shape, 2) / 100
        bias, labels = torch.tensor([10.0, 0.0]), torch.zeros(5, dtype=torch.int64)
        found = square_attack(linear(w, bias), x, labels, ball=Ball("linf", 0.1), draw=draw(5), queries=600)
        away = (w[1] - w[0]).flatten()
        gained = (found.images - x).flatten(1) @ away / (0.1 * away.abs().sum())
        assert (gained > 0.7).all(), gained


class TestWithoutGradients:
    @staticmethod
    def stairs(x: torch.Tensor) -> torch.Tensor:
        """A numpy function of intensities rounded to eight levels, which has no slope anywhere."""
        levels = np.round(x.numpy() * 8) / 8
        m = levels.mean(axis=tuple(range(1, x.ndim)))
        return torch.from_numpy(np.stack([0.5 - m, m - 0.5], axis=1))

    @pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (1, 4, 5, 6)], ids=["grey", "colour", "volume"])
    @pytest.mark.parametrize("norm", NORMS)
    def test_a_step_function_is_fooled(self, shape, norm):
        x = random_images(shape, 8, low=0.35, high=0.6)
        y = torch.zeros(8, dtype=torch.int64)
        ball = Ball(norm, {"linf": 0.15, "l2": 0.15 * x[0].numel() ** 0.5}[norm])
        found = square_attack(self.stairs, x, y, ball=ball, draw=draw(8), queries=300)
        assert not (self.stairs(x).argmax(1) != y).any()
        assert found.fooled.sum() >= (8 if norm == "linf" else 4)
        assert torch.equal(self.stairs(found.images).argmax(1) != y, found.fooled)

    def test_fooled_images_leave(self):
        sizes = []
        net, x, y = trained()

        def forward(images):
            assert not images.requires_grad
            assert not torch.is_grad_enabled()
            sizes.append(len(images))
            return net(images)

        found = square_attack(forward, x, y, ball=Ball("linf", 0.15), draw=draw(60), queries=100)
        assert sizes == sorted(sizes, reverse=True)
        assert sum(sizes) == found.forward_passes.sum()
        assert found.fooled.float().mean() > 0.5
