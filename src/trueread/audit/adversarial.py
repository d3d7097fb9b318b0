"""How small a change, made on purpose, misleads it?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Annotated, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from trueread.audit.base import Audit, Better, Figure, Finding, Measure, Needs, Subject, audit
from trueread.audit.changed import some_patients
from trueread.audit.cue_strips import Column, drawn_at_random, strips_of, without_cue
from trueread.audit.decisions import decision_logits
from trueread.audit.strip import Strip
from trueread.audit.subject import Member
from trueread.model.predictor import device_of
from trueread.progress import track
from trueread.shift.attack import Attacked, Ball, grey_levels, pgd, square_attack, strongest, usual_epsilon
from trueread.shift.attack.nearest import Nearest, nearest_fooling
from trueread.shift.attack.search import Forward
from trueread.shift.base import Change, Draw
from trueread.stats import Estimate, Statistic, on_rows, statistic
from trueread.stats.bootstrap import Values, Weights
from trueread.training.batches import ImageStore, batch_slices
from trueread.training.evaluate import evaluation_batch

POINTS = 17  # of the curve
SHOWN = 3  # images
MAGNIFIED = 10  # the change in the strip
AttackName = Literal["pgd", "strongest", "square"]


@audit("adversarial", source="Madry et al. 2018, ICLR; Croce and Hein 2020, arXiv 2003.01690 (strongest, square)")
class AdversarialAudit(Audit):
    """Balanced accuracy under attack over epsilon, and the smallest change that misleads, in grey levels."""

    question = "How small a change, made on purpose, misleads it?"
    needs: ClassVar[set[Needs]] = {Needs.GRADIENTS}
    better = Better.HIGHER
    on_request = True

    def __init__(
        self,
        *,
        norm: Literal["l2", "linf"] = "l2",
        epsilon: Annotated[float | None, Field(gt=0)] = None,
        attack: AttackName = "pgd",
        steps: Annotated[int, Field(ge=1, le=10_000)] = 40,
        restarts: Annotated[int, Field(ge=1, le=100)] = 1,
        balls: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (0.125, 0.25, 0.5, 1.0, 2.0),
        images: Annotated[int, Field(ge=20)] = 100,
    ) -> None:
        """norm, epsilon: of the ball that is judged, in intensities of [0,1], by default as `usual_epsilon`. balls:
        those that are tried, as multiples of it. attack: "pgd" on the margin of the logits; "strongest", APGD and
        Square in AutoAttack's order; "square", which asks for no gradients. steps: of pgd and of each APGD run; Square
        has 50 queries for each. restarts: of pgd, from the image itself or, when several, from anywhere in the ball.
        images: at most so many test images.
        """
        self.norm, self.epsilon, self.attack = norm, epsilon, attack
        self.steps, self.restarts, self.images = steps, restarts, images
        self.balls = tuple(sorted({*balls, 1.0}))
        if attack == "square":
            self.needs = {Needs.PROBABILITIES}  # type: ignore[misc]  # one of its attacks asks for less

    def run(self, subject: Subject) -> Finding:
        shape = (subject.cohort.channels, *subject.cohort.spatial)
        epsilon = self.epsilon or usual_epsilon(self.norm, prod(shape))
        positions = some_patients(subject, self.images)
        forwards = [decision_logits(m) for m in subject.members]  # before any work: a task that is not asked
        named = track(
            list(zip(subject.members, forwards, strict=True)), what=f"attacking {subject.name}", unit="classifiers"
        )
        found = [self._attacked(subject, m, forward, epsilon, positions) for m, forward in named]
        reach = Reach(subject, positions, [n.distance.numpy() for n in found], epsilon, self.balls)
        to_grey = grey_levels(1.0, self.norm, shape)
        how = "largest change of an intensity" if self.norm == "linf" else "root mean square over the pixels"
        return self.finding(
            measures=reach.measures(to_grey, how),
            tables={"By epsilon": reach.by_epsilon(to_grey), "By class": reach.by_class(to_grey)},
            figures=[reach.figure(to_grey, how)],
            strips=_strips(subject, positions, found[0], subject.members[0]),
            notes=[
                f"Attack '{self.attack}', {self.norm}, on {len(positions)} of {len(subject.rows)} test images, whole "
                f"patients drawn within classes. An attack finds an upper bound: a stronger one may find less.",
                f"Epsilon {epsilon:.3g} in intensities of [0,1] is {epsilon * to_grey:.2f} of 255 grey levels ({how})"
                + ("." if self.epsilon else ", as much as L2 0.5 on CIFAR-10." if self.norm == "l2" else "."),
            ],
        )

    def _attacked(
        self, subject: Subject, member: Member, forward: Forward, epsilon: float, positions: NDArray[np.int64]
    ) -> Nearest:
        cohort, rows = subject.cohort, subject.rows[positions]
        device = device_of(member.predictor)
        store = ImageStore(cohort, device)
        ids = [str(i) for i in cohort.table["id"].iloc[rows]]
        parts = []
        for part in batch_slices(len(rows), evaluation_batch(cohort.spatial, device), at_least=1):
            labels = torch.from_numpy(cohort.labels[rows[part]]).to(device)
            parts.append(
                nearest_fooling(
                    forward, store.batch(rows[part]), labels, attack=self._attack, norm=self.norm,
                    epsilons=[m * epsilon for m in self.balls], draw=Draw(ids[part], subject.seed, "adversarial"),
                )
            )  # fmt: skip
        return Nearest(torch.cat([p.images for p in parts]).cpu(), torch.cat([p.distance for p in parts]).cpu())

    def _attack(self, forward: Forward, images: Tensor, labels: Tensor, ball: Ball, draw: Draw) -> Attacked:
        if self.attack == "pgd":
            return pgd(  # from the image itself, from where the way is straight; the margin has a gradient where the
                # probability of a sure network is rounded to 1
                forward, images, labels, ball=ball, steps=self.steps, restarts=self.restarts, objective="margin",
                random_start=self.restarts > 1, draw=draw,
            )  # fmt: skip
        queries = 50 * self.steps
        if self.attack == "square":
            return square_attack(forward, images, labels, ball=ball, draw=draw, queries=queries)
        found = strongest(forward, images, labels, ball=ball, draw=draw, steps=self.steps, queries=queries)
        none = torch.zeros_like(labels)
        return Attacked(found.images, found.fooled, none, none.float())


class Reach:
    """How far each image stands from being misclassified, and every number that is made of it.

    distances: of each seed, float [m]: 0 for an image that is wrong as it is, inf where the attack found nothing.
    """

    def __init__(
        self,
        subject: Subject,
        positions: NDArray[np.int64],
        distances: Sequence[NDArray],
        epsilon: float,
        balls: Sequence[float],
    ) -> None:
        self.subject, self.positions, self.distances, self.epsilon = subject, positions, distances, epsilon
        self.labels, self.balls, self.largest = subject.labels[positions], balls, epsilon * max(balls)

    def accuracy(self, epsilon: float) -> list[Statistic]:
        """Balanced accuracy under an attack of epsilon, of each seed."""
        k = self.subject.cohort.n_classes
        made = []
        for distance in self.distances:
            said = np.where(distance > epsilon, self.labels, (self.labels + 1) % k)
            score = statistic("balanced-accuracy", np.eye(k)[said], self.labels, task=self.subject.cohort.task)
            made.append(on_rows(score, self.positions))
        return made

    def medians(self, rows: NDArray[np.bool_] | None = None) -> list[Statistic]:
        """Median distance of the images that are right as they are, of each seed; where nothing was found, the largest
        epsilon. rows: of these images only.
        """
        made = []
        for distance in self.distances:
            counted = distance > 0 if rows is None else (distance > 0) & rows
            values = np.minimum(distance, self.largest)[counted]
            made.append(on_rows(weighted_median(values), self.positions[counted]))
        return made

    def estimate(self, statistics: Sequence[Statistic], *, factor: float = 1.0) -> Estimate:
        patients = len(np.unique(self.subject.clusters[self.positions]))
        scaled = [_scaled(s, factor) for s in statistics]
        return replace(self.subject.interval(scaled), n=len(self.positions), n_clusters=patients)

    def measures(self, to_grey: float, how: str) -> dict[str, Measure]:
        """The headline first. to_grey: grey levels of an epsilon of 1."""
        limit, judged = self.largest * to_grey, self.epsilon * to_grey
        stay = f"share of each class that no image within epsilon {self.epsilon:.3g} misleads, mean over classes"
        nearest = f"median over the images that are right as they are, {how}; {limit:.2f} where none was found"
        made = {
            "robust": (
                f"Balanced accuracy under attack, {judged:.2f} grey levels",
                self.accuracy(self.epsilon),
                1,
                stay,
            ),
            "smallest-change": ("Smallest change that misleads, grey levels", self.medians(), to_grey, nearest),
            "clean": ("Balanced accuracy on the same images, not attacked", self.accuracy(0.0), 1, "before any attack"),
        }
        return {
            key: Measure(
                title, self.estimate(s, factor=factor), Better.HIGHER, definition, [_scaled(one, factor) for one in s]
            )
            for key, (title, s, factor, definition) in made.items()
        }

    def by_epsilon(self, to_grey: float) -> pd.DataFrame:
        epsilons = [0.0, *(m * self.epsilon for m in self.balls)]
        return pd.DataFrame(
            {
                "epsilon": epsilons,
                "grey levels": [e * to_grey for e in epsilons],
                "balanced accuracy": [self.estimate(self.accuracy(e)) for e in epsilons],
            }
        )

    def by_class(self, to_grey: float) -> pd.DataFrame:
        """Per class: how many are right as they are, how many stay so, and the smallest change that misleads."""
        rows = []
        for k, name in enumerate(self.subject.cohort.classes):
            mine = self.labels == k
            if not mine.any():
                continue
            shares = [np.mean([(d[mine] > e).mean() for d in self.distances]) for e in (0.0, self.epsilon)]
            rows.append(
                {
                    "class": name,
                    "images": int(mine.sum()),
                    "right": shares[0],
                    "right under attack": shares[1],
                    "smallest change, grey levels": self.estimate(self.medians(mine), factor=to_grey),
                }
            )
        return pd.DataFrame(rows)

    def figure(self, to_grey: float, how: str) -> Figure:
        rows = []
        for epsilon in np.linspace(0, self.largest, POINTS):
            e = self.estimate(self.accuracy(float(epsilon)))
            rows.append({"epsilon": epsilon * to_grey, "value": e.value, "low": e.low, "high": e.high})
        return Figure(
            "epsilon", "Balanced accuracy under attack", "line", pd.DataFrame(rows), x="epsilon", y="value", low="low",
            high="high", x_label=f"size of the change, of 255 grey levels ({how})", y_label="balanced accuracy",
            caption="Share of images that no change of that size, as far as found, misleads, mean over classes.",
        )  # fmt: skip


def weighted_median(values: NDArray) -> Statistic:
    """The median of a per-row value as a statistic: the smallest that half of the weight does not exceed; nan without
    any row.
    """
    order = np.argsort(values, kind="stable")
    ranked = values[order]

    def median(weights: Weights) -> Values:
        if not len(ranked):
            return np.full(len(weights), np.nan)
        grown = weights[:, order].cumsum(axis=1)
        half = grown[:, -1:] / 2
        found = ranked[(grown >= half).argmax(axis=1)]
        return np.where(half[:, 0] > 0, found, np.nan)

    return median


def _scaled(made: Statistic, factor: float) -> Statistic:
    return made if factor == 1 else lambda weights: factor * made(weights)


def _strips(subject: Subject, positions: NDArray[np.int64], found: Nearest, member: Member) -> list[Strip]:
    """A few test images, the nearest that misleads the first seed, and what was changed, magnified."""
    misled = positions[(found.distance.numpy() > 0) & np.isfinite(found.distance.numpy())]
    drawn = drawn_at_random(subject, misled, count=SHOWN)
    if not drawn:
        return []
    ids = [str(i) for i in subject.cohort.table["id"].iloc[subject.rows[drawn]]]
    at = [int(np.flatnonzero(positions == i)[0]) for i in drawn]
    attacked = dict(zip(ids, found.images[at], strict=True))

    def change(images: Tensor, mine: list[str]) -> Tensor:  # noqa: ARG001  (a change of images)
        return torch.stack([attacked[i] for i in mine])

    def difference(images: Tensor, mine: list[str]) -> Tensor:
        return (0.5 + MAGNIFIED * (change(images, mine) - images)).clamp(0, 1)

    with torch.no_grad():
        said = member.predictor.probabilities(found.images[at].to(device_of(member.predictor))).cpu().numpy()
    changes: list[tuple[str, Change | None, NDArray]] = [
        ("as it is", None, without_cue(subject, drawn)),
        ("misleads", change, said.astype(np.float64)),
        (f"the change, {MAGNIFIED} times", difference, said.astype(np.float64)),
    ]
    columns = [Column(*c) for c in changes]
    return strips_of(subject, drawn, columns, name="misled", title="The smallest changes found that mislead")
