"""Every loss, weight and perturbation against a slow textbook loop or an independent implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chisquare
from torchvision.ops import sigmoid_focal_loss

from tiny import tiny_cohort, tiny_setup, tiny_step
from trueread.errors import InputError
from trueread.method.base import build_method, class_counts
from trueread.method.class_weights import inverse_frequency, positive_weight
from trueread.method.focal import focal_loss
from trueread.method.label_smoothing import smooth
from trueread.method.mixup import mix
from trueread.training.batches import epoch_order
from trueread.training.hooks import as_targets, cross_entropy

CPU = torch.device("cpu")
NAN = math.nan


def some(b: int = 8, k: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(b, k, generator=generator), torch.randint(0, k, (b,), generator=generator)


class TestFocal:
    @pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
    def test_textbook_loop(self, gamma):
        logits, labels = some()
        expected = []
        for z, y in zip(logits.double().tolist(), labels.tolist(), strict=True):
            p = math.exp(z[y]) / sum(math.exp(v) for v in z)
            expected.append(-((1 - p) ** gamma) * math.log(p))
        ours = focal_loss(logits, as_targets(labels, 3), gamma=gamma)
        assert torch.allclose(ours.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=1e-6)

    def test_gamma_zero_is_cross_entropy(self):
        logits, labels = some()
        expected = F.cross_entropy(logits, labels, reduction="none")
        assert torch.allclose(focal_loss(logits, as_targets(labels, 3), gamma=0.0), expected, atol=1e-6)

    @pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
    def test_multilabel_is_torchvisions(self, gamma):
        logits, _ = some()
        targets = (torch.rand(8, 3, generator=torch.Generator().manual_seed(1)) < 0.3).float()
        expected = sigmoid_focal_loss(logits, targets, alpha=-1, gamma=gamma, reduction="none").mean(1)
        assert torch.allclose(focal_loss(logits, targets, gamma=gamma, multilabel=True), expected, atol=1e-6)

    def test_multilabel_leaves_unknown_labels_out(self):
        logits = torch.tensor([[1.0, -2.0, 9.0]], requires_grad=True)
        loss = focal_loss(logits, torch.tensor([[1.0, 0.0, NAN]]), gamma=2.0, multilabel=True)
        known = focal_loss(logits[:, :2], torch.tensor([[1.0, 0.0]]), gamma=2.0, multilabel=True)
        assert torch.allclose(loss, known)
        loss.sum().backward()
        assert logits.grad[0, 2] == 0

    def test_soft_targets_are_weighed_class_by_class(self):
        logits = torch.tensor([[0.3, -0.4]])
        p = torch.softmax(logits, 1)[0]
        expected = -(0.7 * (1 - p[0]) ** 2 * p[0].log() + 0.3 * (1 - p[1]) ** 2 * p[1].log())
        assert torch.allclose(focal_loss(logits, torch.tensor([[0.7, 0.3]]), gamma=2.0)[0], expected, atol=1e-6)


class TestExtremeLogits:
    @pytest.mark.parametrize("multilabel", [False, True], ids=["softmax", "sigmoid"])
    @pytest.mark.parametrize("gamma", [0.0, 0.3, 0.5, 1.0, 2.0, 20.0])
    @pytest.mark.parametrize("scale", [20.0, 100.0, 1000.0])
    def test_focal_and_its_gradient_are_finite(self, gamma, scale, multilabel):
        logits = torch.tensor([[scale, -scale], [-scale, scale], [scale, scale]], requires_grad=True)
        targets = torch.tensor([[1.0, 0.0]] * 3)
        loss = focal_loss(logits, targets, gamma=gamma, multilabel=multilabel)
        loss.sum().backward()
        assert torch.isfinite(loss).all()
        assert torch.isfinite(logits.grad).all()
        assert loss[0].item() == pytest.approx(0.0, abs=1e-6), "right and sure costs nothing"
        wrong = scale if multilabel else 2 * scale  # multilabel: both labels wrong, mean of two times `scale`
        assert loss[1].item() == pytest.approx(wrong, rel=1e-5)

    @pytest.mark.parametrize("name", ["erm", "logit-adjustment", "label-smoothing", "class-weights"])
    def test_other_methods(self, name):
        method = build_method(name)
        method.prepare(tiny_setup(tiny_cohort(share=0.05, n=200)))
        logits = torch.tensor([[100.0, -100.0], [-100.0, 100.0]], requires_grad=True)
        step = tiny_step(logits, torch.tensor([0, 0]))
        method.perturb(step)
        losses = method.losses(step)
        weights = method.weights(step)
        (losses if weights is None else weights * losses).sum().backward()
        assert torch.isfinite(losses).all()
        assert torch.isfinite(logits.grad).all()
        assert losses[1] > 100


class TestLabelSmoothing:
    @pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
    def test_is_torchs(self, smoothing):
        logits, labels = some()
        step = tiny_step(logits, labels)
        method = build_method("label-smoothing", smoothing=smoothing)
        method.perturb(step)
        expected = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
        assert torch.allclose(method.losses(step), expected, atol=1e-5)
        assert torch.equal(step.labels, labels), "the given labels stay"

    def test_multilabel_moves_towards_one_half_and_unknown_stays_unknown(self):
        smoothed = smooth(torch.tensor([[1.0, 0.0, NAN]]), smoothing=0.2, multilabel=True)
        assert torch.allclose(smoothed, torch.tensor([[0.9, 0.1, NAN]]), equal_nan=True)


class TestLogitAdjustment:
    @pytest.mark.parametrize("tau", [0.0, 1.0, 2.5])
    def test_textbook_loop(self, tau):
        cohort = tiny_cohort("multiclass", n=200, share=0.1)
        method = build_method("logit-adjustment", tau=tau)
        method.prepare(tiny_setup(cohort))
        counts = cohort.class_counts(cohort.rows("train"))
        logits, labels = some()
        expected = []
        for z, y in zip(logits.double().tolist(), labels.tolist(), strict=True):
            adjusted = [v + tau * math.log(c / counts.sum()) for v, c in zip(z, counts, strict=True)]
            expected.append(math.log(sum(math.exp(v) for v in adjusted)) - adjusted[y])
        ours = method.losses(tiny_step(logits, labels))
        assert torch.allclose(ours, torch.tensor(expected, dtype=torch.float32), atol=1e-5)

    def test_the_rare_class_has_to_win_by_more(self):
        method = build_method("logit-adjustment")
        method.prepare(tiny_setup(tiny_cohort(n=200, share=0.05)))
        tied = torch.zeros(2, 2)
        common, rare = method.losses(tiny_step(tied, torch.tensor([0, 1])))
        assert rare > common


class TestClassWeights:
    def test_weighted_mean_is_torchs_weighted_cross_entropy(self):
        cohort = tiny_cohort("multiclass", n=200, share=0.1)
        method = build_method("class-weights")
        method.prepare(tiny_setup(cohort))
        logits, labels = some()
        weights = method.weights(tiny_step(logits, labels))
        counts = torch.from_numpy(cohort.class_counts(cohort.rows("train")))
        per_class = counts.sum() / (3 * counts)
        ours = (weights * F.cross_entropy(logits, labels, reduction="none")).sum() / weights.sum()
        assert torch.allclose(ours, F.cross_entropy(logits, labels, weight=per_class), atol=1e-6)
        assert weights[labels == 1].min() > 5 * weights[labels == 0].max()

    def test_inverse_frequency_closed_form(self):
        counts = torch.tensor([90.0, 10.0, 0.0])
        assert torch.allclose(inverse_frequency(counts), torch.tensor([100 / 180, 5.0, 0.0]))
        assert torch.allclose(
            inverse_frequency(counts, power=0.5), torch.tensor([math.sqrt(100 / 180), math.sqrt(5.0), 0])
        )
        assert torch.equal(inverse_frequency(counts, power=0.0), torch.tensor([1.0, 1.0, 0.0]))
        assert float((inverse_frequency(counts) * counts).sum()) == pytest.approx(100.0)

    def test_positive_weight_counts_known_labels_only(self):
        labels = torch.tensor([[1.0, 0.0], [0.0, 0.0], [NAN, 0.0], [0.0, NAN], [0.0, 0.0]])
        assert torch.equal(positive_weight(labels), torch.tensor([3.0, 1.0]))

    def test_multilabel_samples_weigh_as_their_rarest_positive_label(self):
        method = build_method("class-weights", weights=[0.5, 4.0, 3.0])
        method.prepare(tiny_setup(tiny_cohort("multilabel", n=60)))
        labels = torch.tensor([[1.0, 0, 0], [0, 1.0, 1.0], [0, 0, 0], [NAN, NAN, 1.0], [NAN, 0, NAN], [1.0, 1.0, NAN]])
        weights = method.weights(tiny_step(torch.zeros(6, 3), labels))
        assert torch.equal(weights, torch.tensor([0.5, 4.0, 1.0, 3.0, 1.0, 4.0]))

    def test_given_weights_are_used_as_they_are(self):
        method = build_method("class-weights", weights=[1.0, 7.0])
        method.prepare(tiny_setup(tiny_cohort()))
        assert method.weights(tiny_step(torch.zeros(3, 2), torch.tensor([0, 1, 1]))).tolist() == [1, 7, 7]
        assert method.report() == {"weights": {"normal": 1.0, "mild": 7.0}}

    @pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [1.0, 2.0, 3.0]])
    def test_given_weights_that_do_not_fit(self, weights):
        with pytest.raises(InputError, match="give 2 weights of 0 or more"):
            build_method("class-weights", weights=weights).prepare(tiny_setup(tiny_cohort()))


class TestBalancedSampling:
    def test_draws_every_class_equally_often(self):
        cohort = tiny_cohort("multiclass", n=500, share=0.1)
        method, setup = build_method("balanced-sampling"), tiny_setup(cohort)
        method.prepare(setup)
        order = epoch_order(6000, generator=torch.Generator().manual_seed(0), sampling=self.wide(method.sampling(None)))
        n = len(setup.ledger)
        drawn = np.bincount(setup.ledger.labels.numpy()[order % n], minlength=3)
        assert chisquare(drawn).pvalue > 1e-3
        within = np.bincount(order % n, minlength=n)[setup.ledger.labels.numpy() == 1]
        assert chisquare(within).pvalue > 1e-3, "within a class, every image equally often"
        assert method.report()["share_drawn"] == pytest.approx(dict.fromkeys(cohort.classes, 1 / 3), abs=1e-3)

    def wide(self, probabilities: torch.Tensor) -> torch.Tensor:
        """The same draw for an epoch that is longer than the training split."""
        return torch.cat([probabilities, torch.zeros(6000 - len(probabilities))])

    def test_power_zero_draws_them_as_they_are(self):
        method, setup = build_method("balanced-sampling", power=0.0), tiny_setup(tiny_cohort(n=200, share=0.05))
        method.prepare(setup)
        assert torch.equal(method.sampling(None), torch.ones(len(setup.ledger)))


class TestMixup:
    @pytest.mark.parametrize("shape", [(6, 1, 4, 4), (6, 3, 4, 4), (6, 1, 2, 4, 4)])
    def test_images_and_targets_are_mixed_with_the_same_share_and_partner(self, shape):
        """Image i holds the number i, so that what was mixed can be read from it."""
        b = shape[0]
        images = torch.arange(b).view(b, *(1 for _ in shape[1:])).expand(*shape).float() / b
        step = tiny_step(torch.zeros(b, b), torch.arange(b), images=images.clone(), seed=3)
        build_method("mixup", alpha=1.0).perturb(step)
        value = step.images.flatten(1)[:, 0] * b
        assert torch.allclose(step.images.flatten(1).std(1), torch.zeros(b), atol=1e-6)
        assert torch.allclose(step.targets.sum(1), torch.ones(b))
        assert torch.allclose((step.targets * torch.arange(b)).sum(1), value, atol=1e-5)
        assert ((step.targets > 0).sum(1) <= 2).all()
        assert (step.targets.max(1).values < 0.999).any(), "something was mixed"
        assert torch.equal(step.targets.argmax(1), torch.arange(b)), "an image stays mostly itself"
        assert torch.equal(step.labels, torch.arange(b))

    def test_mix_closed_form(self):
        values = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        mixed = mix(values, torch.tensor([1, 0]), torch.tensor([0.75, 1.0]))
        assert torch.equal(mixed, torch.tensor([[0.75, 0.25], [0.0, 1.0]]))

    def test_the_steps_generator_decides(self):
        a, b, c = (tiny_step(torch.zeros(6, 2), torch.tensor([0, 1] * 3), seed=s) for s in (1, 1, 2))
        for step in (a, b, c):
            build_method("mixup").perturb(step)
        assert torch.equal(a.images, b.images)
        assert not torch.equal(a.images, c.images)

    def test_shares_follow_the_beta_distribution(self):
        step = tiny_step(torch.zeros(4000, 2), torch.arange(4000) % 2, images=torch.zeros(4000, 1, 1, 1), seed=0)
        step.targets = torch.eye(4000)
        build_method("mixup", alpha=1.0).perturb(step)
        share = step.targets.diagonal()
        share = share[share < 1]
        assert share.min() >= 0.5
        assert abs(float(share.mean()) - 0.75) < 0.01, "max(u, 1 - u) of a uniform u"

    def test_an_unknown_label_of_either_is_unknown_in_the_mixture(self):
        labels = torch.tensor([[1.0, NAN], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
        step = tiny_step(torch.zeros(4, 2), labels, seed=1)
        build_method("mixup").perturb(step)
        loss = cross_entropy(step.logits, step.targets, multilabel=True)
        assert torch.isfinite(loss).all()
        assert step.targets[0, 1].isnan()
        assert not step.targets[:, 0].isnan().any()


def test_class_counts_needs_one_class_per_image():
    assert class_counts(torch.tensor([0, 2, 2]), 4).tolist() == [1, 0, 2, 0]
    with pytest.raises(InputError, match="the task is multilabel"):
        class_counts(torch.zeros(2, 2), 2)
