"""In which layer does a mark enter, and is it used there?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from trueread.audit.base import Audit, Better, Finding, Needs, audit
from trueread.audit.changed import some_patients
from trueread.audit.entered_cue import Entered, depth_measures, figures, per_cue, per_layer
from trueread.audit.layers import (
    Seen,
    answers_without,
    cue_scores,
    folds_by_patient,
    images_of,
    look,
    neighbours_vote,
    others_shift,
    prediction_depth,
)
from trueread.audit.subject import Member, Subject
from trueread.errors import InputError, NotMeasured
from trueread.model.classifier import require_gradients
from trueread.progress import track
from trueread.shift.base import SHIFTS, Shift
from trueread.shift.planting import planted_in
from trueread.stats import total_variation
from trueread.training.batches import unit_intensities

CUES = {"square": 1.0, "gaussian-noise": 0.5}
FOLDS = 4  # of the probe that reads the cue
FEWEST = 5  # training images of a class: among fewer, hardly any are neighbours


@audit(
    "shortcut-layers",
    source="Baldock et al. 2021, arXiv 2106.09647 (prediction depth); Boland et al. 2024, MIDL (for shortcuts)",
)
class ShortcutLayers(Audit):
    """Where in the network a prediction is settled, with and without a mark; where the mark can be read and is used."""

    on_request = True
    question = "In which layer does a mark enter, and is it used there?"
    needs: ClassVar[set[Needs]] = {Needs.GRADIENTS}
    better = Better.HIGHER

    def __init__(
        self,
        *,
        cues: Annotated[dict[str, Annotated[float, Field(gt=0, le=1)]], Field(min_length=1)] = CUES,
        images: Annotated[int, Field(ge=20)] = 300,
        bank: Annotated[int, Field(ge=20)] = 1000,
        neighbours: Annotated[int, Field(ge=1)] = 30,
    ) -> None:
        """cues: and their severities; the planted cue takes their place. images: at most so many test images. bank: at
        most so many training images, whose neighbours say the class. neighbours: how many of them say it.
        """
        for name in cues:
            SHIFTS.get(name)
        self.cues, self.images, self.bank, self.neighbours = dict(cues), images, bank, neighbours

    def run(self, subject: Subject) -> Finding:
        if subject.cohort.task == "multilabel":
            raise NotMeasured("neighbours say one class per image, and the task is multilabel.")
        bank, each = bank_rows(subject, self.bank)
        k = min(self.neighbours, each)
        positions = some_patients(subject, self.images)
        patients = subject.cohort.table["patient"].astype(str).to_numpy()[subject.rows[positions]]
        if len(np.unique(patients)) < FOLDS:
            raise NotMeasured(f"probes are tested on other patients, which takes {FOLDS}; the test images have fewer.")
        cues, notes = self._asked_about(subject, positions)
        without = [_seen(member, subject, positions) for member in subject.members]
        layers = without[0].layers
        if not layers:
            raise NotMeasured("the network has no layer to look into (no convolution, no linear head).")
        banks = [look(require_gradients(m.predictor), images_of(subject.cohort, bank)) for m in subject.members]
        fold = folds_by_patient(patients, FOLDS, seed=subject.seed)
        voting = Voting(layers, banks, subject.cohort.labels[bank], k, fold)
        told = track(list(cues.items()), what="looking into layers", unit="cues")
        found = [entered(subject, positions, key, cue, without, voting) for key, cue in told]
        tables = [per_layer(subject, e, layers, positions) for e in found]
        return self.finding(
            measures={key: m for e in found for key, m in depth_measures(subject, e, positions).items()},
            tables={
                "Per cue": per_cue(subject, found, tables, positions),
                "Per cue and layer": pd.concat(tables, ignore_index=True),
            },
            figures=figures(found, tables),
            notes=[
                f"Layers, in order: {', '.join(layers)}. {len(positions)} of {len(subject.rows)} test images, whole "
                f"patients drawn within classes; {len(bank)} training images of other patients, {each} of each class, "
                f"of which the {k} nearest say the class.",
                "Depth counts layers before the prediction is settled: 0 in the first, "
                f"{len(layers)} in none. A negative change says that the mark settles predictions earlier.",
                *notes,
            ],
        )

    def _asked_about(self, subject: Subject, positions: NDArray[np.int64]) -> tuple[dict[str, Shift], list[str]]:
        """The cues by key, the planted one or else the option's, and a sentence for each that was not asked about."""
        cohort, notes = subject.cohort, []
        what = planted_in(cohort)
        if what is not None and cohort.truth is not None:
            if not cohort.truth["cue"].to_numpy(bool)[subject.rows].any():
                return {"planted": what.shift}, []
            notes.append(
                f"The planted cue '{what.shift.name}' was not asked about: test images carry it already, so none is "
                "known without it; plant it with clean test images."
            )
        row = subject.rows[positions[:1]]
        image, ids = unit_intensities(cohort.images[row], cohort.white), [str(i) for i in cohort.table["id"].iloc[row]]
        cues = {}
        for name, severity in self.cues.items():
            cue = SHIFTS.build(name, {"severity": severity, "seed": subject.seed})
            try:
                cue.pair(image, ids)
                cues[name] = cue
            except InputError as reason:
                notes.append(f"'{name}' was left out: {reason}")
        if not cues:
            raise NotMeasured(" ".join(["no cue fits these images.", *notes]))
        return cues, notes


