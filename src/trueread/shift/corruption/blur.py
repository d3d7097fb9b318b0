"""Blur of four kinds.

Kernels are those of an image of 224 pixels. `scale`, the image's side over 224, brings them to its size so that they
blur it about as the large image, made small, would be blurred: a radius of less than a pixel still blurs, a larger one
more, and the smallest kernels of the lists change an image of 28 pixels by less than a grey level.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_blur(images: Tensor, side: int, *, scale: float = 1.0) -> Tensor:
    """Images float [B,C,H,W] under a Gaussian kernel of `side` pixels at 224; the border is mirrored.

    Its sigma follows from the side, 0.3 ((side - 1) / 2 - 1) + 0.8, as in OpenCV and torchvision.
    """
    reach = side // 2
    taps = gaussian_taps(reach, 0.3 * (reach - 1) + 0.8, like=images) @ resampling(reach, scale, like=images)
    rows, columns = (_along(n, taps) for n in images.shape[-2:])
    return rows @ images @ columns.T


def defocus_blur(images: Tensor, radius: float, edge: float, *, scale: float = 1.0) -> Tensor:
    """Images float [B,C,H,W] under a disk; the border is mirrored. radius, edge: see `disk`."""
    resampled = resampling((reach := math.floor(radius) + 1), scale, like=images)
    kernel = resampled.T @ disk(radius, edge, reach, like=images) @ resampled
    c, n = images.shape[1], len(kernel)
    return F.conv2d(_mirrored(_mirrored(images, n, axis=-1), n, axis=-2), kernel.expand(c, 1, -1, -1), groups=c)


def motion_blur(images: Tensor, radius: float, sigma: float, degrees: Tensor, *, scale: float = 1.0) -> Tensor:
    """Images float [B,C,H,W] smeared to one side, as ImageMagick's motion blur does; the border is repeated.

    radius, sigma: see `half_gaussian`. degrees: float [B], the direction, 0 from the right, 90 from below; each tap
    is taken from the pixel nearest to it.
    """
    weights = half_gaussian(radius, sigma, scale, like=images)
    taps = len(weights)
    padded = F.pad(images, (0, taps, taps, taps), mode="replicate")
    radians, k = torch.deg2rad(degrees)[:, None], torch.arange(taps, device=images.device)
    down, right = ((k * part - 0.5).ceil().long() for part in (radians.sin(), radians.cos()))
    # an image at a time is many times as fast on a CPU, and elsewhere too many small kernels
    summed = _by_image if images.device.type == "cpu" else _by_tap
    return summed(padded, weights, taps + down, right, images.shape[-2:])


def _by_image(padded: Tensor, weights: Tensor, down: Tensor, right: Tensor, size: torch.Size) -> Tensor:
    """[B,C,*size]: the weighted sum of what begins at the places down, right [B,n] of padded images."""
    h, w = size
    total = padded.new_zeros(*padded.shape[:2], h, w)
    for one, image, rows, columns in zip(total, padded, down.tolist(), right.tolist(), strict=True):
        for weight, row, column in zip(weights.tolist(), rows, columns, strict=True):
            one.add_(image[:, row : row + h, column : column + w], alpha=weight)
    return total


def _by_tap(padded: Tensor, weights: Tensor, down: Tensor, right: Tensor, size: torch.Size) -> Tensor:
    """The same as `_by_image`, all images at once."""
    pw = padded.shape[-1]
    rows, columns = (torch.arange(n, device=padded.device) for n in size)
    here = (rows[:, None] * pw + columns).flatten()
    total = padded.new_zeros(*padded.shape[:2], len(here))
    for k, weight in enumerate(weights):
        place = (here + (down[:, k] * pw + right[:, k])[:, None])[:, None].expand(-1, padded.shape[1], -1)
        total += weight * padded.flatten(2).gather(2, place)
    return total.unflatten(2, size)


def zoom_blur(images: Tensor, last: float, step: float) -> Tensor:
    """The mean of images float [B,C,H,W] and of their middles enlarged, from 1 to `last` in steps.

    Relative, so the same at every image size.
    """
    factors = [1 + step * k for k in range(round((last - 1) / step) + 1)]
    images = images.contiguous(memory_format=torch.channels_last)  # interpolated twice as fast
    total = images.clone()
    for factor in factors:
        total += _enlarged(images, factor)
    return total / (len(factors) + 1)


def disk(radius: float, edge: float, reach: int, *, like: Tensor) -> Tensor:
    """float [2 reach + 1, 2 reach + 1] of unit sum: the pixels within `radius`, blurred by a Gaussian of 3 pixels and
    of sigma `edge`.
    """
    at = torch.arange(-reach, reach + 1, dtype=like.dtype, device=like.device)
    inside = (at[:, None] ** 2 + at**2 <= radius**2).to(like)
    soft = gaussian_taps(1, edge, like=like)
    blurred = F.conv2d(inside[None, None], (soft[:, None] * soft)[None, None], padding=1)[0, 0]
    return blurred / blurred.sum()


def half_gaussian(radius: float, sigma: float, scale: float, *, like: Tensor) -> Tensor:
    """float [n], the weights of the pixels 0, 1, ... along the motion, of unit sum.

    radius, sigma: at 224 pixels, where there are 2 ceil(radius) + 1 taps; at another scale they are shared out
    linearly between the pixels, which keeps how far the motion carries on average.
    """
    taps = torch.arange(2 * math.ceil(radius) + 1, dtype=torch.float64)
    pixels = torch.arange(math.ceil((len(taps) - 1) * scale) + 1, dtype=torch.float64)
    shares = (1 - (pixels - scale * taps[:, None]).abs() / max(1.0, scale)).clamp_min(0)
    weights = torch.exp(-0.5 * (taps / sigma) ** 2) @ (shares / shares.sum(1, keepdim=True))
    return (weights / weights.sum()).to(like)


def gaussian_taps(reach: int, sigma: float, *, like: Tensor) -> Tensor:
    """float [2 reach + 1] of unit sum: a Gaussian at whole pixels."""
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-reach, reach + 1)]
    return like.new_tensor(weights) / sum(weights)


def resampling(reach: int, scale: float, *, like: Tensor) -> Tensor:
    """float [2 reach + 1, n], n odd, rows of unit sum: how each tap of a kernel is shared out between the pixels of an
    image `scale` times as large. The identity at scale 1.

    In smaller images by quadratic interpolation, which keeps a kernel's variance: a linear one would blur a small
    image up to three times as much as the large one made small. In larger ones by linear interpolation.
    """
    there = max(1, math.ceil(reach * scale))
    taps = scale * torch.arange(-reach, reach + 1, dtype=torch.float64)[:, None]
    pixels = torch.arange(-there, there + 1, dtype=torch.float64)
    if scale <= 1:
        beside, rest = pixels - taps.round(), taps - taps.round()
        shares = torch.where(beside == 0, 1 - rest**2, (rest**2 + beside * rest) / 2) * (beside.abs() <= 1)
    else:
        shares = (1 - (pixels - taps).abs() / scale).clamp_min(0)
    return (shares / shares.sum(1, keepdim=True)).to(like)


def _along(n: int, taps: Tensor) -> Tensor:
    """float [n,n]: what a kernel does to a row of n pixels, a matrix product being faster than a narrow convolution."""
    side, pixels = len(taps), torch.arange(n, device=taps.device)
    places = _mirror(n, side, device=taps.device)
    made = taps.new_zeros(n, n)
    for k in range(side):
        made.index_put_((pixels, places[k : k + n]), taps[k].expand(n), accumulate=True)
    return made


def _mirrored(images: Tensor, taps: int, *, axis: int) -> Tensor:
    """Images with room for a kernel along an axis."""
    return images.index_select(axis, _mirror(images.shape[axis], taps, device=images.device))


def _mirror(n: int, taps: int, *, device: torch.device) -> Tensor:
    """int [n + taps - 1]: of which of n pixels, mirrored at both ends; the one at the end itself is not repeated."""
    at = torch.arange(-(taps // 2), n + taps // 2, device=device)
    return n - 1 - (at % max(1, 2 * (n - 1)) - (n - 1)).abs()


def _enlarged(images: Tensor, factor: float) -> Tensor:
    """The middle of images, enlarged to their size with linear interpolation between its first and its last pixel."""
    sides = images.shape[-2:]
    middle = [math.ceil(n / factor) for n in sides]
    size = [round(m * factor) for m in middle]
    large = F.interpolate(_middle(images, middle), size=size, mode="bilinear", align_corners=True)
    return _middle(large, list(sides))


def _middle(images: Tensor, sides: list[int]) -> Tensor:
    top, left = ((n - m) // 2 for n, m in zip(images.shape[-2:], sides, strict=True))
    return images[..., top : top + sides[0], left : left + sides[1]]
