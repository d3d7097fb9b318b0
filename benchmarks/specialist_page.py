"""The section of docs/results.md on planted shortcuts: all arms, what the remedy is worth, which claims held, in which
layers the cues enter, and what single choices are worth.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import pandas as pd
from pages import alone, held, line, made_by, rule, shown, signed, svg

from trueread import Estimate
from trueread.audit.finding import Figure
from trueread.paper.specialist_arms import CEILING, ERM, FINAL, MIXED, OURS, TEACHER, UNLABELLED, gap_closed

HEAD = [
    "arm", "AUROC clean", "AUROC flipped", "AUROC biased", "reliance", "delta-TPR", "delta-FPR", "worst group",
    "gap closed, flipped", "s",
]  # fmt: skip
KEYS = ("auroc-clean", "auroc-flipped", "auroc-biased", "planted", "delta-tpr", "delta-fpr", "worst-group")
CLAIMS = {"auroc-clean": "clean", "auroc-flipped": "flipped"}
CARRIED = 0.5  # of the reliance, from which on a layer counts as the one where the cue is used


def section(result: dict[str, Any]) -> str:
    """Markdown of one result file."""
    lines = [
        f"## {result['title']} ({result['scale']})",
        "",
        "What the arms, arrangements and columns are: [Protocols](papers.md#specialist), "
        "[shortcut-reliance](audits/shortcut-reliance.md). 95 % intervals by patient, ± standard deviation over "
        "seeds. *Flipped*: the mark is on the other class than in training; an AUROC above the ceiling's there means "
        "that the mark is read the other way round. Gap closed: share of the way from `erm` to `ceiling`; s: seconds "
        "of training, without the teacher's.",
    ]
    for (cohort, cue, kind), rows in groupby(result["rows"], key=lambda r: (r["cohort"], r["cue"], r["kind"])):
        of_part = list(rows)
        differences = [d for d in result["differences"] if (d["cohort"], d["cue"]) == (cohort, cue)]
        lines += ["", f"### {cohort}, {cue} ({kind}{alone(of_part)})", "", line(HEAD), rule(len(HEAD))]
        lines += [line(_cells(of_part, row)) for row in of_part]
        lines += ["", *(f"- {claim}" for claim in claims(of_part, differences))]
        lines += ["", f"![AUROC of every arm](images/{figure_name(result, cohort, cue)})"]
    lines += [*_layers(result), *_variations(result)]
    return "\n".join([*lines, "", made_by(result), ""])


def choice_section(result: dict[str, Any]) -> str:
    """Every setting that was tried before the protocol, with the mean of its AUROC clean and flipped."""
    frame = pd.DataFrame(result["rows"])
    frame["part"] = frame["cohort"] + ", " + frame["cue"]
    frame["value"] = (frame["auroc-clean"] + frame["auroc-flipped"]) / 2
    cells = frame.groupby(["arm", "part"], sort=False)["value"].agg(["mean", "count"]).unstack()
    parts = list(cells["mean"].columns)
    everywhere = _where_all_were_tried(frame)
    order = everywhere.sort_values(ascending=False, na_position="last").index
    lines = [
        f"## {result['title']}",
        "",
        "On training and validation images of the protocol below, split again by patient; other seeds. Mean AUROC "
        "without the cue and with the cue turned round, on average over seeds (their number in brackets). a, b: alpha "
        "and beta; `random` and `teacher`: the student's first weights; b = 0 is distillation at the final layer. The "
        "last column is the mean over the four on the seeds that all of its settings have; the highest was chosen, of "
        "those with layers (b > 0). The square was still an earlier one here (8 % of the side, in the corner), which "
        "plain training hardly takes; the noise is the protocol's.",
        "",
        line(["setting", *parts, "all four"]),
        rule(len(parts) + 2),
    ]
    for arm in order:
        values = [
            f"{cells['mean'][part][arm]:.3f} ({cells['count'][part][arm]:.0f})"
            if cells["count"][part][arm] > 0
            else "-"
            for part in parts
        ]
        total = everywhere[arm]
        lines.append(line([arm, *values, f"{total:.3f}" if total == total else "-"]))
    return "\n".join([*lines, "", made_by(result), ""])


def _where_all_were_tried(frame: pd.DataFrame) -> pd.Series:
    """The mean value of each arm over parts, on the seeds of every part that all such arms have; nan for an arm that
    lacks a part.
    """
    parts = frame.groupby("arm", sort=False)["part"].nunique()
    finalists = frame[frame["arm"].isin(parts.index[parts == parts.max()])]
    values = finalists.pivot_table(index="arm", columns=["part", "seed"], values="value").dropna(axis=1)
    return values.T.groupby("part").mean().mean().reindex(parts.index)


def figures(result: dict[str, Any]) -> dict[str, str]:
    """File name -> SVG: the arms of each part, and the layers of each cohort."""
    made = {}
    for (cohort, cue, kind), rows in groupby(result["rows"], key=lambda r: (r["cohort"], r["cue"], r["kind"])):
        data = [
            {"arm": r["arm"], "images": where, **{k: r["measures"][key][k] for k in ("value", "low", "high")}}
            for r in rows
            for key, where in CLAIMS.items()
        ]
        made[figure_name(result, cohort, cue)] = Figure(
            "arms", f"{cohort}, {cue} ({kind})", "interval", pd.DataFrame(data), x="arm", y="value", group="images",
            low="low", high="high", y_label="AUROC, 95 % interval",
        )  # fmt: skip
    for cohort, of_cohort in _by_cohort(result["layers"]).items():
        data = [
            {"cue": part["cue"], "layer": r["layer"], **(r[CARRIES] or {})}
            for part in of_cohort
            if part["arm"] == ERM
            for r in _records(part)
            if r[CARRIES]
        ]
        made[figure_name(result, cohort, "layers")] = Figure(
            "layers", cohort, "line", pd.DataFrame(data), x="layer", y="value", group="cue", low="low", high="high",
            x_label="layer", y_label="share of the reliance carried",
        )  # fmt: skip
    return {name: svg(figure) for name, figure in made.items()}


def figure_name(result: dict[str, Any], cohort: str, what: str) -> str:
    return f"specialist-{result['scale']}-{cohort}-{what}.svg"


CARRIES = "share of reliance carried"


def _records(part: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of "Per cue and layer" by column."""
    table = part["tables"]["Per cue and layer"]
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


