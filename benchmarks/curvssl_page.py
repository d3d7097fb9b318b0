"""The section of docs/results.md on few labels: frozen features, the label-efficiency curve, which claims held."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import pandas as pd
from pages import held, line, made_by, rule, shown, signed, svg

from trueread import Estimate, Figure
from trueread.paper.curvssl import BARLOW, CHOSEN, COLUMNS, LATER, OURS, SCRATCH
from trueread.stats import METRICS

Json = dict[str, Any]


def section(result: Json) -> str:
    """Markdown of one result file."""
    setting = result["setting"]
    lines = [
        f"## {result['title']} ({result['scale']})",
        "",
        f"What the arms are: [Protocols](papers.md#curvssl). {setting['seeds']} seeds; 95 % intervals by patient.",
    ]
    for name, some in groupby(result["rows"], key=lambda r: r["cohort"]):
        size, n, epochs = (setting[k][name] for k in ("sizes", "images", "pretraining"))
        lines += [
            "", f"### {name}: {size} px, at most {n:,} images, {epochs['epochs']} epochs of pretraining", "",
            *_frozen(list(some)), "", *_tuned(result, name), "",
            f"![Balanced accuracy over the share of labels](images/{_image(result, name)})", "",
            *(f"- {said}" for said in claims(result, name)),
        ]  # fmt: skip
    lines += _variations(result)
    return "\n".join([*lines, "", made_by(result), ""])


def _frozen(rows: list[Json]) -> list[str]:
    """Features without fine-tuning."""
    head = ["frozen", "linear layer", "20 neighbours", "effective rank"]
    lines = [line(head), rule(len(head))]
    for row in rows:
        cells = [shown(row["measures"][k]) for k in ("linear", "nearest")]
        lines.append(line([row["arm"], *cells, f"{row['rank']:.1f}"]))
    return lines


def _tuned(result: Json, name: str) -> list[str]:
    """Balanced accuracy of fine-tuning, by share of the labels."""
    rows = [r for r in result["tuned"] if r["cohort"] == name]
    shares = list(dict.fromkeys(r["share"] for r in rows))
    head = ["fine-tuned, balanced accuracy", *(f"{s:.0%} of the labels" for s in shares)]
    lines = [line(head), rule(len(head))]
    for arm, some in groupby(rows, key=lambda r: r["arm"]):
        found = {r["share"]: shown(r["measures"][COLUMNS[0]]) for r in some}
        lines.append(line([arm, *(found[s] for s in shares)]))
    return lines


def claims(result: Json, name: str) -> list[str]:
    """What the protocol asks, of the form that was chosen beforehand: at or above Barlow Twins, and few labels better
    than scratch.
    """
    rows = {r["arm"]: Estimate.from_json(r["measures"]["linear"]) for r in result["rows"] if r["cohort"] == name}
    apart = {arm: _difference(result, name, None, BARLOW, arm, "linear") for arm in rows if arm in OURS}
    said = [
        f"{held(apart[CHOSEN].value >= 0)}: with a linear layer {CHOSEN} is at or above Barlow Twins; "
        f"{signed(apart[CHOSEN])}.",
        *(
            f"{'Added once these had been seen:' if arm in LATER else 'The other form'} {arm}: {signed(found)}."
            for arm, found in apart.items()
            if arm != CHOSEN
        ),
        "Above random features with a linear layer: "
        + ", ".join(f"{a} {v.value - rows[SCRATCH].value:+.3f}" for a, v in rows.items() if a != SCRATCH) + ".",
    ]  # fmt: skip
    for share in dict.fromkeys(r["share"] for r in result["tuned"]):
        if share < 1:
            found = _difference(result, name, share, SCRATCH, CHOSEN, COLUMNS[0])
            said.append(
                f"{held(found.low > 0)}: with {share:.0%} of the labels {CHOSEN} is above no pretraining in balanced "
                f"accuracy: {signed(found)} (over patients; over trainings see the table)."
            )
    return said


def _difference(result: Json, name: str, share: float | None, control: str, arm: str, key: str) -> Estimate:
    return next(
        Estimate.from_json(d["difference"])
        for d in result["differences"]
        if (d["cohort"], d["share"], d["baseline"], d["method"], d["measure"]) == (name, share, control, arm, key)
    )


def _variations(result: Json) -> list[str]:
    if not result.get("variations"):
        return []
    head = ["choice", "linear layer", "20 neighbours", "effective rank"]
    lines = ["", "### Single choices", "", f"Of curvssl on {result['variations'][0]['cohort']}, one seed.", ""]
    lines += [line(head), rule(len(head))]
    for row in result["variations"]:
        cells = [shown(row["measures"][k]) for k in ("linear", "nearest")]
        lines.append(line([row["what"], *cells, f"{row['rank']:.1f}"]))
    return lines


def _image(result: Json, name: str) -> str:
    return f"curvssl-{result['scale']}-{name}.svg"


def figures(result: Json) -> dict[str, str]:
    """The label-efficiency curve of each cohort, by file name."""
    made = {}
    for name in dict.fromkeys(r["cohort"] for r in result["rows"]):
        rows = [
            {
                "share": f"{r['share']:.0%}",
                "arm": r["arm"],
                "value": Estimate.from_json(r["measures"][COLUMNS[0]]),
            }
            for r in result["tuned"]
            if r["cohort"] == name
        ]
        figure = Figure(
            f"efficiency-{name}", f"{name}: {METRICS[COLUMNS[0]].title} by labels", "line", pd.DataFrame(rows),
            x="share", y="value", group="arm", x_label="share of the labels", y_label=METRICS[COLUMNS[0]].title,
        )  # fmt: skip
        made[_image(result, name)] = svg(figure)
    return made
