"""Does it keep looking at the same place when the image changes too little to see?"""

from __future__ import annotations

from math import prod
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from trueread.audit.base import Audit, Better, Finding, Measure, Needs, Subject, audit
from trueread.audit.changed import some_patients
from trueread.audit.cue_strips import drawn_at_random
from trueread.audit.cues import means
from trueread.audit.decisions import decision_logits
from trueread.audit.strip import Panel, Strip
from trueread.audit.subject import Member
from trueread.cohort.showing import label_names, slice_to_show
from trueread.model.attribution import ATTRIBUTIONS, attribution, gini, rank_correlation, similarity
from trueread.model.predictor import device_of
from trueread.progress import track
from trueread.shift.attack import Ball, grey_levels, pgd, usual_epsilon
from trueread.shift.attack.search import Forward
from trueread.shift.base import Draw
from trueread.stats import on_rows, weighted_mean
from trueread.training.batches import ImageStore, batch_slices

AT_ONCE = 32  # images
SHOWN = 3
HEADLINE = "integrated-gradients"
TITLES = {
    "gradient": "input gradient",
    "smoothgrad": "SmoothGrad",
    "integrated-gradients": "integrated gradients",
}
VALUES = {  # what is measured of each kind of map
    "spearman": ("rank correlation", "Spearman's correlation over pixels of the maps of the image and of its attack"),
    "ssim": ("SSIM", "structural similarity of both maps, each with a largest value of 1"),
    "gini": ("sparsity", "Gini index of the map of the image as it is: 0 spread evenly, 1 in a single pixel"),
}  # fmt: skip


@audit(
    "attribution-stability",
    source="Mouton et al. 2026, arXiv 2604.22579 (saliency under attack); maps by Captum; measures are our reading",
)
class AttributionStability(Audit):
    """How alike maps of what the classifier is sensitive to are before and after an attack too small to see."""

    question = "Does it keep looking at the same place when the image changes too little to see?"
    needs: ClassVar[set[Needs]] = {Needs.GRADIENTS}
    better = Better.HIGHER
    on_request = True

    def __init__(
        self,
        *,
        epsilon: Annotated[float | None, Field(gt=0)] = None,
        steps: Annotated[int, Field(ge=1, le=10_000)] = 20,
        images: Annotated[int, Field(ge=8)] = 40,
    ) -> None:
        """epsilon: L2 radius of the attack, in intensities of [0,1], by default as `usual_epsilon`. steps: of the
        attack (PGD). images: at most so many test images.
        """
        self.epsilon, self.steps, self.images = epsilon, steps, images

    def run(self, subject: Subject) -> Finding:
        cohort = subject.cohort
        shape = (cohort.channels, *cohort.spatial)
        epsilon = self.epsilon or usual_epsilon("l2", prod(shape))
        positions = some_patients(subject, self.images)
        forwards = [decision_logits(m) for m in subject.members]
        named = track(
            list(zip(subject.members, forwards, strict=True)), what=f"explaining {subject.name}", unit="classifiers"
        )
        found = [self._of_member(subject, member, forward, epsilon, positions) for member, forward in named]
        values = np.stack([v for v, _ in found])  # [S,m,kinds*3]
        return self.finding(
            measures=_measures(subject, values, positions),
            tables={"By kind of map": _table(subject, values, positions)},
            strips=_strips(subject, positions, found[0][1]),
            notes=[
                f"{len(positions)} of {len(subject.rows)} test images, attacked with PGD, L2 {epsilon:.3g} or "
                f"{grey_levels(epsilon, 'l2', shape):.2f} of 255 grey levels (root mean square), {self.steps} steps, "
                "whether that misleads or not. Maps are of the logit of the image's own class.",
            ],
        )

    def _of_member(
        self, subject: Subject, member: Member, forward: Forward, epsilon: float, positions: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], dict[str, Tensor]]:
        """Values [m, kinds * 3] of all images, and images and maps of all, for the strip."""
        cohort, rows = subject.cohort, subject.rows[positions]
        device = device_of(member.predictor)
        store = ImageStore(cohort, device)
        ids = [str(i) for i in cohort.table["id"].iloc[rows]]
        values: list[NDArray] = []
        kept: dict[str, list[Tensor]] = {k: [] for k in ("image", "attacked", "before", "after")}
        for part in batch_slices(len(rows), AT_ONCE, at_least=1):
            images = store.batch(rows[part])
            labels = torch.from_numpy(cohort.labels[rows[part]]).to(device)
            attacked = pgd(
                forward, images, labels, ball=Ball("l2", epsilon), steps=self.steps, objective="margin",
                random_start=False, stop_when_fooled=False, draw=Draw(ids[part], subject.seed, "attribution"),
            ).images  # fmt: skip
            of_part = []
            for kind in ATTRIBUTIONS:
                before, after = (
                    attribution(kind, forward, x, labels, seed=subject.seed).cpu() for x in (images, attacked)
                )
                of_part += [rank_correlation(before, after), similarity(before, after), gini(before)]
                if kind == HEADLINE:
                    kept["before"].append(before)
                    kept["after"].append(after)
            values.append(np.stack(of_part, axis=1))
            kept["image"].append(images.cpu())
            kept["attacked"].append(attacked.cpu())
        return np.concatenate(values), {k: torch.cat(v) for k, v in kept.items()}


