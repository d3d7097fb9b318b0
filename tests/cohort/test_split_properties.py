"""Splits, whatever the patients: nobody on two sides, shares and strata near their target, the same again by seed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from trueread.cohort.cohort import SPLITS, Cohort
from trueread.cohort.split import apply_split, assign_splits, extend_split, save_split, split_note
from trueread.errors import InputError

PLAIN = {"deadline": None, "derandomize": True, "suppress_health_check": [HealthCheck.too_slow]}  # busy machines

seeds = st.integers(0, 2**32)
fractions = st.one_of(st.just(0.0), st.floats(0.01, 0.6))


def made(labels: np.ndarray, patients: list[str], *, task: str, split: list[str] | None = None, k: int = 3) -> Cohort:
    """A cohort of one-pixel images."""
    n = len(labels)
    table = pd.DataFrame({"id": [f"i{i}" for i in range(n)], "patient": patients, "split": split or [""] * n})
    images = np.zeros((n, 1, 1, 1), np.uint8)
    return Cohort("c", images, labels, table, tuple("abcdef"[:k]), task)  # type: ignore[arg-type]


@st.composite
def cohorts(draw, least: int = 3, most: int = 40):
    """Any sizes of patients (one of them may have most of the images), any labels, any order of the rows.

    One class per image, or multilabel with unknown labels; a patient may have several classes.
    """
    sizes = draw(st.lists(st.integers(1, 5), min_size=least, max_size=most))
    if draw(st.booleans()):
        sizes[0] = draw(st.integers(1, 100))
    patients = np.repeat(np.arange(len(sizes)), sizes)
    generator = np.random.default_rng(draw(seeds))
    patients = generator.permutation(patients)
    rare = draw(st.sampled_from([0.5, 0.2, 0.03]))
    if draw(st.booleans()):
        labels = np.where(generator.random((len(patients), 3)) < rare, 1, 0).astype(np.float32)
        labels[generator.random(labels.shape) < 0.1] = np.nan
        return made(labels, [f"p{p}" for p in patients], task="multilabel")
    labels = generator.choice(3, len(patients), p=[1 - rare, 0.6 * rare, 0.4 * rare])
    if draw(st.booleans()):  # all images of a patient have one class
        labels = labels[[int(np.flatnonzero(patients == p)[0]) for p in patients]]
    return made(labels.astype(np.int64), [f"p{p}" for p in patients], task="multiclass")


@st.composite
def shares(draw) -> dict[str, float]:
    val, test = draw(fractions), draw(fractions)
    assume(val + test < 0.95)
    return {"val": val, "test": test}


def n_splits(share: dict[str, float]) -> int:
    return 1 + (share["val"] > 0) + (share["test"] > 0)


def presence(cohort: Cohort) -> np.ndarray:
    return cohort.labels == 1 if cohort.task == "multilabel" else cohort.labels[:, None] == np.arange(cohort.n_classes)


class TestWhateverThePatients:
    @given(cohorts(), shares(), seeds)
    @settings(max_examples=80, **PLAIN)
    def test_every_patient_is_on_one_side_and_no_side_is_empty(self, cohort, share, seed):
        table = assign_splits(cohort, **share, seed=seed).table
        assert table["split"].isin(SPLITS).all()
        assert (table.groupby("patient")["split"].nunique() == 1).all()
        wanted = {"train"} | {s for s, v in share.items() if v > 0}
        assert set(table["split"]) == wanted

    @given(cohorts(), shares(), seeds)
    @settings(max_examples=40, **PLAIN)
    def test_neither_the_order_nor_the_ids_of_the_rows_matter(self, cohort, share, seed):
        split = assign_splits(cohort, **share, seed=seed).table.groupby("patient")["split"].first()
        order = np.random.default_rng(seed).permutation(len(cohort))
        shuffled = cohort.subset(order)
        renamed = dataclasses.replace(shuffled, table=shuffled.table.assign(id=[f"x{i}" for i in range(len(cohort))]))
        again = assign_splits(renamed, **share, seed=seed).table.groupby("patient")["split"].first()
        assert again.equals(split)

    @given(cohorts(), shares(), seeds)
    @settings(max_examples=60, **PLAIN)
    def test_every_class_is_in_every_split_or_the_note_names_it(self, cohort, share, seed):
        split = assign_splits(cohort, **share, seed=seed)
        warned = " ".join(split_note(split).warnings)
        there, names = presence(split), split.table["split"].to_numpy()
        for c, name in enumerate(split.classes):
            absent = [s for s in set(names) if not there[names == s, c].any()]
            assert bool(absent) == (f"Class '{name}'" in warned)
            n_patients = split.table["patient"][there[:, c]].nunique()
            one_class_each = split.task != "multilabel" and there.any(axis=1).all() and _one_class_each(split)
            if one_class_each and n_patients >= n_splits(share):
                assert not absent, f"{name} has {n_patients} patients"

    @given(cohorts(least=4), shares(), seeds)
    @settings(max_examples=60, **PLAIN)
    def test_the_shares_are_met_as_closely_as_whole_patients_allow(self, cohort, share, seed):
        """Within twice the largest patient: strata and shares pull in different directions where patients have several
        classes, and a patient may be moved to bring a class in.
        """
        split = assign_splits(cohort, **share, seed=seed)
        largest = int(split.table["patient"].value_counts().max())
        for name, wanted in {"train": 1 - sum(share.values()), **share}.items():
            n = len(split.rows(name))
            assert abs(n - wanted * len(split)) <= 2 * largest + cohort.n_classes

    @given(st.lists(st.integers(20, 120), min_size=2, max_size=4), shares(), seeds)
    @settings(max_examples=60, **PLAIN)
    def test_strata_of_single_images_are_off_by_two_at_most(self, counts, share, seed):
        """With one image per patient nothing is in the way: class by class the split has its share, give or take."""
        labels = np.repeat(np.arange(len(counts)), counts).astype(np.int64)
        task = "binary" if len(counts) == 2 else "multiclass"
        cohort = made(labels, [f"p{i}" for i in range(len(labels))], task=task, k=len(counts))
        split = assign_splits(cohort, **share, seed=seed)
        for name, wanted in {"train": 1 - sum(share.values()), **share}.items():
            found = split.class_counts(split.rows(name))
            assert np.abs(found - wanted * np.array(counts)).max() <= 2

    @given(st.integers(8, 60), st.integers(1, 4), seeds)
    @settings(max_examples=30, **PLAIN)
    def test_other_seeds_give_other_splits(self, n_patients, n_each, seed):
        patients = [f"p{i}" for i in range(n_patients) for _ in range(n_each)]
        cohort = made(np.zeros(len(patients), np.int64), patients, task="multiclass")
        assert len({tuple(assign_splits(cohort, seed=seed + k).table["split"]) for k in range(6)}) > 1


def _one_class_each(cohort: Cohort) -> bool:
    frame = cohort.table.assign(label=cohort.labels)
    return bool((frame.groupby("patient")["label"].nunique() == 1).all())


class TestWhatIsGiven:
    @given(cohorts(least=6), seeds)
    @settings(max_examples=30, **PLAIN)
    def test_what_is_split_stays_split(self, cohort, seed):
        split = assign_splits(cohort, val=0.1, test=0.25, seed=seed)
        again = assign_splits(split, val=0.4, test=0.4, seed=seed + 1)
        assert (again.table["split"] == split.table["split"]).all()

    @given(cohorts(least=8), seeds, st.sampled_from(["val", "test"]))
    @settings(max_examples=40, **PLAIN)
    def test_a_missing_split_is_taken_from_train_and_nothing_else_moves(self, cohort, seed, missing):
        kept = {"val": 0.0, "test": 0.0} | {s: 0.2 for s in ("val", "test") if s != missing}
        given_split = assign_splits(cohort, **kept, seed=seed)
        assume(given_split.table.loc[given_split.table["split"] == "train", "patient"].nunique() >= 2)
        whole = assign_splits(given_split, val=0.2, test=0.2, seed=seed)
        before, after = given_split.table["split"], whole.table["split"]
        assert (after[before != "train"] == before[before != "train"]).all()
        assert set(after[before == "train"]) == {"train", missing}

    @given(st.floats(allow_nan=True, allow_infinity=True), st.floats(allow_nan=True, allow_infinity=True))
    @settings(max_examples=100, **PLAIN)
    def test_any_two_numbers_are_shares_or_are_refused(self, val, test):
        cohort = made(np.arange(30) % 3, [f"p{i}" for i in range(30)], task="multiclass")
        possible = 0 <= val < 1 and 0 <= test < 1 and val + test < 1 - 1e-9
        if possible:
            assert assign_splits(cohort, val=val, test=test).is_split
        else:
            with pytest.raises(InputError, match="shares in"):
                assign_splits(cohort, val=val, test=test)


# everything a file system takes in a name, and what spreadsheets mangle
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
odd_names = st.sampled_from(
    ["NA", "nan", "", " a ", "007", "1e5", "a\rb", "a\nb", 'a"b', "a,b", "\ufeffx", "=1+1", "None"]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("splits")


class TestSaved:
    @given(st.lists(st.tuples(st.one_of(names, odd_names), st.integers(0, 4)), min_size=3, max_size=12, unique=True))
    @settings(max_examples=60, **PLAIN)
    def test_a_saved_split_is_the_same_split_whatever_the_names(self, folder, rows):
        ids = [f"{name}/{k}" for name, k in rows]
        patients = [name for name, _ in rows]
        n = len(rows)
        table = pd.DataFrame({"id": ids, "patient": patients, "split": ""}, dtype=object)
        images = np.zeros((n, 1, 1, 1), np.uint8)
        cohort = Cohort("c", images, np.arange(n, dtype=np.int64) % 2, table, ("a", "b"), "binary")
        assume(cohort.n_patients >= 3)
        split = assign_splits(cohort)
        path = folder / "saved.csv"
        save_split(split, path)
        order = np.random.default_rng(n).permutation(n)
        again = apply_split(cohort.subset(order), path)
        assert (again.table["split"].to_numpy() == split.table["split"].to_numpy()[order]).all()

    @given(cohorts(least=6), seeds, st.data())
    @settings(max_examples=40, **PLAIN)
    def test_images_that_come_later_never_bring_a_training_patient_into_the_test(self, folder, whole, seed, data):
        """Any part of the cohort is split and saved; then the whole comes, with new images of old patients."""
        keep = np.array(data.draw(st.lists(st.booleans(), min_size=len(whole), max_size=len(whole))))
        assume(keep.any() and whole.table["patient"][keep].nunique() >= 3)
        earlier = assign_splits(whole.subset(keep), seed=seed)
        path = folder / "later.csv"
        save_split(earlier, path)
        later = extend_split(whole, path)
        assert later is not None
        assert (later.table.groupby("patient")["split"].nunique() == 1).all()
        trained = set(earlier.table["patient"][earlier.table["split"] == "train"])
        tested = set(later.table["patient"][later.table["split"] == "test"])
        assert not trained & tested
        known = later.table["split"][keep].reset_index(drop=True)
        assert (known == earlier.table["split"]).all()
        assert set(later.table["patient"]) - set(earlier.table["patient"]) <= tested

    @given(cohorts(least=6), seeds, st.integers(1, 5))
    @settings(max_examples=40, **PLAIN)
    def test_patients_who_turn_out_to_be_one_follow_the_one_in_training(self, folder, cohort, seed, n_joined):
        """Somebody finds that p0 and p1 are the same person, and corrects the table after the training."""
        earlier = assign_splits(cohort, seed=seed)
        save_split(earlier, folder / "joined.csv")
        same = {f"p{k}": "p0" for k in range(n_joined + 1)}
        corrected = dataclasses.replace(
            cohort, table=cohort.table.assign(patient=cohort.table["patient"].replace(same))
        )
        later = extend_split(corrected, folder / "joined.csv")
        assert later is not None
        assert (later.table.groupby("patient")["split"].nunique() == 1).all()
        nearest = {s: SPLITS.index(s) for s in SPLITS}
        before, after = (c.table["split"].map(nearest) for c in (earlier, later))
        assert (after <= before).all()
        others = ~later.table["patient"].isin(["p0"])
        assert (after[others] == before[others]).all()
