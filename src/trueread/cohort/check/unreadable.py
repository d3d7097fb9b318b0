"""Which files could not be read, and whether they are so many that what is left is another cohort."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trueread.cohort.check.base import Answer, Check, Concern, Seriousness, check
from trueread.cohort.cohort import Cohort


@check("unreadable")
class Unreadable(Check):
    """Files that could not be read and were left out."""

    question = "Could every file be read?"

    def __init__(self, *, serious_share: Annotated[float, Field(ge=0, le=1)] = 0.05) -> None:
        """serious_share: of the files; more than that unreadable is serious, any other number worth a look."""
        self.serious_share = serious_share

    def run(self, cohort: Cohort, *, seed: int = 0) -> Answer:
        n_lost, n_files = len(cohort.omitted), len(cohort) + len(cohort.omitted)
        looked_at = f"{n_files:,} files"
        if n_lost == 0:
            return self.answer(looked_at)
        share = n_lost / n_files
        n_reasons = cohort.omitted["reason"].value_counts()
        common, times = str(n_reasons.index[0]), int(n_reasons.iloc[0])
        why = f"all: {common}" if times == n_lost else f"most often ({times:,} times): {common}"
        concern = Concern(
            Seriousness.SERIOUS if share > self.serious_share else Seriousness.LOOK,
            f"{n_lost:,} of {n_files:,} files ({100 * share:.2g} %) could not be read and are left out; {why}.",
            "Export these files again, or be sure that they are missing at random: when the broken files are all of "
            "one site or one class, the rest is another cohort.",
            strength=share,
            n_images=n_lost,
            table=cohort.omitted,
        )
        return self.answer(looked_at, concern)
