"""Is any image there twice? Copies in two splits make a test easier than it is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from trueread.cohort.check.base import Answer, Check, Concern, Example, Seriousness, check
from trueread.cohort.check.copies import ALIKE, Copies, copies_of
from trueread.cohort.check.likeness import COPY
from trueread.cohort.cohort import SPLITS, Cohort

SHOWN = 8  # pairs of each kind
APART = "Keep one of each, or give both the same patient, and split anew."


@check("duplicates")
class Duplicates(Check):
    """Images that are there twice, pixel for pixel or altered, across splits and within them."""

    question = "Is any image there twice?"

    def run(self, cohort: Cohort, *, seed: int = 0) -> Answer:
        copies = copies_of(cohort, seed=seed)
        pairs = with_sides(copies.pairs, cohort)
        exact, near = pairs["exact"], ~pairs["exact"] & (pairs["alike"] >= COPY)
        parted, strangers = pairs["parted"], ~pairs["one patient"]
        concerns = [
            *_parted(pairs[exact & parted], cohort, "equal images", Seriousness.SERIOUS),
            *_parted(pairs[near & parted], cohort, "altered copies", how_serious(copies)),
            *_strangers(pairs[(exact | near) & ~parted & strangers], cohort),
            *_alike(pairs[~exact & ~near & strangers], cohort),
            *_repeated(pairs[exact & ~parted & ~strangers], cohort),
        ]
        return self.answer(what_was_compared(copies, cohort), *concerns)


def with_sides(pairs: pd.DataFrame, cohort: Cohort) -> pd.DataFrame:
    """The pairs with `split`, `split of other`, `parted` (whether they are in two splits), and `one patient`."""
    split, patient = cohort.table["split"].to_numpy(), cohort.patient_codes()
    first, second = split[pairs["row"]], split[pairs["other"]]
    return pairs.assign(
        **{
            "split": first,
            "split of other": second,
            "parted": (first != second) & (first != "") & (second != ""),
            "one patient": patient[pairs["row"]] == patient[pairs["other"]],
        }
    )


def what_was_compared(copies: Copies, cohort: Cohort) -> str:
    """ "5,216 images pixel for pixel; 13.6 million pairs ...": what a search looked at and how much of it it finds."""
    exact = f"{len(cohort):,} images pixel for pixel"
    if copies.reason:
        return f"{exact}; {copies.reason}."
    n = copies.n_compared
    how_many = f"{n / 1e6:,.1f} million pairs" if n >= 1e6 else f"{n:,} pairs"
    return (
        f"{exact}; {how_many} for altered copies. Of {copies.n_planted} planted ones (mirrored or turned by quarters, "
        f"turned by up to 10°, cropped by up to 10 %, brightened or darkened, noisy) it finds {copies.n_found}."
    )


def cases(pairs: pd.DataFrame) -> pd.DataFrame:
    """A line for each image: `row`, the number of its pair, and what the pair has in common."""
    numbered = pairs.assign(pair=np.arange(1, len(pairs) + 1))
    both = pd.concat([numbered, numbered.assign(row=numbered["other"])])
    return both.sort_values("pair", kind="stable")[["row", "pair", "alike", "how"]].reset_index(drop=True)


def shown(pairs: pd.DataFrame) -> tuple[Example, ...]:
    """The first pairs beside each other."""
    columns = (pairs[name][:SHOWN] for name in ("row", "other", "how", "exact", "alike"))
    return tuple(
        Example((int(row), int(other)), how if exact else f"{how}, alike {alike:.2f}")
        for row, other, how, exact, alike in zip(*columns, strict=True)
    )


def n_pairs(pairs: pd.DataFrame) -> str:
    """ "1 pair", "3 pairs"."""
    return f"{len(pairs):,} {'pair' if len(pairs) == 1 else 'pairs'}"


def rows_of(pairs: pd.DataFrame) -> pd.Index:
    """Every image that is in one of the pairs."""
    return pd.Index(pairs["row"]).union(pd.Index(pairs["other"]))


def how_serious(copies: Copies) -> Seriousness:
    """Of altered copies in two splits: a search that misses most of what was planted may find what is none."""
    return Seriousness.SERIOUS if 2 * copies.n_found >= copies.n_planted else Seriousness.LOOK


def _parted(pairs: pd.DataFrame, cohort: Cohort, what: str, seriousness: Seriousness) -> Iterator[Concern]:
    if len(pairs) == 0:
        return
    sides = pairs[["split", "split of other"]].apply(lambda p: " and ".join(sorted(p, key=SPLITS.index)), axis=1)
    per_side = ", ".join(f"{n:,} in {name}" for name, n in sides.value_counts().items())
    yield Concern(
        seriousness,
        f"{n_pairs(pairs)} of {what} in two splits: {per_side}.",
        f"What is tested was seen in training or in choosing the model, so the numbers are too good. {APART}",
        strength=min(1.0, 0.5 + len(rows_of(pairs)) / len(cohort)),
        n_images=len(rows_of(pairs)),
        examples=shown(pairs),
        table=cases(pairs),
    )


def _strangers(pairs: pd.DataFrame, cohort: Cohort) -> Iterator[Concern]:
    if len(pairs) == 0:
        return
    n_exact = int(pairs["exact"].sum())
    of_whom = " of different patients" if cohort.patients_known else ""
    where = "within a split" if cohort.is_split else "that a split may part"
    yield Concern(
        Seriousness.LOOK,
        f"{n_pairs(pairs)} of copies{of_whom} {where} ({n_exact:,} equal pixel for pixel).",
        f"They count twice, and intervals are too narrow. {APART}",
        strength=min(1.0, 0.2 + len(rows_of(pairs)) / len(cohort)),
        n_images=len(rows_of(pairs)),
        examples=shown(pairs),
        table=cases(pairs),
    )


def _alike(pairs: pd.DataFrame, cohort: Cohort) -> Iterator[Concern]:
    if len(pairs) == 0:
        return
    yield Concern(
        Seriousness.LOOK,
        f"{n_pairs(pairs)} of very alike images ({ALIKE} to {COPY} with one laid on the other; "
        f"{pairs['parted'].sum():,} in two splits): copies, one patient under two names, or chance.",
        "Look at the pairs. Where it is one patient or one lesion, give both the same patient.",
        strength=min(1.0, 0.1 + 0.5 * len(rows_of(pairs)) / len(cohort)),
        n_images=len(rows_of(pairs)),
        examples=shown(pairs),
        table=cases(pairs),
    )


def _repeated(pairs: pd.DataFrame, cohort: Cohort) -> Iterator[Concern]:
    if len(pairs) == 0:
        return
    yield Concern(
        Seriousness.NOTE,
        f"{n_pairs(pairs)} of equal images of one patient in one split.",
        "They weigh twice in training and in what is measured. Keep one of each.",
        strength=len(rows_of(pairs)) / len(cohort),
        n_images=len(rows_of(pairs)),
        examples=shown(pairs),
        table=cases(pairs),
    )
