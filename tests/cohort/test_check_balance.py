"""Class balance: what is missing, few or unequal is said with its numbers, and splits drawn by lot rarely alarm."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from scipy.stats import hypergeom

from tiny import tiny_cohort
from trueread.cohort import load_cohort
from trueread.cohort.check import Answer, Concern, Seriousness, run_check
from trueread.cohort.check.balance import ClassBalance
from trueread.cohort.check.shares import Compared, compared_shares, exchanged
from trueread.cohort.cohort import Cohort
from trueread.cohort.split import assign_splits
from trueread.stats.association import linked

SERIOUS, LOOK, NOTE = Seriousness.SERIOUS, Seriousness.LOOK, Seriousness.NOTE
NAN = np.nan


def cohort_of(
    labels: object, split: object = "", *, patients: object = None, classes: tuple[str, ...] = ("no", "yes"),
    task: str = "", known: bool = True,
) -> Cohort:  # fmt: skip
    """One pixel per image; an image is its own patient unless `patients` says otherwise."""
    given = np.asarray(labels)
    task = task or ("multilabel" if given.ndim == 2 else "binary" if len(classes) == 2 else "multiclass")
    given = given.astype(np.float32 if given.ndim == 2 else np.int64)
    n = len(given)
    whose = [f"p{k}" for k in (range(n) if patients is None else patients)]  # type: ignore[attr-defined]
    table = pd.DataFrame({"id": [f"i{k}" for k in range(n)], "patient": whose, "split": split})
    images = np.zeros((n, 1, 1, 1), np.uint8)
    return Cohort("made", images, given, table, classes, task, patients_known=known)  # type: ignore[arg-type]


def split_of(train: int, val: int, test: int) -> list[str]:
    return ["train"] * train + ["val"] * val + ["test"] * test


def asked(cohort: Cohort, **options: int) -> Answer:
    answer = run_check(ClassBalance(**options), cohort)
    assert not answer.reason
    return answer


def only(cohort: Cohort, words: str, **options: int) -> Concern:
    [found] = asked(cohort, **options).concerns
    assert words in found.title, found.title
    return found


class TestTable:
    def test_by_hand(self):
        split = split_of(4, 0, 3)
        table = asked(cohort_of([0, 0, 0, 1, 1, 1, 0], split, patients=[0, 0, 1, 1, 2, 2, 2])).table
        assert table.to_dict("list") == {
            "class": ["no", "yes"] * 3,
            "split": ["all", "all", "train", "train", "test", "test"],
            "images": [4, 3, 3, 1, 1, 2],
            "patients": [3, 2, 2, 1, 1, 1],
            "share": [4 / 7, 3 / 7, 3 / 4, 1 / 4, 1 / 3, 2 / 3],
        }

    def test_labels_that_may_be_unknown(self):
        labels = [[1, NAN], [0, NAN], [NAN, 1], [0, 0]]
        table = asked(cohort_of(labels, classes=("a", "b"), known=False)).table
        assert "patients" not in table
        assert table[["images", "without", "unknown"]].to_numpy().tolist() == [[1, 2, 1], [1, 1, 2]]
        assert table["share"].tolist() == [1 / 3, 1 / 2]
        assert np.isnan(asked(cohort_of([[1, NAN], [0, NAN]], classes=("a", "b"))).table["share"][1])  # nobody knows b


class TestMissing:
    def test_in_the_whole_cohort(self):
        found = only(cohort_of([0, 2] * 30, classes=("a", "b", "c")), "No image of 'b' is in the cohort.")
        assert found.seriousness is SERIOUS

    @pytest.mark.parametrize(("place", "kind"), [("train", SERIOUS), ("val", LOOK), ("test", SERIOUS)])
    def test_in_a_split(self, place, kind):
        split = np.array(split_of(60, 60, 60))
        labels = np.arange(180) % 2
        labels[split == place] = 0
        concerns = [c for c in asked(cohort_of(labels, split)).concerns if c.title.startswith("No image")]
        assert [(c.title, c.seriousness) for c in concerns] == [(f"No image of 'yes' is in {place}.", kind)]

    def test_a_label_without_negatives_in_test(self):
        labels = np.stack([np.arange(120) % 2, np.arange(120) // 2 % 2], axis=1)
        labels[80:, 1] = 1
        concerns = asked(cohort_of(labels, split_of(80, 0, 40), classes=("a", "b"))).concerns
        assert "No image without 'b' is in test." in [c.title for c in concerns]

    def test_many_are_listed_in_part(self):
        labels = np.repeat(np.arange(9), 20)
        split = np.where((labels < 2) & (np.arange(180) % 2 == 0), "test", "train")
        found = next(c for c in asked(cohort_of(labels, split, classes=tuple("abcdefghi"))).concerns)
        assert found.title == "No image of 'c', of 'd', of 'e', of 'f' or 3 others is in test."
        assert len(found.table) == 7

    def test_a_cohort_that_is_only_for_the_test_lacks_nothing(self):
        assert asked(cohort_of([0, 1] * 30, "test")).concerns == ()


class TestFew:
    def test_patients_and_not_images_count(self):
        labels = [0] * 100 + [1] * 40
        patients = [*range(100), *(100 + k // 5 for k in range(40))]
        found = only(cohort_of(labels, patients=patients), "Few patients: 8 patients of 'yes'.")
        assert (found.seriousness, found.n_images) == (LOOK, 40)
        assert asked(cohort_of(labels, patients=patients), few_patients=8).concerns == ()

    def test_of_each_split(self):
        labels = np.concatenate([np.arange(200) % 2, [1] * 3, [0] * 6, [1] * 7, [0] * 9])
        split = split_of(200, 9, 16)
        found = asked(cohort_of(labels, split)).concerns[0]
        assert found.title == (
            "Few patients: 3 patients of 'yes' in val, 7 patients of 'yes' in test, 9 patients of 'no' in test."
        )

    def test_images_where_patients_are_unknown(self):
        only(cohort_of([0] * 40 + [1] * 5, known=False), "Few images: 5 images of 'yes'.")

    def test_both_sides_of_a_label(self):
        labels = np.stack([np.arange(60) % 2, np.arange(60) < 55], axis=1)
        title = asked(cohort_of(labels, classes=("a", "b"))).concerns[0].title
        assert title == "Few patients: 5 patients without 'b'."


class TestShares:
    def test_a_test_set_of_the_ill_is_named(self):
        labels = np.concatenate([np.arange(300) % 10 == 0, np.arange(100) % 2 == 0])
        found = only(cohort_of(labels, split_of(300, 0, 100)), "('yes' 10 % and 50 %)")
        assert found.seriousness is LOOK
        assert "each patient counting once" not in found.title
        assert found.table["odds ratio"].tolist() == pytest.approx([9.0])

    def test_only_the_classes_that_differ(self):
        draw = np.random.default_rng(0)
        labels = np.concatenate(
            [draw.choice(4, 800, p=[0.4, 0.1, 0.1, 0.4]), draw.choice(4, 400, p=[0.4, 0.3, 0.1, 0.2])]
        )
        found = only(cohort_of(labels, split_of(800, 0, 400), classes=tuple("abcd")), "than in test")
        assert found.table["class"].tolist() == ["b", "d"]

    def test_one_patient_with_many_images_is_no_difference(self):
        labels = np.concatenate([np.arange(200) % 2, np.arange(40) % 2, np.ones(300)])
        patients = [*range(240), *[239] * 300]
        concerns = asked(cohort_of(labels, split_of(200, 0, 340), patients=patients)).concerns
        assert not any("shares" in c.title for c in concerns)

    def test_a_difference_too_small_to_matter(self):
        labels = np.concatenate([np.arange(20_000) % 100 < 50, np.arange(20_000) % 100 < 55])
        assert asked(cohort_of(labels, split_of(20_000, 0, 20_000))).concerns == ()

    def test_unknown_labels_do_not_count(self):
        draw = np.random.default_rng(1)
        labels = (draw.random((600, 2)) < 0.4).astype(np.float32)
        labels[400:, 0] = np.where(draw.random(200) < 0.4, 1, NAN)  # in test only what is there was written down
        cohort = cohort_of(labels, split_of(400, 0, 200), classes=("a", "b"))
        assert "No image without 'a' is in test." in [c.title for c in asked(cohort).concerns]
        names = [one.name for one in compared_shares(cohort, permutations=1000, seed=0) if one.is_apart]
        assert names == ["a"]

    def test_odds(self):
        assert Compared("a", "test", 0.1, 0.5).odds_ratio == pytest.approx(9)
        assert Compared("a", "test", 0.5, 0.1).odds_ratio == pytest.approx(9)
        assert Compared("a", "test", 0.5, 1.0).is_apart

    @pytest.mark.parametrize(
        ("n", "n_ill", "n_there", "ill_there"), [(80, 40, 16, 12), (400, 8, 60, 5), (90, 9, 30, 3)]
    )
    def test_p_is_fishers_where_a_patient_has_one_class(self, n, n_ill, n_there, ill_there):
        shares, there = np.zeros(n), np.zeros(n, bool)
        shares[:n_ill] = 1
        there[:ill_there] = there[n_ill : n_ill + n_there - ill_there] = True
        by_lot = hypergeom(n, n_ill, n_there)
        expected = min(2 * min(by_lot.sf(ill_there - 1), by_lot.cdf(ill_there)), 1)
        p = exchanged(shares, there, permutations=100_000, seed=0)
        assert p == pytest.approx(expected, abs=4 * np.sqrt(2 * expected / 100_000) + 2e-5)

    def test_p_is_near_that_of_the_general_test_where_classes_mix(self):
        for trial in range(4):
            draw = np.random.default_rng(trial)
            of_patients = draw.choice([0.0, 0.25, 0.5, 1.0], 200)
            there = draw.random(200) < 0.4 + 0.12 * of_patients
            clusters = np.repeat(np.arange(200), 4)
            values = (np.arange(800) % 4 < 4 * of_patients[clusters])[:, None].astype(float)
            other = linked(values, there[clusters].astype(float), clusters, permutations=10_000, seed=1)
            p = exchanged(of_patients, there, permutations=10_000, seed=2)
            assert p == pytest.approx(other.p_value[0], rel=0.25, abs=0.01)

    def test_a_rare_class_that_went_to_the_test_is_seen(self):
        labels = np.concatenate([np.arange(1700) < 10, np.arange(300) < 12])
        found = asked(cohort_of(labels, split_of(1700, 0, 300))).concerns[0]
        assert "('yes' 0.59 % and 4 %)" in found.title

    def test_many_different_shares(self):
        draw = np.random.default_rng(0)
        shares, there = draw.random(500), np.arange(500) % 3 == 0
        assert exchanged(shares, there, permutations=1000, seed=0) > 0.01
        assert exchanged(np.clip(shares + 0.3 * there, 0, 1), there, permutations=1000, seed=0) < 0.01

    @pytest.mark.parametrize("prevalence", [0.3, 0.02])
    def test_the_rate_of_false_alarms(self, prevalence):
        """200 cohorts of patients with 1 to 4 images, split by lot: about one in twenty has p below 0.05."""
        draw = np.random.default_rng(0)
        below = alarms = 0
        for seed in range(200):
            patients = np.repeat(np.arange(250), draw.integers(1, 5, 250))
            ill = draw.random(250) < prevalence
            labels = ill[patients] & (draw.random(len(patients)) < 0.8)
            split = np.array(["train", "train", "test"])[draw.integers(0, 3, 250)]
            cohort = cohort_of(labels, split[patients], patients=patients)
            alarms += any("shares" in c.title for c in asked(cohort, permutations=1000).concerns)
            means = np.bincount(patients, weights=labels) / np.bincount(patients)
            below += exchanged(means, split == "test", permutations=1000, seed=seed) <= 0.05
        assert below <= 18  # 10 are expected; 18 or fewer in 99 % of simulations
        assert alarms <= 18

    def test_the_rate_over_many_classes(self):
        draw = np.random.default_rng(0)
        alarms = 0
        for _ in range(60):
            labels = draw.choice(8, 400, p=[0.4, 0.3, 0.1, 0.1, 0.04, 0.03, 0.02, 0.01])
            split = np.array(["train", "val", "test"])[draw.choice(3, 400, p=[0.6, 0.2, 0.2])]
            cohort = cohort_of(labels, split, classes=tuple("abcdefgh"))
            alarms += any("shares" in c.title for c in asked(cohort, permutations=1000).concerns)
        assert alarms <= 8


class TestLabels:
    def test_mostly_unknown(self):
        labels = np.stack([np.arange(100) % 2, np.where(np.arange(100) < 40, np.arange(100) % 2, NAN)], axis=1)
        found = only(cohort_of(labels, classes=("a", "b")), "Labels are unknown in most images: 'b' in 60 %.")
        assert (found.seriousness, found.n_images) == (LOOK, 60)

    def test_the_same_twice(self):
        draw = np.random.default_rng(0)
        labels = draw.integers(0, 2, (100, 4)).astype(np.float32)
        labels[:, 3] = labels[:, 1]
        found = only(cohort_of(labels, classes=tuple("abcd")), "Labels are the same in every image: 'b' and 'd'.")
        assert found.table["class"].tolist() == ["b", "d"]
        labels[5, 3] = NAN
        assert asked(cohort_of(labels, classes=tuple("abcd"))).concerns == ()


class TestImbalance:
    def test_a_note_with_what_saying_the_majority_reaches(self):
        found = only(
            cohort_of([0] * 1980 + [1] * 20), "'no' is 99 times as common as 'yes': always answering 'no' is right"
        )
        assert found.seriousness is NOTE
        assert "in 99 % of the images" in found.title
        assert "balanced accuracy" in found.advice
        assert asked(cohort_of([0] * 180 + [1] * 20)).concerns == ()

    def test_labels(self):
        labels = np.stack([np.arange(400) % 2, np.arange(400) % 20 == 0, np.arange(400) % 25 > 0], axis=1)
        found = only(cohort_of(labels, classes=("a", "b", "c")), "2 of 3 labels have one side 10 times as common")
        assert "always saying yes to 'c' is right in 96 % of the images" in found.title

    @pytest.mark.parametrize("images_each", [1, 3])
    def test_ninety_nine_to_one_split_by_trueread_gives_the_note_alone(self, images_each):
        ill = np.arange(8000) % 100 == 0
        cohort = cohort_of(np.repeat(ill, images_each), patients=np.repeat(np.arange(8000), images_each))
        assert [c.seriousness for c in asked(assign_splits(cohort)).concerns] == [NOTE]


@pytest.mark.parametrize("task", ["binary", "multiclass", "ordinal", "multilabel"])
@pytest.mark.parametrize("split", [True, False])
def test_ordinary_cohorts_have_few_patients_at_most(task, split):
    cohort = tiny_cohort(task, n=240)
    answer = asked(cohort if split else cohort.with_split([""] * 240))
    assert all("Few patients" in c.title for c in answer.concerns)
    assert len(answer.table) == cohort.n_classes * (4 if split else 1)
    assert answer.looked_at.endswith("in train, val and test" if split else "240 images")


def test_volumes_the_phantom_and_four_images():
    assert asked(load_cohort("phantom", n_images=1200, size=28)).concerns == ()
    assert all("Few" in c.title for c in asked(tiny_cohort(n=60, depth=4)).concerns)
    for task in ("binary", "multiclass", "ordinal", "multilabel"):
        for split in (["train", "val", "test", "test"], [""] * 4):
            assert (
                asked(tiny_cohort(task).subset(np.arange(4)).with_split([""] * 4).with_split(split)).table is not None
            )


def test_a_hundred_thousand_images_take_a_second():
    draw = np.random.default_rng(0)
    patients = draw.integers(0, 30_000, 100_000)
    split = np.array(["train", "val", "test"])[draw.integers(0, 3, 30_000)][patients]
    labels = (draw.random((100_000, 14)) < np.where(split == "test", 0.2, 0.1)[:, None]).astype(np.float32)
    start = time.perf_counter()
    found = asked(cohort_of(labels, split, patients=patients, classes=tuple("abcdefghijklmn"))).concerns
    assert time.perf_counter() - start < 12  # 2 s on an idle machine
    assert "in train than in test" in found[0].title
