"""Choosing a threshold: what the rule promises holds on the data, also for rare classes, ties and saturated scores."""

from __future__ import annotations

import numpy as np
import pytest
import textbook
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, recall_score

from trueread.errors import InputError
from trueread.stats import choose_threshold


def best_by_search(scores: np.ndarray, labels: np.ndarray) -> float:
    edges = np.unique(np.r_[0.0, scores, 1.0])
    candidates = (edges[1:] + edges[:-1]) / 2
    return max(balanced_accuracy_score(labels, scores >= t) for t in candidates)


@pytest.mark.parametrize("kind", ["balanced", "imbalanced", "tied"])
def test_balanced_accuracy_is_the_best_there_is(kind):
    p, labels = textbook.binary_data(kind)
    threshold = choose_threshold(p[:, 1], labels, rule="balanced-accuracy")
    assert 0 < threshold < 1
    found = balanced_accuracy_score(labels, p[:, 1] >= threshold)
    assert found == pytest.approx(best_by_search(p[:, 1], labels), abs=1e-12)


def test_middle_of_the_plateau():
    assert choose_threshold(np.array([0.1, 0.2, 0.6, 0.9]), np.array([0, 0, 1, 1]), rule="balanced-accuracy") == 0.4
    # Two gaps are equally good, (0.1, 0.2) and (0.3, 0.9): the wider one wins.
    scores, labels = np.array([0.1, 0.2, 0.3, 0.9]), np.array([0, 1, 0, 1])
    assert choose_threshold(scores, labels, rule="balanced-accuracy") == pytest.approx(0.6)


def test_sensitivity_is_reached_and_no_higher_threshold_reaches_it():
    p, labels = textbook.binary_data("balanced")
    for share in ("0.5", "0.9", ".95", "1"):
        threshold = choose_threshold(p[:, 1], labels, rule=f"sensitivity >= {share}")
        assert recall_score(labels, p[:, 1] >= threshold) >= float(share)
        next_score = p[p[:, 1] >= threshold, 1].min()
        assert recall_score(labels, p[:, 1] > next_score) < float(share)
        lower = p[p[:, 1] < threshold, 1].max(initial=0)
        assert threshold == pytest.approx((lower + next_score) / 2)  # far from any score, so that no last bit decides


def test_seven_of_25_is_28_percent_in_spite_of_rounding():
    assert 0.28 * 25 > 7
    scores = np.r_[np.arange(1, 26) / 50, 0.99]
    labels = np.r_[np.ones(25, dtype=int), 0]
    assert choose_threshold(scores, labels, rule="sensitivity>=0.28") == pytest.approx(18.5 / 50)
    assert choose_threshold(scores, labels, rule="sensitivity>=0.2801") == pytest.approx(17.5 / 50)


def test_fixed_number_needs_no_classes():
    assert choose_threshold(np.array([0.2, 0.4]), np.array([0, 0]), rule="0.5") == 0.5
    assert choose_threshold(np.array([0.2, 0.4]), np.array([0, 0]), rule=" 0.125 ") == 0.125


def test_saturated_scores_stay_inside():
    scores, labels = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0, 1, 1, 1])
    assert choose_threshold(scores, labels, rule="balanced-accuracy") == 0.5
    threshold = choose_threshold(scores, labels, rule="sensitivity>=0.6")
    assert threshold < 1
    assert recall_score(labels, scores >= threshold) >= 0.6
    with pytest.raises(InputError, match="1 of 3 positive images score exactly 0"):
        choose_threshold(scores, labels, rule="sensitivity>=0.9")
    # Worse than chance at both ends: what remains is the gap between them.
    assert choose_threshold(np.array([0.0, 1.0]), np.array([1, 0]), rule="balanced-accuracy") == 0.5


def test_adjacent_floats_are_still_told_apart():
    low = 0.5
    scores = np.array([low, np.nextafter(low, 1)])
    threshold = choose_threshold(scores, np.array([0, 1]), rule="balanced-accuracy")
    np.testing.assert_array_equal(scores >= threshold, [False, True])
    threshold = choose_threshold(scores, np.array([0, 1]), rule="sensitivity>=0.9")
    np.testing.assert_array_equal(scores >= threshold, [False, True])
    almost = np.array([np.nextafter(1, 0), 1.0])
    assert choose_threshold(almost, np.array([0, 1]), rule="sensitivity>=0.9") < 1


def test_the_last_bit_of_a_score_does_not_decide():
    scores, labels = np.array([0.1, 0.3, 0.7, 0.9]), np.array([0, 0, 1, 1])
    threshold = choose_threshold(scores, labels, rule="sensitivity>=0.9")
    assert threshold == pytest.approx(0.5)
    for jittered in (np.nextafter(scores, 0), np.nextafter(scores, 1)):
        assert recall_score(labels, jittered >= threshold) == 1


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 25), st.integers(1, 12))
def test_properties(seed, n, levels):
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, levels + 1, n) / levels  # ties, zeros and ones
    labels = np.r_[0, 1, generator.integers(0, 2, n - 2)]
    threshold = choose_threshold(scores, labels, rule="balanced-accuracy")
    assert 0 < threshold < 1
    found = balanced_accuracy_score(labels, scores >= threshold)
    assert found == pytest.approx(best_by_search(scores, labels), abs=1e-12)
    order = generator.permutation(n)
    assert choose_threshold(scores[order], labels[order], rule="balanced-accuracy") == threshold


@pytest.mark.parametrize(
    "rule", ["youden", "sensitivity>=1.5", "sensitivity>=0", "0", "1", "nan", "specificity>=0.9", ""]
)
def test_unknown_rules_are_sentences(rule):
    with pytest.raises(InputError, match="is no rule for a threshold"):
        choose_threshold(np.array([0.2, 0.8]), np.array([0, 1]), rule=rule)


def test_wrong_inputs_are_sentences():
    with pytest.raises(InputError, match="found only positive ones"):
        choose_threshold(np.array([0.2, 0.8]), np.array([1, 1]), rule="balanced-accuracy")
    with pytest.raises(InputError, match="needs positive images"):
        choose_threshold(np.array([0.2, 0.8]), np.array([0, 0]), rule="sensitivity>=0.9")
    with pytest.raises(InputError, match="apply softmax"):
        choose_threshold(np.array([-2.0, 3.0]), np.array([0, 1]), rule="0.5")
    with pytest.raises(InputError, match="labels must be 0 or 1"):
        choose_threshold(np.array([0.2, 0.8]), np.array([0, 2]), rule="0.5")
    with pytest.raises(InputError, match="one entry per image"):
        choose_threshold(np.array([[0.2, 0.8]]), np.array([0]), rule="0.5")
