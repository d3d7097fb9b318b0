"""The commands as Python functions; the command line is a thin shell over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from trueread.audit.base import AUDITS, build_audits, run_audits
from trueread.audit.finding import Finding
from trueread.audit.subject import Subject
from trueread.cohort.classes import natural_key
from trueread.cohort.cohort import Cohort
from trueread.cohort.read import IMAGE_ENDINGS, read_images
from trueread.cohort.source import SOURCES, load_cohort
from trueread.cohort.split import apply_split
from trueread.errors import InputError, unknown
from trueread.method.base import METHODS
from trueread.model.backbone import BACKBONES, MONAI_NETWORKS
from trueread.model.card import CARD_FILE
from trueread.model.classifier import Classifier
from trueread.model.explain import grad_cam
from trueread.model.predictor import Predictor
from trueread.options import option_names, validate
from trueread.progress import say, track
from trueread.record import metrics_table, write_json
from trueread.report import write_report
from trueread.report.evidence import write_overlay
from trueread.runner import SPLIT_FILE, SUMMARY, cell_folder, run_study
from trueread.shift.base import SHIFTS
from trueread.stats import decide
from trueread.study import Study, load_study
from trueread.training.batches import batch_slices, unit_intensities

PREDICT_BATCH = 64


def run(
    study: Study | str | Path | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    cohort: Cohort | None = None,
    command: str = "",
) -> Path:
    """Do a whole study: load, split, train methods x seeds, audit, compare, report. Returns the run folder.

    study: a Study, the path of a YAML file, or a mapping with the same keys. out: the run folder (`runs/<name>`).
    cohort: use this one instead of loading `study.data`. Interrupted, it continues where it was.
    """
    if isinstance(study, (str, Path)):
        study = load_study(study)
    elif isinstance(study, Mapping):
        study = validate(Study, study, where="study")
    return run_study(study, out, cohort=cohort, command=command)


def train(
    data: str | Cohort, method: str = "erm", *, out: str | Path, seed: int = 0, source: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None, command: str = "", **settings: Any,
) -> Classifier:  # fmt: skip
    """Train one classifier and keep it in the run folder `out`, with its performance on the test split.

    data: "SOURCE:LOCATION" with `source` as its options, or a Cohort. options: of the method. command: for the
    record. settings: of the loop (`epochs=20`, `backbone="resnet18"`, ...).
    """
    study = {
        "name": "train",
        "data": {"source": data if isinstance(data, str) else data.name, **(source or {})},
        "methods": [{"name": method, **(options or {})}],
        "seeds": [seed],
        "train": settings,
        "audits": ["performance", "calibration"],
    }
    folder = run(study, out=out, cohort=None if isinstance(data, str) else data, command=command)
    return Classifier.load(cell_folder(folder, method, seed) / "model")


def audit(
    model: Predictor | str | Path, data: str | Cohort, *, audits: str | Sequence[str | Mapping[str, Any]] = "all",
    thresholds: Mapping[str, float | None] | None = None, out: str | Path | None = None,
    source: Mapping[str, Any] | None = None, resamples: int = 1000,
) -> list[Finding]:  # fmt: skip
    """Ask every audit whose needs are met of one model, on the images it was not trained on.

    model: a Classifier, any Predictor, or the folder of a saved classifier (or of a run that holds one).
    data: "SOURCE:LOCATION" with `source` as its options (size and channels follow the model unless given), or a Cohort.
    The test split is used: the saved one when the data are those of the run, else the data's own, else all images.
    out: folder for findings.json and metrics.csv.
    """
    asked = build_audits(audits)
    folder = find_model(model) if isinstance(model, (str, Path)) else None
    predictor = Classifier.load(folder) if folder is not None else model
    if not isinstance(predictor, Predictor):
        raise InputError(
            f"a {type(model).__name__} does not say what it reads and answers; wrap a network with "
            "Classifier.wrap(...), a function with ProbabilityFunction(...)."
        )
    cohort = data if isinstance(data, Cohort) else load_like(predictor, data, source or {})
    cohort = _split_as_trained(cohort, predictor, folder)
    subject = Subject.of(
        predictor, cohort, name=str(predictor.card.training.get("method", "model")), resamples=resamples
    )
    findings = run_audits(subject, asked, thresholds=thresholds)
    if out is not None:
        write_json(Path(out) / "findings.json", {subject.name: [f.to_json() for f in findings]})
        metrics_table([(subject.name, findings)]).to_csv(Path(out) / "metrics.csv", index=False)
    return findings


def predict(
    model: Classifier | str | Path, images: Sequence[str | Path], *, explain: str | Path | None = None
) -> pd.DataFrame:
    """Calibrated probabilities of image files: a row each with file, decision, `p:<class>`, or why it was not read.

    images: files, or folders that are searched for images. explain: folder for an overlay PNG per image, Grad-CAM of
    the most probable class; its largest evidence, in logit units, is the column `evidence`. All overlays share one
    colour scale, set by the strongest evidence among the first images. Raises InputError when more than half of the
    images cannot be read.
    """
    classifier = Classifier.load(find_model(model)) if isinstance(model, (str, Path)) else model
    card = classifier.card
    if len(card.size) != 2 or card.size[0] != card.size[1]:
        raise InputError(f"predict reads square images; this model was trained on {'x'.join(map(str, card.size))}.")
    files = list_images(images)
    read = read_images(files, size=card.size[0], channels=card.channels, fit=card.fit)
    white = card.white if (read.white == 255) == (card.white == 255) else read.white  # 12 bits stay 12 bits
    overlays = Overlays(Path(explain)) if explain is not None else None
    parts, evidence = [], []
    slices = batch_slices(len(read.images), PREDICT_BATCH)
    for part in track(slices, what="predicting", unit="batches"):
        batch = unit_intensities(read.images[part], white).clamp_(max=1)
        with torch.no_grad():
            probabilities = classifier.probabilities(batch).numpy()
        parts.append(probabilities)
        if overlays is not None:
            names = [f"{i:05d}-{files[i].stem}.png" for i in read.kept[part]]
            evidence += overlays.write(classifier, batch, probabilities.argmax(1), names)
    p = np.concatenate(parts)
    table = pd.DataFrame({"file": [str(files[i]) for i in read.kept], "decision": decisions(p, card), "reason": ""})
    for k, name in enumerate(card.classes):
        table[f"p:{name}"] = p[:, k]
    if overlays is not None:
        table["evidence"] = evidence
    table.index = pd.Index(read.kept)
    broken = pd.DataFrame({"file": [str(files[i]) for i in read.omitted.index], "reason": read.omitted["reason"]})
    return pd.concat([table, broken]).sort_index().reset_index(drop=True)


class Overlays:
    """Overlay PNGs of many images on one colour scale, which the first batch sets."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.full_colour = folder, 0.0
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, classifier: Classifier, images: Tensor, targets: np.ndarray, names: Sequence[str]) -> list[float]:
        """Write a PNG per image of the batch [B,C,H,W] in [0,1]; returns each map's largest evidence, in logits."""
        explanation = grad_cam(classifier, images, torch.from_numpy(targets))
        maps = explanation.maps.numpy()
        if not self.full_colour:
            self.full_colour = float(maps.max())
            say(f"evidence from layer {explanation.layer}; full colour is {self.full_colour:.3g} logit units.")
        for image, evidence, name in zip(images.numpy(), maps, names, strict=True):
            write_overlay(image, evidence, self.folder / name, white=1.0, full_colour=self.full_colour)
        return [float(m.max()) for m in maps]


