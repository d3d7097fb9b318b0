"""Controlled changes with a known answer. One line per shift registers it."""

from trueread.shift import (  # noqa: F401  (each registers its shift)
    blur,
    brightness,
    gamma,
    noise,
    ruler,
    square,
    text,
    vignette,
)
from trueread.shift.base import SHIFTS, Draw, Painted, Shift, Shifted, shift

__all__ = ["SHIFTS", "Draw", "Painted", "Shift", "Shifted", "shift"]
