"""DeLong and its clustered extension: equal to the slow formulas, and right about the spread of the AUROC."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
import textbook
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from trueread.errors import InputError
from trueread.stats import delong, delong_test


def slow_delong(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DeLong 1988 in O(m n): all pairs, then the two covariance matrices of the structural components."""
    pairs = np.array(
        [[[(a > b) + 0.5 * (a == b) for b in s[labels == 0]] for a in s[labels == 1]] for s in scores], dtype=float
    )
    v10, v01 = pairs.mean(axis=2), pairs.mean(axis=1)
    covariance = np.cov(v10) / v10.shape[1] + np.cov(v01) / v01.shape[1]
    return pairs.mean(axis=(1, 2)), np.atleast_2d(covariance)


def scored(kind: str, n: int = 150, classifiers: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores [M,n], labels [n] and clusters [n] in which images of a patient are alike."""
    generator = np.random.default_rng(len(kind))
    clusters = generator.integers(0, n // 3, n)
    labels = (generator.random(n) < (0.04 if kind == "imbalanced" else 0.5)).astype(np.int64)
    labels[:3] = 1
    shared = labels + generator.normal(size=n // 3)[clusters]
    scores = shared + generator.normal(size=(classifiers, n))
    return (scores.round() if kind == "tied" else scores), labels, clusters


@pytest.mark.parametrize("kind", ["balanced", "imbalanced", "tied"])
def test_equals_the_slow_formula(kind):
    scores, labels, _ = scored(kind)
    aucs, covariance = delong(scores, labels)
    slow_aucs, slow_covariance = slow_delong(scores, labels)
    np.testing.assert_allclose(aucs, slow_aucs, atol=1e-12)
    np.testing.assert_allclose(covariance, slow_covariance, atol=1e-14)
    np.testing.assert_allclose(aucs, [roc_auc_score(labels, s) for s in scores], atol=1e-12)


@pytest.mark.parametrize("kind", ["balanced", "imbalanced", "tied"])
def test_clustered_equals_the_slow_formula(kind):
    scores, labels, clusters = scored(kind)
    aucs, covariance = delong(scores, labels, clusters=clusters * 13 - 40)
    np.testing.assert_allclose(aucs, delong(scores, labels)[0], atol=1e-15)
    np.testing.assert_allclose(covariance, textbook.clustered_auroc_covariance(scores, labels, clusters), atol=1e-14)


@pytest.mark.parametrize("kind", ["balanced", "imbalanced", "tied"])
def test_singletons_give_delong(kind):
    scores, labels, _ = scored(kind)
    codes = np.random.default_rng(0).permutation(len(labels))
    np.testing.assert_allclose(delong(scores, labels, clusters=codes)[1], delong(scores, labels)[1], atol=1e-15)


def test_four_images_by_hand():
    # Positives 0.9, 0.4; negatives 0.5, 0.1. V10 = (1, 1/2), V01 = (1/2, 1): both variances are 1/8.
    aucs, covariance = delong(np.array([[0.9, 0.4, 0.5, 0.1]]), np.array([1, 1, 0, 0]))
    assert aucs[0] == 0.75
    assert covariance[0, 0] == pytest.approx(1 / 8 / 2 + 1 / 8 / 2)


def test_five_identical_images_per_patient_do_not_narrow_the_interval():
    scores, labels, _ = scored("balanced")
    rows = np.repeat(np.arange(len(labels)), 5)
    _, once = delong(scores, labels)
    _, clustered = delong(scores[:, rows], labels[rows], clusters=rows)
    _, naive = delong(scores[:, rows], labels[rows])
    np.testing.assert_allclose(clustered, once, rtol=1e-10)
    np.testing.assert_allclose(np.diag(once) / np.diag(naive), 5, rtol=0.02)


def test_clustered_variance_is_that_of_repeated_experiments_and_the_plain_one_is_too_small():
    generator = np.random.default_rng(5)
    patients, images = 60, 4
    clusters = np.repeat(np.arange(patients), images)
    areas, clustered, plain = [], [], []
    for _ in range(500):
        labels = (generator.random(patients * images) < 0.3).astype(np.int64)  # a patient can have both
        effect = generator.normal(scale=1.2, size=patients)[clusters] * (2 * labels - 1)
        scores = (labels + effect + generator.normal(size=len(labels)))[None]
        area, covariance = delong(scores, labels, clusters=clusters)
        areas.append(area[0])
        clustered.append(covariance[0, 0])
        plain.append(delong(scores, labels)[1][0, 0])
    truth = np.var(areas, ddof=1)
    assert np.mean(clustered) == pytest.approx(truth, rel=0.15)
    assert np.mean(plain) < 0.7 * truth


@pytest.mark.parametrize("clustered", [False, True])
def test_the_test_rejects_a_true_null_about_5_percent_of_the_time(clustered):
    generator = np.random.default_rng(6)
    runs, patients = 800, 80
    clusters = np.repeat(np.arange(patients), 3 if clustered else 1)
    rejected = covered = 0
    for _ in range(runs):
        labels = (generator.random(patients) < 0.4).astype(np.int64)[clusters]
        own = [labels + generator.normal(size=patients)[clusters] for _ in range(2)]
        a, b = (s + generator.normal(scale=0.5, size=len(labels)) for s in own)
        difference, p_value = delong_test(a, b, labels, clusters if clustered else None)
        rejected += p_value < 0.05
        covered += difference.low <= 0 <= difference.high
    assert 0.03 <= rejected / runs <= 0.075
    assert covered == runs - rejected


def test_difference_interval_and_p_agree():
    scores, labels, clusters = scored("balanced")
    difference, p_value = delong_test(scores[0], scores[1], labels, clusters)
    aucs, covariance = delong(scores[:2], labels, clusters=clusters)
    error = (covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) ** 0.5
    assert difference.value == pytest.approx(aucs[0] - aucs[1])
    assert difference.high - difference.low == pytest.approx(2 * 1.959964 * error, rel=1e-6)
    assert p_value == pytest.approx(2 * NormalDist().cdf(-abs(difference.value) / error))
    assert (difference.n, difference.n_clusters) == (150, len(np.unique(clusters)))
    reverse, same_p = delong_test(scores[1], scores[0], labels, clusters)
    assert reverse.low == pytest.approx(-difference.high)
    assert same_p == pytest.approx(p_value)


def test_the_same_ranking_gives_1_and_no_variance_gives_nan():
    scores, labels, clusters = scored("tied")
    difference, p_value = delong_test(scores[0], np.exp(scores[0]), labels, clusters)
    assert (difference.value, difference.low, difference.high, p_value) == (0, 0, 0, 1.0)
    difference, p_value = delong_test(labels.astype(float), -labels.astype(float), labels)
    assert difference.value == 1.0
    assert np.isnan(p_value)
    assert np.isnan(difference.low)
    difference, p_value = delong_test(scores[0], scores[1], np.zeros_like(labels))
    assert np.isnan(difference.value)
    assert np.isnan(p_value)


def test_seeds_are_averaged_as_the_full_covariance_says():
    scores, labels, clusters = scored("balanced")
    a, b = scores[:2], np.stack([scores[1], scores[2], scores[0]])
    difference, p_value = delong_test(a, b, labels, clusters)
    aucs, covariance = delong(np.concatenate([a, b]), labels, clusters=clusters)
    means = np.array([1 / 2, 1 / 2, -1 / 3, -1 / 3, -1 / 3])
    assert difference.value == pytest.approx(means @ aucs)
    error = (means @ covariance @ means) ** 0.5
    assert difference.high - difference.low == pytest.approx(2 * 1.959964 * error, rel=1e-6)
    assert p_value == pytest.approx(2 * NormalDist().cdf(-abs(difference.value) / error))
    same, one = delong_test(a, a[::-1], labels, clusters)
    assert (same.value, same.low, one) == (0, 0, 1.0)
    paired, _ = delong_test(a, scores[1:3], labels, clusters)
    each = delong(scores[:3], labels)[0]
    assert paired.spread == pytest.approx(np.std([each[0] - each[1], each[1] - each[2]], ddof=1))
    assert paired.n_seeds == 2


def test_similar_classifiers_do_not_cancel():
    n = 20_000
    labels = np.arange(n) % 2
    scores = labels + np.random.default_rng(0).normal(size=n)
    order = np.argsort(scores)
    first = next(i for i in range(n // 2, n) if labels[order[i]] != labels[order[i + 1]])
    swapped = scores.copy()
    swapped[order[first]], swapped[order[first + 1]] = scores[order[first + 1]], scores[order[first]]
    difference, p_value = delong_test(scores, swapped, labels)
    assert abs(difference.value) == pytest.approx(1 / (n / 2) ** 2, rel=1e-6)
    assert p_value == pytest.approx(2 * NormalDist().cdf(-(0.5**0.5)), abs=1e-3)  # one changed pair of components


def test_one_positive_has_no_variance_estimate():
    aucs, covariance = delong(np.array([[0.1, 0.7, 0.3]]), np.array([0, 1, 0]))
    assert aucs[0] == 1.0
    assert np.isnan(covariance[0, 0])
    scores, labels, _ = scored("balanced")
    assert np.isnan(delong(scores, labels, clusters=labels)[1]).all()  # all positives are of one patient


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(6, 40))
def test_order_and_monotone_change_do_not_matter(seed, n):
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 6, (2, n)).astype(float)
    labels = np.r_[0, 0, 1, 1, generator.integers(0, 2, n - 4)]
    clusters = generator.integers(0, n // 2, n)
    aucs, covariance = delong(scores, labels, clusters=clusters)
    order = generator.permutation(n)
    for changed in (delong(scores[:, order], labels[order], clusters=clusters[order]),
                    delong(np.exp(scores) - 3, labels, clusters=-clusters)):  # fmt: skip
        np.testing.assert_allclose(changed[0], aucs, atol=1e-12)
        np.testing.assert_allclose(changed[1], covariance, atol=1e-12)
    np.testing.assert_allclose(delong(-scores, labels, clusters=clusters)[1], covariance, atol=1e-12)


def test_wrong_inputs_are_sentences():
    scores, labels, clusters = scored("balanced")
    with pytest.raises(InputError, match="one row per classifier"):
        delong(scores[0], labels)
    with pytest.raises(InputError, match="finite"):
        delong(scores * np.nan, labels)
    with pytest.raises(InputError, match="same images"):
        delong_test(scores[0], scores[1, :-1], labels)
    with pytest.raises(InputError, match="clusters and labels"):
        delong(scores, labels, clusters=clusters[:-1])
