"""Constructed training sets: how they are made tells which of a classifier's features are left in them.

Source: Ilyas et al. 2019, Adversarial examples are not bugs, they are features, NeurIPS, sections 3.1 and 3.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from trueread.cohort.cohort import Cohort
from trueread.errors import InputError, unknown
from trueread.model.classifier import Classifier
from trueread.model.predictor import check_fits, device_of
from trueread.progress import track
from trueread.shift.attack import Ball, grey_levels, pgd, usual_epsilon
from trueread.shift.attack.balls import lengths
from trueread.shift.base import Draw
from trueread.training.batches import ImageStore, batch_slices
from trueread.training.device import autocast

Construction = Literal["d_rand", "d_det", "d_r", "d_nr", "noise", "shuffled"]
MATCHED = ("d_r", "d_nr")  # images that are given another image's features
CONSTRUCTED = "constructed"  # the key of a cohort's origin under which its construction is told
WHITE = 65535  # a perturbation of a fraction of a grey level must survive storing
AT_ONCE = 256  # images
FURTHEST = 1000.0  # L2: effectively unbounded


@dataclass(frozen=True)
class Making:
    """How a set is made.

    construction: "d_rand" moves an image towards a random class, "d_det" towards the next one, and both label it so.
    "d_r" and "d_nr" start from another training image and bring its features to those of this one, whose label it gets:
    the features of an adversarially trained classifier ("d_r") or of a plain one ("d_nr").
    Controls: "noise" has the labels of d_rand and moves as far in a random direction; "shuffled" has the images as they
    are and their labels in another order.
    epsilon: L2 radius in intensities of [0,1], of d_r and d_nr without meaning; by default `usual_epsilon`. steps: of
    gradient; by default 100, for features 1000. seed: of what is random.
    """

    construction: Construction
    epsilon: float | None = None
    steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.construction not in get_args(Construction):
            raise unknown("construction", self.construction, get_args(Construction))
        if self.epsilon is not None and not self.epsilon > 0:
            raise InputError(f"epsilon must be above 0; found {self.epsilon}.")
        if self.steps is not None and self.steps < 1:
            raise InputError(f"steps must be at least 1; found {self.steps}.")


def constructed(
    cohort: Cohort, classifier: Classifier, construction: Construction, *, epsilon: float | None = None,
    steps: int | None = None, seed: int = 0, precision: str = "fp32",
) -> Cohort:  # fmt: skip
    """The cohort with other training images and labels, validation and test as they were. Options: see `Making`.

    classifier: whose features are used, on the device where it is. Images are stored as uint16. `truth` gets
    "content_label" (int64: of what is seen in the image), "says_label" (bool: whether the classifier answers with the
    new label; of training images) and "moved" (L2, in intensities). `origin` tells how the set was made, and its
    "fooling_rate": the share that the classifier answers with the new label, where content and label differ.
    Raises InputError for a cohort without a training split, a multilabel task, a set that is constructed already, and
    a classifier of other images or classes.
    """
    making = Making(construction, epsilon, steps, seed)
    if CONSTRUCTED in cohort.origin:
        raise InputError(f"{cohort.name} is a constructed set already; construct from the cohort as it was.")
    if cohort.task == "multilabel":
        raise InputError(f"{cohort.name}: images are moved towards one class; the task is multilabel.")
    check_fits(classifier, cohort)
    rows = cohort.rows("train")
    if len(rows) < 2:
        raise InputError(f"{cohort.name}: at least 2 training images are needed; found {len(rows)}; split it first.")
    asked = _Asked(cohort, classifier.eval(), making, precision)
    plan = _plan(cohort, rows, making)
    images = _in_16_bits(cohort)
    moved, says = np.zeros(len(cohort)), np.zeros(len(cohort), bool)
    parts = batch_slices(len(rows), AT_ONCE, at_least=1)
    for part in track(parts, what=f"{cohort.name}: constructing {construction}", unit="batches"):
        mine = _Plan(*(values[part] for values in plan))
        starts = asked.stored(mine.starts)
        made = (asked.made(mine, starts) * WHITE).round()
        images[mine.rows] = made.cpu().numpy().astype(np.uint16)
        made = made / WHITE
        moved[mine.rows] = lengths(made - starts).flatten().cpu().numpy()
        says[mine.rows] = asked.logits(made).argmax(1).cpu().numpy() == mine.labels
    return _finished(cohort, asked, plan, images, moved, says)


def _in_16_bits(cohort: Cohort) -> NDArray[np.uint16]:
    """The images with white at 65535, part by part: as floats, a large cohort would not fit in memory."""
    images = np.empty(cohort.images.shape, np.uint16)
    for part in batch_slices(len(cohort), AT_ONCE, at_least=1):
        stored = np.asarray(cohort.images[part], np.float64)
        images[part] = (stored / cohort.white * WHITE).round()
    return images


class _Plan(NamedTuple):
    """int64 [n] each, for every training image: its row, the row of the image it starts from, and its new label."""

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    labels: NDArray[np.int64]


def _plan(cohort: Cohort, rows: NDArray[np.int64], making: Making) -> _Plan:
    generator = np.random.default_rng([making.seed, *making.construction.encode()])
    own = labels = cohort.labels[rows]
    starts = rows
    if making.construction == "d_det":
        labels = (own + 1) % cohort.n_classes
    elif making.construction in ("d_rand", "noise"):
        labels = _random_labels(cohort, rows, making.seed)
    elif making.construction == "shuffled":
        labels = generator.permutation(own)
    else:
        starts = rows[_another(len(rows), generator)]
    return _Plan(rows, starts, labels)


def _random_labels(cohort: Cohort, rows: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """int64 [n]: a class for each image, each as likely; of the image's id alone."""
    draw = Draw([str(i) for i in cohort.table["id"].iloc[rows]], seed, "constructed")
    share = draw.uniform("label", like=torch.empty(0, dtype=torch.float64))[:, 0].numpy()
    return (share * cohort.n_classes).astype(np.int64)


