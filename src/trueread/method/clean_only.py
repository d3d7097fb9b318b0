"""Clean images only: the control that shows what the few bias-free images are worth without all the others."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from trueread.method.base import method
from trueread.method.clean import PLANTED, clean_rows
from trueread.method.only_some import OnlySome
from trueread.training.hooks import Setup


@method("clean-only", source="the 'teacher alone' control of Boland et al. 2025, arXiv 2511.17421; our reading")
class CleanOnly(OnlySome):
    """Trains on the bias-free images alone, in as many steps as on all images."""

    kind = "clean"

    def __init__(
        self, *, clean: str | list[str] = PLANTED, fraction: Annotated[float | None, Field(gt=0, le=1)] = None
    ) -> None:
        """clean, fraction: which training images are bias-free, and how many of them are used; see `clean_rows`."""
        super().__init__()
        self.clean, self.fraction = clean, fraction

    def chosen(self, setup: Setup) -> NDArray[np.int64]:
        return clean_rows(setup, self.clean, fraction=self.fraction)
