"""Methods for rare classes and hard images: by hand, against slow textbook loops, and what they must not change."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tiny import tiny_cohort, tiny_config, tiny_setup, tiny_step
from trueread import build_method, fit
from trueread.method.base import head_of
from trueread.method.last_layer import features_of
from trueread.method.ldam import Ldam, effective_weights, margins
from trueread.method.mil import GatedAttention
from trueread.method.supcon import contrastive_loss
from trueread.model.classifier import Classifier, Output
from trueread.training.evaluate import predict_logits

pytestmark = pytest.mark.usefixtures("quiet_and_on_one_thread")


class TestOhem:
    def test_the_hardest_half_is_learned_from(self):
        step = tiny_step(torch.zeros(5, 2), torch.tensor([0, 1, 0, 1, 0]))
        step.per_sample_loss = torch.tensor([0.1, 2.0, 0.5, 3.0, 0.2])
        assert build_method("ohem", share=0.4).weights(step).tolist() == [0, 1, 0, 1, 0]
        assert build_method("ohem", share=0.01).weights(step).tolist() == [0, 0, 0, 1, 0]
        assert build_method("ohem", share=1.0).weights(step).tolist() == [1] * 5


class TestBalancedSoftmax:
    def test_it_is_the_softmax_with_counts(self):
        cohort = tiny_cohort(n=120, share=0.2)
        method = build_method("balanced-softmax")
        method.prepare(tiny_setup(cohort))
        counts = np.bincount(cohort.labels[cohort.rows("train")])
        logits, labels = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1] * 3)
        for z, y, loss in zip(logits, labels, method.losses(tiny_step(logits, labels)), strict=True):
            weighed = [n * math.exp(v) for n, v in zip(counts, z.tolist(), strict=True)]
            assert float(loss) == pytest.approx(-math.log(weighed[y] / sum(weighed)), rel=1e-4)


class TestLdam:
    def test_margins_and_weights_by_hand(self):
        assert margins(torch.tensor([256.0, 16.0, 0.0]), largest=0.5).tolist() == [0.25, 0.5, 0.0]
        weights = effective_weights(torch.tensor([100.0, 1.0, 0.0]), beta=0.5)
        raw = np.array([0.5 / (1 - 0.5**100), 1.0])
        assert weights.tolist() == pytest.approx([*(raw * 2 / raw.sum()), 0.0], rel=1e-5)

    def prepared(self):
        cohort = tiny_cohort("multiclass", n=120, share=0.3)
        setup, method = tiny_setup(cohort), Ldam()
        setup.classifier = Classifier.build("compact", cohort=cohort)
        with torch.no_grad():
            head_of(setup.classifier).weight.copy_(torch.randn(3, 160, generator=torch.Generator().manual_seed(0)))
            head_of(setup.classifier).bias.fill_(3.0)
        return cohort, setup, method

    def test_the_loss_is_the_textbooks(self):
        _, setup, method = self.prepared()
        method.prepare(setup)
        features = torch.randn(4, 160, generator=torch.Generator().manual_seed(1))
        step = tiny_step(torch.zeros(4, 3), torch.tensor([0, 1, 2, 1]))
        step.classifier, step.output = setup.classifier, Output(torch.zeros(4, 3), features, {})
        weight = head_of(setup.classifier).weight.detach().numpy()
        for f, y, loss in zip(features.numpy(), step.labels.tolist(), method.losses(step).tolist(), strict=True):
            cosines = np.array([w @ f / np.linalg.norm(w) / np.linalg.norm(f) for w in weight])
            cosines[y] -= float(method.margins[y])
            assert loss == pytest.approx(-(30 * cosines[y] - np.log(np.exp(30 * cosines).sum())), rel=1e-4)

    def test_the_network_decides_as_the_cosines_do(self):
        cohort, setup, method = self.prepared()
        rows = cohort.rows("test")
        method.prepare(setup)
        batch = torch.from_numpy(cohort.images[rows] / 255).float()
        setup.classifier.eval()
        output = setup.classifier(batch)
        cosines = F.linear(F.normalize(output.features), F.normalize(head_of(setup.classifier).weight))
        assert torch.equal(output.logits.argmax(1), cosines.argmax(1))
        ratio = output.logits / cosines
        assert torch.allclose(ratio, ratio[:, :1].expand(-1, 3), rtol=1e-3)

    def test_weights_come_late(self):
        _, setup, method = self.prepared()
        method.prepare(setup)
        step = tiny_step(torch.zeros(2, 3), torch.tensor([0, 1]))
        step.done = 0.79
        assert method.weights(step) is None
        step.done = 0.8
        assert method.weights(step)[0] < method.weights(step)[1]

    def test_it_learns(self):
        cohort = tiny_cohort("multiclass", n=160, share=0.3)
        assert fit(cohort, Ldam(), tiny_config(epochs=5), quiet=True).history["val_auroc"].iloc[-1] > 0.95


class TestSupCon:
    def test_textbook_loop(self):
        z = F.normalize(torch.randn(7, 4, generator=torch.Generator().manual_seed(0)).double(), dim=1)
        labels = torch.tensor([0, 1, 0, 1, 1, 2, 0])
        found = contrastive_loss(z, labels, temperature=0.3).tolist()
        for i in range(7):
            others = [a for a in range(7) if a != i]
            total = math.log(sum(math.exp(float(z[i] @ z[a]) / 0.3) for a in others))
            alike = [float(z[i] @ z[p]) / 0.3 - total for p in others if labels[p] == labels[i]]
            assert found[i] == pytest.approx(-np.mean(alike) if alike else 0.0)

    def test_classes_apart_cost_less_than_mixed_ones(self):
        z = F.normalize(torch.tensor([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]]), dim=1)
        apart, mixed = (
            contrastive_loss(z, torch.tensor(labels), temperature=0.1).mean() for labels in ([0, 0, 1, 1], [0, 1, 0, 1])
        )
        assert apart < 0.1 * mixed

    def test_the_last_layer_learns_and_the_features_do_not_feel_it(self):
        cohort = tiny_cohort("multiclass", n=60)
        setup, method = tiny_setup(cohort), build_method("supcon")
        setup.classifier, setup.config = Classifier.build("compact", cohort=cohort), tiny_config()
        method.prepare(setup)
        features = torch.randn(4, 160, requires_grad=True)
        step = tiny_step(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]))
        step.classifier, step.output = setup.classifier, Output(torch.zeros(4, 3), features, {})
        method.penalty(step)["linear"].backward()
        assert features.grad is None
        assert head_of(setup.classifier).weight.grad.any()

    def test_it_learns(self):
        cohort = tiny_cohort("multiclass", n=160, share=0.3)
        fitted = fit(cohort, build_method("supcon"), tiny_config(epochs=6), quiet=True)
        assert fitted.history["val_auroc"].iloc[-1] > 0.95

    def test_the_second_stage_is_a_balanced_last_layer(self):
        from sklearn.linear_model import LogisticRegression

        cohort = tiny_cohort("multiclass", n=160, share=0.3)
        fitted = fit(cohort, build_method("supcon"), tiny_config(epochs=2), quiet=True)
        rows = {split: cohort.rows(split) for split in ("train", "test")}
        store = tiny_setup(cohort).store
        x = {split: features_of(fitted.classifier, store, at).astype(float) for split, at in rows.items()}
        mean, sd = x["train"].mean(0), x["train"].std(0)
        x = {split: (v - mean) / np.where(sd > 0, sd, 1) for split, v in x.items()}
        model = LogisticRegression(C=fitted.report["c"], class_weight="balanced", max_iter=1000)
        expected = model.fit(x["train"], cohort.labels[rows["train"]]).predict_proba(x["test"])
        found = predict_logits(fitted.classifier, store, rows["test"]).double().softmax(1).numpy()
        assert np.abs(found - expected).max() < 1e-3


class TestMil:
    def test_a_bag_is_the_weighed_mean_of_its_places(self):
        torch.manual_seed(0)
        head, places = GatedAttention(5, 3, width=4), torch.randn(2, 6, 5)
        logits, share = head(places)
        assert torch.allclose(share.sum(1), torch.ones(2))
        assert torch.allclose(logits, head.head((share[..., None] * places).sum(1)))
        order = torch.randperm(6)
        assert torch.allclose(head(places[:, order])[0], logits, atol=1e-6)

    def test_heads_that_agree_cost_nothing(self):
        cohort = tiny_cohort("multiclass", n=60)
        setup, method = tiny_setup(cohort), build_method("mil")
        setup.classifier = Classifier.build("compact", cohort=cohort)
        method.prepare(setup)
        tap = torch.randn(4, 160, 2, 2)
        said, _ = method.bag(tap.flatten(2).transpose(1, 2))
        step = tiny_step(said.detach(), torch.tensor([0, 1, 2, 0]))
        step.classifier, step.output = setup.classifier, Output(said.detach(), None, {"stage4": tap})
        assert method.penalty(step)["consistency"].item() == pytest.approx(0, abs=1e-6)
        step.output = Output(said.detach().roll(1, 0), None, {"stage4": tap})
        assert method.penalty(step)["consistency"].item() > 0

    def test_a_transformer_has_a_bag_of_patches(self):
        cohort = tiny_cohort("multiclass", n=60, side=32, channels=3)
        made = fit(cohort, build_method("mil"), tiny_config(backbone="test_vit"), quiet=True)
        assert made.report["layer"] == "blocks.4"
        assert predict_logits(made.classifier, tiny_setup(cohort).store, cohort.rows("test")).isfinite().all()
