"""Mixup: train on convex combinations of pairs of images and of their labels."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from trueread.method.base import Method, method
from trueread.training.hooks import Step


def mix(values: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """share * values + (1 - share) * values[partner]; share float [B] in [0,1], partner int64 [B]."""
    share = share.view(-1, *(1 for _ in values.shape[1:]))
    return share * values + (1 - share) * values[partner]


@method("mixup", source="Zhang et al. 2018, mixup: beyond empirical risk minimization, ICLR, eq. 1")
class Mixup(Method):
    """Convex combinations of pairs of images and of their labels."""

    def __init__(self, *, alpha: Annotated[float, Field(gt=0, le=100)] = 0.2) -> None:
        """alpha: of the Beta(alpha, alpha) distribution of the mixing share; larger mixes more evenly."""
        self.alpha = alpha

    def perturb(self, step: Step) -> None:
        b = len(step.images)
        generator = np.random.default_rng(step.generator.initial_seed())  # torch draws no Beta from a generator
        share = torch.from_numpy(generator.beta(self.alpha, self.alpha, size=b)).to(step.images)
        share = torch.maximum(
            share, 1 - share
        )  # the image stays mostly itself, so that its ledger entry means something
        partner = torch.from_numpy(generator.permutation(b)).to(step.images.device)
        step.images = mix(step.images, partner, share)
        step.targets = mix(step.targets, partner, share)
