"""Protocols: what a paper claims, run again at several scales, with everything it is compared with."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from trueread.errors import InputError, unknown
from trueread.files import plain, write_json
from trueread.paper.side_by_side import how_many, side_by_side
from trueread.progress import say
from trueread.record import environment, today
from trueread.registry import Registry

PAPERS: Registry[Paper] = Registry("paper", "papers", package="trueread.paper")
paper = PAPERS.register
RESULT = "result.json"
SMOKE = "smoke"  # the scale without data

Rows = dict[str, list[dict[str, Any]]]  # by the table that they belong to


class Paper:
    """A protocol. scales: dataclasses by name, in rising order of cost; "smoke" needs no data.

    Its work falls into parts that do not need one another, and what is done in a folder is not done again.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    scales: ClassVar[Mapping[str, Any]] = {}

    def parts(self, scale: str) -> list[str]:
        """The names of the parts, those that take longest first."""
        raise NotImplementedError

    def run_part(self, part: str, scale: str, folder: Path, data: Path | None) -> Rows:
        """The rows of one part, of plain values. data: folder of the real images, or None."""
        raise NotImplementedError

    def setting(self, scale: str) -> dict[str, Any]:
        """What all parts share, of plain values."""
        return {"setting": asdict(self.scales[scale])}

    def setting_of(self, part: str, scale: str) -> dict[str, Any]:
        """What a part is measured with; with another setting it is measured again."""
        return self.setting(scale)


def run_paper(
    name: str, *, scale: str = SMOKE, out: str | Path | None = None, data: str | Path | None = None,
    part: str | None = None, jobs: int | None = None,
) -> Path:  # fmt: skip
    """Run a protocol and return the path of its result.json; interrupted, it continues where it was.

    data: folder of the real images ($TRUEREAD_DATA by default), which only the larger scales need.
    part: only this one, and the path of its rows. jobs: how many parts at once, each in a process of its own; by
    default one for each processor core, and one after the other where there is a GPU.
    Raises InputError for an unknown protocol, scale or part, and where its images are not there.
    """
    protocol = PAPERS.build(name)
    if scale not in protocol.scales:
        raise unknown("scale", scale, list(protocol.scales))
    parts = protocol.parts(scale)
    if part is not None and part not in parts:
        raise unknown("part", part, parts)
    given = data or os.environ.get("TRUEREAD_DATA")
    if given and not Path(given).is_dir():
        raise InputError(f"there is no folder {given} with the images of '{name}'; check --data or $TRUEREAD_DATA.")
    if not given and scale != SMOKE:
        raise InputError(
            f"'{name}' at scale {scale} reads real images; name their folder with --data or $TRUEREAD_DATA."
        )
    folder = Path(out) if out is not None else Path("runs") / f"paper-{name}-{scale}"
    wanted = [p for p in (parts if part is None else [part]) if not _done(protocol, p, scale, folder)]
    at_once = min(len(wanted), how_many(jobs))
    if at_once > 1:
        options = ["--scale", scale, "--out", str(folder), *(["--data", str(given)] if given else [])]
        side_by_side({p: ["paper", name, *options, "--part", p] for p in wanted}, jobs=at_once)
    else:
        for p in wanted:
            rows = protocol.run_part(p, scale, folder, Path(given) if given else None)
            write_json(_of_part(folder, p), {"setting": protocol.setting_of(p, scale), "tables": rows})
    if part is not None:
        return _of_part(folder, part)
    result = {
        "title": protocol.title,
        "scale": scale,
        "command": f"trueread paper {name} --scale {scale}",
        "date": today(),
        "environment": environment(),
        **protocol.setting(scale),
        **_joined([json.loads(_of_part(folder, p).read_text(encoding="utf-8"))["tables"] for p in parts]),
    }
    write_json(folder / RESULT, result)
    say(f"{name}, scale {scale}: {folder / RESULT}")
    return folder / RESULT


def _of_part(folder: Path, part: str) -> Path:
    return folder / "parts" / f"{part}.json"


def _done(protocol: Paper, part: str, scale: str, folder: Path) -> bool:
    """Whether the rows of a part are in the folder, measured with the setting of today."""
    path = _of_part(folder, part)
    if not path.exists():
        return False
    if json.loads(path.read_text(encoding="utf-8")).get("setting") != plain(protocol.setting_of(part, scale)):
        return False
    say(f"{part}: done before; remove {path} to have it measured again.")
    return True


def _joined(parts: list[Rows]) -> Rows:
    """The rows of all parts, table by table."""
    return {
        table: [row for rows in parts for row in rows.get(table, [])]
        for table in dict.fromkeys(t for p in parts for t in p)
    }
