"""Are the intensities what they should be? Empty, clipped, posterised, inverted images, and unused or mixed ranges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from trueread.cohort.check.base import Answer, Check, Concern, Example, Seriousness, check
from trueread.cohort.check.properties import PIXELS_AT_A_TIME, SMALLEST, measure, thumbnails
from trueread.cohort.check.targets import MINIMUM_PATIENTS
from trueread.cohort.cohort import SPLITS, Cohort
from trueread.progress import track
from trueread.stats.association import concordance, linked

EMPTY_SHARE = 0.95  # of the pixels that hold one value
CLIPPED_SHARE = 0.05  # of the values (of all channels) at white
FEW_LEVELS = 16  # distinct values in an image; a photograph of 28 x 28 pixels has more than a hundred
UNUSED = 0.5  # of the range: nothing in the whole cohort is brighter
DIM = 0.25  # of the cohort's typical bright end: 10 bits among 12 is 0.25, 12 among 16 is 0.06
GREY_TOLERANCE = 2 / 255  # between the channels of a grey picture that was stored as a colour JPEG
USUAL = 0.5  # what more than this share of the images show is how the cohort is, and no fault of single images
ALIKE = 0.5  # correlation with the typical image that nine of ten images reach, or their negatives do
CLEARLY = 0.8  # of that correlation below 0 makes an image inverted: a tenth of them would else be missed
THUMBNAIL, THUMBNAIL_3D = 16, 8  # side in pixels
SPLITS_APART = 0.7  # AUROC with which brightness or contrast tells one split from another
ALARM = 0.05  # the chance that splits of like images alarm
SHOWN = 8

DARK_END, BRIGHT_END = "least", "greatest"


@check("intensities")
class Intensities(Check):
    """Images that are constant, nearly empty, clipped, posterised, inverted or of another range than the others."""

    question = "Are the intensities what they should be?"

    def __init__(self, *, permutations: Annotated[int, Field(ge=200, le=100_000)] = 1000) -> None:
        """permutations: of patients, when splits are compared."""
        self.permutations = permutations

    def run(self, cohort: Cohort, *, seed: int = 0) -> Answer:
        table = intensity_table(cohort)
        inverted, looked = inverted_images(cohort)
        concerns = [
            *constant(table),
            *nearly_empty(table),
            *posterised(table),
            *clipped(table, inverted),
            *unused_range(table, cohort),
            *dim_images(table),
            *negatives(inverted, table),
            *grey_in_colour(table, cohort),
            *between_splits(cohort, permutations=self.permutations, seed=seed),
        ]
        spread = f"{table[DARK_END].min():,} to {table[BRIGHT_END].max():,} of {cohort.white:,}"
        return self.answer(f"The intensities of {len(cohort):,} images, {spread}. {looked}", *concerns, table=table)


def intensity_table(cohort: Cohort) -> pd.DataFrame:
    """A row for each image: `id`, `least` and `greatest` stored value, `range`, `bright end` (99th percentile),
    `one value` (share of the commonest value, exact from 0.5 on), `levels` (distinct values), `at white` (share), and
    for colour `colour` (the largest difference between channels). Of several channels the liveliest counts.
    """
    at_a_time = max(1, PIXELS_AT_A_TIME // int(np.prod(cohort.images.shape[1:])))
    starts = range(0, len(cohort), at_a_time)
    parts = [
        _of_chunk(cohort.images[start : start + at_a_time], cohort.white)
        for start in track(starts, what=f"intensities of {cohort.name}", unit="parts")
    ]
    table = pd.concat(parts, ignore_index=True)
    table.insert(0, "id", cohort.table["id"])
    return table


def _of_chunk(images: NDArray, white: int) -> pd.DataFrame:
    ascending = np.sort(images.reshape(*images.shape[:2], -1), axis=2)  # [n,C,pixels]
    n_pixels = ascending.shape[2]
    least, greatest = ascending[:, :, 0].astype(np.int64), ascending[:, :, -1].astype(np.int64)
    # A value that more than half of the pixels hold is the median: counting it needs no histogram of 65,536 values.
    same = (ascending == ascending[:, :, n_pixels // 2, None]).mean(axis=2)
    levels = (ascending[:, :, 1:] != ascending[:, :, :-1]).sum(axis=2) + 1
    columns = {
        DARK_END: least.min(axis=1),
        BRIGHT_END: greatest.max(axis=1),
        "range": (greatest - least).max(axis=1),
        "bright end": ascending[:, :, int(0.99 * (n_pixels - 1))].max(axis=1).astype(np.int64),
        "one value": same.min(axis=1),
        "levels": levels.max(axis=1),
        "at white": (ascending == white).mean(axis=(1, 2)),
    }
    if images.shape[1] == 3:
        flat = images.reshape(len(images), 3, -1)
        columns["colour"] = (flat.max(axis=1) - flat.min(axis=1)).max(axis=1).astype(np.int64)
    return pd.DataFrame(columns)


def constant(table: pd.DataFrame) -> Iterator[Concern]:
    found = table[table["range"] == 0]
    if len(found):
        yield _concern(
            Seriousness.SERIOUS, found, table, "{images} {hold} a single value and {show} nothing.",
            "Export them again, or leave them out: a classifier learns to give empty images their label.",
        )  # fmt: skip


def nearly_empty(table: pd.DataFrame) -> Iterator[Concern]:
    found = table[_is_empty(table)]
    yield from _odd_or_usual(
        found, found, table, "one value",
        f"{{images}} {{hold}} one value in at least {100 * EMPTY_SHARE:.0f} % of the pixels.",
        "Look whether anything is left to see: a failed export, a crop that missed, or a mask among the images.",
    )  # fmt: skip


def posterised(table: pd.DataFrame) -> Iterator[Concern]:
    found = table[_has_few_levels(table)]
    yield from _odd_or_usual(
        found, found[~_is_empty(found)], table, "levels", f"{{images}} {{hold}} {FEW_LEVELS} grey levels or fewer.",
        "Look whether they were saved with a palette, or are masks. Export them again with all their bits.",
    )  # fmt: skip


def clipped(table: pd.DataFrame, inverted: NDArray[np.int64]) -> Iterator[Concern]:
    explained = _has_few_levels(table) | _is_empty(table) | table.index.isin(inverted)
    found = table[(table["at white"] >= CLIPPED_SHARE) & ~explained]
    yield from _odd_or_usual(
        found, found, table, "at white",
        f"{{images}} {{have}} at least {100 * CLIPPED_SHARE:.0f} % of their values at white.",
        "What was brighter is lost. Look whether it is a white background, or a window that was set too narrow.",
    )  # fmt: skip


def _is_empty(table: pd.DataFrame) -> pd.Series:
    return (table["one value"] >= EMPTY_SHARE) & (table["range"] > 0)


def _has_few_levels(table: pd.DataFrame) -> pd.Series:
    return (table["levels"] <= FEW_LEVELS) & (table["range"] > 0)


def unused_range(table: pd.DataFrame, cohort: Cohort) -> Iterator[Concern]:
    brightest = int(table[BRIGHT_END].max())
    if 0 < brightest <= UNUSED * cohort.white:
        bits = brightest.bit_length()
        fitting = 2**bits - 1
        yield Concern(
            Seriousness.LOOK,
            f"No image is brighter than {brightest:,} of {cohort.white:,}: {bits} bits would do.",
            f"If the detector has {bits} bits, give white={fitting}; pretrained weights expect the whole range.",
            strength=1 - brightest / cohort.white,
            n_images=len(cohort),
        )


def dim_images(table: pd.DataFrame) -> Iterator[Concern]:
    typical = float(table["bright end"].median())
    found = table[(table["bright end"] < DIM * typical) & (table["range"] > 0) & (table["one value"] < EMPTY_SHARE)]
    if len(found):
        yield _concern(
            Seriousness.LOOK, found.sort_values("bright end", kind="stable"), table,
            f"{{images}} {{reach}} less than a quarter of the usual brightness (99th percentile below "
            f"{DIM * typical:,.0f}, usually {typical:,.0f}).",
            "Look whether files of other bits were mixed in, or exported without their window.",
        )  # fmt: skip


def inverted_images(cohort: Cohort) -> tuple[NDArray[np.int64], str]:
    """Rows of images whose negative looks like the others, clearest first, and a sentence about how it was looked for.

    Each image's thumbnail is correlated with the median thumbnail. Where nine of ten images reach a correlation of 0.5
    or more, with either sign, an image is inverted when its correlation is 0.8 times as far below 0 as theirs is above.
    """
    side = THUMBNAIL_3D if cohort.is_volume else THUMBNAIL
    small = thumbnails(cohort, side=side).mean(axis=1).reshape(len(cohort), -1)
    typical = _unit(np.median(_unit(small), axis=0)[None])[0]
    correlation = _unit(small) @ typical
    usual = float(np.quantile(np.abs(correlation), 0.1))
    if len(cohort) < SHOWN or usual < ALIKE:
        return np.empty(0, np.int64), "Inverted images were not looked for: too few, or too unlike each other."
    rows = np.flatnonzero(correlation <= -CLEARLY * usual)
    return rows[np.argsort(correlation[rows], kind="stable")], "Inverted images were looked for."


def _unit(rows: NDArray) -> NDArray:
    """[n,D] rows with mean 0 and length 1; 0 where a row is constant."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.divide(centred, length, out=np.zeros_like(centred), where=length > 1e-6)


