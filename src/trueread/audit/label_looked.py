"""Every image of a cohort with its label doubted: which are suspected, why, and in which order to look at them."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trueread.audit.finding import Better, Measure
from trueread.audit.label_ranks import doubts, rank_share
from trueread.audit.strip import Panel, Strip
from trueread.cohort.check.copies import copies_of
from trueread.cohort.check.label_conflicts import disagree
from trueread.cohort.check.likeness import COPY
from trueread.cohort.cohort import Cohort
from trueread.cohort.showing import slice_to_show
from trueread.stats import Estimate, Statistic, apply_temperature, fit_temperature, mean_over_seeds, weighted_mean
from trueread.stats.confident import other_class, suspects
from trueread.training.out_of_fold import OutOfFold

SHOWN, IN_A_ROW = 12, 6  # in the gallery
SUSPECTS = "suspects"  # the list, as the run folder has it
COLUMNS = ["id", "split", "given", "suggested", "p_given", "p_suggested", "doubt", "reason", "decision", "label"]


class Looked:
    """What is said of every image of a cohort.

    conflicts: by row, the row of a copy with another label. probabilities: float [n,K], calibrated against the labels
    as they are. suspected: bool [n]. resamples, seed: of intervals.
    """

    def __init__(self, cohort: Cohort, found: OutOfFold, *, resamples: int, seed: int) -> None:
        self.cohort, self.found, self.resamples, self.seed = cohort, found, resamples, seed
        self.labels, self.conflicts = cohort.labels, conflicts_of(cohort)
        logits = np.log(np.maximum(found.probabilities, 1e-12))
        temperature = fit_temperature(logits, self.labels, task=cohort.task)
        self.probabilities = apply_temperature(logits, temperature, task=cohort.task)
        self.other = other_class(self.labels, found.probabilities)
        self.suspected = suspects(self.labels, found.probabilities)
        self.suspected[list(self.conflicts)] = True

    @cached_property
    def scores(self) -> dict[str, NDArray[np.float64]]:
        """By ranking, see `doubts`."""
        return doubts(self.labels, self.found)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """int64 [n]: rows, the most doubtful first, those with a copy under another label before all others."""
        copied = np.zeros(len(self.labels), bool)
        copied[list(self.conflicts)] = True
        return np.lexsort((-self.scores["combined"], ~copied))

    def interval(self, statistic: Statistic) -> Estimate:
        """A statistic with its interval over patients."""
        return mean_over_seeds([statistic], self.cohort.patient_codes(), resamples=self.resamples, seed=self.seed)

    def measure(self) -> Measure:
        share = self.interval(weighted_mean(self.suspected.astype(np.float64)))
        what = "share of the images whose label is suspected: by confident learning, or because a copy has another one"
        return Measure("Labels that look wrong", share, Better.LOWER, what)

    def suggestion(self, row: int) -> int:
        """The class that an image looks like beside its own: that of its copy, or the most probable."""
        return int(self.labels[self.conflicts[row]] if row in self.conflicts else self.other[row])

    def table(self) -> pd.DataFrame:
        """A row for every image, in the order in which they are worth looking at; decisions are still to be made."""
        ids = self.cohort.table["id"].astype(str).to_numpy()
        splits, classes, p = self.cohort.table["split"].to_numpy(), self.cohort.classes, self.probabilities
        share = rank_share(self.scores["combined"])
        rows = []
        for row in self.order:
            said = {"suggested": "", "p_suggested": np.nan, "reason": ""}
            if self.suspected[row]:
                k = self.suggestion(row)
                copied = self.conflicts.get(row)
                reason = f"looks like {classes[k]}" if copied is None else f"{ids[copied]} is a copy of it"
                said = {"suggested": classes[k], "p_suggested": round(float(p[row, k]), 4), "reason": reason}
            given = int(self.labels[row])
            known = {
                "id": ids[row],
                "split": splits[row],
                "given": classes[given],
                "p_given": round(float(p[row, given]), 4),
            }
            rows.append(known | said | {"doubt": round(float(share[row]), 4), "decision": "", "label": ""})
        return pd.DataFrame(rows)[COLUMNS]

    def strips(self) -> list[Strip]:
        """The first suspects of the list, with the given and the suggested label."""
        rows = [int(r) for r in self.order if self.suspected[r]][:SHOWN]
        rows = rows[: len(rows) // IN_A_ROW * IN_A_ROW] if len(rows) > IN_A_ROW else rows
        if not rows:
            return []
        panels = [self._panel(row) for row in rows]
        caption = (
            "The most doubtful labels, in the order of the list. Below each picture what it is labelled, and what "
            "networks that never saw its patient take it for, with their calibrated probability."
        )
        lines = [panels[i : i + IN_A_ROW] for i in range(0, len(panels), IN_A_ROW)]
        return [Strip(SUSPECTS, "Labels that look wrong", caption, lines, white=self.cohort.white)]

    def _panel(self, row: int) -> Panel:
        cohort, k = self.cohort, self.suggestion(row)
        image = np.array(cohort.images[row])
        if cohort.is_volume:
            mask = None if cohort.masks is None else cohort.masks[row]
            image = image[:, slice_to_show(None, mask, depth=cohort.spatial[0])]
        said = f"{cohort.classes[k]} {round(100 * self.probabilities[row, k])} %"
        if row in self.conflicts:
            said = f"a copy is {cohort.classes[k]}"
        return Panel(image, f"{cohort.classes[self.labels[row]]}? {said}")


def conflicts_of(cohort: Cohort) -> dict[int, int]:
    """By row the row of a copy that has another label, of both sides of each such pair; the most alike copy counts."""
    pairs = copies_of(cohort).pairs
    pairs = pairs[(pairs["alike"] >= COPY)]
    pairs = pairs[disagree(cohort, pairs)]
    found: dict[int, int] = {}
    for row, other in pairs[["row", "other"]].itertuples(index=False, name=None):
        found.setdefault(int(row), int(other))
        found.setdefault(int(other), int(row))
    return found
