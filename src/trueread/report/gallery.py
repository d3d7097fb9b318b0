"""The gallery: a few test images, what the classifier said of them, and where in them it found its evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trueread.cohort.showing import class_after_class, slice_to_show
from trueread.errors import InputError, NotMeasured
from trueread.report.evidence import write_evidence, write_image, write_outline
from trueread.report.words import slug

if TYPE_CHECKING:
    from trueread.cohort.cohort import Cohort
    from trueread.model.predictor import Predictor

FOLDER = Path("figures") / "gallery"
KINDS = ("right", "wrong", "confidently right", "confidently wrong", "least certain")
EXPLAINED_AT_ONCE = 8  # images per Grad-CAM batch: volumes at full size must fit beside their activations


@dataclass(frozen=True)
class Outcome:
    """What was decided of each test image, beside its label.

    right: bool [n]; multilabel: every known label. usable: bool [n], False where no label is known.
    certainty: float [n] in [0,1], distance from the decision: binary and multilabel, how far the probability is on its
    side of the threshold (multilabel: of the least certain label); otherwise, the first class's lead over the second.
    explained: int64 [n], the class whose evidence is shown: the decided one; multilabel, the most probable.
    decided, truth: names, "none" where a multilabel image has none.
    """

    right: NDArray[np.bool_]
    usable: NDArray[np.bool_]
    certainty: NDArray[np.float64]
    explained: NDArray[np.int64]
    decided: list[str]
    truth: list[str]


def outcome_of(
    probabilities: NDArray,
    labels: NDArray,
    *,
    classes: Sequence[str],
    task: str,
    threshold: float | Sequence[float] | None = None,
) -> Outcome:
    """Decisions by the classifier's own rule.

    probabilities: float [n,K]. labels: int64 [n] or float32 [n,K] with nan. threshold: as on the card, None is 0.5.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if task in ("binary", "multilabel"):
        cut = np.asarray(0.5 if threshold is None else threshold, dtype=np.float64)
        score = p[:, 1:] if task == "binary" else p
        above = score >= cut
        distance = np.where(above, (score - cut) / np.maximum(1 - cut, 1e-12), (cut - score) / np.maximum(cut, 1e-12))
    if task == "multilabel":
        known = ~np.isnan(labels)
        return Outcome(
            (((labels == 1) == above) | ~known).all(axis=1),
            known.any(axis=1),
            np.where(known, distance, 1.0).min(axis=1),
            p.argmax(axis=1),
            [_listed(classes, row) for row in above],
            [_listed(classes, row == 1) for row in labels],
        )
    if task == "binary":
        decided, certainty = above[:, 0].astype(np.int64), distance[:, 0]
    else:
        decided = p.argmax(axis=1)
        top = np.sort(p, axis=1)
        certainty = top[:, -1] - top[:, -2]
    names, truth = [classes[k] for k in decided], [classes[k] for k in labels]
    return Outcome(decided == labels, np.ones(len(p), bool), certainty, decided, names, truth)


def choose(
    outcome: Outcome, *, patients: NDArray | None = None, per_kind: int = 4, seed: int = 0
) -> dict[str, list[int]]:
    """Positions of the images of each kind: at most `per_kind`, no image twice, the same for the same outcome.

    patients: int64 [n], each image's patient; within a kind no patient is shown twice. None: every image its own.
    Confident ones are the most certain, and only from the more certain half of the images; the least certain are from
    the other half. The rest is drawn at random, class after class, so that a common class does not fill the page.
    """
    usable = np.flatnonzero(outcome.usable)
    if len(usable) == 0:
        return {kind: [] for kind in KINDS}
    middle = np.median(outcome.certainty[usable])
    by_certainty = usable[np.argsort(outcome.certainty[usable], kind="stable")]
    surest = usable[np.argsort(-outcome.certainty[usable], kind="stable")]
    shuffled = np.random.default_rng(seed).permutation(usable)
    patient = np.arange(len(outcome.right)) if patients is None else patients
    taken: set[int] = set()

    def take(candidates: NDArray) -> list[int]:
        picked: dict[int, int] = {}  # by patient
        for i in candidates:
            if len(picked) < per_kind and int(i) not in taken:
                picked.setdefault(int(patient[i]), int(i))
        taken.update(picked.values())
        return list(picked.values())

    right, certainty = outcome.right, outcome.certainty
    chosen = {
        "confidently wrong": take(surest[~right[surest] & (certainty[surest] >= middle)]),
        "confidently right": take(surest[right[surest] & (certainty[surest] >= middle)]),
        "least certain": take(by_certainty[certainty[by_certainty] <= middle]),
    }
    for kind, is_right in (("wrong", False), ("right", True)):
        left = [i for i in shuffled if right[i] == is_right and int(i) not in taken]
        chosen[kind] = class_after_class(left, outcome.truth, patient, count=per_kind)
        taken.update(chosen[kind])
    return {kind: chosen[kind] for kind in KINDS}


