"""The section of docs/results.md on wrong labels: all arms of each setting, what was identified, which claims held."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import pandas as pd
from pages import alone, held, line, made_by, rule, shown, signed, svg

from trueread import Estimate
from trueread.audit.finding import Figure
from trueread.paper.step_e import (
    CONFIDENT,
    ERM,
    ERM_CHOSEN,
    ORACLE,
    OURS,
    OURS_CHOSEN,
    SELF_PACED,
    TRUNCATION,
)  # fmt: skip

Json = dict[str, Any]
HEAD = [
    "arm", "balanced accuracy", "AUROC", "gap closed", "left out", "precision", "recall", "F1", "AUROC of the score",
    "s",
]  # fmt: skip
IDENTIFIED = ("precision", "recall", "f1", "auroc")
COST = 0.01  # of balanced accuracy, that leaving out may cost where all labels are right


def section(result: Json) -> str:
    """Markdown of one result file."""
    lines = [
        f"## {result['title']} ({result['scale']})",
        "",
        "What the arms, settings and columns are: [Protocols](papers.md#step-e). Last epoch where no other is "
        "named, on true test labels; 95 % intervals by patient, ± standard deviation over seeds; gap closed: share "
        "of the way from `erm` to `true labels`; what is left out and how rightly: mean over seeds; s: seconds of "
        "the last training, without those before it. When Step-E starts, and how much of a class it may leave out, "
        "was changed after results on these cohorts had been seen, which flatters it.",
    ]
    for name, rows in _by_setting(result["rows"]):
        lines += ["", f"### {name}: {rows[0]['wrong']:.1%} wrong{alone(rows)}", "", line(HEAD), rule(len(HEAD))]
        lines += [line(_cells(rows, row)) for row in rows]
        differences = [d for d in result["differences"] if d["setting"] == name]
        lines += ["", *(f"- {said}" for said in claims(rows, differences))]
    lines += [*_starts(result), *_variations(result)]
    return "\n".join([*lines, "", made_by(result), ""])


def _by_setting(rows: list[Json]) -> list[tuple[str, list[Json]]]:
    return [(name, list(some)) for name, some in groupby(rows, key=lambda r: r["setting"])]


def gap_closed(rows: list[Json], arm: str) -> float:
    """The share of the way from plain training to the oracle, of balanced accuracy; nan where there is no way."""
    value = {row["arm"]: row["measures"]["balanced-accuracy"]["value"] for row in rows}
    if ORACLE not in value or value[ORACLE] - value[ERM] <= 0:
        return float("nan")
    return (value[arm] - value[ERM]) / (value[ORACLE] - value[ERM])


def _mean(row: Json, *keys: str) -> float:
    found = []
    for told in row["told"]:
        value: Any = told
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            found.append(float(value))
    return sum(found) / len(found) if found else float("nan")


def _cells(rows: list[Json], row: Json) -> list[str]:
    share = gap_closed(rows, row["arm"])
    values = [shown(row["measures"][k]) for k in ("balanced-accuracy", "auroc")]
    excluded = _mean(row, "excluded")
    out = f"{excluded:.0f}" if excluded == excluded else "-"
    identified = [_mean(row, "against_the_truth", key) for key in IDENTIFIED]
    texts = [f"{v:.3f}" if v == v else "-" for v in identified]
    return [row["arm"], *values, f"{share:.0%}" if share == share else "-", out, *texts, f"{row['seconds']:.0f}"]


def claims(rows: list[Json], differences: list[Json]) -> list[str]:
    """What the protocol asks of the method, held or missed, with the numbers."""
    if not rows[0]["wrong"]:
        cost = _difference(differences, ERM)
        return [f"{held(cost.value >= -COST)}: where all labels are right it costs at most a point; {signed(cost)}."]
    share, safe = gap_closed(rows, OURS), _difference(differences, ERM)
    said = [
        f"{held(share >= 0.5)}: at least half of the gap closed; {share:.0%}."
        if share == share
        else "Nothing to close: the oracle is no better than plain training.",
        f"{held(safe.high >= 0)}: not worse than plain training; {signed(safe)}.",
    ]
    arms = {row["arm"] for row in rows}
    said += [
        f"{held(_difference(differences, control).low > 0)}: better than {control}; "
        f"{signed(_difference(differences, control))}."
        for control in (TRUNCATION, SELF_PACED)
        if control in arms
    ]
    if ERM_CHOSEN in arms:
        chosen = _difference(differences, ERM_CHOSEN, OURS_CHOSEN)
        said.append(f"{held(chosen.low > 0)}: better than plain training, both by validation; {signed(chosen)}.")
    if CONFIDENT in arms:
        mine, theirs = (_mean(_row(rows, arm), "against_the_truth", "auroc") for arm in (OURS, CONFIDENT))
        what = "identifies wrong labels better than confident learning"
        said.append(f"{held(mine > theirs)}: {what}; AUROC {mine:.3f}, {theirs:.3f}.")
    return said


def _row(rows: list[Json], arm: str) -> Json:
    return next(row for row in rows if row["arm"] == arm)


def _difference(differences: list[Json], control: str, arm: str = OURS) -> Estimate:
    return next(
        Estimate.from_json(d["difference"])
        for d in differences
        if (d["baseline"], d["method"], d["measure"]) == (control, arm, "balanced-accuracy")
    )


def _starts(result: Json) -> list[str]:
    """When Step-E began to leave samples out, and what it took for the share of wrong labels."""
    head = ["setting", "wrong", "begins after epoch", "estimated share", "AUROC of the score then", "largest, epoch"]
    lines = [
        "", "### When Step-E begins", "", "Each seed; the AUROC is that of the score for wrong labels.", "", line(head),
        rule(len(head)),
    ]  # fmt: skip
    for name, rows in _by_setting(result["rows"]):
        told = _row(rows, OURS)["told"]
        starts = [t.get("started_after_epoch") for t in told]
        shares = [t.get("noise") for t in told]
        curves = [t.get("auroc_by_epoch") or [] for t in told]
        then = [c[s - 1] if s and c else None for s, c in zip(starts, curves, strict=True)]
        best = [f"{max(c):.3f}, {c.index(max(c)) + 1}" if c else "-" for c in curves]
        cells = [name, f"{rows[0]['wrong']:.1%}", _listed(starts, "d"), _listed(shares, ".0%"), _listed(then, ".3f")]
        lines.append(line([*cells, "; ".join(best)]))
    return [*lines, *(line for name in figures(result) for line in ("", f"![AUROC of the score](images/{name})"))]


def _listed(values: list[Any], form: str) -> str:
    return "; ".join("never" if v is None else format(v, form) for v in values)


def _variations(result: Json) -> list[str]:
    if not result.get("variations"):
        return []
    first = result["variations"][0]
    head = ["choice", "balanced accuracy", "begins after epoch", "precision", "recall"]
    said = f"Of Step-E on {first['setting']}, one seed."
    lines = ["", "### Single choices", "", said, "", line(head), rule(len(head))]
    for row in result["variations"]:
        told = row["told"][0]
        numbers = [_mean(row, "against_the_truth", key) for key in ("precision", "recall")]
        texts = [f"{v:.3f}" if v == v else "-" for v in numbers]
        text = shown(row["measures"]["balanced-accuracy"])
        lines.append(line([row["what"], text, str(told.get("started_after_epoch") or "never"), *texts]))
    return lines


def figures(result: Json) -> dict[str, str]:
    """File name -> SVG: the AUROC of Step-E's score for wrong labels, by epoch, first seed; made and human errors."""
    data: dict[str, list[Json]] = {}
    for name, rows in _by_setting(result["rows"]):
        curve = _row(rows, OURS)["told"][0].get("auroc_by_epoch") or []
        points = [{"setting": _short(name), "epoch": k, "value": value} for k, value in enumerate(curve, 1)]
        data.setdefault("human" if name.startswith("cifar10n") else "made", []).extend(points)
    return {
        f"step-e-{result['scale']}-score-{errors}.svg": svg(Figure(
            "score", f"Wrong labels told by the score, {errors} errors", "line", pd.DataFrame(points), x="epoch",
            y="value", group="setting", x_label="epoch", y_label="AUROC for wrong labels",
        ))
        for errors, points in data.items() if points
    }  # fmt: skip


def _short(name: str) -> str:
    """A setting's name for a legend; the long regime goes without saying."""
    name = name.removesuffix("-long")
    for full, short in (
        ("cifar10n-", ""), ("kermany-", "radiographs, "), ("ham10000-seven-", "lesions, "),
        ("symmetric-", "any class "), ("class-dependent-", "next class "), ("-long-", ", "), ("-short", ", short"),
    ):  # fmt: skip
        name = name.replace(full, short)
    return name
