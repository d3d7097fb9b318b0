"""Corruptions of intensity and colour: brightness, contrast, gamma, saturation."""

from __future__ import annotations

from torch import Tensor

from trueread.errors import InputError

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601


def grey(images: Tensor) -> Tensor:
    """float [B,1,H,W]: the luma of colour images, the mean over the channels of any other number of them."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    return (images * images.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def brightness(images: Tensor, factor: float) -> Tensor:
    """Images float [B,C,H,W] times a factor, as PIL's enhancer does. Not clamped."""
    return images * factor


def contrast(images: Tensor, factor: float) -> Tensor:
    """Images float [B,C,H,W] in [0,1], each further from its mean grey by a factor, or nearer. Not clamped.

    The mean is of the luma, rounded to one of 255 grey levels, as PIL's enhancer rounds it.
    """
    mean = (255 * grey(images).mean((1, 2, 3), keepdim=True) + 0.5).floor() / 255
    return mean + factor * (images - mean)


def gamma(images: Tensor, exponent: float) -> Tensor:
    """Images float [B,C,H,W] in [0,1] to a power: above 1 darker, below 1 brighter."""
    return images.clamp_min(0) ** exponent


def saturate(images: Tensor, added: float) -> Tensor:
    """Colour images float [B,3,H,W] in [0,1] with more saturation: S of HSV plus `added`, at most 1.

    Hue and value stay. A grey pixel has no hue and, as in the usual conversion, counts as red: it becomes reddish.
    Raises InputError for images that are not of three channels.
    """
    if images.shape[1] != 3:
        raise InputError(
            f"'saturate' needs colour, images of 3 channels; found {images.shape[1]}; leave it out for grey images."
        )
    value = images.amax(1, keepdim=True)
    missing = value - images  # of each channel to the strongest, in proportion to the saturation
    spread = missing.amax(1, keepdim=True)
    missing[:, 1:] = missing[:, 1:].where(spread > 0, 1.0)
    spread = spread.where(spread > 0, 1.0)
    saturation = (value - images.amin(1, keepdim=True)) / value.where(value > 0, 1.0)
    return value - missing / spread * value * (saturation + added).clamp_max(1)
