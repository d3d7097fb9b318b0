"""For whom does it work less well? Every attribute's groups, the worst of them, and how much of the gap is chance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd
from pydantic import Field

from trueread.audit.base import Audit, Better, Figure, Finding, Measure, Needs, Subject, audit
from trueread.audit.performance import member_statistic
from trueread.cohort.classes import natural_key
from trueread.errors import NotMeasured
from trueread.stats import Estimate, Statistic
from trueread.stats.bootstrap import Weights

METRIC = "balanced-accuracy"
MAX_GROUPS = 12  # of one attribute; rarer values are too many to read and too small to measure
FEW_VALUES = 20  # with no more distinct values than this, an attribute is no identifier
LONGEST_LIFE = 120  # years: whole numbers within such a span may be ages, of which few patients share one


@dataclass(frozen=True)
class Group:
    """Images that share an attribute's value. member: bool [n] over the test rows."""

    attribute: str
    value: str
    member: np.ndarray

    @property
    def name(self) -> str:
        return f"{self.attribute}: {self.value}"


@audit("subgroups", source="Sagawa et al. 2020, GroupDRO, ICLR (worst group); chance gap by permutation")
class Subgroups(Audit):
    """Balanced accuracy in every attribute's groups, the worst group, and its gap beside the gap expected by chance."""

    question = "For whom does it work less well?"
    needs: ClassVar[set[Needs]] = {Needs.PROBABILITIES, Needs.ATTRIBUTES}
    better = Better.LOWER

    def __init__(
        self,
        *,
        attributes: list[str] | None = None,
        minimum_patients_per_class: Annotated[int, Field(ge=1)] = 8,
        permutations: Annotated[int, Field(ge=20, le=10_000)] = 200,
    ) -> None:
        """attributes: columns to look at; all by default. minimum_patients_per_class: a group with fewer patients of
        any class that the test set has is listed but not ranked. permutations: draws of the chance gap."""
        self.attributes, self.minimum, self.permutations = attributes, minimum_patients_per_class, permutations

    def run(self, subject: Subject) -> Finding:
        groups, skipped = self._groups(subject)
        ranked = [g for g in groups if smallest_class(subject, g.member) >= self.minimum]
        if len(ranked) < 2:
            raise NotMeasured(" ".join([self._too_small(), *skipped]))
        statistics = [member_statistic(subject, m, METRIC) for m in subject.members]
        table, values = self._table(subject, groups, ranked, statistics)
        worst = min(ranked, key=lambda g: values[g.name].value)
        per_seed = [gap(s, worst.member) for s in statistics]
        estimate = subject.interval(per_seed)
        chance, p_value = self._by_chance(subject, ranked, statistics, estimate.value)
        share = f"{p_value:.0%}" if p_value >= 0.01 else "less than 1 %"
        measures = {
            "gap": Measure(
                "Gap to the worst group", estimate, Better.LOWER,
                "balanced accuracy over all test images minus that in the worst group (fixed, not redrawn)", per_seed,
            ),
            "worst-group": Measure(
                "Worst group's balanced accuracy", values[worst.name], Better.HIGHER, f"in {worst.name}",
                [in_group(s, worst.member) for s in statistics],
            ),
        }  # fmt: skip
        notes = [
            f"The worst of {len(ranked)} groups is {worst.name}. The worst of many is low by selection alone: with "
            f"attributes shuffled among patients the gap is {chance:.3f} on average, and at least this large in "
            f"{share} of shuffles.",
            f"A group counts when it has at least {self.minimum} patients of every class.",
            *skipped,
        ]
        figure = Figure(
            "groups", "Balanced accuracy by group", "interval", table_for_figure(table), x="group", y="value",
            low="low", high="high", y_label="balanced accuracy",
        )  # fmt: skip
        return self.finding(measures=measures, tables={"Per group": table}, figures=[figure], notes=notes)

    def _too_small(self) -> str:
        return (
            f"fewer than two groups have {self.minimum} patients of every class among the test images "
            "(the option minimum_patients_per_class); a larger test share would help, or a lower minimum, which ranks "
            "groups by wider intervals."
        )

    def _groups(self, subject: Subject) -> tuple[list[Group], list[str]]:
        frame = subject.cohort.table.iloc[subject.rows]
        names = self.attributes or subject.cohort.attributes
        missing = [a for a in names if a not in frame.columns]
        if missing:
            raise NotMeasured(
                f"the cohort has no attribute '{missing[0]}' (it has {', '.join(subject.cohort.attributes)})."
            )
        groups: list[Group] = []
        skipped = []
        for attribute in names:
            if not self.attributes and nearly_identifies(frame[attribute], subject.clusters):
                skipped.append(
                    f"'{attribute}' has {frame[attribute].nunique()} values for {len(np.unique(subject.clusters))} "
                    "patients on the test images and is left out: it is an identifier or nearly one."
                )
                continue
            values = as_categories(frame[attribute])
            levels = list(pd.unique(values.dropna()))
            if not 2 <= len(levels) <= MAX_GROUPS:
                count = "one value" if len(levels) == 1 else f"{len(levels)} values"
                skipped.append(
                    f"'{attribute}' has {count} on the test images and is left out (2 to {MAX_GROUPS} are compared)."
                )
                continue
            if values.isna().any():
                skipped.append(f"'{attribute}' is missing on {values.isna().sum()} of {len(values)} test images.")
            levels.sort(key=lambda level: natural_key(str(level)))
            groups += [Group(attribute, str(v), (values == v).to_numpy(dtype=bool)) for v in levels]
        return groups, skipped

    def _table(
        self, subject: Subject, groups: list[Group], ranked: list[Group], statistics: list[Statistic]
    ) -> tuple[pd.DataFrame, dict[str, Estimate]]:
        rows, values = [], {}
        for g in groups:
            of_all_rows = subject.interval([in_group(s, g.member) for s in statistics])
            patients = len(np.unique(subject.clusters[g.member]))
            estimate = values[g.name] = replace(of_all_rows, n=int(g.member.sum()), n_clusters=patients)
            rows.append(
                {
                    "attribute": g.attribute,
                    "group": g.value,
                    "images": estimate.n,
                    "patients": estimate.n_clusters,
                    "balanced accuracy": estimate,
                    "ranked": "yes" if g in ranked else f"no, under {self.minimum} patients of a class",
                }
            )
        return pd.DataFrame(rows), values

    def _by_chance(
        self, subject: Subject, ranked: list[Group], statistics: list[Statistic], observed: float
    ) -> tuple[float, float]:
        """Mean gap, and share of gaps at least as large as the observed, when patients are shuffled among groups."""
        # A stream of its own: a cohort that was itself shuffled with this seed must not be shuffled back into order.
        rng = np.random.default_rng([subject.seed, *b"subgroups"])
        members = np.stack([g.member for g in ranked])
        overall = np.mean([s(np.ones((1, len(subject.rows)), np.float32))[0] for s in statistics])
        gaps = []
        for _ in range(self.permutations):
            shuffled = members[:, shuffle_patients(subject.clusters, rng)]
            per_group = np.mean([s(shuffled.astype(np.float32)) for s in statistics], axis=0)
            gaps.append(overall - np.fmin.reduce(per_group))
        drawn = np.asarray(gaps)
        drawn = drawn[~np.isnan(drawn)]  # no group of that shuffle had images of every class
        at_least = drawn >= observed - 1e-9  # the same gap comes up often, and rounding must not tell it from itself
        return float(drawn.mean()), float((1 + at_least.sum()) / (1 + len(drawn)))


