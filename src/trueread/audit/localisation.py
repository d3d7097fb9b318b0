"""Does it look where the finding is? Maps of the evidence against masks, with controls that have to be beaten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field

from trueread.audit.base import Audit, Better, Finding, Measure, Needs, Subject, Verdict, audit
from trueread.audit.boxes import average_precision_of_boxes, best_cut, boxes_of, boxes_of_mask, mask_overlap, matched
from trueread.audit.changed import some_patients
from trueread.audit.cue_strips import drawn_at_random
from trueread.audit.cues import means
from trueread.audit.finding import WARNING
from trueread.audit.map_controls import centred, faithfulness, pointed_at, random_orders
from trueread.audit.strip import Panel, Strip
from trueread.audit.subject import Member
from trueread.audit.untaught import after_shuffled_labels, unlearned
from trueread.cohort.showing import label_names
from trueread.errors import NotMeasured
from trueread.model.attribution import rank_correlation
from trueread.model.classifier import Classifier, require_gradients
from trueread.model.explain import explain
from trueread.model.predictor import device_of
from trueread.progress import track
from trueread.shift.base import Draw
from trueread.stats import on_rows, stack, weighted_mean
from trueread.stats.bootstrap import mean_of_known, row_mean
from trueread.training.batches import ImageStore, batch_slices
from trueread.training.steps import mix

AT_ONCE = 32  # images
NOISE = 0.02  # standard deviation of the noise that a map should bear, of intensities in [0,1]
ALIKE, STEADY = 0.5, 0.5  # rank correlations: with random weights at most, under noise at least
EMPTY = 0.5  # share of maps without evidence, at most
DRAWS = 3  # networks with random weights
LEARNED = 0.8  # share of shuffled training labels that a network must have learned to say anything
PRECISIONS = (0.1, 0.2, 0.3, 0.4, 0.5)  # overlaps at which boxes count as found
HIT = 0.5
SHOWN = 6
CENTRE, RANDOM = "a blob in the middle", "random weights"
PER_MAP = {  # what is measured of a map and a mask
    "pointing": ("Pointing game", "share of images whose strongest evidence lies inside the mask"),
    "mass": ("Evidence inside", "mean share of the evidence that lies inside the mask"),
    "overlap": ("Overlap", "mean intersection over union of the strongest evidence and the mask, cut as on validation"),
}  # fmt: skip
OTHERS = {
    "hit": ("Boxes that hit", Better.HIGHER, f"share of images with a box that overlaps with a true one by {HIT:g}"),
    "insertion": ("Insertion", Better.HIGHER, "mean probability while the strongest places come back first"),
    "insertion-over-random": ("Insertion, more than a random order", Better.HIGHER, "difference, image by image"),
    "deletion": ("Deletion", Better.LOWER, "mean probability while the strongest places are blurred first"),
    "deletion-over-random": ("Deletion, more than a random order", Better.LOWER, "difference, image by image"),
    "random-weights": (
        "Likeness to the map of random weights", Better.LOWER, "rank correlation over pixels; 0 is unlike",
    ),
    "shuffled-labels": (
        "Likeness to the map after shuffled labels", Better.LOWER, "rank correlation over pixels; 0 is unlike",
    ),
    "under-noise": ("Likeness under noise", Better.HIGHER, f"rank correlation after noise of {NOISE:g}"),
    "empty": ("Images without evidence", Better.LOWER, "share of images whose map is zero everywhere"),
}  # fmt: skip


@dataclass(frozen=True)
class Maps:
    """Of one member. here: float [m,H,W]. random: float [DRAWS,m,H,W], of the same network with random weights. values:
    float [m,V], in the order of `OTHERS` without the first, nan where not asked for or not defined. layer: whose map.
    cuts: of the map, of the blob in the middle and of each draw of random weights, each chosen on validation.
    learned: share of shuffled labels that were learned, nan where not asked for.
    """

    here: NDArray[np.float32]
    random: NDArray[np.float32]
    values: NDArray[np.float64]
    layer: str
    cuts: tuple[float, ...]
    learned: float


@audit(
    "localisation", source="Shahi and Bagale 2025, arXiv 2511.00456 (maps); Saporta et al. 2022 (measures); controls"
)
class Localisation(Audit):
    """Where maps put the evidence for an image's class, against its mask and against a blob in the middle."""

    question = "Does it look where the finding is?"
    needs: ClassVar[set[Needs]] = {Needs.GRADIENTS}
    better = Better.HIGHER
    on_request = True

    def __init__(
        self,
        *,
        how: Literal["grad-cam", "grad-cam++", "occlusion"] = "grad-cam",
        images: Annotated[int, Field(ge=8)] = 300,
        cut: Annotated[float | None, Field(gt=0, lt=1)] = None,
        shuffled: Annotated[int, Field(ge=0, le=1000)] = 0,
        layer: str = "auto",
    ) -> None:
        """how: the kind of map. images: at most so many test images, and as many of validation. cut: from which share
        of its largest value on a map counts as strong, by default the one that overlaps best on validation, for each
        control its own. shuffled: epochs for which the same network is trained on shuffled labels, until it has learned
        most of them by heart; its map should be another. 0 is not at all. layer: the tap that maps are read from, by
        default the last that has one.
        """
        self.how, self.images, self.cut, self.shuffled, self.layer = how, images, cut, shuffled, layer

    def run(self, subject: Subject) -> Finding:
        cohort = subject.cohort
        if cohort.is_volume or cohort.task == "multilabel":
            raise NotMeasured("it is asked of images with one class each.")
        positions = some_patients(subject, self.images)
        marked = _marked(subject, subject.rows[positions])
        named = track(subject.members, what=f"locating {subject.name}", unit="classifiers")
        made = [self._of_member(subject, m, positions) for m in named]
        scored = _scored(subject, made, subject.rows[positions], marked) if marked.any() else None
        measures = _measures(subject, made, positions, marked, scored)
        finding = self.finding(
            measures=measures,
            tables={} if scored is None else {"Beside controls": _controls(subject, scored, positions[marked])},
            strips=_strips(subject, made[0], positions, marked),
            notes=self._words(subject, made, positions, marked),
        )
        failed = _failed(measures)
        if failed:
            finding.verdict = Verdict.WARN
            finding.notes += failed
        return finding

    def _of_member(self, subject: Subject, member: Member, positions: NDArray[np.int64]) -> Maps:
        classifier = require_gradients(member.predictor).eval()
        cohort, rows = subject.cohort, subject.rows[positions]
        store = ImageStore(cohort, device_of(classifier))
        others = [unlearned(classifier, subject, store, seed=mix(subject.seed, member.seed, k)) for k in range(DRAWS)]
        here, layer = self._maps(classifier, subject, rows)
        random = np.stack([self._maps(other, subject, rows)[0] for other in others])
        noisy, _ = self._maps(classifier, subject, rows, noise=NOISE)
        orders, values = random_orders(len(rows), cohort.spatial, seed=mix(subject.seed, "orders")), []
        for part in batch_slices(len(rows), AT_ONCE, at_least=1):
            images, target = store.batch(rows[part]), torch.from_numpy(cohort.labels[rows[part]])
            asked = (torch.from_numpy(m[part]).to(images.device) for m in (here, orders))
            values.append([v for m in asked for v in faithfulness(classifier, images, target.to(images.device), m)])
        deletion, insertion, del_random, ins_random = (np.concatenate(v) for v in zip(*values, strict=True))
        shuffled, learned = np.full_like(here, np.nan), np.nan
        if self.shuffled:
            other, learned = after_shuffled_labels(classifier, subject, epochs=self.shuffled, seed=member.seed)
            if learned >= LEARNED:
                shuffled, _ = self._maps(other, subject, rows)
        empty = ~here.reshape(len(here), -1).any(axis=1)
        ordered = [insertion, insertion - ins_random, deletion, deletion - del_random]
        to_random = mean_of_known(np.stack([_alike(here, m) for m in random]))
        alike = [to_random, _alike(here, shuffled), _alike(here, noisy)]
        found = np.stack([*(np.where(empty, np.nan, v) for v in ordered), *alike, empty.astype(float)], axis=1)
        return Maps(here, random, found, layer, self._cuts([classifier, *others], subject), learned)

    def _maps(
        self, classifier: Classifier, subject: Subject, rows: NDArray[np.int64], *, noise: float = 0.0
    ) -> tuple[NDArray[np.float32], str]:
        """float32 [n,H,W] of the images' own class, and the layer."""
        cohort, store = subject.cohort, ImageStore(subject.cohort, device_of(classifier))
        maps, layer = [], ""
        for part in batch_slices(len(rows), AT_ONCE, at_least=1):
            images = store.batch(rows[part])
            if noise:
                ids = [str(i) for i in cohort.table["id"].iloc[rows[part]]]
                drawn = Draw(ids, subject.seed, "localisation").normal("noise", tuple(images.shape[1:]), like=images)
                images = (images + noise * drawn).clamp(0, 1)
            target = torch.from_numpy(cohort.labels[rows[part]]).to(images.device)
            found = explain(classifier, images, target, how=self.how, layer=self.layer)
            maps.append(found.maps.float().cpu().numpy())
            layer = found.layer
        return np.concatenate(maps), layer

    def _cuts(self, classifiers: list[Classifier], subject: Subject) -> tuple[float, ...]:
        """Of the first's map, the blob in the middle, and the others' maps: the given one, or each one's best on
        validation; half where there are no masks.
        """
        rows = subject.val_rows[_marked(subject, subject.val_rows)]
        if self.cut is not None or len(rows) == 0:
            return (0.5 if self.cut is None else self.cut,) * (len(classifiers) + 1)
        rows = np.sort(np.random.default_rng(mix(subject.seed, "cut")).permutation(rows)[: self.images])
        masks = subject.cohort.masks
        assert masks is not None
        inside = [np.asarray(mask > 0) for mask in masks[rows]]
        maps: list[NDArray] = [self._maps(c, subject, rows)[0] for c in classifiers]
        maps.insert(1, centred(maps[0]))
        return tuple(best_cut(list(m), inside) for m in maps)

    def _words(
        self, subject: Subject, made: list[Maps], positions: NDArray[np.int64], marked: NDArray[np.bool_]
    ) -> list[str]:
        layers = sorted({m.layer or "the image" for m in made})
        cuts = ", ".join(f"{m.cuts[0]:g}" for m in made)
        said = [
            f"{len(positions)} of {len(subject.rows)} test images, whole patients drawn within classes; {self.how} of "
            f"each image's own class, from {', '.join(layers)}, in units of the logit."
        ]
        if self.shuffled:
            shares = ", ".join(f"{m.learned:.0%}" for m in made)
            said.append(
                f"After {self.shuffled} epochs {shares} of the shuffled labels were learned; maps are compared from "
                f"{LEARNED:.0%} on."
            )
        if not marked.any():
            return [
                *said,
                "There are no masks: nothing can be said of the right place, only of deletion and insertion.",
            ]
        given = "given" if self.cut is not None else "chosen on validation, one for each seed and control"
        empty = float(np.mean([~m.random.reshape(DRAWS, len(positions), -1).any(axis=2) for m in made]))
        left = f" {empty:.0%} of these maps are empty and do not count." if empty else ""
        return [
            *said,
            f"{marked.sum()} of them have a mask. Strong is what reaches {cuts} of a map's largest value ({given}).",
            "Controls: a blob in the middle, as large as the map, and maps of the same network with random weights, "
            f"drawn {DRAWS} times.{left}",
        ]


