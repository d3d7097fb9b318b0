"""Checks that find what they are told to find, for tests of what happens to their answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

import pandas as pd

from trueread.cohort.check import CHECKS, Answer, Check, Concern, Example, Seriousness
from trueread.cohort.cohort import Cohort
from trueread.errors import NotMeasured
from trueread.registry import Entry

SERIOUS, LOOK, NOTE = Seriousness.SERIOUS, Seriousness.LOOK, Seriousness.NOTE


def concern(kind: Seriousness = LOOK, strength: float = 0.5, title: str = "Something.", **parts: object) -> Concern:
    return Concern(kind, title, "Look into it.", strength, **parts)  # type: ignore[arg-type]


class Finds(Check):
    """Answers with the concerns that it was made with, and remembers the seeds that it was given."""

    def __init__(self, name: str, *concerns: Concern, table: pd.DataFrame | None = None) -> None:
        self.name, self.question = name, f"Is there {name}?"  # type: ignore[misc]
        self.concerns, self.table, self.seeds = concerns, table, list[int]()

    def run(self, cohort: Cohort, *, seed: int = 0) -> Answer:
        self.seeds.append(seed)
        return self.answer(f"{len(cohort)} images", *self.concerns, table=self.table)


class CannotSay(Check):
    """Has no answer."""

    name, question = "blind", "What colour is it?"

    def run(self, cohort: Cohort, *, seed: int = 0) -> Answer:
        raise NotMeasured("nobody said what colour is.")


def three_kinds() -> list[Check]:
    """A serious concern with pairs and cases, one worth a look with a measured table, silence, and a lack."""
    twins = concern(
        SERIOUS, 0.9, "2 pairs are twins.", n_images=4, examples=(Example((3, 7), "The first pair."), Example((1, 2))),
        table=pd.DataFrame({"row": [3, 7, 1, 2], "distance": [0.0, 0.0, 0.25, 0.25]}),
    )  # fmt: skip
    cue = concern(LOOK, 0.4, "Brightness gives the label away.", n_images=0)
    cues = pd.DataFrame({"property": [f"cue {k}" for k in range(15)], "AUROC": [0.9 - k / 50 for k in range(15)]})
    return [CannotSay(), Finds("cues", cue, table=cues), Finds("quiet"), Finds("twins", twins)]


@contextmanager
def registered(checks: Sequence[Check]) -> Iterator[None]:
    """These are all the checks there are."""
    CHECKS.entries()
    entries = {c.name: Entry(c.name, _giving(c), type(c).__doc__ or "", "") for c in checks}
    with mock.patch.object(CHECKS, "_entries", entries):
        yield


def _giving(made: Check):
    def factory() -> Check:
        return made

    return factory