def _by_cohort(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["cohort"], []).append(row)
    return found


def used_from(part: dict[str, Any]) -> str:
    """The first layer that carries at least half of the reliance on the cue."""
    for r in _records(part):
        if r[CARRIES] and r[CARRIES]["value"] >= CARRIED:
            return str(r["layer"])
    return "no layer"


def _layers(result: dict[str, Any]) -> list[str]:
    """Where the cues enter plain training's networks: which share of the reliance goes with a layer's mean shift."""
    lines = [
        "", "### In which layers", "",
        "How much of the reliance on the cue disappears when the mean shift it makes in a layer is taken out "
        "([shortcut-layers](audits/shortcut-layers.md)); plain training, all seeds.",
    ]  # fmt: skip
    for cohort, parts in _by_cohort(result["layers"]).items():
        plain = [p for p in parts if p["arm"] == ERM]
        layers = [r["layer"] for r in _records(plain[0]) if r[CARRIES]]
        lines += ["", f"![Layers, {cohort}](images/{figure_name(result, cohort, 'layers')})", ""]
        lines += [line([cohort, *layers, "used from"]), rule(len(layers) + 2)]
        for part in plain:
            shares = [shown(r[CARRIES]) for r in _records(part) if r[CARRIES]]
            lines.append(line([f"{part['cue']} ({part['kind']})", *shares, used_from(part)]))
        first = {part["cue"]: used_from(part) for part in plain}
        lines += ["", f"- {held(len(set(first.values())) == len(first))}: different layers for the two kinds of cue."]
    return lines


def _variations(result: dict[str, Any]) -> list[str]:
    """Single choices changed, one seed; the row of the trial itself is the first of each cue."""
    if not result["variations"]:
        return []
    head = ["cue", "choice", "value", "arm", "AUROC clean", "AUROC flipped", "reliance"]
    lines = [
        "", "### Single choices", "",
        f"On {result['setting']['varied']}, one seed, so intervals are of patients only. `as above` is the choice of "
        "the tables above, over all seeds.", "", line(head), rule(len(head)),
    ]  # fmt: skip
    for cue, rows in groupby(result["variations"], key=lambda r: r["cue"]):
        usual = [
            {"what": "as above", "value": "", **r}
            for r in result["rows"]
            if (r["cohort"], r["cue"]) == (result["setting"]["varied"], cue) and r["arm"] in (TEACHER, UNLABELLED, OURS)
        ]
        for r in (*usual, *rows):
            texts = [shown(r["measures"][k]) for k in ("auroc-clean", "auroc-flipped", "planted")]
            lines.append(line([cue, r["what"], r["value"], r["arm"], *texts]))
    return lines


def claims(rows: list[dict[str, Any]], differences: list[dict[str, Any]]) -> list[str]:
    """What the protocol asks of the method, held or missed, with the numbers."""
    value = {row["arm"]: {k: row["measures"][k]["value"] for k in row["measures"]} for row in rows}
    fall = value[ERM]["auroc-biased"] - value[ERM]["auroc-flipped"]
    said = [
        f"{held(fall > 0.2)}: the cue is strong enough; plain training falls by {fall:.3f} when it is turned round."
    ]
    for key, where in CLAIMS.items():
        share = gap_closed(rows, OURS, key)
        if share == share:
            said.append(f"{held(share >= 0.5)}: at least half of the gap closed on {where} images; {share:.0%}.")
        else:
            said.append(
                f"Nothing to close on {where} images: plain training {value[ERM][key]:.3f}, ceiling "
                f"{value[CEILING][key]:.3f}."
            )
    for control in (MIXED, FINAL, UNLABELLED):
        said += [_beats(differences, control, key) for key in CLAIMS]
    said += [_no_worse(differences, key) for key in CLAIMS]
    return said


def _beats(differences: list[dict[str, Any]], control: str, key: str) -> str:
    found = _difference(differences, control, key)
    return f"{held(found.low > 0)}: better than {control} on {CLAIMS[key]} images; {signed(found)}."


def _no_worse(differences: list[dict[str, Any]], key: str) -> str:
    found = _difference(differences, TEACHER, key)
    return f"{held(found.high >= 0)}: no worse than its teacher on {CLAIMS[key]} images; {signed(found)}."


def _difference(differences: list[dict[str, Any]], control: str, key: str) -> Estimate:
    return next(
        Estimate.from_json(d["difference"]) for d in differences if d["baseline"] == control and d["measure"] == key
    )


def _cells(rows: list[dict[str, Any]], row: dict[str, Any]) -> list[str]:
    share = gap_closed(rows, row["arm"], "auroc-flipped")
    texts = [shown(row["measures"][k]) for k in KEYS]
    return [row["arm"], *texts, f"{share:.0%}" if share == share else "-", f"{row['seconds']:.0f}"]
