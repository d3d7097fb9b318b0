"""Protocols: what a paper claims, run again at several scales, with everything it is compared with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from trueread.errors import InputError, unknown
from trueread.files import write_json
from trueread.progress import say
from trueread.record import environment, today
from trueread.registry import Registry

PAPERS: Registry[Paper] = Registry("paper", "papers", package="trueread.paper")
paper = PAPERS.register
RESULT = "result.json"


class Paper:
    """A protocol. scales: by name, in rising order of cost; "smoke" needs no data. `run` does the work of one scale in
    a folder, where what is done is not done again, and returns the result as it stands after each part.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    scales: ClassVar[Mapping[str, Any]] = {}

    def run(self, scale: str, folder: Path, data: Path | None) -> dict[str, Any]:
        """The result, of plain values. data: folder of the real images, or None."""
        raise NotImplementedError

    def save(self, scale: str, folder: Path, result: dict[str, Any]) -> Path:
        """Write the result, whole or not at all, with what it takes to repeat it."""
        made = {
            "title": self.title,
            "scale": scale,
            "command": f"trueread paper {self.name} --scale {scale}",
            "date": today(),
            "environment": environment(),
        }
        write_json(folder / RESULT, made | result)
        return folder / RESULT


def run_paper(
    name: str, *, scale: str = "smoke", out: str | Path | None = None, data: str | Path | None = None
) -> Path:
    """Run a protocol and return the path of its result.json; interrupted, it continues where it was.

    data: folder of the real images ($TRUEREAD_DATA by default), which only the larger scales need.
    Raises InputError for an unknown protocol or scale, and where its images are not there.
    """
    protocol = PAPERS.build(name)
    if scale not in protocol.scales:
        raise unknown("scale", scale, list(protocol.scales))
    given = data or os.environ.get("TRUEREAD_DATA")
    if given and not Path(given).is_dir():
        raise InputError(f"there is no folder {given} with the images of '{name}'; check --data or $TRUEREAD_DATA.")
    folder = Path(out) if out is not None else Path("runs") / f"paper-{name}-{scale}"
    result = protocol.run(scale, folder, Path(given) if given else None)
    path = protocol.save(scale, folder, result)
    say(f"{name}, scale {scale}: {path}")
    return path
