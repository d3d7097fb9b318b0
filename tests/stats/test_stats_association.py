"""Links between numbers and labels: equal to plain loops and to other libraries, and right in repeated experiments."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
import textbook
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from trueread.errors import InputError
from trueread.stats import Estimate, bootstrap, delong, weighted_mean
from trueread.stats.association import (
    above,
    chi_squared,
    concordance,
    cramers_v,
    linked,
    linked_together,
    mean_over_cells,
    midranks,
)
from trueread.stats.permutation import exchanged_rows, p_values, step_down


def patients(n_patients: int, *, most: int = 5, seed: int = 0) -> np.ndarray:
    """Codes of patients with 1 to `most` images each, in no order and not from 0."""
    rng = np.random.default_rng([seed, 1])
    return rng.permutation(np.repeat(np.arange(n_patients), rng.integers(1, most + 1, n_patients))) * 3 + 4


def studentised_by_loop(values: np.ndarray, target: np.ndarray, clusters: np.ndarray) -> float:
    """Of one number: the mean of x t over each patient's images, summed, over the root of the sum of squares."""
    weight = np.array([1 / np.sum(clusters == c) for c in clusters])
    x, t = scipy.stats.rankdata(values), scipy.stats.rankdata(target)
    x, t = x - np.average(x, weights=weight), t - np.average(t, weights=weight)
    constant = all(len(set(target[clusters == c])) == 1 for c in set(clusters))
    u = []
    for c in sorted(set(clusters.tolist())):
        mine = clusters == c
        u.append(x[mine].mean() * t[mine][0] if constant else (x[mine] * t[mine]).mean())
    return float(np.sum(u) / np.sqrt(np.sum(np.square(u))))


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30))
def test_midranks_are_scipys(numbers):
    column = np.array(numbers, float)[:, None]
    np.testing.assert_allclose(midranks(column), scipy.stats.rankdata(column, axis=0))


class TestStatistic:
    @pytest.mark.parametrize("kind", ["one label a patient", "labels differ inside a patient", "grades"])
    def test_equals_the_loop_over_patients(self, kind):
        rng = np.random.default_rng(3)
        clusters = patients(40)
        target = rng.integers(0, 4 if kind == "grades" else 2, len(clusters)).astype(float)
        if kind == "one label a patient":
            target = rng.integers(0, 2, clusters.max() + 1)[clusters].astype(float)
        values = rng.normal(size=(len(clusters), 3)).round(1)
        values[:, 2] += target
        found = linked(values, target, clusters, permutations=20).statistic
        np.testing.assert_allclose(found, [studentised_by_loop(v, target, clusters) for v in values.T], rtol=1e-4)

    def test_the_sign_is_the_direction_and_units_do_not_matter(self):
        rng = np.random.default_rng(0)
        target = np.repeat([0, 1], [90, 10])
        v = rng.normal(size=100) + target
        found = linked(np.stack([v, -v, np.exp(5 * v), v * 1e9 + 1e12], axis=1), target, np.arange(100), seed=1)
        assert found.statistic[0] > 2
        np.testing.assert_allclose(found.statistic, found.statistic[0] * np.array([1, -1, 1, 1]), rtol=1e-4)
        assert np.ptp(found.p_value) == 0

    def test_a_number_that_does_not_vary_is_no_link(self):
        target = np.repeat([0, 1], 30)
        values = np.stack([np.full(60, 7.0), target + np.linspace(0, 0.1, 60)], axis=1)
        found = linked(values, target, np.arange(60))
        assert (found.p_value[0], found.p_adjusted[0]) == (1, 1)
        assert found.p_adjusted[1] <= 2 / 1001

    def test_a_patient_counts_once_however_many_images(self):
        """Nine in ten images are of one bright patient with the label: that is one patient, and no evidence."""
        clusters = np.concatenate([np.zeros(900, int), np.arange(1, 101)])
        target = np.concatenate([np.ones(900), np.repeat([1, 0], 50)])
        values = np.random.default_rng(0).normal(size=(1000, 1))
        values[:900] += 5
        assert linked(values, target, clusters).p_value[0] > 0.05
        assert linked(values, target, np.arange(1000)).p_value[0] < 0.01


