"""The clustered bootstrap: equal to the textbook loop, of the right width, right about 95 % of the time."""

from __future__ import annotations

from importlib import import_module
from statistics import NormalDist

import numpy as np
import pytest
import textbook
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from trueread.errors import InputError
from trueread.stats import (
    average,
    bootstrap,
    bootstrap_many,
    cluster_weights,
    distribution,
    mean_over_seeds,
    on_rows,
    paired_difference,
    stack,
    statistic,
    weighted_mean,
)
from trueread.stats.bootstrap import Weights
from trueread.stats.calibration import ece


def patients_of(n: int, *, seed: int = 0) -> np.ndarray:
    """Codes of about n/3 patients with one to many images each, not sorted and not from 0."""
    return np.random.default_rng(seed).integers(0, n // 3, n) * 7 + 5


def textbook_draws(clusters: np.ndarray, *, resamples: int, seed: int) -> list[np.ndarray]:
    """Rows of each resample: draw patients, take all images of each, as often as it is drawn."""
    patients, generator = np.unique(clusters), np.random.default_rng(seed)
    rows = []
    for _ in range(resamples):
        drawn = patients[generator.integers(0, len(patients), len(patients))]
        rows.append(np.concatenate([np.flatnonzero(clusters == patient) for patient in drawn]))
    return rows


@pytest.mark.parametrize("kind", ["balanced", "imbalanced", "tied"])
def test_equals_the_textbook_loop_that_repeats_rows(kind):
    p, y = textbook.binary_data(kind)
    clusters = patients_of(len(y))
    draws = textbook_draws(clusters, resamples=60, seed=11)
    peers = {
        "auroc": lambda y, p: sk.roc_auc_score(y, p),
        "auprc": lambda y, p: sk.average_precision_score(y, p),
        "balanced-accuracy": lambda y, p: sk.balanced_accuracy_score(y, p >= 0.5),
        "ece": lambda y, p: textbook.ece(p, y == 1),
    }
    for name, peer in peers.items():
        ours = distribution(statistic(name, p, y, task="binary"), clusters, resamples=60, seed=11)
        for value, rows in zip(ours, draws, strict=True):
            if name != "ece" and len(np.unique(y[rows])) < 2:
                assert np.isnan(value)
            else:
                assert value == pytest.approx(peer(y[rows], p[rows, 1]), abs=2e-7), name


def test_interval_is_the_percentiles_of_the_defined_resamples():
    p, y = textbook.binary_data("imbalanced")
    clusters = patients_of(len(y))
    made = statistic("auroc", p, y, task="binary")
    values = distribution(made, clusters, resamples=300, seed=2)
    left_out = np.isnan(values).mean()
    assert 0 < left_out < 0.5  # 2 positives among 240: some resamples have none
    estimate = bootstrap(made, clusters, resamples=300, seed=2, level=0.9)
    low, high = np.quantile(values[~np.isnan(values)], [0.05, 0.95])
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-12)
    assert estimate.value == pytest.approx(sk.roc_auc_score(y, p[:, 1]), abs=1e-12)
    assert (estimate.n, estimate.n_clusters) == (240, len(np.unique(clusters)))


def test_weights_are_multinomial_counts_of_whole_patients():
    clusters = np.array([3, 3, 9, 4, 9, 3])
    weights = cluster_weights(clusters, resamples=4000, seed=0)
    assert weights.dtype == np.float32
    np.testing.assert_array_equal(weights[:, 0], weights[:, 1])
    np.testing.assert_array_equal(weights[:, 2], weights[:, 4])
    per_patient = weights[:, [0, 2, 3]].astype(np.float64)
    np.testing.assert_array_equal(per_patient.sum(axis=1), 3)
    np.testing.assert_allclose(per_patient.mean(axis=0), 1, atol=0.05)
    covariance = np.cov(per_patient.T)  # of a multinomial of 3 draws: 2/3 on the diagonal, -1/3 off it
    np.testing.assert_allclose(covariance, np.eye(3) - 1 / 3, atol=0.05)


