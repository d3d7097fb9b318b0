"""Do simple properties of the images give the label away? One by one, and all together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from trueread.cohort.check.base import Answer, Check, Concern, Example, Seriousness, check
from trueread.cohort.check.probe import normal_scores, standardised, told_together
from trueread.cohort.check.properties import FILE_FACTS, varying_properties
from trueread.cohort.check.targets import EVERYWHERE, Target, classes_of, in_splits, targets_of, with_enough_patients
from trueread.cohort.cohort import Cohort
from trueread.stats.association import concordance, linked, linked_together

ALARM = 0.05  # the chance that data without any link alarm at all, whatever the number of properties and labels
OF_TOGETHER = 0.3  # the part of it that goes to all properties together

# AUROC of one property alone, or its mirror image below 0.5. At 0.7 and 0.9 Hosmer, Lemeshow and Sturdivant (Applied
# Logistic Regression, 2013, section 5.2.4) begin to call discrimination acceptable and outstanding: what one number
# does from there on could pass for the result of a study. Below 0.6 a link may be real and explains little.
NOTE_FROM, LOOK_FROM, SERIOUS_FROM = 0.6, 0.7, 0.9
# All together describe the disease as well as the scanner, so they are never more than worth a look.
TOGETHER_FROM = 0.8
APART = 0.1  # a difference between splits that is named, when chance does not explain it
SAME_THING = 0.6  # rank correlation inside the classes from which two properties are one finding
SHOWN = 4  # images of either side
LISTED = 6  # weak properties that a sentence names
TOGETHER = "all together"  # where the table has one row for all properties

COLUMNS = ("property", "label", "split", "auroc", "low", "high", "p", "images", "patients")
HINTS = {
    **dict.fromkeys(("brightness", "contrast"), "exposure, windowing or normalisation"),
    **dict.fromkeys(("sharpness", "noise", "blockiness"), "the original resolution, compression or the detector"),
    **dict.fromkeys(("border brightness", "empty border", "background share"), "collimation, padding or cropping"),
    "centre-corner difference": "a vignette, collimation or cropping",
    **dict.fromkeys((f"{v}-{h} detail" for v in ("upper", "lower") for h in ("left", "right")), "markers or text"),
    **dict.fromkeys(("redness", "blueness", "saturation"), "the camera, the light or the stain"),
    **dict.fromkeys(FILE_FACTS, "the export, the scanner or the hospital"),
}


@check("cues")
class Cues(Check):
    """Simple image properties (brightness, sharpness, borders, ...) that tell the label without the disease."""

    question = "Do simple properties of the images give the label away?"

    def __init__(self, *, permutations: Annotated[int, Field(ge=200, le=100_000)] = 1000) -> None:
        """permutations: of patients, at least; many labels take more, so that the smallest p-value can alarm."""
        self.permutations = permutations

    def run(self, cohort: Cohort, *, seed: int = 0) -> Answer:
        values = varying_properties(cohort)
        clusters = cohort.patient_codes()
        targets = targets_of(cohort)
        targets, not_tested = with_enough_patients([*targets, *in_splits(cohort, targets)], clusters)
        alone = links(values, targets, clusters, permutations=self.permutations, seed=seed)
        together = joint(
            values,
            [t for t in targets if t.split == EVERYWHERE],
            clusters,
            permutations=self.permutations,
            seed=seed,
        )
        table = pd.concat([alone, together], ignore_index=True)
        concerns = [
            *each_alone(cohort, alone, values, {(t.label, t.split): t for t in targets}),
            *all_together(together, alone, values.shape[1]),
        ]
        n_labels = together["label"].nunique()
        whose = "patients" if cohort.patients_known else "images (patients are unknown: each counts as its own)"
        looked_at = (
            f"{values.shape[1]} properties of {len(cohort):,} images against {n_labels} "
            f"{'label' if n_labels == 1 else 'labels'}, by exchanging {cohort.n_patients:,} {whose}.{not_tested}"
        )
        return self.answer(looked_at, *concerns, table=table)


def links(
    values: pd.DataFrame, targets: Sequence[Target], clusters: NDArray, *, permutations: int, seed: int
) -> pd.DataFrame:
    """A row of `COLUMNS` for each property, label and split.

    auroc: of the property alone, above 0.5 when it is higher with the label; for grades the concordance. low, high: its
    95 % interval. p: corrected for all properties, labels and splits, and for testing all together besides.
    """
    factor = len(targets) / (1 - OF_TOGETHER)
    permutations = enough(permutations, factor)
    matrix = values.to_numpy()
    parts = []
    for target in targets:
        here, patients = matrix[target.rows], clusters[target.rows]
        stream = [seed, *f"cues {target.split} {target.label}".encode()]
        found = linked(here, target.values, patients, permutations=permutations, seed=stream)
        for name, e, p in zip(values, concordance(here, target.values, patients), found.p_adjusted, strict=True):
            row = (name, target.label, target.split, e.value, e.low, e.high, min(p * factor, 1.0), e.n, e.n_clusters)
            parts.append(row)
    return pd.DataFrame(parts, columns=list(COLUMNS))


def joint(
    values: pd.DataFrame, targets: Sequence[Target], clusters: NDArray, *, permutations: int, seed: int
) -> pd.DataFrame:
    """A row for each label: all properties and their squares (both ends of a scale may mean the same label), in a
    linear probe that is judged on patients it has not seen. targets: of the whole cohort.
    """
    scores = normal_scores(values.to_numpy())
    features = np.concatenate([scores, standardised(scores**2)], axis=1)
    factor = len(targets) / OF_TOGETHER
    rows = []
    for target in targets:
        here, patients = features[target.rows], clusters[target.rows]
        stream = [seed, *f"cues together {target.label}".encode()]
        p = linked_together(here, target.values, patients, permutations=enough(permutations, factor), seed=stream)
        e = told_together(here, target.values, patients, seed=stream)
        row = (TOGETHER, target.label, target.split, e.value, e.low, e.high, min(p * factor, 1.0), e.n, e.n_clusters)
        rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def enough(permutations: int, factor: float) -> int:
    """As many permutations as it takes for the smallest p-value, times `factor`, to be below ALARM with some room."""
    return max(permutations, int(np.ceil(1.25 * factor / ALARM)))


def each_alone(
    cohort: Cohort, table: pd.DataFrame, values: pd.DataFrame, targets: dict[tuple[str, str], Target]
) -> Iterator[Concern]:
    """A concern for each property that tells a label clearly, with those that say the same; one for all weak ones."""
    found = strongest(table)
    ranks = values[list(found["property"])].rank()
    # Inside the classes: two properties that have nothing in common but the label are two findings.
    inside = ranks - ranks.groupby(classes_of(cohort)).transform("mean")
    alike = inside.corr().abs().to_numpy() >= SAME_THING
    left = [int(i) for i in np.flatnonzero(found["size"] >= LOOK_FROM)]
    while left:
        along = [i for i in left[1:] if alike[left[0], i]]
        row = found.iloc[left[0]]
        target = targets[row["label"], row["split"]]
        yield about(row, found.iloc[along], table[table["property"] == row["property"]], target, cohort, values)
        left = [i for i in left[1:] if i not in along]
    weak = found[found["size"] < LOOK_FROM]
    if len(weak):
        more = f" and {len(weak) - LISTED} more" if len(weak) > LISTED else ""
        yield Concern(
            Seriousness.NOTE,
            f"Weakly tied to a label (AUROC {NOTE_FROM} to {LOOK_FROM}): {_named(weak[:LISTED])}{more}.",
            "Nothing to mend by itself. A classifier can use it; keep it in mind where classes are hard to tell.",
            strength=float(2 * weak["size"].max() - 1),
            n_images=int(weak["images"].max()),
            table=weak[list(COLUMNS)],
        )


def strongest(table: pd.DataFrame) -> pd.DataFrame:
    """Of each property the row of the label that it tells best, if that is clear, strongest first.

    Adds `size`, the AUROC or its mirror image, whichever is above 0.5, and `least`, its lower end.
    A split speaks for itself only where it differs clearly from the whole: small splits show large values by luck.
    """
    table = with_size(table)
    whole = table[table["split"] == EVERYWHERE].set_index(["property", "label"])["auroc"]
    of_whole = table.merge(whole.rename("whole").reset_index(), how="left")["whole"].to_numpy()
    is_own = (table["auroc"] - of_whole).abs() >= APART
    is_own &= ~((table["low"] <= of_whole) & (of_whole <= table["high"]))
    clear = (table["p"] <= ALARM) & (table["size"] >= NOTE_FROM) & ((table["split"] == EVERYWHERE) | is_own)
    ordered = table[clear].sort_values("size", ascending=False, kind="stable")
    return ordered.drop_duplicates("property")


def with_size(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `size` and `least`, see `strongest`; an AUROC of exactly 0 or 1 has no interval and is sure."""
    rises = table["auroc"] >= 0.5
    least = table["low"].where(rises, 1 - table["high"])
    size = table["auroc"].where(rises, 1 - table["auroc"])
    return table.assign(size=size, least=least.fillna(size))


