"""The cohort: what is studied. Images, labels, patients, masks, and where they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from trueread.cohort.mapped import Known, brightest_of, content_digest, selected
from trueread.errors import InputError

Task = Literal["binary", "multiclass", "ordinal", "multilabel"]
Split = Literal["train", "val", "test"]
SPLITS: tuple[str, ...] = get_args(Split)
OWN_COLUMNS = ("id", "patient", "split")  # every other column of the table is an attribute


def _nothing_omitted() -> pd.DataFrame:
    return pd.DataFrame({"path": pd.Series(dtype=str), "reason": pd.Series(dtype=str)})


@dataclass(frozen=True, eq=False)
class Cohort:
    """Images with their labels and patients. Checked when made; never changed afterwards.

    name:    short name for titles and files, for example "kermany".
    images:  uint8 or uint16 [N,C,H,W], or [N,C,D,H,W] for volumes; in memory or memory-mapped. C is 1 or 3.
    labels:  int64 [N] in [0, K) (binary, multiclass, ordinal) or float32 [N,K] in {0,1,nan} (multilabel, nan =
    unknown).
    table:   one row per image: `id` (unique), `patient`, `split` ("train", "val", "test" or "" when not yet assigned),
             and any attribute (site, sex, age, device, ...). Missing attributes are NaN.
    classes: K names. In a binary task the second one is the positive class.
    task:    "binary", "multiclass", "ordinal" (classes in order) or "multilabel".
    masks:   uint8 [N,H,W] (volumes: [N,D,H,W]), non-zero where the evidence is; all zero where none is marked. Or None.
    white:   the stored intensity that becomes 1.0 (255; 65535; 4095 for 12 bits in 16).
    patients_known: False when every image counts as its own patient because nobody said whose it is.
    modality: which augmentation recipe and which corruptions fit ("radiograph", "dermatoscopy", ...; "any" when
    unsaid).
    origin:  how to find it again (source string and options), for the run's record.
    omitted: `path` and `reason` of every image that could not be read and was left out.
    truth:   what a generator knows and a clinician does not (true label, planted cues, ...), one row per image, or
    None.
    files:   what the images' files were, one row per image: `width`, `height` (pixels), `bytes`, `bits`, `ending`; None
             when they were no files. No part of the digest: the classifier never sees it.
    known:   digests and brightest values of arrays that a reader measured already; of other arrays they are ignored.

    Raises InputError when any of this does not hold, or when a patient is in two splits.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    table: pd.DataFrame
    classes: tuple[str, ...]
    task: Task
    masks: np.ndarray | None = None
    white: int = 255
    patients_known: bool = True
    modality: str = "any"
    origin: Mapping[str, Any] = field(default_factory=dict)
    omitted: pd.DataFrame = field(default_factory=_nothing_omitted)
    truth: pd.DataFrame | None = None
    files: pd.DataFrame | None = None
    known: tuple[Known, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(str(c) for c in self.classes))
        object.__setattr__(self, "table", self.table.reset_index(drop=True))
        _check_images(self.name, self.images, self.white, self._known(self.images))
        _check_labels(self.name, self.labels, len(self.images), self.classes, self.task)
        _check_table(self.name, self.table, len(self.images))
        if self.masks is not None:
            expected = (len(self.images), *self.images.shape[2:])
            if self.masks.shape != expected or self.masks.dtype != np.uint8:
                raise InputError(
                    f"{self.name}: masks must be uint8 of shape {expected}; "
                    f"found {self.masks.dtype} of shape {self.masks.shape}. Make them as the images are resized."
                )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    @property
    def channels(self) -> int:
        return int(self.images.shape[1])

    @property
    def spatial(self) -> tuple[int, ...]:
        """(H, W), or (D, H, W) for volumes."""
        return tuple(int(s) for s in self.images.shape[2:])

    @property
    def is_volume(self) -> bool:
        return self.images.ndim == 5

    @property
    def n_patients(self) -> int:
        return int(self.table["patient"].nunique())

    @property
    def attributes(self) -> list[str]:
        """The names of the table's columns that describe the image or patient."""
        return [c for c in self.table.columns if c not in OWN_COLUMNS]

    @property
    def is_split(self) -> bool:
        """True when every image is in train, val or test."""
        return bool(self.table["split"].isin(SPLITS).all())

    def rows(self, split: Split) -> np.ndarray:
        """int64 positions of the images of one split, in the cohort's order. Splitting copies no image."""
        return np.flatnonzero((self.table["split"] == split).to_numpy())

    def patient_codes(self, rows: np.ndarray | None = None) -> np.ndarray:
        """int64 code of each image's patient, for clustered statistics."""
        patients = self.table["patient"] if rows is None else self.table["patient"].iloc[rows]
        return pd.factorize(patients)[0].astype(np.int64)

    def class_counts(self, rows: np.ndarray | None = None) -> np.ndarray:
        """int64 [K]: images per class; for multilabel, positives per label."""
        labels = self.labels if rows is None else self.labels[rows]
        if self.task == "multilabel":
            return np.nansum(labels, axis=0).astype(np.int64)
        return np.bincount(labels, minlength=self.n_classes).astype(np.int64)

    def subset(self, rows: np.ndarray | Sequence[int]) -> Cohort:
        """A cohort of the images at `rows` (positions or a boolean mask). Copies them; many memory-mapped ones are
        copied to a file without a name beside the mapped one, and neighbouring ones are shared.
        """
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        if len(rows) == 0:
            raise InputError(f"{self.name}: no image is left after selecting; loosen the selection.")
        return replace(
            self,
            images=selected(self.images, rows),
            labels=self.labels[rows],
            table=self.table.iloc[rows],
            masks=None if self.masks is None else selected(self.masks, rows),
            truth=None if self.truth is None else self.truth.iloc[rows].reset_index(drop=True),
            files=None if self.files is None else self.files.iloc[rows].reset_index(drop=True),
        )

    def with_split(self, split: Sequence[str] | np.ndarray | pd.Series) -> Cohort:
        """The same cohort with another split column; shares the images."""
        return replace(self, table=self.table.assign(split=np.asarray(split, dtype=object)))

    @cached_property
    def digest(self) -> str:
        """Hash (BLAKE2b, 16 hex digits) of images, labels, masks and table but the split: equal means equal data."""
        h = hashlib.blake2b(f"{self.classes}{self.task}{self.white}".encode(), digest_size=8)
        for array in (self.images, self.labels, self.masks):
            if array is not None:
                known = self._known(array)  # equal to what is computed without it, but does not read the pixels
                h.update((known.digest if known else content_digest(array)).encode())
        h.update(self.table.drop(columns="split").to_csv(index=False).encode())
        return h.hexdigest()

    def _known(self, array: np.ndarray) -> Known | None:
        return next((known for known in self.known if known.array is array), None)

    def __repr__(self) -> str:
        shape = "x".join(str(s) for s in (self.channels, *self.spatial))
        patients = f"{self.n_patients} patients" if self.patients_known else "patients unknown"
        return f"Cohort({self.name}: {len(self)} images {shape}, {patients}, {self.task}, {self.n_classes} classes)"