def test_same_seed_same_draws_and_chunks_do_not_matter(monkeypatch):
    clusters = patients_of(100)
    whole = cluster_weights(clusters, resamples=57, seed=5)
    monkeypatch.setattr(import_module("trueread.stats.bootstrap"), "_CHUNK_WEIGHTS", 300)  # 3 resamples at a time
    np.testing.assert_array_equal(cluster_weights(clusters, resamples=57, seed=5), whole)
    np.testing.assert_array_equal(cluster_weights(clusters, resamples=20, seed=5), whole[:20])
    assert not np.array_equal(cluster_weights(clusters, resamples=57, seed=6), whole)


def test_memory_is_bounded_by_the_chunk():
    seen: list[int] = []

    def spy(weights: Weights) -> np.ndarray:
        seen.append(weights.size)
        return weights.mean(axis=1, dtype=np.float64)

    distribution(spy, np.arange(20_000), resamples=400, seed=0)
    assert sum(seen) == 20_000 * 400
    assert max(seen) <= 2**19


def test_five_identical_images_per_patient_leave_the_interval_as_it_is():
    p, y = textbook.binary_data("balanced")
    once = bootstrap(statistic("auroc", p, y, task="binary"), np.arange(len(y)), seed=3)
    rows = np.repeat(np.arange(len(y)), 5)
    five = statistic("auroc", p[rows], y[rows], task="binary")
    by_patient = bootstrap(five, rows, seed=3)
    by_image = bootstrap(five, np.arange(len(rows)), seed=3)
    assert (by_patient.value, by_patient.low, by_patient.high) == pytest.approx((once.value, once.low, once.high))
    width = once.high - once.low
    assert width / (by_image.high - by_image.low) == pytest.approx(
        5**0.5, rel=0.12
    )  # the wrong unit, sqrt(5) too narrow
    assert (by_patient.n, by_patient.n_clusters) == (1200, 240)


@pytest.mark.parametrize("images_per_patient", [1, 4])
@pytest.mark.slow
def test_covers_the_truth_about_95_percent(images_per_patient):
    """AUROC of two normals one apart, with a patient effect that makes the images of a patient alike."""
    generator = np.random.default_rng(20)
    patients, runs, shift = 120, 1000, 1.2
    truth = NormalDist().cdf(shift / 2**0.5)
    clusters = np.repeat(np.arange(patients), images_per_patient)
    covered = 0
    for run in range(runs):
        label_of = (generator.random(patients) < 0.4).astype(np.int64)
        effect = generator.normal(size=patients) * (0.8**0.5 if images_per_patient > 1 else 0.0)
        own = generator.normal(size=len(clusters)) * (0.2**0.5 if images_per_patient > 1 else 1.0)
        y = label_of[clusters]
        scores = effect[clusters] + own + shift * y
        p = 1 / (1 + np.exp(-scores))
        made = statistic("auroc", np.stack([1 - p, p], axis=1), y, task="binary")
        interval = bootstrap(made, clusters, resamples=300, seed=run)
        covered += interval.low <= truth <= interval.high
    assert 0.93 <= covered / runs <= 0.97


def test_more_than_half_undefined_gives_no_interval():
    p, y = textbook.binary_data("balanced")
    lonely = np.zeros_like(y)
    lonely[0] = 1
    estimate = bootstrap(statistic("auroc", p, lonely, task="binary"), np.arange(len(y)), resamples=400)
    assert np.isfinite(estimate.low)  # a patient is drawn in 63 % of the resamples
    mostly_undefined = lambda w: np.where(np.arange(len(w)) % 5 < 3, np.nan, w.mean(axis=1))  # noqa: E731
    estimate = bootstrap(mostly_undefined, np.arange(10), resamples=100)
    assert np.isnan(estimate.low)
    assert np.isnan(estimate.high)
    assert str(bootstrap(statistic("auroc", p, np.zeros_like(y), task="binary"), np.arange(240))) == "not defined"


