"""CIFAR-10 with the labels that people gave it: the benchmark of human label noise.

Source: Wei et al. 2022, Learning with noisy labels revisited, ICLR; images by Krizhevsky 2009.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from trueread.cohort.cohort import Cohort
from trueread.errors import InputError, unknown
from trueread.progress import track
from trueread.shift.label_noise import NOISE

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LABELS = {  # by name, the array of the file
    "aggre": "aggre_label", "random1": "random_label1", "random2": "random_label2", "random3": "random_label3",
    "worse": "worse_label", "clean": "clean_label",
}  # fmt: skip
SIDE, MOST_BYTES = 32, 100_000  # of an image's file
IMAGES, GIVEN = "cifar10n_images.zip", "cifar10n_labels.npz"


def cifar10n(data: Path | None, labels: str = "worse", *, images: int = 50_000, val: float = 0.1) -> Cohort:
    """The first `images` training images with the labels of people, the test images with the true ones.

    data: the folder of cifar10n_images.zip (train/CLASS/RANK.jpg, test/CLASS/RANK.jpg, by rank within the class) and
    cifar10n_labels.npz. labels: "aggre" (majority of three people), "random1" to "random3" (one of them), "worse" (a
    wrong one where there is any) or "clean" (the true ones). val: share of the training images, labelled alike.
    `truth` has "true_label" and "flipped". Raises InputError for unknown labels and files that are not there.
    """
    if labels not in LABELS:
        raise unknown("labels of CIFAR-10N", labels, LABELS)
    folder = Path("." if data is None else data)
    for name in (IMAGES, GIVEN):
        if not (folder / name).is_file():
            raise InputError(f"there is no {name} in {folder}; give the folder that holds CIFAR-10N.")
    with np.load(folder / GIVEN, allow_pickle=False) as given:
        true, said = (given[key].astype(np.int64)[:images] for key in ("clean_label", LABELS[labels]))
    rank = np.zeros(len(true), np.int64)
    for k in range(len(CLASSES)):
        rank[true == k] = np.arange((true == k).sum())
    names = [f"train/{CLASSES[k]}/{r:04d}.jpg" for k, r in zip(true, rank, strict=True)]
    with zipfile.ZipFile(folder / IMAGES) as archive:
        test = sorted(n for n in archive.namelist() if n.startswith("test/") and n.endswith(".jpg"))
        pixels = _read(archive, [*names, *test])
    of_test = np.array([CLASSES.index(n.split("/")[1]) for n in test], np.int64)
    order = np.random.default_rng(0).permutation(len(true))
    split = np.full(len(true), "train", dtype=object)
    split[order[: round(val * len(true))]] = "val"
    every = [*names, *test]
    table = pd.DataFrame({"id": every, "patient": every, "split": [*split, *["test"] * len(test)]})
    true_label = np.concatenate([true, of_test])
    made = np.concatenate([said, of_test])
    truth = pd.DataFrame({"true_label": true_label, "flipped": made != true_label})
    return Cohort(
        name=f"cifar10n-{labels}", images=pixels, labels=made, table=table, classes=CLASSES, task="multiclass",
        patients_known=False, modality="natural", truth=truth,
        origin={"source": f"cifar10n:{labels}", NOISE: {"kind": labels, "wrong": int((made != true_label).sum())}},
    )  # fmt: skip


def _read(archive: zipfile.ZipFile, names: list[str]) -> NDArray[np.uint8]:
    """uint8 [N,3,32,32]."""
    pixels = np.empty((len(names), 3, SIDE, SIDE), np.uint8)
    for i, name in enumerate(track(names, what="reading CIFAR-10")):
        if archive.getinfo(name).file_size > MOST_BYTES:
            raise InputError(f"{name} is too large for an image of {SIDE} pixels; get the archive again.")
        with Image.open(io.BytesIO(archive.read(name))) as picture:
            if picture.size != (SIDE, SIDE):
                raise InputError(f"{name} has {picture.size} pixels instead of {SIDE} x {SIDE}; get the archive again.")
            pixels[i] = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    return pixels