def _check_images(name: str, images: np.ndarray, white: int, known: Known | None) -> None:
    if images.ndim not in (4, 5) or images.shape[1] not in (1, 3):
        raise InputError(
            f"{name}: images must be [N,C,H,W] or [N,C,D,H,W] with C = 1 or 3; found shape {tuple(images.shape)}. "
            "Give grey images a channel axis: images[:, None]."
        )
    if images.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"{name}: images must be uint8 or uint16; found {images.dtype}. Store intensities as integers."
        )
    if len(images) == 0:
        raise InputError(f"{name}: there is no image in it; check the path and the files' endings.")
    if not 0 < white <= np.iinfo(images.dtype).max:
        raise InputError(f"{name}: white must be in 1..{np.iinfo(images.dtype).max} for {images.dtype}; found {white}.")
    if white < np.iinfo(images.dtype).max:
        brightest = known.brightest if known else brightest_of(images)
        if brightest > white:
            raise InputError(f"{name}: white is declared as {white}, but an image reaches {brightest}; raise white.")


def _check_labels(name: str, labels: np.ndarray, n: int, classes: tuple[str, ...], task: Task) -> None:
    if task not in get_args(Task):
        raise InputError(
            f"{name}: the task must be one of {', '.join(get_args(Task))}; found '{task}'. Name one of these."
        )
    if len(set(classes)) != len(classes):
        raise InputError(f"{name}: the class names must differ from each other; found {list(classes)}. Rename one.")
    k = len(classes)
    if task == "multilabel":
        if labels.shape != (n, k) or labels.dtype != np.float32:
            raise InputError(
                f"{name}: multilabel labels must be float32 of shape {(n, k)}; found {labels.dtype} of shape "
                f"{labels.shape}. Give every image a row and every class a column."
            )
        if not np.all(np.isin(labels, (0, 1)) | np.isnan(labels)):
            odd = labels[~np.isin(labels, (0, 1)) & ~np.isnan(labels)][0]
            raise InputError(
                f"{name}: multilabel labels must be 0, 1 or nan (unknown); found {odd:g}. Set what is not known to nan."
            )
        return
    if k < 2 or (task == "binary" and k != 2):
        raise InputError(
            f"{name}: a {task} task needs {'exactly' if task == 'binary' else 'at least'} two classes; "
            f"found {list(classes)}. Name every class, in the order of the labels."
        )
    if labels.shape != (n,) or labels.dtype != np.int64:
        raise InputError(
            f"{name}: labels must be int64 of shape {(n,)}; found {labels.dtype} of shape {labels.shape}. Give every "
            "image one whole number, the position of its class."
        )
    if labels.min() < 0 or labels.max() >= k:
        raise InputError(
            f"{name}: labels must be in 0..{k - 1}; found {labels.min()}..{labels.max()}. Name every class in classes, "
            "or leave out images of other ones."
        )


