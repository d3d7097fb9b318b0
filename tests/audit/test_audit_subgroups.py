"""For whom it works less well: a gap that was planted is found and named, and one that was not is called chance."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import binary, multiclass, multilabel, pair, subject_of

from trueread.audit.base import run_audit
from trueread.audit.finding import Better, Verdict
from trueread.audit.subgroups import Subgroups, as_categories, nearly_identifies, shuffle_patients
from trueread.errors import NotMeasured

CHANCE = re.compile(
    r"worst of (\d+) groups is (.+?)\. .* gap is (-?[\d.]+) on average.* in (less than 1 %|\d+%) of shuffles"
)


def chance_of(finding) -> tuple[int, str, float, float]:
    """(groups, worst group, gap expected by chance, share of shuffles at least as large) as the note says them."""
    count, worst, gap, share = CHANCE.search(finding.notes[0]).groups()
    return int(count), worst, float(gap), int(share.removeprefix("less than ").rstrip(" %")) / 100


def wrong_in(where: np.ndarray, y: np.ndarray, *, rate: float, base: float, seed: int) -> np.ndarray:
    """Probabilities that are right but for a share `base` of all images, and `rate` of those where `where` is true."""
    generator = np.random.default_rng(seed)
    wrong = generator.random(len(y)) < np.where(where, rate, base)
    return pair(np.where((y == 1) ^ wrong, 0.9, 0.1))


class TestPlantedGap:
    def test_it_is_found_named_measured_and_failed(self):
        generator = np.random.default_rng(0)
        y = generator.integers(0, 2, 400)
        site, sex = generator.choice(list("ABC"), 400), generator.choice(["F", "M"], 400)
        p = wrong_in(site == "B", y, rate=0.4, base=0.05, seed=1)
        finding = run_audit(Subgroups(), subject_of(p, y, site=site, sex=sex), thresholds={"subgroups": 0.1})
        inside = site == "B"
        right = p[:, 1] >= 0.5
        of_group = sk.balanced_accuracy_score(y[inside], right[inside])
        expected = sk.balanced_accuracy_score(y, right) - of_group
        assert finding.headline.estimate.value == pytest.approx(expected)
        assert finding.headline.estimate.value > 0.15
        assert finding.headline.estimate.low > 0.1
        assert finding.headline.better is Better.LOWER
        assert finding.verdict is Verdict.FAIL
        assert finding.measures["worst-group"].estimate.value == pytest.approx(of_group)
        assert finding.measures["worst-group"].better is Better.HIGHER
        count, worst, chance, share = chance_of(finding)
        assert (count, worst) == (5, "site: B")
        assert "in less than 1 % of shuffles" in finding.notes[0]
        assert chance < 0.1
        assert share < 0.02

    def test_the_table_has_every_group_with_its_own_numbers(self):
        p, y = binary(300, share=0.3)
        site = np.array(list("AAB") * 100)
        patients = np.arange(300) // 3
        table = (
            Subgroups(minimum_patients_per_class=1)
            .run(subject_of(p, y, site=site, patients=patients))
            .tables["Per group"]
        )
        assert list(table["group"]) == ["A", "B"]
        assert list(table["images"]) == [200, 100]
        assert list(table["patients"]) == [100, 100]
        for name, estimate in zip(table["group"], table["balanced accuracy"], strict=True):
            mine = site == name
            expected = sk.balanced_accuracy_score(y[mine], p[mine, 1].astype(np.float32) >= 0.5)
            assert estimate.value == pytest.approx(expected)
            assert (estimate.n, estimate.n_clusters) == (mine.sum(), len(np.unique(patients[mine])))

    def test_the_worst_group_rests_on_its_own_images(self):
        y = np.array([0, 1] * 100)
        site = np.array(["A"] * 140 + ["B"] * 60)
        p = wrong_in(site == "B", y, rate=0.4, base=0.05, seed=1)
        finding = Subgroups().run(subject_of(p, y, site=site, patients=np.arange(200) // 2))
        worst, gap = finding.measures["worst-group"].estimate, finding.headline.estimate
        assert (worst.n, worst.n_clusters) == (60, 30)
        assert (gap.n, gap.n_clusters) == (200, 100)

    def test_over_seeds_the_worst_group_is_that_of_the_mean(self):
        """Seed 0 is worst in A, seed 1 much worse in B: B is the worst group, and the gap is the mean over both."""
        y = np.tile([0, 1], 200)
        site = np.repeat(["A", "B"], 200)
        p = [
            wrong_in(site == "A", y, rate=0.2, base=0.1, seed=0),
            wrong_in(site == "B", y, rate=0.45, base=0.0, seed=1),
        ]
        finding = Subgroups().run(subject_of(p, y, site=site))
        assert chance_of(finding)[1] == "site: B"
        gaps = []
        for x in p:
            right = x[:, 1] >= 0.5
            b = site == "B"
            gaps.append(sk.balanced_accuracy_score(y, right) - sk.balanced_accuracy_score(y[b], right[b]))
        assert finding.headline.estimate.value == pytest.approx(np.mean(gaps))
        assert finding.headline.estimate.spread == pytest.approx(np.std(gaps, ddof=1))

    def test_every_member_decides_at_its_own_threshold(self):
        """A skewed cohort whose scores all lie under one half: only the classifier's own threshold sees anything."""
        y, site = np.array([0, 0, 0, 1] * 60), np.repeat(["A", "B"], 120)
        p = pair(np.where(y == 1, 0.3, 0.1))
        at_half, own = (Subgroups().run(subject_of(p, y, site=site, threshold=cut)) for cut in (None, 0.2))
        assert at_half.measures["worst-group"].estimate.value == 0.5
        assert own.measures["worst-group"].estimate.value == 1

    @pytest.mark.parametrize("task", ["multiclass", "multilabel"])
    def test_other_tasks_find_it_too(self, task):
        p, y = multiclass(800, k=3) if task == "multiclass" else multilabel(800)
        site = np.random.default_rng(2).choice(["A", "B"], 800, p=[0.7, 0.3])
        shuffled = np.random.default_rng(3).permutation(np.flatnonzero(site == "B"))
        p[site == "B"] = p[shuffled]  # there the answers are those of other patients
        finding = Subgroups(minimum_patients_per_class=4).run(subject_of(p, y, task=task, site=site))
        _, worst, chance, share = chance_of(finding)
        assert worst == "site: B"
        assert finding.headline.estimate.value > 2 * chance
        assert share < 0.05


