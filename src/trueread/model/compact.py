"""The compact network: a small residual CNN that trains in minutes on a laptop's CPU, for images and for volumes."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (24, 48, 96, 160)

_CONV: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
_NORM: dict[int, Any] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al. 2016, basic block); the shortcut pools before its 1x1
    (ResNet-D).
    """

    def __init__(self, n_in: int, n_out: int, *, stride: int, dims: int) -> None:
        super().__init__()
        conv, norm = _CONV[dims], _NORM[dims]
        self.conv1 = conv(n_in, n_out, 3, stride, 1, bias=False)
        self.norm1 = norm(n_out)
        self.conv2 = conv(n_out, n_out, 3, 1, 1, bias=False)
        self.norm2 = norm(n_out)
        pool: dict[int, Any] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
        self.shortcut = (
            nn.Sequential(
                pool[dims](stride, ceil_mode=True) if stride > 1 else nn.Identity(),
                conv(n_in, n_out, 1, bias=False),
                norm(n_out),
            )
            if stride > 1 or n_in != n_out
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class Compact(nn.Module):
    """Stem and four residual stages, 0.56 million weights in 2-D and 1.6 million in 3-D.

    channels: 1 or 3. size: the image's side in pixels; the stem halves it once above 32 px and again above 96 px, so
    that the last map stays near 4x4 to 8x8 and the cost per image nearly constant. dims: 2 or 3.
    forward: float [B,C,H,W] or [B,C,D,H,W] -> features [B,160].
    """

    def __init__(self, *, channels: int, size: int, dims: int = 2, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        conv, norm = _CONV[dims], _NORM[dims]
        pool: dict[int, Any] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
        limits = (32, 96) if dims == 2 else (16, 48)  # a volume's cost grows with the cube of its side
        self.stem = nn.Sequential(
            conv(channels, widths[0], 3, 2 if size > limits[0] else 1, 1, bias=False),
            norm(widths[0]),
            nn.ReLU(),
            pool[dims](3, 2, 1) if size > limits[1] else nn.Identity(),
        )
        strides = (1, 2, 2, 2)
        n_in = (widths[0], *widths[:-1])
        self.stage1, self.stage2, self.stage3, self.stage4 = (
            Block(a, b, stride=stride, dims=dims) for a, b, stride in zip(n_in, widths, strides, strict=True)
        )
        self.num_features = widths[-1]
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d)):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        for stage in (self.stem, *self.stages()):
            x = stage(x)
        return x.flatten(2).mean(2)

    def stages(self) -> list[Block]:
        """The four residual stages, in order."""
        return [self.stage1, self.stage2, self.stage3, self.stage4]
