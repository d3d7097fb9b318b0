"""Focal loss: what the network already knows counts less."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from trueread.method.base import Method, method
from trueread.training.hooks import Step


def focal_loss(logits: Tensor, targets: Tensor, *, gamma: float, multilabel: bool = False) -> Tensor:
    """Focal loss per sample [B]: -sum_k t_k (1 - p_k)^gamma log p_k, of logits [B,K] against targets [B,K].

    Softmax: p_k is the probability of class k. Multilabel: the same on each label and its complement, mean over the
    known ones (nan = unknown). gamma = 0 is cross-entropy.
    """
    if not multilabel:
        log_p = F.log_softmax(logits, dim=1)
        doubt = (1 - log_p.exp()).clamp_min(1e-8)  # where it is 0, the slope of a power below 1 is infinite
        return -(targets * doubt**gamma * log_p).sum(1)
    known = ~targets.isnan()
    t = targets.nan_to_num(0.0)
    log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
    loss = -(t * (gamma * log_q).exp() * log_p + (1 - t) * (gamma * log_p).exp() * log_q)
    return (loss * known).sum(1) / known.sum(1).clamp_min(1)


@method("focal", source="Lin et al. 2017, Focal loss for dense object detection, ICCV, eq. 4")
class Focal(Method):
    """Focal loss; confident samples count less. Compose with class-weights for its alpha."""

    replayable = True

    def __init__(self, *, gamma: Annotated[float, Field(ge=0, le=20)] = 2.0) -> None:
        """gamma: how strongly confident samples are discounted; 0 is cross-entropy."""
        self.gamma = gamma

    def losses(self, step: Step) -> Tensor:
        return focal_loss(step.logits, step.targets, gamma=self.gamma, multilabel=step.multilabel)