def _another(n: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """int64 [n]: for each position another one, each taken once."""
    order = generator.permutation(n)
    other = np.empty(n, np.int64)
    other[order] = np.roll(order, 1)
    return other


class _Asked:
    """The classifier whose features are used, and what it does to a batch."""

    def __init__(self, cohort: Cohort, classifier: Classifier, making: Making, precision: str) -> None:
        self.classifier, self.making, self.precision = classifier, making, precision
        self.device = device_of(classifier)
        self.cohort, self.store = cohort, ImageStore(cohort, self.device)
        shape = (cohort.channels, *cohort.spatial)
        self.epsilon = making.epsilon or usual_epsilon("l2", prod(shape))
        self.step_size = usual_epsilon("l2", prod(shape)) / 5  # 0.1 for images of CIFAR-10
        self.grey_levels = grey_levels(self.epsilon, "l2", shape)

    @property
    def matches(self) -> bool:
        return self.making.construction in MATCHED

    @property
    def steps(self) -> int:
        return self.making.steps or (1000 if self.matches else 100)

    def stored(self, rows: NDArray[np.int64]) -> Tensor:
        return self.store.batch(rows)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        with autocast(self.device, self.precision):
            return self.classifier(images, trusted=True).logits.float()

    def made(self, plan: _Plan, starts: Tensor) -> Tensor:
        """The new images of a plan, from the images at its starts."""
        if self.making.construction == "shuffled":
            return starts
        if self.making.construction == "noise":
            return self.noisy(plan, starts)
        labels = torch.from_numpy(plan.labels).to(self.device)
        if self.matches:
            return self.matched(self.stored(plan.rows), starts, labels)
        ball, size = Ball("l2", self.epsilon), self.epsilon * max(1 / 5, 2.5 / self.steps)
        return self._climb(lambda x: self._output(x).logits, starts, labels, ball, size, "cross-entropy", labels)

    def matched(self, wanted: Tensor, starts: Tensor, labels: Tensor) -> Tensor:
        """The starts, moved until the classifier's features of them are those of the wanted images."""
        with torch.no_grad():
            features = self._features(wanted).float()

        def nearness(found: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:  # noqa: ARG001  (an objective)
            return -(found - features).norm(dim=1)

        return self._climb(self._features, starts, labels, Ball("l2", FURTHEST), self.step_size, nearness, None)

    def noisy(self, plan: _Plan, starts: Tensor) -> Tensor:
        """The starts, moved by epsilon in a random direction of the image's own."""
        ids = [str(i) for i in self.cohort.table["id"].iloc[plan.rows]]
        draw = Draw(ids, self.making.seed, "constructed")
        noise = draw.normal("noise", tuple(starts.shape[1:]), like=starts)
        for _ in range(8):  # what is cut off at black and white is made up for elsewhere
            noise = noise * (self.epsilon / lengths((starts + noise).clamp(0, 1) - starts).clamp_min(1e-12))
        return (starts + noise).clamp(0, 1)

    def _climb(
        self, forward: Callable[[Tensor], Tensor], starts: Tensor, labels: Tensor, ball: Ball, size: float,
        objective: Any, targets: Tensor | None,
    ) -> Tensor:  # fmt: skip
        return pgd(
            forward, starts, labels, ball=ball, steps=self.steps, step_size=size, targets=targets, random_start=False,
            objective=objective, stop_when_fooled=False, keep="last", trusted=True,
        ).images  # fmt: skip

    def _output(self, images: Tensor) -> Any:
        with autocast(self.device, self.precision):
            return self.classifier(images, trusted=True)

    def _features(self, images: Tensor) -> Tensor:
        found = self._output(images).features
        if found is None:
            raise InputError("this classifier has no linear head, so its features are not known; use d_rand or d_det.")
        return found


def _finished(cohort: Cohort, asked: _Asked, plan: _Plan, images: NDArray, moved: NDArray, says: NDArray) -> Cohort:
    """The constructed cohort, and in its origin how it was made and what came of it."""
    rows = plan.rows
    labels, content = cohort.labels.copy(), cohort.labels.copy()
    labels[rows], content[rows] = plan.labels, cohort.labels[plan.starts]
    changed = rows[labels[rows] != content[rows]]
    told = asdict(asked.making) | {
        "epsilon": None if asked.matches else round(asked.epsilon, 5),
        "epsilon_grey_levels": None if asked.matches else round(asked.grey_levels, 3),
        "steps": asked.steps,
        "fooling_rate": round(float(says[changed].mean()), 4) if len(changed) else None,
        "moved_grey_levels": round(grey_levels(float(moved[rows].mean()), "l2", images.shape[1:]), 3),
    }
    truth = pd.DataFrame(index=range(len(cohort))) if cohort.truth is None else cohort.truth
    return replace(
        cohort,
        name=f"{cohort.name}, {asked.making.construction}",
        images=images,
        labels=labels,
        white=WHITE,
        masks=None if asked.matches else cohort.masks,
        truth=truth.assign(content_label=content, says_label=says, moved=moved),
        known=(),
        origin={**cohort.origin, CONSTRUCTED: told},
    )
