"""Checks: questions asked of the data before anything is trained, and what they answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

import pandas as pd

from trueread.cohort.cohort import Cohort
from trueread.registry import Registry

CHECKS: Registry[Check] = Registry("check", "checks", package="trueread.cohort.check")
check = CHECKS.register


class Seriousness(StrEnum):
    """What a concern means for a study on these data."""

    SERIOUS = "serious"  # results would be wrong: mend it first
    LOOK = "worth a look"  # may be wrong: a person has to judge
    NOTE = "note"  # good to know when the numbers are read


@dataclass(frozen=True)
class Example:
    """Images to show side by side. rows: positions in the cohort. caption: a line under them."""

    rows: tuple[int, ...]
    caption: str = ""


@dataclass(frozen=True)
class Concern:
    """One thing that a check found.

    title: one sentence with its numbers. advice: what to do about it. strength: in [0,1], ranks concerns of the same
    seriousness. n_images: how many images it touches. examples: the clearest first. table: every case, a row each.
    """

    seriousness: Seriousness
    title: str
    advice: str
    strength: float = 0.0
    n_images: int = 0
    examples: tuple[Example, ...] = ()
    table: pd.DataFrame | None = None


@dataclass(frozen=True)
class Answer:
    """What a check says.

    looked_at: what was compared or measured, so that silence can be judged ("13.6 million pairs of 5,216 images").
    concerns: none is good news. reason: completes "not checked, because ..." when the check could not be made, else "".
    table: what was measured whether or not it is a concern (all cues with effect and p-value), or None.
    """

    check: str
    question: str
    looked_at: str = ""
    concerns: tuple[Concern, ...] = ()
    reason: str = ""
    table: pd.DataFrame | None = None
    seconds: float = field(default=0.0, compare=False)


class Check:
    """A question asked of a cohort, split or not. It reads the cohort and changes nothing.

    `run` answers; it raises NotMeasured with the words that complete "not checked, because ...".
    """

    name: ClassVar[str] = ""
    question: ClassVar[str] = ""

    def run(self, cohort: Cohort, *, seed: int = 0) -> Answer:
        """Answer the question about `cohort`. seed: of permutations and folds."""
        raise NotImplementedError

    def answer(self, looked_at: str, *concerns: Concern, table: pd.DataFrame | None = None) -> Answer:
        """An Answer that carries this check's name and question."""
        return Answer(self.name, self.question, looked_at, concerns, table=table)
