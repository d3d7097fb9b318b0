"""Smooth shapes on a batch of pixel grids: what the phantom's anatomy is drawn with.

All work on float32 tensors `[B,S,S]` with parameters `[B,1,1]`, pixel by pixel, so that an image does not depend on the
others in its batch. Lengths are in half image sides: the image spans -1..1, x to the right, y down.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Value = Tensor | float


def pixel_centres(size: int) -> tuple[Tensor, Tensor]:
    """x `[1,1,S]` and y `[1,S,1]` of the pixel centres, in -1..1."""
    centres = (torch.arange(size, dtype=torch.float32) + 0.5) * (2 / size) - 1
    return centres.view(1, 1, size), centres.view(1, size, 1)


def cover(distance: Tensor, edge: float) -> Tensor:
    """Share of a pixel inside a shape, 0..1, from the signed distance to its border (positive inside).

    edge: width of the border; less than a pixel shows stairs.
    """
    return (distance * (1 / edge)).add_(0.5).clamp_(0, 1)


def ellipse(x: Tensor, y: Tensor, half_width: Value, half_height: Value) -> Tensor:
    """Signed distance (positive inside) from an ellipse around 0: exact on the border, to first order around it.

    F / |grad F| with F = 1 - (x/a)^2 - (y/b)^2; the middle of the ellipse counts as very deep.
    """
    u, v = x / half_width, y / half_height
    field = 1 - u.square() - v.square()
    steepness = (u / half_width).square_() + (v / half_height).square_() + 1e-4
    return field.mul_(0.5).mul_(steepness.rsqrt_())


def union(a: Tensor, b: Tensor, rounding: float) -> Tensor:
    """Signed distance of two shapes grown together: their maximum, with the inner corner rounded over `rounding`."""
    return (a - b).square_().add_(rounding**2).sqrt_().add_(a).add_(b).mul_(0.5)


def tube(offset: Tensor, radius: Tensor, edge: float) -> Tensor:
    """A bone from the side, 0..about 1: the cortex at its borders stops more X-rays than the marrow inside.

    offset: distance from the axis, of either sign.
    """
    offset = offset.abs()
    cortex = (offset / radius).square_().mul_(0.5).add_(0.55).clamp_(max=1.05)
    return cortex.mul_(cover(radius - offset, edge))


def row_of_tubes(height: Tensor, radius: Value, spacing: Tensor, phase: Tensor, edge: float) -> Tensor:
    """Parallel tubes, one every `spacing` of `height`: all ribs of a side for the price of one."""
    turns = (height + 1).div_(spacing).add_(phase)
    return tube(turns.sub_(turns.round()).mul_(spacing), torch.as_tensor(radius), edge)


def blobs(x: Tensor, y: Tensor, centre_x: Tensor, centre_y: Tensor, radius: Tensor, weight: Tensor) -> Tensor:
    """Sum over k of weight_k exp(-distance_k^2 / 2 radius_k^2): `[B,S,S]`.

    x, y: `[1,1,S]` and `[1,S,1]`. centre_x, centre_y, radius, weight: `[B,K]`.
    A round Gaussian is a product of one in x and one in y, so K of them cost K multiply-adds per pixel.
    """
    centre_x, centre_y, radius, weight = (t[:, :, None, None] for t in (centre_x, centre_y, radius, weight))
    across = (x - centre_x).div_(radius).square_().mul_(-0.5).exp_()
    down = (y - centre_y).div_(radius).square_().mul_(-0.5).exp_().mul_(weight)
    total = across[:, 0] * down[:, 0]
    for k in range(1, across.shape[1]):
        total.addcmul_(across[:, k], down[:, k])
    return total


def rectangle(x: Tensor, y: Tensor, left: Tensor, top: Tensor, right: Tensor, bottom: Tensor, pixel: float) -> Tensor:
    """Share of each pixel inside an upright rectangle, exactly. left, top, right, bottom: `[B,1,1]`."""
    half = pixel / 2
    across = (torch.minimum(x + half, right) - torch.maximum(x - half, left)).clamp_(min=0)
    down = (torch.minimum(y + half, bottom) - torch.maximum(y - half, top)).clamp_(min=0)
    return across * down / pixel**2


def splat(column: Tensor, row: Tensor, mass: Tensor, size: int) -> Tensor:
    """Points spread over their four nearest pixels: `[B,S,S]`; the sum of the image is the mass that lies inside it.

    column, row, mass: `[B,P]`, positions in pixels (0 is the centre of the first). Many points make a line: a tree of
    vessels costs its length in pixels, not its number of branches times the pixels of the image.
    """
    width = size + 2  # a rim of one pixel catches what falls outside
    column, row = (column + 1).clamp_(0, size + 0.999), (row + 1).clamp_(0, size + 0.999)
    left, top = column.floor(), row.floor()
    right_share, bottom_share = column - left, row - top
    corner = top.mul_(width).add_(left).long()
    lower, upper = mass * bottom_share, mass * (1 - bottom_share)
    image = torch.zeros(column.shape[0], width * width)
    image.scatter_add_(1, corner, upper * (1 - right_share))
    image.scatter_add_(1, corner + 1, upper * right_share)
    image.scatter_add_(1, corner + width, lower * (1 - right_share))
    image.scatter_add_(1, corner + (width + 1), lower * right_share)
    return image.view(-1, width, width)[:, 1:-1, 1:-1]


def blur(image: Tensor, sigma_pixels: float) -> Tensor:
    """Gaussian blur by repeated [1 2 1]/4; each pass adds 1/2 to the variance, so it rounds to whole passes."""
    for _ in range(round(2 * sigma_pixels**2)):
        padded = F.pad(image[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
        image = (padded[:, :-2] + padded[:, 2:]).add_(padded[:, 1:-1], alpha=2)
        image = (image[:, :, :-2] + image[:, :, 2:]).add_(image[:, :, 1:-1], alpha=2).mul_(1 / 16)
    return image


def diffuse(image: Tensor, cells: int = 8) -> Tensor:
    """A very wide blur: the mean over `cells` x `cells` tiles, interpolated back."""
    tiles = F.adaptive_avg_pool2d(image[:, None], cells)
    return F.interpolate(tiles, size=image.shape[1:], mode="bilinear", align_corners=False)[:, 0]


def follow(pattern: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Patterns `[B,C,R,R]` that move with the body: their values at body coordinates x, y `[B,S,S]`, as `[B,C,S,S]`."""
    fine = F.interpolate(pattern, size=(48, 48), mode="bicubic", align_corners=True)  # or its cells show as facets
    return F.grid_sample(fine, torch.stack((x, y), dim=-1), mode="bilinear", padding_mode="border", align_corners=True)
