"""What a method against wrong labels left out, since when, how rightly, and what that bought, in sentences."""

from __future__ import annotations

from trueread.report.spoken import against_baseline, measured_rows
from trueread.report.summary import Json, baseline_name
from trueread.report.words import joined

AUDIT = "performance"
COMPARED = (("auroc", "AUROC"), ("balanced-accuracy", "balanced accuracy"))
NAMED = 4  # classes whose share is said


def in_words(summary: Json) -> list[str]:
    """A sentence or two for each method that leaves images out; the record of its first seed says which."""
    rows, told = measured_rows(summary, AUDIT), []
    for method in summary["methods"]:
        name, record = method["name"], method.get("report") or {}
        if "excluded" not in record:
            continue
        seed = " (first seed)" if len(method.get("seeds") or [0]) > 1 else ""
        told.append(_left_out(f"{name}{seed}", record))
        if name in rows and name != baseline_name(summary):
            told.append(against_baseline(name, rows[name], COMPARED))
    return [text for text in told if text]


def _left_out(method: str, record: Json) -> str:
    if not record["excluded"]:
        return f"{method} left nothing out in the end."
    shares = sorted((record.get("excluded_share") or {}).items(), key=lambda entry: -entry[1])
    most = [f"{share:.0%} of {name}" for name, share in shares[:NAMED]]
    since = record.get("started_after_epoch")
    text = f"{method} left {record['excluded']:,} training images out in the end"
    text += f", the first after epoch {since}" if since else ""
    text += f": {'at most ' if len(shares) > NAMED else ''}{joined(most)}." if most else "."
    truth = record.get("against_the_truth") or {}
    if truth.get("precision") is None or truth.get("recall") is None:
        return text
    return (
        f"{text} Of these {truth['precision']:.0%} are known to be labelled wrongly, and {truth['recall']:.0%} of all "
        "that are wrong are among them."
    )