def make_gallery(
    classifier: Predictor,
    cohort: Cohort,
    rows: NDArray,
    probabilities: NDArray,
    folder: str | Path,
    *,
    per_kind: int = 4,
    method: str = "model",
) -> list[dict[str, Any]]:
    """Choose images, write their pictures under `folder`/figures/gallery, and return one entry per image.

    classifier: with gradients, or the entries say why there is no evidence. rows: int64 [n], positions of the test
    images in the cohort. probabilities: float [n,K], calibrated, of these. folder: the run folder.
    Evidence is Grad-CAM of the decided class in logit units, on one colour scale for all images of the call.

    An entry: kind (one of KINDS), image, overlay (evidence, transparent where none), outline (of the mask); paths
    relative to the run folder or None; label, predicted (names); probability (of the class explained), explained (its
    name), layer, evidence_peak and evidence_full_colour (logit units), number (position among the test images, from 1),
    n_images, slice and n_slices (of a volume, from 1; else None), method, reason (why there is no overlay, else "").
    It has neither id nor patient.
    Raises InputError when the numbers of rows and probabilities differ.
    """
    rows = np.asarray(rows)
    if len(rows) != len(probabilities) or per_kind < 1:
        raise InputError(
            f"the gallery needs one row of probabilities per test image and per_kind of at least 1; found {len(rows)} "
            f"images, {len(probabilities)} rows and per_kind = {per_kind}."
        )
    outcome = outcome_of(
        probabilities,
        cohort.labels[rows],
        classes=cohort.classes,
        task=cohort.task,
        threshold=classifier.card.threshold,
    )
    by_kind = choose(outcome, patients=cohort.patient_codes(rows), per_kind=per_kind)
    chosen = [(kind, i) for kind, positions in by_kind.items() for i in positions]
    positions = np.array([i for _, i in chosen], dtype=np.int64)
    maps, layer, why_not = _explain(classifier, cohort, rows[positions], outcome.explained[positions])
    full_colour = max((float(m.max()) for m in maps), default=0.0)
    target = Path(folder) / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    entries = []
    for n, (kind, i) in enumerate(chosen):
        row = int(rows[i])
        mask = None if cohort.masks is None else cohort.masks[row]
        image, evidence, at = cohort.images[row], maps[n] if maps else None, None
        if cohort.is_volume:
            at = slice_to_show(evidence, mask, depth=image.shape[1])
            image, mask = image[:, at], None if mask is None else mask[at]
        stem = f"{slug(method)}-{i + 1:05d}"
        write_image(image, target / f"{stem}.png", white=cohort.white)
        if evidence is not None:
            shown = evidence if at is None else evidence[at]
            write_evidence(shown, target / f"{stem}-evidence.png", full_colour=full_colour)
        if mask is not None and mask.any():
            write_outline(mask, target / f"{stem}-outline.png")
        entries.append(
            {
                "kind": kind,
                "image": (FOLDER / f"{stem}.png").as_posix(),
                "overlay": None if evidence is None else (FOLDER / f"{stem}-evidence.png").as_posix(),
                "outline": (FOLDER / f"{stem}-outline.png").as_posix() if mask is not None and mask.any() else None,
                "label": outcome.truth[i],
                "predicted": outcome.decided[i],
                "probability": float(probabilities[i, outcome.explained[i]]),
                "explained": cohort.classes[outcome.explained[i]],
                "layer": layer,
                "evidence_peak": None if evidence is None else float(evidence.max()),
                "evidence_full_colour": None if evidence is None else full_colour,
                "number": i + 1,
                "n_images": len(rows),
                "slice": None if at is None else at + 1,
                "n_slices": cohort.spatial[0] if cohort.is_volume else None,
                "method": method,
                "reason": why_not,
            }
        )
    return entries


def _explain(
    predictor: Predictor, cohort: Cohort, rows: NDArray, targets: NDArray
) -> tuple[list[NDArray[np.float32]], str, str]:
    """Grad-CAM maps of the images, the layer they come from, and why there are none."""
    import torch  # here, because a report is redrawn without it

    from trueread.model.classifier import require_gradients
    from trueread.model.explain import grad_cam
    from trueread.model.predictor import device_of
    from trueread.training.batches import ImageStore

    maps: list[NDArray[np.float32]] = []
    layer = ""
    try:
        classifier = require_gradients(predictor)
    except NotMeasured as reason:
        return [], "", str(reason)
    was_training = classifier.training
    classifier.eval()
    try:
        store = ImageStore(cohort, device_of(classifier))
        for start in range(0, len(rows), EXPLAINED_AT_ONCE):
            part = slice(start, start + EXPLAINED_AT_ONCE)
            explanation = grad_cam(
                classifier, store.batch(rows[part]), torch.from_numpy(targets[part]).to(store.device)
            )
            maps += list(explanation.maps.float().cpu().numpy())
            layer = explanation.layer
    except NotMeasured as reason:
        return [], "", str(reason)
    finally:
        classifier.train(was_training)
    return maps, layer, ""


def _listed(classes: Sequence[str], present: NDArray) -> str:
    return ", ".join(c for c, there in zip(classes, present, strict=True) if there) or "none"
