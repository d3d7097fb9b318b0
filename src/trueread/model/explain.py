"""Where in the image the evidence for a class lies: batched, class by class, in units of the logit, the layer found by
itself.

Sources: Selvaraju et al. 2017, Grad-CAM, ICCV, eq. 1 and 2; Chattopadhay et al. 2018, Grad-CAM++, WACV, eq. 10, 11, 19;
Zeiler and Fergus 2014, ECCV (occlusion).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trueread.errors import NotMeasured, unknown
from trueread.model.classifier import Classifier, require_gradients
from trueread.model.predictor import Predictor
from trueread.model.taps import as_map

GRAD_CAM, GRAD_CAM_PLUS_PLUS, OCCLUSION = "grad-cam", "grad-cam++", "occlusion"
EXPLANATIONS = (GRAD_CAM, GRAD_CAM_PLUS_PLUS, OCCLUSION)
PATCHES = 8  # a side, that occlusion covers one after the other
SMALLEST = 1e-7  # probability whose logit is still taken


@dataclass(frozen=True)
class Explanation:
    """maps: float [B,H,W] (volumes: [B,D,H,W]) in units of the logit, not rescaled: a map without evidence is zero.
    layer: the tap it was read from, "" for the image itself."""

    maps: Tensor
    layer: str


def explain(
    predictor: Predictor, images: Tensor, target: Tensor, *, how: str = GRAD_CAM, layer: str = "auto"
) -> Explanation:
    """The evidence for class `target` (int64 [B]) in images float [B,C,...] in [0,1], at the images' size.

    how: "grad-cam", "grad-cam++", or "occlusion", which needs no gradients and so asks any predictor.
    layer: as `grad_cam`. Raises InputError for another name, and NotMeasured as `grad_cam`.
    """
    if how not in EXPLANATIONS:
        raise unknown("explanation", how, EXPLANATIONS)
    if how == OCCLUSION:
        return Explanation(occlusion(predictor, images, target), "")
    rule = grad_cam_map if how == GRAD_CAM else grad_cam_plus_plus_map
    return _from_last_map(require_gradients(predictor), images, target, layer, rule)


def grad_cam(classifier: Classifier, images: Tensor, target: Tensor, *, layer: str = "auto") -> Explanation:
    """Grad-CAM of class `target` (int64 [B]) for images float [B,C,...] in [0,1], at the images' size.

    layer: a tap's name, or "auto": the last tap that still has a spatial extent and a gradient. (The last block of a
    transformer that classifies by its class token has none on its patch tokens; the one before is used then.)
    Raises NotMeasured when no tap of the network can carry a map.
    """
    return _from_last_map(classifier, images, target, layer, grad_cam_map)


def grad_cam_map(activation: Tensor, gradient: Tensor) -> Tensor:
    """ReLU of the activation maps weighted by the spatial mean of their gradient: [B,C,h,w] twice -> [B,h,w]."""
    weight = gradient.flatten(2).mean(2)
    return F.relu(torch.einsum("bc...,bc->b...", activation, weight))


def grad_cam_plus_plus_map(activation: Tensor, gradient: Tensor) -> Tensor:
    """As `grad_cam_map`, but each place's gradient counts by how much of the class it explains, and only if positive.

    With gradient g, g^2 / (2 g^2 + g^3 sum A) is a place's share (the closed form for the exponential of the logit).
    The weights are means over places too, so that both kinds of map have one unit. The sum is over positive
    activations, as those of the source are: of others (tokens, linear layers) the share would pass through infinity.
    """
    total = F.relu(activation).flatten(2).sum(2)[(..., *[None] * (activation.ndim - 2))]
    below = 2 * gradient**2 + gradient**3 * total
    share = torch.where(below != 0, gradient**2 / torch.where(below != 0, below, 1.0), 0.0)
    weight = (share * F.relu(gradient)).flatten(2).mean(2)
    return F.relu(torch.einsum("bc...,bc->b...", activation, weight))


@torch.no_grad()
def occlusion(predictor: Predictor, images: Tensor, target: Tensor) -> Tensor:
    """float [B,H,W] >= 0: how much the log odds of `target` fall when the surroundings of a place are made grey.

    Patches of an eighth of the image cover it in steps of half a patch; a place has the mean over the patches that
    cover it. Grey is the image's own mean. Of volumes, all slices are covered at a time.
    """
    h, w = images.shape[-2:]
    ph, pw = max(1, -(-h // PATCHES)), max(1, -(-w // PATCHES))
    before = _log_odds(predictor, images, target)
    grey = images.flatten(2).mean(2)[(..., *[None] * (images.ndim - 2))].expand_as(images)
    fall, covered = (torch.zeros(len(images), h, w, device=images.device) for _ in range(2))
    for top in _steps(h, ph):
        for left in _steps(w, pw):
            where = (..., slice(top, top + ph), slice(left, left + pw))
            changed = images.clone()
            changed[where] = grey[where]
            less = (before - _log_odds(predictor, changed, target)).clamp_min(0)
            fall[where] += less[:, None, None]
            covered[where] += 1
    maps = fall / covered
    return maps if images.ndim == 4 else maps[:, None].expand(-1, images.shape[2], -1, -1).contiguous()


def _steps(length: int, patch: int) -> list[int]:
    """Where patches begin, half a patch apart, so that the last one ends with the image."""
    return sorted({*range(0, max(1, length - patch + 1), max(1, patch // 2)), max(0, length - patch)})


def _log_odds(predictor: Predictor, images: Tensor, target: Tensor) -> Tensor:
    p = predictor.probabilities(images).gather(1, target[:, None])[:, 0].double().clamp(SMALLEST, 1 - SMALLEST)
    return (p / (1 - p)).log().float()


def _from_last_map(
    classifier: Classifier, images: Tensor, target: Tensor, layer: str, rule: Callable[[Tensor, Tensor], Tensor]
) -> Explanation:
    """The first tap from the end that has a spatial extent and a gradient in it, and its map at the images' size."""
    names = list(classifier.taps) if layer == "auto" else [layer]
    with torch.enable_grad():
        output = classifier(images.detach().requires_grad_(), taps=names)  # a graph also through a frozen network
        score = output.logits.float().gather(1, target[:, None]).sum()
        for name in reversed(names):
            tap, channels = output.taps[name], classifier.taps[name][1]
            if not tap.requires_grad:
                continue
            # one tap at a time: the way back from the logit to the last one is short
            [gradient] = torch.autograd.grad(score, tap, retain_graph=True, allow_unused=True)
            if gradient is None:
                continue
            activation, slope = (
                as_map(t.detach().float(), channels=channels, size=images.shape[2:]) for t in (tap, gradient)
            )
            only_prefix = bool(gradient.any()) and not slope.any()
            if activation.ndim < 4 or min(activation.shape[2:]) < 2 or only_prefix:
                continue
            maps = rule(activation, slope)[:, None]
            mode = "trilinear" if maps.ndim == 5 else "bilinear"
            maps = F.interpolate(maps, size=images.shape[2:], mode=mode, align_corners=False)
            return Explanation(maps[:, 0], name)
    raise NotMeasured("no layer of this network keeps a spatial map with a gradient; name one with `layer`.")
