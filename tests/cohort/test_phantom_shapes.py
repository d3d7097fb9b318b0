"""The shapes that the phantom is drawn with, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from trueread.cohort import phantom_shapes as shapes


def column(*values: float) -> torch.Tensor:
    """[B,1,1] parameters."""
    return torch.tensor(values).view(-1, 1, 1)


def test_a_cover_of_a_straight_edge_is_the_area_it_cuts_off():
    size = 40
    x, _ = shapes.pixel_centres(size)
    covered = shapes.cover(x + 0.3175, 2 / size)  # everything right of x = -0.3175
    assert covered.mean().item() * 2 == pytest.approx(1.3175, abs=1e-5)


def test_ellipse_is_the_distance_near_its_border_and_has_its_area():
    size, a, b = 200, 0.5, 0.3
    x, y = shapes.pixel_centres(size)
    inside = shapes.cover(shapes.ellipse(x, y, a, b), 2 / size)
    assert inside.mean().item() * 4 == pytest.approx(math.pi * a * b, rel=1e-3)
    angle = torch.linspace(0, 6.2, 30)
    normal = torch.stack([angle.cos() / a, angle.sin() / b])
    normal /= normal.norm(dim=0)
    for distance in (-0.02, 0.0, 0.02):
        found = shapes.ellipse(a * angle.cos() - distance * normal[0], b * angle.sin() - distance * normal[1], a, b)
        torch.testing.assert_close(found, torch.full_like(found, distance), atol=2e-3, rtol=0)


def test_union_contains_both_and_rounds_only_the_corner():
    a, b = torch.linspace(-1, 1, 21)[:, None], torch.linspace(-1, 1, 21)[None]
    joined = shapes.union(a, b, 0.1)
    assert (joined >= torch.maximum(a, b) - 1e-6).all()
    assert (joined - torch.maximum(a, b)).max().item() == pytest.approx(0.05, abs=1e-6)  # half of it where they meet


def test_tubes_repeat_and_are_densest_in_the_cortex():
    height = torch.linspace(-1, 1, 401).view(1, -1, 1)
    row = shapes.row_of_tubes(height, column(0.04), column(0.2), column(0.25), 0.005)[0, :, 0]
    torch.testing.assert_close(row[:-40], row[40:], atol=1e-4, rtol=0)
    axis = int(torch.argmin((height[0, :, 0] - (-1 + 0.15)).abs()))  # (height + 1) / 0.2 + 0.25 is whole
    assert 0 < row[axis] < row[axis + 7]
    assert row[axis + 20] == 0


def test_blobs_are_gaussians():
    x, y = shapes.pixel_centres(16)
    centres = torch.tensor([[0.1, -0.4], [0.9, 0.0]])
    radius, weight = torch.tensor([[0.2, 0.5], [0.1, 0.3]]), torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    found = shapes.blobs(x, y, centres, -centres, radius, weight)
    for b in range(2):
        squared = [(x[0] - centres[b, k]) ** 2 + (y[0] + centres[b, k]) ** 2 for k in range(2)]
        expected = sum(weight[b, k] * torch.exp(-squared[k] / (2 * radius[b, k] ** 2)) for k in range(2))
        torch.testing.assert_close(found[b], expected)


def test_rectangle_has_its_exact_area_wherever_it_lies():
    x, y = shapes.pixel_centres(9)
    left = column(-0.713, 0.101)
    area = shapes.rectangle(x, y, left, left, left + 0.37, left + 0.05, 2 / 9).sum((1, 2)) * (2 / 9) ** 2
    torch.testing.assert_close(area, torch.full((2,), 0.37 * 0.05))


def test_splat_keeps_mass_and_centre_of_mass_and_loses_what_is_outside():
    at_column, at_row, mass = (
        torch.tensor([[2.25, 5.5, -3.0]]),
        torch.tensor([[1.0, 6.75, 4.0]]),
        torch.tensor([[1.0, 2, 7]]),
    )
    image = shapes.splat(at_column, at_row, mass, 9)[0]
    assert image.sum().item() == pytest.approx(3)
    index = torch.arange(9.0)
    assert (image.sum(0) @ index).item() == pytest.approx(2.25 + 2 * 5.5)
    assert (image.sum(1) @ index).item() == pytest.approx(1.0 + 2 * 6.75)


@pytest.mark.parametrize("sigma", [0.0, 1.0, 2.0])
def test_blur_keeps_mass_and_adds_its_variance(sigma: float):
    image = torch.zeros(1, 41, 41)
    image[0, 20, 20] = 1
    blurred = shapes.blur(image, sigma)[0]
    assert blurred.sum().item() == pytest.approx(1)
    offset = torch.arange(41.0) - 20
    assert (blurred.sum(0) @ offset**2).item() == pytest.approx(sigma**2, abs=1e-4)
    assert (blurred.sum(1) @ offset**2).item() == pytest.approx(sigma**2, abs=1e-4)


def test_diffuse_keeps_a_constant_and_spreads_a_point_widely():
    torch.testing.assert_close(shapes.diffuse(torch.full((1, 28, 28), 3.0)), torch.full((1, 28, 28), 3.0))
    point = torch.zeros(1, 64, 64)
    point[0, 30, 30] = 64
    assert shapes.diffuse(point).max() < 1.01


def test_a_pattern_follows_the_body():
    x, y = (t.expand(1, 64, 64) for t in shapes.pixel_centres(64))
    pattern = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    still, moved = shapes.follow(pattern, x, y), shapes.follow(pattern, x - 2 * 5 / 64, y)
    torch.testing.assert_close(moved[..., 5:], still[..., :-5], atol=1e-4, rtol=0)
