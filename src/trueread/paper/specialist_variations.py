"""What single choices of specialist-teacher distillation are worth: the same trial with one of them changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trueread.audit.subject import Subject
from trueread.cohort.cohort import Cohort
from trueread.model.classifier import Classifier
from trueread.paper.bench import Arm
from trueread.paper.specialist_arms import ERM, MIXED, OURS, TEACHER, arms
from trueread.paper.trial import Trial
from trueread.report.words import slug
from trueread.shift.base import SHIFTS


@dataclass(frozen=True)
class Variation:
    """One choice changed. what, value: in words. arms: those it is asked of, by name. options: of the specialist;
    train: of the training; clean, clean_arrangement: of the bias-free images, where they differ. cue: options of it.
    """

    what: str
    value: str
    arms: tuple[str, ...] = (OURS,)
    options: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    clean: float | None = None
    clean_arrangement: Any = None
    cue: Mapping[str, Any] = field(default_factory=dict)


LARGE = {"gaussian-noise": ("resnet18", "densenet121")}  # students of another architecture than the teacher's
USUAL_LARGE = ("resnet18",)  # of other cues: one DenseNet costs as much as fifteen of the other choices


def variations(layers: Sequence[str], *, cue: str, epochs: int) -> list[Variation]:
    """All of them for a cue. layers: of the network, in order. epochs: of the protocol."""
    half = len(layers) // 2
    taught = (TEACHER, OURS)
    return [
        *(Variation("clean share", f"{share:.0%}", taught, clean=share) for share in (0.01, 0.03, 0.2)),
        Variation("clean images", "without the cue", taught, clean_arrangement="clean"),
        Variation("layers", "first half", options={"layers": list(layers[:half])}),
        Variation("layers", "second half", options={"layers": list(layers[half:])}),
        Variation("layers", "last", options={"layers": list(layers[-1:])}),
        Variation("probes", "shared", options={"probes": "shared"}),
        Variation("probes", "supervised", options={"probes": "supervised"}),
        Variation("temperature", "4", options={"temperature": 4.0}),
        Variation("labels", "none", options={"alpha": 1.0}),
        Variation("weight of the layers", "5", options={"beta": 5.0}),
        Variation("start", "random", options={"start": "random"}),
        Variation("start and labels", "random, none", options={"start": "random", "alpha": 1.0}),
        *(
            [Variation("square", "8 % of the side, in the corner", (ERM,), cue={"side": 0.08, "place": "corner"})]
            if cue == "square"
            else []
        ),
        *(
            Variation("student", name, (MIXED, OURS), train=_large(name, epochs))
            for name in LARGE.get(cue, USUAL_LARGE)
        ),
    ]


def _large(backbone: str, epochs: int) -> dict[str, Any]:
    """In half the epochs, and with the strided stem: each costs many times the compact network."""
    return {"backbone": backbone, "stem": "standard", "epochs": max(1, epochs // 2)}


def measured_variations(
    trial: Trial, *, only: Sequence[str] | None, elsewhere: Cohort | None
) -> Iterator[dict[str, Any]]:
    """A row for each arm of each variation, first seed only. trial: of the protocol, in which the teacher is trained.

    only: these choices. elsewhere: a cohort of which another teacher is trained, if there is one.
    """
    layers = list(Classifier.load(trial.model_of(TEACHER).replace("{seed}", "0")).taps)
    for one in variations(layers, cue=trial.what.shift.name, epochs=trial.study.train.epochs):
        if only is None or one.what in only:
            yield from _rows(one, trial)
    if elsewhere is not None and (only is None or "teacher" in only):
        yield from _taught_elsewhere(trial, elsewhere)


def _rows(one: Variation, trial: Trial) -> Iterator[dict[str, Any]]:
    given = {"clean": one.clean, "clean_arrangement": one.clean_arrangement}
    what = replace(trial.what, **{k: v for k, v in given.items() if v is not None})
    if one.cue:
        what = replace(what, shift=SHIFTS.build(what.shift.name, {**what.shift.options, **one.cue}))
    varied = trial.like(slug(f"{one.what} {one.value}"), what=what, train=one.train)
    for arm in arms((varied if TEACHER in one.arms else trial).model_of(TEACHER)):
        if arm.name in one.arms:
            made = replace(arm, options={**arm.options, **one.options}) if arm.name == OURS else arm
            yield {"what": one.what, "value": one.value, **varied.measured(made).row}


def _taught_elsewhere(trial: Trial, elsewhere: Cohort) -> Iterator[dict[str, Any]]:
    """With a teacher from another cohort, whose classes are taken for those of this one."""
    said = {"what": "teacher", "value": f"of {' and '.join(elsewhere.classes)}"}
    varied = trial.like("teacher-elsewhere")
    renamed = replace(elsewhere, classes=trial.plain.classes)
    school = varied.like("school", plain=renamed, what=replace(trial.what, clean=0.0))
    taught = school.subject(Arm(TEACHER, "erm", on="unbiased")).members[0].predictor
    mixed = varied.cohorts["mixed"]
    found = varied.of_subject(Subject.of(taught, mixed, name=TEACHER, resamples=trial.study.resamples))
    yield {**said, **found.row}
    ours = next(arm for arm in arms(school.model_of(TEACHER)) if arm.name == OURS)
    yield {**said, **varied.measured(ours).row}
