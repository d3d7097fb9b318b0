"""What a person can mend, said in one sentence: what was expected, what was found, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class TruereadError(Exception):
    """A mistake the person who started the run can mend. The command line prints its text alone and exits with 2."""


class InputError(TruereadError, ValueError):
    """Something given to trueread is not what it has to be. Also a ValueError, so that Python callers can catch it."""


class NotMeasured(TruereadError):
    """A question that cannot be asked of this subject. The text completes the sentence "not measured, because ..."."""


def nearest(name: str, known: Iterable[str]) -> str:
    """' Did you mean ...?' with the known name closest to `name`, or '' when none is close."""
    matches = get_close_matches(name.lower().replace("_", "-"), list(known), n=1, cutoff=0.5)
    return f" Did you mean '{matches[0]}'?" if matches else ""


def unknown(kind: str, name: str, known: Iterable[str], *, hint: str = "") -> InputError:
    """The error for a name that is not there: says what it is not, the nearest known name, and where all of them
    are listed.
    """
    known = sorted(known)
    where = hint or ("Known: " + ", ".join(known) + "." if known else "None is installed.")
    article = "an" if kind[0] in "aeiou" else "a"
    return InputError(f"'{name}' is not {article} {kind}.{nearest(name, known)} {where}")