class TestPermutations:
    def test_p_value_is_that_of_all_arrangements(self):
        """Eight patients, three with the label: 56 arrangements, each as likely."""
        values = np.array([0.1, 0.4, 0.35, 0.8, 1.1, 0.9, 0.2, 2.0])
        target = np.array([0, 0, 0, 1, 0, 1, 0, 1])
        size = abs(studentised_by_loop(values, target, np.arange(8)))
        arranged = []
        for chosen in itertools.combinations(range(8), 3):
            labels = np.zeros(8)
            labels[list(chosen)] = 1
            arranged.append(abs(studentised_by_loop(values, labels, np.arange(8))))
        exact = np.mean(np.array(arranged) >= size - 1e-9)
        found = linked(values[:, None], target, np.arange(8), permutations=20_000).p_value[0]
        assert found == pytest.approx(exact, abs=0.01)

    @pytest.mark.parametrize("most", [1, 4])
    def test_every_patient_takes_the_labels_of_one_other(self, most):
        clusters = patients(50, most=most)
        partners = []
        for rows in exchanged_rows(clusters, permutations=30, rng=np.random.default_rng(0)):
            for taken in clusters[rows]:
                from_whom = {c: set(taken[clusters == c].tolist()) for c in set(clusters.tolist())}
                assert all(len(others) == 1 for others in from_whom.values())
                pairing = {c: others.pop() for c, others in from_whom.items()}
                assert sorted(pairing.values()) == sorted(pairing)  # nobody's labels are taken twice
                partners.append(tuple(pairing.values()))
        assert len(set(partners)) == 30

    def test_patients_of_equal_size_keep_their_labels_whole(self):
        """Twenty patients of each size: every block of labels arrives as it left, but for where it begins."""
        clusters = np.repeat(np.arange(60), np.repeat([1, 2, 5], 20))
        labels = np.random.default_rng(0).integers(0, 2, len(clusters))
        for rows in exchanged_rows(clusters, permutations=10, rng=np.random.default_rng(1)):
            for taken in rows:
                assert sorted(taken) == list(range(len(clusters)))
                assert labels[taken].sum() == labels.sum()

    def test_equal_seeds_are_equal_and_others_are_not(self):
        rng = np.random.default_rng(0)
        values, target, clusters = rng.normal(size=(80, 4)), rng.integers(0, 2, 80), patients(30)[:80]
        first, again, other = (linked(values, target, clusters[:80], permutations=99, seed=s) for s in (5, 5, [5, 1]))
        np.testing.assert_array_equal(first.p_adjusted, again.p_adjusted)
        assert np.any(first.p_value != other.p_value)

    def test_p_is_never_0(self):
        target = np.repeat([0, 1], 200)
        assert linked(target[:, None] * 1.0, target, np.arange(400), permutations=99).p_value[0] == 0.01


