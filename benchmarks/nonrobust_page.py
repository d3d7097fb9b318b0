"""The section of docs/results.md on nonrobust features: all arms of each task, which claims held, families, maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import pandas as pd
from pages import held, line, made_by, rule, shown, signed, svg

from trueread import Estimate
from trueread.audit.finding import Figure
from trueread.paper.nonrobust import D_DET, D_RAND, FOOLED, NOISE, SHUFFLED, STANDARD

HEAD = [
    "arm", "clean", "AUROC clean", "attacked", "corrupted", "smallest change, grey levels", "taken for the new class",
    "s",
]  # fmt: skip
KEYS = ("clean", "auroc", "robust", "corrupted", "smallest-change")
AUGMENT = "corruption-augment"
NEXT = "next-class"
FAMILIES = ("digital", "noise", "blur", "colour", "task-specific")

Json = dict[str, Any]


def section(result: Json) -> str:
    """Markdown of one result file."""
    lines = [
        f"## {result['title']} ({result['scale']})",
        "",
        "What the arms and columns are: [Protocols](papers.md#nonrobust). Balanced accuracy unless named otherwise, on "
        "test images as they are, attacked (PGD, L2, epsilon as given), and corrupted "
        "([corruption](audits/corruption.md)); 95 % intervals by patient, ± standard deviation over seeds; s: seconds "
        f"of training. *Clean* is of all test images, the others of at most {result['setting']['images']}.",
    ]
    for cohort, rows in of_cohorts(result["rows"]):
        first = rows[0]
        lines += [
            "", f"### {cohort}", "",
            f"{first['classes']} classes, chance {1 / first['classes']:.3f}; epsilon {first['epsilon']:.3g}, "
            f"{first['grey_levels']:.2f} grey levels.", "", line(HEAD), rule(len(HEAD)),
        ]  # fmt: skip
        lines += [line(_cells(row)) for row in rows]
        differences = [d for d in result["differences"] if d["cohort"] == cohort]
        lines += ["", *(f"- {said}" for said in claims(rows, differences))]
    lines += [*_overall(result), *_families(result), *_maps(result)]
    return "\n".join([*lines, "", made_by(result), ""])


def of_cohorts(rows: list[Json]) -> Iterator[tuple[str, list[Json]]]:
    for cohort, some in groupby(rows, key=lambda r: r["cohort"]):
        yield cohort, list(some)


def robust_arm(rows: Sequence[Json]) -> str:
    """The adversarial arm with the largest epsilon."""
    return [r["arm"] for r in rows if r["arm"].startswith("adversarial")][-1]


def claims(rows: list[Json], differences: list[Json]) -> list[str]:
    """What the protocol asks of a task, held or missed, with the numbers."""
    found = {row["arm"]: {k: Estimate.from_json(v) for k, v in row["measures"].items()} for row in rows}
    chance = 1 / rows[0]["classes"]
    said = []
    for arm in (D_RAND, D_DET):
        if arm in found:
            clean = found[arm]["clean"]
            said.append(f"{held(clean.low > chance)}: {arm} is above chance on images as they are; {shown(clean)}.")
    if D_DET in found:
        text = shown(found[D_DET][NEXT])
        said.append(f"Against the class after the true one, which is what is seen in its images, d_det has {text}.")
    for arm in (NOISE, SHUFFLED):
        clean = found[arm]["clean"]
        said.append(f"{held(clean.low <= chance <= clean.high)}: {arm} is at chance; {shown(clean)}.")
    student = D_DET if D_DET in found else D_RAND
    attacked = found[student]["robust"]
    said.append(
        f"{held(attacked.value < 0.5 * chance)}: {student} falls to nearly nothing under attack; {shown(attacked)}."
    )
    arm = robust_arm(rows)
    for key, sign, what in (
        ("clean", -1, "below standard training on clean images"),
        ("corrupted", 1, "above it on corrupted ones"),
    ):
        d = _difference(differences, arm, key)
        holds = d.high < 0 if sign < 0 else d.low > 0
        said.append(f"{held(holds)}: {arm} is {what}; {signed(d)}.")
    others = [
        (r["arm"], _difference(differences, r["arm"], "corrupted")) for r in rows if r["arm"].startswith("adversarial")
    ]
    best = max(others, key=lambda pair: pair[1].value)
    if best[0] != arm:
        said.append(f"The best of them on corrupted images is {best[0]}; {signed(best[1])}.")
    learned = {key: signed(_difference(differences, AUGMENT, key)) for key in ("corrupted", "clean")}
    said.append(
        f"{AUGMENT}, which learned these very corruptions, on corrupted images: {learned['corrupted']}; on clean ones: "
        f"{learned['clean']}."
    )
    return said


def _overall(result: Json) -> list[str]:
    """The trade-off as a figure."""
    return [
        "", "### Trade-off", "",
        "Balanced accuracy on clean and on corrupted images by the epsilon of training (0: standard).", "",
        f"![Trade-off](images/{figure_name(result)})",
    ]  # fmt: skip


def _families(result: Json) -> list[str]:
    """Adversarial less standard training, family by family."""
    lines = [
        "", "### Families of corruptions", "",
        "Adversarial training with the largest epsilon less standard training, balanced accuracy.", "",
        line(["cohort", *FAMILIES]), rule(len(FAMILIES) + 1),
    ]  # fmt: skip
    for cohort, rows in of_cohorts(result["rows"]):
        differences = [d for d in result["differences"] if d["cohort"] == cohort]
        cells = []
        for family in FAMILIES:
            has = f"family-{family}" in rows[0]["measures"]
            cells.append(signed(_difference(differences, robust_arm(rows), f"family-{family}")) if has else "-")
        lines.append(line([cohort, *cells]))
    return lines


def _maps(result: Json) -> list[str]:
    """How alike maps are before and after an attack."""
    kinds = {"gradient": "input gradient", "smoothgrad": "SmoothGrad", "integrated-gradients": "integrated gradients"}
    head = [
        "cohort",
        "arm",
        *(f"{title}: {what}" for title in kinds.values() for what in ("rank correlation", "sparsity")),
    ]
    lines = [
        "", "### Maps before and after an attack", "",
        "[attribution-stability](audits/attribution-stability.md), first seed.", "", line(head),
        rule(len(head)),
    ]  # fmt: skip
    for row in result["stability"]:
        texts = [shown(row["measures"][f"{what}-{kind}"]) for kind in kinds for what in ("spearman", "gini")]
        lines.append(line([row["cohort"], row["arm"], *texts]))
    return lines


def figures(result: Json) -> dict[str, str]:
    """File name -> SVG: clean and corrupted balanced accuracy over the epsilon of training."""
    data = []
    for cohort, rows in of_cohorts(result["rows"]):
        for row in rows:
            if row["arm"] == STANDARD or row["arm"].startswith("adversarial"):
                multiple = 0.0 if row["arm"] == STANDARD else float(row["arm"].split()[1])
                for key in ("clean", "corrupted"):
                    value = {k: row["measures"][key][k] for k in ("value", "low", "high")}
                    grey = multiple * rows[0]["grey_levels"]
                    data.append({"cohort": cohort, "images": key, "epsilon": grey, **value})
    figure = Figure(
        "trade-off", "Clean against corrupted", "line", pd.DataFrame(data), x="epsilon", y="value", group="cohort",
        low="low", high="high", x_label="epsilon of training, grey levels (root mean square)",
        y_label="balanced accuracy",
    )  # fmt: skip
    return {figure_name(result): svg(figure, colour="cohort", dash="images")}


def figure_name(result: Json) -> str:
    return f"nonrobust-{result['scale']}-trade-off.svg"


def _cells(row: Json) -> list[str]:
    texts = [shown(row["measures"][k]) for k in KEYS]
    rates = [told.get("nonrobust-only", {}).get("fooling_rate") for told in row["told"]]
    known = [rate for rate in rates if rate is not None]
    rate = "-" if not known else f"{sum(known) / len(known):.0%}"
    if known and row["arm"] in (D_RAND, D_DET) and sum(known) / len(known) < FOOLED:
        rate += " (few)"
    return [row["arm"], *texts, rate, f"{row['seconds']:.0f}"]


def _difference(differences: list[Json], arm: str, key: str) -> Estimate:
    return next(Estimate.from_json(d["difference"]) for d in differences if d["method"] == arm and d["measure"] == key)
