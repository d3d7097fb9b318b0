"""Splits: no patient on two sides, the asked shares, every class everywhere, one seed one split in any order."""

from __future__ import annotations

import csv

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from trueread.cohort.cohort import SPLITS, Cohort
from trueread.cohort.split import (
    apply_split,
    assign_splits,
    extend_split,
    save_split,
    share_out,
    split_named,
    split_note,
)
from trueread.errors import InputError

NAMES = ("train", "val", "test")


def cohort_of(labels, patients=None, split="", *, task=None, classes=None) -> Cohort:
    """A cohort of black pixels: all that a split may look at is in the arguments."""
    labels = np.asarray(labels)
    n = len(labels)
    k = labels.shape[1] if labels.ndim == 2 else max(2, int(labels.max()) + 1)
    ids = [f"image {i}" for i in range(n)]
    table = pd.DataFrame(
        {"id": ids, "patient": ids if patients is None else [f"P{p}" for p in patients], "split": split}
    )
    return Cohort(
        name="made",
        images=np.zeros((n, 1, 1, 1), np.uint8),
        labels=labels.astype(np.float32 if labels.ndim == 2 else np.int64),
        table=table,
        classes=classes or tuple(f"class {c}" for c in range(k)),
        task=task or ("multilabel" if labels.ndim == 2 else "binary" if k == 2 else "multiclass"),
        patients_known=patients is not None,
    )


def clinic(n_patients=400, *, rare=0.05, seed=0, mixed=False) -> Cohort:
    """Binary, 95:5 by patient, one to many images each (long-tailed)."""
    generator = np.random.default_rng(seed)
    sizes = np.minimum(generator.geometric(0.35, n_patients), 25)
    patients = np.repeat(np.arange(n_patients), sizes)
    diseased = generator.random(n_patients) < rare
    diseased[:3] = True
    labels = diseased[patients]
    if mixed:
        labels = labels & (generator.random(len(labels)) < 0.7)
    return cohort_of(labels.astype(int), patients)


def shares(cohort: Cohort) -> dict[str, float]:
    return {s: len(cohort.rows(s)) / len(cohort) for s in NAMES}


@st.composite
def cohorts(draw):
    n_classes = draw(st.integers(2, 4))
    n_patients = draw(st.integers(12, 80))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = generator.geometric(draw(st.floats(0.2, 1.0)), n_patients)
    patients = np.repeat(np.arange(n_patients), sizes)
    weights = generator.dirichlet(np.full(n_classes, draw(st.floats(0.3, 5.0))))
    by_patient = generator.choice(n_classes, n_patients, p=weights)
    labels = by_patient[patients]
    if draw(st.booleans()):  # patients with images of several classes
        labels = np.where(generator.random(len(labels)) < 0.2, generator.choice(n_classes, len(labels)), labels)
    return cohort_of(labels, patients, classes=tuple("abcd"[:n_classes]), task="multiclass")