def _check_table(name: str, table: pd.DataFrame, n: int) -> None:
    missing = [c for c in OWN_COLUMNS if c not in table.columns]
    if missing or len(table) != n:
        raise InputError(
            f"{name}: the table must have the columns {', '.join(OWN_COLUMNS)} and {n} rows; "
            f"found {len(table)} rows{' and no ' + ', '.join(missing) if missing else ''}. Give every image its row."
        )
    if not table["id"].map(lambda i: isinstance(i, str)).all():
        raise InputError(f"{name}: ids must be text; found {table['id'].iloc[0]!r}. Convert them with astype(str).")
    duplicated = table["id"][table["id"].duplicated()]
    if len(duplicated):
        raise InputError(
            f"{name}: ids must be unique; '{duplicated.iloc[0]}' occurs more than once. Give each image its own."
        )
    if table["patient"].isna().any():
        row = int(np.flatnonzero(table["patient"].isna())[0])
        raise InputError(f"{name}, image '{table['id'].iloc[row]}': the patient is missing; give one or leave all out.")
    odd = ~table["split"].isin((*SPLITS, ""))
    if odd.any():
        row = int(np.flatnonzero(odd)[0])
        raise InputError(
            f"{name}, image '{table['id'].iloc[row]}': split must be train, val or test; "
            f"found {table['split'].iloc[row]!r}. Use one of these, or '' everywhere to let trueread split."
        )
    refuse_patient_in_two_splits(name, table)


def refuse_patient_in_two_splits(name: str, table: pd.DataFrame) -> None:
    """Raise InputError that names the first patient whose images are in more than one split."""
    assigned = table[table["split"] != ""]
    n_splits = assigned.groupby("patient", observed=True)["split"].nunique()
    leaking = n_splits[n_splits > 1]
    if len(leaking) == 0:
        return
    patient = leaking.index[0]
    splits = sorted(assigned.loc[assigned["patient"] == patient, "split"].unique())
    others = f", and {len(leaking) - 1} more like it" if len(leaking) > 1 else ""
    raise InputError(
        f"{name}: patient '{patient}' is in {' and in '.join(splits)}{others}. A patient must stay on one side; "
        f"drop the split column to let trueread split by patient."
    )
