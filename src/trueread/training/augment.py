"""Augmentation of whole batches: one resampling, one pass over the intensities, own parameters per image."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

import torch
import torch.nn.functional as F
import yaml
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from trueread.errors import unknown

TILES, CLIP = 8, 2.0  # of CLAHE: tiles a side, and the limit of a histogram over its mean
BLUR = (0.003, 0.02)  # sigma, as shares of the shorter side
MOTION, MEDIAN = 5 / 224, 3 / 224  # shares of the shorter side
HOLES, HOLE = 8, 8 / 224  # at most so many, each so wide
GREY = (0.299, 0.587, 0.114)  # luma weights of ITU-R BT.601


class Recipe(BaseModel):
    """How far an image may be changed; units are in recipes.yaml. Zero is off."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rotate_degrees: float = 0.0
    translate: float = 0.0
    scale: float = 0.0
    flip_horizontal: float = 0.0
    flip_vertical: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    gamma: float = 0.0
    saturation: float = 0.0
    noise: float = 0.0
    rotate_share: float = 1.0
    shift_share: float = 1.0
    intensity_share: float = 1.0
    gamma_share: float = 1.0
    noise_share: float = 1.0
    clahe: float = 0.0
    motion_blur: float = 0.0
    median_blur: float = 0.0
    holes: float = 0.0
    crop: float = 1.0
    blur: float = 0.0
    grey: float = 0.0
    solarise: float = 0.0

    @property
    def moves(self) -> bool:
        moved = (self.rotate_degrees, self.translate, self.scale, self.flip_horizontal, self.flip_vertical)
        return any(moved) or self.crop < 1


@cache
def recipes(name: str = "recipes") -> dict[str, Recipe]:
    """All recipes by modality: "recipes", for training with labels, or "views", for two views of one image; as the
    YAML files of these names have them.
    """
    content = yaml.safe_load(files("trueread.training").joinpath(f"{name}.yaml").read_text())
    return {modality: Recipe(**values) for modality, values in content.items()}


def recipe_for(augment: str, modality: str, *, of: str = "recipes") -> tuple[str, Recipe]:
    """Name and recipe that `augment` means: "auto" is the modality's own, or "any" for a modality without one. of: see
    `recipes`.
    """
    known = recipes(of)
    name = augment if augment != "auto" else (modality if modality in known else "any")
    if name not in known:
        raise unknown("augmentation recipe", name, known)
    return name, known[name]


@dataclass(frozen=True)
class Draws:
    """Random numbers for `total` images, of which those of `mine` are used.

    Several processes that share a batch draw for all of it, and so give each image what one process would have given
    it. generator: on the images' device; the same state gives the same augmentation.
    """

    generator: torch.Generator
    total: int
    mine: slice = field(default_factory=lambda: slice(None))

    def unit(self, *shape: int) -> Tensor:
        """Uniform in [0,1), float [B,*shape]."""
        return torch.rand(self.total, *shape, generator=self.generator, device=self.generator.device)[self.mine]

    def around_zero(self, half_width: float) -> Tensor:
        """Uniform in [-half_width, half_width), float [B]."""
        return (self.unit() * 2 - 1) * half_width

    def some(self, share: float) -> Tensor | float:
        """1 for that share of the images and 0 for the others, float [B]; without a draw when it is all of them."""
        return 1.0 if share == 1 else (self.unit() < share).float()

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, float [B,*shape]."""
        return torch.randn(self.total, *shape, generator=self.generator, device=self.generator.device)[self.mine]


def augment_batch(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Augmented copies of images float [B,C,H,W] or [B,C,D,H,W] in [0,1]; the result stays in [0,1]."""
    draws = Draws(generator, len(images))
    move = draw_move(images, recipe, draws)
    return recolour(images if move is None else apply_move(images, move), recipe, draws)