def about(
    row: pd.Series, along: pd.DataFrame, everywhere: pd.DataFrame, target: Target, cohort: Cohort, values: pd.DataFrame
) -> Concern:
    """The concern about one property. row: its strongest. along: properties that say the same. everywhere: its rows."""
    name, rising = str(row["property"]), row["auroc"] >= 0.5
    where = "" if target.split == EVERYWHERE else f" in {target.split}"
    way = "higher" if rising else "lower"
    if target.is_graded:
        told, way = f"orders the grades{where} with concordance", f"{way} with the grade"
    else:
        told, way = f"tells {target.label} from {target.other}{where} with AUROC", f"{way} in {target.label}"
    title = f"{name[0].upper()}{name[1:]} alone {told} {_estimate(row)}; it is {way}."
    title += _between_splits(everywhere[everywhere["label"] == target.label], rising=rising)
    if len(along):
        title += f" With it {'goes' if len(along) == 1 else 'go'} {_named(along)}."
    hint = HINTS.get(name)
    advice = "It could be the disease, it could be the scanner: look at the images."
    if hint:
        advice += f" If it is not the disease, think of {hint}; make that alike in all classes, or compare within it."
    return Concern(
        Seriousness.SERIOUS if row["least"] >= SERIOUS_FROM else Seriousness.LOOK,
        title,
        advice,
        strength=min(2 * float(row["size"]) - 1, 1.0),
        n_images=int(row["images"]),
        examples=_examples(values[name].to_numpy(), name, target, cohort.patient_codes(), rising=bool(rising)),
        table=everywhere,
    )


