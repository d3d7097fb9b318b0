"""Calibration of forecasters whose honesty is known: one who means it, one who exaggerates, one who was corrected."""

from __future__ import annotations

import numpy as np
import pytest
from planted import multiclass, multilabel, oracle, pair, sigmoid, softmax, subject_of

from trueread.audit.base import run_audit
from trueread.audit.calibration import Calibration, _before_scaling
from trueread.audit.finding import Better, Verdict
from trueread.audit.subject import Member
from trueread.stats import fit_temperature


def forecasts(n: int = 4000, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits of an honest forecaster, and labels drawn with exactly the probabilities that they state."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=n) * 1.5
    return logits, (generator.random(n) < sigmoid(logits)).astype(np.int64)


def ece_by_hand(p: np.ndarray, y: np.ndarray, bins: int) -> float:
    """Binary ECE as the definition says, in a loop."""
    total = 0.0
    for b in range(bins):
        inside = (p >= b / bins) & ((p < (b + 1) / bins) | (b == bins - 1))
        if inside.any():
            total += inside.mean() * abs(p[inside].mean() - y[inside].mean())
    return total


class TestError:
    def test_an_honest_forecaster_has_none_and_passes(self):
        logits, y = forecasts()
        finding = run_audit(Calibration(), subject_of(pair(sigmoid(logits)), y), thresholds={"calibration": 0.1})
        estimate = finding.headline.estimate
        assert estimate.value < 0.01
        assert estimate.low == 0
        assert estimate.high < 0.04
        assert finding.verdict is Verdict.PASS
        assert finding.headline.better is Better.LOWER

    @pytest.mark.parametrize("factor", [3.0, 0.25])
    def test_one_who_exaggerates_or_hedges_is_off_by_what_he_adds(self, factor):
        """Where the true probability q is known, it takes the place of the labels, and no noise is left."""
        logits, y = forecasts(12_000)
        p, q = sigmoid(factor * logits), sigmoid(logits)
        truth = ece_by_hand(p, q, 15)
        assert truth > 0.1
        finding = run_audit(Calibration(), subject_of(pair(p), y), thresholds={"calibration": 0.05})
        estimate = finding.headline.estimate
        assert estimate.value == pytest.approx(truth, abs=0.01)
        assert estimate.low < truth < estimate.high
        assert finding.verdict is Verdict.FAIL
        assert "ece-before" not in finding.measures  # nothing was scaled

    def test_the_statistic_under_it_is_the_textbook_error(self):
        """The headline is freed of the bias of few images; what is compared between methods is the plain error."""
        logits, y = forecasts(400)
        p = sigmoid(2 * logits).astype(np.float32)
        for bins in (15, 5):
            measure = Calibration(bins=bins).run(subject_of(pair(p), y)).headline
            plain = measure.statistics[0](np.ones((1, 400)))[0]
            assert plain == pytest.approx(ece_by_hand(p.astype(np.float64), y, bins), abs=1e-6)
            assert measure.estimate.value < plain
            assert f"{bins} equal-width bins" in measure.definition

    def test_multiclass_judges_the_top_class_and_multilabel_each_known_label(self):
        p, y = multiclass(600)
        p = p.astype(np.float32)
        plain = Calibration().run(subject_of(p, y, task="multiclass")).headline.statistics[0](np.ones((1, 600)))[0]
        assert plain == pytest.approx(ece_by_hand(p.max(1).astype(float), p.argmax(1) == y, 15), abs=1e-6)
        p, y = multilabel(600)
        p = p.astype(np.float32)
        plain = Calibration().run(subject_of(p, y, task="multilabel")).headline.statistics[0](np.ones((1, 600)))[0]
        known = ~np.isnan(y)
        each = [ece_by_hand(p[m, k].astype(float), y[m, k], 15) for k, m in enumerate(known.T)]
        assert plain == pytest.approx(np.mean(each), abs=1e-6)

    def test_at_99_to_1_it_is_the_stated_probability_of_the_rare_class_that_counts(self):
        """Stating 1 % for all is honest; stating 11 % is off by a tenth, however often 'normal' is right."""
        y = np.zeros(2000, np.int64)
        y[:20] = 1
        honest, loud = (Calibration().run(subject_of(pair(np.full(2000, p)), y)).headline for p in (0.01, 0.11))
        assert honest.estimate.value == pytest.approx(0, abs=0.003)
        assert loud.estimate.value == pytest.approx(0.1, abs=0.003)

    def test_brier_is_the_mean_squared_error(self):
        logits, y = forecasts(300)
        p = sigmoid(logits).astype(np.float32).astype(float)
        brier = Calibration().run(subject_of(pair(p), y)).measures["brier"]
        assert brier.estimate.value == pytest.approx(np.mean((p - y) ** 2))
        assert brier.better is Better.LOWER


class TestUseless:
    @pytest.mark.parametrize("share", [0.5, 0.1])
    def test_stating_the_prevalence_for_all_is_calibrated_and_does_not_pass(self, share):
        y = (np.arange(400) < 400 * share).astype(np.int64)
        finding = run_audit(Calibration(), subject_of(pair(np.full(400, share)), y), thresholds={"calibration": 0.1})
        assert finding.headline.estimate.high < 0.1
        assert finding.measures["brier-skill"].estimate.value == pytest.approx(0, abs=1e-6)
        assert finding.verdict is Verdict.WARN
        assert any("No pass: the Brier skill" in note and "useless" in note for note in finding.notes)

    def test_a_forecaster_who_knows_something_passes_without_that_note(self):
        logits, y = forecasts()
        finding = run_audit(Calibration(), subject_of(pair(sigmoid(logits)), y), thresholds={"calibration": 0.1})
        assert finding.measures["brier-skill"].estimate.low > 0.1
        assert finding.verdict is Verdict.PASS
        assert not any("No pass" in note for note in finding.notes)

    @pytest.mark.parametrize(("temperature", "verdict"), [(5.0, "pass"), (5.1, "warn")])
    def test_a_very_high_temperature_does_not_pass(self, temperature, verdict):
        logits, y = forecasts()
        subject = subject_of(pair(sigmoid(logits)), y, temperature=temperature)
        finding = run_audit(Calibration(), subject, thresholds={"calibration": 0.1})
        assert finding.verdict == verdict
        assert any("a temperature of" in note and "No pass" in note for note in finding.notes) == (verdict == "warn")

    def test_the_uncorrected_error_and_what_differences_are_of_is_said(self):
        logits, y = forecasts(300)
        finding = Calibration().run(subject_of(pair(sigmoid(logits).astype(np.float32)), y))
        plain = finding.headline.statistics[0](np.ones((1, 300)))[0]
        assert f"is {plain:.3f}. Differences between methods are of these uncorrected errors" in finding.notes[0]


class TestBeforeScaling:
    @pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 8.0])
    @pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
    def test_it_is_what_the_network_said_before_the_temperature(self, task, temperature):
        k = {"binary": 2, "multiclass": 5, "multilabel": 3}[task]
        logits = np.random.default_rng(0).normal(size=(500, k)) * 2.5 * min(temperature, 1)
        said = sigmoid if task == "multilabel" else softmax
        calibrated = said(logits / temperature).astype(np.float32)
        member = Member(oracle([f"c{i}" for i in range(k)], task, temperature=temperature), 0, calibrated)
        assert _before_scaling(member, task) == pytest.approx(said(logits), abs=5e-6)

    def test_softmax_keeps_what_it_ruled_out(self):
        """The runner-up at 1e-30 after a small temperature was at 1e-3 before."""
        logits = np.array([[0.0, -6.9], [0.0, -4.0]])
        calibrated = softmax(logits / 0.1).astype(np.float32)
        before = _before_scaling(Member(oracle(["a", "b"], "binary", temperature=0.1), 0, calibrated), "binary")
        assert before == pytest.approx(softmax(logits), rel=1e-5)

    @pytest.mark.parametrize("task", ["binary", "multilabel"])
    def test_saturated_probabilities_stay_probabilities(self, task):
        p = np.array([[1, 0], [0, 1], [1e-30, 1]], np.float32)
        for temperature in (0.1, 10.0):
            before = _before_scaling(Member(oracle(["a", "b"], task, temperature=temperature), 0, p), task)
            assert np.isfinite(before).all()
            assert before.min() >= 0
            assert before.max() <= 1
            assert ((before > 0.5) == (p > 0.5)).all()

    def test_an_overconfident_network_is_seen_before_and_mended_after(self):
        logits, y = forecasts()
        raw = np.stack([-1.5 * logits, 1.5 * logits], axis=1)  # softmax of these is sigmoid(3 logits)
        temperature = fit_temperature(raw, y, task="binary")
        assert temperature == pytest.approx(3, rel=0.1)
        finding = Calibration().run(subject_of(softmax(raw / temperature), y, temperature=temperature))
        after, before = finding.headline.estimate, finding.measures["ece-before"].estimate
        assert after.value < 0.02
        assert before.value == pytest.approx(np.abs(sigmoid(3 * logits) - sigmoid(logits)).mean(), abs=0.015)
        assert f"({temperature:.2f}; above 1 means overconfident)" in finding.notes[0]

    def test_it_is_shown_when_any_seed_was_scaled_each_by_its_own_temperature(self):
        logits, y = forecasts()
        raw = [np.stack([-f * logits / 2, f * logits / 2], axis=1) for f in (1.0, 3.0)]
        members = [softmax(x / t) for x, t in zip(raw, (1.0, 3.0), strict=True)]
        before = Calibration().run(subject_of(members, y, temperature=[1.0, 3.0])).measures["ece-before"]
        plain = [s(np.ones((1, len(y))))[0] for s in before.statistics]
        assert plain == pytest.approx([ece_by_hand(sigmoid(f * logits), y, 15) for f in (1.0, 3.0)], abs=1e-4)


class TestReliability:
    def test_every_seed_is_counted_and_empty_bins_are_left_out(self):
        y = np.array([0, 1, 1, 1] * 25)
        p = pair(np.where(np.arange(100) % 4 == 0, 0.1, 0.9))
        figure = Calibration(bins=10).run(subject_of([p, p, p], y)).figures[0]
        assert figure.data["n"].tolist() == [75, 225]
        assert figure.data["stated"].tolist() == pytest.approx([0.1, 0.9])
        assert figure.data["observed"].tolist() == [0, 1]
        assert figure.diagonal

    def test_overconfidence_is_below_the_diagonal(self):
        logits, y = forecasts()
        data = Calibration().run(subject_of(pair(sigmoid(4 * logits)), y)).figures[0].data
        sure = data[data["stated"] > 0.7]
        assert len(sure) >= 3
        assert (sure["observed"] < sure["stated"]).all()
        assert (sure["low"] <= sure["observed"]).all()
        assert (sure["observed"] <= sure["high"]).all()
