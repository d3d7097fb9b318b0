"""Brier score, ECE, the reliability table and temperature scaling: closed forms, loops and planted truths."""

from __future__ import annotations

import numpy as np
import pytest
import textbook
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_softmax

from trueread.errors import InputError
from trueread.stats import apply_temperature, fit_temperature, point, reliability_table, statistic, wilson_interval
from trueread.stats.calibration import ece


def test_brier_by_hand():
    p = np.array([[0.2, 0.8], [0.9, 0.1], [0.5, 0.5]])
    y = np.array([1, 0, 0])
    assert point("brier", p, y, task="binary") == pytest.approx((0.04 + 0.01 + 0.25) / 3)
    assert point("brier", p, y, task="multiclass") == pytest.approx(2 * (0.04 + 0.01 + 0.25) / 3)  # both classes
    labels = np.array([[0, 1], [np.nan, 0], [0, np.nan]], dtype=np.float32)
    assert point("brier", p, labels, task="multilabel") == pytest.approx(((0.04 + 0.25) / 2 + (0.04 + 0.01) / 2) / 2)


def test_ece_by_hand():
    p = np.array([0.02, 0.06, 0.98, 1.0, 0.0])  # bins of 1/15: {0.02, 0.06, 0.0} and {0.98, 1.0}
    y = np.array([0, 1, 1, 1, 0])
    expected = (abs(0.08 - 1) + abs(1.98 - 2)) / 5
    assert point("ece", np.stack([1 - p, p], axis=1), y, task="binary") == pytest.approx(expected)
    three = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    assert point("ece", three, np.array([0, 1, 2]), task="multiclass") == pytest.approx((0.4 + 0.4) / 3)


