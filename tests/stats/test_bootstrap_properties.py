"""The clustered bootstrap, whatever the patients: draws, order, exact enumeration, units, and what it refuses."""

from __future__ import annotations

import importlib
import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trueread.errors import InputError
from trueread.stats.bootstrap import (
    bootstrap,
    bootstrap_many,
    cluster_weights,
    distribution,
    mean_over_seeds,
    weighted_mean,
)

PLAIN = {"deadline": None, "derandomize": True, "suppress_health_check": [HealthCheck.too_slow]}  # busy machines
R = 200  # resamples

seeds = st.integers(0, 2**32 - 1)
finite = st.floats(-100, 100, allow_nan=False, width=32)


@st.composite
def cohorts(draw, max_patients: int = 12, max_images: int = 6):
    """(clusters int64 [n], values float64 [n]): any number of images per patient, any codes, any order of the rows."""
    sizes = draw(st.lists(st.integers(1, max_images), min_size=1, max_size=max_patients))
    codes = draw(st.lists(st.integers(-(10**9), 10**9), min_size=len(sizes), max_size=len(sizes), unique=True))
    clusters = np.repeat(np.array(codes, np.int64), sizes)
    order = np.random.default_rng(draw(seeds)).permutation(len(clusters))
    values = np.array(draw(st.lists(finite, min_size=len(clusters), max_size=len(clusters))))
    return clusters[order], values


def spread_of(values: np.ndarray) -> float:
    """A length in the units of the values, for tolerances."""
    return 1e-6 * (1 + float(np.abs(values).max()))


class TestDraws:
    @given(cohorts(), seeds)
    @settings(max_examples=60, **PLAIN)
    def test_as_many_patients_are_drawn_as_there_are_and_always_whole(self, cohort, seed):
        clusters, _ = cohort
        weights = cluster_weights(clusters, resamples=R, seed=seed)
        codes, first, inverse = np.unique(clusters, return_index=True, return_inverse=True)
        assert weights.shape == (R, len(clusters))
        assert (weights >= 0).all()
        assert (weights == np.round(weights)).all()
        assert (weights[:, first].sum(axis=1) == len(codes)).all()
        assert (weights == weights[:, first][:, inverse]).all()

    @given(cohorts(), seeds)
    @settings(max_examples=60, **PLAIN)
    def test_the_order_of_the_rows_and_the_patients_numbers_do_not_matter(self, cohort, seed):
        clusters, _ = cohort
        weights = cluster_weights(clusters, resamples=R, seed=seed)
        order = np.random.default_rng(seed).permutation(len(clusters))
        assert (cluster_weights(clusters[order], resamples=R, seed=seed) == weights[:, order]).all()
        assert (cluster_weights(3 * clusters + 7, resamples=R, seed=seed) == weights).all()

    @given(cohorts(), seeds, st.integers(1, 40))
    @settings(max_examples=40, **PLAIN)
    def test_how_many_resamples_are_drawn_at_a_time_does_not_matter(self, cohort, seed, at_a_time):
        clusters, _ = cohort
        whole = cluster_weights(clusters, resamples=50, seed=seed)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(importlib.import_module("trueread.stats.bootstrap"), "_CHUNK_WEIGHTS", at_a_time)
            assert (cluster_weights(clusters, resamples=50, seed=seed) == whole).all()

    @given(cohorts(), seeds, st.integers(1, R))
    @settings(max_examples=40, **PLAIN)
    def test_fewer_resamples_are_the_first_of_more(self, cohort, seed, fewer):
        clusters, _ = cohort
        more = cluster_weights(clusters, resamples=R, seed=seed)
        assert (cluster_weights(clusters, resamples=fewer, seed=seed) == more[:fewer]).all()