class TestChance:
    @pytest.mark.slow
    def test_where_nothing_is_planted_alarms_are_as_rare_as_they_claim(self):
        """40 cohorts, patients with several images whose errors go together, attributes that mean nothing."""
        shares, observed, expected = [], [], []
        for k in range(40):
            generator = np.random.default_rng(k)
            sizes = generator.integers(1, 4, 120)
            patient = np.repeat(np.arange(120), sizes)
            y = generator.integers(0, 2, 120)[patient]
            wrong = (generator.random(120) < 0.2)[patient]
            site, age = generator.choice(list("ABC"), 120)[patient], generator.integers(0, 4, 120)[patient]
            p = pair(np.where((y == 1) ^ wrong, 0.9, 0.1))
            subject = subject_of(p, y, patients=patient, site=site, age=age, resamples=100)
            finding = Subgroups(minimum_patients_per_class=5, permutations=99).run(subject)
            _, _, chance, share = chance_of(finding)
            shares.append(share)
            observed.append(finding.headline.estimate.value)
            expected.append(chance)
        assert np.mean(observed) == pytest.approx(np.mean(expected), rel=0.2)
        assert sum(s <= 0.1 for s in shares) <= 9  # 4 are expected; more than 9 has a chance of 1 in 200
        assert sum(s <= 0.5 for s in shares) >= 10  # and the test is not asleep
        assert np.mean(expected) > 0.05  # the worst of many is low by selection alone, and the note says by how much

    def test_a_shuffle_that_changes_nothing_gives_the_gap_itself(self):
        """Two images for one patient, three for the next, ...: nobody can change places, so every shuffle is a tie."""
        sizes = np.arange(4, 24)
        patient = np.repeat(np.arange(20), sizes)
        y = np.tile([0, 1], len(patient))[: len(patient)]
        site = np.where(patient % 2 == 0, "A", "B")
        p = [wrong_in(site == "A", y, rate=0.3, base=0.1, seed=s) for s in range(3)]
        finding = Subgroups(permutations=20).run(subject_of(p, y, patients=patient, site=site))
        _, _, chance, share = chance_of(finding)
        assert chance == pytest.approx(finding.headline.estimate.value, abs=6e-4)
        assert share == 1

    def test_a_cohort_that_was_shuffled_with_the_audits_own_seed(self):
        """The shuffles must not undo the one that made the labels, or a group would be a class."""
        p, y = binary(300, seed=0)
        finding = Subgroups().run(subject_of(p, y, sex=np.repeat(["F", "M"], 150)))
        assert np.isfinite(chance_of(finding)[2])

    def test_shuffles_that_leave_no_group_with_every_class_do_not_count(self):
        y = np.array([0, 1, 0, 1])
        finding = Subgroups(minimum_patients_per_class=1).run(
            subject_of(pair(np.array([0.1, 0.9, 0.9, 0.9])), y, site=list("AABB"))
        )
        _, worst, chance, share = chance_of(finding)
        assert worst == "site: B"
        assert (chance, share) == (0.25, 1)  # one group always has the wrong answer, whoever is in it

    def test_the_same_subject_gives_the_same_words(self):
        p, y = binary(300)
        site = np.random.default_rng(0).choice(list("AB"), 300)
        first, again = (Subgroups().run(subject_of(p, y, site=site)) for _ in range(2))
        assert first.to_json() == again.to_json()

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(0, 1000))
    def test_patients_change_places_whole(self, codes, seed):
        clusters = np.array(codes)
        taken = shuffle_patients(clusters, np.random.default_rng(seed))
        assert sorted(taken) == list(range(len(clusters)))  # every row's group is taken once: sizes of groups stay
        for code in np.unique(clusters):
            givers = clusters[taken[clusters == code]]
            assert len(set(givers)) == 1
            assert (clusters == givers[0]).sum() == (clusters == code).sum()

    def test_every_exchange_is_as_likely(self):
        clusters = np.array([0, 1, 2])
        rng = np.random.default_rng(0)
        seen = [tuple(shuffle_patients(clusters, rng)) for _ in range(1200)]
        counts = pd.Series(seen).value_counts()
        assert len(counts) == 6
        assert counts.min() > 150


