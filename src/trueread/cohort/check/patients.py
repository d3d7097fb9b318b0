"""Is every patient on one side? Identifiers that differ in their spelling alone, patients unknown, few, or odd."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from trueread.cohort.check.base import Answer, Check, Concern, Example, Seriousness, check
from trueread.cohort.check.columns import MANY_NUMBERS
from trueread.cohort.check.identifiers import patient_pattern, spelling_groups
from trueread.cohort.check.properties import FILE_FACTS
from trueread.cohort.check.targets import EVERYWHERE
from trueread.cohort.cohort import SPLITS, Cohort

FEW_IN_VAL = 5  # patients; fewer cannot choose an epoch or a threshold
OF_MANY = 20  # patients; among fewer, one naturally has a large share
HUGE_SHARE = 0.25  # of a split's images
CONSTANT = 0.95  # of the patients with several images: what is one value in so many belongs to the person
BY_CHANCE = 0.2  # of the patients in whom a column would vary if it belonged to the image
COMPARED = 20  # patients with several images, or nothing is said about a column
PLACEHOLDERS = {"unknown", "unk", "none", "nan", "na", "n/a", "null", "missing", "anonymous", "anon", "?", "-", ""}
SHOWN = 4  # pairs of images


@check("patients")
class Patients(Check):
    """Patients on two sides under two spellings, patients unknown or few, and signs of two people in one."""

    question = "Is every patient on one side?"

    def __init__(
        self,
        *,
        few_patients: Annotated[int, Field(ge=0, le=1000)] = 10,
        large_share: Annotated[float, Field(gt=0, le=1)] = 0.1,
    ) -> None:
        """few_patients: in test; fewer are worth a look. large_share: of a split's images that one patient has."""
        self.few_patients, self.large_share = few_patients, large_share

    def run(self, cohort: Cohort, *, seed: int = 0) -> Answer:
        patients = patient_table(cohort)
        few = too_few(patients, cohort.patients_known, self.few_patients)
        if not cohort.patients_known:
            looked_at = f"the names of {len(cohort):,} images, because nobody said whose they are"
            return self.answer(looked_at, unknown(cohort), *few)
        concerns = [
            *spelled_alike(patients, len(cohort)),
            *placeholders(patients, len(cohort)),
            *few,
            *large(patients, self.large_share),
            *varying(cohort),
            *several_classes(cohort),
        ]
        looked_at = (
            f"{len(patients):,} patients of {len(cohort):,} images: how their identifiers are spelled, how many images "
            "they have, and what differs inside a patient"
        )
        return self.answer(looked_at, *concerns, table=summary(patients))


def patient_table(cohort: Cohort) -> pd.DataFrame:
    """A row for each patient, by the codes of `cohort.patient_codes`: `patient`, `split`, `images`, and `row`, the
    position of its first image.
    """
    codes = cohort.patient_codes()
    first = np.unique(codes, return_index=True)[1]
    table = cohort.table[["patient", "split"]].iloc[first].reset_index(drop=True)
    table["patient"] = table["patient"].astype(str)
    return table.assign(images=np.bincount(codes), row=first)


def summary(patients: pd.DataFrame) -> pd.DataFrame:
    """A row for each split: patients, images, and the images of the median patient and of the one who has most."""
    sizes = [(name, part["images"]) for name, part in places(patients)]
    rows = [(name, len(n), int(n.sum()), float(n.median()), int(n.max())) for name, n in sizes]
    return pd.DataFrame(rows, columns=["split", "patients", "images", "median images", "most images"])


