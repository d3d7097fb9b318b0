"""Do attributes (site, device, sex, age, ...) give the label away, and do the images give the attributes away?

Both together are a way round the disease: a classifier reads the site from the image, and the site tells the label.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from trueread.cohort.check.attribute_questions import carries_over, is_read, tells
from trueread.cohort.check.base import Answer, Check, Concern, Example, Seriousness, check
from trueread.cohort.check.columns import MISSING, Attribute, described
from trueread.cohort.check.probe import embedding, standardised
from trueread.cohort.check.targets import targets_of, with_enough_patients
from trueread.cohort.cohort import Cohort
from trueread.errors import NotMeasured
from trueread.stats import holm

ALARM = 0.05  # the chance that attributes without any link alarm at all (Holm over all of them and the three questions)
NOTE_FROM, TELLS_FROM = 0.6, 0.7  # AUROC of the attribute alone; the same limits as of a property in cues.py
READ_FROM = 0.2  # share of the way from chance to reading it in every image: 0.6 balanced accuracy of two values
INSEPARABLE_FROM = 0.9  # AUROC from which it is serious although no class has two values to compare images of
LOSS_FROM = 0.05  # balanced accuracy that a probe loses on a value it has not seen
SHOWN = 4  # images of a value
QUESTIONS = ("tells p", "read p", "loss p")
ADVICE = {
    "both": "A classifier can read it and guess the label from it. Balance or weight the classes in its values, and "
    "test within each value, or on a value that is kept out of training.",
    "tells": "The label depends on it. Compare within its values: a classifier that only finds the right value looks "
    "better than it is.",
    "read": "Images differ with it. Report performance for each value; a new value may be read less well.",
    "weak": "The label depends on it a little. Report performance for each value.",
}


@check("attributes")
class Attributes(Check):
    """Attributes (site, device, sex, age, ...) that tell the label and can be read from the images."""

    question = "Do attributes such as site or sex give the label away, and do the images give them away?"

    def __init__(
        self,
        *,
        attributes: list[str] | None = None,
        permutations: Annotated[int, Field(ge=200, le=100_000)] = 1000,
    ) -> None:
        """attributes: columns to look at; all by default. permutations: of patients, at least; many attributes take
        more, so that the smallest p-value can alarm."""
        self.attributes, self.permutations = attributes, permutations

    def run(self, cohort: Cohort, *, seed: int = 0) -> Answer:
        if not cohort.attributes:
            raise NotMeasured("the cohort's table has no attribute (site, sex, age, ...).")
        attributes, skipped = described(cohort, self.attributes)
        if not attributes:
            raise NotMeasured(" ".join(["the table has no attribute that could be compared.", *skipped]))
        return self.ask(cohort, attributes, embedding(cohort), seed=seed, skipped=skipped)

    def ask(
        self,
        cohort: Cohort,
        attributes: Sequence[Attribute],
        features: NDArray,
        *,
        seed: int = 0,
        skipped: Sequence[str] = (),
    ) -> Answer:
        """The answer for any numbers that stand for the images: features float [N,D], a classifier's for example."""
        clusters = cohort.patient_codes()
        targets, not_tested = with_enough_patients(targets_of(cohort), clusters)
        features = standardised(features)
        permutations = max(self.permutations, int(np.ceil(4 * len(attributes) / ALARM)))
        rows = []
        for attribute in attributes:
            stream = [seed, *f"attributes {attribute.name}".encode()]
            row: dict[str, Any] = {"attribute": attribute.name, "values": len(attribute.names)}
            row |= tells(attribute, targets, cohort, permutations=permutations, seed=stream)
            row |= is_read(attribute, features, cohort, permutations=permutations, seed=stream)
            row |= carries_over(attribute, features, cohort, seed=stream)
            rows.append(row)
        adjusted = holm([row[p] for row in rows for p in QUESTIONS]).reshape(-1, len(QUESTIONS))
        rows = [row | dict(zip(QUESTIONS, ps.tolist(), strict=True)) for row, ps in zip(rows, adjusted, strict=True)]
        concerns = [c for a, row in zip(attributes, rows, strict=True) for c in about(a, row, cohort)]
        whose = "patients" if cohort.patients_known else "images (patients are unknown: each counts as its own)"
        looked_at = (
            f"{', '.join(a.name for a in attributes)}: against the label, and in {features.shape[1]} numbers that "
            f"stand for an image, over {cohort.n_patients:,} {whose}.{not_tested}"
        )
        return self.answer(
            " ".join([looked_at, *skipped]), *concerns, table=pd.DataFrame(rows).drop(columns="clearest")
        )


