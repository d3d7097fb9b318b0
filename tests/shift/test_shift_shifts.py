"""Shifts: severity zero is nothing, an image's change is its own, and `where` is exactly where."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trueread.errors import InputError
from trueread.shift import SHIFTS, Draw
from trueread.shift.base import Shift
from trueread.shift.noise import GaussianNoise
from trueread.shift.square import Square

SHAPES = {"grey": (1, 24, 20), "colour": (3, 24, 20), "volume": (1, 5, 24, 20), "colour volume": (3, 5, 24, 20)}
IDS = ["p1/a.png", "p1/b.png", "p2/a.png", "p3", "p4", "p5"]
EVERY = [e.name for e in SHIFTS.entries()]


def images(shape: tuple[int, ...], b: int = 6) -> torch.Tensor:
    return 0.1 + 0.8 * torch.rand(b, *shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=SHAPES)
def x(request) -> torch.Tensor:
    return images(SHAPES[request.param])


@pytest.mark.parametrize("name", EVERY)
class TestEveryShift:
    def make(self, name: str, **options) -> Shift:
        return SHIFTS.build(name, options)

    def test_severity_zero_is_nothing(self, name, x):
        assert torch.equal(self.make(name, severity=0.0)(x, IDS), x)

    def test_more_severity_is_more_change_and_the_range_is_kept(self, name, x):
        sizes = []
        for severity in (0.1, 0.4, 0.7, 1.0):
            changed = self.make(name, severity=severity)(x, IDS)
            assert changed.shape == x.shape
            assert changed.dtype == x.dtype
            assert changed.min() >= 0
            assert changed.max() <= 1
            sizes.append(float((changed - x).abs().sum()))
        assert sizes == sorted(sizes)
        assert sizes[0] > 0

    def test_the_given_images_are_left_alone(self, name, x):
        before = x.clone()
        self.make(name, severity=1.0)(x, IDS)
        self.make(name, severity=1.0).pair(x, IDS)
        assert torch.equal(x, before)

    def test_an_images_change_is_the_same_in_any_batch(self, name, x):
        shift = self.make(name, severity=0.8, seed=3)
        together = shift(x, IDS)
        assert torch.equal(shift(x.flip(0), IDS[::-1]).flip(0), together)
        assert torch.equal(shift(x[2:3], IDS[2:3]), together[2:3])
        assert torch.equal(shift(x[[4, 4, 1]], [IDS[4], IDS[4], IDS[1]]), together[[4, 4, 1]])
        torch.manual_seed(7)
        assert torch.equal(shift(x, IDS), together), "the global random numbers must not matter"
        state = torch.get_rng_state()
        shift(x, IDS)
        assert torch.equal(torch.get_rng_state(), state), "nor be taken"

    def test_pair_is_the_call(self, name, x):
        shift = self.make(name, severity=0.8)
        pair = shift.pair(x, IDS)
        assert torch.equal(pair.without, x)
        assert torch.equal(pair.with_, shift(x, IDS))
        if pair.where is not None:
            changed = (pair.with_ != pair.without).any(1)
            assert not (changed & (pair.where == 0)).any(), "a pixel outside `where` was changed"

    def test_severity_outside_its_range_is_refused(self, name, x):
        for severity in (-0.1, 1.1):
            with pytest.raises(InputError, match="severity"):
                self.make(name, severity=severity)

    def test_one_id_per_image(self, name, x):
        with pytest.raises(InputError, match="6 images need as many ids; found 1"):
            self.make(name)(x, IDS[:1])
        with pytest.raises(InputError, match="found 7"):
            self.make(name).pair(x, [*IDS, "more"])


class TestRandomness:
    @pytest.mark.parametrize("shift", [GaussianNoise, lambda **o: Square(place="random", side=0.1, **o)])
    def test_depends_on_the_id_and_on_the_seed(self, shift):
        x = images(SHAPES["grey"], 1).expand(6, -1, -1, -1)
        changed = shift(severity=0.5, seed=0)(x, IDS)
        assert not torch.equal(changed[0], changed[1])
        assert not torch.equal(changed, shift(severity=0.5, seed=1)(x, IDS))
        assert torch.equal(changed, shift(severity=0.5, seed=0)(x, IDS))

    def test_noise_is_the_same_pattern_at_every_severity_and_of_its_sigma(self):
        x = torch.full((64, 1, 32, 32), 0.5)
        ids = [f"i{k}" for k in range(64)]
        weak, strong = GaussianNoise(severity=0.25)(x, ids) - 0.5, GaussianNoise(severity=0.5)(x, ids) - 0.5
        assert torch.allclose(2 * weak, strong, atol=1e-6)
        assert float(strong.std()) == pytest.approx(0.5 * 0.2, rel=0.01)
        assert abs(float(strong.mean())) < 0.001
        between = torch.corrcoef(strong.flatten(1))[~torch.eye(64, dtype=torch.bool)]
        assert between.abs().max() < 0.2, "two images share their noise"

    def test_purposes_and_shifts_do_not_share_numbers(self):
        like = torch.zeros(1)
        draw, others = (
            Draw(["a"], 0, "square"),
            [Draw(["a"], 0, "noise"), Draw(["a"], 1, "square"), Draw(["b"], 0, "square")],
        )
        numbers = [d.uniform("place", like=like) for d in (draw, *others)] + [draw.uniform("tilt", like=like)]
        assert len({float(n) for n in numbers}) == 5
        assert draw.uniform("place", n=4, like=like).shape == (1, 4)
        assert draw.normal("x", (2, 3), like=like.double()).dtype == torch.float64


class TestSquare:
    @pytest.mark.parametrize("place", ["corner", "random"])
    def test_where_is_exactly_what_changes(self, x, place):
        pair = Square(severity=0.5, place=place, side=0.15).pair(x, IDS)
        changed = pair.with_ != pair.without
        assert torch.equal(changed.all(1), pair.where.bool())
        assert torch.equal(changed.any(1), pair.where.bool())
        area = pair.where[0].sum() / (x.shape[2] if x.ndim == 5 else 1)
        assert area == 9, "0.15 of the shorter side, 20, is 3"

    def test_severity_is_opacity_in_the_corner_one_pixel_in(self):
        x = images((1, 10, 10), 2)
        changed = Square(severity=0.25, side=0.2)(x, IDS[:2])
        expected = x.clone()
        expected[..., 1:3, 1:3] = 0.75 * x[..., 1:3, 1:3] + 0.25
        assert torch.allclose(changed, expected, atol=1e-6)

    @given(seed=st.integers(0, 2**32), side=st.floats(0.1, 0.5), h=st.integers(10, 20), w=st.integers(10, 20))
    @settings(max_examples=50, deadline=None)
    def test_a_random_square_is_whole_and_inside(self, seed, side, h, w):
        ids = [str(k) for k in range(4)]
        where = Square(place="random", side=side, seed=seed).pair(torch.zeros(4, 1, h, w), ids).where
        length = round(side * min(h, w))
        for plane in where:
            rows, columns = plane.any(1), plane.any(0)
            assert int(rows.sum()) == int(columns.sum()) == length
            assert torch.equal(plane, (rows[:, None] & columns[None]).float())

    def test_reaches_every_place(self):
        ids = [str(k) for k in range(600)]
        where = Square(place="random", side=0.5).pair(torch.zeros(600, 1, 4, 4), ids).where
        corners = {divmod(int(p.flatten().nonzero()[0]), 4) for p in where}
        assert corners == {(a, b) for a in range(3) for b in range(3)}

    def test_smaller_than_a_pixel_is_refused(self):
        with pytest.raises(InputError, match="smaller than a pixel; raise `side`"):
            Square(side=0.01)(torch.zeros(1, 1, 20, 20), ["a"])

    def test_unknown_option_names_the_nearest(self):
        with pytest.raises(InputError, match="Did you mean 'severity'"):
            SHIFTS.build("square", {"severty": 1.0})