class TestStepDown:
    def by_loop(self, observed, drawn):
        """Westfall and Young's algorithm 4.1 as printed, on statistics that have like tails."""
        order = np.argsort(-np.abs(observed))
        adjusted, previous = np.empty(len(observed)), 0.0
        for k, j in enumerate(order):
            rivals = [max(abs(d[i]) for i in order[k:]) for d in drawn]
            p = (1 + sum(r >= abs(observed[j]) for r in rivals)) / (1 + len(drawn))
            previous = adjusted[j] = max(previous, p)
        return adjusted

    def test_equals_the_algorithm_as_printed(self):
        rng = np.random.default_rng(2)
        drawn = rng.normal(size=(400, 6))
        observed = np.array([0.3, -4.0, 2.5, 2.4, -0.1, 3.2])
        tails = np.quantile(np.abs(np.concatenate([observed[None], drawn])), 0.99, axis=0)
        np.testing.assert_allclose(step_down(observed, drawn), self.by_loop(observed / tails, drawn / tails))

    @settings(max_examples=30)
    @given(st.integers(0, 1000))
    def test_never_below_the_single_p_value_and_in_the_order_of_the_statistics(self, seed):
        rng = np.random.default_rng(seed)
        drawn, observed = rng.normal(size=(199, 5)), rng.normal(size=5) * 2
        adjusted = step_down(observed, drawn)
        assert np.all(adjusted >= p_values(np.abs(observed), np.abs(drawn)) - 1e-12)
        tails = np.quantile(np.abs(np.concatenate([observed[None], drawn])), 0.99, axis=0)
        assert np.all(np.diff(adjusted[np.argsort(np.abs(observed) / tails)]) <= 0)

    def test_the_same_number_twice_costs_nothing(self):
        rng = np.random.default_rng(0)
        drawn = rng.normal(size=(300, 1))
        alone = step_down(np.array([2.5]), drawn)
        np.testing.assert_array_equal(step_down(np.full(4, 2.5), np.tile(drawn, 4)), np.tile(alone, 4))

    def test_one_with_heavy_tails_does_not_hide_the_others(self):
        rng = np.random.default_rng(0)
        drawn = np.column_stack([rng.normal(size=2000), 50 * rng.standard_t(3, 2000)])
        assert step_down(np.array([5.0, 1.0]), drawn)[0] < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
@pytest.mark.parametrize("kind", ["single", "many images with the label", "few images with the label", "mixed"])
def test_no_more_than_one_null_cohort_in_twenty_alarms(kind, share):
    """250 cohorts of 300 patients with 10 numbers each that patients share and the label does not know.

    Also where the number of images depends on the label, and where labels differ inside a patient. 18 of 250 is what a
    rate of 5 % exceeds in fewer than 4 % of repetitions.
    """
    alarms = 0
    for seed in range(250):
        rng = np.random.default_rng([seed, 17])
        y = np.zeros(300, int)
        y[: max(5, round(share * 300))] = 1
        many = {
            "many images with the label": np.where(y == 1, 8, 1),
            "few images with the label": np.where(y == 1, 1, 8),
        }
        clusters = np.repeat(np.arange(300), many.get(kind, np.ones(300, int)))
        target = y[clusters]
        if kind == "mixed":
            clusters = np.repeat(np.arange(300), rng.integers(1, 5, 300))
            liable = rng.normal(size=300)[clusters] + rng.normal(size=len(clusters))
            target = (liable >= np.sort(liable)[-max(8, round(share * len(clusters)))]).astype(int)
        values = rng.normal(size=(300, 10))[clusters] + rng.normal(size=(len(clusters), 10))
        alarms += linked(values, target, clusters, permutations=199, seed=seed).p_adjusted.min() <= 0.05
    assert alarms <= 20


