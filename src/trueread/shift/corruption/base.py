"""A corruption of MedMNIST-C at one level, for batches of images.

Source: Di Salvo, Doerrich, Ledig, MedMNIST-C, arXiv 2406.17536, and its package medmnistc 0.1.0, of which the
parameters and the meaning of each corruption are taken. Where we differ: intensities are not rounded down to grey
levels; the ink of stain deposits and the font of characters are ours; everything random belongs to the image's id.

Levels are defined for a side of 224 pixels. At another size, lengths are scaled by the shorter side over 224: kernels
are interpolated, and what is painted is painted at 224 and brought to size by area. Shares (pixelate, zoom-blur,
black-corner), counts and intensities stay. JPEG's blocks stay 8 pixels and noise stays one value per pixel, so that
both cost a small image more than the corruption of the large image, made small afterwards, would.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Literal

from torch import Tensor

from trueread.errors import InputError, unknown
from trueread.shift.base import Draw
from trueread.shift.corruption import blur, colour, digital, lists, noise, special


@dataclass(frozen=True)
class Operator:
    """How a corruption is applied: `apply(images, *parameters)`, with what else it takes.

    random: "normal" or "uniform", one number per value of the images; or how many uniform ones per image. scaled:
    whether it takes the keyword `scale`, the image's shorter side over 224.
    """

    apply: Callable[..., Tensor]
    random: Literal["normal", "uniform"] | int = 0
    scaled: bool = False


def _motion(images: Tensor, radius: float, sigma: float, uniform: Tensor, *, scale: float) -> Tensor:
    return blur.motion_blur(images, radius, sigma, 90 * uniform[:, 0] - 45, scale=scale)


OPERATORS = {
    "pixelate": Operator(digital.pixelate),
    "jpeg-compression": Operator(digital.jpeg),
    "gaussian-noise": Operator(noise.gaussian, random="normal"),
    "speckle-noise": Operator(noise.speckle, random="normal"),
    "impulse-noise": Operator(noise.impulse, random="uniform"),
    "shot-noise": Operator(noise.shot, random="uniform"),
    "gaussian-blur": Operator(blur.gaussian_blur, scaled=True),
    "defocus-blur": Operator(blur.defocus_blur, scaled=True),
    "motion-blur": Operator(_motion, random=1, scaled=True),
    "zoom-blur": Operator(blur.zoom_blur),
    "brightness-up": Operator(colour.brightness),
    "brightness-down": Operator(colour.brightness),
    "contrast-up": Operator(colour.contrast),
    "contrast-down": Operator(colour.contrast),
    "saturate": Operator(colour.saturate),
    "gamma-up": Operator(colour.gamma),
    "gamma-down": Operator(colour.gamma),
    "stain-deposit": Operator(special.stain_deposit, random=special.MARK_NUMBERS),
    "bubble": Operator(special.bubble, random=special.BUBBLE_NUMBERS),
    "black-corner": Operator(special.black_corner),
    "characters": Operator(special.characters, random=special.CHARACTER_NUMBERS),
}


@dataclass(frozen=True)
class Corruption:
    """One corruption of a set's list at one level; `corruption` makes it from a modality's name too.

    set_name: path, blood, derma, retina, tissue, oct, breast, chest, pneumonia or organ. name: of the set's list.
    level: 1 to 5. seed: with an image's id it decides everything random, and the level has no part in it: the same
    noise, only more of it. Raises InputError for an unknown set, name or level.
    """

    set_name: str
    name: str
    level: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.set_name not in lists.facts()["lists"]:
            raise unknown("set of MedMNIST-C", self.set_name, lists.facts()["lists"])
        _ = self.parameters

    @property
    def parameters(self) -> tuple[float, ...]:
        return lists.parameters(self.set_name, self.name, self.level)

    @property
    def family(self) -> str:
        return lists.family_of(self.name)

    def __call__(self, images: Tensor, ids: list[str]) -> Tensor:
        """The corrupted images, in [0,1].

        images: float [B,C,H,W] or [B,C,D,H,W] in [0,1], on any device; volumes slice by slice, with one draw for all
        of them, but noise of every voxel's own. ids: one per image. An image's corruption is the same in any batch, up
        to the rounding of a convolution.
        Grey images get noise as in the package, which makes them RGB first and grey again: three draws per pixel,
        averaged as luma, and so 0.67 of the named standard deviation.
        Raises InputError for another kind of images, another number of ids, and grey images where colour is needed.
        """
        if images.ndim not in (4, 5) or not images.is_floating_point():
            raise InputError(
                f"a corruption takes images float [B,C,H,W] or [B,C,D,H,W] in [0,1]; found {images.dtype} of shape "
                f"{tuple(images.shape)}."
            )
        if len(images) != len(ids):
            raise InputError(f"{len(images)} images need as many ids; found {len(ids)}.")
        operator = OPERATORS[self.name]
        as_colour = isinstance(operator.random, str) and images.shape[1] == 1
        given = images.expand(-1, 3, *images.shape[2:]) if as_colour else images
        scale = {"scale": min(images.shape[-2:]) / special.SIDE} if operator.scaled else {}
        flat = operator.apply(_slices(given), *self.parameters, *self._random(given, ids, operator), **scale).clamp(
            0, 1
        )
        if as_colour:
            flat = colour.grey(flat)
        return flat if images.ndim == 4 else flat.unflatten(0, (len(images), -1)).transpose(1, 2)

    def _random(self, images: Tensor, ids: list[str], operator: Operator) -> tuple[Tensor, ...]:
        draw = Draw(ids, self.seed, f"corruption/{self.name}")
        if operator.random == "normal":
            return (_slices(draw.normal("values", tuple(images.shape[1:]), like=images)),)
        if operator.random == "uniform":
            return (_slices(draw.uniform("values", n=prod(images.shape[1:]), like=images).view(images.shape)),)
        if operator.random == 0:
            return ()
        slices_each = 1 if images.ndim == 4 else images.shape[2]
        return (draw.uniform("image", n=operator.random, like=images).repeat_interleave(slices_each, 0),)


def corruption(where: str, name: str, level: int, *, seed: int = 0) -> Corruption:
    """The corruption `name` at a level, 1 to 5, from the list of a set, a MedMNIST cohort or a modality (`where`).

    Raises InputError with the nearest name for one that is not known.
    """
    return Corruption(lists.set_for(where), name, level, seed)


def _slices(images: Tensor) -> Tensor:
    """Images [B,C,H,W] as they are; volumes [B,C,D,H,W] as their slices [B*D,C,H,W]."""
    return images if images.ndim == 4 else images.transpose(1, 2).flatten(0, 1)