class TestWhoIsRanked:
    def test_small_groups_are_listed_but_never_the_worst(self):
        y = np.array([0, 1] * 100)
        site = np.array(["A"] * 90 + ["B"] * 96 + ["tiny"] * 14)
        p = pair(np.where(y == 1, 0.9, 0.1))
        p[site == "tiny"] = p[site == "tiny"][:, ::-1]  # wrong on every one of them
        p[:4] = p[:4, ::-1]
        finding = Subgroups().run(subject_of(p, y, site=site))
        table = finding.tables["Per group"].set_index("group")
        assert table["ranked"].to_dict() == {"A": "yes", "B": "yes", "tiny": "no, under 8 patients of a class"}
        assert table["balanced accuracy"]["tiny"].value == 0
        assert chance_of(finding)[:2] == (2, "site: A")
        assert finding.figures[0].data["group"].tolist() == ["site: A", "site: B"]

    def test_it_is_patients_that_are_counted_not_images(self):
        y = np.array([0, 1] * 60)
        site = np.repeat(["A", "B"], 60)
        p = pair(np.where(y == 1, 0.9, 0.1))
        few = np.repeat(np.arange(12), 10)  # five patients and more than 8 images of each class at each site
        with pytest.raises(NotMeasured, match="fewer than two groups have 8 patients of every class"):
            Subgroups().run(subject_of(p, y, site=site, patients=few))
        Subgroups(minimum_patients_per_class=6).run(subject_of(p, y, site=site, patients=few))

    def test_a_class_that_the_whole_test_set_lacks_is_not_asked_of_groups(self):
        p, y = multiclass(600, absent=3)
        site = np.random.default_rng(0).choice(["A", "B"], 600)
        table = Subgroups().run(subject_of(p, y, task="multiclass", site=site)).tables["Per group"]
        assert set(table["ranked"]) == {"yes"}


