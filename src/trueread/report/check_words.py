"""What a check of the data found, read from check.json, and said in the sentences that page and terminal share."""

from __future__ import annotations

import json
from pathlib import Path

from trueread.cohort.check.base import Seriousness
from trueread.errors import InputError
from trueread.report.summary import Json
from trueread.report.words import counted, joined, plural, sentence, spelled

CHECK_FILE, CHECK_PAGE = "check.json", "check.html"
SIGNS = {Seriousness.SERIOUS: "✕", Seriousness.LOOK: "!", Seriousness.NOTE: "·"}
NOTHING_FOUND, NOT_CHECKED = "nothing found", "not checked"
MEANING = {
    Seriousness.SERIOUS: "Results on these data would be wrong. Mend it first.",
    Seriousness.LOOK: "Results may be wrong. A person has to judge.",
    Seriousness.NOTE: "Good to know when the numbers are read.",
}
CALLED = {
    Seriousness.SERIOUS: ("serious concern", "serious concerns"),
    Seriousness.LOOK: ("concern worth a look", "concerns worth a look"),
    Seriousness.NOTE: ("note", "notes"),
}


def read_check(folder: str | Path) -> Json:
    """What `trueread check` wrote to check.json in `folder`. Raises InputError when there is none, or another file."""
    path = Path(folder) / CHECK_FILE
    if not path.is_file():
        raise InputError(f"there is no {CHECK_FILE} in {folder}; give the folder that `trueread check` wrote.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number without end, or nested without end
        raise InputError(f"{path} is not valid JSON ({error}); delete it and check the data again.") from None
    needed = ("title", "cohort", "found", "concerns", "checks", "files")
    missing = [k for k in needed if not isinstance(content, dict) or k not in content]
    if missing:
        raise InputError(f"{path} is no check of trueread: '{missing[0]}' is missing. Give another folder with --out.")
    return dict(content)


def verdict_sentence(content: Json) -> str:
    """ "Seven checks found two serious concerns and one note. One check could not be made." """
    n_unmade = sum(bool(c["reason"]) for c in content["checks"])
    n_made = len(content["checks"]) - n_unmade
    found = [f"{spelled(n)} {CALLED[Seriousness(s)][n != 1]}" for s, n in content["found"].items() if n]
    sentences = [
        f"{spelled(n_made)} {plural('check', n_made)} found {joined(found) or 'nothing of concern'}" if n_made else "",
        f"{spelled(n_unmade)} {plural('check', n_unmade)} could not be made" if n_unmade else "",
    ]
    return " ".join(sentence(s) for s in sentences if s)


def in_short(content: Json) -> Json:
    """What a run's summary says of its check: the verdict, how many concerns of each kind there are, those of them
    that are more than a note in a line each, and where the page is.
    """
    told = [concern for concern in content["concerns"] if concern["seriousness"] != Seriousness.NOTE]
    lines = [{key: concern[key] for key in ("check", "seriousness", "title")} for concern in told]
    return {"verdict": verdict_sentence(content), "found": content["found"], "concerns": lines, "page": CHECK_PAGE}


def serious_of(summary: Json) -> list[str]:
    """The titles of the serious concerns that a run's summary tells of."""
    told = (summary.get("check") or {}).get("concerns") or []
    return [concern["title"] for concern in told if concern["seriousness"] == Seriousness.SERIOUS]


def cohort_sentence(facts: Json) -> str:
    """ "kermany: 5,216 images of 2,771 patients in two classes (NORMAL and PNEUMONIA); split: official." """
    classes = facts["classes"]
    whose = f"of {counted(facts['patients'], 'patient')}" if facts["patients"] is not None else "(patients unknown)"
    what = plural("label" if facts["task"] == "multilabel" else "class", len(classes))
    listed = f" ({joined(classes)})" if len(classes) <= 4 else ""
    images, how = counted(facts["images"], "image"), facts["split"]["how"]
    split = how if how == "not split" else f"split: {how}"
    return f"{facts['name']}: {images} {whose} in {spelled(len(classes))} {what}{listed}; {split}."


def caveats(content: Json) -> list[str]:
    """What a reader must know before silence is taken for good news."""
    cohort = content["cohort"]
    found = list(cohort["split"]["warnings"])
    if not cohort["is_split"]:
        found.insert(
            0,
            "The data are not split, so nothing was compared between training and test images. A study will split them "
            f"by {'patient' if cohort['patients_known'] else 'image'}; give its split.csv with --split to check that.",
        )
    if not cohort["patients_known"]:
        found.append(
            "Nobody said which images belong to the same patient, so every image counts as a patient of its own. A "
            "patient in both training and test would not be seen."
        )
    return found


def outcome(asked: Json) -> str:
    """Of one check, in a few words: "2 concerns", "nothing found" or "not checked"."""
    if asked["reason"]:
        return NOT_CHECKED
    return counted(asked["n_concerns"], "concern") if asked["n_concerns"] else NOTHING_FOUND


def looked_at(asked: Json) -> str:
    """ "looked at 13.6 million pairs of 5,216 images." from what the check says, with a capital letter or without."""
    text = asked["looked_at"].strip()
    is_word = text[1:2].islower()  # and no abbreviation
    return f"looked at {text[0].lower() + text[1:] if is_word else text}{'' if text.endswith('.') else '.'}"


def why_not(reason: str) -> str:
    """ "Not checked, because ..." from the reason as checks give it."""
    return f"Not checked, because {reason.strip().rstrip('.')}."
