"""In which layer does a mark enter, and is it used there?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from trueread.audit.base import Audit, Better, Finding, Needs, audit
from trueread.audit.cues import means, some_patients
from trueread.audit.finding import Figure, Measure
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
from trueread.stats import Estimate, Statistic, on_rows, statistic, total_variation, weighted_mean
from trueread.stats.bootstrap import Weights, ratio
from trueread.training.batches import unit_intensities

CUES: Mapping[str, float] = {"square": 1.0, "gaussian-noise": 0.5}
FOLDS = 4  # of the probe that reads the cue
FEWEST = 5  # training images of a class: among fewer, hardly any are neighbours
READABLE, AT_LEAST = 0.9, 0.8  # AUROC of the probe where the cue counts as readable, and the interval's lower end
MOVED = 0.02  # mean reliance; a share of less than that is a share of noise
NEVER = "in no layer"
SIDES = ("without", "with")


@dataclass(frozen=True, eq=False)
class Entered:
    """What a cue does in the L layers of S classifiers, on m images.

    before, after: int64 [S,m] in 0..L, prediction depth without and with the cue. reliance: [S,m] in [0,1], the total
    variation between both predictions. left: [S,m,L], that with the cue's mean shift taken out of a layer. scores:
    [S,L,2m], how sure a probe of a layer is of the cue, images without it first.
    """

    key: str
    cue: Shift
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    reliance: NDArray[np.float64]
    left: NDArray[np.float64]
    scores: NDArray[np.float64]


@audit(
    "shortcut-layers",
    source="Baldock et al. 2021, arXiv 2106.09647 (prediction depth); Boland et al. 2024, MIDL (for shortcuts)",
)
class ShortcutLayers(Audit):
    """Where in the network a prediction is settled, with and without a mark; where the mark can be read and is used."""

    question = "In which layer does a mark enter, and is it used there?"
    needs = {Needs.GRADIENTS}  # noqa: RUF012
    better = Better.HIGHER

    def __init__(
        self,
        *,
        cues: Annotated[Mapping[str, Annotated[float, Field(gt=0, le=1)]], Field(min_length=1)] = CUES,
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
            measures={e.key: _headline(subject, e, positions) for e in found},
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
        """The cues by key, and a sentence for each that could not be asked about: the planted one, else the option's."""
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
        left, scores = [], []
        for layer in voting.layers:
            pair = plain.vectors[layer], marked.vectors[layer]
            shift = others_shift(*pair, voting.fold % 2)
            mended = answers_without(classifier, layer, images_of(cohort, rows, cue), shift)
            left.append(total_variation(mended, plain.probabilities, task=cohort.task))
            scores.append(cue_scores(*pair, voting.fold))
        parts["left"].append(np.stack(left, axis=1))
        parts["scores"].append(np.stack(scores))
    return Entered(key, cue, **{name: np.stack(values) for name, values in parts.items()})


def _seen(member: Member, subject: Subject, positions: NDArray[np.int64]) -> Seen:
    return look(require_gradients(member.predictor), images_of(subject.cohort, subject.rows[positions]))


def _named(e: Entered) -> str:
    return f"{e.cue.name} (planted)" if e.key == "planted" else e.cue.name


def _headline(subject: Subject, e: Entered, positions: NDArray[np.int64]) -> Measure:
    change = (e.after - e.before).astype(np.float64)
    return Measure(
        f"Change of prediction depth with the cue {_named(e)}, layers",
        means(subject, change[:, :, None], positions)[0], Better.HIGHER,
        f"mean over images of the depth with '{e.cue.name}' at severity {e.cue.severity:g} less that without it",
        [on_rows(weighted_mean(c), positions) for c in change],
    )  # fmt: skip


def per_layer(subject: Subject, e: Entered, layers: list[str], positions: NDArray[np.int64]) -> pd.DataFrame:
    """Of one cue, per layer and for none of them: the share of predictions settled there without and with the cue and
    the difference; how well a probe of the layer tells the cue; which share of the reliance its mean shift carries.
    """
    n = len(layers)
    before, after = (np.eye(n + 1)[depth] for depth in (e.before, e.after))
    settled = [means(subject, values, positions) for values in (before, after, after - before)]
    reads = [_reads(subject, e.scores[:, i], positions) for i in range(n)]
    carries = [_carries(subject, e.left[:, :, i], e.reliance, positions) for i in range(n)]
    nothing = [Estimate(float("nan"))]
    return pd.DataFrame(
        {
            "cue": _named(e),
            "layer": [*layers, NEVER],
            "settled without": settled[0],
            "settled with": settled[1],
            "change": settled[2],
            "cue readable, AUROC": reads + nothing,
            "share of reliance carried": carries + nothing,
        }
    )


