"""Input-gradient penalty: the loss may not change steeply with the image."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from trueread.method.base import method
from trueread.method.responses import Responding, response
from trueread.training.hooks import Step, cross_entropy


@method("gradient-penalty", source="Drucker and LeCun 1992, IEEE TNN 3; Ross and Doshi-Velez 2018, AAAI")
class GradientPenalty(Responding):
    """Cross-entropy, and the squared length of its gradient with respect to the image."""

    def __init__(
        self,
        *,
        weight: Annotated[float, Field(ge=0, le=1000)] = 0.1,
        warmup: Annotated[float, Field(ge=0, le=1)] = 0.1,
        share: Annotated[float, Field(gt=0, le=1)] = 0.25,
    ) -> None:
        """weight: of the squared length, of intensities in [0,1]. warmup: share of the run without it. share: of each
        batch that is asked, for second derivatives take long.
        """
        self.weight, self.warmup, self.share = weight, warmup, share

    def penalty(self, step: Step) -> dict[str, Tensor]:
        if step.done < self.warmup or self.weight == 0:
            return {}
        logits, images = self.responding(step, share=self.share)
        steep = response(cross_entropy(logits, step.targets[: len(logits)]), images)
        return {"gradient": self.weight * steep.square().sum(1).mean()}
