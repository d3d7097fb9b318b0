"""Controlled changes with a known answer. One line per shift registers it."""

from trueread.shift import noise, square  # noqa: F401  (each registers its shift)
from trueread.shift.base import SHIFTS, Draw, Shift, Shifted, shift

__all__ = ["SHIFTS", "Draw", "Shift", "Shifted", "shift"]
