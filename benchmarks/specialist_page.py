"""The section of docs/results.md on planted shortcuts: all arms, what the remedy is worth, and which claims held."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from trueread import Estimate
from trueread.paper.specialist import CEILING, ERM, FINAL, MIXED, OURS, TEACHER, gap_closed

HEAD = [
    "arm", "AUROC clean", "AUROC flipped", "AUROC biased", "reliance", "delta-TPR", "delta-FPR", "worst group",
    "gap closed, flipped", "s",
]  # fmt: skip
KEYS = ("auroc-clean", "auroc-flipped", "auroc-biased", "planted", "delta-tpr", "delta-fpr", "worst-group")
CLAIMS = {"auroc-clean": "clean", "auroc-flipped": "flipped"}


def section(result: dict[str, Any]) -> str:
    """Markdown of one result file."""
    machine = result["environment"]
    lines = [
        f"## {result['title']} ({result['scale']})",
        "",
        "What the arms, arrangements and columns are: [Protocols](papers.md#specialist), "
        "[shortcut-reliance](audits/shortcut-reliance.md). 95 % intervals by patient, spread over seeds in the result "
        "file; gap closed: share of the way from `erm` to `ceiling`; s: seconds of training, without the teacher's.",
    ]
    for (cohort, cue, kind), rows in groupby(result["rows"], key=lambda r: (r["cohort"], r["cue"], r["kind"])):
        of_part = list(rows)
        differences = [d for d in result["differences"] if (d["cohort"], d["cue"]) == (cohort, cue)]
        lines += ["", f"### {cohort}, {cue} ({kind})", "", _row(HEAD), _row(["---"] * len(HEAD))]
        lines += [_row(_cells(of_part, row)) for row in of_part]
        lines += ["", *(f"- {claim}" for claim in claims(of_part, differences))]
    return "\n".join(
        [
            *lines,
            "",
            f"- `{result['command']}`: {result['date']}; {machine['machine']}, torch {machine['torch']}, Python "
            f"{machine['python']}.",
            "",
        ]
    )


def claims(rows: list[dict[str, Any]], differences: list[dict[str, Any]]) -> list[str]:
    """What the protocol asks of the method, held or missed, with the numbers."""
    value = {row["arm"]: {k: row["measures"][k]["value"] for k in row["measures"]} for row in rows}
    fall = value[ERM]["auroc-biased"] - value[ERM]["auroc-flipped"]
    said = [
        f"{_held(fall > 0.2)}: the cue is strong enough; plain training falls by {fall:.3f} when it is turned round."
    ]
    for key, where in CLAIMS.items():
        share = gap_closed(rows, OURS, key)
        if share == share:
            said.append(f"{_held(share >= 0.5)}: at least half of the gap closed on {where} images; {share:.0%}.")
        else:
            said.append(
                f"Nothing to close on {where} images: plain training {value[ERM][key]:.3f}, ceiling "
                f"{value[CEILING][key]:.3f}."
            )
    for control in (MIXED, FINAL):
        said += [_beats(differences, control, key) for key in CLAIMS]
    said += [_no_worse(differences, key) for key in CLAIMS]
    return said


def _beats(differences: list[dict[str, Any]], control: str, key: str) -> str:
    found = _difference(differences, control, key)
    return f"{_held(found.low > 0)}: better than {control} on {CLAIMS[key]} images; {_signed(found)}."


def _no_worse(differences: list[dict[str, Any]], key: str) -> str:
    found = _difference(differences, TEACHER, key)
    return f"{_held(found.high >= 0)}: no worse than its teacher on {CLAIMS[key]} images; {_signed(found)}."


def _difference(differences: list[dict[str, Any]], control: str, key: str) -> Estimate:
    return next(
        Estimate.from_json(d["difference"]) for d in differences if d["baseline"] == control and d["measure"] == key
    )


def _signed(found: Estimate) -> str:
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def _held(holds: bool) -> str:
    return "Holds" if holds else "**Missed**"


def _cells(rows: list[dict[str, Any]], row: dict[str, Any]) -> list[str]:
    share = gap_closed(rows, row["arm"], "auroc-flipped")
    texts = [Estimate.from_json(row["measures"][k]).text() for k in KEYS]
    return [row["arm"], *texts, f"{share:.0%}" if share == share else "-", f"{row['seconds']:.0f}"]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
