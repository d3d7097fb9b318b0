"""Online hard example mining: of each batch, only the hardest samples are learned from."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from trueread.method.base import Method, method
from trueread.training.hooks import Step


@method("ohem", source="Shrivastava, Gupta and Girshick 2016, CVPR, arXiv 1604.03540; of a batch instead of regions")
class Ohem(Method):
    """Learns from the share of each batch with the highest loss."""

    replayable = True

    def __init__(self, *, share: Annotated[float, Field(gt=0, le=1)] = 0.5) -> None:
        """share: of the batch that is learned from; 1 is all of it."""
        self.share = share

    def weights(self, step: Step) -> Tensor:
        losses = step.per_sample_loss
        assert losses is not None
        hardest = losses.detach().topk(max(1, round(self.share * len(losses)))).indices
        return torch.zeros_like(losses).index_fill(0, hardest, 1.0)
