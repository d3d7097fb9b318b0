"""A run's summary.json, read and asked: which audits there are, what each method answered, how methods differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trueread.errors import InputError, unknown

SUMMARY = "summary.json"
DATA = "the data"  # in the place of a method's name where the answer is the data's

Json = dict[str, Any]
Kind = type | tuple[type, ...]

KINDS: dict[str, Kind] = {  # of what is read without looking; lists are of mappings
    "cohort": dict, "methods": list, "differences": list, "gallery": list, "thresholds": dict, "audit_sources": dict,
    "environment": dict, "check": dict, "seconds": (int, float), "resamples": int,
}  # fmt: skip


def read_summary(folder: str | Path) -> Json:
    """The summary of the run in `folder`.

    Raises InputError when the folder holds no finished run, or a summary that is not one.
    """
    path = Path(folder) / SUMMARY
    if not path.is_file():
        raise InputError(
            f"{folder} is no finished run: there is no {SUMMARY} in it; give the folder that `trueread run` wrote."
        )
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number without end, or nested without end
        raise InputError(f"{path} is not valid JSON ({error}); run the study again to write it anew.") from None
    missing = [k for k in ("title", "cohort", "methods") if not isinstance(summary, dict) or not summary.get(k)]
    if missing:
        raise InputError(f"{path} must have title, cohort and methods; '{missing[0]}' is missing. Run the study again.")
    odd = next((k for k, v in summary.items() if not _is_written_so(k, v)), None)
    if odd is None and not all(_is_strip(strip) for strip in _strips(summary["methods"])):
        odd = "strips"
    if odd is not None:
        raise InputError(f"{path} was edited: its '{odd}' is not what a run writes. Run the study again.")
    return summary


def _is_written_so(key: str, value: Any) -> bool:
    """False when a run would not write such a value: a list instead of a mapping, say."""
    kind = KINDS.get(key)
    if kind is None or (value is None and key not in ("cohort", "methods")):
        return True
    if key == "check":
        return isinstance(value, dict) and _all_have(value.get("concerns"), "title", "seriousness", "check")
    listed = value if isinstance(value, list) else []
    named = key != "methods" or _all_have(value, "name")
    return isinstance(value, kind) and all(isinstance(entry, dict) for entry in listed) and named


def _all_have(value: Any, *keys: str) -> bool:
    """True for a list of mappings that have a text under each of the keys."""
    return isinstance(value, list) and all(
        isinstance(entry, dict) and all(isinstance(entry.get(k), str) for k in keys) for entry in value
    )


def _strips(methods: list[Json]) -> list[Any]:
    """The strips of all findings; what a finding has in their place, if it is no list, as one odd strip."""
    found: list[Any] = []
    for finding in (f for m in methods for f in m.get("findings") or [] if isinstance(f, dict)):
        strips = finding.get("strips") or []
        found += strips if isinstance(strips, list) else [strips]
    return found


def _is_strip(value: Any) -> bool:
    """True for what `strips.with_pictures` writes of a strip."""
    if not _all_have([value], "name", "title", "caption") or not isinstance(value.get("rows"), list):
        return False
    rows, full_colour = value["rows"], value.get("evidence_full_colour")
    if not rows or not all(_all_have(row, "caption") and len(row) == len(rows[0]) > 0 for row in rows):
        return False
    titled = all(
        isinstance(names := value.get(key), list) and len(names) in (0, n) and all(isinstance(x, str) for x in names)
        for key, n in (("heads", len(rows[0])), ("row_titles", len(rows)))
    )
    paths = [panel.get(layer) for row in rows for panel in row for layer in ("image", "evidence")]
    scaled = full_colour is None or (isinstance(full_colour, (int, float)) and not isinstance(full_colour, bool))
    return titled and scaled and all(path is None or isinstance(path, str) for path in paths)


def method_named(summary: Json, name: str) -> Json:
    """The method called `name`. Raises InputError with the nearest name when the run has none."""
    for method in summary["methods"]:
        if method["name"] == name:
            return method
    raise unknown("method of this run", name, [m["name"] for m in summary["methods"]])


def audit_names(summary: Json) -> list[str]:
    """Every audit that any method was asked, by first appearance."""
    return list(dict.fromkeys(f["audit"] for m in summary["methods"] for f in m.get("findings", [])))


def findings_of(summary: Json, audit: str) -> dict[str, Json]:
    """The findings of one audit by method name; methods that were not asked are absent. What is about the data alone
    is there once, under DATA.
    """
    found = {m["name"]: f for m in summary["methods"] for f in m.get("findings", []) if f["audit"] == audit}
    about_data = [f for f in found.values() if f.get("about_data")]
    return {DATA: about_data[0]} if about_data else found


def difference_of(summary: Json, *, audit: str, measure: str, method: str) -> Json | None:
    """The paired difference of `method` to the baseline on one measure, or None when it was not compared."""
    for d in summary.get("differences") or []:
        if (d["audit"], d["measure"], d["method"]) == (audit, measure, method):
            return d
    return None


def baseline_name(summary: Json) -> str:
    """The method that the others are compared with: the one marked so, else the first."""
    marked = [m["name"] for m in summary["methods"] if m.get("baseline")]
    return marked[0] if marked else summary["methods"][0]["name"]


def threshold_of(summary: Json, audit: str) -> tuple[float | None, str]:
    """The threshold of an audit's headline and why it is that; a threshold may be given with its reason or bare."""
    entry = (summary.get("thresholds") or {}).get(audit)
    if isinstance(entry, Mapping):
        return entry.get("threshold"), str(entry.get("why") or "")
    return entry, ""
