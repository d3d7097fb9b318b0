"""A planted cue that an audit should find: whether it was learned, found when named, and found by the library alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from trueread.audit.base import Subject, default_thresholds
from trueread.audit.cues import effect_of, means
from trueread.audit.finding import Better, Figure, Finding, Verdict, verdict_of
from trueread.shift.base import Shift
from trueread.stats import METRICS, Estimate, statistic, weighted_mean

FOUND, MISSED, NOT_LEARNED = "found", "missed", "not learned"


def found_down_to(outcomes: Sequence[tuple[float, str]]) -> str:
    """Where a cue is found, in words: the smallest strength, and those above it at which it is missed.

    outcomes: strengths and what became of them, strongest first. What was not learned is neither.
    """
    found = [strength for strength, outcome in outcomes if outcome == FOUND]
    if not found:
        return "at no severity"
    missed = [f"{strength:g}" for strength, outcome in outcomes if outcome == MISSED and strength > min(found)]
    return f"down to severity {min(found):g}" + (f" (but not at {', '.join(missed)})" if missed else "")


class Honest:
    """Networks without a planted cue, and what shortcut-reliance says of them.

    subject: with a member per network. finding: of all of them. alone: by kind of the library's cues, the reliance of
    each network on the worst of them.
    """

    def __init__(self, subject: Subject, finding: Finding) -> None:
        self.subject, self.finding = subject, finding
        self.alone = {
            kind: [subject.interval([one], correct_bias=True) for one in measure.statistics]
            for kind, measure in finding.measures.items()
        }

    def __len__(self) -> int:
        return len(self.subject.members)

    def bar(self, kind: str) -> float:
        """Above which reliance the library gives a network away: for local cues the threshold of shortcut-reliance. It
        does not judge diffuse ones, which are right to move a network a little; for them also above all of these.
        """
        threshold = default_thresholds()["shortcut-reliance"] or 0.0
        ends = [] if kind == "local" else [float(np.fmax(e.value, e.high)) for e in self.alone[kind]]
        return max([threshold, *ends])

    def accused(self) -> list[bool]:
        """Which of them the library gives away."""
        return [is_above(e, self.bar("local")) for e in self.alone["local"]]

    def table(self, seeds: Sequence[int]) -> pd.DataFrame:
        """Per network: how well it classifies, and what the library says of it."""
        main = main_metric(self.subject)
        scores = []
        for member in self.subject.members:
            decided = member.threshold if METRICS[main].decides else None
            task = self.subject.cohort.task
            made = statistic(main, member.probabilities, self.subject.labels, task=task, threshold=decided)
            scores.append(self.subject.interval([made]))
        return pd.DataFrame(
            {
                "seed": seeds,
                METRICS[main].title: scores,
                **{f"worst {kind} cue": found for kind, found in self.alone.items()},
                "by the library": ["accused" if yes else "not accused" for yes in self.accused()],
            }
        )


@dataclass(frozen=True, eq=False)
class Trial:
    """A cue at one strength: what is said of a network trained with it, and of those trained without it.

    kind: "local" or "diffuse". finding: what shortcut-reliance says of the network with it, the reliance on this cue
    first. bar: see `Honest.bar`. without: reliance on the cue of the networks that never saw it. accused: how many of
    these are accused when the cue is named.
    """

    cue: Shift
    kind: str
    finding: Finding
    bar: float
    without: Estimate
    accused: int

    @classmethod
    def of(cls, cue: Shift, kind: str, finding: Finding, honest: Honest) -> Trial:
        subject = honest.subject
        positions = np.arange(len(subject.rows))
        reliance = effect_of(cue, kind, subject, positions).reliance
        each = [subject.interval([weighted_mean(r)]) for r in reliance]
        accused = sum(is_above(e, honest.bar("local")) for e in each)
        without = means(subject, reliance[:, :, None], positions)[0]
        return cls(cue, kind, finding, honest.bar(kind), without, accused)

    def __getitem__(self, key: str) -> Estimate:
        return self.finding.measures[key].estimate

    @property
    def learned(self) -> bool:
        """Whether the network does worse where the cue is turned round. A fall of 1 in every resample has no interval,
        and counts; any other without an interval shows nothing.
        """
        gap = next(m.estimate for key, m in self.finding.measures.items() if key.endswith("-gap"))
        return gap.low > 0 or gap.value > 1 - 1e-6

    @property
    def by_name(self) -> str:
        """What becomes of the cue when it is asked about by name."""
        return self._outcome(self.finding.verdict is Verdict.FAIL)

    @property
    def by_library(self) -> str:
        """What becomes of it when nobody names it."""
        return self._outcome(is_above(self[self.kind], self.bar))

    def _outcome(self, found: bool) -> str:
        if not self.learned:
            return NOT_LEARNED
        return FOUND if found else MISSED


def is_above(estimate: Estimate, bar: float) -> bool:
    """Whether the whole interval is."""
    return verdict_of(estimate, bar, Better.LOWER) is Verdict.FAIL


def main_metric(subject: Subject) -> str:
    """The one that an arrangement of a planted cue is judged by."""
    return "auroc" if subject.cohort.task == "binary" else "balanced-accuracy"


def planted_table(trials: Sequence[Trial], honest: Honest) -> pd.DataFrame:
    """Per cue and strength: what the cue does to the network trained with it, and whether that was found."""
    main = main_metric(honest.subject)
    title = METRICS[main].title
    rows = [
        {
            "cue": t.cue.name,
            "kind": t.kind,
            "severity": t.cue.severity,
            f"{title}, clean": t[f"{main}-clean"],
            f"{title}, flipped": t[f"{main}-flipped"],
            "biased - flipped": t[f"{main}-gap"],
            "reliance on it": t["planted"],
            "by name": t.by_name,
            "accused without it": f"{t.accused} of {len(honest)}",
            "worst cue of its kind": t[t.kind],
            "by the library": t.by_library,
        }
        for t in trials
    ]
    return pd.DataFrame(rows)


def by_strength(trials: Sequence[Trial]) -> Figure:
    """Reliance on each cue by its strength, of the networks with and without it."""
    rows: list[dict[str, Any]] = []
    for t in trials:
        for group, e in ((f"{t.cue.name}, planted", t["planted"]), (f"{t.cue.name}, not planted", t.without)):
            rows.append({"cue": group, "severity": t.cue.severity, "reliance": e.value, "low": e.low, "high": e.high})
    return Figure(
        "strength", "Reliance by strength of the cue", "line", pd.DataFrame(rows), x="severity", y="reliance",
        group="cue", low="low", high="high", x_label="severity of the cue", y_label="reliance",
        caption="How far the probabilities move with the cue, of networks that were trained with it and without any.",
    )  # fmt: skip
