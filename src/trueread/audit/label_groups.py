"""Where suspected labels gather: by class and attribute, and whether a minority is doubted more than the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trueread.audit.subgroups import MAX_GROUPS, as_categories, nearly_identifies
from trueread.cohort.cohort import Cohort
from trueread.stats import Estimate, Statistic, on_rows, weighted_mean
from trueread.stats.bootstrap import Values, Weights

FEWEST = 20  # images of a group that is compared
GATHERED = 1.5  # times the share of all others, from which suspects gather in a group
CLASS = "label"


@dataclass(frozen=True, eq=False)
class Group:
    """Images that share a value. member: bool [n]. share: of suspects in it; more: than elsewhere."""

    attribute: str
    value: str
    member: NDArray[np.bool_]
    share: Estimate
    more: Estimate
    elsewhere: float

    @property
    def is_minority(self) -> bool:
        return bool(self.member.mean() < 0.5)

    @property
    def gathers(self) -> bool:
        return self.more.low > 0 and self.share.value >= GATHERED * self.elsewhere


class Groups:
    """The suspects of a cohort by group. suspected: bool [n]. interval: an estimate with its interval over patients."""

    def __init__(self, cohort: Cohort, suspected: NDArray[np.bool_], interval: Callable[[Statistic], Estimate]) -> None:
        self.suspected, self.interval = suspected.astype(np.float64), interval
        self.groups = [self._group(*found) for found in _members(cohort)]

    def _group(self, attribute: str, value: str, member: NDArray[np.bool_]) -> Group:
        inside, outside = (self._share(rows) for rows in (member, ~member))

        def difference(weights: Weights) -> Values:
            return inside(weights) - outside(weights)

        elsewhere = float(self.suspected[~member].mean())
        return Group(attribute, value, member, self.interval(inside), self.interval(difference), elsewhere)

    def _share(self, member: NDArray[np.bool_]) -> Statistic:
        rows = np.flatnonzero(member)
        return on_rows(weighted_mean(self.suspected[rows]), rows)

    def table(self) -> pd.DataFrame:
        """Per group: images, share that is suspected, and how much more that is than elsewhere."""
        return pd.DataFrame(
            {
                "group": [f"{g.attribute}: {g.value}" for g in self.groups],
                "images": [int(g.member.sum()) for g in self.groups],
                "suspected": [g.share for g in self.groups],
                "more than elsewhere": [g.more for g in self.groups],
            }
        )

    def warnings(self) -> list[str]:
        """A sentence for each minority in which suspects gather."""
        return [
            f"Suspects gather in a minority: {g.share.value:.0%} of '{g.attribute}: {g.value}' against "
            f"{g.elsewhere:.0%} elsewhere. Networks doubt what they have seen seldom; look at these before you drop "
            "any, or the minority is thinned out for being one."
            for g in self.groups
            if g.is_minority and g.gathers
        ]


def _members(cohort: Cohort) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """Attribute, value and bool [n] of every group that is large enough, the classes first."""
    names = np.array(cohort.classes, dtype=object)[cohort.labels]
    columns = {CLASS: pd.Series(names)}
    clusters = cohort.patient_codes()
    for attribute in cohort.attributes:
        values = cohort.table[attribute].reset_index(drop=True)
        if not nearly_identifies(values, clusters):
            columns[attribute] = as_categories(values)
    for attribute, values in columns.items():
        levels = list(pd.unique(values.dropna()))
        if 2 <= len(levels) <= MAX_GROUPS:
            for level in levels:
                member = (values == level).to_numpy(bool)
                if FEWEST <= member.sum() <= len(member) - FEWEST:
                    yield attribute, str(level), member