def draw_move(images: Tensor, recipe: Recipe, draws: Draws) -> Tensor | None:
    """Each image's own rotation (in the H-W plane), scale, shift and flip as an affine matrix [B,d,d+1]; None when the
    recipe moves nothing. It belongs to the image, so that its mask can be moved along.
    """
    if not recipe.moves:
        return None
    angle = draws.around_zero(math.radians(recipe.rotate_degrees)) * draws.some(recipe.rotate_share)
    shifted = draws.some(recipe.shift_share)
    scale = 1 + draws.around_zero(recipe.scale) * shifted
    shift_x = draws.around_zero(2 * recipe.translate) * shifted
    shift_y = draws.around_zero(2 * recipe.translate) * shifted
    if recipe.crop < 1:
        side = (recipe.crop + draws.unit() * (1 - recipe.crop)).sqrt()
        scale = scale / side
        corner = draws.unit(2) * 2 - 1
        shift_x, shift_y = (shift + corner[:, i] * (1 - side) for i, shift in enumerate((shift_x, shift_y)))
    flips = draws.unit(2)
    flip_x = 1 - 2 * (flips[:, 0] < recipe.flip_horizontal).float()
    flip_y = 1 - 2 * (flips[:, 1] < recipe.flip_vertical).float()
    h, w = images.shape[-2:]
    cos, sin = angle.cos() / scale, angle.sin() / scale
    dims = images.ndim - 2
    theta = torch.zeros(len(images), dims, dims + 1, device=images.device)
    theta[:, 0, 0], theta[:, 0, 1], theta[:, 0, dims] = cos * flip_x, -sin * (h / w) * flip_y, shift_x
    theta[:, 1, 0], theta[:, 1, 1], theta[:, 1, dims] = sin * (w / h) * flip_x, cos * flip_y, shift_y
    if dims == 3:
        theta[:, 2, 2] = 1
    return theta


def apply_move(images: Tensor, theta: Tensor) -> Tensor:
    """Images float [B,C,...] resampled once, bilinearly and with reflected borders, as `draw_move` says."""
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def recolour(images: Tensor, recipe: Recipe, draws: Draws) -> Tensor:
    """Contrast about the image's own mean, brightness, saturation, noise, gamma and what changes the neighbourhood of a
    pixel; the result is in [0,1].
    """
    shape = (len(images), *(1 for _ in images.shape[1:]))
    if recipe.contrast or recipe.brightness:
        changed = draws.some(recipe.intensity_share)
        gain = 1 + (draws.around_zero(recipe.contrast) * changed).view(shape)
        offset = (draws.around_zero(recipe.brightness) * changed).view(shape)
        mean = images.flatten(1).mean(1).view(shape)
        images = torch.addcmul(mean * (1 - gain) + offset, images, gain)
    if recipe.saturation and images.shape[1] == 3:
        red, green, blue = (images[:, i : i + 1] * w for i, w in enumerate(GREY))  # not a tensor: it would be copied
        grey = red + green + blue
        images = torch.lerp(grey, images, 1 + draws.around_zero(recipe.saturation).view(shape))
    if recipe.grey and images.shape[1] == 3:
        chosen = (draws.unit() < recipe.grey).view(shape)
        red, green, blue = (images[:, i : i + 1] * w for i, w in enumerate(GREY))
        images = torch.where(chosen, red + green + blue, images)
    if recipe.solarise:
        chosen = (draws.unit() < recipe.solarise).view(shape)
        images = torch.where(chosen & (images > 0.5), 1 - images, images)
    if recipe.noise:
        sigma = (draws.unit() * draws.some(recipe.noise_share)).view(shape) * recipe.noise
        images = torch.addcmul(images, draws.normal(*images.shape[1:]), sigma)
    images = images.clamp(0, 1)
    if recipe.gamma:
        exponent = 1 + (draws.around_zero(recipe.gamma) * draws.some(recipe.gamma_share)).view(shape)
        images = images.clamp_min(1e-6) ** exponent
    return neighbourhood(images, recipe, draws)


