"""JTT: which images the first training gets wrong, how often they are drawn, and a planted shortcut that it weakens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from test_method_clean import right_when_flipped, shortcut_world
from test_method_seam import Killed, run, survives

from tiny import tiny_cohort, tiny_config, tiny_setup
from trueread.errors import InputError
from trueread.method import jtt
from trueread.method.base import build_method
from trueread.training import loop
from trueread.training.batches import epoch_order
from trueread.training.evaluate import predict_probabilities
from trueread.training.loop import fit
from trueread.training.steps import mix


def told(monkeypatch, cohort, said, **options):
    """JTT after a first training that gave the training images the classes `said`."""
    monkeypatch.setattr(jtt.JTT, "_identify", lambda _self, _setup, _epochs: np.asarray(said))
    method, setup = build_method("jtt", **options), tiny_setup(cohort)
    setup.config = tiny_config(epochs=9)
    method.prepare(setup)
    return method


def with_wrong_labels(n: int = 200, share: float = 0.1):
    """A tiny cohort, easy to learn, and which of its training images have another label than they should."""
    cohort = tiny_cohort(n=n)
    train = cohort.rows("train")
    wrong = np.random.default_rng(0).random(len(train)) < share
    labels = cohort.labels.copy()
    labels[train[wrong]] = 1 - labels[train[wrong]]
    return replace(cohort, labels=labels), wrong


class TestSampling:
    @pytest.mark.parametrize("upweight", [1.0, 5.0, 20.0, 200.0])
    def test_an_error_is_drawn_so_many_times_as_often(self, monkeypatch, upweight):
        cohort = tiny_cohort("multiclass", n=200, share=0.2)
        labels = cohort.labels[cohort.rows("train")]
        said = labels.copy()
        said[::7] = (said[::7] + 1) % 3
        method = told(monkeypatch, cohort, said, upweight=upweight)
        wrong = said != labels
        n, e = len(labels), int(wrong.sum())
        by_hand = np.where(wrong, upweight, 1.0) / (n - e + upweight * e)
        p = method.sampling(None).double().numpy()
        np.testing.assert_allclose(p / p.sum(), by_hand, rtol=1e-6)
        order = epoch_order(n, generator=torch.Generator().manual_seed(0), sampling=method.sampling(None))
        assert len(order) == n, "an epoch stays as long as it was"
        expected = np.array([by_hand[~wrong].sum(), by_hand[wrong].sum()]) * n
        assert chisquare(np.bincount(wrong[order].astype(int), minlength=2), expected).pvalue > 1e-3
        per_class = [int((wrong & (labels == k)).sum()) for k in range(3)]
        assert method.report() == {
            "identification_epochs": 2, "errors": e,
            "errors_per_class": dict(zip(cohort.classes, per_class, strict=True)),
        }  # fmt: skip

    def test_without_an_error_every_image_is_drawn_once(self, monkeypatch):
        cohort = tiny_cohort()
        method = told(monkeypatch, cohort, cohort.labels[cohort.rows("train")])
        assert method.sampling(None) is None
        assert method.report()["errors"] == 0
        assert "no error" in method.report()["note"]

    def test_with_errors_only_all_are_drawn_equally(self, monkeypatch):
        cohort = tiny_cohort()
        method = told(monkeypatch, cohort, 1 - cohort.labels[cohort.rows("train")])
        assert method.sampling(None).unique().tolist() == [20.0]


class TestFirstTraining:
    def test_is_plain_training_of_a_quarter_of_the_epochs(self):
        cohort, _ = with_wrong_labels()
        config = tiny_config(epochs=9, select="auroc", patience=1)
        seen = {}

        def spied(*args, **options):
            seen.update(hooks=args[1], config=args[2], fitted=fit(*args, **options))
            return seen["fitted"]

        method, setup = build_method("jtt"), tiny_setup(cohort)
        setup.fit, setup.config, setup.seed = spied, config, 3
        method.prepare(setup)
        assert repr(seen["hooks"]) == "erm()"
        assert seen["config"] == config.model_copy(update={"epochs": 2, "select": "last", "patience": None})
        plain = fit(cohort, None, seen["config"], seed=mix(3, "identification"), quiet=True).classifier
        rows = cohort.rows("train")
        wrong = predict_probabilities(plain, cohort, rows).argmax(1) != cohort.labels[rows]
        np.testing.assert_array_equal(method.wrong.numpy(), wrong)

    @pytest.mark.parametrize(("given", "epochs", "expected"), [(None, 1, 1), (None, 12, 3), (5, 12, 5)])
    def test_its_length(self, monkeypatch, given, epochs, expected):
        said = []
        cohort = tiny_cohort()
        labels = cohort.labels[cohort.rows("train")]
        monkeypatch.setattr(jtt.JTT, "_identify", lambda _self, _setup, n: said.append(n) or labels)
        method, setup = build_method("jtt", identification_epochs=given), tiny_setup(cohort)
        setup.config = tiny_config(epochs=epochs)
        method.prepare(setup)
        assert said == [expected] == [method.report()["identification_epochs"]]

    def test_finds_the_labels_that_contradict_the_images(self):
        cohort, wrong = with_wrong_labels()
        method = build_method("jtt", identification_epochs=2)
        fitted = run(method, cohort, epochs=1)
        found = method.wrong.numpy()
        assert (found & wrong).sum() > 0.8 * wrong.sum()
        assert (found & ~wrong).sum() < 0.1 * len(wrong)
        assert fitted.report["errors"] == found.sum()

    def test_killed_in_it_the_run_goes_on_where_it_was(self, tmp_path, monkeypatch):
        cohort, _ = with_wrong_labels(n=80)
        options = {"epochs": 1, "batch_size": 16}
        expected = run(build_method("jtt", identification_epochs=3), cohort, folder=tmp_path / "whole", **options)
        validate, done = loop._Run._validate, []

        def dies(self):
            if self.config.epochs == 3:
                done.append(len(self.history))
                if done == [1, 2, 3]:
                    raise Killed
            validate(self)

        monkeypatch.setattr(loop._Run, "_validate", dies)
        with pytest.raises(Killed):
            run(build_method("jtt", identification_epochs=3), cohort, folder=tmp_path / "killed", **options)
        resumed = run(build_method("jtt", identification_epochs=3), cohort, folder=tmp_path / "killed", **options)
        assert done == [1, 2, 3, 3], "two epochs were not trained again"
        assert resumed.report == expected.report
        for a, b in zip(
            resumed.classifier.state_dict().values(), expected.classifier.state_dict().values(), strict=True
        ):
            assert torch.equal(a, b)
        assert not [*(tmp_path / "killed" / "identification").rglob("*.pt")], "nothing is left of it"


def test_weakens_a_planted_shortcut():
    world = shortcut_world(prevalence=0.9)
    plain, _ = right_when_flipped("erm", world)
    twice, report = right_when_flipped("jtt", world, identification_epochs=2)
    assert report["errors"] > 0
    assert twice > plain + 0.15


def test_survives_and_composes(tmp_path):
    cohort, _ = with_wrong_labels()
    resumed = survives(lambda: build_method("jtt+balanced-sampling+mixup"), tmp_path, cohort=cohort)
    assert resumed.report["jtt"]["errors"] > 0


def test_multilabel_is_refused():
    with pytest.raises(InputError, match="the task is multilabel"):
        build_method("jtt").prepare(tiny_setup(tiny_cohort("multilabel")))


@pytest.mark.parametrize("options", [{"upweight": 0.5}, {"upweight": 201}, {"identification_epochs": 0}])
def test_options_out_of_range(options):
    with pytest.raises(InputError, match=r"method 'jtt': '.*' must be"):
        build_method("jtt", **options)
