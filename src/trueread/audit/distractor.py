"""With which class does it confuse an image, and does it see the evidence for both in the same place?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from trueread.audit.base import Audit, Better, Finding, Measure, Needs, Subject, audit
from trueread.audit.changed import some_patients
from trueread.audit.cues import means
from trueread.audit.performance import threshold_of
from trueread.audit.strip import Panel, Strip
from trueread.audit.subject import Member
from trueread.cohort.showing import slice_to_show
from trueread.errors import NotMeasured
from trueread.method.danil import distractor
from trueread.model.attribution import attribution
from trueread.model.classifier import Classifier, require_gradients, to_probabilities
from trueread.model.explain import grad_cam
from trueread.model.predictor import device_of
from trueread.progress import track
from trueread.shift.base import Draw
from trueread.shift.blur import Blur
from trueread.stats import Threshold, decide, on_rows, weighted_mean
from trueread.training.batches import ImageStore, batch_slices

AT_ONCE = 64  # images
REGION = 0.1  # share of the image that is blurred
SIGMA = 0.1  # of that blur, as a share of the shorter side
PAIRS, SHOWN = 12, 3  # pairs of classes in the table, and in pictures
EACH = 2  # pictures of a pair
UNITS = {"grad-cam": "logits", "gradient": "logits per unit of intensity"}  # of maps
RAW = ("rise", "rise-distractor")  # what `relief` is made of, which a table of pairs has no room for
BY_PAIR, CONFUSED = "By pair of classes", "confused"
VALUES = {  # what is measured of every image: title, better, definition
    "relief": (
        "What the distracting place costs the true class", Better.LOWER,
        "mean rise of the true class's probability when the place that speaks most for the distractor, and not for the "
        "true class, is blurred, less the rise when a place of the same form elsewhere is",
    ),
    "rise": (
        "True class without the distracting place", Better.LOWER,
        "mean rise of the true class's probability when the place that speaks most for the distractor is blurred",
    ),
    "rise-distractor": (
        "Distractor without the distracting place", Better.HIGHER,
        "mean rise of the distractor's probability when the same place is blurred",
    ),
    CONFUSED: (
        "Taken for the distractor", Better.LOWER, "share of images that are decided to be the distractor",
    ),
    "same-place": (
        "Evidence in the same place", Better.LOWER, "mean cosine of the maps for the true class and for the distractor",
    ),
    "lead": (
        "Lead of the true class", Better.HIGHER, "mean of its probability less the distractor's",
    ),
    "inside": (
        "Evidence for the true class inside the mask", Better.HIGHER, "mean share of the map of the image's own class",
    ),
    "inside-distractor": (
        "Evidence for the distractor inside the mask", Better.HIGHER, "mean share of the map of the distractor",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Told:
    """Of one member on m images. wrong: int64 [m], the distractor. values: float [m,V], as `VALUES`; nan where there is
    no mask or no map. probabilities: float [m,K]. maps: float [m,2,...], for the true class and for the distractor;
    kept of the first member alone.
    """

    wrong: NDArray[np.int64]
    values: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    maps: NDArray[np.float32]


@audit("distractor", source="Gong, Ma and Zheng 2020, MICCAI, arXiv 2007.09979 (distractors); the measures are ours")
class DistractorAudit(Audit):
    """The class an image is most confused with, where the evidence for both lies, and what that place costs."""

    question = "With which class does it confuse an image, and does it see both in the same place?"
    needs: ClassVar[set[Needs]] = {Needs.GRADIENTS}
    better = Better.LOWER
    on_request = True

    def __init__(
        self,
        *,
        images: Annotated[int, Field(ge=8)] = 500,
        maps: Literal["grad-cam", "gradient"] = "grad-cam",
    ) -> None:
        """images: at most so many test images. maps: where the evidence for a class lies, Grad-CAM of its logit or the
        absolute gradient of that with respect to the image.
        """
        self.images, self.maps = images, maps

    def run(self, subject: Subject) -> Finding:
        if subject.cohort.task == "multilabel":
            raise NotMeasured("an image has a distractor beside its one class, and the task is multilabel.")
        positions = some_patients(subject, self.images)
        named = track(subject.members, what=f"distracting {subject.name}", unit="classifiers")
        told: list[Told] = []
        for member in named:
            found = self._of_member(subject, member, positions)
            told.append(replace(found, maps=found.maps[:0].copy()) if told else found)
        values = np.stack([t.values for t in told])
        used = [i for i in range(len(VALUES)) if not np.isnan(values[..., i]).all()]
        return self.finding(
            measures=_measures(subject, values, positions, used),
            tables={
                BY_PAIR: _pairs(subject, told, positions, used),
                "Decided, by true class": _flow(subject, told, positions),
            },
            strips=_strips(subject, told[0], positions, UNITS[self.maps]),
            notes=[
                f"{len(positions)} of {len(subject.rows)} test images, whole patients drawn within classes. The "
                f"distractor of an image is its most probable class beside the true one. Maps: {self.maps}, of a "
                f"class's logit; {REGION:.0%} of the image are blurred.",
                *([] if subject.cohort.masks is not None else ["Without masks nothing is said of lesions."]),
            ],
        )

    def _of_member(self, subject: Subject, member: Member, positions: NDArray[np.int64]) -> Told:
        cohort, rows = subject.cohort, subject.rows[positions]
        classifier, threshold = require_gradients(member.predictor).eval(), threshold_of(member)
        store = ImageStore(cohort, device_of(classifier))
        parts = []
        for part in batch_slices(len(rows), AT_ONCE, at_least=1):
            masks = None if cohort.masks is None else torch.from_numpy(cohort.masks[rows[part]] > 0)
            labels = torch.from_numpy(cohort.labels[rows[part]])
            parts.append(self._of_batch(classifier, store.batch(rows[part]), labels, masks, threshold))
        joined: list[Any] = [np.concatenate(p) for p in zip(*parts, strict=True)]
        return Told(*joined)

    def _of_batch(
        self, classifier: Classifier, images: Tensor, labels: Tensor, masks: Tensor | None, threshold: Threshold
    ) -> tuple[NDArray, ...]:
        """The fields of `Told`, of one batch."""
        labels = labels.to(images.device)
        with torch.no_grad():
            logits = classifier(images, trusted=True).logits.float()
        wrong = distractor(logits, labels)
        both = [self._map(classifier, images, k) for k in (labels, wrong)]
        place = distracting_place(*both)
        p = to_probabilities(logits, classifier.card)
        there, beside = (_blurred(classifier, images, where) - p for where in (place, elsewhere(place)))
        somewhere = place.flatten(1).any(1)
        rise, control, rise_other = (
            torch.where(somewhere, change.gather(1, k[:, None])[:, 0], torch.nan)
            for change, k in ((there, labels), (beside, labels), (there, wrong))
        )
        probabilities = p.double().cpu().numpy()
        decided = torch.from_numpy(decide(probabilities, task=classifier.card.task, threshold=threshold))
        own, other = (p.gather(1, k[:, None])[:, 0] for k in (labels, wrong))
        inside = [share_inside(m, None if masks is None else masks.to(m.device)) for m in both]
        confused = (decided.to(wrong.device) == wrong).float()
        values = [rise - control, rise, rise_other, confused, same_place(*both), own - other, *inside]
        return (
            wrong.cpu().numpy(), torch.stack(values, 1).double().cpu().numpy(), probabilities,
            torch.stack(both, 1).cpu().numpy(),
        )  # fmt: skip

    def _map(self, classifier: Classifier, images: Tensor, target: Tensor) -> Tensor:
        """float [B,...] >= 0, of the images' spatial size."""
        if self.maps == "grad-cam":
            try:
                return grad_cam(classifier, images, target).maps.float()
            except NotMeasured as reason:
                raise NotMeasured(f"{reason} The audit's option `maps: gradient` needs no layer.") from reason
        return attribution("gradient", lambda x: classifier(x, trusted=True).logits.float(), images, target)


