"""Methods against wrong labels: what they leave out on hand-made losses, guards, the truth, and runs that go on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny import tiny_cohort, tiny_config, tiny_setup, tiny_step
from trueread import fit
from trueread.errors import InputError
from trueread.method.aum import AUM, STRANGE
from trueread.method.confident_learning import ConfidentLearning
from trueread.method.loss_truncation import LossTruncation
from trueread.method.one_shot import OneShot
from trueread.method.selecting import Selecting, identified, lowest, softly
from trueread.method.self_paced import SelfPaced
from trueread.method.step_e import StepE
from trueread.method.true_labels import TrueLabels
from trueread.shift.label_noise import with_label_noise
from trueread.training.ledger import Ledger

EPOCHS = 20


def losses_of(wrong, *, apart=3.0, seed=0):
    """Losses whose logarithms are normal, those of wrong labels higher."""
    generator = np.random.default_rng(seed)
    return np.exp(generator.normal(np.where(wrong, apart, 0.0), 0.8)).astype(np.float32)


def noisy(n=600, *, rate=0.3, share=0.5):
    return with_label_noise(tiny_cohort(n=n, side=4, share=share), rate=rate)


def told(method, cohort, by_epoch, *, epochs=EPOCHS, validation=None):
    """The method after each of these epochs of losses [N], and of validation losses."""
    setup = replace(tiny_setup(cohort), config=tiny_config(epochs=epochs))
    setup.ledger = Ledger(setup.ledger.rows, setup.ledger.labels, epochs=epochs)
    setup.val_rows = setup.val_rows[:0]  # there is no network that could be asked about them
    method.prepare(setup)
    for epoch, loss in enumerate(by_epoch):
        setup.ledger.epoch = epoch
        setup.ledger.loss[epoch] = torch.from_numpy(loss)
        if validation is not None:
            setup.ledger.validation[epoch] = validation[epoch]
        method.after_epoch(setup.ledger)
        yield method


class TestLowest:
    @settings(max_examples=40, deadline=None)
    @given(
        score=st.lists(st.floats(0, 10) | st.just(float("nan")), min_size=4, max_size=40), share=st.floats(0, 1),
        seed=st.integers(0, 9), per_class=st.booleans(), least=st.integers(1, 6), at_least=st.floats(0, 1),
    )  # fmt: skip
    def test_no_class_is_emptied_and_no_higher_score_is_kept_before_a_lower_one(
        self, score, share, seed, per_class, least, at_least
    ):
        score = torch.tensor(score)
        labels = torch.from_numpy(np.random.default_rng(seed).integers(0, 3, len(score)))
        kept = lowest(score, share, labels=labels, per_class=per_class, least=least, at_least=at_least)
        assert kept.any()
        filled = score.nan_to_num(nan=-1.0)
        for k in labels.unique():
            mine = labels == k
            assert kept[mine].sum() >= min(least, mine.sum())
            assert kept[mine].sum() >= round(at_least * int(mine.sum()))
            if kept[mine].any() and (~kept[mine]).any():
                assert filled[mine][kept[mine]].max() <= filled[mine][~kept[mine]].min()

    def test_shares_of_the_whole_and_of_each_class(self):
        score, labels = torch.arange(100.0), torch.cat([torch.zeros(80), torch.ones(20)]).long()
        assert lowest(score, 0.5, labels=labels, least=1).sum() == 51  # the higher class keeps its guard
        of_each = lowest(score, 0.5, labels=labels, per_class=True, least=1)
        assert (of_each[:80].sum(), of_each[80:].sum()) == (40, 10)

    def test_a_class_of_one_in_two_hundred_is_not_emptied(self):
        score = torch.cat([torch.rand(1990), 5 + torch.rand(10)])  # all of the rare class look wrong
        labels = torch.cat([torch.zeros(1990), torch.ones(10)]).long()
        assert lowest(score, 0.6, labels=labels)[1990:].all()


def test_soft_weights_fall_with_the_score_and_are_a_half_at_the_edge():
    score = torch.linspace(0, 1, 101)
    weight = softly(score, 0.6, softness=0.25)
    assert (weight.diff() < 0).all()
    assert weight[60] == pytest.approx(0.5, abs=0.01)
    assert softly(torch.tensor([0.0, 1.0, 2.0, float("nan")]), 0.5, softness=0.1)[3] == 1


def test_what_was_found_is_scored_as_sklearn_does():
    generator = np.random.default_rng(0)
    wrong, out, score = generator.random(200) < 0.2, generator.random(200) < 0.3, generator.random(200)
    found = identified(out, score, wrong)
    expected = {
        "precision": sk.precision_score(wrong, out), "recall": sk.recall_score(wrong, out),
        "f1": sk.f1_score(wrong, out), "auroc": sk.roc_auc_score(wrong, score),
    }  # fmt: skip
    assert found == pytest.approx(expected, abs=1e-4)
    nothing = identified(np.zeros(5, bool), np.full(5, np.nan), np.zeros(5, bool))
    assert nothing == {"precision": None, "recall": None, "f1": None, "auroc": None}


class TestStepE:
    def test_it_waits_until_the_scores_have_stopped_to_separate(self):
        cohort = noisy(2000)
        wrong = cohort.truth["flipped"].to_numpy()[cohort.rows("train")]
        growing = [
            losses_of(wrong, apart=a, seed=s) for s, a in enumerate([0.2, 0.6, 1.2, 1.8, 2.4, 3.0, 3.0, 3.0, 3.0])
        ]
        method, share = StepE(smoothing=0.0), []
        for now in told(method, cohort, growing):
            share.append(float(1 - now.keep.mean()))
        assert method.started is not None
        assert 5 <= method.started <= 8
        assert share[:4] == [0] * 4
        assert share[-1] == pytest.approx(wrong.mean(), abs=0.05)
        report = method.report()
        assert report["against_the_truth"]["auroc"] > 0.97
        assert report["against_the_truth"]["f1"] > 0.9
        assert report["noise"] == pytest.approx(wrong.mean(), abs=0.05)

    def test_it_leaves_nothing_out_where_validation_contradicts_no_label(self, monkeypatch):
        monkeypatch.setattr(StepE, "_contradicted", lambda _: 0.0)
        cohort = noisy(600, rate=0.0)
        plain = losses_of(np.zeros(len(cohort.rows("train")), bool))
        for now in told(StepE(), cohort, [plain * min(s + 1, 4) for s in range(EPOCHS)]):
            assert now.keep.all()
        assert now.report()["noise"] == 0
        assert "against_the_truth" not in now.report()  # nothing is wrong

    def test_a_spread_that_only_falls_starts_nothing(self):
        cohort = noisy()
        falling = [losses_of(np.arange(len(cohort.rows("train"))) < 50) * 0.9**s for s in range(EPOCHS)]
        for now in told(StepE(), cohort, falling):
            assert now.keep.all()
        assert now.report()["started_after_epoch"] is None

    def test_it_waits_while_the_spread_grows(self):
        cohort = noisy()
        wrong = cohort.truth["flipped"].to_numpy()[cohort.rows("train")]
        growing = [losses_of(wrong, apart=0.3 * s, seed=0) for s in range(14)]
        for now in told(StepE(), cohort, growing):
            assert now.keep.all()
        assert now.report()["started_after_epoch"] is None

    def test_it_does_not_wait_until_validation_says_that_labels_are_learned_by_heart(self):
        cohort = noisy()
        wrong = cohort.truth["flipped"].to_numpy()[cohort.rows("train")]
        growing = [losses_of(wrong, apart=0.3 * s, seed=0) for s in range(8)]
        by_heart = torch.tensor([0.69, 0.60, 0.62, 0.61, 0.64, 0.70, 0.80, 0.90])
        kept = [bool(m.keep.all()) for m in told(StepE(noise=0.2, ramp=0), cohort, growing, validation=by_heart)]
        assert kept == [True] * 4 + [False] * 4  # 0.64 is the first that is 5 % above 0.60

    def test_validation_labels_are_asked(self):
        cohort = with_label_noise(tiny_cohort(n=300), rate=0.3)
        method = StepE(warmup=0.8)
        fit(cohort, method, tiny_config(epochs=8), quiet=True)
        wrong = cohort.truth["flipped"].to_numpy()[cohort.rows("val")].mean()
        assert method._contradicted() == pytest.approx(wrong, abs=0.1)
        assert method.share <= method._contradicted() + 0.1

    def test_the_calendar_can_decide_and_the_share_grows_over_the_ramp(self):
        cohort = noisy()
        wrong = cohort.truth["flipped"].to_numpy()[cohort.rows("train")]
        losses = [losses_of(wrong, seed=s) for s in range(8)]
        shares = [float(1 - m.keep.mean()) for m in told(StepE(warmup=0.1, ramp=0.2, noise=0.4), cohort, losses)]
        assert shares == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4], abs=0.01)

    def test_what_was_left_out_can_come_back(self):
        cohort = noisy()
        n = len(cohort.rows("train"))
        first, second = np.ones(n, np.float32), np.ones(n, np.float32)
        first[:50], second[50:100] = 9, 9
        kept = [
            m.keep.clone() for m in told(StepE(warmup=0.05, ramp=0, noise=0.1, smoothing=0), cohort, [first, second])
        ]
        out = [set(torch.nonzero(k == 0).flatten().tolist()) for k in kept]
        assert len(out[0]) == len(out[1]) == n - round(0.9 * n)
        assert out[0] < set(range(50))
        assert out[1] < set(range(50, 100))

    @pytest.mark.parametrize(("most", "left_out"), [(0.5, 0.5), (1.0, 1.0)])
    def test_of_no_class_more_than_a_share_is_left_out(self, most, left_out):
        cohort = noisy(rate=0.0, share=0.2)
        rare = torch.from_numpy(cohort.labels[cohort.rows("train")] == 1)
        options = {"warmup": 0.05, "ramp": 0, "noise": float(rare.float().mean()), "least": 1, "most": most}
        (method,) = told(StepE(**options), cohort, [losses_of(rare.numpy(), apart=30.0)])
        assert float((method.keep[rare] == 0).float().mean()) == pytest.approx(left_out, abs=0.02)

    def test_soft_weights_keep_the_guard(self):
        cohort = noisy(share=0.02)
        wrong = cohort.truth["flipped"].to_numpy()[cohort.rows("train")]
        (method,) = told(StepE(warmup=0.05, ramp=0, noise=0.3, mode="soft"), cohort, [losses_of(wrong)])
        assert ((method.keep > 0) & (method.keep < 1)).any()
        labels = cohort.labels[cohort.rows("train")]
        for k in range(2):
            assert (method.keep.numpy()[labels == k] == 1).sum() >= min(10, (labels == k).sum())

    def test_the_weights_are_those_of_the_batch(self):
        cohort = noisy()
        (method,) = told(StepE(warmup=0.05, ramp=0, noise=0.3), cohort, [losses_of(np.arange(360) < 100)])
        step = tiny_step(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]))
        step.index = torch.tensor([3, 200, 7, 300])
        assert method.weights(step).tolist() == method.keep[step.index].tolist()


def test_a_training_goes_on_in_the_middle_of_the_ramp_with_the_same_exclusions(tmp_path):
    cohort = with_label_noise(tiny_cohort(n=150), rate=0.3)
    config = tiny_config(epochs=6)

    class Stops(StepE):
        def after_epoch(self, ledger):
            super().after_epoch(ledger)
            if ledger.epoch == 2 and self.stop:
                self.stop = False
                raise RuntimeError("killed")

    options = {"warmup": 0.2, "ramp": 0.6, "noise": 0.4}
    whole = StepE(**options)
    expected = fit(cohort, whole, config, folder=tmp_path / "whole", quiet=True)
    method = Stops(**options)
    method.stop = True
    with pytest.raises(RuntimeError, match="killed"):
        fit(cohort, method, config, folder=tmp_path / "killed", quiet=True)
    again = Stops(**options)
    again.stop = False
    found = fit(cohort, again, config, folder=tmp_path / "killed", quiet=True)
    assert torch.equal(again.keep, whole.keep)
    assert 0 < (whole.keep == 0).sum() < len(whole.keep)
    for a, b in zip(found.classifier.parameters(), expected.classifier.parameters(), strict=True):
        assert torch.equal(a, b)


class TestBaselines:
    def test_truncation_leaves_the_highest_of_the_batch_out(self):
        step = tiny_step(torch.zeros(5, 2), torch.zeros(5, dtype=torch.int64))
        step.per_sample_loss = torch.tensor([0.1, 3.0, 0.2, 2.0, 0.3])
        method = LossTruncation(noise=0.4, warmup=0.5)
        step.done = 0.4
        assert method.weights(step) is None
        step.done = 0.5
        assert method.weights(step).tolist() == [1, 0, 1, 0, 1]

    def test_self_paced_learning_takes_more_and_more(self):
        cohort = noisy()
        n = len(cohort.rows("train"))
        shares = [float(m.keep.mean()) for m in told(SelfPaced(), cohort, [np.arange(n, dtype=np.float32)] * EPOCHS)]
        assert shares == sorted(shares)
        assert shares[0] == pytest.approx(0.53, abs=0.01)
        assert shares[15] == 1

    def test_one_shot_decides_once(self):
        cohort = noisy()
        n = len(cohort.rows("train"))
        losses = [np.random.default_rng(s).random(n).astype(np.float32) for s in range(6)]
        kept = [m.keep.clone() for m in told(OneShot(noise=0.25, warmup=0.1), cohort, losses)]
        assert kept[0].all()
        assert float(1 - kept[1].mean()) == pytest.approx(0.25, abs=0.01)
        assert all(torch.equal(k, kept[1]) for k in kept[2:])

    def test_the_oracle_learns_from_the_true_labels(self):
        cohort = noisy()
        setup, method = tiny_setup(cohort), TrueLabels()
        method.prepare(setup)
        rows = cohort.rows("train")
        np.testing.assert_array_equal(setup.ledger.labels, cohort.truth["true_label"][rows])
        assert method.report()["mended"] == cohort.truth["flipped"][rows].sum() > 0

    @pytest.mark.parametrize(
        ("method", "precision"),
        [(ConfidentLearning(least=2), 0.7), (AUM(least=2), 0.2)],  # of few images a third learns the strange label
    )
    def test_what_looks_first_leaves_the_wrong_ones_out_and_keeps_it_so(self, method, precision, tmp_path):
        cohort = with_label_noise(tiny_cohort(n=300), rate=0.2)
        fit(cohort, method, tiny_config(epochs=8), folder=tmp_path, quiet=True)
        told = method.report()["against_the_truth"]
        assert told["auroc"] > 0.9
        assert told["precision"] > precision
        assert told["recall"] > 0.7
        again = type(method)()
        again.load_state(method.state(), tiny_setup(cohort))
        assert again.report() == method.report()
        assert not list(tmp_path.glob("*/checkpoints"))

    def test_the_strange_samples_of_aum_are_others_in_the_second_round(self):
        cohort, given = noisy(300, rate=0.0), []

        def watched(widened, hooks, *_, **__):
            assert (widened.task, widened.classes) == ("multiclass", ("normal", "mild", STRANGE))
            given.append(np.flatnonzero(widened.labels[cohort.rows("train")] == 2))
            hooks.prepare(replace(tiny_setup(widened)))
            n = len(cohort.rows("train"))
            hooks.total, hooks.seen = torch.linspace(-1, 1, n), torch.ones(n)

        setup = replace(tiny_setup(cohort), config=tiny_config(epochs=4), fit=watched)
        method = AUM(percentile=50, least=1)
        method.prepare(setup)
        assert len(given[0]) == len(given[1]) == len(cohort.rows("train")) // 3
        assert not set(given[0]) & set(given[1])
        area = np.linspace(-1, 1, len(cohort.rows("train")))
        below = [area <= np.median(area[strange]) for strange in given]
        expected = np.zeros(len(area), bool)
        for strange, low in zip(given, below, strict=True):
            judged = np.setdiff1d(np.arange(len(area)), strange)
            expected[judged] |= low[judged]
        assert (method.keep.numpy() != 1.0 - expected).sum() <= 2  # the guard keeps one of each class

    @pytest.mark.parametrize("method", [LossTruncation(), SelfPaced(), OneShot(), StepE(warmup=0.3, noise=0.2)])
    def test_they_train(self, method):
        fitted = fit(with_label_noise(tiny_cohort(n=100), rate=0.2), method, tiny_config(epochs=3), quiet=True)
        assert fitted.history["train_loss"].notna().all()


def test_bad_input_is_one_sentence():
    with pytest.raises(InputError, match="does not know its true labels"):
        TrueLabels().prepare(tiny_setup(tiny_cohort(n=60, side=4)))
    for method in (StepE(), SelfPaced(), OneShot(), AUM(), ConfidentLearning()):
        assert isinstance(method, Selecting)
        with pytest.raises(InputError, match="the task is multilabel"):
            method.prepare(tiny_setup(tiny_cohort("multilabel", n=60, side=4)))
