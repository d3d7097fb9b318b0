"""Have the splits the same shares of each class? Tested by exchanging patients between them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trueread.cohort.check.targets import MINIMUM_PATIENTS
from trueread.cohort.cohort import SPLITS, Cohort
from trueread.stats.permutation import Seed

ODDS_APART = 1.5  # ratio of the odds of a class in two splits, below which nobody need care
MOST_KINDS = 16  # of patients by their share of a class, among whom the lots are drawn


def presence(cohort: Cohort) -> NDArray[np.float32]:
    """float32 [N,K]: whether an image is of a class, or has a label; nan where that is unknown."""
    if cohort.task == "multilabel":
        return cohort.labels
    return (cohort.labels[:, None] == np.arange(cohort.n_classes)).astype(np.float32)


@dataclass(frozen=True)
class Compared:
    """A class in train and in another split: its share there when each patient counts once, and the p-value of the
    difference, not adjusted; 1 where the difference is too small to be tested.
    """

    name: str
    split: str
    in_train: float
    in_other: float
    p_value: float = 1.0

    @property
    def odds_ratio(self) -> float:
        """Of the larger odds to the smaller; infinite for a share of 0 or 1."""
        low, high = sorted((self.in_train, self.in_other))
        return high * (1 - low) / (low * (1 - high)) if low > 0 and high < 1 else float("inf")

    @property
    def is_apart(self) -> bool:
        return self.odds_ratio >= ODDS_APART


def compared_shares(cohort: Cohort, *, permutations: int, seed: int) -> list[Compared]:
    """Every class in val and in test against train, where it is in both; of two classes the second."""
    member, codes = presence(cohort), cohort.patient_codes()
    split = cohort.table["split"].to_numpy()
    chosen = [1] if cohort.task == "binary" else range(cohort.n_classes)
    found = []
    for other in SPLITS[1:]:
        here = np.flatnonzero((split == "train") | (split == other))
        is_other = split[here] == other
        for k in chosen:
            known = ~np.isnan(member[here, k])
            whose, has = codes[here[known]], member[here[known], k]
            n_images = np.bincount(whose)
            asked = np.flatnonzero(n_images)  # patients
            shares = np.bincount(whose, weights=has)[asked] / n_images[asked]
            there = np.bincount(whose, weights=is_other[known])[asked] > 0
            enough = min(there.sum(), (~there).sum()) >= MINIMUM_PATIENTS
            if not (enough and shares[there].any() and shares[~there].any()):
                continue
            one = Compared(cohort.classes[k], other, float(shares[~there].mean()), float(shares[there].mean()))
            if one.is_apart:
                stream = [seed, k, *f"class-balance {other}".encode()]
                one = replace(one, p_value=exchanged(shares, there, permutations=permutations, seed=stream))
            found.append(one)
    return found


def exchanged(shares: NDArray, there: NDArray[np.bool_], *, permutations: int, seed: Seed) -> float:
    """Two-sided p-value of the link between patients' shares of a class and the split that they are in: twice that of
    the side on which the sum of the shares in the other split lies. With shares of 0 and 1 it is Fisher's exact test.

    shares: float [G] in [0,1], of each patient's images. there: bool [G], whether the patient is in the other split.
    A patient is one row and so they can be exchanged as they are: the statistic of `linked`, which makes up for
    patients of many sizes, would make it impossible to see a rare class. Patients of one share are alike: a permutation
    is a draw of how many of each kind are there (multivariate hypergeometric), and 10,000 take no time.
    """
    values, kind, counts = np.unique(_few_values(shares), return_inverse=True, return_counts=True)
    rng = np.random.default_rng(seed)
    drawn = rng.multivariate_hypergeometric(counts, int(there.sum()), size=permutations) @ values
    observed = np.bincount(kind, weights=there, minlength=len(values)) @ values
    near = 1e-9 * len(shares)  # sums in another order
    at_least, at_most = (drawn >= observed - near).sum(), (drawn <= observed + near).sum()
    return min(2 * float(1 + min(at_least, at_most)) / (1 + permutations), 1.0)


def _few_values(shares: NDArray) -> NDArray[np.float64]:
    """The same numbers, or the means of up to 16 groups of neighbours where more than 16 differ."""
    if len(np.unique(shares)) <= MOST_KINDS:
        return shares
    edges = np.unique(np.quantile(np.unique(shares), np.linspace(0, 1, MOST_KINDS + 1)[1:-1]))
    group = np.searchsorted(edges, shares)
    return (np.bincount(group, weights=shares) / np.maximum(np.bincount(group), 1))[group]
