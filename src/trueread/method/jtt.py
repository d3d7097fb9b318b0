"""Just train twice: what a short first training gets wrong is drawn more often in the second."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from trueread.method.base import Method, build_method, class_counts, method
from trueread.training.checkpoint import drop_checkpoint
from trueread.training.evaluate import predict_probabilities
from trueread.training.hooks import Setup
from trueread.training.ledger import Ledger
from trueread.training.processes import processes
from trueread.training.steps import mix


@method("jtt", source="Liu et al. 2021, Just train twice, ICML, algorithm 1")
class JTT(Method):
    """Draws the errors of a short first training more often; needs no group labels."""

    reads_all_labels = True

    replayable = True

    def __init__(
        self, *, identification_epochs: Annotated[int | None, Field(ge=1, le=10_000)] = None,
        upweight: Annotated[float, Field(ge=1, le=200)] = 20.0,
    ) -> None:  # fmt: skip
        """identification_epochs: of the first training; a quarter of the run's epochs by default, at least one.

        upweight: how many times as often as another image an error is drawn, the paper's lambda.
        """
        self.identification_epochs, self.upweight = identification_epochs, upweight
        self.wrong = torch.empty(0, dtype=torch.bool)  # [N], of the training samples
        self.found: dict[str, Any] = {}

    def prepare(self, setup: Setup) -> None:
        class_counts(setup.train_labels(), setup.cohort.n_classes)  # refuses a multilabel task
        epochs = self.identification_epochs or max(1, setup.config.epochs // 4)
        said = self._identify(setup, epochs)
        labels = setup.cohort.labels[setup.train_rows]
        self.wrong = torch.from_numpy(said != labels)
        counts = np.bincount(labels[said != labels], minlength=setup.cohort.n_classes).tolist()
        self.found = {
            "identification_epochs": epochs,
            "errors": sum(counts),
            "errors_per_class": dict(zip(setup.cohort.classes, counts, strict=True)),
        }
        if not self.wrong.any():
            self.found["note"] = "the first training made no error, so that every image was drawn once (ERM)"

    def _identify(self, setup: Setup, epochs: int) -> np.ndarray:
        """Classes int64 [N] that plain training of so many epochs gives the training images."""
        config = setup.config.model_copy(update={"epochs": epochs, "select": "last", "patience": None})
        folder = None if setup.folder is None else setup.folder / "identification"
        seed = mix(setup.seed, "identification")
        first = setup.fit(setup.cohort, build_method("erm"), config, seed=seed, folder=folder, quiet=True).classifier
        said = predict_probabilities(first, setup.cohort, setup.train_rows).argmax(1)
        if folder is not None and processes().leads:
            drop_checkpoint(folder / "checkpoints")
        return said

    def sampling(self, ledger: Ledger) -> Tensor | None:
        return torch.where(self.wrong, self.upweight, 1.0) if self.wrong.any() else None

    def report(self) -> dict[str, Any]:
        return self.found

    def state(self) -> dict[str, Any]:
        return {"wrong": self.wrong, "found": self.found}

    def load_state(self, state: dict[str, Any], setup: Setup) -> None:
        self.wrong, self.found = state["wrong"], state["found"]