def negatives(rows: NDArray[np.int64], table: pd.DataFrame) -> Iterator[Concern]:
    if len(rows):
        yield _concern(
            Seriousness.LOOK, table.iloc[rows], table, "{images} {look} inverted: the negative looks like the others.",
            "Invert them (DICOM: PhotometricInterpretation MONOCHROME1). A classifier takes inversion for a finding.",
        )  # fmt: skip


def grey_in_colour(table: pd.DataFrame, cohort: Cohort) -> Iterator[Concern]:
    if "colour" not in table:
        return
    grey = table[(table["colour"] <= GREY_TOLERANCE * cohort.white) & (table["range"] > 0)]
    if len(grey) == len(table):
        yield Concern(
            Seriousness.NOTE,
            "All images have three channels and no colour.",
            "Read them with channels=1: the same pictures in a third of the memory.",
            n_images=len(table),
        )
    elif len(grey):
        yield _concern(
            Seriousness.LOOK, grey, table, "{images} {are} grey among images in colour.",
            "Look whether they come from another device. If all should be grey, read with channels=1.",
        )  # fmt: skip


def between_splits(cohort: Cohort, *, permutations: int, seed: int) -> Iterator[Concern]:
    """Brightness and contrast of val and test against train, patients exchanged."""
    split, clusters = cohort.table["split"].to_numpy(), cohort.patient_codes()
    pairs = [s for s in SPLITS[1:] if _n_patients(clusters, split == s) >= MINIMUM_PATIENTS]
    if not pairs or _n_patients(clusters, split == "train") < MINIMUM_PATIENTS or min(cohort.spatial[-2:]) < SMALLEST:
        return
    values = measure(cohort)[["brightness", "contrast"]].to_numpy()
    for other in pairs:
        rows = np.flatnonzero((split == "train") | (split == other))
        there = (split[rows] == other).astype(float)
        stream = [seed, *f"intensities {other}".encode()]
        found = linked(values[rows], there, clusters[rows], permutations=permutations, seed=stream)
        estimates = concordance(values[rows], there, clusters[rows])
        for name, estimate, p in zip(("brightness", "contrast"), estimates, found.p_adjusted, strict=True):
            size = max(estimate.value, 1 - estimate.value)
            if p * len(pairs) <= ALARM and size >= SPLITS_APART:
                way = "higher" if estimate.value > 0.5 else "lower"
                yield Concern(
                    Seriousness.LOOK,
                    f"{name.capitalize()} is {way} in {other} than in train: AUROC {size:.2f} between the two.",
                    f"Results on {other} are about other images than those that were learned from. Look whether the "
                    "splits are of different sites, devices or years, or were exported differently.",
                    strength=min(2 * size - 1, 1.0),
                    n_images=int(there.sum()),
                    examples=_typical(values[:, ("brightness", "contrast").index(name)], split, ("train", other), name),
                )


