"""Slow, plain-loop versions of everything in the room `stats`, written from the definitions, and data to try them on.

Nothing here is shared with the package: an error would have to be made twice to stay hidden.
"""

from __future__ import annotations

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def binary_data(kind: str, n: int = 240) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [n,2] and labels [n]: balanced, imbalanced (99:1), tied (one decimal) or constant scores."""
    generator = np.random.default_rng(len(kind))
    share = 0.01 if kind == "imbalanced" else 0.5
    labels = np.zeros(n, dtype=np.int64)
    labels[: max(2, round(share * n))] = 1
    generator.shuffle(labels)
    p = 1 / (1 + np.exp(-generator.normal(1.5 * labels - 0.75)))
    if kind == "tied":
        p = p.round(1)
    if kind == "constant":
        p = np.full(n, 0.5)
    return np.stack([1 - p, p], axis=1), labels


def multiclass_data(kind: str, n: int = 240, k: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [n,4] and labels [n]: balanced, imbalanced (first class 97 %), tied, or class 2 never true."""
    generator = np.random.default_rng(10 + len(kind))
    labels = generator.integers(0, k, n)
    if kind == "imbalanced":
        labels = np.where(generator.random(n) < 0.97, 0, labels)
        labels[:k] = np.arange(k)
    if kind == "absent":
        labels[labels == 2] = 0
    probabilities = softmax(generator.normal(size=(n, k)) + 1.2 * np.eye(k)[labels])
    if kind == "tied":
        probabilities = (probabilities * 5).round() + 0.25
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    return probabilities, labels.astype(np.int64)


def multilabel_data(n: int = 240, k: int = 4, *, unknown: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [n,4] and labels float32 [n,4] with unknown ones; the last label is true in about 3 % of images."""
    generator = np.random.default_rng(7)
    labels = (generator.random((n, k)) < np.array([0.5, 0.3, 0.2, 0.03])[:k]).astype(np.float32)
    labels[0], labels[1] = 1, 0
    probabilities = 1 / (1 + np.exp(-generator.normal(1.5 * labels - 0.75)))
    hidden = generator.random((n, k)) < unknown
    hidden[:2] = False
    labels[hidden] = np.nan
    return probabilities.round(2), labels


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    won = 0.0
    for a in scores[positive]:
        for b in scores[~positive]:
            won += 1.0 if a > b else 0.5 if a == b else 0.0
    return won / (positive.sum() * (~positive).sum())


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    area, recall = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        called = scores >= threshold
        hits = (called & positive).sum()
        area += (hits / positive.sum() - recall) * hits / called.sum()
        recall = hits / positive.sum()
    return float(area)


def sensitivity_at_specificity(scores: np.ndarray, positive: np.ndarray, specificity: float) -> float:
    best = 0.0
    for threshold in [*set(scores.tolist()), np.inf]:
        called = scores >= threshold
        if (~called & ~positive).sum() / (~positive).sum() >= specificity - 1e-12:
            best = max(best, (called & positive).sum() / positive.sum())
    return float(best)


def recalls(decided: np.ndarray, labels: np.ndarray, k: int) -> list[float]:
    return [float(np.mean(decided[labels == c] == c)) for c in range(k) if np.any(labels == c)]


def macro_f1(decided: np.ndarray, labels: np.ndarray, k: int) -> float:
    found = []
    for c in range(k):
        tp = np.sum((decided == c) & (labels == c))
        wrong = np.sum((decided == c) != (labels == c))
        if tp + wrong > 0:
            found.append(2 * tp / (2 * tp + wrong))
    return float(np.mean(found))


def quadratic_kappa(decided: np.ndarray, labels: np.ndarray) -> float:
    """1 - mean squared distance of the pairs as they are, over that of all pairs of any truth with any decision."""
    observed = np.mean((decided - labels) ** 2)
    by_chance = np.mean([(d - y) ** 2 for d in decided for y in labels])
    return float(1 - observed / by_chance)


def ece(confidence: np.ndarray, came_true: np.ndarray, bins: int = 15) -> float:
    edges = [b / bins for b in range(bins + 1)]
    error = 0.0
    for b in range(bins):
        inside = [
            i for i, c in enumerate(confidence) if edges[b] <= c < edges[b + 1] or (b == bins - 1 and c == edges[bins])
        ]
        if inside:
            error += len(inside) / len(confidence) * abs(np.mean(confidence[inside]) - np.mean(came_true[inside]))
    return float(error)


def clustered_auroc_covariance(scores: np.ndarray, labels: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Obuchowski's 1997 covariance [M,M], component by component in O(n^2), with her sums S10, S01 and S11."""
    patients = sorted(set(clusters.tolist()))
    m_rows, n_rows = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    big_m, big_n, total = len(m_rows), len(n_rows), len(patients)
    x, y = np.zeros((len(scores), total)), np.zeros((len(scores), total))
    for classifier, s in enumerate(scores):
        area = auroc(s, labels == 1)
        for i, patient in enumerate(patients):
            for row in m_rows[clusters[m_rows] == patient]:
                x[classifier, i] += np.mean([(s[row] > s[o]) + 0.5 * (s[row] == s[o]) for o in n_rows]) - area
            for row in n_rows[clusters[n_rows] == patient]:
                y[classifier, i] += np.mean([(s[o] > s[row]) + 0.5 * (s[row] == s[o]) for o in m_rows]) - area
    i10, i01 = len(set(clusters[m_rows].tolist())), len(set(clusters[n_rows].tolist()))
    covariance = np.zeros((len(scores), len(scores)))
    for a in range(len(scores)):
        for b in range(len(scores)):
            s10 = i10 / ((i10 - 1) * big_m) * sum(x[a] * x[b])
            s01 = i01 / ((i01 - 1) * big_n) * sum(y[a] * y[b])
            s11 = total / (total - 1) * (sum(x[a] * y[b]) + sum(x[b] * y[a]))
            covariance[a, b] = s10 / big_m + s01 / big_n + s11 / (big_m * big_n)
    return covariance
