"""Image files for the tests of the readers."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def scene(height: int = 48, width: int = 64, *, channels: int = 1, seed: int = 0) -> np.ndarray:
    """uint8 [H,W] or [H,W,3]: smooth, without any symmetry, so that a wrong turn or a lost row shows."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [
        np.sin(y / generator.uniform(4, 9) + c) * 60 + np.cos(x / generator.uniform(5, 11)) * 50
        for c in range(channels)
    ]
    image = np.stack(waves, axis=-1) + 128
    image[: height // 4, : width // 3] = 230
    return image.round().clip(0, 255).astype(np.uint8).squeeze()


def save(path: Path, pixels: np.ndarray | Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def bomb(path: Path, side: int) -> Path:
    """A PNG of a few bytes whose header promises side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return path
