"""Whose a run folder is: one study's, which may come back to it, and nobody's while nothing was trained there."""

from __future__ import annotations

from pathlib import Path

from trueread.cells import cell_folder, is_done, refuse_other
from trueread.cohort.cohort import Cohort
from trueread.cohort.split import save_split
from trueread.errors import InputError
from trueread.report.summary import SUMMARY
from trueread.study import Study, identity, load_study, save_study

STUDY, SPLIT_FILE = "study.yaml", "split.csv"


def refuse_other_study(folder: Path, study: Study) -> None:
    """Raise InputError when the folder holds a run of another study; before the data are read and split."""
    try:
        holds_one = (folder / STUDY).is_file()
    except OSError as error:  # a name that is too long, say
        raise _cannot_be_made(folder, error) from None
    if not holds_one or belongs_to_nobody(folder):
        return
    old, new = (identity(s) for s in (load_study(folder / STUDY), study))
    changed = [k for k in new if new[k] != old[k]]
    if changed:
        raise InputError(
            f"{folder} holds a run of another study (its '{changed[0]}' differs); "
            "give another folder with --out, or delete it."
        )


def belongs_to_nobody(folder: Path) -> bool:
    """True when a study began in the folder and nothing was trained: a corrected one may have it, with another split.

    A study file that a person wrote, with defaults left out, is no such beginning.
    """
    if not all((folder / name).is_file() for name in (STUDY, SPLIT_FILE)) or (folder / SUMMARY).is_file():
        return False
    if any(p.is_file() for p in (folder / "methods").rglob("*")):
        return False
    return load_study(folder / STUDY).model_fields_set == set(Study.model_fields)


def _cannot_be_made(folder: Path, error: OSError) -> InputError:
    return InputError(f"the run folder {folder} cannot be made ({error.strerror}); choose another with --out.")


def claim(folder: Path, study: Study, cohort: Cohort) -> None:
    """Make the run folder this study's, or refuse one whose finished cells are not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_be_made(folder, error) from None
    for section in study.methods:  # all of them, before the first one trains for hours
        for cell in (cell_folder(folder, section.title, seed) for seed in study.seeds):
            if is_done(cell):
                refuse_other(cell, section, cohort)
    save_study(study, folder / STUDY)
    save_split(cohort, folder / SPLIT_FILE)
