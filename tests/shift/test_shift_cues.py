"""The cues one by one: their closed forms, their sizes, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch

from trueread.errors import InputError
from trueread.shift.blur import Blur
from trueread.shift.brightness import Brightness
from trueread.shift.gamma import Gamma
from trueread.shift.ruler import Ruler
from trueread.shift.text import Text, drawn
from trueread.shift.vignette import Vignette

IDS = [f"image {k}" for k in range(6)]


def images(h: int = 40, w: int = 40, b: int = 6) -> torch.Tensor:
    return 0.1 + 0.8 * torch.rand(b, 1, h, w, generator=torch.Generator().manual_seed(1))


class TestDiffuse:
    def test_brightness(self):
        x = images()
        assert torch.allclose(Brightness(severity=1.0)(x, IDS), 0.8 * x + 0.2, atol=1e-6)
        assert torch.allclose(Brightness(severity=0.5, k_at_full=0.4)(x, IDS), 0.8 * x + 0.2, atol=1e-6)

    def test_gamma(self):
        x = images()
        assert torch.allclose(Gamma(severity=1.0)(x, IDS), x.sqrt(), atol=1e-6)
        assert torch.allclose(Gamma(severity=0.5, gamma_at_full=4.0)(x, IDS), x**2, atol=1e-6)

    def test_blur_is_a_gaussian(self):
        x = images(48, 40)
        mine = Blur(severity=1.0, sigma=0.04)(x, IDS)[0, 0].numpy()
        other = scipy.ndimage.gaussian_filter(x[0, 0].numpy(), 1.6, mode="nearest", radius=5)
        assert mine == pytest.approx(other, abs=1e-5)

    def test_blur_of_a_volume_is_slice_by_slice(self):
        x = images().unsqueeze(2).repeat(1, 1, 3, 1, 1)
        x[:, :, 1] = 0.5
        changed = Blur(severity=1.0)(x, IDS)
        assert torch.allclose(changed[:, :, 1], x[:, :, 1])
        assert torch.allclose(changed[:, :, 0], Blur(severity=1.0)(x[:, :, 0], IDS))


class TestVignette:
    def test_the_middle_stays_and_the_corners_go(self):
        x = images(64, 64)
        changed = Vignette(severity=1.0)(x, IDS)
        assert torch.equal(changed[:, :, 20:44, 20:44], x[:, :, 20:44, 20:44])
        assert (changed[:, :, 0, 0] < 0.05 * x[:, :, 0, 0] + 0.05).all()
        half = Vignette(severity=0.5)(x, IDS)[:, :, 0, 0]
        assert half == pytest.approx((x[:, :, 0, 0] + changed[:, :, 0, 0]) / 2, abs=1e-6)

    def test_it_is_round_on_oblong_images(self):
        where = Vignette(severity=1.0).pair(images(64, 32), IDS).where[0]
        assert where == pytest.approx(where.flip(0))
        assert where == pytest.approx(where.flip(1))
        assert where[0, 0] == where.max() > 0.9


class TestRuler:
    def test_ticks(self):
        x = torch.full((6, 1, 50, 50), 0.5)
        where = Ruler(severity=1.0, spacing=0.08, length=0.06).pair(x, IDS).where
        for plane in where.numpy():
            heights = plane.sum(axis=0)
            ticks = np.flatnonzero(heights)
            assert set(np.diff(ticks)) == {4}
            assert set(heights[ticks]) == {3, 6}
            long = np.flatnonzero(heights == 6)
            assert set(np.diff(long)) <= {20}
            assert (plane[:-6] == 0).all()  # at the lower edge

    def test_the_phase_belongs_to_the_image(self):
        x = torch.full((40, 1, 50, 50), 0.5)
        where = Ruler(severity=1.0).pair(x, [str(k) for k in range(40)]).where
        phases = {tuple(plane[-1].tolist()) for plane in where}
        assert len(phases) == 4  # of a tick distance of 4 pixels

    def test_too_small(self):
        with pytest.raises(InputError, match="does not fit a 12x12 image"):
            Ruler(severity=1.0)(images(12, 12), IDS)


class TestText:
    def test_letters_are_in_the_upper_right_corner_and_move(self):
        x = torch.zeros(40, 1, 60, 60)
        ids = [str(k) for k in range(40)]
        where = Text(severity=1.0, height=0.2, jitter=0.1).pair(x, ids).where
        assert (where[:, 19:].sum(), where[:, :, :35].sum()) == (0, 0)
        assert (where.flatten(1).max(dim=1).values > 0.9).all()
        tops = {int(torch.nonzero(plane.sum(1))[0]) for plane in where}
        assert tops == set(range(1, 8))

    def test_the_same_letters_whatever_the_place(self):
        where = Text(severity=1.0, height=0.2).pair(torch.zeros(6, 1, 60, 60), IDS).where
        inked = [plane[plane.sum(1) > 0][:, plane.sum(0) > 0] for plane in where]
        assert all(torch.equal(i, inked[0]) for i in inked)
        assert inked[0].shape[0] == 12

    def test_height_and_text(self):
        assert drawn("R", 10).shape[0] == 10
        assert drawn("RL", 10).shape[1] > 1.5 * drawn("R", 10).shape[1]
        assert drawn("R", 30).mean() == pytest.approx(drawn("R", 10).mean(), abs=0.05)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"text": " "}, "shows nothing"),
            ({"height": 0.02}, "cannot be read"),
            ({"text": "HOSPITAL ONE", "height": 0.4}, "does not fit a 40x40 image"),
        ],
    )
    def test_what_does_not_fit(self, options, words):
        with pytest.raises(InputError, match=words):
            Text(severity=1.0, **options)(images(), IDS)
