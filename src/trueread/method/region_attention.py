"""Region attention: the evidence for the right class has to lie inside the mask."""

from __future__ import annotations

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from trueread.errors import InputError
from trueread.method.base import method
from trueread.method.responses import FEATURE, Responding
from trueread.model.explain import grad_cam_map
from trueread.model.taps import as_map
from trueread.training.hooks import Setup, Step


def outside(maps: Tensor, masks: Tensor) -> Tensor:
    """float [B] in [0,1]: the share of maps float [B,h,w] >= 0 that lies outside of masks float [B,1,H,W] in [0,1]; 0
    for an empty map, and for an image without a mask.
    """
    small = F.adaptive_avg_pool2d(masks, (maps.shape[1], maps.shape[2]))[:, 0]
    total = maps.flatten(1).sum(1)
    beside = (maps * (1 - small)).flatten(1).sum(1)
    known = (masks.flatten(1).amax(1) > 0) & (total > 0)
    return torch.where(known, beside / total.clamp_min(1e-12), 0.0)


@method("region-attention", source="Ross, Hughes and Doshi-Velez 2017, IJCAI, in outline; Grad-CAM as the map is ours")
class RegionAttention(Responding):
    """Cross-entropy, and the share of the right class's Grad-CAM that lies outside the image's mask."""

    where = FEATURE

    def __init__(
        self,
        *,
        weight: Annotated[float, Field(ge=0, le=1000)] = 1.0,
        warmup: Annotated[float, Field(ge=0, le=1)] = 0.1,
    ) -> None:
        """weight: of the share outside. warmup: share of the run without it."""
        self.weight, self.warmup = weight, warmup

    def prepare(self, setup: Setup) -> None:
        masks = setup.cohort.masks
        if masks is None:
            raise InputError(
                f"{setup.cohort.name} has no masks, and region-attention needs them; give the source's `mask` option."
            )
        if not masks[setup.train_rows].any():
            raise InputError(
                f"no training image of {setup.cohort.name} has a mask with anything in it, and region-attention learns "
                "from these; check the source's `mask` option."
            )
        if setup.cohort.is_volume:
            raise InputError("region-attention reads images; the cohort holds volumes.")
        super().prepare(setup)

    def penalty(self, step: Step) -> dict[str, Tensor]:
        if step.done < self.warmup or self.weight == 0:
            return {}
        masks = step.masks()
        assert masks is not None
        logits, tap = self.responding(step)
        [gradient] = torch.autograd.grad(logits.gather(1, step.labels[:, None]).sum(), tap, create_graph=True)
        channels, size = step.classifier.taps[self.layer][1], step.images.shape[2:]
        activation, slope = (as_map(t.float(), channels=channels, size=size) for t in (tap, gradient))
        return {"outside": self.weight * outside(grad_cam_map(activation, slope), masks).mean()}

    def report(self) -> dict[str, Any]:
        return {"layer": self.layer}
