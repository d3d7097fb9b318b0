"""docs/results.md and the README's table from results/*.json, with command, seeds, interval, machine and date.

    python benchmarks/results_page.py [--check]

--check writes nothing and exits with 1 when a page is not what the files say.
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
README = HERE / "README.md"
PUBLISHED = {"auroc": "AUROC", "accuracy": "accuracy"}
HEAD = """# Results

Generated from `results/*.json` by `make results`. Intervals are 95 %, by bootstrap over patients (over images where
patients are not published); the spread is the standard deviation over seeds. Weights and thresholds were chosen on
validation; the test set was read once.
"""


def erm_section(result: dict[str, Any]) -> str:
    lines = [
        f"## {result['title']}",
        "",
        f"Command: `{result['command']}`. Machine and date of each row are below.",
        "",
        "| cohort | test set | network, side | AUROC | balanced accuracy | accuracy | published |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = result["rows"].values()
    lines += [_erm_row(row) for row in rows]
    lines += [
        "",
        "Ordinal tasks, quadratic weighted kappa: " + "; ".join(_kappa(r) for r in rows if _kappa(r)) + ".",
        "",
    ]
    lines += ["How each row was made:", "", *(f"- {_provenance(row)}" for row in rows)]
    return "\n".join(lines)


def _provenance(row: dict[str, Any]) -> str:
    machine = row["environment"]
    return (
        f"{row['cohort']}: split {row['split']}; {row['backbone']}, {row['weights']}, {row['epochs']} epochs, kept: "
        f"{row['selection']}; decision: {row['threshold']}; {machine['machine']}, {machine['device']}, torch "
        f"{machine['torch']}, {row['date']}, {row['seconds'] / 60:.0f} minutes of training for all seeds."
    )


def _erm_row(row: dict[str, Any]) -> str:
    side = "x".join(str(s) for s in row["size"])
    cells = [_cell(row["measures"].get(k)) for k in ("auroc", "balanced-accuracy", "accuracy")]
    published = row["published"]
    theirs = "-"
    if published:
        figures = [f"{title} {published[k]:.3f} (ours {_difference(row, k)})" for k, title in PUBLISHED.items()]
        theirs = f"{', '.join(figures)}; {published['source']}; protocol differs"
    return f"| {row['cohort']} | {_test_set(row)} | {row['backbone']}, {side} | {' | '.join(cells)} | {theirs} |"


def _difference(row: dict[str, Any], measure: str) -> str:
    return f"{row['measures'][measure]['value'] - row['published'][measure]:+.3f}"


def _test_set(row: dict[str, Any]) -> str:
    unit = f"{row['test_patients']} patients" if row["test_patients"] else "patients unknown"
    return f"{row['test_images']} images, {unit}"


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


def readme() -> str:
    """The README with its table of results between the two marks made anew."""
    text = README.read_text()
    before, begin, rest = text.partition("<!-- results -->")
    _, end, after = rest.partition("<!-- /results -->")
    path = HERE / "results" / "erm.json"
    table = erm_summary(json.loads(path.read_text())) if path.is_file() else ""
    return f"{before}{begin}\n{table}\n{end}{after}"


def erm_summary(result: dict[str, Any]) -> str:
    """Cohort, test set, AUROC and balanced accuracy of plain training."""
    lines = [
        "Plain training on a CPU, 3 seeds, patient-wise or official splits; 95 % intervals.",
        "",
        "| cohort | test set | AUROC | balanced accuracy |",
        "|---|---|---|---|",
    ]
    for row in result["rows"].values():
        auroc, balanced = (Estimate.from_json(row["measures"][k]).text() for k in ("auroc", "balanced-accuracy"))
        lines.append(f"| {row['cohort']} | {_test_set(row)} | {auroc} | {balanced} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    wanted = {PAGE: page(), README: readme()}
    if parser.parse_args().check:
        stale = [p.name for p, text in wanted.items() if not p.is_file() or p.read_text() != text]
        sys.exit(f"{', '.join(stale)}: not what results/*.json say; run `make results`." if stale else 0)
    for path, text in wanted.items():
        path.write_text(text)
        print(path.relative_to(HERE))


if __name__ == "__main__":
    main()