class TestAttributes:
    def test_missing_values_and_attributes_of_too_many_values_are_said(self):
        p, y = binary(300)
        generator = np.random.default_rng(0)
        site = generator.choice(list("AB"), 300).astype(object)
        site[:30] = np.nan
        finding = Subgroups().run(
            subject_of(p, y, site=site, scanner=[f"s{i % 40}" for i in range(300)], country=["NL"] * 300)
        )
        assert finding.notes[2:] == [
            "'site' is missing on 30 of 300 test images.",
            "'scanner' has 40 values on the test images and is left out (2 to 12 are compared).",
            "'country' has one value on the test images and is left out (2 to 12 are compared).",
        ]
        table = finding.tables["Per group"]
        assert table["images"].sum() == 270
        assert set(table["attribute"]) == {"site"}

    def test_when_none_can_be_used_the_reason_says_which_and_why(self):
        p, y = binary(100)
        with pytest.raises(NotMeasured, match=r"fewer than two groups .* 'country' has one value"):
            Subgroups().run(subject_of(p, y, country=["NL"] * 100))

    def test_what_is_not_measured_says_which_option_and_what_would_help(self):
        p, y = binary(30)
        with pytest.raises(NotMeasured, match=r"minimum_patients_per_class\).* larger test share"):
            Subgroups().run(subject_of(p, y, site=["A", "B"] * 15))

    def test_identifiers_are_left_out_with_a_note_and_measurements_are_not(self):
        p, y = binary(300)
        generator = np.random.default_rng(0)
        columns = {
            "site": np.tile(["A", "B"], 150),
            "file": [f"f{i}" for i in range(300)],
            "number": generator.permutation(5000)[:300],
            "weight": generator.normal(70, 12, 300),
        }
        finding = Subgroups().run(subject_of(p, y, **columns))
        assert list(pd.unique(finding.tables["Per group"]["attribute"])) == ["site", "weight"]
        assert finding.notes[2:] == [
            f"'{name}' has 300 values for 300 patients on the test images and is left out: it is an identifier or "
            "nearly one."
            for name in ("file", "number")
        ]
        asked = Subgroups(attributes=["number"]).run(subject_of(p, y, **columns))
        assert set(asked.tables["Per group"]["attribute"]) == {"number"}

    def test_ages_of_few_patients_are_no_identifier(self):
        ages = pd.Series(np.arange(20, 80))
        patients = np.arange(60)
        assert not nearly_identifies(ages, patients)
        assert nearly_identifies(ages * 100, patients)
        assert nearly_identifies(ages.astype(str), patients)
        assert not nearly_identifies(ages.astype(str), np.arange(120))  # half as many
        assert not nearly_identifies(pd.Series([f"s{i % 20}" for i in range(30)]), np.arange(30))

    def test_an_attribute_that_is_not_there(self):
        p, y = binary(100)
        subject = subject_of(p, y, site=["A", "B"] * 50)
        with pytest.raises(NotMeasured, match=r"no attribute 'sight' \(it has site\)"):
            Subgroups(attributes=["sight"]).run(subject)

    def test_only_the_attributes_asked_for(self):
        p, y = binary(300)
        site, sex = np.tile(["A", "B"], 150), np.repeat(["F", "M"], 150)
        table = Subgroups(attributes=["sex"]).run(subject_of(p, y, site=site, sex=sex)).tables["Per group"]
        assert list(table["group"]) == ["F", "M"]

    def test_groups_are_of_the_test_images_alone(self):
        """In training there is a third site; nobody can be compared who is not there."""
        p, y = binary(200)
        split = ["train"] * 40 + ["test"] * 160
        site = ["C"] * 40 + ["A", "B"] * 80
        subject = subject_of(p, y, site=site, split=split)
        subject.rows = np.arange(40, 200)
        subject.members[0].probabilities = p[40:]
        assert list(Subgroups(minimum_patients_per_class=5).run(subject).tables["Per group"]["group"]) == ["A", "B"]


class TestRanges:
    def test_distinct_numbers_become_three_ranges_of_equal_count(self):
        ages = pd.Series(np.random.default_rng(0).permutation(90) + 10)
        ranges = as_categories(ages)
        assert ranges.value_counts().to_dict() == {"10 to 39": 30, "40 to 69": 30, "70 to 99": 30}
        assert ranges[ages == 40].tolist() == ["40 to 69"]

    def test_equal_numbers_share_a_range(self):
        values = pd.Series([0.0] * 70 + list(np.linspace(1, 2, 30)))
        assert as_categories(values).value_counts().to_dict() == {"0 to 0": 70, "1 to 2": 30}
        values = pd.Series([0.0] * 40 + list(np.linspace(1, 2, 60)))
        assert as_categories(values)[values == 0].nunique() == 1

    def test_missing_and_infinite_numbers_are_in_none(self):
        values = pd.Series([np.nan, np.inf, *np.arange(30.0)])
        ranges = as_categories(values)
        assert ranges.isna().tolist() == [True, True] + [False] * 30
        assert ranges.value_counts().to_dict() == {"0 to 9": 10, "10 to 19": 10, "20 to 29": 10}

    def test_large_numbers_keep_their_digits(self):
        """Dates as numbers must not round to the same name and so become one group."""
        days = pd.Series(20_240_101 + np.arange(30))
        assert as_categories(days).nunique() == 3

    def test_nullable_columns_are_read_like_others(self):
        few = pd.Series(["a", None, "b"], dtype="string")
        assert as_categories(few).isna().tolist() == [False, True, False]
        many = pd.Series([*range(30), None], dtype="Int64")
        assert as_categories(many).isna().sum() == 1
        assert ((as_categories(few) == "a").to_numpy(dtype=bool)).tolist() == [True, False, False]

    def test_few_numbers_and_words_are_their_own_groups(self):
        assert as_categories(pd.Series([1, 2, 3] * 20)).tolist() == [1, 2, 3] * 20
        assert as_categories(pd.Series(["x", None, "y"])).isna().tolist() == [False, True, False]

    def test_groups_of_numbers_come_in_the_order_of_numbers(self):
        p, y = binary(300)
        table = Subgroups().run(subject_of(p, y, age=np.tile(np.arange(5, 105), 3))).tables["Per group"]
        assert list(table["group"]) == ["5 to 38", "39 to 71", "72 to 104"]
