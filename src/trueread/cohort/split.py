"""Who trains and who tests: patient-wise, stratified, seeded splits that can be saved and used again."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd

from trueread.cohort.cohort import SPLITS, Cohort
from trueread.cohort.rows import column, read_rows
from trueread.errors import InputError
from trueread.files import write_csv

NEGLIGIBLE = 1e-9  # a share below it is none
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "holdout"), "test"),
}


@dataclass(frozen=True)
class SplitNote:
    """How a split came about, in words for the report, and what it could not do.

    how: "official", "by patient, seed 0", "by image, seed 0: patients are unknown, ...", "as saved in split.csv".
    warnings: one sentence for each class that is not in every split.
    """

    how: str
    warnings: tuple[str, ...] = ()


def split_named(word: str) -> str | None:
    """ "train", "val" or "test" from the word a data set uses for it ("Validation", "dev", ...); None for others."""
    return SPLIT_WORDS.get(word.strip().casefold())


def split_note(cohort: Cohort) -> SplitNote:
    """How the cohort was split, as `assign_splits` or `apply_split` noted it in its `origin`."""
    note = cohort.origin.get("split_note")
    if note is None:
        return SplitNote("official" if cohort.is_split else "not split")
    return SplitNote(note["how"], tuple(note["warnings"]))


def assign_splits(cohort: Cohort, *, val: float = 0.15, test: float = 0.15, seed: int = 0) -> Cohort:
    """The cohort with every image in train, val or test; `split_note` of the result says how.

    val, test: shares of the images, in [0, 1); train is the rest and may not be empty. Patients stay whole, so the
        shares are met as closely as their sizes allow. 0 leaves that split out.
    seed: the same seed and the same patients give the same split, whatever the order of the rows.

    A cohort that comes with train, val and test keeps them. If it has train but lacks val or test, the missing one is
    taken from train, as a share of train. Without patients, every image is its own patient and the note says so.
    Patients are stratified by the rarest class they have (multilabel: the rarest label that is present), and every
    class with at least as many patients as there are splits is in each of them; the note warns of any that is not.
    Raises InputError for impossible shares, for fewer patients than splits, and when only some images have a split.
    """
    shares = {"train": 1 - val - test, "val": val, "test": test}
    if not (0 <= val < 1 and 0 <= test < 1 and shares["train"] > NEGLIGIBLE):  # also refuses nan
        raise InputError(
            f"val and test must be shares in [0, 1) that leave some for train; found {val} and {test}; lower one."
        )
    given = cohort.table["split"].to_numpy(dtype=object)
    present = {str(s) for s in given}
    if "" in present and len(present) > 1:
        position = int(np.flatnonzero(given == "")[0])
        raise InputError(
            f"{cohort.name}: {int((given == '').sum())} images have no split while others do (the first is "
            f"'{cohort.table['id'].iloc[position]}'); give all images a split or none."
        )
    if "" in present:
        pool, wanted, prefix = np.arange(len(cohort)), shares, ""
    else:
        pool = np.flatnonzero(given == "train")
        missing = {s: shares[s] for s in ("val", "test") if s not in present and shares[s] > NEGLIGIBLE}
        if not missing or len(pool) == 0:
            untrainable = [] if len(pool) else ["No image is in train, so nothing can be trained."]
            return _noted(cohort, given, split_note(cohort).how, untrainable + _uncovered(cohort, given))
        wanted = {"train": 1 - sum(missing.values()), **missing}
        prefix = f"official; {' and '.join(missing)} taken from train "
    wanted = {s: share for s, share in wanted.items() if share > NEGLIGIBLE}
    assigned = given.copy()
    assigned[pool] = _by_patient(cohort, pool, wanted, seed)
    how = prefix + (
        f"by patient, seed {seed}"
        if cohort.patients_known
        else f"by image, seed {seed}: patients are unknown, so images of one patient may be on both sides"
    )
    return _noted(cohort, assigned, how, _uncovered(cohort, assigned))


def save_split(cohort: Cohort, path: str | os.PathLike[str]) -> None:
    """Write id, patient and split of every image to a CSV file, whole or not at all."""
    if not cohort.is_split:
        raise InputError(f"{cohort.name} is not split yet; call assign_splits before save_split.")
    write_csv(Path(path), cohort.table[["id", "patient", "split"]])


def apply_split(cohort: Cohort, path: str | os.PathLike[str]) -> Cohort:
    """The cohort split as a file of `save_split` says, whatever the order of its rows.

    Raises InputError when an image is missing there, unknown here, listed twice, or belongs to another patient: a split
    of other data would be a silent leak.
    """
    saved = _read_split(Path(path))
    advice = "It was made for other data; give the same patient=... and data as in that run, or another run folder."
    ids = pd.Index(cohort.table["id"], dtype=object)
    for odd_ids, what in ((ids.difference(saved.index), "not in it"), (saved.index.difference(ids), "not in the data")):
        if len(odd_ids):
            raise InputError(f"{path}: {len(odd_ids)} images are {what} (the first is '{odd_ids[0]}'). {advice}")
    saved = saved.loc[ids]
    moved = np.flatnonzero(saved["patient"].to_numpy() != cohort.table["patient"].astype(str).to_numpy())
    if len(moved):
        i = int(moved[0])
        raise InputError(
            f"{path}: image '{ids[i]}' belongs to patient '{saved['patient'].iloc[i]}' there and to "
            f"'{cohort.table['patient'].iloc[i]}' in the data. {advice}"
        )
    assigned = saved["split"].to_numpy(dtype=object)
    return _noted(cohort, assigned, f"as saved in {Path(path).name}", _uncovered(cohort, assigned))


def extend_split(cohort: Cohort, path: str | os.PathLike[str]) -> Cohort | None:
    """The cohort split so that nothing the saved split trains or tunes on is tested; None when they share no image.

    Images the file knows by id keep their split and new ones are for the test, except that all images of a patient
    follow the one that is nearest to training, by the cohort's patients or the file's: a new image of a patient seen
    in training is no new patient. `split_note` of the result counts both. Raises InputError for a damaged file.
    """
    saved = _read_split(Path(path))
    table = cohort.table.astype({"id": object, "patient": str})
    rank = saved["split"].map(SPLITS.index)  # 0 is train: the smallest of a patient's ranks is nearest to training
    by_id = table["id"].map(rank)
    if by_id.isna().all():
        return None
    new = by_id.isna()
    by_patient = table["patient"].map(rank.groupby(saved["patient"]).min())
    alone = by_id.fillna(by_patient).fillna(SPLITS.index("test"))
    together = alone.groupby(table["patient"]).transform("min").astype(int)
    seen = int(((together < SPLITS.index("test")) & (new | (by_id == SPLITS.index("test")))).sum())
    how = f"as saved in {Path(path).name} for {int((~new).sum())} of {len(cohort)} images"
    if new.any():
        how += f"; {int(new.sum())} are new and for the test"
    if seen:
        how += f", but {seen} are of patients in train or val there and left out of it"
    assigned = np.array(SPLITS, dtype=object)[together.to_numpy()]
    return _noted(cohort, assigned, how, _uncovered(cohort, assigned))


def _read_split(path: Path) -> pd.DataFrame:
    """`patient` and `split` by id, as text. Raises InputError when the file is not one of `save_split`."""
    saved = read_rows(path, strip=False)
    for needed in ("id", "patient", "split"):
        column(needed, saved, file=path.name, role=needed)
    advice = "Restore the file as it was saved, or give another run folder."
    if saved["id"].duplicated().any():
        raise InputError(f"{path}: image '{saved['id'][saved['id'].duplicated()].iloc[0]}' is listed twice. {advice}")
    if (odd := saved[~saved["split"].isin(SPLITS)]).size:
        raise InputError(
            f"{path}, row {odd.index[0]}: expected train, val or test; found '{odd['split'].iloc[0]}'. {advice}"
        )
    return saved.set_index("id")


def _noted(cohort: Cohort, assigned: np.ndarray, how: str, warnings: Sequence[str]) -> Cohort:
    split = cohort.with_split(assigned)
    return replace(split, origin={**cohort.origin, "split_note": {"how": how, "warnings": list(warnings)}})


def _presence(cohort: Cohort) -> np.ndarray:
    """bool [N,K]: which classes (multilabel: which labels, surely) an image has."""
    if cohort.task == "multilabel":
        return cohort.labels == 1
    return cohort.labels[:, None] == np.arange(cohort.n_classes)


def _by_patient(cohort: Cohort, pool: np.ndarray, shares: Mapping[str, float], seed: int) -> np.ndarray:
    """object [len(pool)]: the split of each image of the pool."""
    names = cohort.table["patient"].iloc[pool].astype(str)
    codes, patients = pd.factorize(names, sort=True)  # sorted, so that the order of the rows cannot matter
    if len(patients) < len(shares):
        raise InputError(
            f"{cohort.name}: {len(patients)} patients cannot be shared among {', '.join(shares)}; "
            "collect more patients, or set val or test to 0."
        )
    sizes = np.bincount(codes)
    counts = np.zeros((len(patients), cohort.n_classes), np.int64)
    np.add.at(counts, codes, _presence(cohort)[pool])
    tickets = [blake2b(f"{seed}:{patient}".encode(errors="surrogateescape"), digest_size=8) for patient in patients]
    lots = np.argsort(np.argsort([int.from_bytes(ticket.digest()) for ticket in tickets], kind="stable"))
    choice = share_out(sizes, counts, lots, np.array(list(shares.values())))
    return np.array(list(shares), dtype=object)[choice][codes]


def share_out(sizes: np.ndarray, counts: np.ndarray, lots: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """int64 [P]: which of the S splits each patient goes to.

    sizes: int [P] images per patient. counts: int [P,K], how many of each class; bool where all or none are.
    lots: int [P], a random permutation. shares: float [S], positive, sum 1.

    Each patient's stratum is the class it has that fewest patients have. Strata come rarest first, patients in them by
    falling number of images of that class and by lot among equals, and each goes where the stratum and the whole would
    be filled least, counting half of the newcomer: the rule of Sainte-Lague for seats in a parliament. (Filling the
    largest gap first would send all patients with many images to train, and test would be of another kind.) Then
    classes that a split lacks are brought in, see `_cover`.
    """
    counts = counts * sizes[:, None] if counts.dtype == bool else counts
    rarest_first = np.argsort((counts > 0).sum(axis=0), kind="stable")
    counts = np.column_stack([counts[:, rarest_first], sizes])  # the last stratum: patients of no class at all
    stratum = (counts > 0).argmax(axis=1)
    mass = counts[np.arange(len(counts)), stratum]
    in_stratum = np.zeros((counts.shape[1], len(shares)))
    in_all = np.zeros(len(shares))
    totals = np.bincount(stratum, weights=mass, minlength=counts.shape[1])
    choice, n_images = np.empty(len(counts), np.int64), sizes.sum()
    for p in np.lexsort((lots, -sizes, -mass, stratum)):
        s = stratum[p]
        filled = (in_stratum[s] + mass[p] / 2) / totals[s] + (in_all + sizes[p] / 2) / n_images
        choice[p] = np.argmin(filled / shares)
        in_stratum[s, choice[p]] += mass[p]
        in_all[choice[p]] += sizes[p]
    return _cover(choice, sizes, counts > 0, lots, len(shares))


def _cover(choice: np.ndarray, sizes: np.ndarray, presence: np.ndarray, lots: np.ndarray, n_splits: int) -> np.ndarray:
    """Move as few and as small patients as it takes for every class to be in every split, where it has enough patients.

    presence: bool [P,K+1]; the last column is true for all, so that no split stays empty.
    """
    choice = choice.copy()
    presence = presence[:, presence.sum(axis=0) >= n_splits]
    for c in range(presence.shape[1]):
        for s in range(n_splits):
            if (presence[:, c] & (choice == s)).any():
                continue
            n_patients = np.stack([presence[choice == t].sum(axis=0) for t in range(n_splits)])  # of each class
            last = (presence & (n_patients[choice] == 1)).any(axis=1)  # whose going would uncover a class
            movable = np.flatnonzero(presence[:, c] & ~last)
            if len(movable):
                choice[movable[np.lexsort((lots[movable], sizes[movable]))[0]]] = s
    return choice


def _uncovered(cohort: Cohort, assigned: np.ndarray) -> list[str]:
    """A sentence for every class that some split has no image of."""
    presence = _presence(cohort)
    patients = cohort.table["patient"].to_numpy()
    used = [s for s in SPLITS if (assigned == s).any()]
    warnings = []
    for c, name in enumerate(cohort.classes):
        absent = [s for s in used if not presence[assigned == s, c].any()]
        if absent:
            n = len(set(patients[presence[:, c]]))
            whose = f"{n} {'patient' if n == 1 else 'patients'}" if cohort.patients_known else f"{n} images"
            warnings.append(
                f"Class '{name}' has {whose} and none in {' and '.join(absent)}; numbers on it are undefined there."
            )
    return warnings
