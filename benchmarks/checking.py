"""The checks of a cohort of up to 100,000 images: time, memory and how they grow."""

from __future__ import annotations

from growth import LINEAR_FROM, add_exponents, in_processes
from options import Options
from sheet import Sheet

TITLE = "All checks of up to 100,000 images of 28 px"
SIZES = {10_000: 3, 30_000: 2, 100_000: 1}


def measure(sheet: Sheet, options: Options) -> None:
    """Every size in its own process, then the exponents."""
    sizes = {300: 1} if options.smoke else SIZES
    found = in_processes(sheet, sizes, stages=("check",), arguments=("--check",))
    add_exponents(sheet, found, ("check",), linear_from=0 if options.smoke else LINEAR_FROM)
