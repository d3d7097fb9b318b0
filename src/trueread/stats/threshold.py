"""Where to cut: the decision threshold of a binary classifier, chosen on validation data by a stated rule."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from trueread.errors import InputError
from trueread.stats.tasks import check_binary

_SENSITIVITY = re.compile(r"sensitivity\s*>=\s*(\d*\.?\d+)")
_RULES = "'balanced-accuracy', 'sensitivity>=0.9' (any share in (0, 1]) or a number in (0, 1) such as '0.5'"


def choose_threshold(scores: NDArray, labels: NDArray, *, rule: str) -> float:
    """The threshold in (0, 1); an image is called positive when its score is at least the threshold.

    scores: float [n] in [0, 1], probability of the positive class. labels: [n] in {0, 1}.
    rule: "balanced-accuracy", the middle of the gap between neighbouring scores that maximises it (which also
        maximises Youden's J; among equally good gaps the widest, then the lowest);
        "sensitivity>=0.9", the highest gap that reaches this sensitivity: the middle between the score of a positive
        image and the next lower score, so that no last bit of a score decides about an image;
        "0.5" or another number in (0, 1), that number whatever the data.
    Raises InputError for an unknown rule, for data that lack a class the rule needs, and for a sensitivity that no
    threshold above 0 reaches.
    """
    scores, positive = check_binary(scores, labels)
    if scores.ndim != 1 or scores.min() < 0 or scores.max() > 1:
        raise InputError("scores must be probabilities [n] in 0..1 to choose a threshold; apply softmax first.")
    rule = rule.strip()
    if rule == "balanced-accuracy":
        return _best_balanced_accuracy(scores, positive)
    matched = _SENSITIVITY.fullmatch(rule)
    if matched and 0 < float(matched[1]) <= 1:
        return _highest_reaching(scores, positive, sensitivity=float(matched[1]), rule=rule)
    try:
        fixed = float(rule)
    except ValueError:
        fixed = float("nan")
    if not 0 < fixed < 1:
        raise InputError(f"'{rule}' is no rule for a threshold; use {_RULES}.")
    return fixed


def _best_balanced_accuracy(scores: NDArray, positive: NDArray) -> float:
    if positive.all() or not positive.any():
        raise InputError(
            "the rule 'balanced-accuracy' needs positive and negative images; found only "
            f"{'positive' if positive.all() else 'negative'} ones; choose the threshold on other data, or use '0.5'."
        )
    distinct = np.unique(scores)
    # Gap g lies below distinct[g]: there, the positives scoring at least distinct[g] are found.
    missed = np.searchsorted(np.sort(scores[positive]), distinct, side="left")
    cleared = np.searchsorted(np.sort(scores[~positive]), distinct, side="left")
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    # 2 P N times (balanced accuracy - 1/2), in whole numbers: equal gaps tie exactly, free of rounding.
    gain = np.append(cleared * n_positive - missed * n_negative, 0)  # above the highest score none is found
    lower, upper = np.append(0.0, distinct), np.append(distinct, 1.0)
    # A score of exactly 0 or 1 leaves no threshold in (0, 1) below or above it.
    reachable = (lower < upper) & (lower < np.nextafter(1, 0))
    best = int(np.where(reachable & (gain == gain[reachable].max()), upper - lower, -1.0).argmax())
    return _middle(float(lower[best]), float(upper[best]))


def _highest_reaching(scores: NDArray, positive: NDArray, *, sensitivity: float, rule: str) -> float:
    of_positives = np.sort(scores[positive])[::-1]
    if len(of_positives) == 0:
        raise InputError(f"the rule '{rule}' needs positive images; found none; choose the threshold on other data.")
    needed = int(np.ceil(sensitivity * len(of_positives) - 1e-9))  # 0.9 of 10 is 9, whatever the rounding
    threshold = float(of_positives[needed - 1])
    if threshold == 0:
        raise InputError(
            f"no threshold reaches '{rule}': {np.sum(of_positives == 0)} of {len(of_positives)} positive images score "
            "exactly 0; ask for less, or use a classifier that does not saturate."
        )
    lower = scores[scores < threshold].max(initial=0.0)
    return min(_middle(float(lower), threshold), float(np.nextafter(1, 0)))


def _middle(lower: float, upper: float) -> float:
    """The threshold in the middle of a gap. Between two adjacent floats the middle rounds to one of them; the upper one
    still calls the same images.
    """
    middle = (lower + upper) / 2
    return middle if lower < middle else upper