def _measures(subject: Subject, values: NDArray, positions: NDArray[np.int64]) -> dict[str, Measure]:
    """The headline first: rank correlation of integrated gradients."""
    estimates = means(subject, values, positions)
    made = {}
    for k, (kind, what) in enumerate((kind, what) for kind in ATTRIBUTIONS for what in VALUES):
        title, definition = VALUES[what]
        statistics = [on_rows(weighted_mean(v[:, k]), positions) for v in values]
        name = f"{title[0].upper()}{title[1:]} of {TITLES[kind]}"
        made[f"{what}-{kind}"] = Measure(name, estimates[k], Better.HIGHER, definition, statistics)
    first = f"spearman-{HEADLINE}"
    return {first: made[first]} | made


def _table(subject: Subject, values: NDArray, positions: NDArray[np.int64]) -> pd.DataFrame:
    estimates = means(subject, values, positions)
    n = len(VALUES)
    rows: list[dict[str, Any]] = [
        {"map": TITLES[kind]} | {VALUES[what][0]: estimates[i * n + j] for j, what in enumerate(VALUES)}
        for i, kind in enumerate(ATTRIBUTIONS)
    ]
    return pd.DataFrame(rows)


def _strips(subject: Subject, positions: NDArray[np.int64], kept: dict[str, Tensor]) -> list[Strip]:
    """A few test images and their attacks, each with its map of integrated gradients, of the first seed."""
    cohort = subject.cohort
    drawn = drawn_at_random(subject, positions, count=SHOWN)
    rows = []
    for at in (int(np.flatnonzero(positions == i)[0]) for i in drawn):
        maps = [kept[k][at].numpy() for k in ("before", "after")]
        pictures = [(kept[k][at] * cohort.white).round().numpy() for k in ("image", "attacked")]
        if cohort.is_volume:
            where = slice_to_show(maps[0], None, depth=cohort.spatial[0])
            maps, pictures = [m[where] for m in maps], [p[:, where] for p in pictures]
        stored = [p.astype(cohort.images.dtype) for p in pictures]
        rows.append([panel for p, m in zip(stored, maps, strict=True) for panel in (Panel(p), Panel(p, evidence=m))])
    if not rows:
        return []
    titles = [f"Truly {t}" for t in label_names(cohort, subject.rows[drawn])]
    heads = ["as it is", "its map", "attacked", "its map"]
    caption = (
        f"{len(rows)} test images drawn at random, class after class. Maps: {TITLES[HEADLINE]} of the logit of the "
        "image's own class, first seed, all on one scale."
    )
    return [Strip("maps", "What it is sensitive to, before and after", caption, rows, heads, titles, cohort.white)]