@dataclass(frozen=True, eq=False)
class Voting:
    """Who says what: the layers, each classifier's view of the bank, its labels [n], how many neighbours count, and the
    fold [m] of each test image, by patient.
    """

    layers: list[str]
    banks: list[Seen]
    labels: NDArray[np.int64]
    k: int
    fold: NDArray[np.int64]

    def depth(self, bank: Seen, seen: Seen) -> NDArray[np.int64]:
        """Prediction depth [m] of what was seen."""
        votes = [neighbours_vote(bank.vectors[n], self.labels, seen.vectors[n], k=self.k) for n in self.layers]
        return prediction_depth(np.stack(votes), seen.predicted)


def bank_rows(subject: Subject, images: int) -> tuple[NDArray[np.int64], int]:
    """Rows of training images of patients who are not among the test's, equally many of every class and at most
    `images` together, drawn by the subject's seed; and how many each class has.

    Raises NotMeasured without training images, and when a class has fewer than `FEWEST`.
    """
    cohort = subject.cohort
    patients = cohort.table["patient"].astype(str).to_numpy()
    rows = cohort.rows("train")
    rows = rows[~np.isin(patients[rows], patients[subject.rows])]
    if len(rows) == 0:
        raise NotMeasured("the cohort has no training images, among which neighbours are looked for.")
    counts = cohort.class_counts(rows)
    if counts.min() < FEWEST:
        rarest = cohort.classes[int(counts.argmin())]
        raise NotMeasured(
            f"neighbours take {FEWEST} training images of every class; '{rarest}' has {int(counts.min())}."
        )
    each = min(max(images // cohort.n_classes, FEWEST), int(counts.min()))
    ids = cohort.table["id"].astype(str).to_numpy()[rows]
    generator = np.random.default_rng([subject.seed, *b"shortcut-layers"])
    drawn = generator.permutation(rows[np.argsort(ids, kind="stable")])
    turn = pd.Series(cohort.labels[drawn]).groupby(cohort.labels[drawn]).cumcount().to_numpy()
    return drawn[turn < each], each


def entered(
    subject: Subject, positions: NDArray[np.int64], key: str, cue: Shift, without: list[Seen], voting: Voting
) -> Entered:
    """What a cue does in the layers of each of the subject's classifiers to the test images at `positions`."""
    cohort, rows = subject.cohort, subject.rows[positions]
    parts: dict[str, list[Any]] = {n: [] for n in ("before", "after", "reliance", "left", "scores")}
    for member, plain, bank in zip(subject.members, without, voting.banks, strict=True):
        classifier = require_gradients(member.predictor)
        marked = look(classifier, images_of(cohort, rows, cue))
        parts["before"].append(voting.depth(bank, plain))
        parts["after"].append(voting.depth(bank, marked))
        parts["reliance"].append(total_variation(marked.probabilities, plain.probabilities, task=cohort.task))
        pairs = {layer: (plain.vectors[layer], marked.vectors[layer]) for layer in voting.layers}
        shifts = {layer: others_shift(*pair, voting.fold % 2) for layer, pair in pairs.items()}
        mended = answers_without(classifier, images_of(cohort, rows, cue), shifts)
        left = [total_variation(answer, plain.probabilities, task=cohort.task) for answer in mended]
        parts["left"].append(np.stack(left, axis=1))
        parts["scores"].append(np.stack([cue_scores(*pair, voting.fold) for pair in pairs.values()]))
    return Entered(key, cue, **{name: np.stack(values) for name, values in parts.items()})


def _seen(member: Member, subject: Subject, positions: NDArray[np.int64]) -> Seen:
    return look(require_gradients(member.predictor), images_of(subject.cohort, subject.rows[positions]))
