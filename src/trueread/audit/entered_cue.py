"""What a mark does in the layers of a network, as numbers with intervals, tables and figures."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trueread.audit.cues import means
from trueread.audit.finding import Better, Figure, Measure
from trueread.audit.subject import Subject
from trueread.shift.base import Shift
from trueread.stats import Estimate, Statistic, on_rows, statistic, weighted_mean
from trueread.stats.bootstrap import Weights, ratio

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


def named(e: Entered) -> str:
    """The cue as tables call it."""
    return f"{e.cue.name} (planted)" if e.key == "planted" else e.cue.name


def depth_measures(subject: Subject, e: Entered, positions: NDArray[np.int64]) -> dict[str, Measure]:
    """The depth at which predictions are settled with the cue, mean over images, and by how many layers it moves."""
    cue = f"'{e.cue.name}' at severity {e.cue.severity:g}"
    told = {
        e.key: (f"Prediction depth with the cue {named(e)}, layers", f"with {cue}"),
        f"{e.key}-change": (f"Change of prediction depth by the cue {named(e)}, layers", f"with {cue} less without it"),
    }
    depths = e.after.astype(np.float64), (e.after - e.before).astype(np.float64)
    return {
        key: Measure(
            title, means(subject, depth[:, :, None], positions)[0], Better.HIGHER,
            f"mean over images of the depth {what}", [on_rows(weighted_mean(d), positions) for d in depth],
        )
        for (key, (title, what)), depth in zip(told.items(), depths, strict=True)
    }  # fmt: skip


def per_layer(subject: Subject, e: Entered, layers: list[str], positions: NDArray[np.int64]) -> pd.DataFrame:
    """Of one cue, per layer and for none of them: the share of predictions settled there without and with the cue and
    the difference; how well a probe of the layer tells the cue; which share of the reliance its mean shift carries.
    """
    n = len(layers)
    before, after = (np.eye(n + 1)[depth] for depth in (e.before, e.after))
    settled = [means(subject, values, positions) for values in (before, after, after - before)]
    reads = [_reads(subject, e.scores[:, i], positions) for i in range(n)]
    carries = [_carries(subject, e.left[:, :, i], e.reliance, positions) for i in range(n)]
    return pd.DataFrame(
        {
            "cue": named(e),
            "layer": [*layers, NEVER],
            "settled without": settled[0],
            "settled with": settled[1],
            "change": settled[2],
            "cue readable, AUROC": [*reads, None],
            "share of reliance carried": [*carries, None],
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
                "cue": named(e),
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
    """Where the cue can be read, where it is used (if it is, anywhere), and where predictions are settled."""
    made = [
        _line(
            "readable", "Where the mark can be read", tables, "cue readable, AUROC",
            "AUROC of a linear probe that tells images with the mark from the same images without it, in other "
            "patients: 0.5 is a guess.",
        ),
        _line(
            "use", "Where the mark is used", tables, "share of reliance carried",
            "Share of the change of the prediction that is gone when the mark's average shift of each channel is "
            "taken out of the layer. Not drawn where the mark hardly moves the prediction.",
        ),
    ]  # fmt: skip
    for e, table in zip(found, tables, strict=True):
        data = pd.concat([_ends(table, f"settled {side}").assign(images=f"{side} the mark") for side in SIDES])
        made.append(
            Figure(
                f"depth-{e.key}", f"Where predictions are settled: {named(e)}", "bar", data, x="layer", y="value",
                group="images", low="low", high="high", y_label="share of images",
                caption="The first layer from which the neighbours' class is the network's in every later layer.",
            )
        )  # fmt: skip
    return [figure for figure in made if len(figure.data)]


def _line(name: str, title: str, tables: list[pd.DataFrame], column: str, caption: str) -> Figure:
    data = pd.concat([_ends(table[table["layer"] != NEVER], column) for table in tables], ignore_index=True)
    return Figure(
        name, title, "line", data.dropna(subset="value"), x="layer", y="value", group="cue", low="low", high="high",
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
