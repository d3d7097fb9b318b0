"""Pictures of test images without and with a cue, each with what the classifiers say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trueread.audit.cues import Effect
from trueread.audit.strip import Panel, Strip
from trueread.audit.subject import Subject
from trueread.cohort.showing import class_after_class, label_names, slice_to_show
from trueread.shift.base import Change, Shift
from trueread.shift.planting import with_cue

PAIRS, SAMPLES = 4, 2  # images of a planted cue, and of the library


@dataclass(frozen=True, eq=False)
class Column:
    """What a column shows: the images after a change (None: as they are), and their probabilities [m,K]."""

    head: str
    change: Change | None
    probabilities: NDArray[np.float64]


def planted_strips(subject: Subject, shift: Shift, answers: Sequence[NDArray]) -> list[Strip]:
    """A few test images without and with a planted cue. answers: of each member, [n,K] of all test images with it."""
    drawn = drawn_at_random(subject, np.arange(len(subject.rows)), count=PAIRS)
    columns = [
        Column("without", None, without_cue(subject, drawn)),
        Column("with", shift, np.mean([p[drawn] for p in answers], axis=0)),
    ]
    return strips_of(subject, drawn, columns, name="planted", title=f"Without and with the planted cue '{shift.name}'")


def library_strips(subject: Subject, effects: Sequence[Effect], positions: NDArray[np.int64]) -> list[Strip]:
    """Two test images with every cue. effects: of one severity, on the test images at `positions`."""
    drawn = drawn_at_random(subject, positions, count=SAMPLES)
    at = [int(np.flatnonzero(positions == i)[0]) for i in drawn]
    before = without_cue(subject, drawn)
    columns = [Column("as it is", None, before)]
    columns += [Column(e.cue, e.shift, before + e.change[:, at].mean(axis=0)) for e in effects]
    title = f"With every cue of the library, severity {effects[0].severity:g}"
    return strips_of(subject, drawn, columns, name="library", title=title)


def drawn_at_random(subject: Subject, positions: NDArray[np.int64], *, count: int) -> list[int]:
    """At most `count` of these positions among the test rows: by the subject's seed, class after class, no patient
    twice. Images without any known label are left out; the order of the test rows does not matter.
    """
    labels = subject.labels[positions]
    known = positions if labels.ndim == 1 else positions[~np.isnan(labels).all(axis=1)]
    ids = subject.cohort.table["id"].iloc[subject.rows].astype(str).to_numpy()
    generator = np.random.default_rng([subject.seed, *b"cue-strips"])
    shuffled = generator.permutation(known[np.argsort(ids[known])])
    return class_after_class(shuffled, label_names(subject.cohort, subject.rows), subject.clusters, count=count)


def without_cue(subject: Subject, drawn: Sequence[int]) -> NDArray[np.float64]:
    """[m,K]: what the members said of the test images at `drawn`, on average."""
    return np.mean([m.probabilities[drawn].astype(np.float64) for m in subject.members], axis=0)


def strips_of(
    subject: Subject, drawn: Sequence[int], columns: Sequence[Column], *, name: str, title: str
) -> list[Strip]:
    """A strip with a row for each test image at `drawn`, none without any; the first column is without a cue.

    Below each panel the probability of the positive class (binary), of the image's own class, or (multilabel) of the
    first label that it has, of images without one the most probable.
    """
    if not drawn:
        return []
    cohort, rows = subject.cohort, subject.rows[drawn]
    truth, asked = label_names(cohort, rows), asked_of(subject, drawn, columns[0].probabilities)
    stored = [cohort.images[rows] if c.change is None else with_cue(cohort, c.change, rows) for c in columns]
    panels = []
    for i, (row, k) in enumerate(zip(rows, asked, strict=True)):
        images = [images[i] for images in stored]
        if cohort.is_volume:
            mask = None if cohort.masks is None else cohort.masks[row]
            at = slice_to_show(None, mask, depth=cohort.spatial[0])
            images = [image[:, at] for image in images]
        said = [f"{cohort.classes[k]} {round(100 * c.probabilities[i, k])} %" for c in columns]
        panels.append([Panel(np.array(image), text) for image, text in zip(images, said, strict=True)])
    heads, titles = [c.head for c in columns], [f"Truly {t}" for t in truth]
    return [Strip(name, title, caption_of(subject, len(drawn)), panels, heads, titles, cohort.white)]


def asked_of(subject: Subject, drawn: Sequence[int], before: NDArray) -> list[int]:
    """The class of which the probability is told, for each image."""
    labels = subject.labels[drawn]
    if subject.cohort.task == "binary":
        return [1] * len(labels)
    if labels.ndim == 1:
        return [int(k) for k in labels]
    return [int(np.argmax(row == 1) if (row == 1).any() else p.argmax()) for row, p in zip(labels, before, strict=True)]


def caption_of(subject: Subject, count: int) -> str:
    """How the images were drawn, and what the numbers are."""
    task, n = subject.cohort.task, len(subject.members)
    of = {
        "binary": f"'{subject.cohort.classes[1]}'",
        "multilabel": "the first label that the image has, or where it has none of the most probable one",
    }.get(task, "the image's own class")
    images = "One test image" if count == 1 else f"{count} test images"
    seeds = f", mean over {n} seeds" if n > 1 else ""
    return (
        f"{images} drawn at random, class after class, and not chosen for how far they move. Below each picture, the "
        f"probability of {of}{seeds}."
    )
