"""Is there enough of every class, everywhere? Classes that are missing, few, rare, unknown, or unequal in splits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from trueread.cohort.check.base import Answer, Check, Concern, Seriousness, check
from trueread.cohort.check.shares import compared_shares, presence
from trueread.cohort.check.targets import EVERYWHERE
from trueread.cohort.cohort import SPLITS, Cohort
from trueread.stats.compare import holm

FEW_IN_VAL = 5  # patients of a class; fewer cannot choose an epoch or a threshold
ALARM = 0.05  # the chance that splits drawn by lot alarm, whatever the number of classes
IMBALANCED = 10  # times as common
MOSTLY_UNKNOWN = 0.5  # of the images
LISTED = 4  # classes in a sentence


@check("class-balance")
class ClassBalance(Check):
    """Classes that are missing, have few patients, are rare, or have another share in test than in train."""

    question = "Is there enough of every class, everywhere?"

    def __init__(
        self,
        *,
        few_patients: Annotated[int, Field(ge=0, le=1000)] = 10,
        permutations: Annotated[int, Field(ge=1000, le=1_000_000)] = 10_000,
    ) -> None:
        """few_patients: of a class in train or in test; fewer are worth a look. permutations: of patients, when the
        shares of classes are compared between splits.
        """
        self.few_patients, self.permutations = few_patients, permutations

    def run(self, cohort: Cohort, *, seed: int = 0) -> Answer:
        counts = count_sides(cohort)
        concerns = [
            *nowhere(counts, cohort),
            *missing_in_a_split(counts, cohort),
            *few(counts, cohort, self.few_patients),
            *between_splits(cohort, permutations=self.permutations, seed=seed),
            *mostly_unknown(counts, cohort),
            *the_same_label(cohort),
            *imbalance(counts, cohort),
        ]
        n, what = cohort.n_classes, "labels" if cohort.task == "multilabel" else "classes"
        where = [s for s in counts["split"].unique() if s != EVERYWHERE]
        looked_at = f"{n} {what if n > 1 else what[:-1]} of {len(cohort):,} images" + (
            f" in {', '.join(where[:-1])} and {where[-1]}" if len(where) > 1 else ""
        )
        return self.answer(looked_at, *concerns, table=class_table(counts, cohort))


def count_sides(cohort: Cohort) -> pd.DataFrame:
    """A row for each `split` ("all", and those that there are), `class` and side (`has` it or not): how many `images`
    and `patients`, and how many images of that split are `known`. Only labels that may be alone have a side without.
    """
    member, codes = presence(cohort), cohort.patient_codes()
    split = cohort.table["split"].to_numpy()
    where = {EVERYWHERE: np.ones(len(cohort), bool)} | {s: split == s for s in SPLITS if (split == s).any()}
    rows = []
    for place, inside in where.items():
        whose = codes[inside]
        for name, here in zip(cohort.classes, member[inside].T.copy(), strict=True):
            known = int((~np.isnan(here)).sum())
            for has in (True, False) if cohort.task == "multilabel" else (True,):
                side = here == has
                n_patients = int(np.count_nonzero(np.bincount(whose[side])))
                rows.append((place, name, has, int(side.sum()), n_patients, known))
    return pd.DataFrame(rows, columns=["split", "class", "has", "images", "patients", "known"])


def class_table(counts: pd.DataFrame, cohort: Cohort) -> pd.DataFrame:
    """A row for each class and split: `images`, `patients` (when they are known) and `share`; for labels also images
    `without` it and `unknown`, and the share is of the known ones.
    """
    having = counts[counts["has"]].reset_index(drop=True)
    table = having[["class", "split", "images", "patients"]]
    table = table.assign(share=having["images"] / having["known"].where(having["known"] > 0))
    if cohort.task == "multilabel":
        n_images = having["split"].map(cohort.table["split"].value_counts()).fillna(len(cohort)).astype(int)
        without = counts.loc[~counts["has"], "images"].to_numpy()
        table = table.assign(without=without, unknown=(n_images - having["known"]).to_numpy())
    return table if cohort.patients_known else table.drop(columns="patients")


def nowhere(counts: pd.DataFrame, cohort: Cohort) -> Iterator[Concern]:
    found = counts[(counts["split"] == EVERYWHERE) & (counts["images"] == 0)]
    if len(found):
        yield Concern(
            Seriousness.SERIOUS,
            f"No image {_sides(found, cohort, last='or')} is in the cohort.",
            "Nothing can be learned or measured there. Leave the class out, or look why its images were not read.",
            strength=1.0,
            table=_cases(found, ["class", "has", "split", "images"]),
        )


def missing_in_a_split(counts: pd.DataFrame, cohort: Cohort) -> Iterator[Concern]:
    somewhere = counts[(counts["split"] == EVERYWHERE) & (counts["images"] > 0)]
    sides = pd.MultiIndex.from_frame(somewhere[["class", "has"]])
    there = pd.MultiIndex.from_frame(counts[["class", "has"]]).isin(sides)
    reasons = {
        "train": "What was never learned cannot be told.",
        "val": "The best epoch and the threshold are chosen without it.",
        "test": "Its sensitivity and AUROC are undefined there, and averages over classes with them.",
    }
    for place, reason in reasons.items():
        found = counts[there & (counts["split"] == place) & (counts["images"] == 0)]
        if len(found):
            yield Concern(
                Seriousness.LOOK if place == "val" else Seriousness.SERIOUS,
                f"No image {_sides(found, cohort, last='or')} is in {place}.",
                f"{reason} Split again by patient: every class with enough patients is then in every split.",
                strength=len(found) / len(somewhere),
                table=_cases(found, ["class", "has", "split", "images"]),
            )


def few(counts: pd.DataFrame, cohort: Cohort, few_patients: int) -> Iterator[Concern]:
    """Of the splits, or of the whole where there are none."""
    limits = {"train": few_patients, "val": min(FEW_IN_VAL, few_patients), "test": few_patients}
    if not counts["split"].isin(limits).any():
        limits = {EVERYWHERE: few_patients}
    limit = counts["split"].map(limits).fillna(0)
    found = counts[(counts["images"] > 0) & (counts["patients"] < limit)].sort_values("patients", kind="stable")
    if found.empty:
        return
    unit = "patient" if cohort.patients_known else "image"
    listed = [
        f"{n} {unit if n == 1 else f'{unit}s'} {_side(name, has, cohort)}" + (f" in {place}" if place in SPLITS else "")
        for place, name, has, n in found[["split", "class", "has", "patients"]].head(LISTED).itertuples(index=False)
    ]
    more = f", and {len(found) - LISTED} more such cells" if len(found) > LISTED else ""
    yield Concern(
        Seriousness.LOOK,
        f"Few {unit}s: {', '.join(listed)}{more}.",
        "One patient more or less decides such a number, and its interval is wide or cannot be trusted. Join classes, "
        "collect more, or read it as an example.",
        strength=float(1 - found["patients"].iloc[0] / max(limits.values())),
        n_images=int(found["images"].sum()),
        table=_cases(found, ["class", "has", "split", "images", "patients"]),
    )


def between_splits(cohort: Cohort, *, permutations: int, seed: int) -> Iterator[Concern]:
    found = compared_shares(cohort, permutations=permutations, seed=seed)
    adjusted = holm([c.p_value for c in found])
    apart = [(c, p) for c, p in zip(found, adjusted, strict=True) if p <= ALARM and c.is_apart]
    for other in SPLITS[1:]:
        here = sorted((c for c, _ in apart if c.split == other), key=lambda c: -c.odds_ratio)
        if not here:
            continue
        listed = [f"'{c.name}' {_percent(c.in_train)} and {_percent(c.in_other)}" for c in here[:LISTED]]
        more = f", and {len(here) - LISTED} more" if len(here) > LISTED else ""
        once = ", each patient counting once" if cohort.n_patients < len(cohort) else ""
        yield Concern(
            Seriousness.LOOK,
            f"Classes have other shares in train than in {other} ({', '.join(listed)}{more}){once}.",
            f"Chance over patients does not explain it. Accuracy, predictive values and calibration in {other} are "
            "then about another mix of patients than was learned. Look how the splits were made, and whether they "
            "differ in more than that.",
            strength=float(1 - 1 / here[0].odds_ratio),
            table=pd.DataFrame(
                [(c.name, c.in_train, c.in_other, c.odds_ratio, c.p_value, p) for c, p in apart if c.split == other],
                columns=["class", "share in train", f"share in {other}", "odds ratio", "p", "p adjusted"],
            ),
        )


def mostly_unknown(counts: pd.DataFrame, cohort: Cohort) -> Iterator[Concern]:
    having = counts[(counts["split"] == EVERYWHERE) & counts["has"]]
    unknown = 1 - having["known"] / len(cohort)
    found = having.assign(unknown=unknown)[unknown > MOSTLY_UNKNOWN].sort_values("unknown", ascending=False)
    if len(found):
        strongest = found.head(LISTED)
        listed = [f"'{n}' in {_percent(u)}" for n, u in zip(strongest["class"], strongest["unknown"], strict=True)]
        more = f", and {len(found) - LISTED} more" if len(found) > LISTED else ""
        yield Concern(
            Seriousness.LOOK,
            f"Labels are unknown in most images: {', '.join(listed)}{more}.",
            "What is known was probably chosen: the doctor asked because something was suspected. Look whether a blank "
            "means unknown or no.",
            strength=float(found["unknown"].iloc[0]),
            n_images=int(len(cohort) - found["known"].min()),
            table=found[["class", "known", "unknown"]],
        )


def the_same_label(cohort: Cohort) -> Iterator[Concern]:
    if cohort.task != "multilabel":
        return
    columns = np.nan_to_num(cohort.labels, nan=2).astype(np.uint8).T
    same: dict[bytes, list[str]] = {}
    for name, column in zip(cohort.classes, columns, strict=True):
        if (column == 0).any() and (column == 1).any():
            same.setdefault(column.tobytes(), []).append(name)
    found = [names for names in same.values() if len(names) > 1]
    if found:
        listed = "; ".join(" and ".join(f"'{n}'" for n in names) for names in found[:LISTED])
        yield Concern(
            Seriousness.LOOK,
            f"Labels are the same in every image: {listed}{'; and others' if len(found) > LISTED else ''}.",
            "Leave one of each out, or look whether a column was copied: their average counts one finding twice.",
            strength=min(sum(map(len, found)) / cohort.n_classes, 1.0),
            n_images=len(cohort),
            table=pd.DataFrame([(i, n) for i, names in enumerate(found, 1) for n in names], columns=["group", "class"]),
        )


def imbalance(counts: pd.DataFrame, cohort: Cohort) -> Iterator[Concern]:
    everywhere = counts[(counts["split"] == EVERYWHERE) & (counts["images"] > 0)]
    everywhere = everywhere.sort_values("images", kind="stable")
    advice = (
        "Read balanced accuracy and AUROC, not accuracy. The methods class-weights, balanced-sampling, "
        "logit-adjustment and focal can help the rare one."
    )
    if cohort.task != "multilabel":
        least, most = everywhere.iloc[0], everywhere.iloc[-1]
        if most["images"] >= IMBALANCED * least["images"]:
            share = most["images"] / len(cohort)
            yield Concern(
                Seriousness.NOTE,
                f"'{most['class']}' is {most['images'] / least['images']:,.0f} times as common as '{least['class']}': "
                f"always answering '{most['class']}' is right in {_percent(share)} of the images.",
                advice,
                strength=1 - least["images"] / most["images"],
                n_images=int(least["images"]),
            )
        return
    rare = everywhere[(everywhere["images"] > 0) & (everywhere["known"] >= (IMBALANCED + 1) * everywhere["images"])]
    rare = rare.assign(share=rare["images"] / rare["known"]).sort_values("share", kind="stable")
    if len(rare):
        name, has, share = rare[["class", "has", "share"]].iloc[0]
        yield Concern(
            Seriousness.NOTE,
            f"{len(rare)} of {cohort.n_classes} labels have one side {IMBALANCED} times as common as the other; always "
            f"saying {'no' if has else 'yes'} to '{name}' is right in {_percent(1 - share)} of the images.",
            advice,
            strength=float(1 - share),
            n_images=int(rare["images"].iloc[0]),
            table=_cases(rare, ["class", "has", "images", "known", "share"]),
        )


def _cases(found: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """These columns; without `has` where every row is of images that have the class."""
    return found[[c for c in columns if c != "has" or not found["has"].all()]].reset_index(drop=True)


def _sides(found: pd.DataFrame, cohort: Cohort, *, last: str) -> str:
    listed = [_side(name, has, cohort) for name, has in found[["class", "has"]].itertuples(index=False)]
    if len(listed) > LISTED:
        listed = [*listed[:LISTED], f"{len(listed) - LISTED} others"]
    return f" {last} ".join(filter(None, (", ".join(listed[:-1]), listed[-1])))


def _side(name: str, has: bool, cohort: Cohort) -> str:
    if cohort.task == "multilabel":
        return f"{'with' if has else 'without'} '{name}'"
    return f"of '{name}'"


def _percent(share: float) -> str:
    """Two digits of a small share, and never 0 or 100 % of what is not."""
    percent = 100 * share
    digits = 0 if 1 <= percent <= 99 else 2 if 0.1 <= percent <= 99.9 else 4
    return f"{percent:.{digits}f} %"
