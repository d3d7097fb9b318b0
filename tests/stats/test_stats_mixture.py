"""Two normal distributions are found again, beside sklearn's, and one is not taken for two."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from trueread.errors import InputError
from trueread.stats.mixture import two_normals


def drawn(share, apart, *, n=5000, seed=0, sds=(1.0, 1.0)):
    generator = np.random.default_rng(seed)
    high = generator.random(n) < share
    return np.where(high, generator.normal(apart, sds[1], n), generator.normal(0, sds[0], n)), high


@pytest.mark.parametrize(("share", "sds"), [(0.4, (1.0, 1.0)), (0.1, (1.0, 0.5)), (0.6, (0.5, 1.5))])
def test_both_parts_are_found_again(share, sds):
    x, high = drawn(share, 5.0, sds=sds)
    found = two_normals(x)
    assert found.share_high == pytest.approx(share, abs=0.03)
    assert found.low == pytest.approx((0, sds[0]), abs=0.1)
    assert found.high == pytest.approx((5, sds[1]), abs=0.2)
    assert found.gain > 0.05
    chance = found.chance_high(x)
    assert ((chance > 0.5) == high).mean() > 0.97


def test_it_is_that_of_sklearn():
    x, _ = drawn(0.3, 3.0)
    theirs = GaussianMixture(2, random_state=0, tol=1e-6, max_iter=500).fit(x[:, None])
    found = two_normals(x)
    order = np.argsort(theirs.means_[:, 0])
    assert [found.low[0], found.high[0]] == pytest.approx(theirs.means_[order, 0], abs=0.05)
    assert found.share_high == pytest.approx(theirs.weights_[order[1]], abs=0.02)
    single = GaussianMixture(1).fit(x[:, None]).score(x[:, None])
    assert found.gain == pytest.approx(theirs.score(x[:, None]) - single, abs=1e-3)
    expected = theirs.predict_proba(x[:, None])[:, order[1]]
    np.testing.assert_allclose(found.chance_high(x), expected, atol=0.03)


def test_the_separation_is_the_chance_of_a_larger_value():
    x, high = drawn(0.4, 2.5)
    pairs = np.random.default_rng(1).integers(0, [high.sum(), (~high).sum()], size=(20000, 2))
    larger = (x[high][pairs[:, 0]] > x[~high][pairs[:, 1]]).mean()
    assert two_normals(x).separation == pytest.approx(larger, abs=0.03)


def test_one_distribution_gains_nothing_from_a_second():
    x = np.random.default_rng(0).normal(size=5000)
    assert two_normals(x).gain < 0.01


def test_order_shift_and_scale():
    x, _ = drawn(0.3, 4.0)
    found, turned = two_normals(x), two_normals(3 * x[::-1] + 7)
    assert turned.separation == pytest.approx(found.separation, abs=1e-6)
    assert turned.low[0] == pytest.approx(3 * found.low[0] + 7, abs=1e-5)


def test_values_that_are_alike_and_values_that_are_none():
    alike = two_normals(np.full(10, 2.0))
    assert (alike.gain, alike.low[0], alike.high[0]) == (0, 2, 2)
    assert two_normals([0, 0, 0, 1.0]).share_high == pytest.approx(0.25, abs=0.01)
    for bad in ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0, np.nan]):
        with pytest.raises(InputError, match="at least 4 finite values"):
            two_normals(bad)
