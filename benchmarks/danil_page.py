"""The section of docs/results.md on distractors: all arms of each cohort, which claims held, what distracts them."""

from __future__ import annotations

from itertools import groupby
from math import exp
from typing import Any

from pages import held, line, made_by, rule, shown, signed

from trueread import Estimate
from trueread.audit.distractor import VALUES
from trueread.paper.danil import COLUMNS, CONTROL, ERM, FEATURE, OURS
from trueread.stats import METRICS

Json = dict[str, Any]
LEAST = exp(-4)  # of form C: responses that point opposite ways
# (accuracy, macro F1) of arms, as listed by Marrakchi, Makansi and Brox (2021), MICCAI; supcon is theirs with
# resampling, as classes are drawn equally often here too. APTOS is another set of retinal grades.
PUBLISHED = {
    "ham10000-seven": ("HAM10000, another split", {
        ERM: (0.850, 0.716), OURS: (0.825, 0.674), "balanced sampling": (0.861, 0.735), "focal": (0.849, 0.728),
        "ldam-drw": (0.857, 0.734), "ohem": (0.818, 0.660), "supcon": (0.868, 0.751),
    }),
    "retinamnist": ("APTOS 2019, another set", {OURS: (0.825, 0.660)}),
}  # fmt: skip


def section(result: Json) -> str:
    """Markdown of one result file."""
    lines = [
        f"## {result['title']} ({result['scale']})",
        "",
        "What the arms and columns are: [Protocols](papers.md#danil). Last epoch; 95 % intervals by patient, ± "
        "standard deviation over seeds. For two classes the form of the term, and that it is relative to the last "
        "map, was changed after results on these cohorts had been seen. What a step takes is measured [by "
        f"itself](#speed-on-a-cpu). At most {result['setting']['train_images']:,} training images, "
        f"{_trained(result)}. As published: listed by Marrakchi, Makansi and Brox (2021), *MICCAI*, on other splits.",
    ]
    for name, some in groupby(result["rows"], key=lambda r: r["cohort"]):
        rows = list(some)
        columns = [c for c in COLUMNS if c in rows[0]["measures"]]
        told, published = PUBLISHED.get(name, ("", {}))
        head = ["arm", *(METRICS[c].title for c in columns)]
        head += [f"accuracy / macro F1 as published ({told})"] if told else []
        size = result["setting"]["sizes"][name]
        lines += ["", f"### {name}: {rows[0]['classes']} classes, {size} px", "", line(head), rule(len(head))]
        for row in rows:
            cells = [shown(row["measures"][c]) for c in columns]
            if told:
                both = published.get(row["arm"])
                cells.append("-" if both is None else f"{both[0]:.3f} / {both[1]:.3f}")
            lines.append(line([row["arm"], *cells]))
        differences = [d for d in result["differences"] if d["cohort"] == name]
        lines += ["", *(f"- {said}" for said in claims(differences))]
        lines += [*_others(differences), *_terms(rows)]
    lines += [*_distractors(result), *_variations(result)]
    return "\n".join([*lines, "", made_by(result), ""])


def claims(differences: list[Json]) -> list[str]:
    """What the protocol asks of the method, held or missed, with the numbers."""
    said = []
    for arm in (OURS, FEATURE):
        for control, what in ((ERM, "plain training"), (CONTROL, "the gradient penalty")):
            found = _difference(differences, control, arm, "macro-f1")
            said.append(f"{held(found.low > 0)}: {arm} is above {what} in macro F1; {signed(found)}.")
    return said


def _others(differences: list[Json]) -> list[str]:
    """The arms whose macro F1 differs from plain training's beyond the interval."""
    names = [d["method"] for d in differences if d["baseline"] == ERM and d["measure"] == "macro-f1"]
    found = [(n, _difference(differences, ERM, n, "macro-f1")) for n in names if n not in (OURS, FEATURE)]
    clear = [f"{name} {signed(d)}" for name, d in found if d.low > 0 or d.high < 0]
    return [f"- Of the others, macro F1 differs from plain training's: {'; '.join(clear) or 'of none'}."]


def _trained(result: Json) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in result["setting"]["train"].items())


def _terms(rows: list[Json]) -> list[str]:
    """How far the term of both arms fell, for a term that has nothing to do can change nothing."""
    said = []
    for row in rows:
        terms = [[t for t in told.get("term_by_epoch", []) if t is not None] for told in row["told"]]
        if row["arm"] not in (OURS, FEATURE) or not all(terms):
            continue
        ends = [sum(t[at] for t in terms) / len(terms) for at in (0, -1)]
        least = f", of at least {LEAST:.3f}" if row["told"][0]["form"] == "C" else ""
        said.append(f"{row['arm']}, form {row['told'][0]['form']}, {ends[0]:.3f} and {ends[1]:.3f}{least}")
    return [f"- The term in its first and in its last epoch: {'; '.join(said)}."] if said else []


def _difference(differences: list[Json], control: str, arm: str, key: str) -> Estimate:
    return next(
        Estimate.from_json(d["difference"])
        for d in differences
        if (d["baseline"], d["method"], d["measure"]) == (control, arm, key)
    )


def _distractors(result: Json) -> list[str]:
    """What the distractor audit says of plain training and of DANIL."""
    lines = ["", "### What distracts them", "", "From the [distractor](audits/distractor.md) audit of the test images."]
    for name, some in groupby(result["distractors"], key=lambda r: r["cohort"]):
        rows = list(some)
        keys = [k for k in VALUES if any(k in row["measures"] for row in rows)]
        head = [name, *(VALUES[k][0] for k in keys), "most often taken for it"]
        lines += ["", line(head), rule(len(head))]
        for row in rows:
            known = row["measures"]
            cells = [shown(known[k]) if k in known else "-" for k in keys]
            pairs = [f"{p['true class']} for {p['distractor']} ({p['taken for it']:.0f})" for p in row["pairs"][:3]]
            lines.append(line([row["arm"], *cells, ", ".join(pairs)]))
    return lines


def _variations(result: Json) -> list[str]:
    if not result.get("variations"):
        return []
    first = result["variations"][0]
    keys = [c for c in ("macro-f1", "balanced-accuracy", "accuracy") if c in first["measures"]]
    head = ["choice", *(METRICS[k].title for k in keys), "the term, first and last epoch"]
    lines = ["", "### Single choices", "", f"Of DANIL on {first['cohort']}, one seed.", "", line(head), rule(len(head))]
    for row in result["variations"]:
        terms = [t for t in row["told"][0]["term_by_epoch"] if t is not None]
        texts = [shown(row["measures"][k]) for k in keys]
        lines.append(line([row["what"], *texts, f"{terms[0]:.3f}, {terms[-1]:.3f}" if terms else "-"]))
    return lines


def figures(result: Json) -> dict[str, str]:  # noqa: ARG001  (as the other sections)
    """None."""
    return {}
