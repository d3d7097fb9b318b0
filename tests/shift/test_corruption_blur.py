"""Blurs: kernels of unit sum and known shape, and small images blurred as the large one made small."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms.functional import gaussian_blur as torchvision_blur

from trueread.shift.corruption import blur
from trueread.shift.corruption.blur import (
    defocus_blur,
    disk,
    gaussian_blur,
    motion_blur,
    resampling,
    zoom_blur,
)

ANGLE = torch.tensor([-45.0, 30.0])
BLURS = {
    "gaussian": lambda x, scale: gaussian_blur(x, 11, scale=scale),
    "defocus": lambda x, scale: defocus_blur(x, 5, 0.2, scale=scale),
    "motion": lambda x, scale: motion_blur(x, 10, 5, ANGLE, scale=scale),
    "zoom": lambda x, _scale: zoom_blur(x, 1.15, 0.01),
}


def point(side: int = 41) -> torch.Tensor:
    x = torch.zeros(1, 1, side, side)
    x[..., side // 2, side // 2] = 1
    return x


def scene(side: int, *, detail: int) -> torch.Tensor:
    """Two colour images with soft shapes of `detail` pixels."""
    shapes = torch.rand(2, 3, side // detail, side // detail, generator=torch.Generator().manual_seed(0))
    return F.interpolate(shapes, size=(side, side), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("name", BLURS)
@pytest.mark.parametrize("side", [28, 64, 300])
def test_a_flat_image_stays_as_it_is(name, side):
    x = torch.full((2, 3, side, side + 5), 0.3)
    assert torch.allclose(BLURS[name](x, side / 224), x, atol=1e-5)


@pytest.mark.parametrize("side", [3, 5, 11, 25])
def test_gaussian_is_torchvisions_at_224(side):
    x = torch.rand(2, 3, 50, 40)
    assert torch.allclose(gaussian_blur(x, side), torchvision_blur(x, [side, side]), atol=1e-6)


def test_defocus_of_a_point_is_a_disk_of_unit_sum():
    out = defocus_blur(point(), 5, 0.1)[0, 0]
    assert float(out.sum()) == pytest.approx(1, abs=1e-5)
    y, x = torch.meshgrid(torch.arange(-20, 21), torch.arange(-20, 21), indexing="ij")
    inside = y**2 + x**2 <= 25
    assert torch.allclose(out[inside], torch.tensor(1 / float(inside.sum())), atol=1e-6)
    assert out[~inside].abs().max() < 1e-6


def test_the_edge_of_a_disk_is_soft():
    soft, hard = (disk(5, edge, 6, like=torch.zeros(1)) for edge in (0.5, 0.01))
    assert float(soft.sum()) == pytest.approx(1)
    assert (soft > 0).sum() > (hard > 0).sum()
    assert soft[6, 6] == pytest.approx(float(hard[6, 6]), rel=1e-4)


def test_motion_of_a_point_is_half_a_gaussian_to_one_side():
    straight, diagonal = motion_blur(point().expand(2, -1, -1, -1), 10, 5, torch.tensor([0.0, 45.0]))[:, 0]
    weights = torch.exp(-0.5 * (torch.arange(21) / 5.0) ** 2)
    # a pixel takes its values from the right, so a point is smeared to the left
    assert torch.allclose(straight[20, :21].flip(0), weights / weights.sum(), atol=1e-6)
    assert float(straight[20].sum()) == pytest.approx(1, abs=1e-5)
    assert float(diagonal.diagonal().sum()) == pytest.approx(1, abs=1e-5), "whole pixels along the diagonal"
    assert diagonal[21:].abs().sum() == 0


def test_every_image_has_its_own_direction():
    x = scene(64, detail=8)
    both = motion_blur(x, 10, 5, ANGLE)
    for k in (0, 1):
        assert torch.equal(both[k : k + 1], motion_blur(x[k : k + 1], 10, 5, ANGLE[k : k + 1]))


def test_motion_is_the_same_an_image_at_a_time_and_all_at_once(monkeypatch):
    x, angles = torch.rand(3, 2, 20, 31), torch.tensor([-45.0, 3.0, 44.0])
    one_at_a_time = motion_blur(x, 10, 5, angles)
    monkeypatch.setattr(blur, "_by_image", blur._by_tap)
    torch.testing.assert_close(motion_blur(x, 10, 5, angles), one_at_a_time, rtol=0, atol=1e-6)


def test_zoom_leaves_the_middle_and_blurs_the_border():
    x = scene(224, detail=16)
    change = (zoom_blur(x, 1.3, 0.03) - x).abs().mean((0, 1))
    assert change[108:116, 108:116].mean() < 0.3 * change[:30, :30].mean()
    assert torch.allclose(zoom_blur(x, 1.0, 0.01), x, atol=1e-6)


def test_resampling_is_the_identity_at_224_and_keeps_sums():
    assert torch.equal(resampling(3, 1.0, like=torch.zeros(1)), torch.eye(7))
    for scale in (0.125, 0.3, 2.3):
        rows = resampling(8, scale, like=torch.zeros(1))
        assert torch.allclose(rows.sum(1), torch.ones(17))
        assert torch.allclose(rows, rows.flip(0, 1))


@pytest.mark.parametrize("name", ["gaussian", "defocus", "motion"])
@pytest.mark.parametrize("side", [112, 56, 28])
def test_a_small_image_is_blurred_as_the_large_one_made_small(name, side):
    """Measured, as a share of what the blur changes, at 112, 56 and 28 pixels: Gaussian 0.01, 0.01 and 0.13, defocus
    0.01, 0.01 and 0.11, motion, whose taps are whole pixels, 0.04, 0.15 and 0.39."""
    large = scene(224, detail=32)
    small = F.interpolate(large, size=side, mode="area")
    expected = F.interpolate(BLURS[name](large, 1.0), size=side, mode="area")
    ours = BLURS[name](small, side / 224)
    change = (expected - small).abs().mean()
    bound = {112: 0.06, 56: 0.2, 28: 0.45} if name == "motion" else {112: 0.02, 56: 0.03, 28: 0.15}
    assert (ours - expected).abs().mean() < bound[side] * change


@pytest.mark.parametrize("radius", [0.5, 1, 2])
def test_a_radius_below_a_pixel_still_blurs(radius):
    x = torch.rand(1, 1, 28, 28)
    assert (defocus_blur(x, radius, 0.6, scale=0.125) - x).abs().mean() > 1e-3
