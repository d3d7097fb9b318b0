"""DFR: the refitted layer against scikit-learn, its balance and its penalty, and a planted shortcut that it weakens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from test_method_clean import right_when_flipped, shortcut_world, with_column
from test_method_seam import run, same, survives

from tiny import tiny_cohort, tiny_setup
from trueread.errors import InputError
from trueread.method import dfr
from trueread.method.base import build_method
from trueread.method.clean import clean_rows
from trueread.method.dfr import STRENGTHS, balanced_fit, chosen_strength, held_out
from trueread.training.batches import ImageStore
from trueread.training.evaluate import predict_logits


def some(n: int = 90, k: int = 3, seed: int = 0):
    """Features float64 [n,4] of which the first k tell the class, int64 labels [n], skewed."""
    generator = np.random.default_rng(seed)
    y = generator.choice(k, n, p=np.array([5, 3, 2][:k]) / sum([5, 3, 2][:k]))
    x = generator.normal(size=(n, 4))
    x[np.arange(n), y] += 1.5
    return x, y


def marked(task: str = "binary", *, n: int = 200, share: float = 0.4):
    cohort = tiny_cohort(task, n=n, share=share)
    generator = np.random.default_rng(2)
    return with_column(cohort, mark=(generator.random(n) < 0.5).astype(int), site=generator.choice(["A", "B"], n))


def balanced_ids(cohort) -> list[str]:
    """Training images in which the planted cue tells nothing: as many with as without it of every class."""
    rows = cohort.rows("train")
    group = 2 * cohort.labels[rows] + cohort.truth["cue"].to_numpy()[rows]
    size = np.bincount(group).min()
    return [i for g in range(4) for i in cohort.table["id"].to_numpy()[rows[group == g][:size]]]


class TestBalancedFit:
    @pytest.mark.parametrize("k", [2, 3])
    @pytest.mark.parametrize("c", [0.01, 1.0])
    def test_of_equal_groups_it_is_scikit_learns_fit(self, k, c):
        x, _ = some(k=k)
        y = np.arange(len(x)) % k
        x[np.arange(len(x)), y] += 1.0
        weight, bias = balanced_fit(x, y, y, c=c, seed=0)
        model = LogisticRegression(C=c, max_iter=1000).fit(x, y)
        ours = torch.from_numpy(x @ weight.T + bias).softmax(1).numpy()
        np.testing.assert_allclose(ours, model.predict_proba(x), atol=1e-3)

    def test_of_skewed_classes_it_is_the_mean_of_fits_that_are_told_nothing_of_it(self):
        """Labels without a relation to the features: no class is preferred, whatever its share."""
        generator = np.random.default_rng(0)
        x, y = generator.normal(size=(400, 3)), (generator.random(400) < 0.1).astype(np.int64)
        weight, bias = balanced_fit(x, y, y, c=0.01, seed=0)
        said = torch.from_numpy(x @ weight.T + bias).softmax(1).mean(0)
        assert said.tolist() == pytest.approx([0.5, 0.5], abs=0.05)
        plain = LogisticRegression(C=0.01).fit(x, y).predict_proba(x).mean(0)
        assert plain[1] < 0.15

    def test_balanced_groups_take_the_shortcut_away(self):
        """x0 is the evidence, x1 a cue that goes along with the class in nine of ten."""
        generator = np.random.default_rng(1)
        y = generator.integers(0, 2, 2000)
        cue = np.where(generator.random(2000) < 0.9, y, 1 - y)
        x = np.stack([y + generator.normal(size=2000), cue + 0.1 * generator.normal(size=2000)], 1)
        of_classes, _ = balanced_fit(x, y, y, c=1.0, seed=0)
        of_groups, _ = balanced_fit(x, y, 2 * y + cue, c=1.0, seed=0)
        assert of_classes[1, 1] > 1.0
        assert abs(of_groups[1, 1]) < 0.3
        assert of_groups[1, 0] > 0.3

    def test_classes_of_unequally_many_groups_weigh_the_same(self):
        x = np.zeros((60, 2))
        y = np.repeat([0, 0, 1], 20)
        weight, bias = balanced_fit(x, y, np.repeat([0, 1, 2], 20), c=1.0, seed=0)
        np.testing.assert_allclose(np.abs(weight).max() + np.abs(bias).max(), 0, atol=1e-6)

    def test_a_single_image_of_a_class_is_enough(self):
        x, y = some(k=2)
        y = (np.arange(len(x)) == 7).astype(np.int64)
        weight, bias = balanced_fit(x, y, y, c=1.0, seed=0)
        assert np.isfinite(weight).all()
        assert (x[7] @ weight.T + bias).argmax() == 1


class TestChosenStrength:
    def test_halves_are_of_patients_and_every_group_is_in_both(self):
        patients = np.repeat(np.arange(40), 3)
        groups = np.where(patients < 34, 0, 1)
        held = held_out(groups, patients, seed=0)
        for patient in range(40):
            assert len(set(held[patients == patient])) == 1
        assert [held[groups == g].mean() for g in (0, 1)] == [0.5, 0.5]
        assert not np.array_equal(held, held_out(groups, patients, seed=2**40))

    @pytest.mark.parametrize("worst", [True, False])
    def test_is_the_one_with_the_best_held_out_accuracy(self, worst):
        x, y = some(n=150)
        groups = 2 * y + (np.random.default_rng(3).random(150) < 0.3)
        held = held_out(groups, np.arange(150), seed=4)
        by_hand = {}
        for c in STRENGTHS:
            weight, bias = balanced_fit(x[~held], y[~held], groups[~held], c=c, seed=4)
            right = (x[held] @ weight.T + bias).argmax(1) == y[held]
            shares = [right[groups[held] == g].mean() for g in range(6)]
            by_hand[c] = min(shares) if worst else sum(shares) / 6
        c, score = chosen_strength(x, y, groups, np.arange(150), seed=4, worst=worst)
        assert score == pytest.approx(max(by_hand.values()))
        assert c == min(s for s in STRENGTHS if by_hand[s] == max(by_hand.values())), "the strongest of the best"

    def test_of_too_few_patients_it_is_the_strongest(self):
        x, y = some(k=2)
        assert chosen_strength(x, y, y, y, seed=0, worst=False) == (0.01, None)


class TestRefit:
    @pytest.mark.parametrize("task", ["binary", "multiclass"])
    def test_logits_are_scikit_learns_on_standardised_features(self, task, monkeypatch):
        """One C, all clean images of a balanced cohort: the layer says what a pipeline of scikit-learn says."""
        monkeypatch.setattr(dfr, "STRENGTHS", (0.1,))
        cohort = marked(task)
        fitted = run(build_method("dfr", clean="mark"), cohort, epochs=1)
        plain = run(build_method("erm"), cohort, epochs=1)
        assert same(fitted.classifier.network.backbone, plain.classifier.network.backbone)
        rows, clean = cohort.rows("train"), clean_rows(tiny_setup(cohort), "mark")
        store = ImageStore(cohort, torch.device("cpu"))
        with torch.no_grad():
            of_train, of_clean, of_test = (
                plain.classifier(store.batch(r)).features.double().numpy() for r in (rows, clean, cohort.rows("test"))
            )
        mean, scale = of_train.mean(0), of_train.std(0)
        scale[scale == 0] = 1
        y = cohort.labels[clean]
        generator, size, said = np.random.default_rng(dfr.mix(2, "dfr")), np.bincount(y).min(), 0.0
        for _ in range(10):
            part = [generator.choice(np.flatnonzero(y == k), size, replace=False) for k in range(cohort.n_classes)]
            part = np.concatenate(part)
            model = LogisticRegression(C=0.1, max_iter=1000).fit(((of_clean - mean) / scale)[part], y[part])
            odds = model.decision_function((of_test - mean) / scale)
            said = said + (np.stack([-odds, odds], 1) / 2 if task == "binary" else odds) / 10
        ours = predict_logits(fitted.classifier, store, cohort.rows("test")).double().numpy()
        np.testing.assert_allclose(ours, said, atol=2e-3)
        assert fitted.report["c"] == 0.1
        assert fitted.report["clean_images"] == len(clean) == sum(fitted.report["group_sizes"].values())
        assert 0 <= fitted.report["held_out_accuracy"] <= 1

    def test_weakens_a_planted_shortcut(self):
        world = shortcut_world(prevalence=0.9)
        plain, _ = right_when_flipped("erm", world)
        options = {"clean": balanced_ids(world[0]), "attribute": "planted"}
        refitted, report = right_when_flipped("dfr", world, **options)
        assert refitted > plain + 0.15
        assert len(set(report["group_sizes"].values())) == 1
        assert len(report["group_sizes"]) == 4

    def test_survives_and_composes(self, tmp_path):
        options = {"dfr": {"clean": "mark", "fraction": 0.6, "attribute": "site"}}
        resumed = survives(lambda: build_method("dfr+mixup", **options), tmp_path, cohort=marked())
        assert resumed.report["dfr"]["c"] in STRENGTHS


class TestWrongInput:
    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({}, "tiny-binary has no planted cue"),
            ({"clean": "marks"}, "no column 'marks' .* Did you mean 'mark'"),
            ({"clean": []}, "found none, among the"),
            ({"clean": "mark", "attribute": "sitee"}, "no attribute 'sitee'. Did you mean 'site'"),
            ({"clean": "mark", "attribute": "mark"}, r"'mark' has one value in the \d+ images to be grouped \(1\)"),
        ],
    )
    def test_is_found_before_the_training(self, options, sentence):
        with pytest.raises(InputError, match=sentence):
            build_method("dfr", **options).prepare(tiny_setup(marked()))

    def test_multilabel(self):
        with pytest.raises(InputError, match="one class per image, but the task is multilabel"):
            build_method("dfr", clean="mark").prepare(tiny_setup(marked("multilabel")))

    def test_a_class_without_a_clean_image(self):
        cohort = marked("multiclass")
        cohort = replace(cohort, table=cohort.table.assign(mark=(cohort.labels != 2).astype(int)))
        with pytest.raises(InputError, match="none of 'moderate'"):
            build_method("dfr", clean="mark").prepare(tiny_setup(cohort))

    @pytest.mark.parametrize("options", [{"fraction": 0}, {"clean": 1}, {"attribute": 1}])
    def test_options_out_of_range(self, options):
        with pytest.raises(InputError, match=r"method 'dfr': '.*' must be"):
            build_method("dfr", **options)