@settings(max_examples=150, deadline=None)
@given(
    cohort=cohorts(),
    seed=st.integers(0, 1000),
    val=st.sampled_from([0.1, 0.15, 0.3]),
    test=st.sampled_from([0.15, 0.2]),
)
@pytest.mark.slow
def test_properties_of_every_split(cohort, seed, val, test):
    found = assign_splits(cohort, val=val, test=test, seed=seed)
    assert found.is_split
    assert found.table.groupby("patient")["split"].nunique().max() == 1
    assert found.images is cohort.images
    # shares: within the largest patient, plus what it may cost to bring the rarest classes in
    largest = cohort.table["patient"].value_counts().max()
    for split, share in zip(NAMES, (1 - val - test, val, test), strict=True):
        assert abs(len(found.rows(split)) - share * len(cohort)) <= 2 * largest + cohort.n_classes
    # coverage, or a warning that names class and split
    note = split_note(found)
    for c, name in enumerate(cohort.classes):
        for split in NAMES:
            covered = found.class_counts(found.rows(split))[c] > 0
            assert covered != any(f"'{name}'" in w and split in w.partition("none in")[2] for w in note.warnings)
        if cohort.n_classes == 2 and cohort.table["patient"][cohort.labels == c].nunique() >= 3:
            assert all(found.class_counts(found.rows(split))[c] for split in NAMES)
    # deterministic, and blind to the order of the rows
    again = assign_splits(cohort, val=val, test=test, seed=seed)
    assert (again.table["split"] == found.table["split"]).all()
    order = np.random.default_rng(seed).permutation(len(cohort))
    shuffled = assign_splits(cohort.subset(order), val=val, test=test, seed=seed)
    assert (shuffled.table["split"].to_numpy() == found.table["split"].to_numpy()[order]).all()


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_95_to_5_meets_shares_and_prevalence(seed, mixed):
    cohort = clinic(seed=seed, mixed=mixed)
    found = assign_splits(cohort, seed=seed)
    for split, share in zip(NAMES, (0.7, 0.15, 0.15), strict=True):
        rows = found.rows(split)
        assert len(rows) / len(cohort) == pytest.approx(share, abs=0.005)
        assert found.labels[rows].sum() / cohort.labels.sum() == pytest.approx(share, abs=0.04)
        assert found.labels[rows].sum() > 0
    assert split_note(found).warnings == ()
    assert split_note(found).how == f"by patient, seed {seed}"


def test_closer_to_the_shares_than_folds_of_equal_size():
    """Against scikit-learn's StratifiedGroupKFold, which can only give 1/7 for 15 %: same data, same strata."""
    cohort = clinic(600, seed=3)
    groups = cohort.table["patient"].to_numpy()
    folds = StratifiedGroupKFold(7, shuffle=True, random_state=0).split(np.zeros(len(cohort)), cohort.labels, groups)
    errors = [abs(cohort.labels[rows].mean() - cohort.labels.mean()) for _, rows in folds]
    found = assign_splits(cohort)
    ours = [abs(found.labels[found.rows(s)].mean() - cohort.labels.mean()) for s in ("val", "test")]
    assert max(ours) <= max(errors)
    assert (
        max(abs(share - target) for share, target in zip(shares(found).values(), (0.7, 0.15, 0.15), strict=True))
        < 0.002
    )


def test_patients_with_many_images_are_in_every_split():
    """Filling the largest gap first would send them all to train."""
    patients = np.concatenate([np.repeat(np.arange(40), 20), 40 + np.arange(1200)])
    found = assign_splits(cohort_of(np.arange(2000) % 2, patients))
    large = found.table[found.table["patient"].isin([f"P{i}" for i in range(40)])]
    counts = large.drop_duplicates("patient")["split"].value_counts()
    assert counts.to_dict() == {"train": 28, "val": 6, "test": 6}


def test_another_seed_is_another_split_and_every_patient_gets_about_everywhere():
    cohort = clinic(100, rare=0.3)
    splits = np.stack([assign_splits(cohort, seed=s).table["split"].to_numpy() for s in range(60)])
    assert len({tuple(row) for row in splits}) == 60
    single = cohort.table["patient"].map(cohort.table["patient"].value_counts()).to_numpy() == 1
    in_test = (splits[:, single] == "test").mean(axis=0)
    assert in_test.min() > 0
    assert in_test.max() < 0.45
    assert in_test.mean() == pytest.approx(0.15, abs=0.07)


def test_train_and_test_have_patients_of_the_same_kind():
    """Over many cohorts the mean number of images per patient is the same in every split."""
    means = []
    for seed in range(30):
        groups = assign_splits(clinic(100, rare=0.3, seed=seed), seed=seed).table.groupby("split")["patient"]
        means.append(groups.size() / groups.nunique())
    means = pd.DataFrame(means).mean()
    assert means.max() / means.min() < 1.06


