"""What is painted has the size, number and place it is named for, in images of any size."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from trueread.shift.corruption import special
from trueread.shift.corruption.special import black_corner, bubble, characters, stain_deposit


def numbers(b: int, n: int) -> torch.Tensor:
    return torch.rand(b, n, generator=torch.Generator().manual_seed(0))


class TestStainDeposit:
    @pytest.mark.parametrize("side", [24, 32])
    def test_one_mark_covers_about_two_thirds_of_its_square(self, side):
        dark = 1 - stain_deposit(torch.ones(50, 1, 224, 224), 1, side, numbers(50, special.MARK_NUMBERS))[:, 0]
        share = dark.sum((1, 2)) / side**2
        assert share.min() > 0.5
        assert share.max() < 0.8
        assert float(share.mean()) == pytest.approx(0.64, abs=0.03)
        assert dark[:, :8].sum() + dark[:, -8:].sum() + dark[:, :, :8].sum() + dark[:, :, -8:].sum() == 0

    def test_marks_are_black_and_up_to_the_largest_number(self):
        x = torch.full((200, 3, 64, 64), 0.5)
        area = (0.5 - stain_deposit(x, 3, 24, numbers(200, special.MARK_NUMBERS))).sum((1, 2, 3)) / 1.5
        one = 0.64 * 24**2 * (64 / 224) ** 2
        # of 1, 2 or 3 marks, a few of which overlap
        assert float(area.mean()) == pytest.approx(2 * one, rel=0.1)
        assert area.max() < 3.4 * one


class TestBubble:
    def test_bubbles_have_their_whites(self):
        out = bubble(torch.zeros(4, 1, 224, 224), 15, 20, numbers(4, special.BUBBLE_NUMBERS))
        assert sorted({round(255 * v) for v in out.unique().tolist()}) == [0, 100, 130]

    def test_how_many_and_how_large(self):
        uniform = torch.zeros(2, special.BUBBLE_NUMBERS)
        uniform[1, 0] = 0.999  # the most, all of the smallest radius, in one corner but for the last
        uniform[1, -2:] = 0.5
        few, many = bubble(torch.zeros(2, 1, 224, 224), 17, 25, uniform)[:, 0]
        assert few[9:].sum() + few[:, 9:].sum() == 0
        inside = (many[100:125, 100:125] * 255).round() == 100
        assert int(inside.any(0).sum()) == 7, "a radius of 3 spans 7 pixels"
        assert int(((many[100:125, 100:125] * 255).round() > 0).any(0).sum()) == 11, "and its rim 2 on each side"


class TestBlackCorner:
    @pytest.mark.parametrize("size", [(224, 224), (64, 64), (28, 28), (64, 90)])
    def test_keeps_a_circle_of_its_radius(self, size):
        out = black_corner(torch.ones(1, 3, *size), 0.9)
        assert float(out[0, 0].sum()) == pytest.approx(torch.pi * (0.45 * min(size)) ** 2, rel=0.02)
        assert out[..., 0, 0].sum() == 0
        assert out[..., size[0] // 2, size[1] // 2].min() == 1

    def test_a_field_beyond_the_corners_changes_nothing(self):
        x = torch.rand(1, 1, 32, 32)
        assert torch.equal(black_corner(x, 1.5), x)


class TestCharacters:
    def test_a_word_is_a_short_line_of_its_colour(self):
        uniform = numbers(8, special.CHARACTER_NUMBERS)
        x = torch.zeros(8, 3, 224, 224)
        out = characters(x, 1, 6, 0.14, uniform)
        for image, colour in zip(out, uniform[:, 1 + 4 : 1 + 7], strict=True):
            ink = image.amax(0) > 0.02
            rows, columns = (int(ink.any(axis).sum()) for axis in (1, 0))
            assert 2 <= rows <= 8, "letters of 3 pixels, with what stands above and below"
            assert 6 <= columns <= 20
            strongest = image.flatten(1).max(1).values
            assert torch.allclose(strongest / strongest.max(), colour / colour.max(), atol=1e-4)
            assert strongest.max() > 0.5 * colour.max()

    def test_more_words_are_more_ink(self):
        uniform = numbers(60, special.CHARACTER_NUMBERS)
        few, many = (characters(torch.ones(60, 1, 64, 64), n, 8, 0.16, uniform).sub(1).abs().sum() for n in (1, 6))
        assert 2.5 < float(many / few) < 4.5, "3.5 on average against 1"

    def test_words_differ(self):
        out = characters(torch.zeros(6, 1, 224, 224), 1, 6, 0.18, numbers(6, special.CHARACTER_NUMBERS))
        assert len({tuple(v.flatten().tolist()) for v in out}) == 6


@pytest.mark.parametrize("side", [112, 56, 28])
def test_a_small_image_is_painted_as_the_large_one_made_small(side):
    large = torch.full((3, 3, 224, 224), 0.6)
    small = torch.full((3, 3, side, side), 0.6)
    paint = {
        "stain": lambda x: stain_deposit(x, 3, 24, numbers(3, special.MARK_NUMBERS)),
        "bubble": lambda x: bubble(x, 10, 15, numbers(3, special.BUBBLE_NUMBERS)),
        "corner": lambda x: black_corner(x, 0.95),
        "words": lambda x: characters(x, 1, 6, 0.14, numbers(3, special.CHARACTER_NUMBERS)),
    }
    for make in paint.values():
        assert torch.allclose(make(small), F.interpolate(make(large), size=side, mode="area"), atol=1e-5)
