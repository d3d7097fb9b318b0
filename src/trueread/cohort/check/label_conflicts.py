"""Does any image carry two labels? One of them is wrong, and no classifier can learn both."""

from __future__ import annotations

import numpy as np
import pandas as pd

from trueread.cohort.check.base import Answer, Check, Concern, Seriousness, check
from trueread.cohort.check.copies import copies_of
from trueread.cohort.check.duplicates import cases, n_pairs, rows_of, shown, what_was_compared
from trueread.cohort.check.likeness import COPY
from trueread.cohort.cohort import Cohort


@check("label-conflicts")
class LabelConflicts(Check):
    """Copies of one image under two labels."""

    question = "Does any image carry two labels?"

    def run(self, cohort: Cohort, *, seed: int = 0) -> Answer:
        copies = copies_of(cohort, seed=seed)
        pairs = copies.pairs[copies.pairs["alike"] >= COPY]
        pairs = pairs[disagree(cohort, pairs)]
        kinds = (
            (Seriousness.SERIOUS, pairs[pairs["exact"]], "equal images"),
            (Seriousness.LOOK, pairs[~pairs["exact"]], "altered copies"),
        )
        concerns = (_concern(cohort, how_bad, found, what) for how_bad, found, what in kinds if len(found))
        return self.answer(what_was_compared(copies, cohort), *concerns)


def disagree(cohort: Cohort, pairs: pd.DataFrame) -> np.ndarray:
    """bool [n]: whether the images of a pair have different labels; of several labels one that is known of both."""
    first, second = cohort.labels[pairs["row"]], cohort.labels[pairs["other"]]
    if cohort.task != "multilabel":
        return np.asarray(first != second)
    return np.asarray(((first != second) & ~np.isnan(first) & ~np.isnan(second)).any(axis=1))


def _concern(cohort: Cohort, seriousness: Seriousness, pairs: pd.DataFrame, what: str) -> Concern:
    labels = pd.Series([_both(cohort, *p) for p in pairs[["row", "other"]].itertuples(index=False, name=None)])
    common = ", ".join(f"{n:,} times {name}" for name, n in labels.value_counts()[:3].items())
    more = f" and {labels.nunique() - 3} other combinations" if labels.nunique() > 3 else ""
    return Concern(
        seriousness,
        f"{n_pairs(pairs)} of {what} under two labels: {common}{more}.",
        "At least one of the two is wrong. Have them read again, then correct the label or leave both out.",
        strength=min(1.0, 0.5 + len(pairs) / len(cohort)),
        n_images=len(rows_of(pairs)),
        examples=shown(pairs),
        table=cases(pairs).assign(labels=np.repeat(labels.to_numpy(), 2)),
    )


def _both(cohort: Cohort, row: int, other: int) -> str:
    """ "normal and pneumonia"; of several labels those that differ."""
    if cohort.task == "multilabel":
        first, second = cohort.labels[row], cohort.labels[other]
        differ = (first != second) & ~np.isnan(first) & ~np.isnan(second)
        return " and ".join(f"{cohort.classes[k]} or not" for k in np.flatnonzero(differ))
    return " and ".join(cohort.classes[k] for k in sorted({int(cohort.labels[row]), int(cohort.labels[other])}))
