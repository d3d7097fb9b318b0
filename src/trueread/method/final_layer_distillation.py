"""Final-layer distillation: a specialist teacher's answer at the end alone, the control for its layers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trueread.method.base import method
from trueread.method.clean import PLANTED
from trueread.method.specialist import Specialist, Start


@method("final-layer-distillation", source="Hinton, Vinyals and Dean 2015, arXiv 1503.02531; the control of 2511.17421")
class FinalLayerDistillation(Specialist):
    """`specialist` without its layers' term."""

    def __init__(
        self,
        *,
        clean: str | list[str] = PLANTED,
        fraction: Annotated[float | None, Field(gt=0, le=1)] = None,
        teacher: str | None = None,
        teacher_backbone: str | None = None,
        teacher_epochs: Annotated[int | None, Field(ge=1)] = None,
        alpha: Annotated[float, Field(ge=0, le=1)] = 0.5,
        temperature: Annotated[float, Field(gt=0, le=100)] = 2.0,
        start: Start = "auto",
    ) -> None:
        """As of `specialist`."""
        super().__init__(
            clean=clean, fraction=fraction, teacher=teacher, teacher_backbone=teacher_backbone,
            teacher_epochs=teacher_epochs, alpha=alpha, beta=0.0, temperature=temperature, start=start,
        )  # fmt: skip
