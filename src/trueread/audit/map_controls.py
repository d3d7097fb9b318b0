"""What a map of evidence has to beat: a blob in the middle, a network that has learned nothing, a random order."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
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


def random_orders(n: int, size: tuple[int, ...], *, seed: int) -> NDArray[np.float32]:
    """float32 [n,H,W]: maps that know nothing, as smooth as a coarse one: random numbers at 7x7 places, enlarged."""
    coarse = np.random.default_rng(seed).random((n, 1, 7, 7), dtype=np.float32)
    return F.interpolate(torch.from_numpy(coarse), size=size, mode="bilinear", align_corners=False)[:, 0].numpy()


def pointed_at(evidence: NDArray) -> tuple[int, int]:
    """Row and column of the strongest place of float [H,W], in the middle of where it is level.

    A coarse map that was enlarged is level from the middle of an outer cell to the image's edge; there it is the inner
    end, which is that middle.
    """
    strongest = evidence >= evidence.max() * (1 - 1e-6)
    named = ndimage.label(strongest, structure=np.ones((3, 3)))[0]
    places = np.nonzero(named == named[np.unravel_index(evidence.argmax(), evidence.shape)])
    found = []
    for at, length in zip(places, evidence.shape, strict=True):
        first, last = int(at.min()), int(at.max())
        if (first == 0) == (last == length - 1):
            found.append(round(float(at.mean())))
        else:
            found.append(last if first == 0 else first)
    return found[0], found[1]


def randomised(classifier: Classifier, *, seed: int = 0) -> Classifier:
    """The same network with new random weights in every layer; parameters that no layer knows how to draw, such as
    positions, have their entries shuffled. Source: Adebayo et al. 2018, NeurIPS, section 3.
    """
    other = copy.deepcopy(classifier)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        cpu = other.to("cpu")
        for module in cpu.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
                continue
            for values in module.parameters(recurse=False):
                values.copy_(values.flatten()[torch.randperm(values.numel())].view_as(values))
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
