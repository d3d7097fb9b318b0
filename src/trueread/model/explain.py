"""Where in the image the evidence for a class lies: Grad-CAM, batched, in raw units, the layer found by itself.

Source: Selvaraju et al. 2017, Grad-CAM, ICCV, eq. 1 and 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trueread.errors import NotMeasured
from trueread.model.classifier import Classifier
from trueread.model.taps import as_map


@dataclass(frozen=True)
class Explanation:
    """maps: float [B,H,W] (volumes: [B,D,H,W]) in units of the logit, not rescaled: a map without evidence is zero.
    layer: the tap it was read from."""

    maps: Tensor
    layer: str


def grad_cam_map(activation: Tensor, gradient: Tensor) -> Tensor:
    """ReLU of the activation maps weighted by the spatial mean of their gradient: [B,C,h,w] twice -> [B,h,w]."""
    weight = gradient.flatten(2).mean(2)
    return F.relu(torch.einsum("bc...,bc->b...", activation, weight))


def grad_cam(classifier: Classifier, images: Tensor, target: Tensor, *, layer: str = "auto") -> Explanation:
    """Grad-CAM of class `target` (int64 [B]) for images float [B,C,...] in [0,1], at the images' size.

    layer: a tap's name, or "auto": the last tap that still has a spatial extent and a gradient. (The last block of a
    transformer that classifies by its class token has none on its patch tokens; the one before is used then.)
    Raises NotMeasured when no tap of the network can carry a map.
    """
    names = list(classifier.taps) if layer == "auto" else [layer]
    with torch.enable_grad():
        output = classifier(images.detach().requires_grad_(), taps=names)  # a graph also through a frozen network
        score = output.logits.float().gather(1, target[:, None]).sum()
        usable = [n for n in reversed(names) if output.taps[n].requires_grad]
        taps = [output.taps[n] for n in usable]
        gradients = torch.autograd.grad(score, taps, allow_unused=True) if taps else ()
    for name, gradient in zip(usable, gradients, strict=True):
        channels = classifier.taps[name][1]
        if gradient is None:
            continue
        activation_map = as_map(output.taps[name].detach().float(), channels=channels, size=images.shape[2:])
        gradient_map = as_map(gradient.float(), channels=channels, size=images.shape[2:])
        only_prefix = bool(gradient.any()) and not gradient_map.any()
        if activation_map.ndim < 4 or min(activation_map.shape[2:]) < 2 or only_prefix:
            continue
        maps = grad_cam_map(activation_map, gradient_map)[:, None]
        mode = "trilinear" if maps.ndim == 5 else "bilinear"
        maps = F.interpolate(maps, size=images.shape[2:], mode=mode, align_corners=False)
        return Explanation(maps[:, 0], name)
    raise NotMeasured("no layer of this network keeps a spatial map with a gradient; name one with `layer`.")
