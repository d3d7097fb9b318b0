"""How many errors the order of doubt would have found: labels of this very cohort made wrong, and looked for again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trueread.audit.finding import Better, Figure, Measure
from trueread.audit.label_looked import Looked
from trueread.audit.label_ranks import RANKINGS, TITLES, Planted, found_among_first
from trueread.stats import Statistic, paired_difference
from trueread.stats.ranking import binary_auroc

LOOKED_AT = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)  # shares of the images, of the recovery table


@dataclass(frozen=True, eq=False)
class Power:
    """What became of planted errors. scores: by ranking, of the cohort with them."""

    looked: Looked
    planted: Planted
    scores: dict[str, NDArray[np.float64]]

    def auroc(self, ranking: str) -> Statistic:
        return binary_auroc(self.scores[ranking], self.planted.wrong)

    def hits(self, first: int, ranking: str = "combined") -> float:
        """The share of the planted errors among the first so many images."""
        return float(
            found_among_first(self.scores[ranking], self.planted.wrong)[min(first, len(self.planted.wrong)) - 1]
        )

    def measure(self) -> Measure:
        estimate = self.looked.interval(self.auroc("combined"))
        what = "AUROC of the order, for labels that were made wrong and the networks trained again"
        return Measure("Planted errors told from the other labels", estimate, Better.HIGHER, what)

    def table(self) -> pd.DataFrame:
        """Per share of the images looked at: how many that are, and the share of the planted errors among them."""
        n = len(self.planted.wrong)
        firsts = [max(1, round(share * n)) for share in LOOKED_AT]
        found = {TITLES[r]: [self.hits(first, r) for first in firsts] for r in RANKINGS}
        return pd.DataFrame({"first images": firsts, **found})

    def rankings(self) -> pd.DataFrame:
        """Per ranking: AUROC for planted errors, and the share of them among as many images as there are errors."""
        k = int(self.planted.wrong.sum())
        rows = [
            {"order": TITLES[r], "AUROC": self.looked.interval(self.auroc(r)), f"found in first {k}": self.hits(k, r)}
            for r in RANKINGS
        ]
        truth = self.looked.cohort.truth
        if truth is not None and "flipped" in truth and 0 < truth["flipped"].sum() < len(truth):
            wrong = truth["flipped"].to_numpy(bool)
            for row, score in zip(rows, self.looked.scores.values(), strict=True):
                row["AUROC, errors known from the truth"] = self.looked.interval(binary_auroc(score, wrong))
        return pd.DataFrame(rows)

    def gain(self) -> str:
        """Whether the combined order is better than its best part, in words."""
        best = max(RANKINGS[1:], key=lambda r: self.looked.interval(self.auroc(r)).value)
        clusters = self.looked.cohort.patient_codes()
        found = paired_difference(
            self.auroc("combined"), self.auroc(best), clusters, resamples=self.looked.resamples, seed=self.looked.seed
        ).difference
        return (
            f"The order is that of the mean rank of three; against the best of them here ({TITLES[best]}) its AUROC "
            f"for planted errors differs by {found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})."
        )

    def figure(self) -> Figure:
        """The share of planted errors found over the share of images looked at, one line per ranking."""
        n = len(self.planted.wrong)
        at = np.unique(np.linspace(0, n, 101).round().astype(int))
        rows = [
            {"order": TITLES[r], "looked at": float(k / n), "found": float(curve[k - 1]) if k else 0.0}
            for r in RANKINGS
            for curve in [found_among_first(self.scores[r], self.planted.wrong)]
            for k in at
        ]
        return Figure(
            "recovery", "Planted errors found", "line", pd.DataFrame(rows), x="looked at", y="found", group="order",
            x_label="share of the images looked at, the most doubtful first", y_label="share of the planted errors",
            diagonal=True, caption="The line of equality is an order at random.",
        )  # fmt: skip
