"""Asks checks of a cohort, one after the other, and ranks what they found."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from trueread.cohort.check.base import CHECKS, Answer, Check, Concern, Seriousness
from trueread.cohort.cohort import Cohort
from trueread.errors import InputError, NotMeasured
from trueread.progress import track

Names = str | Sequence[str | Mapping[str, Any]]


def build_checks(names: Names = "all") -> list[Check]:
    """Checks by name, with options as mappings ({"name": "unreadable", "serious_share": 0.1}); "all" is every one.

    Raises InputError for an unknown name or option, and for a check that is asked twice.
    """
    if names == "all":
        return [CHECKS.build(entry.name) for entry in CHECKS.entries()]
    wanted = [n.strip() for n in names.split(",")] if isinstance(names, str) else names
    built = []
    for given in wanted:
        options = {"name": given} if isinstance(given, str) else dict(given)
        if not options.get("name"):
            raise InputError(f"a check needs a name; found {given!r}.")
        built.append(CHECKS.build(options.pop("name"), options))
    asked = [c.name for c in built]
    twice = next((n for n in asked if asked.count(n) > 1), None)
    if twice is not None:
        raise InputError(f"the check '{twice}' is asked twice; one of the answers would be lost. Ask it once.")
    return built


def run_checks(cohort: Cohort, checks: Sequence[Check], *, seed: int = 0) -> list[Answer]:
    """Ask every check of one cohort, in the order given. seed: of permutations and folds."""
    return [run_check(c, cohort, seed=seed) for c in track(checks, what=f"checking {cohort.name}", unit="checks")]


def run_check(asked: Check, cohort: Cohort, *, seed: int = 0) -> Answer:
    """Ask one check and time it. NotMeasured becomes the answer's `reason`; any other error is a bug and is raised.

    Raises ValueError for an answer that breaks the contract, because what it says would mislead further on.
    """
    start = time.perf_counter()
    try:
        answer = asked.run(cohort, seed=seed)
        _refuse_unsound(answer, n_images=len(cohort))
    except NotMeasured as reason:
        answer = Answer(asked.name, asked.question, reason=str(reason))
    return replace(answer, seconds=time.perf_counter() - start)


def ranked(answers: Sequence[Answer]) -> list[tuple[Answer, Concern]]:
    """Every concern beside the answer that it is from: the most serious first, of equal ones the strongest."""
    order = list(Seriousness)
    found = [(answer, concern) for answer in answers for concern in answer.concerns]
    return sorted(found, key=lambda pair: (order.index(pair[1].seriousness), -pair[1].strength))


def _refuse_unsound(answer: Answer, *, n_images: int) -> None:
    if not answer.looked_at:
        raise ValueError(f"the check '{answer.check}' does not say what it looked at, so its silence says nothing")
    for concern in answer.concerns:
        if not 0 <= concern.strength <= 1:  # also nan, which would rank anywhere
            raise ValueError(f"the check '{answer.check}' gives the strength {concern.strength}; it must be in [0,1]")
        rows = [row for example in concern.examples for row in example.rows]
        if rows and not (min(rows) >= 0 and max(rows) < n_images):
            raise ValueError(f"the check '{answer.check}' shows rows {min(rows)} to {max(rows)} of {n_images} images")