class TestTogether:
    def test_finds_what_no_number_shows_alone(self):
        """Two numbers that differ by the label and share a hundred times more noise."""
        rng = np.random.default_rng(0)
        target = np.repeat([0, 1], [270, 30])
        noise = rng.normal(size=300) * 100
        values = np.stack([noise, noise + target + rng.normal(size=300) * 0.3], axis=1)
        assert linked(values, target, np.arange(300)).p_value.min() > 0.05
        assert linked_together(values, target, np.arange(300)) <= 0.002

    @pytest.mark.parametrize("share", [0.5, 0.03])
    def test_holds_its_level(self, share):
        rng = np.random.default_rng(0)
        found = []
        for seed in range(150):
            target = np.zeros(200)
            target[: int(share * 200)] = 1
            found.append(linked_together(rng.normal(size=(200, 8)), target, np.arange(200), permutations=99, seed=seed))
        assert np.mean(np.array(found) <= 0.1) == pytest.approx(0.1, abs=0.06)

    def test_a_link_between_groups_alone_does_not_count(self):
        """Both classes differ in brightness and in the share of a site; inside a class the site is not to be seen."""
        rng = np.random.default_rng(0)
        group = np.repeat([0, 1], [300, 60])
        site = (rng.random(360) < np.where(group == 1, 0.8, 0.2)).astype(float)
        values = rng.normal(size=(360, 3)) + 2 * group[:, None]
        assert linked_together(values, site, np.arange(360)) <= 0.002
        assert linked_together(values, site, np.arange(360), within=group) > 0.05
        values[:, 0] += site
        assert linked_together(values, site, np.arange(360), within=group) <= 0.01

    def test_the_values_of_a_category_are_columns(self):
        """The middle one of three values is the bright one: no order of the values shows it."""
        rng = np.random.default_rng(1)
        codes = rng.integers(0, 3, 300)
        values = rng.normal(size=(300, 4))
        values[:, 1] += codes == 1
        assert linked_together(values, codes, np.arange(300)) > 0.05
        assert linked_together(values, np.eye(3)[codes], np.arange(300)) <= 0.002

    def test_nothing_that_varies_is_no_link(self):
        assert linked_together(np.ones((20, 3)), np.repeat([0, 1], 10), np.arange(20)) == 1.0


class TestConcordance:
    @pytest.mark.parametrize("kind", ["balanced", "imbalanced", "tied"])
    def test_of_two_classes_is_delongs_auroc_clustered(self, kind):
        p, y = textbook.binary_data(kind)
        clusters = patients(90)[: len(y)]
        values = np.stack([p[:, 1], -(p[:, 0] ** 3)], axis=1)
        found = concordance(values, y, clusters)
        aucs, covariance = delong(values.T, y, clusters=clusters)
        assert [e.value for e in found] == pytest.approx(aucs.tolist())
        half = 1.96 * np.sqrt(covariance[0, 0])
        factors = 0.4 if kind == "imbalanced" else 0.03  # two patients with the label: DeLong's 2 / 1 under the root
        assert found[0].value - found[0].low == pytest.approx(half, rel=factors)
        assert (found[0].n, found[0].n_clusters) == (len(y), len(np.unique(clusters)))

    def test_of_grades_counts_pairs(self):
        rng = np.random.default_rng(1)
        grades = rng.integers(0, 4, 60)
        values = (rng.normal(size=60) + grades).round(1)
        won = [
            (np.sign(values[i] - values[j]) * np.sign(grades[i] - grades[j]) + 1) / 2
            for i, j in itertools.combinations(range(60), 2)
            if grades[i] != grades[j]
        ]
        assert concordance(values[:, None], grades, np.arange(60))[0].value == pytest.approx(np.mean(won))

    def test_the_interval_of_grades_holds_the_truth_as_often_as_it_says(self):
        inside = 0
        for seed in range(200):
            rng = np.random.default_rng(seed)
            grades = rng.choice(3, 240, p=[0.7, 0.2, 0.1])[np.repeat(np.arange(80), 3)]
            own = rng.normal(size=80)[np.repeat(np.arange(80), 3)]
            [e] = concordance((own + rng.normal(size=240))[:, None], grades, np.repeat(np.arange(80), 3))
            inside += e.low <= 0.5 <= e.high
        assert 0.90 <= inside / 200 <= 0.985

    def test_within_groups_only_pairs_of_one_group_count(self):
        rng = np.random.default_rng(2)
        values, target = rng.normal(size=120), (rng.random(120) < 0.2).astype(int)
        groups = np.repeat([3, 5, 9], 40)
        shifted = values + groups * 1e3  # what tells the groups apart must not matter
        pairs = [target[groups == g].sum() * (1 - target[groups == g]).sum() for g in (3, 5, 9)]
        aucs = [sk.roc_auc_score(target[groups == g], values[groups == g]) for g in (3, 5, 9)]
        [found] = concordance(shifted[:, None], target, np.arange(120), within=groups)
        assert found.value == pytest.approx(np.average(aucs, weights=pairs))

    def test_without_two_targets_is_not_defined(self):
        [e] = concordance(np.arange(5.0)[:, None], np.ones(5), np.arange(5))
        assert np.isnan([e.value, e.low, e.high]).all()

    def test_a_perfect_order_has_no_interval(self):
        [e] = concordance(np.arange(6.0)[:, None], np.repeat([0, 1], 3), np.arange(6))
        assert e.value == 1.0
        assert np.isnan(e.low)