def test_one_patient_has_a_value_and_no_interval():
    p, y = textbook.binary_data("balanced")
    estimate = bootstrap(statistic("auroc", p, y, task="binary"), np.zeros(len(y), dtype=np.int64))
    assert estimate.value == pytest.approx(sk.roc_auc_score(y, p[:, 1]))
    assert np.isnan(estimate.low)


def test_many_equal_one_by_one_and_each_leaves_out_its_own():
    p, y = textbook.multiclass_data("imbalanced")
    clusters = patients_of(len(y))
    single = [weighted_mean(y == c) for c in range(4)]
    many = bootstrap_many(stack(single), clusters, resamples=200, seed=4)
    for estimate, one in zip(many, single, strict=True):
        assert estimate == bootstrap(one, clusters, resamples=200, seed=4)
    within = [weighted_mean(np.where(y == c, p[:, c], np.nan)) for c in (0, 3)]
    common, rare = bootstrap_many(stack(within), clusters, resamples=200, seed=4)
    assert common == bootstrap(within[0], clusters, resamples=200, seed=4)
    assert rare == bootstrap(within[1], clusters, resamples=200, seed=4)


def test_mean_over_seeds():
    _, y = textbook.binary_data("balanced")
    generator = np.random.default_rng(0)
    clusters = patients_of(len(y))
    runs = []
    for _ in range(3):
        p = 1 / (1 + np.exp(-generator.normal(1.5 * y - 0.75)))
        runs.append(statistic("auroc", np.stack([1 - p, p], axis=1), y, task="binary"))
    points = [float(run(np.ones((1, len(y))))[0]) for run in runs]
    estimate = mean_over_seeds(runs, clusters, resamples=200, seed=1)
    assert estimate.value == pytest.approx(np.mean(points))
    assert estimate.spread == pytest.approx(np.std(points, ddof=1))
    assert estimate.n_seeds == 3
    by_hand = np.mean([distribution(run, clusters, resamples=200, seed=1) for run in runs], axis=0)
    assert (estimate.low, estimate.high) == pytest.approx(tuple(np.quantile(by_hand, [0.025, 0.975])))
    alone = mean_over_seeds(runs[:1], clusters, resamples=200, seed=1)
    assert alone == bootstrap(runs[0], clusters, resamples=200, seed=1)


@pytest.mark.parametrize("edge", [0.0, 1.0])
def test_a_perfect_score_in_every_resample_has_no_interval(edge):
    perfect = weighted_mean(np.full(20, edge))
    for estimate in (
        bootstrap(perfect, np.arange(20), resamples=50),
        mean_over_seeds([perfect, perfect], np.arange(20), resamples=50),
        mean_over_seeds([perfect], np.arange(20), resamples=50, correct_bias=True),
    ):
        assert estimate.value == edge
        assert np.isnan([estimate.low, estimate.high]).all()
        assert str(estimate) == f"{edge:.3f}"
    one_off = np.full(20, edge)
    one_off[0] = 0.5
    some = bootstrap(weighted_mean(one_off), np.arange(20), resamples=50)
    assert some.low < some.high
    # Constant answers have a balanced accuracy of 0.5 with any patients: there the interval says something.
    half = bootstrap(weighted_mean(np.full(20, 0.5)), np.arange(20), resamples=50)
    assert (half.low, half.high) == (0.5, 0.5)


def test_identical_predictions_differ_by_0_for_certain():
    perfect = weighted_mean(np.ones(20))
    difference = paired_difference(perfect, perfect, np.arange(20), resamples=50).difference
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)


def test_weighted_mean_leaves_out_what_was_not_measured():
    values = np.array([1.0, np.nan, 3.0, 5.0])
    weights = np.array([[1, 1, 1, 1], [0, 9, 2, 0], [0, 4, 0, 0.0]])
    np.testing.assert_allclose(weighted_mean(values)(weights), [3, 3, np.nan])
    columns = np.column_stack([values, np.arange(4.0)])
    np.testing.assert_allclose(weighted_mean(columns)(weights)[:, 1], [1.5, 13 / 11, 1])
    np.testing.assert_allclose(weighted_mean(columns[:, 1:])(weights)[:, 0], [1.5, 13 / 11, 1])


