"""A trained classifier as one file for elsewhere, and what its compression costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trueread.audit.base import compare_findings, run_audits
from trueread.audit.calibration import Calibration
from trueread.audit.finding import Difference
from trueread.audit.performance import Performance
from trueread.audit.subject import Subject
from trueread.cohort.cohort import Cohort
from trueread.commands import find_model, load_like, split_as_trained, writing
from trueread.errors import InputError
from trueread.model.classifier import Classifier
from trueread.model.onnx import OnnxPredictor, export_onnx
from trueread.progress import say
from trueread.training.batches import ImageStore

CALIBRATED_BY = 256  # images that give the ranges of 8-bit numbers
ONNX = "onnx"


def export(
    model: Classifier | str | Path, out: str | Path, *, int8: str | Cohort | None = None,
    source: Mapping[str, Any] | None = None, resamples: int = 1000,
) -> Path:  # fmt: skip
    """Write a classifier as an ONNX file, with normalisation, temperature and card inside; see `export_onnx`.

    int8: data as of `audit`, with `source` as their options. The file then has 8-bit weights, whose ranges are those of
    up to 256 training images (of validation, or any, where there are none), and what that costs on the test images is
    said: each number of the audits `performance` and `calibration`, less that of the classifier, with its interval.
    Returns the file. Raises InputError for a model or data that do not fit, and without `trueread[onnx]`.
    """
    folder = find_model(model) if isinstance(model, (str, Path)) else None
    classifier = Classifier.load(folder) if folder is not None else model
    assert isinstance(classifier, Classifier)
    out = Path(out)
    if int8 is None:
        with writing(out, option="-o"):
            export_onnx(classifier, out)
        say(f"{out}: {_size(out)}; images {list(classifier.card.input_shape)} in [0,1] to probabilities and logits.")
        return out
    cohort = int8 if isinstance(int8, Cohort) else load_like(classifier, int8, source or {})
    cohort = split_as_trained(cohort, classifier, folder)
    with writing(out, option="-o"):
        export_onnx(classifier, out, calibration=ImageStore(cohort, classifier.mean.device).batch(_some_rows(cohort)))
    say(f"{out}: {_size(out)}, 8 bits.")
    for difference in cost_of(OnnxPredictor(out), classifier, cohort, resamples=resamples):
        found = difference.comparison.difference
        say(f"{difference.measure}: {found.value:+.4f} ({found.low:+.4f} to {found.high:+.4f}).")
    return out


def cost_of(small: OnnxPredictor, classifier: Classifier, cohort: Cohort, *, resamples: int = 1000) -> list[Difference]:
    """What a compressed file's performance and calibration are less the classifier's, on the same test images."""
    audits = [Performance(), Calibration()]
    subjects = [
        Subject.of(p, cohort, name=n, resamples=resamples) for p, n in ((classifier, "float32"), (small, "int8"))
    ]
    findings = [(s.name, run_audits(s, audits)) for s in subjects]
    return compare_findings(findings[0], findings[1:], subjects[0])


def _some_rows(cohort: Cohort) -> np.ndarray:
    """Up to 256 images of training, else of validation, else any; drawn at random, the same ones each time."""
    rows = next((r for r in (cohort.rows("train"), cohort.rows("val"), np.arange(len(cohort))) if len(r)), None)
    if rows is None:
        raise InputError(f"{cohort.name} has no images to find the ranges of 8-bit numbers on.")
    return np.sort(np.random.default_rng(0).permutation(rows)[:CALIBRATED_BY])


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.2f} MB"


__all__ = ["cost_of", "export"]
