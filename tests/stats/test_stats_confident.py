"""Confident learning: by hand, against a slow textbook computation, and on planted errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trueread.errors import InputError
from trueread.stats.confident import (
    confident_counts,
    doubt,
    looks_like,
    noise_joint,
    noise_rate,
    other_class,
    suspects,
    wrong_among_surest,
)

# two classes; thresholds: class 0 (.9 + .8 + .1) / 3 = .6, class 1 (.7 + .9) / 2 = .8
LABELS = np.array([0, 0, 0, 1, 1])
P1 = np.array([0.1, 0.2, 0.9, 0.7, 0.9])
P = np.stack([1 - P1, P1], axis=1)


def drawn(n: int = 600, k: int = 4, wrong: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Given labels, probabilities that know the true one rather well, and which labels are wrong."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, k, n)
    flipped = rng.random(n) < wrong
    labels = np.where(flipped, (true + rng.integers(1, k, n)) % k, true)
    logits = rng.normal(0, 1, (n, k)) + 3 * np.eye(k)[true]
    return labels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), flipped


def textbook_counts(labels: np.ndarray, p: np.ndarray) -> np.ndarray:
    k = p.shape[1]
    limits = [np.mean([p[i, j] for i in range(len(p)) if labels[i] == j]) for j in range(k)]
    counts = np.zeros((k, k), int)
    for i in range(len(p)):
        reached = [j for j in range(k) if p[i, j] >= limits[j] - 1e-6]
        if reached:
            counts[labels[i], max(reached, key=lambda j, i=i: p[i, j])] += 1
    return counts


class TestByHand:
    def test_counts(self):
        assert looks_like(LABELS, P).tolist() == [0, 0, 1, -1, 1]  # the fourth reaches neither .6 nor .8
        assert confident_counts(LABELS, P).tolist() == [[2, 1], [0, 1]]

    def test_joint_and_rate(self):
        assert np.allclose(noise_joint(LABELS, P), [[0.4, 0.2], [0.0, 0.4]])
        assert noise_rate(LABELS, P) == pytest.approx(0.2)

    def test_the_one_that_contradicts_its_label_is_suspected(self):
        assert suspects(LABELS, P).tolist() == [False, False, True, False, False]

    def test_doubt_is_the_margin_of_the_best_other_class(self):
        assert np.allclose(doubt(LABELS, P), [0.1, 0.2, 0.9, 0.3, 0.1])
        assert other_class(LABELS, P).tolist() == [1, 1, 1, 0, 0]


class TestAgainstATextbook:
    @given(st.integers(0, 1000), st.integers(2, 5))
    def test_counts(self, seed, k):
        labels, p, _ = drawn(60, k, seed=seed)
        labels[:k] = range(k)
        assert (confident_counts(labels, p) == textbook_counts(labels, p)).all()

    @given(st.integers(0, 1000))
    def test_the_order_of_samples_does_not_matter(self, seed):
        labels, p, _ = drawn(80, 3, seed=seed)
        order = np.random.default_rng(seed).permutation(len(labels))
        assert (suspects(labels, p)[order] == suspects(labels[order], p[order])).all()
        assert noise_rate(labels, p) == pytest.approx(noise_rate(labels[order], p[order]))

    def test_cleanlab_finds_the_same(self):
        cleanlab = pytest.importorskip("cleanlab", reason="cleanlab is not installed")
        labels, p, _ = drawn(2000, 5)
        joint = cleanlab.count.compute_confident_joint(labels, p, calibrate=False)
        assert (confident_counts(labels, p) == joint).mean() > 0.9  # its diagonal is filled up to at least 1
        theirs = cleanlab.filter.find_label_issues(labels, p, filter_by="prune_by_noise_rate")
        assert (theirs == suspects(labels, p)).mean() > 0.995


class TestPlanted:
    @pytest.mark.parametrize("wrong", [0.0, 0.1, 0.3])
    def test_the_rate_is_found(self, wrong):
        labels, p, _ = drawn(4000, 4, wrong)
        assert noise_rate(labels, p) == pytest.approx(wrong, abs=0.06)

    @pytest.mark.parametrize("wrong", [0.0, 0.1, 0.4])
    def test_the_surest_tell_the_rate_of_a_hard_task_too(self, wrong):
        rng = np.random.default_rng(0)
        true, x = rng.integers(0, 2, 8000), rng.normal(0, 1, 8000)
        x += true
        p1 = 1 / (1 + np.exp(-(x - 0.5)))  # right to the point, and right of 69 % only
        labels = np.where(rng.random(8000) < wrong, 1 - true, true)
        p = np.stack([1 - p1, p1], axis=1)
        assert noise_rate(true, p) > 0.2  # contradicts right labels
        hard = 1 - np.sort(p.max(axis=1))[-800:].mean()  # errors among the surest tenth
        assert hard < 0.13
        assert wrong_among_surest(labels, p) == pytest.approx(wrong + (1 - 2 * wrong) * hard, abs=0.05)

    def test_the_surest_by_hand(self):
        p = np.tile([[0.9, 0.1], [0.4, 0.6]], (50, 1))
        labels = np.tile([0, 0], 50)
        labels[:10] = 1  # five of the fifty sure ones, and five of the others
        assert wrong_among_surest(labels, p) == pytest.approx(5 / 50)

    def test_suspects_are_the_wrong_ones(self):
        labels, p, flipped = drawn(4000, 4, 0.2)
        found = suspects(labels, p)
        assert (found & flipped).sum() / found.sum() > 0.8
        assert (found & flipped).sum() / flipped.sum() > 0.8

    def test_a_rare_class_is_not_emptied(self):
        labels, p, _ = drawn(2000, 2, 0.0)
        labels[labels == 1] = 0
        labels[:3], p[:3] = 1, [0.99, 0.01]
        assert 0 < (suspects(labels, p) & (labels == 1)).sum() < 3

    def test_a_class_that_nobody_has_changes_nothing(self):
        labels, p, _ = drawn(500, 3, 0.2)
        wider = np.column_stack([p, np.zeros(len(p))])
        assert (suspects(labels, wider) == suspects(labels, p)).all()
        assert noise_rate(labels, wider) == pytest.approx(noise_rate(labels, p))


@pytest.mark.parametrize(
    ("labels", "p", "message"),
    [
        ([0, 1], [[0.5, 0.5]], r"labels \[n\] and probabilities"),
        ([0], [[1.0]], "at least two classes"),
        ([0, 2], [[0.5, 0.5]] * 2, r"integers in 0\.\.1"),
        ([0.0, 1.0], [[0.5, 0.5]] * 2, "integers"),
        ([0, 1], [[0.5, 0.6]] * 2, "sum to 1"),
        ([0, 1], [[np.nan, 1.0]] * 2, "sum to 1"),
    ],
)
def test_slips_are_refused(labels, p, message):
    with pytest.raises(InputError, match=message):
        suspects(np.array(labels), np.array(p))
