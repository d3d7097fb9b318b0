"""Lays one image on another: the affine map and the gain that make two images most alike, many pairs at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Pixels = NDArray[np.float32]

STEPS = 8  # of Gauss and Newton
FURTHEST_STEP, FURTHEST = 0.15, 0.45  # of any number of the map, in half sides: away from where it was, and from no map
LEAST_GAIN = 0.2  # keeps an image from being explained by a grey surface
DAMPING = 1e-3


def resampled(images: Pixels, maps: NDArray) -> Pixels:
    """float32 [n,S,S]: images under affine maps [n,2,3] from places in the result to places in the image, both with
    -1 and 1 at the edges. Outside, the edge goes on."""
    import torch

    places = _places(torch.as_tensor(maps, dtype=torch.float32), images.shape[1])
    return np.asarray(_moved(_tensor(images), places)[:, 0].numpy())


def registered(fixed: Pixels, moving: Pixels, *, side: int, start: Pixels | None = None) -> Pixels:
    """float32 [n,2,3]: the map under which each image of `moving` [n,S,S] is most like that of `fixed` [n,S,S].

    side: in pixels, to which both are shrunk; a small one sees further. start: maps to go on from.

    Gauss and Newton on the squared difference, with the gain and offset of `moving` solved for besides (Lucas and
    Kanade 1981; Evangelidis and Psarakis 2008). Found from 16 pixels are turns up to some 15 degrees, crops down to
    four fifths and shifts up to a tenth of the side; others may end anywhere.
    """
    import torch

    target, image = (_blurred(_shrunk(_tensor(x), side)) for x in (fixed, moving))
    none = torch.eye(2, 3).repeat(len(fixed), 1, 1)
    maps = none.clone() if start is None else torch.from_numpy(start.copy())
    layers = torch.cat([image, _slope(image, -1), _slope(image, -2)], dim=1)
    x, y, _ = _centres(side).mT.view(3, side, side)
    for _ in range(STEPS):
        places = _places(maps, side)
        image, across, down = _moved(layers, places).unbind(dim=1)
        columns = torch.stack([across * x, across * y, across, down * x, down * y, down, image, torch.ones_like(image)])
        jacobian = (columns * _inside(places)).flatten(2).movedim(0, 1)  # [n,8,pixels]
        normal = jacobian @ jacobian.mT
        normal = normal + torch.diag_embed(normal.diagonal(dim1=1, dim2=2) * DAMPING + 1e-5)
        solved = torch.linalg.solve(normal, jacobian @ target.flatten(1)[..., None])[..., 0]
        step = solved[:, :6] / solved[:, 6:7].clamp(min=LEAST_GAIN)
        maps = maps + step.clamp(-FURTHEST_STEP, FURTHEST_STEP).view(-1, 2, 3)
        maps = none + (maps - none).clamp(-FURTHEST, FURTHEST)
    return np.asarray(maps.numpy())


def inverse(maps: NDArray) -> NDArray:
    """The maps [n,2,3] the other way round."""
    linear = np.linalg.inv(maps[:, :, :2])
    return np.concatenate([linear, -linear @ maps[:, :, 2:]], axis=2).astype(np.float32)


def inside(maps: NDArray, side: int) -> Pixels:
    """float32 [n,side,side]: 1 where a place of the result lies inside the image, 0 where it does not."""
    import torch

    return np.asarray(_inside(_places(torch.as_tensor(maps, dtype=torch.float32), side)).numpy())


def _tensor(images: Pixels) -> Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(images, np.float32))[:, None]


def _centres(side: int) -> Tensor:
    """[side * side, 3]: x, y and 1 of every pixel's centre, with -1 and 1 at the edges."""
    import torch

    along = torch.linspace(-1 + 1 / side, 1 - 1 / side, side)
    y, x = torch.meshgrid(along, along, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)], dim=-1).view(-1, 3)


def _places(maps: Tensor, side: int) -> Tensor:
    """[n,side,side,2]: where each pixel of the result lies in the image; affine_grid in a tenth of its time."""
    return (_centres(side) @ maps.mT).view(len(maps), side, side, 2)


def _moved(images: Tensor, places: Tensor) -> Tensor:
    from torch.nn import functional

    return functional.grid_sample(images, places, align_corners=False, padding_mode="border")


def _inside(places: Tensor) -> Tensor:
    """[n,side,side]: 1 inside the image, 0 outside."""
    return (places.abs().amax(dim=-1) <= 1).float()


def _shrunk(images: Tensor, side: int) -> Tensor:
    from torch.nn import functional

    return images if images.shape[-1] == side else functional.interpolate(images, size=(side, side), mode="area")


def _blurred(images: Tensor) -> Tensor:
    """Gaussian of one pixel's standard deviation: without it a step of the search sees no further than a pixel."""
    import torch
    from torch.nn import functional

    weights = torch.exp(-0.5 * torch.arange(-3.0, 4.0) ** 2)
    weights = weights / weights.sum()
    across = functional.conv2d(functional.pad(images, (3, 3, 0, 0), mode="replicate"), weights.view(1, 1, 1, 7))
    return functional.conv2d(functional.pad(across, (0, 0, 3, 3), mode="replicate"), weights.view(1, 1, 7, 1))


def _slope(images: Tensor, axis: int) -> Tensor:
    """Central differences, per half side."""
    from torch.nn import functional

    padding = (1, 1, 0, 0) if axis == -1 else (0, 0, 1, 1)
    wide = functional.pad(images, padding, mode="replicate")
    n = wide.shape[axis]
    return (wide.narrow(axis, 2, n - 2) - wide.narrow(axis, 0, n - 2)) * (images.shape[axis] / 4)
