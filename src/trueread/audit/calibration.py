"""When it says 80 %, is it right 80 % of the time?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from trueread.audit.base import Audit, Better, Figure, Finding, Measure, Subject, Verdict, audit
from trueread.audit.performance import measure
from trueread.audit.subject import Member
from trueread.stats import apply_temperature, reliability_table
from trueread.stats.bootstrap import point_values
from trueread.stats.calibration import ece

HIGH_TEMPERATURE = 5.0  # so large a temperature flattens any logits: what is then calibrated says next to nothing


@audit("calibration", source="Guo et al. 2017, On calibration of modern neural networks, ICML")
class Calibration(Audit):
    """Expected calibration error, Brier score and skill, after temperature scaling on validation."""

    question = "When it says 80 %, is it right 80 % of the time?"
    better = Better.LOWER

    def __init__(self, *, bins: Annotated[int, Field(ge=2, le=100)] = 15) -> None:
        """bins: equal-width bins of the probability."""
        self.bins = bins

    def run(self, subject: Subject) -> Finding:
        measures = {
            "ece": self._ece(subject, "Expected calibration error", lambda m: m.probabilities),
            "brier": measure(subject, "brier"),
            "brier-skill": measure(subject, "brier-skill"),
        }
        notes = []
        temperatures = [m.predictor.card.temperature for m in subject.members]
        if any(t != 1 for t in temperatures):
            listed = ", ".join(f"{t:.2f}" for t in temperatures)
            notes.append(
                f"Logits were divided by a temperature fitted on validation ({listed}; above 1 means overconfident)."
            )
            title = "Expected calibration error before temperature scaling"
            measures["ece-before"] = self._ece(subject, title, lambda m: _before_scaling(m, subject.cohort.task))
        plain = np.mean([point_values(s, len(subject.rows))[0] for s in measures["ece"].statistics])
        notes.append(
            f"The binned error before the correction for few images per bin is {plain:.3f}. Differences between "
            "methods are of these uncorrected errors, so they need not be the difference of the values shown."
        )
        doubts = _doubts(measures["brier-skill"], temperatures)
        verdict = Verdict.WARN if doubts else Verdict.NO_THRESHOLD
        figures = [self._reliability(subject)]
        return self.finding(measures=measures, figures=figures, notes=notes + doubts, verdict=verdict)

    def _ece(self, subject: Subject, title: str, probabilities: Callable[[Member], np.ndarray]) -> Measure:
        task = subject.cohort.task
        statistics = [ece(probabilities(m), subject.labels, task=task, bins=self.bins) for m in subject.members]
        estimate = subject.interval(statistics, correct_bias=True)
        what = {"binary": "of the second class", "multilabel": "of each label"}.get(task, "of the top class")
        definition = (
            f"mean distance between probability {what} and observed share, over {self.bins} equal-width bins; "
            "less the bias of few images per bin, as the bootstrap shows it"
        )
        return Measure(title, estimate, Better.LOWER, definition, statistics)

    def _reliability(self, subject: Subject) -> Figure:
        """Observed share against stated probability, all seeds' predictions pooled; empty bins are left out."""
        p = np.concatenate([m.probabilities for m in subject.members])
        y = np.concatenate([subject.labels for _ in subject.members])
        table = reliability_table(p, y, task=subject.cohort.task, bins=self.bins)
        there = table.n > 0
        data = pd.DataFrame(
            {
                "stated": table.predicted[there],
                "observed": table.observed[there],
                "low": table.low[there],
                "high": table.high[there],
                "n": table.n[there],
            }
        )
        return Figure(
            "reliability", "Reliability", "line", data, x="stated", y="observed", low="low", high="high",
            x_label="stated probability", y_label="observed share", diagonal=True,
            caption="Bars are Wilson intervals that count each image once per seed.",
        )  # fmt: skip


def _doubts(skill: Measure, temperatures: list[float]) -> list[str]:
    """Why a small calibration error is no praise here: probabilities that say little can be right about it."""
    doubts = []
    if not skill.estimate.low > 0:  # nan too
        doubts.append(
            f"No pass: the Brier skill is {skill.estimate}, not clearly above 0. Always stating the share of each "
            "class would do about as well, and that is well calibrated and useless."
        )
    if max(temperatures) > HIGH_TEMPERATURE:
        doubts.append(
            f"No pass: a temperature of {max(temperatures):.2f} (above {HIGH_TEMPERATURE:g}) flattens probabilities "
            "until they hardly differ between patients; the network's own were far from right."
        )
    return doubts


def _before_scaling(member: Member, task: str) -> np.ndarray:
    """The member's probabilities without its temperature, from the calibrated ones (logits up to a constant are log
    p).
    """
    tiny = np.finfo(np.float32).tiny  # where float32 underflows
    p = np.clip(member.probabilities.astype(np.float64), tiny, 1 - 1e-12 if task == "multilabel" else 1)
    logits = np.log(p) - np.log1p(-p) if task == "multilabel" else np.log(p)
    return apply_temperature(logits, 1 / member.predictor.card.temperature, task=task)  # type: ignore[arg-type]
