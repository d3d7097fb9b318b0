"""New images: probabilities, decisions, when not to rely on them, and where in the image the evidence lies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from trueread.audit.boxes import Box, boxes_of
from trueread.cohort.read import list_images, read_images, white_levels, without_too_bright
from trueread.commands import read_model, writing
from trueread.errors import InputError, unknown
from trueread.imagefile.decode import on_original
from trueread.model.card import Card
from trueread.model.classifier import Classifier, to_probabilities
from trueread.model.explain import EXPLANATIONS, GRAD_CAM, explain
from trueread.model.limits import abstentions, distances, margins
from trueread.model.predictor import Predictor, device_of
from trueread.progress import say, track
from trueread.report.capture import SIDE, Captures
from trueread.report.evidence import overlay
from trueread.report.pictures import UNCHECKED, UNFIT, doubts_of
from trueread.stats import decide
from trueread.training.batches import batch_slices

READ_AT_ONCE = 2048  # files, so that a folder of any size fits in memory
BATCH = 64
CUT = 0.5  # share of a map's largest value from which on a place belongs to a box


class Part(NamedTuple):
    """Some of the files. at: int64 [n], which of them could be read. images: float [n,C,S,S] in [0,1]. sizes: int64
    [n,2], width and height of the originals. broken: position -> why it was not read.
    """

    at: NDArray[np.int64]
    images: Tensor
    sizes: NDArray[np.int64]
    broken: dict[int, str]


@dataclass(frozen=True)
class Pictures:
    """What is drawn of each image, if anything: PNG files of overlays, DICOM files of the same.

    how: the kind of map. cut: from which share of its largest value on a map makes a box. full_colour: in logit units,
    set by the first images that have any evidence, so that all pictures have one scale.
    """

    overlays: Path | None
    captures: Captures | None
    how: str
    cut: float
    full_colour: list[float] = field(default_factory=list)

    @property
    def wanted(self) -> bool:
        return self.overlays is not None or self.captures is not None


def predict(
    model: Predictor | str | Path, images: Sequence[str | Path], *, explain: str | Path | None = None,
    dicom: str | Path | None = None, how: str = GRAD_CAM, cut: float = CUT,
) -> pd.DataFrame:  # fmt: skip
    """Calibrated probabilities of image files, a row each: `file`, `decision`, `abstain` ("" or why the answer should
    not be relied on, see `trueread.model.limits`), `reason` (why a file was not read), `p:<class>`, and `distance` from
    the training images where it is known.

    model: a classifier, the folder of a saved one, or an exported ONNX file. images: files, or folders of them. What an
    image gets does not depend on the others: each is scaled by its own file's white.
    explain, dicom: folders for a PNG, and for a DICOM secondary capture, of each image under the evidence for the class
    it was given. how: the kind of map; see `trueread.explain`. Two more columns then: `evidence`, its largest value in
    logit units, and `boxes`, a list of {left, top, right, bottom, score} in pixels of the original, ends excluded,
    around what reaches `cut` of that value. All pictures share one colour scale, set by the first 64 images.
    Raises InputError when none can be read, or for a model that does not read square images.
    """
    predictor = read_model(model)[0] if isinstance(model, (str, Path)) else model
    card = predictor.card
    if len(card.size) != 2 or card.size[0] != card.size[1]:
        raise InputError(f"predict reads square images; this model was trained on {'x'.join(map(str, card.size))}.")
    pictures = _pictures(explain, dicom, how, cut)
    files = list_images(images)
    say(f"decision: {decision_rule(card)}.")
    if card.limits is not None:
        known = isinstance(predictor, Classifier) and predictor.typical is not None
        unknown_here = "" if known or card.limits.distance is None else " (how unusual, is not known of this file)"
        say(f"abstain: {card.limits.rule}{unknown_here}.")
    rows: dict[int, dict[str, Any]] = {}
    parts = _parts(files, card)
    for part in track(parts, what="predicting", total=-(-len(files) // BATCH), unit="batches"):
        rows |= {i: {"file": str(files[i]), "reason": why} for i, why in part.broken.items()}
        if len(part.at):
            answers = _answers(predictor, part, pictures, files)
            rows |= {int(i): {"file": str(files[i]), "reason": "", **a} for i, a in zip(part.at, answers, strict=True)}
    if all(row["reason"] for row in rows.values()):
        shown = "; ".join(f"{row['file']}: {row['reason']}" for row in list(rows.values())[:2])
        raise InputError(
            f"none of {len(files)} files can be predicted ({shown}); give images of the kind the model was trained on."
        )
    table = pd.DataFrame([rows[i] for i in range(len(files))])
    first = ["file", "decision", "abstain", "reason", *(f"p:{name}" for name in card.classes)]
    return table[[*first, *(c for c in table.columns if c not in first)]]


def _pictures(overlays: str | Path | None, dicom: str | Path | None, how: str, cut: float) -> Pictures:
    """Checked before any image is read."""
    if how not in EXPLANATIONS:
        raise unknown("explanation", how, EXPLANATIONS)
    if not 0 < cut < 1:
        raise InputError(f"cut must lie between 0 and 1; found {cut}; give the share of a map's largest value.")
    for folder, option in ((overlays, "--explain"), (dicom, "--dicom")):
        if folder is not None:
            with writing(folder, option=option):
                Path(folder).mkdir(parents=True, exist_ok=True)
    captures = Captures(Path(dicom)) if dicom is not None else None
    return Pictures(Path(overlays) if overlays is not None else None, captures, how, cut)


def _parts(files: Sequence[Path], card: Card) -> Iterator[Part]:
    """The files in batches, read some thousand at a time."""
    size, known = card.size[0], card.white if card.white > 255 else None
    for start in range(0, len(files), READ_AT_ONCE):
        some = files[start : start + READ_AT_ONCE]
        read = read_images(some, size=size, channels=card.channels, fit=card.fit, white=known, tolerated=None, what="")
        read, white = without_too_bright(read, white_levels(read, card.white), some)
        broken = dict(zip((start + read.omitted.index).tolist(), read.omitted["reason"], strict=True))
        for part in batch_slices(len(read.images), BATCH, at_least=1) if len(read.images) else []:
            levels = white[part].astype(np.float32)[:, None, None, None]
            images = torch.from_numpy(np.divide(read.images[part], levels, dtype=np.float32))
            sizes = read.files[["width", "height"]].to_numpy(np.int64)[part]
            yield Part(start + read.kept[part], images, sizes, broken)
            broken = {}
        if broken:
            yield Part(np.zeros(0, np.int64), torch.zeros(0), np.zeros((0, 2), np.int64), broken)


def _answers(predictor: Predictor, part: Part, pictures: Pictures, files: Sequence[Path]) -> list[dict[str, Any]]:
    """For each image of a part what is in its row."""
    card = predictor.card
    images = part.images.to(device_of(predictor))
    p, distance = _probabilities(predictor, images)
    made = decisions(p, card)
    columns: dict[str, Sequence[Any]] = {
        "decision": made,
        "abstain": abstentions(margins(p, card), distance, card),
        **{f"p:{name}": p[:, k].tolist() for k, name in enumerate(card.classes)},
    }
    if distance is not None:
        columns["distance"] = distance.tolist()
    if pictures.wanted:
        target = p.argmax(1) if card.task == "multilabel" else np.array([card.classes.index(d) for d in made])
        maps = _maps(predictor, images, torch.from_numpy(target).to(images.device), pictures)
        boxes = [boxes_of(m, cut=pictures.cut) for m in maps]
        shown = [f"{card.classes[t]}, probability {p[i, t]:.3f}" for i, t in enumerate(target)]
        _draw(part, maps, boxes, pictures, [files[i] for i in part.at], shown, doubts_of(card, pictures.how))
        columns["evidence"] = [float(m.max()) for m in maps]
        columns["boxes"] = [_located(b, part.sizes[i], card) for i, b in enumerate(boxes)]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _probabilities(predictor: Predictor, images: Tensor) -> tuple[NDArray[np.float32], NDArray | None]:
    """Calibrated, float32 [n,K], and the distance from the training images [n] where features are known."""
    with torch.no_grad():
        if not isinstance(predictor, Classifier):
            return predictor.probabilities(images).cpu().numpy(), None
        output = predictor.eval()(images)
        p = to_probabilities(output.logits.float(), predictor.card).cpu().numpy()
        if predictor.typical is None or output.features is None:
            return p, None
        return p, distances(output.features, predictor.typical).cpu().numpy()


def _maps(predictor: Predictor, images: Tensor, target: Tensor, pictures: Pictures) -> NDArray[np.float32]:
    """Evidence float32 [n,S,S] for the class `target` of each image."""
    found = explain(predictor, images, target, how=pictures.how)
    maps = found.maps.float().cpu().numpy()
    if not pictures.full_colour and maps.max() > 0:
        pictures.full_colour.append(float(maps.max()))
        layer = f"layer {found.layer}" if found.layer else "the image"
        say(f"evidence by {pictures.how} from {layer}; full colour is {maps.max():.3g} logit units.")
        for doubt in doubts_of(predictor.card, pictures.how):
            say(doubt)
    return maps


def _draw(
    part: Part, maps: NDArray, boxes: Sequence[Sequence[Box]], pictures: Pictures, files: Sequence[Path],
    said: Sequence[str], doubts: Sequence[str],
) -> None:  # fmt: skip
    full_colour = pictures.full_colour[0] if pictures.full_colour else 0.0
    unfit = UNFIT if any(d != UNCHECKED for d in doubts) else ""
    for i, (position, image) in enumerate(zip(part.at, part.images.numpy(), strict=True)):
        name = f"{position:05d}-{files[i].stem}{unfit}"
        draw = partial(overlay, image, maps[i], white=1.0, full_colour=full_colour, boxes=boxes[i])
        if pictures.overlays is not None:
            with writing(pictures.overlays, option="--explain"):
                draw().save(pictures.overlays / f"{name}.png")
        if pictures.captures is not None:
            with writing(pictures.captures.folder, option="--dicom"):
                comment = " ".join([f"Evidence for {said[i]}.", *doubts])
                pictures.captures.write(draw(side=SIDE), name, source=files[i], said=comment)


def _located(boxes: Sequence[Box], original: NDArray[np.int64], card: Card) -> list[dict[str, float]]:
    """Boxes in pixels of an original of (width, height)."""
    found: list[dict[str, float]] = []
    for box in boxes:
        at = on_original(
            (box.left, box.top, box.right, box.bottom), size=card.size[0], fit=card.fit, width=int(original[0]),
            height=int(original[1]),
        )  # fmt: skip
        found.append({**dict(zip(("left", "top", "right", "bottom"), at, strict=True)), "score": round(box.score, 4)})
    return found


def decisions(probabilities: np.ndarray, card: Card) -> list[str]:
    """What the classifier says at its threshold: one class name; for multilabel those above it, joined by "|"."""
    cut = 0.5 if card.threshold is None else card.threshold
    made = decide(probabilities.astype(np.float64), task=card.task, threshold=cut)  # float32 would round the threshold
    if card.task == "multilabel":
        return ["|".join(c for c, yes in zip(card.classes, row, strict=True) if yes) for row in made]
    return [card.classes[int(k)] for k in made]


def decision_rule(card: Card) -> str:
    """The rule of `decisions` in words: which class from which probability on, or the most probable class."""
    if card.task in ("multiclass", "ordinal"):
        return "the most probable class"
    cut = 0.5 if card.threshold is None else card.threshold
    if card.task == "binary":
        return (
            f"'{card.classes[1]}' from a probability of {cut:.3g} on ({card.threshold_rule}), else '{card.classes[0]}'"
        )
    cuts = np.broadcast_to(cut, len(card.classes))
    each = ", ".join(f"'{name}' from {c:.3g} on" for name, c in zip(card.classes, cuts, strict=True))
    return f"every class that reaches its probability: {each}"


__all__ = ["decision_rule", "decisions", "predict"]
