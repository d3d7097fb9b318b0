"""Tiny cohorts as files, and studies that train on them in a second, for tests of the whole product."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tiny import tiny_cohort
from trueread.cohort.cohort import Cohort

TRAIN = {"epochs": 1, "batch_size": 24, "precision": "fp32", "device": "cpu", "augment": "none", "threads": 1}


def tiny_study(**changed: Any) -> dict[str, Any]:
    """A study of plain training, one seed, one epoch, on the cohort of `with_sites`, which is not checked."""
    plain = {
        "name": "tiny", "data": "tiny-binary", "check": False, "train": TRAIN, "resamples": 100, "explain": False,
    }  # fmt: skip
    return {**plain, **changed}


def with_sites(cohort: Cohort | None = None) -> Cohort:
    """A tiny cohort, not yet split, whose images come from two sites at random."""
    cohort = cohort or tiny_cohort(n=120)
    site = np.random.default_rng(0).choice(["A", "B"], len(cohort))
    return dataclasses.replace(cohort, table=cohort.table.assign(site=site, split=""))


def write_pictures(folder: Path, cohort: Cohort | None = None, *, broken: int = 0) -> Path:
    """The cohort as PNG files, FOLDER/CLASS/patientNNN-scanNN.png, and so many truncated ones beside them."""
    cohort = cohort or tiny_cohort(n=120)
    numbers = cohort.patient_codes()
    for i, (image, label) in enumerate(zip(cohort.images, cohort.labels, strict=True)):
        path = folder / cohort.classes[label] / f"patient{numbers[i]:03d}-scan{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)).save(path)
    whole = sorted(folder.rglob("*.png"))
    for k in range(broken):
        source = whole[k * 7]
        (source.parent / f"patient{900 + k}-scan{900 + k}.png").write_bytes(source.read_bytes()[:60])
    return folder
