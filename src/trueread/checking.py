"""The command `check`: asks every check of a cohort, and writes check.json, check.html and a table per concern."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pandas as pd

from trueread._version import __version__
from trueread.audit.finding import table_to_json
from trueread.cohort.check import Answer, Concern, Seriousness, build_checks, ranked, run_checks
from trueread.cohort.check.driver import Names
from trueread.cohort.cohort import OWN_COLUMNS, Cohort
from trueread.cohort.showing import label_names
from trueread.cohort.source import load_cohort
from trueread.cohort.split import apply_split
from trueread.errors import InputError
from trueread.files import write_csv, write_json
from trueread.progress import say
from trueread.record import cohort_facts, environment, today
from trueread.report.check_examples import PICTURES, write_examples
from trueread.report.check_page import write_check_page
from trueread.report.check_words import CHECK_FILE, CHECK_PAGE, Json, cohort_sentence, read_check

TABLES = "checks"  # the folder of what names images, and so is not for sharing
MEASURED_ROWS = 100  # of what a check measured, in check.json; all of it is in its table
PRIVATE = re.compile(r"^(id|patient|path|file)([ _]\w+)?$|[ _](id|patient|path|file)$", re.IGNORECASE)


def check(
    data: str | Cohort, *, checks: Names = "all", split: str | Path | None = None, out: str | Path | None = None,
    seed: int = 0, source: Mapping[str, Any] | None = None, command: str = "",
) -> list[Answer]:  # fmt: skip
    """Ask checks of the data as they come, before anything is trained; `ranked` puts what they found in order.

    data: "SOURCE:LOCATION" with `source` as its options, or a Cohort. checks: "all", or names or mappings with
    options. split: a split.csv of an earlier run; without it the data keep the split they come with, or have none.
    out: folder for check.html, check.json and the tables. seed: of permutations and folds. command: for the record.
    Raises InputError for data that cannot be read, an unknown check or option, and a folder that cannot be made.
    """
    asked = build_checks(checks)  # a wrong name must not wait for the data
    if out is not None:
        _claim(Path(out))
    cohort = data if isinstance(data, Cohort) else load_cohort(data, **(source or {}))
    cohort = cohort if split is None else apply_split(cohort, split)
    say(cohort_sentence(cohort_facts(cohort)))
    answers = run_checks(cohort, asked, seed=seed)
    if out is not None:
        write_check(cohort, answers, Path(out), seed=seed, command=command)
    return answers


def check_once(cohort: Cohort, folder: Path, *, seed: int = 0, command: str = "") -> Json:
    """Every check of a cohort, written to `folder`; returns what check.json holds.

    What an earlier run answered there is read back when it was asked of the same data and split.
    """
    asked = build_checks()
    if (folder / CHECK_FILE).is_file():
        earlier = read_check(folder)
        if earlier.get("fingerprint") == fingerprint(cohort, [c.name for c in asked], seed=seed):
            return earlier
    return write_check(cohort, run_checks(cohort, asked, seed=seed), folder, seed=seed, command=command)


def fingerprint(cohort: Cohort, checks: Sequence[str], *, seed: int) -> str:
    """Hash (BLAKE2b, 16 hex digits) of all that decides the answers of checks with their default options."""
    lost = cohort.omitted.itertuples(index=False)
    parts = (__version__, seed, *checks, cohort.digest, *cohort.table["split"], *lost)
    return blake2b("\0".join(map(str, parts)).encode(errors="surrogateescape"), digest_size=8).hexdigest()


def write_check(cohort: Cohort, answers: Sequence[Answer], folder: Path, *, seed: int, command: str = "") -> Json:
    """Write what the checks found to `folder` and return what check.json holds.

    check.html and check.json name no image and no patient: images are rows of the cohort's table, counted from 0.
    checks/ says which they are: shown.csv for the pictures on the page, and a file with the details of each concern.
    What an earlier check left in the folder is removed, or it would pass for this one's.
    """
    _claim(folder)
    _drop_earlier(folder)
    tables = _Tables(folder)
    concerns = [_concern_entry(cohort, answer, concern, tables) for answer, concern in ranked(answers)]
    shown = {image["image"]: image["row"] for c in concerns for e in c["examples"] for image in e["images"]}
    tables.keep(_who(cohort, sorted(shown.values())), "shown")
    found = Counter(c["seriousness"] for c in concerns)
    content: Json = {
        "title": cohort.name,
        "command": command,
        "date": today(),
        "seconds": round(sum(a.seconds for a in answers), 1),
        "seed": seed,
        "fingerprint": fingerprint(cohort, [a.check for a in answers], seed=seed),
        "cohort": {**cohort_facts(cohort), "is_split": cohort.is_split, "class_counts": _class_counts(cohort)},
        "found": {str(s): found[str(s)] for s in Seriousness},
        "concerns": concerns,
        "checks": [_check_entry(answer, tables) for answer in answers],
        "files": [*tables.names, *sorted(shown)],
        "environment": environment(),
    }
    write_json(folder / CHECK_FILE, content)
    write_check_page(folder)
    return content


class _Tables:
    """The tables written to checks/, each under a name of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.names = folder, list[str]()

    def keep(self, table: pd.DataFrame | None, stem: str) -> str | None:
        """Write a table and return its path inside the folder; None for one that is not there or has no row."""
        if table is None or table.empty:
            return None
        name, number = f"{TABLES}/{stem}.csv", 1
        while name in self.names:
            number += 1
            name = f"{TABLES}/{stem}-{number}.csv"
        self.names.append(name)
        write_csv(self.folder / name, table)
        return name


