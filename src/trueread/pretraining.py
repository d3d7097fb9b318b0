"""An encoder from images that nobody has labelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from trueread.cohort.cohort import Cohort
from trueread.cohort.read import list_images, read_images
from trueread.cohort.source import SOURCES, load_cohort
from trueread.cohort.split import assign_splits, split_named, split_note
from trueread.commands import writing
from trueread.errors import InputError, unknown
from trueread.files import write_json
from trueread.method.base import METHODS, build_method
from trueread.method.two_views import Pretraining
from trueread.model.classifier import WEIGHTS_FILE
from trueread.model.weights import save_weights
from trueread.options import validate
from trueread.progress import say
from trueread.record import environment
from trueread.training.augment import recipes
from trueread.training.checkpoint import drop_checkpoint
from trueread.training.config import TrainConfig
from trueread.training.loop import fit
from trueread.training.processes import processes

RECORD = "pretraining.json"
FEWEST = 16


class Reading(BaseModel):
    """How images without labels are read. size: pixels a side. modality: whose views; see views.yaml."""

    model_config = ConfigDict(extra="forbid")

    size: int = Field(default=64, ge=8, le=4096)
    channels: Literal["auto", 1, 3] = "auto"
    fit: Literal["crop", "pad", "stretch"] = "crop"
    modality: str = "any"


def pretrain(
    images: Sequence[str | Path] | Cohort, method: str = "vicreg", *, out: str | Path, seed: int = 0,
    source: Mapping[str, Any] | None = None, options: Mapping[str, Any] | None = None, **settings: Any,
) -> Path:  # fmt: skip
    """Train an encoder on images without looking at labels; returns the weights file, for `weights=` of later runs.

    images: files, or folders that are searched for them; or one name of a source ("csv:labels.csv", "phantom"), of
    which the training split is used; or a Cohort, likewise, or all of it where it is not split.
    method: vicreg, barlow-twins or curvssl, with `options`. source: size, channels, fit and modality of the images, or
    the options of the source.
    settings: of the loop (`backbone="resnet18"`, ...), but for those that the method decides. Interrupted, it goes on
    when it is asked again. Raises InputError for another method, and for fewer than 16 images.
    """
    made = build_method(method, **(options or {}))
    if not isinstance(made, Pretraining):
        known = [
            e.name for e in METHODS.entries() if isinstance(e.factory, type) and issubclass(e.factory, Pretraining)
        ]
        raise InputError(f"'{method}' does not learn without labels; take one of {', '.join(sorted(known))}.")
    decided = sorted(set(settings) & set(made.settings(FEWEST)))
    if decided:
        raise InputError(f"{method} decides {' and '.join(decided)} of the loop; give its own option (-x), or none.")
    config = validate(TrainConfig, settings, where="--train")
    cohort = images if isinstance(images, Cohort) else _read([str(i) for i in images], **(source or {}))
    if not cohort.is_split:
        cohort = cohort.with_split(["train"] * len(cohort))
    out = Path(out)
    with writing(out, option="-o"):
        out.mkdir(parents=True, exist_ok=True)
    encoder = made.learn(cohort, config, fit=fit, seed=seed, folder=out)
    path = out / WEIGHTS_FILE
    if processes().leads:
        with writing(out, option="-o"):
            save_weights(encoder.network.get_submodule("backbone"), path)
            write_json(out / RECORD, {
                "method": method, "options": dict(made.options), "seed": seed, "backbone": config.backbone,
                "stem": encoder.card.stem, "size": list(cohort.spatial), "channels": cohort.channels,
                "images": len(cohort.rows("train")), **made.told, "environment": environment(),
            })  # fmt: skip
        drop_checkpoint(out / "checkpoints")
    processes().wait()
    say(f"{path}: first weights for {config.backbone}; give weights={path} to a later run.")
    return path


def _read(images: Sequence[str], **options: Any) -> Cohort:
    """The images that are named, of folders also those that have no classes. A source is split as a later run splits it
    by itself, so that what that run tests on is not among the images.
    """
    name = images[0].partition(":")[0] if images else ""
    named = name in {e.name for e in SOURCES.entries()} and not Path(images[0]).exists()
    if named and name != "folder":
        if len(images) > 1:
            raise InputError(
                f"'{images[0]}' is a source, of which one can be given; found {len(images)}; give it alone."
            )
        cohort = assign_splits(load_cohort(images[0], **options))
        say(f"split: {split_note(cohort).how}; the training images are seen, as by a run with the default split.")
        return cohort
    return read_unlabelled([i.removeprefix("folder:") for i in images], **options)


def read_unlabelled(images: Sequence[str | Path], **options: Any) -> Cohort:
    """Files, or folders of them, as the training split of a cohort that has no labels worth the name. options: see
    `Reading`. Unreadable files are left out, and how many is said.
    """
    wanted = validate(Reading, options, where="--set")
    if wanted.modality not in recipes("views"):
        raise unknown("modality", wanted.modality, recipes("views"))
    files = list_images(images)
    folders = [folder for given in images for folder in Path(given).glob("**/") if folder != Path(given)]
    held_out = {folder for folder in folders if split_named(folder.name) in ("val", "test")}
    tested = [f for f in files if not held_out.isdisjoint(f.parents)]
    if tested:
        say(
            f"warning: {len(tested)} of {len(files)} images lie in folders called validation or test; what is tested "
            "on later does not belong here."
        )
    read = read_images(files, size=wanted.size, channels=wanted.channels, fit=wanted.fit, what="reading images")
    n = len(read.images)
    if len(read.omitted):
        say(f"unreadable and left out: {len(read.omitted)} of {len(files)} files.")
    if n < FEWEST:
        raise InputError(f"{FEWEST} or more images are needed to learn from, and {n} can be read; give more.")
    names = [str(files[i]) for i in read.kept]
    return Cohort(
        name="images without labels",
        images=read.images,
        labels=np.arange(n) % 2,  # a classifier has to have two classes; nothing is learned from these
        table=pd.DataFrame({"id": names, "patient": names, "split": "train"}),
        classes=("unlabelled", "unlabelled too"),
        task="binary",
        white=read.white,
        patients_known=False,
        modality=wanted.modality,
    )
