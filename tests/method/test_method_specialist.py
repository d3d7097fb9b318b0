"""Specialist-teacher distillation: its loss by hand, who learns from what, and a planted shortcut that it undoes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import rel_entr
from sklearn.linear_model import LogisticRegression
from test_method_seam import run, same, survives
from torch import nn

from tiny import tiny_cohort, tiny_config
from trueread.errors import InputError
from trueread.method.base import build_method
from trueread.method.distillation import divergence, paired_layers
from trueread.method.probes import STRENGTHS, fitted_probe, layer_features
from trueread.method.specialist import Specialist
from trueread.model.classifier import Classifier
from trueread.shift.planting import planted, planting
from trueread.stats.metrics import point
from trueread.training.batches import ImageStore
from trueread.training.evaluate import predict_probabilities
from trueread.training.loop import fit


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


class TestDivergence:
    @pytest.mark.parametrize("t", [0.5, 1.0, 4.0])
    def test_it_is_the_textbooks(self, t):
        generator = np.random.default_rng(0)
        student, teacher = generator.normal(size=(2, 7, 4)) * 3
        found = divergence(torch.tensor(student), torch.tensor(teacher), temperature=t)
        expected = t**2 * rel_entr(softmax(teacher / t), softmax(student / t)).sum(1)
        np.testing.assert_allclose(found, expected, rtol=1e-10)

    def test_of_labels_it_is_that_of_two_classes_each(self):
        generator = torch.Generator().manual_seed(0)
        student, teacher = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
        found = divergence(student, teacher, temperature=2.0, multilabel=True)
        two = [
            divergence(*(torch.stack([torch.zeros(5), z[:, k]], 1) for z in (student, teacher)), temperature=2.0)
            for k in range(3)
        ]
        torch.testing.assert_close(found, torch.stack(two).mean(0), check_dtype=False)

    def test_it_is_zero_for_equal_answers_and_finite_for_extreme_ones(self):
        z = torch.tensor([[100.0, -100.0], [0.0, 0.0]])
        for multilabel in (False, True):
            assert divergence(z, z, temperature=1.0, multilabel=multilabel).abs().max() < 1e-6
            assert divergence(z, -z, temperature=0.1, multilabel=multilabel).isfinite().all()


class TestProbes:
    def test_a_probe_is_scikit_learns_on_standardised_features(self):
        cohort = tiny_cohort("multiclass", n=150, share=0.6)
        rows = cohort.rows("train")
        features = np.random.default_rng(0).normal(5, [1, 10, 0.1], size=(len(rows), 3))
        features[:, 1] += 8 * cohort.labels[rows]
        features = np.hstack([features, np.full((len(rows), 1), 3.0)])  # a dead channel
        probe = fitted_probe(features, cohort, rows, every=features, seed=0)
        said = probe(torch.from_numpy(features).float()).log_softmax(1).exp().numpy()
        x = (features[:, :3] - features[:, :3].mean(0)) / features[:, :3].std(0)
        by_strength = [LogisticRegression(C=c, max_iter=1000).fit(x, cohort.labels[rows]) for c in STRENGTHS]
        assert min(np.abs(m.predict_proba(x) - said).max() for m in by_strength) < 1e-3
        assert not any(p.requires_grad for p in probe.parameters())

    def test_of_two_classes_and_of_labels(self):
        for task in ("binary", "multilabel"):
            cohort = tiny_cohort(task, n=150)
            rows = cohort.rows("train")
            labels = cohort.labels[rows].reshape(len(rows), -1)
            features = np.nan_to_num(labels[:, :1]) * 2 + np.random.default_rng(0).normal(size=(len(rows), 2)) * 0.3
            said = fitted_probe(features, cohort, rows, every=features, seed=0)(torch.from_numpy(features).float())
            score = said[:, 1] - said[:, 0] if task == "binary" else said[:, 0]
            known = ~np.isnan(labels[:, 0].astype(float))
            assert point("auroc", _two(score[known]), labels[known, 0].astype(int), task="binary") > 0.99

    def test_a_probe_of_noise_is_not_sure_of_itself(self):
        cohort = tiny_cohort(n=100)
        rows = cohort.rows("train")
        features = np.random.default_rng(0).normal(size=(len(rows), 200))
        said = fitted_probe(features, cohort, rows, every=features, seed=0)(torch.from_numpy(features).float()).softmax(
            1
        )
        assert said.max() < 0.75, "an unpenalised fit separates 60 images in 200 dimensions with certainty"

    def test_what_hardly_varies_on_clean_images_is_not_blown_up(self):
        """The second feature carries the cue: nearly constant on the clean images, far off on the others."""
        cohort = tiny_cohort(n=200)
        rows = cohort.rows("train")
        generator = np.random.default_rng(0)
        clean = np.stack([cohort.labels[rows] + generator.normal(size=len(rows)) * 0.3,
                          0.01 * cohort.labels[rows] + generator.normal(size=len(rows)) * 0.002], axis=1)  # fmt: skip
        moved = clean + np.array([0, 5])
        every = np.concatenate([clean, moved])
        probe = fitted_probe(clean, cohort, rows, every=every, seed=0)
        with_cue = probe(torch.from_numpy(moved).float()).softmax(1)
        without = probe(torch.from_numpy(clean).float()).softmax(1)
        assert (with_cue - without).abs().max() < 0.2
        blown_up = fitted_probe(clean, cohort, rows, every=clean, seed=0)
        assert blown_up(torch.from_numpy(moved).float()).softmax(1)[:, 1].min() > 0.99

    def test_one_patient_of_a_class_and_a_label_that_is_never_there(self):
        cohort = tiny_cohort(n=60)
        rows = np.concatenate([np.flatnonzero(cohort.labels == 0)[:9], np.flatnonzero(cohort.labels == 1)[:1]])
        features = np.random.default_rng(0).normal(size=(10, 4))
        assert fitted_probe(features, cohort, rows, every=features, seed=0).weight.isfinite().all()
        many = tiny_cohort("multilabel", n=60)
        labels = many.labels.copy()
        labels[:, 1] = np.where(np.isnan(labels[:, 1]), np.nan, 0)
        many = replace(many, labels=labels)
        features = np.random.default_rng(0).normal(size=(60, 4))
        probe = fitted_probe(features, many, np.arange(60), every=features, seed=0)
        assert probe(torch.zeros(1, 4))[0, 1].sigmoid() < 0.05


def _two(score):
    positive = torch.as_tensor(score).sigmoid().numpy()
    return np.stack([1 - positive, positive], 1)


class TestLayers:
    def test_same_names_are_paired_and_other_architectures_by_depth(self):
        cohort = tiny_cohort(side=32)
        small, big = Classifier.build("compact", cohort=cohort), Classifier.build("resnet18", cohort=cohort)
        assert paired_layers(small, small, None) == {name: name for name in small.taps}
        pairs = paired_layers(small, big, None)
        assert list(pairs) == list(small.taps)
        assert (next(iter(pairs.values())), list(pairs.values())[-1]) == (next(iter(big.taps)), list(big.taps)[-1])
        last = list(small.taps)[-1]
        assert paired_layers(small, big, [last]) == {last: list(big.taps)[-1]}
        with pytest.raises(InputError, match="'stagge1'"):
            paired_layers(small, big, ["stagge1"])


def marked(cohort):
    """Half of every class is clean, by a column."""
    return replace(cohort, table=cohort.table.assign(curated=np.arange(len(cohort)) % 2 == 0))


class TestTraining:
    def test_the_loss_is_the_specs(self):
        """Every term from the networks' answers, computed again by hand."""
        method = Specialist(clean="curated", alpha=0.3, beta=5.0, temperature=3.0, layers=["stage1", "stage3"],
                            layer_weights=[1.0, 4.0])  # fmt: skip
        seen = []
        terms, losses = method.penalty, method.losses
        method.losses = lambda step: seen.append(losses(step)) or seen[-1]

        def looked_at(step):
            found = terms(step)
            z, target = step.logits.detach().numpy(), step.labels.numpy()
            told = method.teacher(step.images, list(method.pairs.values()))
            p, q = softmax(told.logits.numpy() / 3), softmax(z / 3)
            np.testing.assert_allclose(found["final"].item(), 0.3 * 9 * rel_entr(p, q).sum(1).mean(), rtol=1e-4)
            total = 0.0
            for place, (layer, weight) in enumerate((("stage1", 1.0), ("stage3", 4.0))):
                of = [tap.detach().flatten(2).mean(2) for tap in (told.taps[layer], step.output.taps[layer])]
                probes = (method.teacher_probes[place], method.student_probes[place])
                p, q = (softmax(probe(x).detach().numpy() / 3) for probe, x in zip(probes, of, strict=True))
                total += weight * 9 * rel_entr(p, q).sum(1).mean()
            np.testing.assert_allclose(found["layers"].item(), 5.0 * total / 2, rtol=1e-4)
            ce = -np.log(softmax(z)[np.arange(len(z)), target])
            np.testing.assert_allclose(seen[-1].detach().numpy(), 0.7 * ce, rtol=1e-4)
            return found

        method.penalty = looked_at
        run(method, marked(tiny_cohort()), epochs=1)
        assert len(seen) > 1

    @pytest.mark.parametrize("probes", ["free", "shared", "supervised"])
    def test_who_learns(self, probes):
        """The layers' term reaches the student's backbone below the layer and its own probes, and the teacher never."""
        method = Specialist(clean="curated", alpha=0.0, beta=1.0, probes=probes, layers=["stage2"])
        method.losses = lambda step: 0 * step.logits.sum(1)
        prepare = method.prepare

        def remember(setup):
            prepare(setup)
            self_at_start.update({k: v.detach().clone() for k, v in setup.classifier.named_parameters()})
            others.update(method.teacher.state_dict(prefix="teacher."), **method.teacher_probes.state_dict())
            others.update({k: v.clone() for k, v in others.items()})
            student_probes.extend(p.detach().clone() for p in method.student_probes.parameters())

        self_at_start, others, student_probes = {}, {}, []
        method.prepare = remember
        fitted = run(method, marked(tiny_cohort()), weight_decay=0.0, select="last")
        moved = {k for k, v in fitted.classifier.named_parameters() if not torch.equal(v, self_at_start[k])}
        assert any("stage1" in k for k in moved)
        assert any("stage2" in k for k in moved)
        assert not any("stage3" in k or "head" in k for k in moved)
        now = method.teacher.state_dict(prefix="teacher.") | method.teacher_probes.state_dict()
        assert all(torch.equal(v, others[k]) for k, v in now.items())
        changed = [
            not torch.equal(a, b) for a, b in zip(student_probes, method.student_probes.parameters(), strict=True)
        ]
        assert all(changed) == (probes != "shared")
        assert any(changed) == (probes != "shared")

    def test_it_survives(self, tmp_path):
        cohort = marked(tiny_cohort())

        def make():
            return Specialist(clean="curated", fraction=0.3, teacher_epochs=1)

        fitted = survives_on(cohort, make, tmp_path)
        assert fitted.report["teacher"]["invariant"] in (True, False)

    @pytest.mark.parametrize("task", ["multilabel", "ordinal"])
    def test_other_tasks(self, task):
        cohort = marked(tiny_cohort(task, n=160))
        fitted = run(Specialist(clean="curated"), cohort)
        assert fitted.history["train_loss"].notna().all()

    def test_volumes_and_another_architecture(self):
        run(Specialist(clean="curated"), marked(tiny_cohort(n=24, side=16, depth=16)), batch_size=8)
        run(Specialist(clean="curated", teacher_backbone="resnet18"), marked(tiny_cohort(n=24)), batch_size=8)

    def test_the_student_can_start_as_its_teacher(self):
        method = Specialist(clean="curated", start="teacher")
        start = {}
        prepare = method.prepare

        def remember(setup):
            prepare(setup)
            start["same"] = same(setup.classifier.network, method.teacher.network)

        method.prepare = remember
        run(method, marked(tiny_cohort()))
        assert start["same"]

    def test_a_saved_teacher(self, tmp_path):
        cohort = marked(tiny_cohort())
        teacher = run(build_method("erm"), cohort).classifier
        teacher.save(tmp_path / "t")
        method = Specialist(clean="curated", teacher=str(tmp_path / "t"))
        run(method, cohort)
        assert same(method.teacher, Classifier.load(tmp_path / "t"))
        final_only = Specialist(clean="planted", beta=0.0, alpha=1.0, teacher=str(tmp_path / "t"))
        run(final_only, cohort)  # which needs no clean image
        assert final_only.report()["layers"] == {}