def test_a_subgroup_is_resampled_with_the_cohort():
    p, y = textbook.binary_data("tied")
    clusters = patients_of(len(y))
    rows = np.flatnonzero(clusters % 2 == 0)
    subgroup = on_rows(statistic("auroc", p[rows], y[rows], task="binary"), rows)
    values = distribution(subgroup, clusters, resamples=20, seed=0)
    for value, drawn in zip(values, textbook_draws(clusters, resamples=20, seed=0), strict=True):
        kept = drawn[np.isin(drawn, rows)]
        assert value == pytest.approx(sk.roc_auc_score(y[kept], p[kept, 1]), abs=2e-7)
    both = average([subgroup, weighted_mean(y)])(np.ones((1, len(y))))
    assert both[0] == pytest.approx((subgroup(np.ones((1, len(y))))[0] + y.mean()) / 2)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_the_order_of_the_rows_does_not_matter(seed):
    p, y = textbook.binary_data("tied", n=60)
    clusters = patients_of(60, seed=seed)
    order = np.random.default_rng(seed).permutation(60)
    for name in ("auroc", "macro-f1", "brier"):
        straight = distribution(statistic(name, p, y, task="binary"), clusters, resamples=20, seed=seed)
        made = statistic(name, p[order], y[order], task="binary")
        shuffled = distribution(made, clusters[order], resamples=20, seed=seed)
        np.testing.assert_allclose(shuffled, straight, atol=1e-6)


def test_wrong_inputs_are_sentences():
    made = weighted_mean(np.ones(4))
    with pytest.raises(InputError, match="clusters must be integers"):
        bootstrap(made, np.array(["a", "b", "c", "d"]))
    with pytest.raises(InputError, match="at least one resample"):
        bootstrap(made, np.arange(4), resamples=0)
    with pytest.raises(InputError, match="between 0 and 1"):
        bootstrap(made, np.arange(4), level=95)
    with pytest.raises(InputError, match="at least one seed"):
        mean_over_seeds([], np.arange(4))


def test_the_interval_of_a_real_calibration_error_does_not_lie_below_it():
    """Taking the bias twice from the upper end puts it below the truth in 5 to 6 % of these runs."""
    generator = np.random.default_rng(5)
    below, runs = 0, 120
    for run in range(runs):
        p = generator.uniform(0, 0.9, 300)
        y = (generator.random(300) < p + 0.1).astype(np.int64)  # every probability is too low by 0.1
        statistics = [ece(np.stack([1 - p, p], 1), y, task="binary")]
        below += mean_over_seeds(statistics, np.arange(300), resamples=100, seed=run, correct_bias=True).high < 0.1
    assert below <= 0.035 * runs


def test_a_calibration_error_is_freed_of_the_bias_of_few_images():
    """Perfect calibration is not called an error, and a planted error of 0.2 is found, both at 200 images."""
    generator = np.random.default_rng(3)
    plain, corrected, covered_zero, covered_planted = [], [], 0, 0
    runs = 60
    for _ in range(runs):
        p = generator.uniform(0.05, 0.95, 200)
        y = (generator.random(200) < p).astype(np.int64)
        fair = ece(np.stack([1 - p, p], 1), y, task="binary")
        estimate = mean_over_seeds([fair], np.arange(200), resamples=200, correct_bias=True)
        plain.append(mean_over_seeds([fair], np.arange(200), resamples=200).value)
        corrected.append(estimate.value)
        covered_zero += estimate.low < 0.02
        shifted = np.clip(p * 0.8, 0, 1)  # the stated probability is too low by a fifth: error 0.2 E[p] = 0.1
        off = ece(np.stack([1 - shifted, shifted], 1), y, task="binary")
        estimate = mean_over_seeds([off], np.arange(200), resamples=200, correct_bias=True)
        covered_planted += estimate.low <= 0.1 <= estimate.high
    assert np.mean(corrected) < 0.7 * np.mean(plain)
    assert covered_zero >= 0.9 * runs
    assert covered_planted >= 0.8 * runs
