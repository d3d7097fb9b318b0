"""Few labels: what a method is worth where only some of the training images have been labelled."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from trueread.cohort.cohort import Cohort
from trueread.errors import InputError
from trueread.method.base import method
from trueread.method.clean import some_of_each_class
from trueread.method.only_some import OnlySome
from trueread.training.hooks import Setup


@method("few-labels", source="the protocol of Zhai et al. 2019, S4L, ICCV: 1 and 10 % of the labels")
class FewLabels(OnlySome):
    """Trains on the labels of some patients alone, in as many steps as on all; a pretraining still sees all images."""

    kind = "labelled"
    hides_labels = True

    def __init__(self, *, share: Annotated[float, Field(gt=0, le=1)] = 0.1) -> None:
        """share: of each class's training patients, drawn by the run's seed; at least one of each class."""
        super().__init__()
        self.share = share

    def refuse(self, cohort: Cohort) -> None:
        if cohort.task == "multilabel":
            raise InputError(
                "a share of the labels is drawn by class, but the task is multilabel; train on a cohort that holds the "
                "labelled images alone."
            )

    def chosen(self, setup: Setup) -> NDArray[np.int64]:
        self.refuse(setup.cohort)
        return some_of_each_class(setup.cohort, setup.train_rows, self.share, of=setup.train_rows, seed=setup.seed)
