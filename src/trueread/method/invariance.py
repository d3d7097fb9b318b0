"""Whether a teacher is indifferent to a shortcut: how far its answer moves when a cue is put into an image."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trueread.cohort.cohort import Cohort
from trueread.errors import InputError
from trueread.model.classifier import Classifier
from trueread.shift.base import SHIFTS, Shift
from trueread.shift.planting import planted_in, with_cue
from trueread.stats import total_variation
from trueread.training.evaluate import predict_probabilities
from trueread.training.hooks import Setup

IMAGES = 200  # of validation, at most
FEWEST = 10  # below this no number is worth printing
CUES = ("square", "text", "gaussian-noise", "brightness")  # tried where nobody knows the shortcut
TOO_FAR = 0.1  # ours


def teacher_invariance(teacher: Classifier, setup: Setup) -> dict[str, Any]:
    """How far each cue moves a teacher's answer on validation images that do not carry it.

    `moved`: by cue, half the sum over classes of |p(with) - p(without)|, mean over images. `invariant`: whether none
    moves it further than 0.1, or None when there were too few images. `sentence`: that in words.
    The cue is the planted one where the cohort says so; else some of the library's, at severity 0.5.
    """
    what = planted_in(setup.cohort)
    cues = {what.shift.name: what.shift} if what is not None else {name: SHIFTS.build(name, {}) for name in CUES}
    rows = _rows(setup)
    plain = predict_probabilities(teacher, setup.cohort, rows) if len(rows) else np.empty(0)
    moved = {}
    for name, cue in cues.items() if len(rows) >= FEWEST else ():
        with suppress(InputError):  # a cue that does not fit into images of this size
            moved[name] = float(_moved(teacher, setup.cohort, rows, cue, plain))
    if not moved:
        return {"moved": {}, "invariant": None, "sentence": "its invariance could not be tried: too few images."}
    worst = max(moved, key=moved.__getitem__)
    sentence = f"'{worst}' put into {len(rows)} validation images moves its answer by {moved[worst]:.3f} on average"
    if moved[worst] > TOO_FAR:
        sentence += (
            ", which the student learns from it: give it more clean images, more epochs, or images with the mark"
        )
    return {"moved": moved, "invariant": moved[worst] <= TOO_FAR, "sentence": f"{sentence}."}


def _rows(setup: Setup) -> NDArray[np.int64]:
    """Validation images without the planted cue, at most `IMAGES`, drawn by the run's seed."""
    rows, truth = setup.val_rows, setup.cohort.truth
    if truth is not None and "cue" in truth.columns:
        rows = rows[~truth["cue"].to_numpy(bool)[rows]]
    chosen = np.random.default_rng([setup.seed, *b"invariance"]).permutation(rows)[:IMAGES]
    return np.sort(chosen)


def _moved(teacher: Classifier, cohort: Cohort, rows: NDArray[np.int64], cue: Shift, plain: NDArray) -> float:
    changed = replace(cohort.subset(rows), images=with_cue(cohort, cue, rows), known=())
    return total_variation(predict_probabilities(teacher, changed), plain, task=cohort.task).mean()
