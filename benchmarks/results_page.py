"""docs/results.md from results/*.json: every number with its command, seeds, interval, machine and date. Never typed.

    python benchmarks/results_page.py [--check]

--check writes nothing and exits with 1 when the page is not what the files say.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from trueread import Estimate

HERE = Path(__file__).resolve().parents[1]
PAGE = HERE / "docs" / "results.md"
HEAD = """# Results

Generated from `results/*.json` by `make results`. Intervals are 95 %, by bootstrap over patients (over images where
patients are not published); the spread is the standard deviation over seeds. Weights and thresholds were chosen on
validation; the test set was read once.
"""


def erm_section(result: dict[str, Any]) -> str:
    lines = [
        f"## {result['title']}",
        "",
        f"Command: `{result['command']}` (the studies are in `studies/real/`). Each row has its own date and machine below.",
        "",
        "| cohort | test set | network, side | AUROC | balanced accuracy | accuracy | published |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = result["rows"].values()
    lines += [_erm_row(row) for row in rows]
    lines += ["", "Ordinal tasks, quadratic weighted kappa: " + "; ".join(_kappa(r) for r in rows if _kappa(r)) + ".", ""]
    lines += ["How each row was made:", ""]
    lines += [
        f"- {r['cohort']}: split {r['split']}; {r['backbone']}, {r['weights']}, {r['epochs']} epochs, kept: {r['selection']}; "
        f"decision: {r['threshold']}; {r['environment']['machine']}, {r['environment']['device']}, torch "
        f"{r['environment']['torch']}, {r['date']}, {r['seconds'] / 60:.0f} minutes of training for all seeds."
        for r in rows
    ]
    return "\n".join(lines)


def _erm_row(row: dict[str, Any]) -> str:
    unit = f"{row['test_patients']} patients" if row["test_patients"] else "patients unknown"
    side = "x".join(str(s) for s in row["size"])
    cells = [_cell(row["measures"].get(k)) for k in ("auroc", "balanced-accuracy", "accuracy")]
    published = row["published"]
    theirs = "-"
    if published:
        theirs = f"AUROC {published['auroc']:.3f}, accuracy {published['accuracy']:.3f} ({published['source']}; protocol differs)"
    return f"| {row['cohort']} | {row['test_images']} images, {unit} | {row['backbone']}, {side} | {' | '.join(cells)} | {theirs} |"


def _cell(estimate: dict[str, Any] | None) -> str:
    if estimate is None:
        return "-"
    e = Estimate.from_json(estimate)
    return f"{e.text()}; spread {e.spread:.3f}, {e.n_seeds} seeds" if e.spread is not None else e.text()


def _kappa(row: dict[str, Any]) -> str:
    estimate = row["measures"].get("quadratic-kappa")
    return f"{row['cohort']} {_cell(estimate)}" if estimate else ""


SECTIONS = {"erm": erm_section}


def page() -> str:
    """The whole page as the result files have it."""
    parts = [HEAD]
    for name, section in SECTIONS.items():
        path = HERE / "results" / f"{name}.json"
        if path.is_file():
            parts.append(section(json.loads(path.read_text())))
    return "\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        sys.exit(0 if PAGE.is_file() and PAGE.read_text() == page() else "docs/results.md is stale; run `make results`.")
    PAGE.write_text(page())
    print(PAGE.relative_to(HERE))


if __name__ == "__main__":
    main()