def about(attribute: Attribute, row: dict[str, Any], cohort: Cohort) -> Iterator[Concern]:
    """The concern about one attribute, if there is any. row: what was measured of it, p-values corrected."""
    is_told = row["tells p"] <= ALARM and row["auroc"] >= NOTE_FROM
    tells_much = is_told and row["auroc"] >= TELLS_FROM
    gain = (row["read"] - row["chance"]) / (1 - row["chance"])
    is_read_well = row["read p"] <= ALARM and gain >= READ_FROM
    loses = row["loss p"] <= ALARM and row["loss"] >= LOSS_FROM
    if not (is_told or is_read_well or loses):
        return
    inseparable = is_told and row["auroc"] >= INSEPARABLE_FROM and np.isnan(row["read"])
    if (tells_much and is_read_well) or inseparable:
        seriousness, advice = Seriousness.SERIOUS, ADVICE["both"]
    elif tells_much:
        seriousness, advice = Seriousness.LOOK, ADVICE["tells"]
    elif is_read_well or loses:
        seriousness, advice = Seriousness.LOOK, ADVICE["read"]
    else:
        seriousness, advice = Seriousness.NOTE, ADVICE["weak"]
    parts = [_about_label(row, is_told), _about_images(row, is_read_well), _about_loss(row) if loses else ""]
    strengths = [2 * row["auroc"] - 1 if is_told else 0.0, gain if is_read_well else 0.0]
    yield Concern(
        seriousness,
        "; ".join(part for part in parts if part) + ".",
        advice,
        strength=min(max(strengths), 1.0),
        n_images=int((attribute.values != MISSING).sum()),
        examples=_examples(row["clearest"], attribute, cohort) if is_read_well else (),
        table=_counts(attribute, cohort),
    )


def _about_label(row: dict[str, Any], is_told: bool) -> str:
    if not is_told:
        return f"'{row['attribute']}' hardly tells a label (best AUROC {row['auroc']:.2f})"
    told = f"tells {row['label']} from {row['other']} with AUROC" if row["other"] else "orders the grades, concordance"
    size = _estimate(row, "auroc", "low", "high")
    return f"'{row['attribute']}' alone {told} {size} (Cramér's V {row['cramers v']:.2f})"


def _about_images(row: dict[str, Any], is_read_well: bool) -> str:
    if np.isnan(row["read"]):
        return "whether images show it cannot be asked, because no class has enough patients of two values"
    can = "can be read" if is_read_well else "can be read a little" if row["read p"] <= ALARM else "cannot be read"
    size = _estimate(row, "read", "read low", "read high")
    return f"it {can} from images of one class (balanced accuracy {size}, chance {row['chance']:.2f})"


def _about_loss(row: dict[str, Any]) -> str:
    size = _estimate(row, "loss", "loss low", "loss high")
    return f"a probe that has not seen '{row['held out']}' loses {size} of balanced accuracy there"


def _counts(attribute: Attribute, cohort: Cohort) -> pd.DataFrame:
    """Images, patients and images of each class (multilabel: with each label) for every value."""
    if cohort.task == "multilabel":
        has = np.nan_to_num(cohort.labels) == 1
    else:
        has = cohort.labels[:, None] == np.arange(cohort.n_classes)
    images = pd.DataFrame(has.astype(np.int64), columns=[f"{c} images" for c in cohort.classes])
    patients = pd.Series(cohort.patient_codes()).groupby(attribute.values).nunique()
    sums = images.groupby(attribute.values).sum()
    n_images = pd.Series(attribute.values).value_counts()
    sums.insert(0, "images", n_images[sums.index])
    sums.insert(1, "patients", patients[sums.index])
    return sums.sort_values("images", ascending=False, kind="stable").rename_axis("value").reset_index()


def _examples(
    clearest: list[tuple[str, NDArray[np.int64]]], attribute: Attribute, cohort: Cohort
) -> tuple[Example, ...]:
    """For two values the images of the commonest class that the probe is surest of, one a patient."""
    clusters = cohort.patient_codes()
    shown = []
    for name, rows in clearest:
        rows = rows[np.sort(np.unique(clusters[rows], return_index=True)[1])][:SHOWN]
        inside = "" if cohort.task == "multilabel" else f", {cohort.classes[cohort.labels[rows[0]]]}"
        shown.append(Example(tuple(int(r) for r in rows), f"{attribute.name} {name}{inside}: clearest for a probe"))
    return tuple(shown)


def _estimate(row: dict[str, Any], value: str, low: str, high: str) -> str:
    """ "0.82 (0.79 to 0.85)"."""
    interval = "" if np.isnan(row[low]) else f" ({row[low]:.2f} to {row[high]:.2f})"
    return f"{row[value]:.2f}{interval}"
