"""What a map of evidence has to beat: a blob in the middle, a network that has learned nothing, a random order."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trueread.model.classifier import Classifier
from trueread.shift.base import Draw
from trueread.shift.blur import Blur

STEPS = 10  # of deletion and insertion
SIGMA = 0.1  # of the blur that deletes, as a share of the shorter side


def centred(maps: NDArray) -> NDArray[np.float64]:
    """float [m,H,W]: for each map a Gaussian in the middle whose part above half of its largest value is as large as
    the map's; of one pixel where the map is empty. As wide against its height as the image.
    """
    m, h, w = maps.shape
    top = maps.reshape(m, -1).max(axis=1)
    share = np.where(top > 0, (maps >= top[:, None, None] / 2).mean(axis=(1, 2)), 1 / (h * w))
    # a Gaussian is above half its height within sigma sqrt(2 ln 2): an ellipse of area pi r^2 h w
    radius = np.sqrt(share / math.pi)
    sigma = radius / math.sqrt(2 * math.log(2))
    y, x = (np.arange(h) + 0.5) / h - 0.5, (np.arange(w) + 0.5) / w - 0.5
    return np.exp(-(y[:, None] ** 2 + x[None] ** 2)[None] / (2 * sigma**2)[:, None, None])


def randomised(classifier: Classifier, *, seed: int = 0) -> Classifier:
    """The same network with new random weights in every layer. Source: Adebayo et al. 2018, NeurIPS, section 3."""
    other = copy.deepcopy(classifier)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        cpu = other.to("cpu")
        for module in cpu.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    return other.to(classifier.mean.device).eval()


@torch.no_grad()
def faithfulness(
    classifier: Classifier, images: Tensor, target: Tensor, maps: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Deletion and insertion, float [B] each: the mean probability of `target` while the strongest places are blurred
    first, and while a blurred image gets its strongest places back first, in ten steps.

    A map that says where the evidence is has low deletion and high insertion. Source: Petsiuk et al. 2018, BMVC.
    """
    soft = Blur(severity=1.0, sigma=SIGMA).apply(images, Draw([""] * len(images), 0, "faithfulness"))
    flat = maps.flatten(1)
    order = torch.argsort(flat, dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(flat.shape[1], device=flat.device).expand_as(order))
    rank = rank.view_as(maps)[:, None]
    totals = torch.zeros(2, len(images), dtype=torch.float64, device=images.device)
    for step in range(STEPS + 1):
        first = rank < step * flat.shape[1] / STEPS
        weight = 0.5 if step in (0, STEPS) else 1.0
        for k, changed in enumerate((torch.where(first, soft, images), torch.where(first, images, soft))):
            p = classifier.probabilities(changed).gather(1, target[:, None])[:, 0]
            totals[k] += weight * p.double() / STEPS
    return totals[0].cpu().numpy(), totals[1].cpu().numpy()
