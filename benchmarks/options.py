"""What every part of the benchmarks is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Options:
    """smoke: everything tiny, to see that it runs; the numbers mean nothing. device: for the part `gpu`.
    budget: seconds for the part `gpu`; what does not fit is left out and said.
    """

    smoke: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    budget: float = 440.0