def _typical(values: NDArray, split: NDArray, names: tuple[str, str], what: str) -> tuple[Example, ...]:
    """Of each split the images that are nearest to its median."""
    shown = []
    for name in names:
        rows = np.flatnonzero(split == name)
        median = float(np.median(values[rows]))
        nearest = rows[np.argsort(np.abs(values[rows] - median), kind="stable")][: SHOWN // 2]
        shown.append(Example(tuple(int(r) for r in nearest), f"{name}: median {what} {median:.2f}"))
    return tuple(shown)


def _n_patients(clusters: NDArray, member: NDArray) -> int:
    return len(np.unique(clusters[member]))


def _odd_or_usual(
    found: pd.DataFrame, odd: pd.DataFrame, table: pd.DataFrame, by: str, title: str, advice: str
) -> Iterator[Concern]:
    """A note when most images are as `found`, because then that is how this cohort is; else `odd` is worth a look."""
    usual = len(found) > USUAL * len(table)
    shown = (found if usual else odd).sort_values(by, ascending=by == "levels", kind="stable")
    if usual:
        yield _concern(Seriousness.NOTE, shown, table, title, "That is how these images are: masks or cut-outs?")
    elif len(odd):
        yield _concern(Seriousness.LOOK, shown, table, title, advice)


VERBS = {"hold": "holds", "show": "shows", "have": "has", "reach": "reaches", "look": "looks", "are": "is"}


def _concern(seriousness: Seriousness, found: pd.DataFrame, table: pd.DataFrame, title: str, advice: str) -> Concern:
    """A concern about the rows `found` of `table`, in order. title: with {images} and plural verbs to fill in."""
    n = len(found)
    verbs = {plural: singular if n == 1 else plural for plural, singular in VERBS.items()}
    rows = tuple(int(i) for i in found.index[:SHOWN])
    return Concern(
        seriousness,
        title.format(images=f"{n:,} of {len(table):,} images", **verbs),
        advice,
        strength=n / len(table),
        n_images=n,
        examples=(Example(rows, "the clearest" if n > 1 else ""),),
        table=found,
    )