def places(patients: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The patients of train, val and test where there are any; all of them where the cohort is not split."""
    present = [(s, patients[patients["split"] == s]) for s in SPLITS]
    return [(s, part) for s, part in present if len(part)] or [(EVERYWHERE, patients)]


def spelled_alike(patients: pd.DataFrame, n_images: int) -> Iterator[Concern]:
    groups = spelling_groups(patients["patient"].tolist())
    alike = patients.loc[groups.index].assign(person=groups.to_numpy() + 1)
    n_splits = alike[alike["split"] != ""].groupby("person")["split"].nunique().reindex(alike["person"], fill_value=0)
    apart = n_splits.to_numpy() > 1
    for found, is_leak in ((alike[apart], True), (alike[~apart], False)):
        n = int(found["person"].nunique())
        if n == 0:
            continue
        touched = int(found["images"].sum())
        what = f"{n:,} {'identifier is' if n == 1 else 'identifiers are'} written in more than one way"
        yield Concern(
            Seriousness.SERIOUS if is_leak else Seriousness.LOOK,
            f"{what}, and the ways are in different splits ({touched:,} images)." if is_leak
            else f"{what} ({touched:,} images), so one person may count as two.",
            ("Write each patient in one way and split again: a test on people from training flatters. " if is_leak else
             "Write each patient in one way, or a split may part them. ")
            + "If they are different people, give them identifiers that differ in more than case, blanks, separators "
            "and zeros.",
            strength=min(touched / n_images, 1.0),
            n_images=touched,
            examples=_side_by_side(found, "person", "first images of each way: is it one person?"),
            table=found.sort_values(["person", "split"], kind="stable")[["person", "patient", "split", "images"]],
        )  # fmt: skip


def placeholders(patients: pd.DataFrame, n_images: int) -> Iterator[Concern]:
    found = patients[patients["patient"].str.strip().str.casefold().isin(PLACEHOLDERS) & (patients["images"] > 1)]
    if len(found):
        n = int(found["images"].sum())
        yield Concern(
            Seriousness.LOOK,
            f"{n:,} images are of a patient called unknown, nan or the like, who is probably many people.",
            "Give each of these images a patient of its own, or leave them out: the intervals count them once.",
            strength=n / n_images,
            n_images=n,
            table=found[["patient", "split", "images"]],
        )


def too_few(patients: pd.DataFrame, known: bool, few: int) -> Iterator[Concern]:
    limits = {"val": min(FEW_IN_VAL, few), "test": few, EVERYWHERE: few}
    found = [(name, part) for name, part in places(patients) if len(part) < limits.get(name, 0)]
    if not found:
        return
    unit = "patient" if known else "image"
    counts = [f"{len(part)} {unit if len(part) == 1 else f'{unit}s'}" for _, part in found]
    whole = found[0][0] == EVERYWHERE
    yield Concern(
        Seriousness.LOOK,
        f"There {'is' if len(found[0][1]) == 1 else 'are'} only {counts[0]} in all." if whole
        else f"Only {' and '.join(f'{c} in {name}' for c, (name, _) in zip(counts, found, strict=True))}.",
        f"Intervals over fewer than {few} {unit}s cannot be trusted, and fewer than {FEW_IN_VAL} in val can choose "
        "nothing. Collect more, or give these splits a larger share.",
        strength=max(1 - len(part) / limits[name] for name, part in found),
        n_images=sum(int(part["images"].sum()) for _, part in found),
    )  # fmt: skip


def large(patients: pd.DataFrame, share: float) -> Iterator[Concern]:
    rows, parts = [], []
    for name, part in places(patients):
        if len(part) >= OF_MANY:
            of_split = part["images"] / part["images"].sum()
            rows.append(part[of_split >= share].assign(share=of_split[of_split >= share]))
            parts += [(float(s), name) for s in rows[-1]["share"]]
    if not parts:
        return
    table = pd.concat(rows)
    largest, where = max(parts)
    place = "all images" if where == EVERYWHERE else f"the images of {where}"
    others = f" {len(parts) - 1} more {'has' if len(parts) == 2 else 'have'} {100 * share:.0f} % or more of a split."
    yield Concern(
        Seriousness.LOOK if largest >= HUGE_SHARE else Seriousness.NOTE,
        f"One patient has {100 * largest:.0f} % of {place}.{others if len(parts) > 1 else ''}",
        "Look whether it is one person. In training it counts as many, and in test its luck decides; the intervals "
        "count it once.",
        strength=largest,
        n_images=int(table["images"].sum()),
        table=table[["patient", "split", "images", "share"]],
    )


def several_classes(cohort: Cohort) -> Iterator[Concern]:
    """Not for several labels an image, of which each comes and goes; not where most patients have several classes."""
    if cohort.task == "multilabel":
        return
    codes = cohort.patient_codes()
    n_classes = pd.Series(cohort.labels).groupby(codes).nunique().to_numpy()
    n_several, n_mixed = int((np.bincount(codes) > 1).sum()), int((n_classes > 1).sum())
    if not 0 < n_mixed <= n_several / 2:
        return
    rows = np.flatnonzero(n_classes[codes] > 1)
    order = rows[np.argsort(codes[rows], kind="stable")]
    yield Concern(
        Seriousness.NOTE,
        f"{n_mixed:,} of {n_several:,} patients with several images {'has' if n_mixed == 1 else 'have'} images of more "
        "than one class.",
        "Disease comes and goes, and may be on one side alone. If the label is of the person, one of these is wrong, "
        "or two people share an identifier.",
        strength=n_mixed / n_several,
        n_images=len(rows),
        table=_of_rows(cohort, order).assign(label=[cohort.classes[k] for k in cohort.labels[order]]),
    )


def varying(cohort: Cohort) -> Iterator[Concern]:
    """Columns that nearly every patient has one value of, as sex, and that some have several of."""
    codes = cohort.patient_codes()
    for name in cohort.attributes:
        column = cohort.table[name]
        numbers = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
        if name.lower() in FILE_FACTS or (numbers and column.nunique() > MANY_NUMBERS):
            continue  # an age may rise between two images of a person
        values = pd.factorize(column.astype(object))[0]  # -1 where missing
        odd, n_several = inconsistent(values, codes)
        if len(odd) == 0:
            continue
        rows = np.flatnonzero(np.isin(codes, odd) & (values >= 0))
        order = rows[np.argsort(codes[rows], kind="stable")]
        pairs = _of_rows(cohort, order).assign(value=column.iloc[order].to_numpy())
        yield Concern(
            Seriousness.LOOK,
            f"'{name}' differs inside {len(odd):,} of {n_several:,} patients with several images; in the others it is "
            "one value.",
            "Look whether two people share an identifier, or an entry is wrong. If it may change from image to image, "
            "it needs nothing.",
            strength=len(rows) / len(cohort),
            n_images=len(rows),
            examples=_side_by_side(
                pairs.drop_duplicates(["patient", "value"]), "patient", f"one patient, two values of {name}"
            ),
            table=pairs.rename(columns={"value": f"value of {name}"}),
        )


def inconsistent(values: NDArray, codes: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """The patients who have several values where nearly all have one, and how many have two or more known values.

    values: int64 [N], -1 where missing. codes: int64 [N], each image's patient. No patient is named when more than 5 %
    vary, or more than a fifth of those who would if the values fell on images at random: a rare value is alone in most
    patients, and a column of the image then looks as if it were one of the person.
    """
    known = values >= 0
    values, codes = values[known], codes[known]
    nobody = np.empty(0, np.int64)
    if len(values) == 0:
        return nobody, 0
    sizes = np.bincount(codes)
    n_several = int((sizes > 1).sum())
    first = np.full(len(sizes), -1, np.int64)
    first[codes[::-1]] = values[::-1]
    odd = np.unique(codes[values != first[codes]])
    shares = np.bincount(values) / len(values)
    distinct, times = np.unique(sizes[sizes > 1], return_counts=True)
    expected = sum(t * (1 - float((shares**s).sum())) for s, t in zip(distinct.tolist(), times.tolist(), strict=True))
    if n_several < COMPARED or len(odd) > (1 - CONSTANT) * n_several or len(odd) > BY_CHANCE * expected:
        return nobody, n_several
    return odd, n_several


def unknown(cohort: Cohort) -> Concern:
    """What can be said when every image counts as its own patient."""
    pattern = patient_pattern(cohort.table["id"].tolist(), classes={*cohort.classes, *SPLITS})
    is_split = cohort.table["split"].isin(SPLITS)
    lost = "Intervals are too narrow where people have several images, and " + (
        "a person may be on both sides unseen" if is_split.any() else "a split cannot keep a person on one side"
    )
    if pattern is None:
        return Concern(
            Seriousness.NOTE,
            "Nobody said whose the images are, so every image counts as a patient of its own.",
            f"{lost}. If you can know, say it with patient=..., see the page on data.",
            n_images=len(cohort),
        )
    found = pd.DataFrame({"row": cohort.table.index, "may be patient": pattern.found, "split": cohort.table["split"]})
    groups = found.groupby("may be patient", sort=False)
    found = found[groups["row"].transform("size") > 1].sort_values(["may be patient", "row"], kind="stable")
    n_apart = int((groups["split"].nunique() > 1).sum()) if is_split.all() else 0
    parted = f", {n_apart:,} of them in more than one split" if n_apart else ""
    return Concern(
        Seriousness.LOOK if is_split.any() else Seriousness.NOTE,
        f"Nobody said whose the images are, but their names form {groups.ngroups:,} groups as patients would{parted}.",
        f"{lost}. If what patient='{pattern.expression}' finds is the patient, give that option to the source folder, "
        "or a column with it to the source csv. A split that parts patients is then refused: leave it out, or pool a "
        "folder's with use_split=false.",
        strength=n_apart / groups.ngroups,
        n_images=len(found),
        examples=_side_by_side(found, "may be patient", "names of one group: is it one person?"),
        table=found,
    )


def _side_by_side(cases: pd.DataFrame, by: str, caption: str) -> tuple[Example, ...]:
    """The first two `row`s of each of the first few groups."""
    few = cases[cases[by].isin(cases[by].unique()[:SHOWN])]
    return tuple(Example(tuple(int(row) for row in one["row"][:2]), caption) for _, one in few.groupby(by, sort=False))


def _of_rows(cohort: Cohort, rows: NDArray[np.int64]) -> pd.DataFrame:
    return cohort.table[["id", "patient", "split"]].iloc[rows].reset_index(drop=True).assign(row=rows)
