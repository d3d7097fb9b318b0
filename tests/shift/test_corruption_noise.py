"""Noise has the moments and shares it is named for."""

from __future__ import annotations

import pytest
import torch

from trueread.shift.corruption import corruption
from trueread.shift.corruption.noise import gaussian, impulse, shot, speckle

N = 200_000


@pytest.fixture
def normal() -> torch.Tensor:
    return torch.randn(1, 1, 1, N, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def uniform() -> torch.Tensor:
    return torch.rand(1, 1, 1, N, generator=torch.Generator().manual_seed(0))


def test_gaussian_and_speckle_have_their_standard_deviation(normal):
    for level in (0.2, 0.5):
        x = torch.full_like(normal, level)
        assert float(gaussian(x, 0.08, normal).std()) == pytest.approx(0.08, rel=0.01)
        assert float(gaussian(x, 0.08, normal).mean()) == pytest.approx(level, abs=0.001)
        assert float(speckle(x, 0.3, normal).std()) == pytest.approx(0.3 * level, rel=0.01)
        assert float(speckle(x, 0.3, normal).mean()) == pytest.approx(level, abs=0.001)


def test_impulse_takes_its_share_half_of_it_salt(uniform):
    x = torch.full_like(uniform, 0.5)
    out = impulse(x, 0.17, uniform)
    assert float((out == 0).float().mean()) == pytest.approx(0.085, abs=0.002)
    assert float((out == 1).float().mean()) == pytest.approx(0.085, abs=0.002)
    assert set(out.unique().tolist()) == {0.0, 0.5, 1.0}


def test_a_larger_share_takes_the_same_pixels_and_more(uniform):
    x = torch.full_like(uniform, 0.5)
    weak, strong = impulse(x, 0.02, uniform), impulse(x, 0.1, uniform)
    assert torch.equal(strong[weak != x], weak[weak != x])


@pytest.mark.parametrize("photons", [5, 60, 300])
@pytest.mark.parametrize("grey_level", [1, 26, 128, 255])
def test_shot_has_the_mean_and_variance_of_poisson_counts(photons, grey_level, uniform):
    expected = grey_level / 255 * photons
    counts = shot(torch.full_like(uniform, grey_level / 255), photons, uniform) * photons
    assert torch.allclose(counts, counts.round(), atol=1e-3)
    assert float(counts.mean()) == pytest.approx(expected, abs=4 * (expected / N) ** 0.5 + 1e-3 * expected)
    assert float(counts.var()) == pytest.approx(expected, rel=0.02)


def test_shot_has_the_probabilities_of_poisson_counts(uniform):
    counts = (shot(torch.full_like(uniform, 51 / 255), 10, uniform) * 10).round()
    for k, probability in enumerate([0.1353, 0.2707, 0.2707, 0.1804, 0.0902]):  # of mean 2
        assert float((counts == k).float().mean()) == pytest.approx(probability, abs=0.004)


def test_shot_leaves_black_black(uniform):
    assert shot(torch.zeros_like(uniform), 10, uniform).sum() == 0


@pytest.mark.parametrize(("name", "level"), [("gaussian-noise", 2), ("speckle-noise", 2)])
def test_grey_images_get_the_luma_of_three_draws_as_in_the_package(name, level):
    x, ids = torch.full((8, 1, 96, 96), 0.5), [str(k) for k in range(8)]
    sigma = corruption("organ", name, level).parameters[0] * (0.5 if name.startswith("speckle") else 1)
    of_grey = corruption("organ", name, level)(x, ids) - x
    of_colour = corruption("organ", name, level)(x.expand(-1, 3, -1, -1), ids) - x
    assert float(of_colour.std()) == pytest.approx(sigma, rel=0.01)
    assert float(of_grey.std()) == pytest.approx(sigma * (0.299**2 + 0.587**2 + 0.114**2) ** 0.5, rel=0.01)


def test_every_voxel_has_its_own_noise():
    x = torch.full((2, 1, 5, 16, 16), 0.5)
    out = corruption("organ", "gaussian-noise", 3)(x, ["a", "b"])
    slices = torch.cat([out[0, 0], out[1, 0]]).flatten(1)
    between = torch.corrcoef(slices)[~torch.eye(10, dtype=torch.bool)]
    assert between.abs().max() < 0.35