class TestTables:
    def test_chi_squared_is_scipys(self):
        tables = np.random.default_rng(0).integers(1, 30, size=(5, 3, 4))
        known = [scipy.stats.chi2_contingency(t, correction=False).statistic for t in tables]
        np.testing.assert_allclose(chi_squared(tables.astype(float)), known)

    def test_cramers_v_by_hand(self):
        """[[30, 10], [10, 30]]: chi2 = 20, n = 80; phi2 = 20/80 - 1/79, both sides 2 - 1/79."""
        assert cramers_v([[30, 10], [10, 30]]) == pytest.approx(((0.25 - 1 / 79) / (1 - 1 / 79)) ** 0.5)
        assert cramers_v([[40, 0], [0, 40]]) == pytest.approx(1.0)
        assert cramers_v([[20, 20], [20, 20]]) == 0.0

    def test_many_random_values_do_not_look_like_a_link(self):
        rng = np.random.default_rng(0)
        v, plain = [], []
        for _ in range(60):
            table = np.zeros((40, 2))
            np.add.at(table, (rng.integers(0, 40, 300), (rng.random(300) < 0.1).astype(int)), 1)
            v.append(cramers_v(table))
            plain.append(np.sqrt(chi_squared(table) / 300))
        assert np.mean(plain) > 0.3  # what it would be without the correction
        assert np.mean(v) < 0.1

    def test_empty_rows_and_columns_do_not_count(self):
        table = np.array([[30, 0, 10], [0, 0, 0], [10, 0, 30]])
        assert cramers_v(table) == pytest.approx(cramers_v([[30, 10], [10, 30]]))
        assert np.isnan(cramers_v([[3, 0], [5, 0]]))


class TestMeanOverCells:
    def test_is_balanced_accuracy_with_the_bootstraps_interval(self):
        rng = np.random.default_rng(0)
        labels = rng.choice(3, 600, p=[0.9, 0.08, 0.02])
        told = np.where(rng.random(600) < 0.7, labels, rng.integers(0, 3, 600))
        clusters = np.repeat(np.arange(300), 2)
        right = (told == labels).astype(float)
        found = mean_over_cells(right, labels, clusters)
        assert found.value == pytest.approx(sk.balanced_accuracy_score(labels, told))
        cells = np.where(labels[:, None] == np.arange(3), right[:, None], np.nan)
        drawn = bootstrap(lambda w: weighted_mean(cells)(w).mean(axis=1), clusters, resamples=2000)
        assert found.high - found.low == pytest.approx(drawn.high - drawn.low, rel=0.2)

    def test_above_is_the_tail_of_students_t(self):
        estimate = Estimate(0.6, 0.6 - 1.96 * 0.05, 0.6 + 1.96 * 0.05)
        assert above(estimate, 0.5, freedom=9) == pytest.approx(scipy.stats.t.sf(2, 9), rel=1e-3)
        assert above(estimate, 0.5, freedom=10**6) == pytest.approx(scipy.stats.norm.sf(2), rel=1e-3)
        assert above(estimate, 0.6, freedom=9) == pytest.approx(0.5)
        assert [above(Estimate(v), 0.5, freedom=9) for v in (1.0, 0.5)] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("values", "match"),
    [(np.zeros(4), "shape \\(4,\\)"), (np.zeros((3, 1)), "4 targets"), (np.full((4, 1), np.nan), "finite")],
)
def test_what_cannot_be_tested_is_refused(values, match):
    with pytest.raises(InputError, match=match):
        linked(values, np.array([0, 1, 0, 1]), np.arange(4))
