"""Plants a shortcut: a cue that goes along with a class in training, and that can be taken away or turned round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from trueread.cohort.cohort import SPLITS, Cohort
from trueread.errors import InputError, unknown
from trueread.shift.base import SHIFTS, Change, Shift

Arrangement = Literal["biased", "clean", "balanced", "flipped"]
BiasFree = Literal["clean", "balanced"]
ARRANGEMENTS: tuple[str, ...] = get_args(Arrangement)
USUAL: Mapping[str, Arrangement] = {"train": "biased", "val": "biased", "test": "clean"}
PLANTED = "planted"  # the key of a cohort's origin that says what was planted
IMAGES_AT_A_TIME = 256


@dataclass(frozen=True, eq=False)
class Planting:
    """A cue and which images carry it.

    shift: the cue. prevalence: by class, the share of its images that carry the cue where it is "biased", in [0,1].
    clean: the share of each class's training patients whose images are bias-free, in [0,1]: the small set that some
    remedies need. A larger share contains a smaller one. clean_arrangement: "clean", they carry no cue; "balanced",
    half of every class carries it, as where a mark is known and both kinds of image were looked for.
    seed: of who carries it. But for the clean ones, whether an image does depends on its id, its class and the seed
    alone; between arrangements as few images as possible change.
    """

    shift: Shift
    prevalence: Mapping[str, float]
    clean: float = 0.0
    seed: int = 0
    clean_arrangement: BiasFree = "clean"

    def share(self, label: str, arrangement: Arrangement) -> float:
        """The expected share of the images of a class that carry the cue.

        biased: its prevalence. clean: 0. balanced: a half, whatever the class. flipped: 1 for the classes that have
        the cue less often than the classes do on average, and 0 for the others.
        """
        if arrangement == "biased":
            return self.prevalence[label]
        if arrangement == "flipped":
            return float(self.prevalence[label] < np.mean(list(self.prevalence.values())))
        return 0.5 if arrangement == "balanced" else 0.0

    def carries(self, cohort: Cohort, arrangement: Arrangement) -> NDArray[np.bool_]:
        """bool [N]: which images carry the cue in an arrangement."""
        shares = np.array([self.share(name, arrangement) for name in cohort.classes])
        return np.array([_uniform(f"{self.seed}/{i}") for i in cohort.table["id"]]) < shares[cohort.labels]

    def kept_clean(self, cohort: Cohort) -> NDArray[np.bool_]:
        """bool [N]: the images of the training patients that are kept bias-free, at least one patient of each class.
        Whose images have several classes counts with the first.
        """
        chosen: list[str] = []
        if self.clean > 0:
            training = pd.DataFrame({"patient": cohort.table["patient"], "label": cohort.labels})
            training = training[cohort.table["split"] == "train"].drop_duplicates("patient")
            for _, patients in training.groupby("label")["patient"]:
                ranked = sorted(patients, key=lambda patient: _uniform(f"clean/{self.seed}/{patient}"))
                chosen += ranked[: max(1, round(self.clean * len(ranked)))]
        return (cohort.table["patient"].isin(chosen) & (cohort.table["split"] == "train")).to_numpy()

    def to_json(self) -> dict[str, Any]:
        return {
            "shift": self.shift.name,
            "options": dict(self.shift.options),
            "prevalence": dict(self.prevalence),
            "clean": self.clean,
            "clean_arrangement": self.clean_arrangement,
            "seed": self.seed,
        }


def planting(
    cohort: Cohort, cue: str | Shift, *, prevalence: float | Mapping[str, float] = 0.95, clean: float = 0.0,
    clean_arrangement: BiasFree = "clean", seed: int = 0, **options: Any,
) -> Planting:  # fmt: skip
    """A cue for the classes of a cohort.

    cue: a shift or its name; options: of a shift by name. prevalence: by class; of two classes the one that is left out
    has 1 minus the other's. A number is the positive class's. clean, clean_arrangement: the bias-free
    training patients; see `Planting`.
    Raises InputError for a cue or class that is not known, a share outside [0,1], more than two classes with one left
    out, shares that are all alike (no shortcut), and a multilabel task.
    """
    if cohort.task == "multilabel":
        raise InputError(f"{cohort.name}: a cue is planted along with one class per image; the task is multilabel.")
    if not 0 <= clean <= 1:
        raise InputError(f"the share of clean training patients must be in [0,1]; found {clean}.")
    if clean_arrangement not in get_args(BiasFree):
        raise unknown("arrangement of the clean images", clean_arrangement, get_args(BiasFree))
    shift = SHIFTS.build(cue, {"seed": seed, **options}) if isinstance(cue, str) else cue
    given = dict(prevalence) if isinstance(prevalence, Mapping) else {cohort.classes[-1]: float(prevalence)}
    for name, share in given.items():
        if name not in cohort.classes:
            raise unknown("class", name, cohort.classes)
        if not 0 <= share <= 1:
            raise InputError(f"the prevalence of the cue in '{name}' must be in [0,1]; found {share}.")
    left_out = [name for name in cohort.classes if name not in given]
    if len(left_out) == 1 and len(cohort.classes) == 2:
        given[left_out[0]] = 1 - next(iter(given.values()))
    elif left_out:
        raise InputError(
            f"the prevalence of the cue is missing for {', '.join(left_out)}; give one for each of the classes."
        )
    if len(set(given.values())) == 1:
        raise InputError(
            f"the cue is as common in every class ({next(iter(given.values()))}), so it tells none; give the classes "
            "different shares."
        )
    return Planting(shift, {name: given[name] for name in cohort.classes}, clean, seed, clean_arrangement)


def planted(
    cohort: Cohort, what: Planting, arrangements: Mapping[str, Arrangement] = USUAL, *, rows: NDArray | None = None
) -> Cohort:
    """The cohort with the cue put into its images, which are then in memory.

    arrangements: by split; the cohort must be split. rows: only these images are kept (all by default). `truth` gets
    the columns "cue" and "clean" (bool), and `origin` what was planted, so that audits find it.
    Raises InputError for an unsplit cohort, an unknown split or arrangement, and a second planting.
    """
    if not cohort.is_split:
        raise InputError(f"{cohort.name} has no split yet; split it first, because the cue differs between splits.")
    if PLANTED in cohort.origin:
        raise InputError(f"{cohort.name} has a planted cue already; plant it into the cohort as it was.")
    for split, arrangement in arrangements.items():
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        if arrangement not in ARRANGEMENTS:
            raise unknown("arrangement", arrangement, ARRANGEMENTS)
    clean = what.kept_clean(cohort)
    if rows is not None:
        cohort, clean = cohort.subset(rows), clean[rows]
    sides = cohort.table["split"].to_numpy()
    carries = np.zeros(len(cohort), bool)
    for name, arrangement in arrangements.items():
        carries |= what.carries(cohort, arrangement) & (sides == name)
    carries = np.where(clean, what.carries(cohort, what.clean_arrangement), carries)
    images = np.array(cohort.images)  # a copy, in memory
    for start in range(0, len(cohort), IMAGES_AT_A_TIME):
        part = start + np.flatnonzero(carries[start : start + IMAGES_AT_A_TIME])
        if len(part):
            images[part] = with_cue(cohort, what.shift, part)
    truth = pd.DataFrame(index=range(len(cohort))) if cohort.truth is None else cohort.truth
    described = {**what.to_json(), "arrangements": dict(arrangements)}
    return replace(
        cohort,
        images=images,
        truth=truth.assign(cue=carries, clean=clean),
        known=(),
        origin={**cohort.origin, PLANTED: described},
    )


def planted_in(cohort: Cohort) -> Planting | None:
    """What was planted into a cohort, or None."""
    told = cohort.origin.get(PLANTED)
    if told is None:
        return None
    return Planting(
        SHIFTS.build(told["shift"], told["options"]),
        told["prevalence"],
        told["clean"],
        told["seed"],
        told["clean_arrangement"],
    )


def with_cue(cohort: Cohort, cue: Change, rows: NDArray) -> NDArray:
    """The images at `rows` with a cue, or after any change, as they would be stored: rounded to the cohort's
    intensities.
    """
    ids = [str(i) for i in cohort.table["id"].iloc[rows]]
    images = torch.from_numpy(np.asarray(cohort.images[rows], np.float32)) / cohort.white
    return (cue(images, ids) * cohort.white).round().numpy().astype(cohort.images.dtype)


def _uniform(text: str) -> float:
    """A number in [0,1) that belongs to a text."""
    return int.from_bytes(blake2b(f"planting/{text}".encode(errors="surrogateescape"), digest_size=8).digest()) / 2**64
