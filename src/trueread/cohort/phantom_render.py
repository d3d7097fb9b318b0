"""From parameters to radiographs: planted marker, film and grain, in chunks and in parallel."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from trueread.cohort.phantom_anatomy import MARKER_ASPECT, Parameters, Scene
from trueread.cohort.phantom_body import Chest, attenuation, chest
from trueread.cohort.phantom_body import opacity as opacity_of
from trueread.cohort.phantom_lungs import VISIBLE
from trueread.cohort.phantom_shapes import diffuse, rectangle

PIXELS_PER_CHUNK = 1 << 16  # a quarter of a megabyte per map, so that the maps in use stay in the cache


def render(
    scene: Scene, *, size: int, seed: int, opacity: bool = True, cue: bool = True, chunk: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `[N,1,S,S]` and the masks of their opacities uint8 `[N,S,S]`, 1 inside.

    opacity, cue: False renders the same images, noise and all, as they would be without them (masks stay).
    chunk: images at a time; changes memory, not the result.
    """
    images = np.empty((len(scene), 1, size, size), dtype=np.uint8)
    masks = np.empty((len(scene), size, size), dtype=np.uint8)
    step = chunk or max(1, PIXELS_PER_CHUNK // size**2)

    def expose(start: int) -> None:
        stop = min(start + step, len(scene))
        p = _tensors(scene.rows(start, stop))
        p.cue = p.cue * cue
        frame = chest(p, size)
        disease, extent = opacity_of(p, frame)
        mu = attenuation(p, frame, disease * opacity) + _marker(p, frame)
        images[start:stop, 0] = _film(p, mu, torch.from_numpy(_grain(seed, size, start, stop)))
        masks[start:stop] = (extent > 0.4 * extent.amax((1, 2), keepdim=True)) & (p.severity >= VISIBLE)

    # a thread per chunk: torch's own threads would meet after each of some hundred small steps, and wait
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(expose, range(0, len(scene), step)))
    finally:
        torch.set_num_threads(threads)
    return images, masks


def _grain(seed: int, size: int, start: int, stop: int) -> np.ndarray:
    """Noise float32 `[stop - start,S,S]`, mean 0, standard deviation 1: one 64-bit number of one stream per pixel.

    The sum of its four 16-bit parts (Irwin-Hall, close to normal, within 3.5). A fixed price per pixel means that the
    noise of image k begins at a known place, whichever images are rendered before it or at the same time.
    """
    bits = np.random.PCG64([seed, size])
    bits.advance(start * size**2)
    raw = bits.random_raw((stop - start) * size**2)
    pairs = (raw & np.uint64(0x0000FFFF0000FFFF)) + ((raw >> np.uint64(16)) & np.uint64(0x0000FFFF0000FFFF))
    total = (pairs + (pairs >> np.uint64(32))) & np.uint64(0x3FFFF)
    return ((total.astype(np.float32) - 2 * 65535) * np.float32(3**0.5 / 65536)).reshape(-1, size, size)


def _tensors(parameters: Parameters) -> SimpleNamespace:
    """`[B]` as `[B,1,1]`, to stand beside images; `[B,K]` stays."""
    tensors = {name: torch.from_numpy(values) for name, values in parameters.items()}
    return SimpleNamespace(**{name: t[:, None, None] if t.ndim == 1 else t for name, t in tensors.items()})


def _marker(p: SimpleNamespace, c: Chest) -> Tensor:
    """Attenuation of the lead marker where one was planted: an L in a frame."""
    if not (p.cue * p.marker).any():
        return torch.zeros(())
    h = p.marker_height / 2
    w, stroke = MARKER_ASPECT * h, 0.22 * h

    def box(left: Tensor, top: Tensor, right: Tensor, bottom: Tensor) -> Tensor:
        x, y = p.marker_x, p.marker_y
        return rectangle(c.across, c.down, x + left, y + top, x + right, y + bottom, c.pixel)

    frame = box(-w, -h, w, h) - box(stroke - w, stroke - h, w - stroke, h - stroke)
    stem = box(-0.45 * w, -0.55 * h, -0.45 * w + 1.3 * stroke, 0.55 * h)
    foot = box(-0.45 * w + 1.3 * stroke, 0.55 * h - 1.3 * stroke, 0.5 * w, 0.55 * h)
    return 3.0 * p.cue * p.marker * (frame + stem + foot)


def _film(p: SimpleNamespace, mu: Tensor, noise: Tensor) -> np.ndarray:
    """Grey values uint8: scatter and quantum noise at the detector, then the logarithm and the film's S-curve."""
    size = mu.shape[-1]
    beam = torch.exp(-mu)
    beam = beam + p.scatter * diffuse(beam)
    quanta = 6000 * 64 / size  # per unit of beam; real ones go with the square, but then small images have no noise
    beam = beam + (beam / quanta).sqrt_() * noise * p.noise
    density = -torch.log(beam.clamp_(min=0.004))
    shift = p.exposure + p.cue * p.exposure_cue
    grey = torch.sigmoid((density - 1.45 + shift) * (1.75 * p.contrast * (1 - 0.3 * p.cue * p.exposure_cue)))
    return grey.mul_(255).add_(0.5).to(torch.uint8).numpy()