def same_place(a: Tensor, b: Tensor) -> Tensor:
    """float [B] in [0,1]: the cosine of two maps [B,...] >= 0; nan where one of them is empty."""
    x, y = a.flatten(1).double(), b.flatten(1).double()
    length = x.norm(dim=1) * y.norm(dim=1)
    return torch.where(length > 0, (x * y).sum(1) / length.clamp_min(1e-300), torch.nan).float()


def distracting_place(right: Tensor, wrong: Tensor) -> Tensor:
    """bool [B,...]: the tenth of the places where the map for the distractor, as a share of its largest value, exceeds
    that for the true class by most; nowhere in an image whose distractor has no map.
    """
    apart = _scaled(wrong) - _scaled(right)
    flat = apart.flatten(1)
    n = max(1, round(REGION * flat.shape[1]))
    place = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, flat.topk(n, dim=1).indices, True)
    return (place & (flat > 0)).view_as(apart)


def elsewhere(place: Tensor) -> Tensor:
    """A place bool [B,...,H,W] of the same form, half an image away both ways."""
    h, w = place.shape[-2:]
    return place.roll((h // 2, w // 2), dims=(-2, -1))


def share_inside(maps: Tensor, masks: Tensor | None) -> Tensor:
    """float [B] in [0,1]: the share of maps [B,...] >= 0 inside masks bool [B,...]; nan for an empty map or mask."""
    if masks is None:
        return torch.full((len(maps),), torch.nan, device=maps.device)
    total = maps.flatten(1).sum(1)
    known = (total > 0) & masks.flatten(1).any(1)
    return torch.where(known, (maps * masks).flatten(1).sum(1) / total.clamp_min(1e-30), torch.nan)


def _scaled(maps: Tensor) -> Tensor:
    top = maps.flatten(1).amax(1).clamp_min(1e-30)
    return maps / top.view(-1, *(1 for _ in maps.shape[1:]))


@torch.no_grad()
def _blurred(classifier: Classifier, images: Tensor, where: Tensor) -> Tensor:
    """Probabilities [B,K] of the images, of which the places bool [B,...] are blurred."""
    soft = Blur(severity=1.0, sigma=SIGMA).apply(images, Draw([""] * len(images), 0, "distractor"))
    changed = torch.where(where[:, None], soft, images)
    return to_probabilities(classifier(changed, trusted=True).logits.float(), classifier.card)


def _measures(subject: Subject, values: NDArray, positions: NDArray[np.int64], used: list[int]) -> dict[str, Measure]:
    estimates, keys = means(subject, values[..., used], positions), list(VALUES)
    made = {}
    for place, i in enumerate(used):
        title, better, definition = VALUES[keys[i]]
        statistics = [on_rows(weighted_mean(v[:, i]), positions) for v in values]
        made[keys[i]] = Measure(title, estimates[place], better, definition, statistics)
    return made


def _pairs(subject: Subject, told: list[Told], positions: NDArray[np.int64], used: list[int]) -> pd.DataFrame:
    """The pairs of true class and distractor by how many images are taken for the distractor, mean over seeds."""
    cohort, labels = subject.cohort, subject.labels[positions]
    keys, rows = list(VALUES), []
    for c, true in enumerate(cohort.classes):
        for d, other in enumerate(cohort.classes):
            mine = [(labels == c) & (t.wrong == d) for t in told]
            n = float(np.mean([m.sum() for m in mine]))
            if c == d or n == 0:
                continue
            of_pair = np.concatenate([t.values[m] for t, m in zip(told, mine, strict=True)])
            known = {
                VALUES[keys[i]][0]: float(np.nanmean(v)) if (~np.isnan(v := of_pair[:, i])).any() else np.nan
                for i in used
                if keys[i] not in RAW
            }
            taken = float(np.nansum(of_pair[:, keys.index(CONFUSED)])) / len(told)
            counts = {"images": n, "taken for it": taken, "share": taken / n}
            rows.append({"true class": true, "distractor": other, **counts, **known})
    table = pd.DataFrame(rows).sort_values(["taken for it", "images"], ascending=False, kind="stable")
    return table.drop(columns=[VALUES[CONFUSED][0]]).head(PAIRS).reset_index(drop=True)


def _flow(subject: Subject, told: list[Told], positions: NDArray[np.int64]) -> pd.DataFrame:
    """Of the images of each class, the share that is decided to be each class, mean over seeds."""
    cohort, labels = subject.cohort, subject.labels[positions]
    confused = list(VALUES).index(CONFUSED)
    # what is neither right nor the distractor cannot be: the distractor is the most probable of the wrong ones
    decided = np.stack([np.where(t.values[:, confused] == 1, t.wrong, labels) for t in told])
    rows = []
    for c, true in enumerate(cohort.classes):
        mine = decided[:, labels == c]
        if mine.size:
            shares = {other: float((mine == k).mean()) for k, other in enumerate(cohort.classes)}
            rows.append({"true class": true, "images": mine.shape[1], **shares})
    return pd.DataFrame(rows)


def _strips(subject: Subject, told: Told, positions: NDArray[np.int64], unit: str) -> list[Strip]:
    """Of the pairs that are confused most, images that are taken for the distractor, with both maps; first seed."""
    cohort, labels = subject.cohort, subject.labels[positions]
    confused = told.values[:, list(VALUES).index(CONFUSED)] == 1
    codes = labels * cohort.n_classes + told.wrong
    common = np.bincount(codes[confused], minlength=cohort.n_classes**2)
    rows, titles = [], []
    for code in np.argsort(-common, kind="stable")[:SHOWN]:
        found = np.flatnonzero(confused & (codes == code))
        first = np.unique(subject.clusters[positions[found]], return_index=True)[1]  # no patient twice
        for at in np.sort(found[first])[:EACH]:
            rows.append(_row(subject, told, positions, int(at)))
            titles.append(f"Truly {cohort.classes[code // cohort.n_classes]}")
    if not rows:
        return []
    caption = (
        "Images of the pairs of classes that are confused most, which are taken for the distractor, with the evidence "
        "for their own class and for the distractor, first seed, all on one scale. Below: the cosine of both maps, "
        "what the distracting place costs the true class, and calibrated probabilities."
    )
    heads = ["the image", "for its own class", "for the distractor"]
    return [Strip("distractors", "What distracts it", caption, rows, heads, titles, cohort.white, unit)]


def _row(subject: Subject, told: Told, positions: NDArray[np.int64], at: int) -> list[Panel]:
    cohort, row = subject.cohort, subject.rows[positions[at]]
    image, maps = np.array(cohort.images[row]), told.maps[at]
    if cohort.is_volume:
        where = slice_to_show(maps[1], None, depth=cohort.spatial[0])
        image, maps = image[:, where], maps[:, where]
    c, d = int(cohort.labels[row]), int(told.wrong[at])
    said = [f"{cohort.classes[k]} {round(100 * told.probabilities[at, k])} %" for k in (c, d)]
    known = dict(zip(VALUES, told.values[at], strict=True))
    numbers = [f"cosine {known['same-place']:.2f}", f"costs {round(known['relief'], 2) + 0.0:+.2f}"]
    first = ", ".join(n for n in numbers if "nan" not in n)
    return [Panel(image, first), *(Panel(image, s, m) for s, m in zip(said, maps, strict=True))]