class TestExact:
    @given(st.lists(st.tuples(st.integers(1, 4), finite), min_size=1, max_size=4), seeds)
    @settings(max_examples=30, **PLAIN)
    def test_tiny_cohorts_give_the_distribution_that_enumeration_gives(self, patients, seed):
        """All G^G draws of G patients, each equally likely. The largest gap between the two distribution functions is
        below the Dvoretzky-Kiefer-Wolfowitz bound, which chance would pass once in 10^9 cohorts.
        """
        sizes, means = (np.array(column) for column in zip(*patients, strict=True))
        clusters, values = np.repeat(np.arange(len(sizes)), sizes), np.repeat(means, sizes)
        draws = np.array(list(itertools.product(range(len(sizes)), repeat=len(sizes))))
        exact = (means * sizes)[draws].sum(axis=1) / sizes[draws].sum(axis=1)
        n = 4000
        sampled = distribution(weighted_mean(values), clusters, resamples=n, seed=seed)
        tolerance = spread_of(values)
        grid = np.unique(np.round(exact / tolerance)) * tolerance
        assert np.abs(sampled[:, None] - exact[None]).min(axis=1).max() <= tolerance  # nothing else comes out
        below = [(np.sort(d)[None] <= (grid + tolerance)[:, None]).mean(axis=1) for d in (sampled, exact)]
        assert np.abs(below[0] - below[1]).max() < np.sqrt(np.log(2 / 1e-9) / (2 * n))

    @given(cohorts(), seeds)
    @settings(max_examples=60, **PLAIN)
    def test_the_interval_is_the_quantiles_of_means_computed_one_by_one(self, cohort, seed):
        clusters, values = cohort
        weights = cluster_weights(clusters, resamples=R, seed=seed)
        one_by_one = [np.repeat(values, w.astype(int)).mean() for w in weights]
        estimate = bootstrap(weighted_mean(values), clusters, resamples=R, seed=seed, level=0.9)
        assert estimate.value == pytest.approx(values.mean(), abs=spread_of(values))
        assert (estimate.n, estimate.n_clusters) == (len(values), len(np.unique(clusters)))
        if np.isnan(estimate.low):
            assert estimate.n_clusters == 1 or np.ptp(one_by_one) < 1e-5
            return
        expected = np.quantile(one_by_one, [0.05, 0.95])
        assert (estimate.low, estimate.high) == pytest.approx(tuple(expected), abs=spread_of(values))


class TestIntervals:
    @given(cohorts(), seeds, st.sampled_from([0.5, 0.8, 0.95, 0.99]))
    @settings(max_examples=80, **PLAIN)
    def test_the_interval_of_a_mean_holds_it_and_lies_within_the_values(self, cohort, seed, level):
        clusters, values = cohort
        estimate = bootstrap(weighted_mean(values), clusters, resamples=500, seed=seed, level=level)
        if np.isnan(estimate.low):
            return
        slack = spread_of(values)
        assert values.min() - slack <= estimate.low <= estimate.high <= values.max() + slack
        if level >= 0.95:
            assert estimate.low - slack <= estimate.value <= estimate.high + slack

    @given(cohorts(), seeds)
    @settings(max_examples=40, **PLAIN)
    def test_a_higher_level_gives_an_interval_that_holds_the_lower_one(self, cohort, seed):
        clusters, values = cohort
        ends = [bootstrap(weighted_mean(values), clusters, resamples=R, seed=seed, level=v) for v in (0.5, 0.9, 0.99)]
        if np.isnan(ends[0].low):
            return
        assert ends[2].low <= ends[1].low <= ends[0].low <= ends[0].high <= ends[1].high <= ends[2].high

    @given(cohorts(), seeds, st.floats(0.01, 50), finite)
    @settings(max_examples=60, **PLAIN)
    def test_other_units_give_the_same_interval_in_those_units(self, cohort, seed, scale, shift):
        clusters, values = cohort
        values = values + 200.0  # away from 0 and 1, where an interval without width is not told
        first = bootstrap(weighted_mean(values), clusters, resamples=R, seed=seed)
        moved = bootstrap(weighted_mean(scale * values + shift + 500), clusters, resamples=R, seed=seed)
        turned = bootstrap(weighted_mean(-values), clusters, resamples=R, seed=seed)
        slack = 1e-6 * (1000 + 300 * scale)
        for end in ("value", "low", "high"):
            expected = scale * getattr(first, end) + shift + 500
            assert getattr(moved, end) == pytest.approx(expected, abs=slack, nan_ok=True)
        for end, other in (("value", "value"), ("low", "high"), ("high", "low")):
            assert getattr(turned, end) == pytest.approx(-getattr(first, other), abs=1e-3, nan_ok=True)

    @given(cohorts(), seeds, st.integers(2, 4))
    @settings(max_examples=40, **PLAIN)
    def test_copies_of_every_image_add_no_evidence(self, cohort, seed, copies):
        """Ten pictures of the same patient are no ten patients: the interval keeps its width."""
        clusters, values = cohort
        once = bootstrap(weighted_mean(values), clusters, resamples=R, seed=seed)
        more = bootstrap(weighted_mean(np.repeat(values, copies)), np.repeat(clusters, copies), resamples=R, seed=seed)
        assert (more.value, more.low, more.high) == pytest.approx(
            (once.value, once.low, once.high), abs=spread_of(values), nan_ok=True
        )
        assert (more.n, more.n_clusters) == (copies * once.n, once.n_clusters)

    @given(cohorts(), seeds)
    @settings(max_examples=40, **PLAIN)
    def test_many_numbers_at_once_are_each_alone(self, cohort, seed):
        clusters, values = cohort
        columns = np.stack([values, values**2, np.where(values > 0, values, np.nan)], axis=1)
        together = bootstrap_many(weighted_mean(columns), clusters, resamples=R, seed=seed)
        for estimate, column in zip(together, columns.T, strict=True):
            alone = bootstrap(weighted_mean(column), clusters, resamples=R, seed=seed)
            assert (estimate.value, estimate.low, estimate.high) == pytest.approx(
                (alone.value, alone.low, alone.high), rel=1e-5, abs=1e-4, nan_ok=True
            )


