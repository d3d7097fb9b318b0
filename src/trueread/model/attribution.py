"""Where in the image a logit is sensitive: maps of the input's gradient, computed by Captum.

Sources: Simonyan et al. 2014 (gradient); Smilkov et al. 2017 (SmoothGrad); Sundararajan et al. 2017 (integrated
gradients); Chalasani et al. 2020, ICML (the Gini index as a measure of sparsity).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trueread.errors import unknown

Forward = Callable[[Tensor], Tensor]  # images float [B,C,...] in [0,1] -> logits [B,K]
ATTRIBUTIONS = ("gradient", "smoothgrad", "integrated-gradients")
SMOOTHGRAD_DRAWS, SMOOTHGRAD_SIGMA = 16, 0.1  # of intensities in [0,1]
INTEGRATION_STEPS = 32


def attribution(name: str, forward: Forward, images: Tensor, target: Tensor, *, seed: int = 0) -> Tensor:
    """Maps float [B,...] >= 0 of the spatial size of images float [B,C,...] in [0,1], for the logits of `target`.

    name: "gradient", its absolute value; "smoothgrad", that of its mean over images with noise of 0.1; or
    "integrated-gradients" from a black image, in logit units. Channels are summed. target: int64 [B]. seed: of noise.
    forward must not depend on other images of the batch. Raises InputError for an unknown name.
    """
    from captum.attr import IntegratedGradients, NoiseTunnel, Saliency

    if name not in ATTRIBUTIONS:
        raise unknown("attribution", name, ATTRIBUTIONS)
    images = images.detach().clone().requires_grad_()
    with torch.enable_grad(), torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
        torch.manual_seed(seed)
        if name == "gradient":
            found = Saliency(forward).attribute(images, target=target)
        elif name == "smoothgrad":
            tunnel = NoiseTunnel(Saliency(forward))
            found = tunnel.attribute(
                images, target=target, nt_type="smoothgrad", nt_samples=SMOOTHGRAD_DRAWS, stdevs=SMOOTHGRAD_SIGMA,
                nt_samples_batch_size=1, abs=False,
            )  # fmt: skip
        else:
            found = IntegratedGradients(forward).attribute(
                images, target=target, n_steps=INTEGRATION_STEPS, internal_batch_size=len(images)
            )
    return found.detach().float().abs().sum(1)


def rank_correlation(a: Tensor, b: Tensor) -> NDArray[np.float64]:
    """Spearman's correlation over the pixels of each pair of maps [B,...], in [-1,1]; nan for a map of one value."""
    from scipy.stats import rankdata

    x, y = (rankdata(m.flatten(1).numpy(), axis=1) for m in (a, b))
    x, y = (r - r.mean(axis=1, keepdims=True) for r in (x, y))
    spread = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return np.divide((x * y).sum(axis=1), spread, out=np.full(len(x), np.nan), where=spread > 0)


def similarity(a: Tensor, b: Tensor) -> NDArray[np.float64]:
    """SSIM of each pair of maps [B,...], each first brought to a largest value of 1; in [-1,1].

    Source: Wang et al. 2004, IEEE TIP 13:600, Gaussian window of sigma 1.5.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    side = min(a.shape[1:])
    x, y = (m[:, None] / m.flatten(1).amax(1).clamp_min(1e-30).view(-1, *(1 for _ in m.shape)) for m in (a, b))
    sigma = min(1.5, (side - 1) / 7)  # the window reaches 3.5 sigma to either side
    found = ssim(x, y, data_range=1.0, sigma=sigma, reduction="none")
    return torch.as_tensor(found).double().numpy().reshape(-1)


def gini(maps: Tensor) -> NDArray[np.float64]:
    """Sparsity of each map [B,...] >= 0: 0 where all pixels are alike, nearly 1 where a single one has it all; nan
    for an empty map.
    """
    values = np.sort(maps.flatten(1).double().numpy(), axis=1)
    n = values.shape[1]
    total = values.sum(axis=1)
    share = (values * (n - np.arange(n) - 0.5)).sum(axis=1) / n
    return np.divide(total - 2 * share, total, out=np.full(len(values), np.nan), where=total > 0)