def test_three_patients_of_a_class_go_to_three_splits_and_fewer_are_warned_of():
    labels, patients = [0] * 60 + [1] * 3 + [2] * 4, [*range(60), 60, 61, 62, 63, 63, 64, 64]
    found = assign_splits(cohort_of(labels, patients))
    assert sorted(found.table["split"][60:63]) == ["test", "train", "val"]
    (warning,) = split_note(found).warnings
    assert warning.startswith("Class 'class 2' has 2 patients and none in ")


def test_a_class_nobody_has_is_warned_of():
    found = assign_splits(cohort_of([0, 1] * 20, range(40), classes=("a", "b", "c"), task="multiclass"))
    assert split_note(found).warnings == (
        "Class 'c' has 0 patients and none in train and val and test; numbers on it are undefined there.",
    )


def test_multilabel_stratifies_on_the_rarest_label_that_is_present():
    generator = np.random.default_rng(0)
    labels = (generator.random((3000, 4)) < [0.5, 0.2, 0.05, 0.004]).astype(np.float32)
    labels[generator.random(labels.shape) < 0.1] = np.nan
    labels[:5, 3] = 1
    cohort = cohort_of(labels, np.arange(3000) // 2)
    found = assign_splits(cohort)
    for split, share in zip(NAMES, (0.7, 0.15, 0.15), strict=True):
        rows = found.rows(split)
        assert len(rows) / 3000 == pytest.approx(share, abs=0.005)
        np.testing.assert_allclose(found.class_counts(rows)[:3] / cohort.class_counts()[:3], share, atol=0.03)
        assert found.class_counts(rows)[3] >= 1


@pytest.mark.parametrize(("val", "test"), [(0.0, 0.2), (0.2, 0.0), (0.0, 0.0)])
def test_a_share_of_nothing_leaves_the_split_out(val, test):
    found = assign_splits(clinic(), val=val, test=test)
    for split, share in zip(NAMES, (1 - val - test, val, test), strict=True):
        assert shares(found)[split] == pytest.approx(share, abs=0.005)
    assert (len(found.rows("val")) == 0) == (val == 0)


def test_unknown_patients_are_split_by_image_and_the_note_says_so():
    found = assign_splits(cohort_of([0, 1] * 50), seed=7)
    assert shares(found) == {"train": 0.7, "val": 0.15, "test": 0.15}
    assert split_note(found).how.startswith("by image, seed 7: patients are unknown, so images of one patient may be")


def official(**counts) -> Cohort:
    """Official splits of so many patients of two images each."""
    split = np.repeat(list(counts), [2 * n for n in counts.values()])
    return cohort_of(np.arange(len(split)) // 2 % 2, np.arange(len(split)) // 2, split)


def test_an_official_split_is_kept():
    cohort = official(train=10, val=2, test=3)
    found = assign_splits(cohort, val=0.4, test=0.4, seed=5)
    assert (found.table["split"] == cohort.table["split"]).all()
    assert split_note(found).how == split_note(cohort).how == "official"


@pytest.mark.parametrize(("missing", "kept"), [("val", "test"), ("test", "val")])
def test_the_missing_part_is_taken_from_train(missing, kept):
    cohort = official(train=200, **{kept: 100})
    found = assign_splits(cohort, val=0.2, test=0.2)
    np.testing.assert_array_equal(found.rows(kept), cohort.rows(kept))
    assert len(found.rows(missing)) == pytest.approx(0.2 * 400, abs=2)
    assert found.table.groupby("patient")["split"].nunique().max() == 1
    assert split_note(found).how == f"official; {missing} taken from train by patient, seed 0"


def test_train_alone_gives_both_and_no_train_is_warned_of():
    found = assign_splits(official(train=100))
    assert split_note(found).how == "official; val and test taken from train by patient, seed 0"
    assert shares(found) == {"train": 0.7, "val": 0.15, "test": 0.15}
    external = assign_splits(official(test=10))
    assert set(external.table["split"]) == {"test"}
    assert split_note(external).warnings == ("No image is in train, so nothing can be trained.",)
    assert split_note(assign_splits(official(train=9, test=9), val=0)).how == "official"


def test_a_split_of_only_some_images_is_refused():
    cohort = official(train=4, test=2)
    table = cohort.table.assign(split=[*cohort.table["split"][:-4], *[""] * 4])
    with pytest.raises(
        InputError, match=r"4 images have no split while others do .*'image 8'.*give all images a split or none"
    ):
        assign_splits(cohort.with_split(table["split"]))


@pytest.mark.parametrize(("val", "test"), [(0.6, 0.4), (-0.1, 0.2), (float("nan"), 0.1), (1.0, 0.0)])
def test_impossible_shares_are_refused(val, test):
    with pytest.raises(InputError, match=r"val and test must be shares"):
        assign_splits(clinic(), val=val, test=test)


def test_two_patients_cannot_fill_three_splits():
    with pytest.raises(InputError, match="2 patients cannot be shared among train, val, test"):
        assign_splits(cohort_of([0, 1, 0, 1], [0, 0, 1, 1]))
    assert assign_splits(cohort_of([0, 1, 0, 1, 1], [0, 0, 1, 1, 2])).is_split


def test_a_class_is_weighed_by_its_images_and_not_by_all_images_of_its_patients():
    """Forty patients of ten images; ten have 1 image of the rare class, ten have 9: both kinds are dealt out evenly."""
    rare = np.repeat([1, 9, 0], [10, 10, 20])
    counts = np.stack([10 - rare, rare], axis=1)
    choice = share_out(np.full(40, 10), counts, np.random.default_rng(0).permutation(40), np.array([0.5, 0.5]))
    assert rare[choice == 0].sum() == rare[choice == 1].sum() == 50
    assert (choice == 0).sum() == 20


def test_share_out_by_hand():
    """Seven patients of equal size, one class: the quotients (n + 1/2) / share are dealt out in their order."""
    choice = share_out(np.ones(7, int), np.ones((7, 1), bool), np.arange(7), np.array([0.6, 0.4]))
    # train 0.83 2.5 4.2 5.8, test 1.25 3.75 6.25: sorted 0 1 0 1 0 0 1
    np.testing.assert_array_equal(choice, [0, 1, 0, 1, 0, 0, 1])


@pytest.mark.parametrize(
    "word", ["Training", "train ", "VALID", "validation", "dev", "Test", "testing", "holdout", "NORMAL", ""]
)
def test_words_for_splits(word):
    expected = {"tr": "train", "va": "val", "de": "val", "te": "test", "ho": "test"}
    assert split_named(word) == expected.get(word.lower()[:2])


def test_a_saved_split_is_applied_in_any_order(tmp_path):
    cohort = clinic(60)
    cohort = cohort.subset(np.arange(len(cohort)))
    awkward = cohort.table["id"].where(cohort.table.index != 3, ' a, "b"\nü/ ')
    cohort = Cohort(**{**vars_of(cohort), "table": cohort.table.assign(id=awkward)})
    split = assign_splits(cohort, seed=4)
    save_split(split, tmp_path / "split.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["split.csv"]
    with (tmp_path / "split.csv").open(newline="", encoding="utf-8") as file:
        assert next(csv.reader(file)) == ["id", "patient", "split"]
    order = np.random.default_rng(0).permutation(len(cohort))
    applied = apply_split(cohort.subset(order), tmp_path / "split.csv")
    assert (applied.table["split"].to_numpy() == split.table["split"].to_numpy()[order]).all()
    assert split_note(applied).how == "as saved in split.csv"


def vars_of(cohort: Cohort) -> dict:
    return {name: getattr(cohort, name) for name in cohort.__dataclass_fields__}


def test_the_split_of_other_data_is_refused(tmp_path):
    cohort = cohort_of([0, 1] * 10, np.arange(20) // 2)
    path = tmp_path / "split.csv"
    with pytest.raises(InputError, match="made is not split yet; call assign_splits"):
        save_split(cohort, path)
    save_split(assign_splits(cohort), path)
    saved = path.read_text(encoding="utf-8")

    cases = [
        (cohort.subset(np.arange(18)), saved, r"2 images are not in the data \(the first is 'image 18'\)"),
        (cohort, "\n".join(saved.splitlines()[:-1]), r"1 images are not in it \(the first is 'image 19'\)"),
        (
            cohort,
            saved.replace("image 3,P1", "image 3,P9"),
            "'image 3' belongs to patient 'P9' there and to 'P1' in the data",
        ),
        (cohort, saved + saved.splitlines()[-1], "image 'image 19' is listed twice"),
        (cohort, saved.replace("train", "tarin"), r"row \d+: expected train, val or test; found 'tarin'"),
    ]
    for data, text, message in cases:
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=rf"{path}.*{message}.*or (give )?another run folder"):
            apply_split(data, path)
    path.write_text(saved.replace("patient", "subject", 1), encoding="utf-8")
    with pytest.raises(InputError, match=r"split.csv has no column 'patient'"):
        apply_split(cohort, path)
    with pytest.raises(InputError, match="cannot be read"):
        apply_split(cohort, tmp_path / "gone.csv")


def test_a_saved_split_with_a_patient_on_two_sides_is_refused(tmp_path):
    cohort = cohort_of([0, 1, 0, 1], [0, 0, 1, 1])
    (tmp_path / "split.csv").write_text(
        "id,patient,split\nimage 0,P0,train\nimage 1,P0,test\nimage 2,P1,val\nimage 3,P1,val\n", encoding="utf-8"
    )
    with pytest.raises(InputError, match="patient 'P0' is in test and in train"):
        apply_split(cohort, tmp_path / "split.csv")


def test_splits_are_those_of_the_cohort():
    assert SPLITS == NAMES


def saved_as(path, rows: str):
    path.write_text("id,patient,split\n" + rows.replace(" / ", "\n") + "\n", encoding="utf-8")
    return path


def test_an_extended_split_tests_new_images_but_no_known_patient(tmp_path):
    cohort = cohort_of([0, 1, 0, 1, 0, 1, 0], [0, 0, 1, 2, 2, 3, 4])
    path = saved_as(tmp_path / "split.csv", "image 0,P0,train / image 2,P1,test / other,P2,val / image 5,P3,val")
    extended = extend_split(cohort, path)
    assert extended is not None
    assert list(extended.table["split"]) == ["train", "train", "test", "val", "val", "val", "test"]
    assert split_note(extended).how == (
        "as saved in split.csv for 3 of 7 images; 4 are new and for the test, "
        "but 3 are of patients in train or val there and left out of it"
    )
    order = np.random.default_rng(0).permutation(7)
    shuffled = extend_split(cohort.subset(order), path)
    assert list(shuffled.table["split"]) == [list(extended.table["split"])[i] for i in order]


def test_an_extended_split_wins_over_the_official_one_and_keeps_patients_whole(tmp_path):
    cohort = cohort_of([0, 1, 0, 1], [0, 0, 1, 1]).with_split(["test", "test", "train", "train"])
    path = saved_as(tmp_path / "split.csv", "image 0,a,train / image 1,b,test / image 2,c,test / image 3,d,test")
    assert list(extend_split(cohort, path).table["split"]) == ["train", "train", "test", "test"]


def test_no_image_in_common_extends_nothing_and_a_damaged_file_is_refused(tmp_path):
    cohort = cohort_of([0, 1], [0, 1])
    assert extend_split(cohort, saved_as(tmp_path / "split.csv", "other,P0,train")) is None
    with pytest.raises(InputError, match=r"expected train, val or test; found 'tarin'.*another run folder"):
        extend_split(cohort, saved_as(tmp_path / "split.csv", "image 0,P0,tarin"))
