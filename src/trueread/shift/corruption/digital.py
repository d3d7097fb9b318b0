"""Digital corruptions: fewer pixels and JPEG compression."""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 8  # pixels, at every image size
HALF = 0.5 + 1e-5  # rounds halves away from zero, as libjpeg does, also those that float32 puts a little lower
# ITU-T T.81, annex K.1 and K.2: the tables that libjpeg scales by quality
LUMINANCE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
CHROMINANCE = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99,
    99, 99, 99, *(99,) * 32,
)  # fmt: skip
TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))  # JFIF
TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def pixelate(images: Tensor, share: float) -> Tensor:
    """Images float [B,C,H,W] made smaller and large again, as PIL's BOX filter does both.

    share: of each side that is left, in (0,1]; relative, so the same at every image size.
    """
    (rows, row_of), (columns, column_of) = (_boxes(n, max(1, int(n * share)), images) for n in images.shape[-2:])
    return (rows @ images @ columns.T).index_select(-2, row_of).index_select(-1, column_of)


def jpeg(images: Tensor, quality: float) -> Tensor:
    """Images float [B,C,H,W] in [0,1] as they come back from a JPEG file.

    quality: 1 to 100 on libjpeg's scale. Three channels are stored as YCbCr with the chroma at half size (4:2:0, PIL's
    default); any other number channel by channel as grey. Blocks are 8 pixels at every image size, so a small image
    loses more than a large one of the same scene.
    Source: ITU-T T.81 (transform, tables), JFIF 1.02 (colours), libjpeg (scaling of the tables, smooth chroma).
    """
    grey_levels = (255 * images).round()
    if images.shape[1] != 3:
        return _stored(grey_levels, LUMINANCE, quality) / 255
    h, w = images.shape[-2:]
    ycbcr = torch.einsum("rc,bchw->brhw", images.new_tensor(TO_YCBCR), grey_levels)
    luma = _stored(ycbcr[:, :1].round(), LUMINANCE, quality)
    # libjpeg fills up to whole blocks before it halves a row, and after it has halved a column
    full = F.pad((ycbcr[:, 1:] + 128).round(), (0, -w % (2 * BLOCK), 0, h % 2), mode="replicate")
    halves = F.avg_pool2d(full, 2, divisor_override=1)
    up_or_down = 1 + torch.arange(halves.shape[-1], device=images.device) % 2  # of a half, by turns
    chroma = _stored(((halves + up_or_down) / 4).floor(), CHROMINANCE, quality)[..., : (h + 1) // 2, : (w + 1) // 2]
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)[..., :h, :w].round() - 128
    rgb = torch.einsum("rc,bchw->brhw", images.new_tensor(TO_RGB), torch.cat([luma, chroma], 1))
    return rgb.round().clamp(0, 255) / 255


def _stored(planes: Tensor, table: tuple[int, ...], quality: float) -> Tensor:
    """Planes [B,C,H,W] of grey levels after the discrete cosine transform, its quantisation, and the way back."""
    h, w = planes.shape[-2:]
    padded = F.pad(planes - 128, (0, -w % BLOCK, 0, -h % BLOCK), mode="replicate")
    b, c, ph, pw = padded.shape
    cosines = planes.new_tensor(_cosines())
    steps = planes.new_tensor(quantisation(table, quality)).view(BLOCK, BLOCK).repeat(1, pw // BLOCK)
    across = padded.view(b, c, ph, pw // BLOCK, BLOCK) @ cosines.T
    coefficients = (cosines @ across.view(b, c, ph // BLOCK, BLOCK, pw)) / steps
    kept = coefficients.sign() * (coefficients.abs() + HALF).floor() * steps
    back = (cosines.T @ kept).view(b, c, ph, pw // BLOCK, BLOCK) @ cosines
    back = back.view(b, c, ph, pw)
    return (back[..., :h, :w] + 128).round().clamp(0, 255)


def quantisation(table: tuple[int, ...], quality: float) -> list[int]:
    """The quantisation steps of a quality, 1 to 255, as libjpeg scales a table."""
    percent = int(5000 / quality) if quality < 50 else int(200 - 2 * quality)
    return [min(max((step * percent + 50) // 100, 1), 255) for step in table]


@cache
def _cosines() -> list[list[float]]:
    """The orthonormal discrete cosine transform of a block, [frequency][pixel]."""
    scales = [math.sqrt((1 if k == 0 else 2) / BLOCK) for k in range(BLOCK)]
    angles = [[(2 * n + 1) * k * math.pi / (2 * BLOCK) for n in range(BLOCK)] for k in range(BLOCK)]
    return [[scale * math.cos(a) for a in row] for scale, row in zip(scales, angles, strict=True)]


def _boxes(n: int, fewer: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """float [fewer,n], which makes n pixels `fewer`, and int [n], which of these each pixel becomes again.

    Each pixel belongs to the box that its middle is in. One right between two boxes, as in some odd sides, counts with
    the first, where PIL loses it to rounding.
    """
    edges = [math.floor(k * n / fewer + 0.5 + 1e-9) for k in range(fewer + 1)]
    down = torch.zeros(fewer, n)
    for k in range(fewer):
        down[k, edges[k] : edges[k + 1]] = 1 / (edges[k + 1] - edges[k])
    up = torch.tensor([min(fewer - 1, int((i + 0.5) * fewer / n)) for i in range(n)])
    return down.to(like), up.to(like.device)
