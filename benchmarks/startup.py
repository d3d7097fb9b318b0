"""How long a person waits for `--help`, for `import trueread`, and for the report to be drawn."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from options import Options
from sheet import Aim, Sheet, row
from timing import Work, in_turns, middle

TITLE = "Waiting: commands, import and report"
COMMANDS = {
    "trueread --help": ([sys.executable, "-m", "trueread", "--help"], 0.5),
    "trueread run --help": ([sys.executable, "-m", "trueread", "run", "--help"], 0.5),
    "import trueread": ([sys.executable, "-c", "import trueread, sys; assert 'torch' not in sys.modules"], 0.5),
}
NOTHING = [sys.executable, "-c", "pass"]


def measure(sheet: Sheet, options: Options) -> None:
    """Commands in turns with a Python that does nothing; then the report of a small study."""
    works: dict[str, Work] = {name: _running(command) for name, (command, _) in COMMANDS.items()}
    taken = in_turns(works | {"nothing": _running(NOTHING)}, rounds=1 if options.smoke else 7)
    for name, (_, seconds) in COMMANDS.items():
        sheet.add(
            row(name, "s", middle(taken[name]).value, middle(taken[name] / taken["nothing"]), peer="`python -c pass`",
                theirs=middle(taken["nothing"]).value, aim=Aim("ours", "at most", seconds))
        )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        report(sheet, options, Path(folder))


def report(sheet: Sheet, options: Options, folder: Path) -> None:
    """Drawing `report.html` of a finished study anew, and what share of the study's own time that is."""
    import json

    from trueread import run
    from trueread.report import write_report
    from trueread.report.summary import SUMMARY

    small = {
        "name": "report",
        "data": {"source": "phantom", "n_images": 200 if options.smoke else 600, "size": 28},
        "train": {"epochs": 1, "device": "cpu"},
        "methods": ["erm"] if options.smoke else ["erm", "mixup"],
        "seeds": 1 if options.smoke else 2,
        "resamples": 100 if options.smoke else 1000,
        "explain": not options.smoke,
    }
    sheet.say("a study to draw the report of")
    done = run(small, out=folder / "run")
    study = json.loads((done / SUMMARY).read_text(encoding="utf-8"))["seconds"]
    taken = in_turns({"report": lambda: write_report(done)}, rounds=2 if options.smoke else 7)["report"]
    size = (done / "report.html").stat().st_size / 1e6
    sheet.add(
        row("report.html", "s", middle(taken).value, middle(taken / study), kind="share", peer="the study it is of",
            theirs=study, note=f"{len(small['methods'])} methods, {size:.1f} MB, drawn anew")
    )  # fmt: skip


def _running(command: list[str]) -> Work:
    return lambda: subprocess.run(command, check=True, capture_output=True)