def _alike(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    return rank_correlation(torch.from_numpy(a), torch.from_numpy(b))


def _marked(subject: Subject, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool [n]: which images have a mask."""
    masks = subject.cohort.masks
    if masks is None:
        return np.zeros(len(rows), bool)
    return np.asarray(masks[rows].reshape(len(rows), -1).any(axis=1), bool)


def against_masks(maps: NDArray, masks: NDArray, *, cut: float) -> NDArray[np.float64]:
    """float [m,3], as `PER_MAP`, of maps float [m,H,W] >= 0 and masks bool [m,H,W]; an empty map has 0 of all."""
    flat, inside = maps.reshape(len(maps), -1).astype(np.float64), masks.reshape(len(masks), -1)
    total = flat.sum(axis=1)
    there = total > 0
    pointing = there & np.array([k[pointed_at(m)] for m, k in zip(maps, masks, strict=True)], bool)
    mass = np.divide((flat * inside).sum(axis=1), total, out=np.zeros(len(flat)), where=there)
    overlaps = [mask_overlap(m, k, cut=cut) for m, k in zip(maps, masks, strict=True)]
    return np.stack([pointing.astype(np.float64), mass, np.array(overlaps)], axis=1)


def _scored(subject: Subject, made: list[Maps], rows: NDArray[np.int64], marked: NDArray[np.bool_]) -> NDArray:
    """float [S,m,3,3]: of each member and marked image what `PER_MAP` says of its map and of both controls'."""
    masks = subject.cohort.masks
    assert masks is not None
    inside = masks[rows[marked]] > 0
    scored = []
    for m in made:
        here, middle, *random = (
            against_masks(maps[marked], inside, cut=cut)
            for maps, cut in zip((m.here, centred(m.here), *m.random), m.cuts, strict=True)
        )
        there = m.random[:, marked].reshape(DRAWS, len(inside), -1).max(axis=2) > 0
        learned_nothing = mean_of_known(np.where(there[..., None], np.stack(random), np.nan))
        scored.append(np.stack([here, middle, learned_nothing], axis=1))
    return np.stack(scored)


def _measures(
    subject: Subject, made: list[Maps], positions: NDArray[np.int64], marked: NDArray[np.bool_], scored: NDArray | None
) -> dict[str, Measure]:
    """With masks the pointing game first, else insertion. scored: as `_scored`, or None without masks."""
    rows, found = subject.rows[positions], {}
    if scored is not None:
        at = positions[marked]
        for i, (key, (title, definition)) in enumerate(PER_MAP.items()):
            found[key] = _measure(subject, scored[:, :, 0, i], at, title, Better.HIGHER, definition)
            for j, control in enumerate((CENTRE, RANDOM), 1):
                apart = scored[:, :, 0, i] - scored[:, :, j, i]
                if np.isnan(apart).all():
                    continue
                name = f"{key}-over-{'centre' if j == 1 else 'random'}"
                said = f"{title}, more than {control}"
                found[name] = _measure(subject, apart, at, said, Better.HIGHER, "difference, image by image")
        found |= _of_boxes(subject, made, rows, positions, marked)
    values = np.stack([m.values for m in made])
    for i, key in enumerate(list(OTHERS)[1:]):
        title, better, definition = OTHERS[key]
        if not np.isnan(values[..., i]).all():
            found[key] = _measure(subject, values[..., i], positions, title, better, definition)
    return found


def _measure(
    subject: Subject, values: NDArray, at: NDArray[np.int64], title: str, better: Better, definition: str
) -> Measure:
    """values: float [S,m] of the images at the positions `at`."""
    [estimate] = means(subject, values[..., None], at)
    return Measure(title, estimate, better, definition, [on_rows(weighted_mean(v), at) for v in values])


def _of_boxes(
    subject: Subject, made: list[Maps], rows: NDArray[np.int64], positions: NDArray[np.int64], marked: NDArray[np.bool_]
) -> dict[str, Measure]:
    """Average precision of boxes, and how many images have one that hits."""
    masks, at = subject.cohort.masks, positions[marked]
    assert masks is not None
    true = [boxes_of_mask(masks[row] > 0) for row in rows[marked]]
    statistics, hits = [], []
    for m in made:
        boxes = [boxes_of(one, cut=m.cuts[0]) for one in m.here[marked]]
        each = stack([average_precision_of_boxes(boxes, true, at=overlap) for overlap in PRECISIONS])
        statistics.append(on_rows(lambda w, each=each: row_mean(each(w)), at))  # type: ignore[misc]
        hits.append([float(any(matched(b, t, at=HIT))) for b, t in zip(boxes, true, strict=True)])
    said = f"average precision of boxes, mean over overlaps of {PRECISIONS[0]:g} to {PRECISIONS[-1]:g}"
    title, better, definition = OTHERS["hit"]
    return {
        "box-precision": Measure(
            "Average precision of boxes", subject.interval(statistics), Better.HIGHER, said, statistics
        ),
        "hit": _measure(subject, np.array(hits), at, title, better, definition),
    }


def _failed(measures: dict[str, Measure]) -> list[str]:
    """What a reader has to know before any map is looked at."""
    said = []
    empty = measures["empty"].estimate.value if "empty" in measures else 0.0
    if empty > EMPTY:
        said.append(f"{WARNING}{empty:.0%} of the maps are empty; what is said below is of the others.")
    for key in ("random-weights", "under-noise"):
        if key not in measures:
            said.append(
                f"{WARNING}'{OTHERS[key][0]}' is not defined, because maps are empty. Do not show any as reasons."
            )
    for key, what in (("random-weights", "with random weights"), ("shuffled-labels", "after shuffled labels")):
        alike = measures[key].estimate.value if key in measures else 0.0
        if alike > ALIKE:
            said.append(
                f"{WARNING}maps hardly depend on what was learned: {what} they are alike by {alike:.2f} (rank "
                f"correlation; more than {ALIKE:g}). Do not show them as reasons."
            )
    steady = measures["under-noise"].estimate if "under-noise" in measures else None
    if steady is not None and steady.value < STEADY:
        said.append(
            f"{WARNING}maps move under noise that nobody sees: rank correlation {steady.value:.2f} (less than "
            f"{STEADY:g}). Do not show single maps as reasons."
        )
    order = [measures[k].estimate for k in ("insertion-over-random", "deletion-over-random") if k in measures]
    if len(order) == 2 and order[0].low <= 0 and order[1].high >= 0:
        said.append(f"{WARNING}the strongest places matter no more than random ones (insertion, deletion).")
    for key, what in (("mass-over-centre", CENTRE), ("mass-over-random", "the maps of random weights")):
        if key in measures and measures[key].estimate.low <= 0:
            said.append(f"{WARNING}maps hold no more of the mask than {what} would.")
    return said


def _controls(subject: Subject, scored: NDArray, at: NDArray[np.int64]) -> pd.DataFrame:
    """The maps of the images at the positions `at` beside both controls. scored: as `_scored`."""
    table: list[dict[str, Any]] = []
    for j, name in enumerate(("this classifier", CENTRE, RANDOM)):
        estimates = means(subject, scored[:, :, j], at)
        table.append({"map": name, **{t: e for (t, _), e in zip(PER_MAP.values(), estimates, strict=True)}})
    return pd.DataFrame(table)


def _strips(subject: Subject, maps: Maps, positions: NDArray[np.int64], marked: NDArray[np.bool_]) -> list[Strip]:
    """Test images with a mask (any, where there is none): as they are, their evidence, and the mask."""
    cohort, masks = subject.cohort, subject.cohort.masks
    drawn = drawn_at_random(subject, positions[marked] if marked.any() else positions, count=SHOWN)
    lines = []
    for i in drawn:
        row, at = subject.rows[i], int(np.flatnonzero(positions == i)[0])
        image = np.array(cohort.images[row])
        line = [Panel(image), Panel(image, evidence=maps.here[at])]
        if marked.any() and masks is not None:
            shown = np.where(masks[row][None] > 0, image, image // 4)
            line.append(Panel(shown.astype(image.dtype)))
        lines.append(line)
    if not lines:
        return []
    heads = ["the image", f"its evidence ({maps.layer or 'occlusion'})", *(["its mask"] if marked.any() else [])]
    caption = f"{len(lines)} test images drawn at random, class after class; evidence of their own class, first seed."
    titles = [f"Truly {t}" for t in label_names(cohort, subject.rows[drawn])]
    return [Strip("places", "Where it looks", caption, lines, heads, titles, cohort.white)]
