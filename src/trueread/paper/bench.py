"""Arms trained into one folder with one budget; what is trained already is not trained again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trueread.audit.subject import Subject
from trueread.cells import cell_folder, is_done, read_history, read_method, refuse_other
from trueread.cohort.cohort import Cohort
from trueread.errors import InputError
from trueread.files import write_json
from trueread.method.base import build_method
from trueread.runner import train_method, trained_method
from trueread.study import DataSection, MethodSection, Study
from trueread.training.config import TrainConfig

SETTINGS = "training.json"
WHERE = {"device", "threads", "cuda_graph"}  # where a training runs may change


@dataclass(frozen=True)
class Arm:
    """A row of a table: a method and its options. on: which of a protocol's cohorts it is trained on."""

    name: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    on: str = ""


class Bench:
    """Where the arms of one cohort are trained. train: options of `TrainConfig`. seeds: how many, or which."""

    def __init__(self, folder: Path, *, train: Mapping[str, Any], seeds: int | Sequence[int], resamples: int) -> None:
        self.folder = folder
        self.study = Study(
            name="paper", data=DataSection(source="paper"), train=TrainConfig(**train),
            seeds=list(range(seeds) if isinstance(seeds, int) else seeds), resamples=resamples,
        )  # fmt: skip

    def model_of(self, arm: str) -> str:
        """Where an arm's classifiers are, "{seed}" standing for the seed."""
        return str(cell_folder(self.folder, arm, 0).with_name("seed-{seed}") / "model")

    def subject(self, arm: Arm, cohort: Cohort, *, asked: Cohort | None = None) -> Subject:
        """The arm's classifiers, one per seed, trained on a cohort if they are not there. asked: the cohort of the
        subject, with the same images in validation and test.
        """
        self._refuse_other_settings()
        section = MethodSection(name=arm.method, label=arm.name, **arm.options)
        for seed in self.study.seeds:
            cell = cell_folder(self.folder, arm.name, seed)
            if is_done(cell):
                refuse_other(cell, section, cohort)
        train_method(self.study, cohort, section, build_method(arm.method, **arm.options), self.folder)
        return trained_method(self.study, cohort if asked is None else asked, section, self.folder)

    def _refuse_other_settings(self) -> None:
        """Raise InputError where the folder's trainings had other settings: their numbers would pass for these."""
        path, mine = self.folder / SETTINGS, self.study.train.model_dump(mode="json", exclude=WHERE)
        stored = json.loads(path.read_text()) if path.is_file() else mine
        other = sorted(k for k in mine if stored.get(k, mine[k]) != mine[k])
        if other:
            raise InputError(
                f"{self.folder} holds trainings with other settings of {', '.join(other)}; give the run another folder "
                "(--out), or delete that one to train again."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, mine)

    def seconds(self, arm: Arm) -> float:
        """Of training, median over seeds, so that one that was paused does not count."""
        histories = [read_history(cell_folder(self.folder, arm.name, seed)) for seed in self.study.seeds]
        return float(np.median([h["seconds"].sum() for h in histories]))

    def told(self, arm: Arm) -> list[dict[str, Any]]:
        """What the method said of its training, for each seed."""
        return [read_method(cell_folder(self.folder, arm.name, seed))["report"] for seed in self.study.seeds]
