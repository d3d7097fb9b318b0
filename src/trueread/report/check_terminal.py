"""What a check found, on a terminal: wrapped and coloured there, one sentence per line in a file or a pipe."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from trueread.cohort.check.base import Seriousness
from trueread.report.check_words import CHECK_PAGE, NOT_CHECKED, SIGNS, caveats, looked_at, outcome, verdict_sentence
from trueread.report.summary import Json
from trueread.report.words import counted, duration

STYLES = {Seriousness.SERIOUS: "bold red", Seriousness.LOOK: "bold yellow", Seriousness.NOTE: "bold"}
Line = tuple[int, Text]  # indentation and what is said


def print_check(content: Json, folder: Path, console: Console | None = None) -> None:
    """Print the verdict, every concern with what to do about it, and what each check looked at.

    content: of check.json. folder: where it lies. console: rich's, by default one on standard output.
    """
    console = console or Console()
    for indent, line in [*_verdict(content), *_concerns(content, folder), *_checks(content)]:
        if console.is_terminal:
            console.print(Padding(line, (0, 0, 0, indent)))
        else:  # a program reads lines, and lets nobody break them
            console.print(Text(" " * indent) + line, soft_wrap=True)
    console.print(Text(str(folder / CHECK_PAGE)), soft_wrap=True)


def _verdict(content: Json) -> list[Line]:
    said = [Text(verdict_sentence(content), "bold"), *(Text(line, "dim") for line in caveats(content)), Text()]
    return [(0, line) for line in said]


def _concerns(content: Json, folder: Path) -> list[Line]:
    lines: list[Line] = []
    for concern in content["concerns"]:
        kind = Seriousness(concern["seriousness"])
        lines.append((0, Text.assemble((f"{SIGNS[kind]} {kind}", STYLES[kind]), f": {concern['title']}")))
        lines.append((2, Text(concern["advice"], "dim")))
        if concern["table"]:
            lines.append(
                (2, Text(f"details: {folder / concern['table']}, {counted(concern['n_lines'], 'line')}", "dim"))
            )
        lines.append((0, Text()))
    return lines


def _checks(content: Json) -> list[Line]:
    lines = [
        f"{c['check']}: {NOT_CHECKED}, because {c['reason']}"
        if c["reason"]
        else f"{c['check']}: {outcome(c)}, {duration(c['seconds'])}; {looked_at(c)}"
        for c in content["checks"]
    ]
    return [*((0, Text(line, "dim")) for line in lines), (0, Text())]
