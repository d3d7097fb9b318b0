"""Features: directions by hand, votes by a loop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trueread.stats.embedding import effective_rank, nearest_probabilities, spread_of_dimensions


def drawn(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def test_effective_rank_counts_even_directions():
    q, _ = np.linalg.qr(drawn(100, 5) - drawn(100, 5).mean(axis=0))
    q = q - q.mean(axis=0)
    for used in (1, 3, 5):
        x = np.zeros((100, 5))
        x[:, :used] = q[:, :used]
        assert effective_rank(x) == pytest.approx(used, rel=0.02)
    assert effective_rank(np.full((50, 8), 3.0)) == 1.0
    values = np.array([3.0, 1.0])
    share = values / values.sum()
    base, _ = np.linalg.qr(np.array([[1.0, 1], [-1, 1], [1, -1], [-1, -1]]))
    assert effective_rank(base * values) == pytest.approx(math.exp(-(share * np.log(share)).sum()))


def test_spread_is_one_of_even_features_and_zero_of_equal_ones():
    assert spread_of_dimensions(drawn(4000, 64)) == pytest.approx(1, abs=0.02)
    assert spread_of_dimensions(np.ones((10, 8))) == pytest.approx(0, abs=1e-9)


def test_votes_by_a_loop():
    bank, asked = drawn(30, 6), drawn(7, 6, seed=1)
    labels = np.arange(30) % 3
    found = nearest_probabilities(bank, labels, asked, n_classes=3, k=5)
    for i, x in enumerate(asked):
        cosines = bank @ x / np.linalg.norm(bank, axis=1) / np.linalg.norm(x)
        near = np.argsort(-cosines)[:5]
        votes = np.zeros(3)
        for j in near:
            votes[labels[j]] += math.exp(cosines[j] / 0.07)
        assert found[i] == pytest.approx(votes / votes.sum())


def test_a_small_bank_votes_with_all_it_has():
    found = nearest_probabilities(np.eye(3), np.arange(3), np.eye(3), n_classes=3, k=20)
    assert (found.argmax(axis=1) == np.arange(3)).all()