def test_bins_contain_their_lower_edge_and_the_last_one_both():
    p = np.array([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    table = reliability_table(np.stack([1 - p, p], axis=1), np.ones(6, dtype=np.int64), task="binary", bins=5)
    np.testing.assert_array_equal(table.n, [1, 1, 1, 1, 2])
    np.testing.assert_allclose(table.edges, [0, 0.2, 0.4, 0.6, 0.8, 1])
    np.testing.assert_allclose(table.predicted, [0, 0.2, 0.4, 0.6, 0.9])


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("kind", ["balanced", "imbalanced", "tied"])
def test_ece_follows_from_the_reliability_table(kind, bins):
    for task, (p, y) in {"binary": textbook.binary_data(kind), "ordinal": textbook.multiclass_data(kind)}.items():
        table = reliability_table(p, y, task=task, bins=bins)
        gaps = np.abs(table.predicted - table.observed)
        value = ece(p, y, task=task, bins=bins)(np.ones((1, len(y))))[0]
        assert value == pytest.approx(np.nansum(table.n * gaps) / len(y))
        confidence, right = (p[:, 1], y == 1) if task == "binary" else (p.max(1), p.argmax(1) == y)
        assert value == pytest.approx(textbook.ece(confidence, right, bins))
        assert table.n.sum() == len(y)


def test_reliability_table_pools_known_labels():
    p, y = textbook.multilabel_data()
    table = reliability_table(p, y, task="multilabel")
    assert table.n.sum() == np.sum(~np.isnan(y))
    filled = table.n > 0
    assert np.all(table.low[filled] <= table.observed[filled])
    assert np.all(table.observed[filled] <= table.high[filled])
    assert np.all(np.isnan(table.observed[~filled]) & np.isnan(table.low[~filled]))


def test_wilson_by_hand():
    low, high = wilson_interval(np.array([0.0, 0.5, 1.0]), np.array([10, 100, 10]))
    np.testing.assert_allclose(low, [0.0, 0.403832, 0.722467], atol=1e-6)  # z^2/(n+z^2) = 0.277533 for 0 of 10
    np.testing.assert_allclose(high, [0.277533, 0.596168, 1.0], atol=1e-6)


def test_a_calibrated_classifier_has_a_small_error_and_an_overconfident_one_a_large_one():
    generator = np.random.default_rng(0)
    p = generator.random(40_000)
    y = (generator.random(40_000) < p).astype(np.int64)
    calibrated = np.stack([1 - p, p], axis=1)
    assert point("ece", calibrated, y, task="binary") < 0.01
    assert point("brier", calibrated, y, task="binary") == pytest.approx(1 / 6, abs=0.003)  # the mean of p (1 - p)
    sure = (p > 0.5).astype(float)
    error = point("ece", np.stack([1 - sure, sure], axis=1), y, task="binary")
    assert error == pytest.approx(0.25, abs=0.01)  # certain, and right three times in four on either side


@pytest.mark.parametrize("truth", [0.3, 1.0, 2.5, 8.0])
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_temperature_recovers_what_was_planted(task, truth):
    generator = np.random.default_rng(1)
    n, k = 20_000, 2 if task == "binary" else 4
    honest = generator.normal(scale=2, size=(n, k))
    if task == "multilabel":
        labels = (generator.random((n, k)) < expit(honest)).astype(np.float32)
        labels[generator.random((n, k)) < 0.3] = np.nan
    else:
        chances = textbook.softmax(honest).cumsum(axis=1)
        labels = (generator.random((n, 1)) > chances[:, :-1]).sum(axis=1)
    found = fit_temperature((truth * honest).astype(np.float32), labels, task=task)
    assert found == pytest.approx(truth, rel=0.03)
    calibrated = apply_temperature(truth * honest, found, task=task)
    assert point("ece", calibrated, labels, task=task) < 0.015


def test_temperature_is_the_minimum_on_imbalanced_data():
    generator = np.random.default_rng(2)
    labels = (np.arange(1000) < 10).astype(np.int64)  # 99:1
    logits = np.stack([np.zeros(1000), generator.normal(6.0 * labels - 4.0, 3.0)], axis=1)
    grid = np.exp(np.linspace(np.log(0.05), np.log(20), 4001))
    losses = [-log_softmax(logits / t, axis=1)[np.arange(1000), labels].mean() for t in grid]
    assert fit_temperature(logits, labels, task="binary") == pytest.approx(grid[np.argmin(losses)], rel=2e-3)


def test_temperature_stays_at_one_where_the_data_cannot_say():
    generator = np.random.default_rng(3)
    logits = generator.normal(size=(50, 3))
    assert fit_temperature(logits, np.zeros(50, dtype=np.int64), task="multiclass") == 1.0
    labels = logits.argmax(axis=1)  # all right: the likelihood has no minimum
    assert fit_temperature(logits, labels, task="multiclass") == 1.0
    assert fit_temperature(logits, np.full((50, 3), np.nan), task="multilabel") == 1.0
    assert fit_temperature(logits, (logits > 0).astype(np.float32), task="multilabel") == 1.0
    wrong = logits.argmin(axis=1)  # all wrong: as flat as the range allows
    assert fit_temperature(logits, wrong, task="multiclass") == pytest.approx(20, rel=1e-4)


def test_temperature_is_stable_at_huge_logits():
    p = apply_temperature(np.array([[1e4, -1e4], [800.0, 0.0]]), 0.05, task="binary")
    np.testing.assert_array_equal(p, [[1, 0], [1, 0]])
    p = apply_temperature(np.array([[1e4, -1e4]]), 0.05, task="multilabel")
    np.testing.assert_array_equal(p, [[1, 0]])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 20))
def test_temperature_never_changes_the_order(seed, temperature):
    logits = np.random.default_rng(seed).normal(scale=3, size=(20, 4))
    softened = apply_temperature(logits, temperature, task="multiclass")
    np.testing.assert_array_equal(softened.argmax(1), logits.argmax(1))
    np.testing.assert_allclose(softened.sum(1), 1)
    if temperature > 1:
        assert np.all(softened.max(1) <= apply_temperature(logits, 1.0, task="multiclass").max(1) + 1e-12)


def test_wrong_inputs_are_sentences():
    logits = np.zeros((3, 2))
    with pytest.raises(InputError, match="positive number"):
        apply_temperature(logits, 0.0, task="binary")
    with pytest.raises(InputError, match="finite"):
        fit_temperature(logits * np.nan, np.array([0, 1, 1]), task="binary")
    with pytest.raises(InputError, match="one column per class"):
        fit_temperature(np.zeros(3), np.array([0, 1, 1]), task="binary")
    with pytest.raises(InputError, match="at least one bin"):
        reliability_table(logits + 0.5, np.array([0, 1, 1]), task="binary", bins=0)
    with pytest.raises(InputError, match="is not a task"):
        statistic("brier", logits + 0.5, np.array([0, 1, 1]), task="regression")  # type: ignore[arg-type]
