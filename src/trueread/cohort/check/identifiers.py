"""What names say: which identifiers are one but for their spelling, and what part of a file name may be the patient."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pandas as pd

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")  # soft hyphen, zero-width blanks, byte order mark
_BETWEEN = re.compile(r"[\s\-_./\\:;,#|‐-―]+")
_PADDING = re.compile(r"(?<!\d)0+(?=\d)")
_ENDING = re.compile(r"\.\w+$")
_PIECES = re.compile(r"[^\W\d_]+|\d+|[\W_]+")  # letters, digits, or what is between them

MANY_GROUPS = 10  # at least, of images whose names begin alike
LARGEST_GROUP = 0.2  # of the images: one that is larger is a site or a class
IN_COMPANY = 0.25  # of the images share their group with another, or a pattern would group next to nothing
SOME_COMPANY = 0.05  # of those of one beginning: some series have one image of most people
COVERED = 0.5  # of the images have a name of a form in which a patient was found
COMMON_WORD = 0.05  # of the names; rarer words may be people's names and are not repeated in a pattern
COMMON_FORM = 20  # names
MOST_FORMS = 12
WORD, NUMBER = r"[^\W\d_]+", r"\d+"


def spelling_groups(identifiers: Sequence[str]) -> pd.Series:
    """Which identifiers are the same but for their spelling: a number for each such group, indexed by their position.

    The same means: after Unicode's compatibility form (NFKC), in one case, without blanks, separators and the zeros
    that pad a number. A separator between two digits stays, or 1-12 and 11-2 would be one. Zeros that are moved and not
    added ("p01-1", "p1-01") say that two identifiers were meant. Those without a namesake are not in the answer.
    """
    tight = [_tight(i) for i in identifiers]
    frame = pd.DataFrame({"tight": tight, "key": [_PADDING.sub("", t) for t in tight]})
    frame = frame[frame["key"].duplicated(keep=False)]
    different = frame.drop_duplicates(["key", "tight"])
    lengths = different["tight"].str.len().groupby(different["key"]).agg(["size", "nunique"])
    moved = lengths.index[(lengths["size"] > 1) & (lengths["nunique"] == 1)]
    frame = frame[~frame["key"].isin(moved)]
    return pd.Series(pd.factorize(frame["key"])[0], index=frame.index, dtype=np.int64)


def _tight(identifier: str) -> str:
    """In one case, without blanks and separators but a single "-" between two digits."""
    text = identifier.casefold()
    if not text.isascii():
        text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text).casefold())
    text = text.strip()
    if text.endswith(".0") and text[:-2].isdigit():  # what a column of numbers with a blank in it makes of 12
        text = text[:-2]
    parts = [part for part in _BETWEEN.split(text) if part]
    joined = parts[0] if parts else identifier
    for part in parts[1:]:
        joined += f"-{part}" if joined[-1].isdigit() and part[0].isdigit() else part
    return joined


@dataclass(frozen=True)
class PatientPattern:
    """A regular expression that may find the patient in a name, and what it finds in each of them."""

    expression: str
    found: list[str]


def patient_pattern(names: Sequence[str], *, classes: Set[str] = frozenset()) -> PatientPattern | None:
    """A part of file names that groups images as patients would: "person12" of "person12_bacteria_30.jpeg".

    names: "CLASS/file.png" or the like. classes: names that are of no patient.
    A folder below that of the class is tried first, then beginnings of the file's name up to a number or a word, the
    shortest first: to join two patients costs little, to part one would leak. None when nothing groups the images: at
    least ten groups, none larger than a fifth, and at least a quarter of the images not alone in theirs. The expression
    fits every name; where no patient is found it takes the file's name. It holds only words that many names share.
    """
    called = {c.casefold() for c in classes}
    return _in_folders(names, called) or _in_files(names, called)


def _in_folders(names: Sequence[str], classes: Set[str]) -> PatientPattern | None:
    folders = [name.split("/")[:-1] for name in names]
    depth = min(map(len, folders))
    if depth == 0 or depth != max(map(len, folders)):
        return None
    for level in range(depth):
        found = [parts[level] for parts in folders]
        if _are_many(found, classes) and _in_company(found) >= IN_COMPANY:
            return PatientPattern("([^/]+)" + (depth - level) * "/[^/]+" + "$", found)
    return None


def _in_files(names: Sequence[str], classes: Set[str]) -> PatientPattern | None:
    pieces = [_PIECES.findall(_ENDING.sub("", name[name.rfind("/") + 1 :])) for name in names]
    counts = Counter(chain.from_iterable(pieces))
    words = Counter[str]()
    for piece, n in counts.items():
        words[piece.casefold()] += n
    common = {word for word, n in words.items() if n >= COMMON_WORD * len(names)}
    form_of = {piece: _form(piece, common) for piece in counts}
    forms: dict[tuple[str, ...], list[int]] = {}
    for row, parts in enumerate(pieces):
        forms.setdefault(tuple(map(form_of.__getitem__, parts)), []).append(row)
    beginnings: dict[tuple[str, ...], list[int]] = {}
    for form, rows in sorted(forms.items(), key=lambda item: -len(item[1]))[:MOST_FORMS]:
        for end in _ends(form):
            beginnings.setdefault(form[:end], []).extend(rows)
    expressions: list[str] = []
    is_covered = np.zeros(len(names), bool)
    for beginning, rows in sorted(beginnings.items(), key=lambda item: (len(item[0]), -len(item[1]))):
        left = [row for row in rows if not is_covered[row]]
        found = ["".join(pieces[row][: len(beginning)]) for row in left]
        if len(left) >= COMMON_FORM and _are_many(found, classes) and _in_company(found) >= SOME_COMPANY:
            expressions.append("".join(beginning))
            is_covered[left] = True
    if is_covered.mean() < COVERED:
        return None
    one_of = "|".join(expressions)
    for expression in (one_of, f"{one_of}|[^/]+$", f"(?:^|/)((?:{one_of}|[^/]+))[^/]*$"):
        # The plainest that finds whole beginnings of the file's name, and nothing in the names of folders.
        matches = [m for m in map(re.compile(expression).search, names) if m]
        if len(matches) == len(names) and all(_begins_the_file(m) for m in matches):
            found = [m[m.re.groups] for m in matches]
            return PatientPattern(expression, found) if _in_company(found) >= IN_COMPANY else None
    return None


def _begins_the_file(found: re.Match[str]) -> bool:
    return found.start(found.re.groups) == found.string.rfind("/") + 1


def _form(piece: str, common: Set[str]) -> str:
    """A regular expression for a piece of a name; words that few names have become any word."""
    if piece[0].isdigit():
        return NUMBER
    if piece[0].isalpha():
        return re.escape(piece) if piece.casefold() in common else WORD
    return re.escape(piece).replace("\\-", "-").replace("\\ ", " ")


def _ends(form: tuple[str, ...]) -> Iterator[int]:
    """Where a beginning of the name may end: after a number or any word, with something left."""
    yield from (end for end in range(1, len(form)) if form[end - 1] in (WORD, NUMBER))


def _are_many(found: Sequence[str], classes: Set[str]) -> bool:
    """Whether these parts of names, one an image, are many, none of them common, and no names of classes."""
    counts = Counter(found)
    many = len(counts) >= MANY_GROUPS and max(counts.values()) <= LARGEST_GROUP * len(found)
    return many and not {c.casefold() for c in counts} <= classes


def _in_company(found: Sequence[str]) -> float:
    """The share of images whose part another image has too."""
    return sum(n for n in Counter(found).values() if n > 1) / len(found)
