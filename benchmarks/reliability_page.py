"""docs/reliability.md from results/reliability.json: what became of runs that were killed, interrupted and starved."""

from __future__ import annotations

from typing import Any

HEAD = """# Reliability

Generated from `results/reliability.json` by `make results`. Every row is a whole `trueread run` on the built-in phantom
(two methods, dropout, averaged weights) that something happened to, and that the same command then continued. *Same*
means: the bytes of every trained weight and of every prediction, and all that findings and report say but for times.
"""


def page(result: dict[str, Any]) -> str:
    """The page as the result file has it."""
    rows = [("run again when it was finished", "nothing is trained twice", _same(result["again"]))]
    killed = result["killed"]
    first, last = min(killed["after_seconds"]), max(killed["after_seconds"])
    when = f"{first:.1f} to {last:.1f} s after a start, and started again each time"
    rows.append((f"killed {killed['kills']} times at random moments (SIGKILL)", when, _same(killed)))
    for name, press in (("SIGINT", "Ctrl-C"), ("SIGTERM", "SIGTERM, as schedulers send it")):
        found = result[name]
        rows.append(
            (press, f"ended after {found['seconds']:.1f} s, exit code {found['exit']}: *{found['says']}*", _same(found))
        )
    starved = result["starved"]
    rows.append(
        (
            "disk full (a limit on file sizes)",
            f"exit code {starved['exit']}: *{starved['says']}*",
            _same(starved),
        )
    )
    damaged = result["damaged"]
    warned = "passed over with a warning" if damaged["warned"] else "NOT noticed"
    rows.append(("newest checkpoint cut in half", warned, _same(damaged)))
    machine = result["environment"]
    lines = [
        HEAD,
        "| what happened | what it did | in the end |",
        "|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        f"`{result['command']}`: {result['date']}; {machine['machine']}, {machine['device']}, torch "
        f"{machine['torch']}, Python {machine['python']}; a run that nothing happens to takes "
        f"{result['whole_seconds']:.0f} s.",
        "",
        "What holds for two processes is in [several processes](processes.md), what bad input does in `tests/"
        "test_bad_input.py`, and what a decoding that was killed goes on from in [data](data.md).",
    ]
    return "\n".join(lines) + "\n"


def _same(found: dict[str, Any]) -> str:
    return "same" if found["same"] else "**not the same**"
