"""The model card: what was measured of one method's classifier, and what was not, in Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trueread.files import write_text
from trueread.report import views
from trueread.report.markdown import rendered, thresholds
from trueread.report.page import method_facts
from trueread.report.scorecard import JUDGED, audit_rows, rule_text, verdict_sentence
from trueread.report.summary import (
    Json,
    audit_names,
    baseline_name,
    findings_of,
    method_named,
    read_summary,
    threshold_of,
)
from trueread.report.words import cell_text, counted, reason, slug

# What a reader of a card looks for: named as not measured when the study did not ask.
EXPECTED = {
    "performance": "How well it tells the classes apart",
    "calibration": "Whether its probabilities mean what they say",
    "subgroups": "Whether it works equally well for groups of patients",
    "shortcut-reliance": "Whether marks that have nothing to do with the disease move its answer",
    "shortcut-layers": "In which layer such marks enter, and whether they are used there",
}


def write_model_card(run_folder: str | Path, method: str) -> Path:
    """Write `model_card-METHOD.md` of a finished run from its summary.json, and return its path.

    method: its name in the run. Raises InputError when the folder holds no finished run or no such method.
    """
    folder = Path(run_folder)
    summary = read_summary(folder)
    path = folder / f"model_card-{slug(method)}.md"
    write_text(path, rendered("model_card.md.j2", _context(summary, method_named(summary, method))))
    return path


def _context(summary: Json, method: Json) -> dict[str, Any]:
    name = method["name"]
    alone = summary | {"methods": [method]}
    rows = [r for a in audit_names(alone) for r in audit_rows(alone, a) if r.estimate is not None]
    facts = method_facts(method)["facts"]
    return {
        "s": summary,
        "m": method,
        "studied": views.studied_sentence(alone),
        "contract": _contract(method),
        "cohort": views.cohort_facts(summary),
        "split_rows": views.split_table(summary),
        "training": facts if method.get("histories") else [],
        "rows": rows,
        "compared": any(r.difference is not None for r in rows),
        "baseline": baseline_name(summary),
        "unit": "patient" if summary["cohort"].get("patients_known", True) else "image",
        "verdicts": [verdict_sentence(alone, name)],
        "limits": limits(alone),
        "caveats": views.caveats(alone),
        "notes": [note for a in audit_names(alone) for _, note in views.notes_of(findings_of(alone, a), n_methods=1)],
        "not_measured": not_measured(alone),
        "thresholds": thresholds(alone),
        "environment": [(k, v) for k, v in (summary.get("environment") or {}).items() if v not in (None, "")],
    }


def _contract(method: Json) -> list[tuple[str, str]]:
    """What the classifier expects and answers, from its card."""
    card = method.get("card") or {}
    if not card:
        return [("Card", "none; the model was given without one")]
    size = " × ".join(map(str, card["size"]))
    decision = card.get("threshold_rule") or "the most probable class"
    if card.get("threshold") is not None:
        decision += f", {cell_text(card['threshold'])}"
    return [
        (
            "Input",
            f"{counted(card['channels'], 'channel')}, {size} pixels, intensities divided by {card.get('white', 255):,}",
        ),
        (
            "Normalisation",
            f"inside the model, mean {cell_text(card['mean'])}, standard deviation {cell_text(card['std'])}",
        ),
        ("Task", card["task"]),
        ("Classes", ", ".join(card["classes"])),
        ("Decision", decision),
        *([("Not to rely on", card["limits"]["rule"])] if card.get("limits") else []),
        ("Probabilities", f"of logits divided by a temperature of {card.get('temperature', 1.0):.3f}"),
    ]


def limits(summary: Json) -> list[str]:
    """Failed and undecided questions of the one method in `summary`, with the number that decided."""
    found = []
    for verdict, word in (("fail", "fails"), ("warn", "is undecided")):
        for audit in audit_names(summary):
            row = audit_rows(summary, audit, further=())[0]
            if row.verdict == verdict and row.estimate is not None:
                threshold = threshold_of(summary, audit)[0] if row.threshold is None else row.threshold
                found.append(
                    f"{audit} {word}: {row.question} {row.title} {row.estimate.text()}; {rule_text(row, threshold)}."
                )
    return found


def not_measured(summary: Json) -> list[str]:
    """Every question of the one method in `summary` that has no answer, and what the study did not ask."""
    audits = audit_names(summary)
    lines = []
    for audit in audits:
        rows = audit_rows(summary, audit, further=())
        lines += [f"{row.question} {reason(row.why_not)}" for row in rows if row.estimate is None]
        lines += [
            f"{row.question} Not defined on these test images."
            for row in rows
            if row.estimate is not None and row.estimate.value != row.estimate.value and row.verdict not in JUDGED
        ]
    lines += [
        f"{what}. Not measured, because the study did not ask." for a, what in EXPECTED.items() if a not in audits
    ]
    name = summary["cohort"]["name"]
    return [*lines, f"Other data than {name}. Not measured, because the study has this one cohort."]
