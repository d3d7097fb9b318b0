"""Loss truncation: the samples of a batch with the highest loss are left out of its gradient."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from trueread.method.base import Method, method
from trueread.training.hooks import Step


@method(
    "loss-truncation", source="Kang and Hashimoto 2020, ACL, in outline; per batch, the baseline of arXiv 2511.17040"
)
class LossTruncation(Method):
    """Leaves the share of each batch with the highest loss out of its gradient."""

    def __init__(
        self,
        *,
        noise: Annotated[float, Field(ge=0, lt=1)] = 0.2,
        warmup: Annotated[float, Field(ge=0, le=1)] = 0.1,
    ) -> None:
        """noise: the share that is left out. warmup: share of the run before that."""
        self.noise, self.warmup = noise, warmup

    def weights(self, step: Step) -> Tensor | None:
        if step.done < self.warmup:
            return None
        losses = step.per_sample_loss
        assert losses is not None
        kept = max(1, round((1 - self.noise) * len(losses)))
        order = torch.sort(losses.detach(), stable=True).indices
        return torch.zeros_like(losses).index_fill(0, order[:kept], 1.0)