def in_group(statistic: Statistic, member: np.ndarray) -> Statistic:
    """The statistic on the rows of a group: other rows weigh nothing."""
    inside = member.astype(np.float32)
    return lambda weights: statistic(weights * inside)


def gap(statistic: Statistic, member: np.ndarray) -> Statistic:
    """The statistic over all rows minus that in a group."""
    inside = in_group(statistic, member)

    def difference(weights: Weights) -> np.ndarray:
        return statistic(weights) - inside(weights)

    return difference


def shuffle_patients(clusters: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """int64 [n]: for each row, the row whose group it takes; a patient takes the groups of one other patient, image by
    image.

    Patients change places only with patients of as many images, so that the groups keep their size and clustering; one
    whose number of images nobody shares stays where it is.
    """
    order = np.argsort(clusters, kind="stable")
    codes, starts, sizes = np.unique(clusters[order], return_index=True, return_counts=True)
    partner = np.arange(len(codes))
    for size in np.unique(sizes):
        same = np.flatnonzero(sizes == size)
        partner[same] = rng.permutation(same)
    taken = np.empty(len(clusters), np.int64)
    for own, other in enumerate(partner):
        mine = order[starts[own] : starts[own] + sizes[own]]
        theirs = order[starts[other] : starts[other] + sizes[other]]
        taken[mine] = theirs
    return taken


def smallest_class(subject: Subject, member: np.ndarray) -> int:
    """Patients of the class with the fewest patients inside a group, over the classes (labels) that the test set
    has.
    """
    labels, clusters = subject.labels, subject.clusters
    if labels.ndim == 2:
        kinds = [labels[:, k] == v for k in range(labels.shape[1]) for v in (0, 1)]
    else:
        kinds = [labels == k for k in np.unique(labels)]
    return min((len(np.unique(clusters[member & kind])) for kind in kinds if kind.any()), default=0)


def nearly_identifies(values: pd.Series, clusters: np.ndarray) -> bool:
    """Whether a column is an identifier or nearly one: more than 20 distinct values, and more than half as many as
    patients (clusters: int64 [n], each row's patient).

    Measurements are none, though each may be unique: numbers with decimals, and whole numbers within 120 (ages in
    years); they become ranges.
    """
    distinct = values.nunique()
    if distinct <= FEW_VALUES or 2 * distinct <= len(np.unique(clusters)):
        return False
    if not pd.api.types.is_numeric_dtype(values):
        return True
    numbers = values.to_numpy(dtype=float, na_value=np.nan)
    numbers = numbers[np.isfinite(numbers)]
    return bool((numbers % 1 == 0).all() and np.ptp(numbers) > LONGEST_LIFE)


def as_categories(values: pd.Series) -> pd.Series:
    """Values as groups: numbers with more than eight distinct values become up to three ranges of about equal count,
    named by their least and greatest value. Equal numbers share a range; nan stays.
    """
    if not pd.api.types.is_numeric_dtype(values) or values.nunique() <= 8:
        return values.astype(object).where(values.notna(), np.nan)
    numbers = values.to_numpy(dtype=float, na_value=np.nan)
    known = np.isfinite(numbers)
    cuts = np.unique(np.quantile(numbers[known], [1 / 3, 2 / 3]))
    part = np.searchsorted(cuts, numbers)
    name = "{:.0f} to {:.0f}" if (numbers[known] % 1 == 0).all() else "{:.4g} to {:.4g}"
    ranges = np.full(len(numbers), np.nan, dtype=object)
    for p in np.unique(part[known]):
        mine = known & (part == p)
        ranges[mine] = name.format(numbers[mine].min(), numbers[mine].max())
    return pd.Series(ranges, index=values.index)


def table_for_figure(table: pd.DataFrame) -> pd.DataFrame:
    """The ranked groups with their interval as plain columns."""
    ranked = table[table["ranked"] == "yes"]
    estimates = list(ranked["balanced accuracy"])
    return pd.DataFrame(
        {
            "group": [f"{a}: {g}" for a, g in zip(ranked["attribute"], ranked["group"], strict=True)],
            "value": [e.value for e in estimates],
            "low": [e.low for e in estimates],
            "high": [e.high for e in estimates],
        }
    )