def _reads(subject: Subject, scores: NDArray[np.float64], positions: NDArray[np.int64]) -> Estimate:
    """AUROC of scores [S,2m], images without the cue first."""
    has = np.repeat([0, 1], len(positions))
    made = [statistic("auroc", np.stack([1 - s, s], axis=1), has, task="binary") for s in scores]
    return _of_images(subject, [on_rows(s, np.tile(positions, 2)) for s in made], positions)


def _carries(subject: Subject, left: NDArray, reliance: NDArray, positions: NDArray[np.int64]) -> Estimate:
    """1 - what is left [S,m] over the reliance [S,m], each averaged over images and seeds; nan where there is hardly
    any reliance.
    """
    if reliance.mean() < MOVED:
        return Estimate(float("nan"))
    both = weighted_mean(np.stack([left.mean(axis=0), reliance.mean(axis=0)], axis=1))

    def share(weights: Weights) -> NDArray[np.float64]:
        found = both(weights)
        return 1 - ratio(found[:, 0], found[:, 1])

    return replace(_of_images(subject, [on_rows(share, positions)], positions), n_seeds=len(left))


def _of_images(subject: Subject, statistics: list[Statistic], positions: NDArray[np.int64]) -> Estimate:
    patients = len(np.unique(subject.clusters[positions]))
    return replace(subject.interval(statistics), n=len(positions), n_clusters=patients)


def readable_from(reads: list[Estimate]) -> int | None:
    """The first layer in which the cue is readable: an AUROC of 0.9 with an interval from 0.8. None when in none.

    An AUROC of 1 in every resample has no interval, and counts.
    """
    return next((i for i, e in enumerate(reads) if e.value >= READABLE and not e.low < AT_LEAST), None)


def per_cue(subject: Subject, found: list[Entered], tables: list[pd.DataFrame], positions: NDArray) -> pd.DataFrame:
    """Per cue: reliance, mean prediction depth without and with it, the change, and where it becomes readable."""
    rows = []
    for e, table in zip(found, tables, strict=True):
        values = np.stack([e.reliance, e.before, e.after, e.after - e.before], axis=2)
        reliance, before, after, change = means(subject, values, positions)
        layers = list(table["layer"][:-1])
        first = readable_from(list(table["cue readable, AUROC"][:-1]))
        rows.append(
            {
                "cue": _named(e),
                "severity": e.cue.severity,
                "reliance": reliance,
                "depth without": before,
                "depth with": after,
                "change": change,
                "readable from": "nowhere" if first is None else layers[first],
                "at share of depth": np.nan if first is None else first / max(len(layers) - 1, 1),
            }
        )
    return pd.DataFrame(rows)


def figures(found: list[Entered], tables: list[pd.DataFrame]) -> list[Figure]:
    """Where the cue can be read, where it is used, and where predictions are settled."""
    every = pd.concat(tables, ignore_index=True)
    inside = every[every["layer"] != NEVER]
    made = [
        _line(
            "readable", "Where the mark can be read", inside, "cue readable, AUROC",
            "AUROC of a linear probe that tells images with the mark from the same images without it, in other "
            "patients: 0.5 is a guess.",
        ),
        _line(
            "use", "Where the mark is used", inside, "share of reliance carried",
            "Share of the change of the prediction that is gone when the mark's average shift of each channel is "
            "taken out of the layer. Not drawn where the mark hardly moves the prediction.",
        ),
    ]  # fmt: skip
    for e, table in zip(found, tables, strict=True):
        data = pd.concat([_ends(table, f"settled {side}").assign(images=f"{side} the mark") for side in SIDES])
        made.append(
            Figure(
                f"depth-{e.key}", f"Where predictions are settled: {_named(e)}", "bar", data, x="layer", y="value",
                group="images", low="low", high="high", y_label="share of images",
                caption="The first layer from which the neighbours' class is the network's in every later layer.",
            )
        )  # fmt: skip
    return made


def _line(name: str, title: str, table: pd.DataFrame, column: str, caption: str) -> Figure:
    return Figure(
        name, title, "line", _ends(table, column), x="layer", y="value", group="cue", low="low", high="high",
        x_label="layer", y_label=column, caption=caption,
    )  # fmt: skip


def _ends(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """A column of estimates as numbers."""
    cells = list(table[column])
    return pd.DataFrame(
        {
            "cue": list(table["cue"]),
            "layer": list(table["layer"]),
            "value": [e.value for e in cells],
            "low": [e.low for e in cells],
            "high": [e.high for e in cells],
        }
    )
