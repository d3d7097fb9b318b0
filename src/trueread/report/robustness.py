"""How a model holds under corruption and attack, and what a method bought and cost, in sentences."""

from __future__ import annotations

from trueread.report.spoken import Rows, against_baseline, measured_rows, number
from trueread.report.summary import Json, baseline_name, findings_of
from trueread.report.words import as_estimate

AUDITS = ("corruption", "adversarial")
COMPARED = {
    "corruption": (("corrupted", "on corrupted images"), ("clean", "on clean ones")),
    "adversarial": (("robust", "under attack"), ("clean", "as they are")),
}
TABLE = "Per corruption, balanced accuracy"
REMEDY = "adversarial"


def in_words(summary: Json, audit: str) -> list[str]:
    """First how each method holds, then each against the baseline: balanced accuracy, only what was measured."""
    rows, findings = measured_rows(summary, audit), findings_of(summary, audit)
    told = [_corrupted(n, r, findings[n]) if audit == "corruption" else _attacked(n, r) for n, r in rows.items()]
    compared = [(key, f"balanced accuracy {where}") for key, where in COMPARED[audit]]
    told += [against_baseline(n, mine, compared) for n, mine in rows.items() if n != baseline_name(summary)]
    if audit == "adversarial" and rows and not any(REMEDY in name for name in _methods(summary)):
        told.append(f"What adversarial training would buy and cost is not known: train `{REMEDY}` beside these.")
    return [text for text in told if text]


def _methods(summary: Json) -> list[str]:
    """Names of the methods as the record of their training has them, and as the report calls them."""
    cards = [(m.get("card") or {}).get("training") or {} for m in summary["methods"]]
    return [str(c.get("method", "")) for c in cards] + [m["name"] for m in summary["methods"]]


def _corrupted(method: str, rows: Rows, finding: Json) -> str:
    if not {"clean", "corrupted"} <= set(rows):
        return ""
    clean, corrupted = (number(rows[k].estimate) for k in ("clean", "corrupted"))
    worst = _worst(finding)
    return f"{method}: balanced accuracy {corrupted} on corrupted images, {clean} on the same images clean{worst}."


def _worst(finding: Json) -> str:
    """ "; 'pixelate' costs most (0.55)": the first of the table, which has the worst first."""
    table = (finding.get("tables") or {}).get(TABLE)
    if not table or not table["rows"]:
        return ""
    first = dict(zip(table["columns"], table["rows"][0], strict=True))
    value = as_estimate(first["mean"])
    return f"; '{first['corruption']}' costs most ({value.value:.2f})" if value else ""


def _attacked(method: str, rows: Rows) -> str:
    if not {"clean", "robust", "smallest-change"} <= set(rows):
        return ""
    size = rows["robust"].title.partition(", ")[2]
    clean, robust = (number(rows[k].estimate) for k in ("clean", "robust"))
    smallest = rows["smallest-change"]
    found = f"a change of {number(smallest.estimate)} grey levels misleads on half of the images that it reads rightly"
    limit = number(smallest.estimate).split(" ")[0]
    if f"; {limit} where none was found" in smallest.definition:
        found = (
            f"no change up to {limit} grey levels misleads, as far as was found, half of the images it reads rightly"
        )
    return f"{method}: {found}; under attack with {size} balanced accuracy is {robust}, without {clean}."
