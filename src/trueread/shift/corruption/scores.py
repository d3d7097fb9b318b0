"""The scores of MedMNIST-C: balanced errors under corruption, alone and against AlexNet's.

Source: Di Salvo, Doerrich, Ledig, arXiv 2406.17536, and eval.py of medmnistc 0.1.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from trueread.errors import InputError, unknown
from trueread.shift.corruption.lists import LEVELS, facts, family_of


@dataclass(frozen=True)
class Score:
    """error: the balanced error, mean over the levels, in [0,1]. be: the error over AlexNet's. rbe: what corruption
    adds to the clean error, over what it adds to AlexNet's. be and rbe are None without a reference.
    """

    error: float
    be: float | None
    rbe: float | None


@dataclass(frozen=True)
class Scores:
    """by_corruption: in the order given. by_family: means over the family's corruptions. mean: over all corruptions;
    its be and rbe are the benchmark's two numbers.
    """

    by_corruption: dict[str, Score]
    by_family: dict[str, Score]
    mean: Score


def corruption_scores(errors: Mapping[str, Sequence[float]], *, clean: float, reference: str | None = None) -> Scores:
    """The scores of a classifier.

    errors: by corruption, the balanced errors (1 - balanced accuracy) at the levels 1 to 5, in [0,1]. clean: the
    balanced error on the images as they are. reference: the MedMNIST set whose AlexNet is compared with
    ("dermamnist"; the organ sets are "organamnist", "organcmnist", "organsmnist"); None for images of no such set.
    AlexNet was trained and corrupted at 224 pixels; the published numbers compare with classifiers at that size.
    On PneumoniaMNIST AlexNet errs less with contrast-up and gamma-up than on clean images: there rbe has a negative
    denominator and turns its sign, here as in the benchmark, and so does its share of the mean.
    Raises InputError for an unknown reference or corruption, none at all, another number of levels, and errors outside
    [0,1].
    """
    alexnet = facts()["alexnet"]
    if reference is not None and reference not in alexnet:
        raise unknown("MedMNIST set with an AlexNet reference", reference, alexnet)
    if not errors:
        raise InputError("there are no corruptions to score; give the errors of at least one.")
    for name, values in [*errors.items(), ("clean", [clean] * len(LEVELS))]:
        if len(values) != len(LEVELS) or not all(0 <= v <= 1 for v in values):
            raise InputError(
                f"'{name}' needs {len(LEVELS)} balanced errors in [0,1], one per level; found {list(values)}."
            )
    by_corruption = {}
    for name, values in errors.items():
        error, be, rbe = fmean(values), None, None
        if reference is not None:
            theirs = alexnet[reference]
            if name not in theirs["errors"]:
                raise unknown(f"corruption of {reference}", name, theirs["errors"])
            be = error / theirs["errors"][name]
            rbe = (error - clean) / (theirs["errors"][name] - theirs["clean"])
        by_corruption[name] = Score(error, be, rbe)
    families: dict[str, list[Score]] = {}
    for name, score in by_corruption.items():
        families.setdefault(family_of(name), []).append(score)
    return Scores(by_corruption, {f: _mean(members) for f, members in families.items()}, _mean(by_corruption.values()))


def _mean(scores: Iterable[Score]) -> Score:
    scores = list(scores)
    be = [s.be for s in scores if s.be is not None]
    rbe = [s.rbe for s in scores if s.rbe is not None]
    return Score(fmean(s.error for s in scores), fmean(be) if be else None, fmean(rbe) if rbe else None)
