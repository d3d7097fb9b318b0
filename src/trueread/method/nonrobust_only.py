"""Nonrobust features only: a classifier that learns from a constructed set, to show how far such features carry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from trueread.cohort.cohort import Cohort
from trueread.cohort.saved import save_cohort, saved
from trueread.errors import InputError
from trueread.method.adversarial import Adversarial
from trueread.method.base import Method, method
from trueread.method.constructed import CONSTRUCTED, Construction, constructed
from trueread.model.classifier import Classifier
from trueread.progress import say
from trueread.training.batches import ImageStore
from trueread.training.hooks import Setup
from trueread.training.processes import processes

FOLDER = "constructed"
SAID = ("construction", "epsilon", "epsilon_grey_levels", "steps", "fooling_rate", "moved_grey_levels")


@method("nonrobust-only", source="Ilyas et al. 2019, NeurIPS, sections 3.1 and 3.2, arXiv 1905.02175")
class NonrobustOnly(Method):
    """Trains on images that were changed, too little to see, to carry another class's features, and that class's label.

    Validation and test are the images as they are, so what it knows of them it knows from the small changes.
    """

    reads_all_labels = True

    def __init__(
        self,
        *,
        construction: Construction = "d_rand",
        classifier: str | None = None,
        epsilon: Annotated[float | None, Field(gt=0)] = None,
        steps: Annotated[int | None, Field(ge=1, le=100_000)] = None,
    ) -> None:
        """construction, epsilon, steps: of the set; see `Making`. classifier: folder of a saved one whose features are
        used, "{seed}" in it standing for the run's seed; by default one is trained first, adversarially for d_r.
        """
        self.construction, self.folder, self.epsilon, self.steps = construction, classifier, epsilon, steps
        self.told: dict[str, Any] = {}

    def prepare(self, setup: Setup) -> None:
        made = constructed(
            setup.cohort, self._classifier(setup), self.construction, epsilon=self.epsilon, steps=self.steps,
            seed=setup.seed, precision=setup.precision,
        )  # fmt: skip
        self.told = {k: made.origin[CONSTRUCTED][k] for k in SAID}
        rate = self.told["fooling_rate"]
        if rate is not None:
            say(f"{made.name}: the classifier answers with the new label on {rate:.1%} of the images whose it was not.")
        if setup.folder is not None and processes().leads:
            save_cohort(made, setup.folder / FOLDER)
        self._learn_from(made, setup)

    def _classifier(self, setup: Setup) -> Classifier:
        """The one whose features are used."""
        if self.folder is not None:
            given = Classifier.load(Path(self.folder.replace("{seed}", str(setup.seed))).expanduser())
            return given.to(setup.device)
        folder = None if setup.folder is None else setup.folder / "features"
        hooks = Adversarial() if self.construction == "d_r" else None
        fitted = setup.fit(
            setup.cohort, hooks, setup.config, seed=setup.seed, folder=folder, what="whose features are used"
        )
        if folder is not None and processes().leads:
            fitted.classifier.save(folder)
        return fitted.classifier

    def _learn_from(self, made: Cohort, setup: Setup) -> None:
        setup.store = ImageStore(made, setup.device)
        setup.ledger.labels = torch.from_numpy(made.labels[setup.train_rows])

    def report(self) -> dict[str, Any]:
        return self.told

    def state(self) -> dict[str, Any]:
        return {"told": self.told}

    def load_state(self, state: dict[str, Any], setup: Setup) -> None:
        self.told = state["told"]
        if setup.folder is None:
            raise InputError("the images that were made were not kept; train from the start, in a folder.")
        self._learn_from(saved(str(setup.folder / FOLDER)), setup)