def decisions(probabilities: np.ndarray, card: Any) -> list[str]:
    """What the classifier says at its threshold: one class name; for multilabel those above it, joined by "|"."""
    cut = 0.5 if card.threshold is None else card.threshold
    made = decide(probabilities.astype(np.float64), task=card.task, threshold=cut)  # float32 would round the threshold
    if card.task == "multilabel":
        return ["|".join(c for c, yes in zip(card.classes, row, strict=True) if yes) for row in made]
    return [card.classes[int(k)] for k in made]


def report(run_folder: str | Path) -> Path:
    """Draw report.html of a finished run again and return its path."""
    folder = Path(run_folder)
    if not (folder / SUMMARY).is_file():
        raise InputError(f"{folder} is no finished run: there is no {SUMMARY} in it; `trueread run` writes one.")
    return write_report(folder)


def catalogue(kind: str) -> list[dict[str, Any]]:
    """What can be named: kind "methods", "audits", "shifts", "sources" or "backbones"; name, summary, source and
    options of each.
    """
    registries: dict[str, Any] = {r.plural: r for r in (METHODS, AUDITS, SHIFTS, SOURCES, BACKBONES)}
    if kind not in registries:
        raise unknown("kind of thing to list", kind, registries)
    rows = [
        {"name": e.name, "summary": e.summary, "source": e.source, "options": option_names(e.factory)}
        for e in registries[kind].entries()
    ]
    if kind == "backbones":
        rows += [
            {
                "name": f"monai:{n}",
                "summary": "MONAI network for volumes (extra `volumes`).",
                "source": "MONAI",
                "options": [],
            }
            for n in MONAI_NETWORKS
        ]
        rows.append(
            {
                "name": "<any timm name>",
                "summary": "Every 2-D timm architecture, e.g. resnet18.",
                "source": "timm",
                "options": [],
            }
        )
    return rows


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def find_model(path: str | Path) -> Path:
    """The folder with a card at `path`, or the only one below it (a run with one trained classifier)."""
    path = Path(path)
    if (path / CARD_FILE).is_file():
        return path
    found = sorted(p.parent for p in path.glob(f"**/model/{CARD_FILE}")) if path.is_dir() else []
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(str(f) for f in found[:3])
        raise InputError(f"{path} holds {len(found)} classifiers ({shown}, ...); name one of their folders.")
    raise InputError(
        f"there is no saved classifier in {path} (no {CARD_FILE}); give the folder that `train` or `run` wrote."
    )


