"""What a person decided about doubtful labels: read from a CSV file, applied as a new version of the cohort, logged."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trueread.cohort.cohort import Cohort
from trueread.cohort.rows import column, read_rows, refuse_rows
from trueread.errors import InputError, nearest

DECISIONS = "decisions"  # the key of a cohort's origin under which they are told
KEEP, RELABEL, DROP = "keep", "relabel", "drop"
LOG = ["id", "split", "given", "decision", "label"]


def with_decisions(cohort: Cohort, path: str | os.PathLike[str]) -> Cohort:
    """The cohort with the labels that were corrected, without the images that were dropped.

    path: CSV with the columns id and decision ("keep", "relabel", "drop", or nothing: undecided), and label, the class
    of a relabelled image; where that is empty the column suggested is taken. So the `suspects.csv` of the label audit
    is such a file once the column decision is filled. Images that are not in it stay as they are.
    `origin` of the result has the counts, the file's SHA-256 and every decision (see `decision_log`).
    Raises InputError for a multilabel task, a file without these columns, ids that the cohort lacks or that come twice,
    other decisions or classes, a cohort whose labels were decided already, and when a class or a split would be empty.
    """
    path = Path(path).expanduser()
    if cohort.task == "multilabel":
        raise InputError(f"{cohort.name}: decisions are about one label per image; the task is multilabel.")
    if DECISIONS in cohort.origin:
        raise InputError(
            f"{cohort.name}: decisions were applied to these labels already; start from the cohort before."
        )
    rows = _read(path)
    place = pd.Series(np.arange(len(cohort)), index=cohort.table["id"].astype(str))
    _refuse(cohort, rows, place, path.name)
    rows = rows[rows["decision"] != ""]
    at = place.loc[rows["id"]].to_numpy() if len(rows) else np.empty(0, np.int64)
    number = {name: k for k, name in enumerate(cohort.classes)}
    labels, kept = cohort.labels.copy(), np.ones(len(cohort), bool)
    log = []
    for row, (decision, label) in zip(at, rows[["decision", "label"]].itertuples(index=False, name=None), strict=True):
        given = cohort.classes[cohort.labels[row]]
        if decision == RELABEL:
            labels[row] = number[label]
        kept[row] = decision != DROP
        said = label if decision == RELABEL else ""
        log.append([str(cohort.table["id"].iloc[row]), str(cohort.table["split"].iloc[row]), given, decision, said])
    _refuse_empty(cohort, labels, kept)
    decided = replace(cohort, labels=labels, truth=_truth(cohort, labels))
    decided = decided if kept.all() else decided.subset(kept)
    return replace(decided, origin={**cohort.origin, DECISIONS: _told(path, log)})


def decision_log(cohort: Cohort) -> pd.DataFrame | None:
    """Every decision that made this cohort: id, split, given, decision, label; None where none was applied."""
    told = cohort.origin.get(DECISIONS)
    return None if told is None else pd.DataFrame(told["log"], columns=LOG)


def decisions_in_words(cohort: Cohort) -> str:
    """ "12 relabelled (8 normal to pneumonia, ...), 3 dropped, 40 kept"; "" where none was applied."""
    told = cohort.origin.get(DECISIONS)
    if told is None:
        return ""
    changes = Counter(f"{given} to {label}" for _, _, given, decision, label in told["log"] if decision == RELABEL)
    listed = ", ".join(f"{n} {what}" for what, n in changes.most_common(4))
    counts = told["counts"]
    changed = f"{counts[RELABEL]} relabelled{f' ({listed})' if listed else ''}"
    return f"{changed}, {counts[DROP]} dropped, {counts[KEEP]} looked at and kept"


def _read(path: Path) -> pd.DataFrame:
    """`id`, `decision` in small letters and `label`, as text; the index is the row number."""
    rows = read_rows(path)
    for needed in ("id", "decision"):
        column(needed, rows, file=path.name, role=needed)
    label = rows["label"] if "label" in rows else pd.Series("", index=rows.index, dtype=object)
    if "suggested" in rows:
        label = label.where(label != "", rows["suggested"])
    return pd.DataFrame({"id": rows["id"], "decision": rows["decision"].str.lower(), "label": label})


def _refuse(cohort: Cohort, rows: pd.DataFrame, place: pd.Series, file: str) -> None:
    decided = rows[rows["decision"] != ""]
    new = decided[decided["decision"] == RELABEL]
    twice = rows[rows["id"].duplicated()]["id"].map("image '{}' is listed twice".format)
    refuse_rows(file, _problems(twice), "Decide once for each.")
    odd = rows[~rows["decision"].isin(("", KEEP, RELABEL, DROP))]["decision"].map("found '{}'".format)
    refuse_rows(file, _problems(odd), "A decision is keep, relabel or drop, or empty.")
    strange = decided[~decided["id"].isin(place.index)]["id"].map((cohort.name + " has no image '{}'").format)
    refuse_rows(file, _problems(strange), "Give ids as in the cohort.")
    unknown = new[~new["label"].isin(cohort.classes)]["label"].map(
        lambda c: f"no class is called '{c}'{nearest(c, cohort.classes)}" if c else "the new label is missing"
    )
    refuse_rows(file, _problems(unknown), f"The classes are {', '.join(cohort.classes)}.")


def _problems(texts: pd.Series) -> list[tuple[int, str]]:
    return [(int(str(row)), text) for row, text in texts.items()]


def _refuse_empty(cohort: Cohort, labels: np.ndarray, kept: np.ndarray) -> None:
    for split in dict.fromkeys(cohort.table["split"]):
        mine = (cohort.table["split"] == split).to_numpy()
        before, after = (np.bincount(x, minlength=cohort.n_classes) for x in (cohort.labels[mine], labels[mine & kept]))
        lost = np.flatnonzero((before > 0) & (after == 0))
        if len(lost):
            where = f" in {split}" if split else ""
            raise InputError(
                f"{cohort.name}: no image of '{cohort.classes[lost[0]]}' would be left{where}; keep some, or join the "
                "class with another."
            )


def _truth(cohort: Cohort, labels: np.ndarray) -> pd.DataFrame | None:
    """What a generator knows, with the labels that are still wrong."""
    if cohort.truth is None or "true_label" not in cohort.truth:
        return cohort.truth
    return cohort.truth.assign(flipped=labels != cohort.truth["true_label"].to_numpy())


def _told(path: Path, log: list[list[str]]) -> dict[str, Any]:
    counts = Counter(decision for *_, decision, _ in log)
    return {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "counts": {d: counts[d] for d in (KEEP, RELABEL, DROP)},
        "log": log,
    }
