"""Maps of linear and quadratic functions are known; likeness and sparsity against textbook computations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from trueread.errors import InputError
from trueread.model.attribution import ATTRIBUTIONS, attribution, gini, rank_correlation, similarity


def images(n=3, channels=2, spatial=(8, 8), seed=0):
    return torch.rand(n, channels, *spatial, generator=torch.Generator().manual_seed(seed))


WEIGHTS = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(1))
TARGET = torch.tensor([0, 2, 1])


def linear(x):
    return x.flatten(1) @ WEIGHTS.flatten(1).T


def quadratic(x):
    """Logit k is the sum of w_k x^2, whose integrated gradients from black are w_k x^2."""
    return (x**2).flatten(1) @ WEIGHTS.flatten(1).T


def test_of_a_linear_function():
    x = images()
    weight = WEIGHTS[TARGET]
    for name in ("gradient", "smoothgrad"):
        torch.testing.assert_close(attribution(name, linear, x, TARGET), weight.abs().sum(1))
    torch.testing.assert_close(attribution("integrated-gradients", linear, x, TARGET), (weight * x).abs().sum(1))


def test_of_a_quadratic_function():
    x = images()
    weight = WEIGHTS[TARGET]
    torch.testing.assert_close(attribution("gradient", quadratic, x, TARGET), (2 * weight * x).abs().sum(1))
    found = attribution("integrated-gradients", quadratic, x, TARGET)
    torch.testing.assert_close(found, (weight * x**2).abs().sum(1), rtol=1e-3, atol=1e-4)
    smooth = attribution("smoothgrad", quadratic, x, TARGET)  # the mean of 2 w (x + noise), noise of 0.1 / sqrt(16)
    apart = (smooth - (2 * weight * x).abs().sum(1)).abs()
    assert 0.005 < apart.mean() < 0.15


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_volumes_seeds_and_the_state_of_chance(name):
    x = images(2, 1, (4, 8, 8))
    forward = lambda v: torch.stack([v.flatten(1).pow(2).sum(1), v.flatten(1).sum(1)], 1)  # noqa: E731
    state = torch.get_rng_state()
    first = attribution(name, forward, x, torch.tensor([0, 0]), seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.shape == (2, 4, 8, 8)
    assert torch.equal(first, attribution(name, forward, x, torch.tensor([0, 0]), seed=3))
    assert (name == "smoothgrad") != torch.equal(first, attribution(name, forward, x, torch.tensor([0, 0]), seed=4))


def test_an_unknown_name():
    with pytest.raises(InputError, match="Did you mean 'smoothgrad'"):
        attribution("smoothgrat", linear, images(), TARGET)


def test_rank_correlation_is_spearmans():
    a, b = images(4, 1)[:, 0], images(4, 1, seed=7)[:, 0]
    b = (a + b).round(decimals=1)  # with ties
    found = rank_correlation(a, b)
    for x, y, value in zip(a, b, found, strict=True):
        assert value == pytest.approx(spearmanr(x.flatten(), y.flatten()).statistic)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert np.isnan(rank_correlation(a, torch.ones_like(a))).all()


def test_similarity_is_one_for_the_same_and_falls_with_noise():
    a = images(3, 1, (32, 32))[:, 0]
    noise = images(3, 1, (32, 32), seed=4)[:, 0]
    assert similarity(a, a) == pytest.approx(1, abs=1e-5)
    assert similarity(a, 5 * a) == pytest.approx(1, abs=1e-5)
    little, much = similarity(a, a + 0.1 * noise), similarity(a, a + noise)
    assert (little > much).all()
    assert (similarity(a, noise) < 0.3).all()
    volume = images(2, 1, (8, 16, 16))[:, 0]
    assert similarity(volume, volume) == pytest.approx(1, abs=1e-5)


def test_gini_is_half_the_mean_difference_over_the_mean():
    maps = images(3, 1)[:, 0]
    for value, one in zip(gini(maps), maps.double().numpy(), strict=True):
        x = one.flatten()
        assert value == pytest.approx(np.abs(x[:, None] - x[None]).mean() / (2 * x.mean()))
    single = torch.zeros(1, 8, 8)
    single[0, 3, 3] = 2.0
    assert gini(single) == pytest.approx(63 / 64)
    assert gini(torch.ones(1, 8, 8)) == pytest.approx(0, abs=1e-12)
    assert np.isnan(gini(torch.zeros(1, 8, 8))).all()
