"""Shifts: controlled changes of images whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from trueread.errors import InputError
from trueread.registry import Registry

SHIFTS: Registry[Shift] = Registry("shift", "shifts", package="trueread.shift")
shift = SHIFTS.register
Change = Callable[[Tensor, list[str]], Tensor]  # images float [B,C,...] in [0,1] and their ids -> the changed images


@dataclass(frozen=True)
class Shifted:
    """A batch with and without a change. without, with_: float [B,C,...] in [0,1]. where: float [B,H,W] in [0,1], the
    part that was changed, or None for a change of the whole image."""

    without: Tensor
    with_: Tensor
    where: Tensor | None


class Shift:
    """A change of images float [B,C,H,W] or [B,C,D,H,W] in [0,1], on their device, of a given severity.

    severity: in [0,1]; 0 changes nothing, 1 is the strongest the shift knows.
    Subclasses give `apply`, and `where` when the change is local. Everything random in them comes from `draw`, so that
    an image's change depends on its id and the seed alone, never on its place in the batch.
    """

    name: ClassVar[str] = ""
    options: Mapping[str, Any]

    def __new__(cls, **options: Any) -> Self:
        made = super().__new__(cls)
        made.options = options  # as given, so that a planted cue can be made again
        return made

    def __init__(self, *, severity: float = 0.5, seed: int = 0) -> None:
        if not 0 <= severity <= 1:
            raise InputError(f"severity must be in [0,1]; found {severity}.")
        self.severity, self.seed = severity, seed

    def apply(self, images: Tensor, draw: Draw) -> Tensor:
        """The changed images, not yet clamped."""
        raise NotImplementedError

    def where(self, images: Tensor, draw: Draw) -> Tensor | None:
        """float [B,H,W] in [0,1]: which part `apply` changes with the same draw; None for the whole image."""
        return None

    def __call__(self, images: Tensor, ids: list[str]) -> Tensor:
        """The changed images, in [0,1]. ids: one per image; they and the seed decide everything random."""
        return self.apply(images, self._draw(images, ids)).clamp(0, 1)

    def pair(self, images: Tensor, ids: list[str]) -> Shifted:
        """Each image with and without the change, and where it is."""
        draw = self._draw(images, ids)
        return Shifted(images, self.apply(images, draw).clamp(0, 1), self.where(images, draw))

    def _draw(self, images: Tensor, ids: list[str]) -> Draw:
        if len(images) != len(ids):  # one id would be spread over the batch without a word
            raise InputError(f"{len(images)} images need as many ids; found {len(ids)}.")
        return Draw(ids, self.seed, self.name)


class Painted(Shift):
    """A local shift that paints what `where` marks with one intensity; severity is the opacity of the paint.

    Subclasses give `where`.
    """

    def __init__(self, *, severity: float = 0.5, seed: int = 0, level: float = 1.0) -> None:
        """level: the intensity of the paint, in [0,1]."""
        super().__init__(severity=severity, seed=seed)
        self.level = level

    def where(self, images: Tensor, draw: Draw) -> Tensor:
        raise NotImplementedError

    def apply(self, images: Tensor, draw: Draw) -> Tensor:
        paint = torch.full_like(images, self.level)
        return torch.lerp(images, paint, self.severity * self.where(images, draw)[:, None])


def over_slices(plane: Tensor, images: Tensor) -> Tensor:
    """A plane [B,H,W] as it is for flat images, and on every slice of volumes: [B,D,H,W]."""
    return plane if images.ndim == 4 else plane[:, None].expand(-1, images.shape[2], -1, -1)


@dataclass(frozen=True)
class Draw:
    """Random numbers that belong to images: the same id, seed and purpose give the same numbers in any batch."""

    ids: list[str]
    seed: int
    shift: str

    def uniform(self, purpose: str, *, n: int = 1, like: Tensor) -> Tensor:
        """float [B,n] in [0,1)."""
        return self._each(purpose, lambda g: torch.rand(n, generator=g), like)

    def normal(self, purpose: str, shape: tuple[int, ...], *, like: Tensor) -> Tensor:
        """float [B,*shape], standard normal."""
        return self._each(purpose, lambda g: torch.randn(shape, generator=g), like)

    def _each(self, purpose: str, make: Callable[[torch.Generator], Tensor], like: Tensor) -> Tensor:
        generator = torch.Generator()
        rows = []
        for i in self.ids:
            text = f"{self.seed}/{self.shift}/{purpose}/{i}"
            digest = blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest()
            generator.manual_seed(int.from_bytes(digest, "big") >> 1)
            rows.append(make(generator))
        return torch.stack(rows).to(like)
