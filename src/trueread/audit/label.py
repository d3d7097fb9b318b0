"""Which labels look wrong? Each is doubted by networks that never saw its patient, and the power of that is told."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field

from trueread.audit.base import Better, DataAudit, Finding, Subject, Verdict, audit
from trueread.audit.changed import some_patients
from trueread.audit.label_groups import Groups
from trueread.audit.label_looked import SUSPECTS, Looked
from trueread.audit.label_power import Power
from trueread.audit.label_ranks import doubts, with_errors
from trueread.cohort.cohort import Cohort
from trueread.errors import InputError, NotMeasured
from trueread.stats.confident import noise_rate
from trueread.training.config import TrainConfig
from trueread.training.out_of_fold import OutOfFold, out_of_fold
from trueread.training.processes import processes

KEPT = "label"  # folder of what an interrupted audit goes on from
FEWEST = 60  # images; networks that learn nothing from fewer doubt everything


@audit(
    "label", source="Northcutt et al. 2021 (confident learning); Pleiss et al. 2020 (AUM); Du 2025 (Step-E); order ours"
)
class LabelAudit(DataAudit):
    """Ranks the labels by doubt, and says how many planted errors this would have found; on request, for it trains."""

    question = "Which labels look wrong?"
    better = Better.LOWER
    on_request = True

    def __init__(
        self,
        *,
        folds: Annotated[int, Field(ge=2, le=20)] = 4,
        epochs: Annotated[int, Field(ge=1, le=1000)] = 8,
        images: Annotated[int, Field(ge=FEWEST)] = 5000,
        errors: Annotated[float, Field(gt=0, le=0.4)] = 0.05,
    ) -> None:
        """folds: the patients are left out in so many parts. epochs: of each training. images: at most so many are
        looked at, of all splits. errors: share of labels made wrong, to see how many of these are found.
        """
        self.folds, self.epochs, self.images, self.errors = folds, epochs, images, errors

    def answer(self, subject: Subject) -> Finding:
        cohort = self._images(subject)
        labels = cohort.labels
        found = self._out_of_fold(subject, cohort, "as-given", "doubting every label")
        planted = with_errors(labels, found, share=self.errors, seed=subject.seed)
        wrong = replace(cohort, labels=planted.labels, truth=None)
        trial = self._out_of_fold(subject, wrong, "planted", "doubting planted errors")
        if subject.folder is not None:
            shutil.rmtree(subject.folder / KEPT, ignore_errors=True)
            with suppress(OSError):  # another audit's
                subject.folder.rmdir()
        looked = Looked(cohort, found, resamples=subject.resamples, seed=subject.seed)
        power = Power(looked, planted, doubts(planted.labels, trial))
        groups = Groups(cohort, looked.suspected, looked.interval)
        finding = self.finding(
            measures={"suspected": looked.measure(), "power": power.measure()},
            tables={"By group": groups.table(), "Planted errors found": power.table(), "Rankings": power.rankings()},
            figures=[power.figure()],
            strips=looked.strips(),
            lists={SUSPECTS: looked.table()},
            notes=[*self._words(subject, looked, power, trial), *groups.warnings()],
        )
        if groups.warnings():
            finding.verdict = Verdict.WARN
        return finding

    def _images(self, subject: Subject) -> Cohort:
        """At most `images` of all splits, whole patients. Raises NotMeasured where labels cannot be doubted."""
        cohort = subject.cohort
        if cohort.task == "multilabel":
            raise NotMeasured("the task is multilabel, and one label per image is doubted.")
        if processes().size > 1:
            raise NotMeasured(
                "several processes share this run, and it trains in one; ask for it with `trueread audit`."
            )
        rows = np.arange(len(cohort))
        if len(rows) > self.images:
            every = replace(subject, rows=rows)
            rows = np.sort(rows[some_patients(every, self.images)])
        if len(rows) < FEWEST:
            raise NotMeasured(f"{len(rows)} images are too few to train networks on parts of them; it takes {FEWEST}.")
        return cohort.subset(rows) if len(rows) < len(cohort) else cohort

    def _out_of_fold(self, subject: Subject, cohort: Cohort, kept: str, what: str) -> OutOfFold:
        n = len(cohort) * (self.folds - 1) // self.folds
        config = TrainConfig(epochs=self.epochs, batch_size=max(8, min(64, n // 8)), select="last")
        try:
            return out_of_fold(
                cohort, np.arange(len(cohort)), config, folds=self.folds, seed=subject.seed, keep=True, what=what,
                folder=None if subject.folder is None else subject.folder / KEPT / kept,
            )  # fmt: skip
        except InputError as reason:
            raise NotMeasured(str(reason)) from None

    def _words(self, subject: Subject, looked: Looked, power: Power, trial: OutOfFold) -> list[str]:
        n, k = len(looked.cohort), int(looked.suspected.sum())
        planted = int(power.planted.wrong.sum())
        before = noise_rate(looked.labels, looked.found.probabilities)
        after = noise_rate(power.planted.labels, trial.probabilities)
        return [
            f"{n} of {len(subject.cohort)} images of all splits, whole patients, judged by {self.folds} compact "
            "networks that were each trained without a part of the patients. The classifier under audit takes no part: "
            f"the answer is about its data. The {k} suspects and the order of all are in {SUSPECTS}.csv.",
            f"Its power on these data: {planted} labels ({planted / n:.0%}) were made wrong and the networks trained "
            f"again. Among the first {planted} of the order were {power.hits(planted):.0%} of them, among the first "
            f"{2 * planted} {power.hits(2 * planted):.0%}. Real errors that rank above count as misses here.",
            f"The estimated share of wrong labels rose from {before:.1%} to {after:.1%}, by {after - before:.1%}; "
            f"{planted / n:.1%} were planted.",
            power.gain(),
            *([f"{len(looked.conflicts)} images come first because a copy of them has another label."]
              if looked.conflicts else []),
        ]  # fmt: skip
