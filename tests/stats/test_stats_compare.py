"""Paired comparison by bootstrap and Holm's correction: by hand, by loop, and by repeated experiments."""

from __future__ import annotations

import numpy as np
import pytest
import textbook
from hypothesis import given, settings
from hypothesis import strategies as st

from trueread.errors import InputError
from trueread.stats import (
    Comparison,
    Estimate,
    bootstrap,
    delong_test,
    distribution,
    holm,
    holm_adjusted,
    paired_difference,
    statistic,
    weighted_mean,
)


def two_classifiers(kind: str, *, seed: int = 0, gain: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities of a better and a worse classifier that share most of their noise, and labels."""
    worse, y = textbook.binary_data(kind)
    logit = np.log(worse[:, 1] / worse[:, 0])
    logit = logit + gain * (2 * y - 1) + np.random.default_rng(seed).normal(scale=0.3, size=len(y))
    p = 1 / (1 + np.exp(-logit))
    return np.stack([1 - p, p], axis=1), worse, y


@pytest.mark.parametrize("kind", ["balanced", "imbalanced"])
def test_both_sides_see_the_same_draws(kind):
    better, worse, y = two_classifiers(kind)
    clusters = np.random.default_rng(1).integers(0, 80, len(y))
    a, b = (statistic("auroc", p, y, task="binary") for p in (better, worse))
    found = paired_difference(a, b, clusters, resamples=300, seed=9)
    drawn = distribution(a, clusters, resamples=300, seed=9) - distribution(b, clusters, resamples=300, seed=9)
    drawn = drawn[~np.isnan(drawn)]
    assert (found.difference.low, found.difference.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))
    tail = min(np.sum(drawn <= 0), np.sum(drawn >= 0))
    assert found.p_value == pytest.approx(min(1, 2 * (tail + 1) / (len(drawn) + 1)))
    assert found.p_adjusted is None
    alone = [bootstrap(s, clusters, resamples=300, seed=9) for s in (a, b)]
    unpaired_width = sum((e.high - e.low) ** 2 for e in alone) ** 0.5
    assert found.difference.high - found.difference.low < 0.8 * unpaired_width  # that is what pairing is for


def test_identical_classifiers_do_not_differ():
    _, worse, y = two_classifiers("balanced")
    a = statistic("auroc", worse, y, task="binary")
    found = paired_difference(a, a, np.arange(len(y)), resamples=100)
    assert found == Comparison(Estimate(0.0, 0.0, 0.0, n=240, n_clusters=240), p_value=1.0)


def test_p_value_is_never_0():
    sure, unsure = weighted_mean(np.ones(50)), weighted_mean(np.zeros(50))
    assert paired_difference(sure, unsure, np.arange(50), resamples=99).p_value == pytest.approx(0.02)


def test_a_better_classifier_is_found_and_delong_agrees():
    better, worse, y = two_classifiers("balanced", gain=0.7)
    a, b = (statistic("auroc", p, y, task="binary") for p in (better, worse))
    found = paired_difference(a, b, np.arange(len(y)), resamples=2000)
    difference, p_value = delong_test(better[:, 1], worse[:, 1], y)
    assert found.difference.value == pytest.approx(difference.value)
    assert found.difference.low == pytest.approx(difference.low, abs=0.006)
    assert found.difference.high == pytest.approx(difference.high, abs=0.006)
    assert max(found.p_value, p_value) < 0.01


def test_a_true_null_is_rejected_about_5_percent_of_the_time():
    generator = np.random.default_rng(8)
    runs, patients = 600, 80
    clusters = np.repeat(np.arange(patients), 3)
    rejected = 0
    for run in range(runs):
        per_patient = generator.normal(size=(2, patients))[:, clusters] + generator.normal(size=(2, patients * 3))
        a, b = (weighted_mean(values) for values in per_patient)
        rejected += paired_difference(a, b, clusters, resamples=400, seed=run).p_value < 0.05
    assert 0.03 <= rejected / runs <= 0.075


def test_seeds_are_averaged_and_paired():
    better, worse, y = two_classifiers("balanced")
    other, _, _ = two_classifiers("balanced", seed=1)
    worst, _, _ = two_classifiers("balanced", seed=2, gain=-0.3)
    of_a = [statistic("auroc", p, y, task="binary") for p in (better, other)]
    of_b = [statistic("auroc", p, y, task="binary") for p in (worse, worst)]
    found = paired_difference(of_a, of_b, np.arange(len(y)), resamples=200, seed=3)
    ones = np.ones((1, len(y)))
    differences = [a(ones)[0] - b(ones)[0] for a, b in zip(of_a, of_b, strict=True)]
    assert found.difference.value == pytest.approx(np.mean(differences))
    assert found.difference.spread == pytest.approx(np.std(differences, ddof=1))
    assert found.difference.n_seeds == 2
    uneven = paired_difference(of_a, of_b[:1], np.arange(len(y)), resamples=200, seed=3)
    assert uneven.difference.value == pytest.approx(np.mean([a(ones)[0] for a in of_a]) - of_b[0](ones)[0])
    assert uneven.difference.spread is None


def test_nothing_to_compare_is_nan():
    better, worse, y = two_classifiers("balanced")
    a, b = (statistic("auroc", p, np.zeros_like(y), task="binary") for p in (better, worse))
    found = paired_difference(a, b, np.arange(len(y)), resamples=50)
    assert np.isnan(found.p_value)
    assert str(found.difference) == "not defined"
    one_patient = paired_difference(weighted_mean(y), weighted_mean(1 - y), np.zeros(len(y), dtype=int), resamples=50)
    assert np.isnan(one_patient.p_value)
    with pytest.raises(InputError, match="at least one seed"):
        paired_difference([], a, np.arange(len(y)))


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04; the last may not fall below 0.06.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.01, np.nan, 0.04, 0.03, 0.005]), [0.03, np.nan, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.9, 0.8]), [1, 1])
    np.testing.assert_array_equal(holm([np.nan]), [np.nan])
    assert holm([]).shape == (0,)
    with pytest.raises(InputError, match="p-values"):
        holm([0.5, 1.5])


def test_holm_fills_in_comparisons():
    found = holm_adjusted([Comparison(Estimate(0.1), p) for p in (0.01, 0.04)])
    assert [c.p_adjusted for c in found] == pytest.approx([0.02, 0.04])
    assert [c.p_value for c in found] == [0.01, 0.04]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_holm_properties(p, random):
    adjusted = holm(p)
    assert np.all(adjusted >= np.asarray(p))
    assert np.all(adjusted <= np.minimum(np.asarray(p) * len(p), 1) + 1e-15)  # never harsher than Bonferroni
    order = random.sample(range(len(p)), len(p))
    np.testing.assert_array_equal(holm([p[i] for i in order]), adjusted[order])
    # Step down as Holm words it: reject the smallest while p <= alpha / (those left).
    ranked = sorted(p)
    rejected = 0
    while rejected < len(p) and ranked[rejected] * (len(p) - rejected) <= 0.05:
        rejected += 1
    assert np.sum(adjusted <= 0.05) == rejected
