"""The section of docs/results.md on the audits of shortcuts: what they say of networks whose shortcut is known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from trueread import Estimate

DIGITS = 2


def section(result: dict[str, Any]) -> str:
    """Markdown of the result file: a heading and its tables for each part that was measured."""
    lines = [
        f"## {result['title']}",
        "",
        "The compact network by plain training on the built-in phantom, single networks; the seed is of images, cue "
        "and training alike. Where a cue was planted, its severity follows its name, and in brackets the share of the "
        "opacities and of the normal images of training and validation that carry it. Test images are clean until an "
        "audit puts a cue into them. Intervals are of test patients alone.",
    ]
    for name, part in result["parts"].items():
        lines += ["", f"### shortcut-{name}", "", *PARTS[name](part["rows"]), "", provenance(part)]
    return "\n".join([*lines, ""])


def provenance(part: dict[str, Any]) -> str:
    machine = part["environment"]
    return (
        f"- `{part['command']}`: {part['date']}, {part['seconds']:,.0f} s; {machine['machine']}, {machine['device']}, "
        f"torch {machine['torch']}, Python {machine['python']}."
    )


def reliance(rows: list[dict[str, Any]]) -> list[str]:
    head = ["planted", "images, pixels, epochs", "seed", "AUROC", "worst local cue", "square", "text", "planted cue"]
    cells = [
        [
            _planted(row), ", ".join(str(row["setting"][k]) for k in ("n_images", "size", "epochs")),
            row["setting"]["seed"], _text(row["auroc"]), f"{row['worst']}, {_text(row['local'])}",
            *(_text(row.get(k)) for k in ("square", "text", "planted")),
        ]
        for row in rows
    ]  # fmt: skip
    return [
        "[What is measured](audits/shortcut-reliance.md): how far the prediction moves, on average, when a cue is put "
        "in. Cues of the library have severity 0.5; images are all of the phantom's, 70 % of them for training.",
        "",
        *_table(head, cells),
    ]


def layers(rows: list[dict[str, Any]]) -> list[str]:
    depths = ["reliance", "depth without", "depth with"]
    names = list(rows[0]["cues"][0]["carried"])
    told = [([_planted(r), r["setting"]["seed"], f"{c['cue']} {c['severity']:g}"], c) for r in rows for c in r["cues"]]
    what = rows[0]["setting"]
    head = ["network", "seed", "asked about"]
    return [
        f"[What is measured](audits/shortcut-layers.md), for {what['n_images']} images of {what['size']} pixels and "
        f"{what['epochs']} epochs: the layer in which predictions are settled, without and with the cue, counted from "
        "0, and the first one in which a linear probe reads the cue.",
        "",
        *_table(
            [*head, *depths, "change", "readable from"],
            [
                [*first, *(_text(c[k]) for k in depths), _text(c["change"], signed=True), c["readable from"]]
                for first, c in told
            ],
        ),
        "",
        "Share of the reliance that is gone when the cue's mean shift is taken out of a layer; none where the cue "
        "hardly moves the prediction.",
        "",
        *_table([*head, *names], [[*first, *(_text(c["carried"][n]) for n in names)] for first, c in told]),
    ]


def power(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "[What is measured](audits/shortcut-power.md): which planted cues shortcut-reliance finds, and whom it accuses "
        "without a cause. The options are the defaults but for the severities."
    ]
    for row in rows:
        planted, nulls, setting = row["planted"], row["not_planted"], row["setting"]
        networks = len(planted) + len(nulls)
        lines += [
            "",
            f"**{setting['size']} pixels**, {setting['n_images']} images, seed {setting['seed']}: {networks} networks "
            f"in {row['seconds']:,.0f} s, {row['seconds'] / networks:.0f} s each with the questions to it. Reliance of "
            f"those without a planted cue on the worst local cue: {_text(row['headline'], digits=3)}.",
            "",
            *_of(planted, without=("kind",)),
            "",
            "Networks without a planted cue, by the seed of their training:",
            "",
            *_of(nulls),
        ]
    return lines


PARTS = {"reliance": reliance, "layers": layers, "power": power}


def _planted(row: dict[str, Any]) -> str:
    given = row["setting"]
    if not given["prevalence"]:
        return str(given["cue"])
    shares = " / ".join(f"{given['prevalence'][name]:.0%}" for name in ("opacity", "normal"))
    return f"{given['cue']} {given['severity']:g} ({shares})"


def _of(records: list[dict[str, Any]], *, without: Sequence[str] = ()) -> list[str]:
    """A table of records: their keys are the columns."""
    keys = [k for k in records[0] if k not in without]
    return _table(keys, [[_text(r[k]) if isinstance(r[k], dict) else r[k] for k in keys] for r in records])


def _text(estimate: dict[str, Any] | None, *, digits: int = DIGITS, signed: bool = False) -> str:
    if estimate is None or estimate["value"] is None:
        return "-"
    return re.sub(r"-(0\.0+)\b", r"\1", Estimate.from_json(estimate).text(digits=digits, signed=signed))


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    return [f"| {' | '.join(map(str, line))} |" for line in (head, ["---"] * len(head), *rows)]