def load_like(predictor: Predictor, data: str, options: Mapping[str, Any]) -> Cohort:
    """The cohort `data`, at the model's size, channels and class order where the source takes them and nobody said
    otherwise.
    """
    from trueread.cohort.source import parse_source

    card = predictor.card
    takes = option_names(SOURCES.get(parse_source(data)[0]).factory)
    own: dict[str, Any] = {
        "size": max(card.size),
        "channels": card.channels,
        "fit": card.fit,
        "classes": list(card.classes),
    }
    wanted = {k: v for k, v in own.items() if k in takes}
    return load_cohort(data, **{**wanted, **options})


def list_images(paths: Sequence[str | Path]) -> list[Path]:
    """Files as given, and the images below folders, "scan 2" before "scan 10"; hidden ones are passed over."""
    files: list[Path] = []
    for given in map(Path, paths):
        if given.is_dir():
            found = (p for p in given.rglob("*") if p.suffix.lower() in IMAGE_ENDINGS and p.is_file())
            files += sorted((p for p in found if not p.name.startswith(".")), key=lambda p: natural_key(str(p)))
        elif given.is_file():
            files.append(given)
        else:
            raise InputError(f"there is no file or folder {given}; check the path.")
    if not files:
        raise InputError(f"there is no image in {', '.join(map(str, paths))}; give image files or a folder of them.")
    return files


def _split_as_trained(cohort: Cohort, predictor: Predictor, folder: Path | None) -> Cohort:
    """The split of the run the model came from, when the data are the same; a warning when it is lost."""
    if predictor.card.data_digest != cohort.digest:
        return cohort
    for parent in folder.parents if folder is not None else ():
        if (parent / SPLIT_FILE).is_file():
            return apply_split(cohort, parent / SPLIT_FILE)
    if not cohort.is_split:
        say(
            "warning: the model was trained on images of this cohort, and the split of that run is not beside it: "
            "the numbers below include its training images."
        )
    return cohort


__all__ = ["audit", "catalogue", "predict", "report", "run", "train"]