def _concern_entry(cohort: Cohort, answer: Answer, concern: Concern, tables: _Tables) -> Json:
    return {
        "check": answer.check,
        "seriousness": str(concern.seriousness),
        "title": concern.title,
        "advice": concern.advice,
        "strength": concern.strength,
        "n_images": concern.n_images,
        "n_examples": len(concern.examples),
        "examples": write_examples(cohort, concern.examples, tables.folder),
        "n_lines": 0 if concern.table is None else len(concern.table),
        "table": tables.keep(named_rows(cohort, concern.table), answer.check),
    }


def _check_entry(answer: Answer, tables: _Tables) -> Json:
    return {
        "check": answer.check,
        "question": answer.question,
        "looked_at": answer.looked_at,
        "n_concerns": len(answer.concerns),
        "reason": answer.reason,
        "seconds": round(answer.seconds, 2),
        "measured": _for_sharing(answer.table),
        "n_measured": 0 if answer.table is None else len(answer.table),
        "table": tables.keep(answer.table, f"{answer.check}-measured"),
    }


def named_rows(cohort: Cohort, table: pd.DataFrame | None) -> pd.DataFrame | None:
    """A table of cases with whose they are beside each `row`, where the check gave the row alone."""
    if table is None or "row" not in table.columns or "id" in table.columns:
        return table
    who = _who(cohort, table["row"].astype(int).tolist())
    return pd.concat([who, table[[c for c in table.columns if c not in who]].reset_index(drop=True)], axis=1)


def _who(cohort: Cohort, rows: Sequence[int]) -> pd.DataFrame:
    """row, id, patient, split and label of each of the rows."""
    table = cohort.table.loc[list(rows), list(OWN_COLUMNS)].reset_index(drop=True)
    table.insert(0, "row", rows)
    return table.assign(label=label_names(cohort, rows))


def _for_sharing(table: pd.DataFrame | None) -> Json | None:
    """The first rows of what a check measured; None of a table that says which file or whose image something is."""
    if table is None or any(PRIVATE.search(str(c)) for c in table.columns):
        return None
    return table_to_json(table[:MEASURED_ROWS])


def _class_counts(cohort: Cohort) -> dict[str, int]:
    return {c: int(n) for c, n in zip(cohort.classes, cohort.class_counts(), strict=True)}


def _claim(folder: Path) -> None:
    """Make the folder, or refuse one that holds a check.json of somebody else's."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be made ({error.strerror}); choose another with --out.") from None
    if (folder / CHECK_FILE).is_file():
        read_check(folder)


def _drop_earlier(folder: Path) -> None:
    """Remove an earlier check.json, its page, the tables and pictures that it lists, and nothing else."""
    if not (folder / CHECK_FILE).is_file():
        return
    for name in read_check(folder)["files"]:
        path = (folder / name).resolve()
        if any(path.parent == (folder / own).resolve() for own in (TABLES, PICTURES)):
            path.unlink(missing_ok=True)
    for name in (CHECK_PAGE, CHECK_FILE):  # the list goes last, so that what it lists can still be found
        (folder / name).unlink(missing_ok=True)