def all_together(together: pd.DataFrame, alone: pd.DataFrame, n_properties: int) -> Iterator[Concern]:
    """A concern for the label that all properties together tell best, when they tell it well."""
    clear = together[(together["p"] <= ALARM) & (together["auroc"] >= TOGETHER_FROM)]
    if len(clear) == 0:
        return
    best = with_size(clear).sort_values("size", ascending=False, kind="stable").iloc[0]
    single = with_size(alone[(alone["label"] == best["label"]) & (alone["split"] == EVERYWHERE)])["size"].max()
    yield Concern(
        Seriousness.LOOK,
        f"All {n_properties} properties together tell {best['label']} with AUROC {_estimate(best)} on patients that "
        f"the probe has not seen; the best one alone with {single:.2f}.",
        "A classifier that does not beat this has shown little about the disease. Part of it may be the disease.",
        strength=float(2 * best["auroc"] - 1),
        n_images=int(best["images"]),
        table=together,
    )


def _between_splits(parts: pd.DataFrame, *, rising: bool) -> str:
    """The two splits that differ most, where chance does not explain the difference; else nothing."""
    parts = parts[parts["split"] != EVERYWHERE].dropna().sort_values("auroc", ascending=not rising)
    if len(parts) < 2:
        return ""
    least, most = parts.iloc[0], parts.iloc[-1]
    by_chance = np.hypot(most["high"] - most["low"], least["high"] - least["low"]) / 2
    if abs(most["auroc"] - least["auroc"]) < max(APART, by_chance):
        return ""
    there, here = (part["auroc"] if rising else 1 - part["auroc"] for part in (most, least))
    return f" The splits differ: {there:.2f} in {most['split']}, {here:.2f} in {least['split']}."


def _examples(values: NDArray, name: str, target: Target, clusters: NDArray, *, rising: bool) -> tuple[Example, ...]:
    """Clear images of both sides, one a patient: near the 90th percentile where the property is high, near the 10th
    where it is low. The most extreme ones are often broken images of neither kind.
    """
    names = ("the highest grade", "the lowest grade") if target.is_graded else (target.label, target.other)
    ends = (target.values.max(), target.values.min())
    shown = []
    for end, label, is_high in zip(ends, names, (rising, not rising), strict=True):
        rows = target.rows[target.values == end]
        wanted = np.quantile(values[rows], 0.9 if is_high else 0.1)
        rows = rows[np.argsort(np.abs(values[rows] - wanted), kind="stable")]
        rows = rows[np.sort(np.unique(clusters[rows], return_index=True)[1])][:SHOWN]
        caption = f"{label}, {'high' if is_high else 'low'} {name} (near {wanted:.3g})"
        shown.append(Example(tuple(int(r) for r in rows), caption))
    return tuple(shown)


def _estimate(row: pd.Series) -> str:
    """ "0.82 (0.79 to 0.85)", above 0.5 whatever the direction."""
    value, ends = row["auroc"], sorted((row["low"], row["high"]))
    if value < 0.5:
        value, ends = 1 - value, [1 - ends[1], 1 - ends[0]]
    return f"{value:.2f}" + ("" if np.isnan(ends[0]) else f" ({ends[0]:.2f} to {ends[1]:.2f})")


def _named(rows: pd.DataFrame) -> str:
    """ "noise (opacity, 0.68), contrast (opacity in test, 0.71)"."""
    places = np.where(rows["split"] == EVERYWHERE, "", " in " + rows["split"])
    return ", ".join(
        f"{name} ({label}{place}, {size:.2f})"
        for name, label, place, size in zip(rows["property"], rows["label"], places, rows["size"], strict=True)
    )