class TestSeeds:
    @given(cohorts(), seeds, st.integers(1, 4))
    @settings(max_examples=40, **PLAIN)
    def test_the_mean_over_runs_is_that_of_their_mean(self, cohort, seed, n_runs):
        clusters, values = cohort
        runs = [values * (k + 1) + k for k in range(n_runs)]
        estimate = mean_over_seeds([weighted_mean(r) for r in runs], clusters, resamples=R, seed=seed)
        of_mean = bootstrap(weighted_mean(np.mean(runs, axis=0)), clusters, resamples=R, seed=seed)
        slack = 10 * spread_of(values)
        assert estimate.value == pytest.approx(of_mean.value, abs=slack)
        assert estimate.n_seeds == n_runs
        if not np.isnan(estimate.low) and not np.isnan(of_mean.low):
            assert (estimate.low, estimate.high) == pytest.approx((of_mean.low, of_mean.high), abs=slack)
        points = [r.mean() for r in runs]
        expected = None if n_runs == 1 else pytest.approx(float(np.std(points, ddof=1)), abs=slack)
        assert estimate.spread == expected

    @given(cohorts(), seeds)
    @settings(max_examples=60, **PLAIN)
    def test_a_corrected_distance_is_not_negative_and_its_interval_is_in_order(self, cohort, seed):
        clusters, values = cohort
        distances = np.abs(values) / 100
        mean = weighted_mean(distances - distances.mean())
        estimate = mean_over_seeds([lambda w: np.abs(mean(w))], clusters, resamples=R, seed=seed, correct_bias=True)
        assert estimate.value >= 0
        assert np.isnan(estimate.low) or 0 <= estimate.low <= estimate.value <= estimate.high


class TestRefusals:
    @given(
        st.one_of(
            st.lists(st.floats(allow_nan=True), max_size=4).map(np.array),
            st.just(np.zeros((3, 1), np.int64)),
            st.just(np.array([], np.int64)),
            st.lists(st.text(max_size=3), min_size=1, max_size=4).map(np.array),
            st.just(np.array([None, 1], object)),
        )
    )
    @settings(max_examples=40, **PLAIN)
    def test_clusters_that_are_no_codes(self, clusters):
        with pytest.raises(InputError, match="clusters must be integers"):
            cluster_weights(clusters, resamples=2, seed=0)

    @given(st.one_of(st.floats(max_value=0), st.floats(min_value=1), st.just(float("nan"))))
    @settings(max_examples=30, **PLAIN)
    def test_levels_out_of_range(self, level):
        with pytest.raises(InputError, match="level of an interval must be between 0 and 1"):
            bootstrap(weighted_mean(np.arange(3.0)), np.arange(3), level=level)

    @given(st.integers(-5, 0))
    @settings(max_examples=6, **PLAIN)
    def test_no_resample(self, resamples):
        with pytest.raises(InputError, match="at least one resample"):
            cluster_weights(np.arange(3), resamples=resamples, seed=0)
