"""Which shortcuts would these audits have found in these data?"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field

from trueread.audit.base import Better, DataAudit, Finding, Subject, audit, default_thresholds, run_audit
from trueread.audit.changed import some_patients
from trueread.audit.finding import Measure
from trueread.audit.power_trial import Honest, Trial, by_strength, found_down_to, planted_table
from trueread.audit.shortcut_reliance import ShortcutReliance
from trueread.cohort.cohort import SPLITS, Cohort
from trueread.errors import InputError, NotMeasured
from trueread.progress import track
from trueread.shift.base import SHIFTS, Shift
from trueread.shift.planting import PLANTED, planted, planting
from trueread.training.batches import unit_intensities
from trueread.training.config import TrainConfig
from trueread.training.loop import fit
from trueread.training.processes import processes

FEWEST = 60  # training images; a network that learns nothing from fewer says nothing about the audit
JUDGED = 0.5  # the severity at which shortcut-reliance judges the cues of the library


@audit(
    "shortcut-power",
    source="ours; cues planted along with a class as in Boland et al. 2025, arXiv 2511.17421",
)
class ShortcutPower(DataAudit):
    """Trains small networks on planted cues and asks shortcut-reliance of them; on request, never as one of `all`."""

    question = "Which shortcuts would these audits have found in these data?"
    better = Better.LOWER
    on_request = True

    def __init__(
        self,
        *,
        cues: Annotated[tuple[str, ...], Field(min_length=1)] = ("square", "gaussian-noise"),
        strengths: Annotated[
            tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)
        ] = (1.0, 0.5, 0.25, 0.125),
        prevalence: Annotated[float, Field(gt=0.5, le=1)] = 0.95,
        null_models: Annotated[int, Field(ge=1, le=100)] = 3,
        epochs: Annotated[int, Field(ge=1, le=1000)] = 6,
        images: Annotated[int, Field(ge=100)] = 800,
        test_images: Annotated[int, Field(ge=20)] = 200,
    ) -> None:  # fmt: skip
        """cues: names of shifts. strengths: their severities. prevalence: the share of the last class that carries the
        cue, 1 minus that of every other. null_models: networks trained without a cue. epochs: of each training.
        images, test_images: at most so many are trained on, and asked about.
        """
        for name in cues:
            SHIFTS.get(name)  # a wrong name must not wait for trainings
        self.cues, self.strengths = list(dict.fromkeys(cues)), sorted(set(strengths), reverse=True)
        self.prevalence, self.null_models, self.epochs = prevalence, null_models, epochs
        self.images, self.test_images = images, test_images

    def answer(self, subject: Subject) -> Finding:
        small = small_cohort(subject, images=self.images, test_images=self.test_images)
        cues, skipped = self._fitting(small, subject.seed)
        seeds = [subject.seed + 1 + i for i in range(self.null_models)]
        without: list[Subject] = []
        findings: list[Finding] = []
        jobs: list[int | tuple[Shift, str]] = [*seeds, *cues]
        for job in track(jobs, what="training with and without cues", unit="networks"):
            if isinstance(job, int):
                without.append(self._trained(small, subject, seed=job))
            else:
                what = planting(small, job[0], prevalence=self._shares(small), seed=subject.seed)
                findings.append(self._ask(self._trained(planted(small, what), subject, seed=subject.seed)))
        nulls = replace(without[0], members=[member for one in without for member in one.members])
        honest = Honest(nulls, self._ask(nulls))
        trials = [Trial.of(*cue, finding, honest) for cue, finding in zip(cues, findings, strict=True)]
        local = honest.finding.measures["local"]
        return self.finding(
            measures={
                "local-not-planted": Measure(
                    "Reliance on the worst local cue, of networks without a planted one", local.estimate, Better.LOWER,
                    f"mean over {len(honest)} networks of the {local.definition}",
                )  # without statistics, because no method of a study can differ in it
            },
            tables={"Planted": planted_table(trials, honest), "Not planted": honest.table(seeds)},
            figures=[by_strength(trials)],
            notes=[*self._words(subject, trials, honest), *skipped],
        )  # fmt: skip

    def _fitting(self, cohort: Cohort, seed: int) -> tuple[list[tuple[Shift, str]], list[str]]:
        """Every cue at every strength with its kind, strongest first, and a sentence for each that does not fit."""
        image, ids = unit_intensities(cohort.images[:1], cohort.white), [str(cohort.table["id"].iloc[0])]
        fitting, skipped = [], []
        for name in self.cues:
            made = [SHIFTS.build(name, {"severity": s, "seed": seed}) for s in self.strengths]
            try:
                kind = "diffuse" if made[0].pair(image, ids).where is None else "local"
            except InputError as reason:
                skipped.append(f"'{name}' was left out: {reason}")
                continue
            fitting += [(shift, kind) for shift in made]
        if not fitting:
            raise NotMeasured(" ".join(["no cue fits these images.", *skipped]))
        return fitting, skipped

    def _shares(self, cohort: Cohort) -> dict[str, float]:
        *others, last = cohort.classes
        return {**dict.fromkeys(others, 1 - self.prevalence), last: self.prevalence}

    def _trained(self, cohort: Cohort, subject: Subject, *, seed: int) -> Subject:
        """A small network that was trained on the cohort, as the subject of an audit."""
        n = len(cohort.rows("train"))
        config = TrainConfig(
            epochs=self.epochs, batch_size=max(8, min(32, n // 8)), select="last",
            augment="none",  # which would move and fade the mark, and a strength would mean less than it says
        )  # fmt: skip
        made = fit(cohort, config=config, seed=seed, quiet=True, what="a small network").classifier
        return replace(Subject.of(made, cohort, resamples=subject.resamples), seed=subject.seed)

    def _ask(self, subject: Subject) -> Finding:
        reliance = ShortcutReliance(strengths=(JUDGED,), images=self.test_images)
        return run_audit(reliance, subject, thresholds=default_thresholds())

    def _words(self, subject: Subject, trials: list[Trial], honest: Honest) -> list[str]:
        small = honest.subject.cohort
        said = [
            f"Compact networks trained with a cue planted into {len(small.rows('train'))} of the "
            f"{len(subject.cohort.rows('train'))} training images: {len(trials)}; on the same images as they are: "
            f"{len(honest)}. They were asked about {len(small.rows('test'))} test images, on which none was trained. "
            "The classifier under audit takes no part: the answer is about its data."
        ]
        for name in dict.fromkeys(t.cue.name for t in trials):
            said.append(self._about(name, [t for t in trials if t.cue.name == name], small.classes[-1]))
        said.append(
            f"{sum(honest.accused())} of {len(honest)} networks without a planted cue are accused by the library."
        )
        said += [
            f"Asked about '{t.cue.name}' at severity {t.cue.severity:g} by name, {t.accused} of {len(honest)} networks "
            "that never saw it are accused too: there, an accusation tells no shortcut."
            for t in trials
            if t.accused
        ]
        if any(t.kind == "diffuse" for t in trials):
            said.append(
                "shortcut-reliance judges local cues only. A diffuse one counts as found by the library when the "
                "interval of the reliance on the worst diffuse cue is wholly above the threshold and above what the "
                f"networks without a planted cue show ({honest.bar('diffuse'):.3f})."
            )
        if not len(small.rows("val")):
            said.append("There is no validation split, so the probabilities of these networks are not calibrated.")
        return said

    def _about(self, name: str, trials: list[Trial], label: str) -> str:
        """The sentence about one cue; trials: its strengths, strongest first."""
        unlearned = [f"{t.cue.severity:g}" for t in trials if not t.learned]
        what = f"'{name}' that goes along with {self.prevalence:.0%} of '{label}'"
        if len(unlearned) == len(trials):
            return f"{what} was learned by no network, so there was nothing to find; raise epochs or images."
        named = found_down_to([(t.cue.severity, t.by_name) for t in trials])
        library = found_down_to([(t.cue.severity, t.by_library) for t in trials])
        end = f" It was not learned at severity {', '.join(unlearned)}." if unlearned else ""
        return f"{what} is found {named} when asked about by name, {library} by the library.{end}"


def small_cohort(subject: Subject, *, images: int, test_images: int) -> Cohort:
    """At most `images` training images and `test_images` each of validation and test, whole patients, each class with
    its share, in their splits. Raises NotMeasured when nothing can be planted into them or learned from them.
    """
    cohort = subject.cohort
    if cohort.task == "multilabel":
        raise NotMeasured("the task is multilabel, and a cue is planted along with one class per image.")
    if PLANTED in cohort.origin:
        raise NotMeasured("a cue is planted into these images already; ask about the cohort as it was.")
    if processes().size > 1:
        raise NotMeasured("several processes share this run, and it trains in one; ask for it with `trueread audit`.")
    if not cohort.is_split or len(cohort.rows("train")) == 0:
        raise NotMeasured("there is no training split to plant cues into.")
    taken = []
    for side, rows in (("training", cohort.rows("train")), ("validation", subject.val_rows), ("test", subject.rows)):
        most = images if side == "training" else test_images
        taken.append(rows[some_patients(replace(subject, rows=rows), most)])
        lacking = [c for c, n in zip(cohort.classes, cohort.class_counts(taken[-1]), strict=True) if n == 0]
        if lacking and side != "validation":
            raise NotMeasured(f"there is no {side} image of '{lacking[0]}'.")
    if len(taken[0]) < FEWEST:
        raise NotMeasured(f"{len(taken[0])} training images are too few to train a network on; it takes {FEWEST}.")
    return cohort.subset(np.concatenate(taken)).with_split(np.repeat(SPLITS, [len(rows) for rows in taken]))