def neighbourhood(images: Tensor, recipe: Recipe, draws: Draws) -> Tensor:
    """CLAHE, blur, motion blur, a median filter and holes, each in its share of the images; of volumes slice by slice.

    Sizes are shares of the side, so that they are the same at every resolution. All but holes by kornia.
    """
    if not (recipe.clahe or recipe.blur or recipe.motion_blur or recipe.median_blur or recipe.holes):
        return images
    flat = images.flatten(1, -3)  # [B, C or C x D, H, W]
    side = min(flat.shape[2:])
    if recipe.clahe:
        flat = _changed(flat, draws.unit() < recipe.clahe, _clahe)
    if recipe.blur:
        sigma, chosen = BLUR[0] + draws.unit() * (BLUR[1] - BLUR[0]), draws.unit() < recipe.blur
        flat = _changed(flat, chosen, lambda x, s: _blur(x, s * side, odd(4 * BLUR[1] * side)), sigma)
    if recipe.motion_blur:
        degrees, chosen = draws.unit() * 360, draws.unit() < recipe.motion_blur
        flat = _changed(flat, chosen, lambda x, d: _motion_blur(x, d, odd(MOTION * side)), degrees)
    if recipe.median_blur:
        flat = _changed(flat, draws.unit() < recipe.median_blur, lambda x: _median(x, odd(MEDIAN * side)))
    if recipe.holes:
        flat = torch.where(holes(draws, flat) & (draws.unit() < recipe.holes)[:, None, None, None], 0.0, flat)
    return flat.clamp(0, 1).view_as(images)


def odd(length: float) -> int:
    """The nearest odd number of pixels, at least 3."""
    return max(3, 2 * round((length - 1) / 2) + 1)


def holes(draws: Draws, images: Tensor) -> Tensor:
    """bool [B,1,H,W]: up to eight squares of an image at random places, each as wide as `HOLE` of the shorter side."""
    h, w = images.shape[2:]
    width = max(1, round(HOLE * min(h, w)))
    corner = draws.unit(HOLES, 2)
    top, left = (corner[..., 0] * (h - width)).round(), (corner[..., 1] * (w - width)).round()
    there = torch.arange(HOLES, device=images.device) < 1 + (draws.unit() * HOLES).floor()[:, None]
    rows, columns = (torch.arange(n, device=images.device) for n in (h, w))
    down = (rows >= top[..., None]) & (rows < top[..., None] + width) & there[..., None]
    across = (columns >= left[..., None]) & (columns < left[..., None] + width)
    return (down[..., :, None] & across[..., None, :]).any(1)[:, None]


def _changed(images: Tensor, chosen: Tensor, change: Callable[..., Tensor], *given: Tensor) -> Tensor:
    """The images [B,...] of which `change` has changed the chosen ones. On a GPU all are computed: it would have to
    wait to learn which.
    """
    if images.is_cuda:
        return torch.where(chosen[:, None, None, None], change(images, *given), images)
    if not chosen.any():
        return images
    return images.index_copy(0, chosen.nonzero()[:, 0], change(images[chosen], *(g[chosen] for g in given)))


def _clahe(images: Tensor) -> Tensor:
    from kornia.enhance import equalize_clahe

    tiles = tuple(max(1, min(TILES, side // 8)) for side in images.shape[2:])  # of at least 8 pixels
    return equalize_clahe(images, CLIP, tiles)


def _blur(images: Tensor, sigma: Tensor, length: int) -> Tensor:
    from kornia.filters import gaussian_blur2d

    return gaussian_blur2d(images, length, sigma[:, None].expand(-1, 2))


def _motion_blur(images: Tensor, degrees: Tensor, length: int) -> Tensor:
    from kornia.filters import motion_blur

    return motion_blur(images, length, degrees, torch.zeros_like(degrees))


def _median(images: Tensor, length: int) -> Tensor:
    from kornia.filters import median_blur

    return median_blur(images, (length, length))
