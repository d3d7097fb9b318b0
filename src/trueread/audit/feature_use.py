"""How much of its accuracy can be had from features too small to see?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from trueread.audit.base import Audit, Better, Finding, Measure, Needs, Subject, audit
from trueread.audit.changed import some_patients
from trueread.audit.performance import member_statistic
from trueread.audit.subject import Member
from trueread.cohort.cohort import Cohort
from trueread.errors import NotMeasured
from trueread.method.constructed import CONSTRUCTED, Construction, constructed
from trueread.model.classifier import Classifier, require_gradients
from trueread.stats import Estimate, Statistic, on_rows, statistic
from trueread.stats.bootstrap import Values, Weights, ratio
from trueread.training.config import same_network
from trueread.training.evaluate import predict_probabilities
from trueread.training.loop import fit
from trueread.training.processes import processes

FEWEST = 50  # training images
FOOLED = 0.9  # share of images from which on the set means what it says


@audit(
    "feature-use",
    source="Ilyas et al. 2019, arXiv 1905.02175 (d_det, d_rand); a student for a classifier under audit is ours",
)
class FeatureUse(Audit):
    """A student learns from this classifier's own small perturbations alone; what it can do stands beside."""

    question = "How much of its accuracy can be had from features too small to see?"
    needs: ClassVar[set[Needs]] = {Needs.GRADIENTS}
    better = Better.LOWER
    on_request = True

    def __init__(
        self,
        *,
        construction: Literal["auto", "d_rand", "d_det"] = "auto",
        epsilon: Annotated[float | None, Field(gt=0)] = None,
        steps: Annotated[int, Field(ge=1, le=10_000)] = 40,
        images: Annotated[int, Field(ge=FEWEST)] = 2000,
        epochs: Annotated[int, Field(ge=1, le=10_000)] = 20,
        learning_rate: Annotated[float, Field(gt=0, le=100)] = 2e-3,
    ) -> None:
        """construction, epsilon, steps: of the student's set, see `Making`; auto is d_det from three classes on, with
        two d_rand. images: at most so many training images. epochs, learning_rate: of the students.
        """
        self.construction, self.epsilon, self.steps = construction, epsilon, steps
        self.images, self.epochs, self.learning_rate = images, epochs, learning_rate

    def run(self, subject: Subject) -> Finding:
        cohort = subject.cohort
        construction: Construction = self._construction(cohort)
        rows = self._rows(subject)
        kept = cohort.subset(np.concatenate([rows, subject.rows])).with_split(
            np.repeat(["train", "test"], [len(rows), len(subject.rows)])
        )
        member, classifier = subject.members[0], require_gradients(subject.members[0].predictor)
        kinds: tuple[Construction, ...] = (construction, "noise")
        found = {kind: self._student(kept, classifier, kind, seed=subject.seed) for kind in kinds}
        told = {kind: made.origin[CONSTRUCTED] for kind, (made, _) in found.items()}
        answers = {
            kind: predict_probabilities(student, kept, kept.rows("test")) for kind, (_, student) in found.items()
        }
        rate = told[construction]["fooling_rate"]
        return self.finding(
            measures=_measures(subject, member, answers[construction], answers["noise"]),
            tables={"Students": _table(subject, told, answers)},
            notes=[
                f"A student of the classifier's architecture learned {self.epochs} epochs from {len(rows)} training "
                f"images that were changed by at most {told[construction]['epsilon_grey_levels']:.2f} grey levels "
                f"(root mean square) until this classifier took them for another class, labelled as that class "
                f"({construction}).",
                f"The classifier took {rate:.0%} of them for their new class."
                + ("" if rate >= FOOLED else " That is little: raise epsilon, or the answer is too low."),
                "First seed only." if len(subject.members) > 1 else "The control learned from random changes as large.",
            ],
        )

    def _construction(self, cohort: Cohort) -> Construction:
        if cohort.task == "multilabel":
            raise NotMeasured("images are moved towards one class, and the task is multilabel.")
        if processes().size > 1:
            raise NotMeasured("several processes share this run, and students train in one; use `trueread audit`.")
        if self.construction != "auto":
            return self.construction
        return "d_det" if cohort.n_classes > 2 else "d_rand"

    def _rows(self, subject: Subject) -> NDArray[np.int64]:
        cohort = subject.cohort
        rows = cohort.rows("train") if cohort.is_split else np.empty(0, np.int64)
        if len(rows) < FEWEST:
            raise NotMeasured(f"a student takes {FEWEST} training images; found {len(rows)}.")
        return rows[some_patients(replace(subject, rows=rows), self.images)]

    def _student(
        self, cohort: Cohort, classifier: Classifier, construction: Construction, *, seed: int
    ) -> tuple[Cohort, Classifier]:
        made = constructed(cohort, classifier, construction, epsilon=self.epsilon, steps=self.steps, seed=seed)
        config = same_network(
            classifier.card, epochs=self.epochs,
            batch_size=max(8, min(64, len(made.rows("train")) // 8)), learning_rate=self.learning_rate, select="last",
            augment="none",  # which would drown what was added
        )  # fmt: skip
        return made, fit(made, config=config, seed=seed, quiet=True, what=f"a student of {construction}").classifier


def _measures(subject: Subject, member: Member, student: NDArray, control: NDArray) -> dict[str, Measure]:
    """The headline first: the student's way from chance over the classifier's."""
    own = member_statistic(subject, member, "balanced-accuracy")
    of_student, of_control = (_balanced(subject, p) for p in (student, control))
    chance = 1 / subject.cohort.n_classes

    def share(weights: Weights) -> Values:
        return ratio(of_student(weights) - chance, own(weights) - chance)

    made = {
        "share": (
            "Accuracy that features too small to see give, of the classifier's", share, Better.LOWER,
            "balanced accuracy above chance of the student over that of the classifier",
        ),
        "student": (
            "Balanced accuracy of the student", of_student, Better.LOWER, "on test images as they are, by argmax",
        ),
        "control": (
            "Balanced accuracy of the control", of_control, Better.LOWER, "the same after random changes as large",
        ),
        "classifier": (
            "Balanced accuracy of the classifier", own, Better.HIGHER, "on the same images, at its own threshold",
        ),
    }  # fmt: skip
    return {k: Measure(title, subject.interval([s]), better, what, [s]) for k, (title, s, better, what) in made.items()}


def _balanced(subject: Subject, probabilities: NDArray) -> Statistic:
    k, n = subject.cohort.n_classes, len(subject.labels)
    decided = np.eye(k)[probabilities.argmax(axis=1)]  # a student has no validation for a threshold
    return on_rows(statistic("balanced-accuracy", decided, subject.labels, task=subject.cohort.task), np.arange(n))


def _table(
    subject: Subject, told: Mapping[Construction, dict], answers: Mapping[Construction, NDArray]
) -> pd.DataFrame:
    scored: list[Estimate] = [subject.interval([_balanced(subject, p)]) for p in answers.values()]
    return pd.DataFrame(
        {
            "learned from": list(answers),
            "taken for the new class": [told[k]["fooling_rate"] for k in answers],
            "moved, grey levels": [told[k]["moved_grey_levels"] for k in answers],
            "balanced accuracy": scored,
        }
    )
