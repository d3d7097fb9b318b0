"""Brightness, contrast, gamma and saturation: closed forms, and equal to PIL's and colorsys's."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from trueread.errors import InputError
from trueread.shift.corruption.colour import brightness, contrast, gamma, grey, saturate


@pytest.fixture(params=[1, 3])
def x(request) -> torch.Tensor:
    values = torch.randint(0, 256, (2, request.param, 24, 20), generator=torch.Generator().manual_seed(request.param))
    return values / 255


def test_closed_forms():
    x = torch.tensor([0.2, 0.4, 0.6]).view(1, 1, 1, 3)
    assert torch.allclose(brightness(x, 1.5), torch.tensor([0.3, 0.6, 0.9]))
    assert torch.allclose(gamma(x, 2), torch.tensor([0.04, 0.16, 0.36]))
    assert torch.allclose(contrast(x, 2), torch.tensor([0.0, 0.4, 0.8]), atol=1e-6), "102/255 is the mean"


def test_contrast_rounds_the_mean_grey_to_a_grey_level():
    x = torch.tensor([0.0, 101.0]).view(1, 1, 1, 2) / 255
    assert torch.allclose(contrast(x, 0.0), torch.full_like(x, 51 / 255)), "50.5 rounds up"


def test_contrast_leaves_flat_images_but_for_the_rounding(x):
    flat = x[:, :, :1, :1].expand(-1, -1, 5, 5)
    assert torch.allclose(contrast(grey(flat), 1.6), grey(flat), atol=0.6 * 0.51 / 255)


@pytest.mark.parametrize("factor", [0.15, 0.4, 0.85, 1.1, 1.8])
def test_brightness_and_contrast_are_pils_to_one_grey_level(x, factor):
    for ours, enhancer in ((brightness, ImageEnhance.Brightness), (contrast, ImageEnhance.Contrast)):
        for k in (0, 1):
            values = (255 * x[k]).round().byte().permute(1, 2, 0).numpy()
            theirs = enhancer(Image.fromarray(values if x.shape[1] == 3 else values[..., 0])).enhance(factor)
            theirs = torch.from_numpy(np.array(theirs).reshape(24, 20, -1)).permute(2, 0, 1)
            assert (255 * ours(x[k : k + 1], factor).clamp(0, 1)[0] - theirs).abs().max() <= 1.01


def test_saturation_is_colorsys():
    x = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    x[..., 0, :] = torch.tensor([[0, 0.5, 1, 0, 0.3, 0.3], [0, 0.5, 1, 1, 0.3, 0], [0, 0.5, 1, 0, 0.6, 0]])
    ours = saturate(x, 0.2)[0]
    for i in range(6):
        for j in range(6):
            h, s, v = colorsys.rgb_to_hsv(*x[0, :, i, j].tolist())
            assert ours[:, i, j].tolist() == pytest.approx(colorsys.hsv_to_rgb(h, min(1, s + 0.2), v), abs=1e-6)


def test_saturation_needs_colour():
    with pytest.raises(InputError, match="'saturate' needs colour, images of 3 channels; found 1"):
        saturate(torch.rand(2, 1, 4, 4), 0.1)


def test_the_given_images_are_left_alone(x):
    before = x.clone()
    for change in (lambda: brightness(x, 2), lambda: contrast(x, 2), lambda: gamma(x, 2)):
        change()
    if x.shape[1] == 3:
        saturate(x, 0.2)
    assert torch.equal(x, before)
