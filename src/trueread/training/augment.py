"""Augmentation of whole batches: one resampling, one pass over the intensities, own parameters per image."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

import torch
import torch.nn.functional as F
import yaml
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from trueread.errors import unknown

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

    @property
    def moves(self) -> bool:
        return any((self.rotate_degrees, self.translate, self.scale, self.flip_horizontal, self.flip_vertical))


@cache
def recipes() -> dict[str, Recipe]:
    """All recipes by modality, as recipes.yaml has them."""
    content = yaml.safe_load(files("trueread.training").joinpath("recipes.yaml").read_text())
    return {name: Recipe(**values) for name, values in content.items()}


def recipe_for(augment: str, modality: str) -> tuple[str, Recipe]:
    """Name and recipe that `augment` means: "auto" is the modality's own, or "any" for a modality without one."""
    known = recipes()
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
    angle = draws.around_zero(math.radians(recipe.rotate_degrees))
    scale = 1 + draws.around_zero(recipe.scale)
    shift_x = draws.around_zero(2 * recipe.translate)
    shift_y = draws.around_zero(2 * recipe.translate)
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
    """Contrast about the image's own mean, brightness, gamma, saturation and noise, then back into [0,1]."""
    shape = (len(images), *(1 for _ in images.shape[1:]))
    if recipe.contrast or recipe.brightness:
        gain = 1 + draws.around_zero(recipe.contrast).view(shape)
        offset = draws.around_zero(recipe.brightness).view(shape)
        mean = images.flatten(1).mean(1).view(shape)
        images = torch.addcmul(mean * (1 - gain) + offset, images, gain)
    if recipe.saturation and images.shape[1] == 3:
        red, green, blue = (images[:, i : i + 1] * w for i, w in enumerate(GREY))  # not a tensor: it would be copied
        grey = red + green + blue
        images = torch.lerp(grey, images, 1 + draws.around_zero(recipe.saturation).view(shape))
    if recipe.noise:
        sigma = draws.unit().view(shape) * recipe.noise
        images = torch.addcmul(images, draws.normal(*images.shape[1:]), sigma)
    images = images.clamp(0, 1)
    if recipe.gamma:
        exponent = 1 + draws.around_zero(recipe.gamma).view(shape)
        images = images.clamp_min(1e-6) ** exponent
    return images