def survives_on(cohort, make, tmp_path):
    """As `survives`, on this cohort."""
    import test_method_seam

    plain = test_method_seam.tiny_cohort
    try:
        test_method_seam.tiny_cohort = lambda *_: cohort
        return survives(make, tmp_path)
    finally:
        test_method_seam.tiny_cohort = plain


@pytest.fixture(scope="module")
def faint():
    """A blob so faint that a square is much easier to read."""
    cohort = tiny_cohort(n=500, seed=3)
    noise = np.random.default_rng(0).normal(90, 30, cohort.images.shape)
    return replace(cohort, images=(0.2 * cohort.images + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.slow
class TestPlantedShortcut:
    def test_it_undoes_what_erm_learns(self, faint):
        what = planting(faint, "square", severity=1.0, side=0.2, prevalence=1.0, clean=0.3)
        biased = planted(faint, what)
        flipped = planted(faint, what, {"test": "flipped"}, rows=faint.rows("test"))
        config = tiny_config(epochs=5, select="last")
        found = {}
        for method in ("erm", "specialist"):
            hooks = build_method(method) if method == "erm" else Specialist(alpha=1.0, beta=5.0)
            fitted = fit(biased, hooks, config, seed=0, quiet=True)
            p = predict_probabilities(fitted.classifier, flipped)
            found[method] = point("auroc", p, flipped.labels, task="binary")
        assert found["erm"] < 0.7
        assert found["specialist"] > 0.9

    def test_a_teacher_that_moves_with_the_cue_is_said_to(self, faint, tmp_path, capsys):
        what = planting(faint, "square", severity=1.0, side=0.2, prevalence=1.0, clean=0.05)
        biased = planted(faint, what)
        fit(biased, config=tiny_config(epochs=4), seed=0, quiet=True).classifier.save(tmp_path / "t")
        method = Specialist(teacher=str(tmp_path / "t"))
        fit(biased, method, tiny_config(), seed=0)
        assert method.report()["teacher"]["invariant"] is False
        assert "which the student learns from it" in capsys.readouterr().err


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({}, "has no planted cue"),
            ({"clean": "curatde"}, "Did you mean 'curated'"),
            ({"clean": ["i9999"]}, "no image 'i9999'"),
            ({"clean": "ids:nowhere.txt"}, "cannot be read"),
            ({"clean": "curated", "layers": ["stage9"]}, "stage9"),
            ({"clean": "curated", "teacher_backbone": "resnet18", "probes": "shared"}, "same architecture"),
            ({"clean": "curated", "teacher_backbone": "resnet18", "start": "teacher"}, "student's architecture"),
            ({"clean": "curated", "teacher": "nowhere"}, "nowhere"),
        ],
    )
    def test_it_is_refused_in_a_sentence(self, options, said):
        with pytest.raises(InputError, match=said):
            run(Specialist(**options), marked(tiny_cohort(n=24)), batch_size=8)

    def test_weights_without_their_layers(self):
        with pytest.raises(InputError, match="one number for each"):
            Specialist(layer_weights=[1.0])

    @pytest.mark.parametrize(
        ("other", "said"), [({"n": 120, "side": 32}, "differ in size"), ({"task": "multiclass"}, "differ in task")]
    )
    def test_a_teacher_of_other_images(self, tmp_path, other, said):
        run(build_method("erm"), tiny_cohort(**other)).classifier.save(tmp_path / "t")
        with pytest.raises(InputError, match=said):
            run(Specialist(clean="curated", teacher=str(tmp_path / "t")), marked(tiny_cohort()))

    def test_a_class_without_a_clean_image(self):
        cohort = tiny_cohort()
        only_first = replace(cohort, table=cohort.table.assign(curated=cohort.labels == 0))
        with pytest.raises(InputError, match="none of 'mild'"):
            run(Specialist(clean="curated"), only_first)


def test_features_of_layers_are_the_means_of_their_maps():
    cohort = tiny_cohort()
    classifier = Classifier.build("compact", cohort=cohort).train()
    store = ImageStore(cohort, torch.device("cpu"))
    rows = np.array([3, 1, 2])
    found = layer_features(classifier, store, rows, ["stage1"])["stage1"]
    assert classifier.training
    classifier.eval()
    with torch.no_grad():
        expected = classifier(store.batch(rows), ["stage1"]).taps["stage1"].flatten(2).mean(2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert isinstance(classifier.network, nn.Module)


def test_final_layer_distillation_is_the_specialist_without_layers():
    cohort = marked(tiny_cohort())
    a = run(build_method("final-layer-distillation", clean="curated", alpha=0.8), cohort)
    b = run(Specialist(clean="curated", alpha=0.8, beta=0.0), cohort)
    assert same(a.classifier, b.classifier)
