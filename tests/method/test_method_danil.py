"""DANIL's term, its identity and its gradients; region attention; what both do to a network that is trained."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tiny import tiny_cohort, tiny_config
from trueread import build_method, fit, with_label_noise
from trueread.errors import InputError
from trueread.method.danil import direction, distance_term, distractor
from trueread.method.region_attention import outside
from trueread.method.responses import last_map, needs_plain_attention, response
from trueread.model.classifier import Classifier

pytestmark = pytest.mark.usefixtures("quiet_and_on_one_thread")


def small_net():
    """A smooth network in float64, of three classes."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Conv2d(3, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3))
    return net.double(), torch.rand(4, 1, 6, 6, dtype=torch.float64), torch.tensor([0, 2, 1, 0])


class TestTerm:
    def test_the_distractor_is_the_best_other_class(self):
        logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, -1.0]])
        assert distractor(logits, torch.tensor([0, 0])).tolist() == [2, 1]
        assert distractor(logits, torch.tensor([1, 1])).tolist() == [0, 0]

    def test_the_difference_of_the_responses_is_the_gradient_of_the_logits_difference(self):
        net, images, labels = small_net()
        images.requires_grad_()
        logits = net(images)
        wrong = distractor(logits.detach(), labels)
        of_losses = [response(F.cross_entropy(logits, k, reduction="none"), images) for k in (labels, wrong)]
        gap = logits.gather(1, wrong[:, None]) - logits.gather(1, labels[:, None])
        assert torch.allclose(of_losses[0] - of_losses[1], response(gap, images), atol=1e-12)

    def test_by_hand_on_a_linear_network(self):
        weight = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0]])
        images = torch.tensor([[0.5, 0.5]]).requires_grad_()
        logits, label = images @ weight.T, torch.tensor([0])
        assert distractor(logits, label).item() == 1
        squared = 1 + 4
        made = {f: distance_term(f, logits, images, label, epsilon=0.5).item() for f in "ABC"}
        assert made["A"] == pytest.approx(1 / (squared + 0.5))
        assert made["B"] == pytest.approx(-math.log(squared + 0.5))
        p = logits.softmax(1)[0].detach()
        right, other = ((p - F.one_hot(torch.tensor(k), 3)) @ weight for k in (0, 1))
        cosine = float(right @ other / right.norm() / other.norm())
        assert made["C"] == pytest.approx(math.exp(2 * cosine - 2), rel=1e-5)

    @pytest.mark.parametrize("form", ["A", "B", "C"])
    def test_gradients_in_the_weights_agree_with_finite_differences(self, form):
        net, images, labels = small_net()
        names = [n for n, _ in net.named_parameters()]

        def term(*weights):
            at = images.clone().requires_grad_()
            logits = torch.func.functional_call(net, dict(zip(names, weights, strict=True)), at)
            return distance_term(form, logits, at, labels, epsilon=0.1).mean()

        weights = tuple(p.detach().clone().requires_grad_() for p in net.parameters())
        assert torch.autograd.gradcheck(term, weights, eps=1e-6, atol=1e-6)

    def test_form_c_is_bounded_and_knows_no_scale(self):
        net, images, labels = small_net()
        images.requires_grad_()
        term = distance_term("C", net(images), images, labels, epsilon=1.0)
        assert ((term >= math.exp(-4) - 1e-9) & (term <= 1)).all()
        rows = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
        assert torch.allclose(direction(rows), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))

    def test_two_classes_always_point_apart(self):
        torch.manual_seed(1)
        net, images = nn.Linear(5, 2), torch.rand(6, 5).requires_grad_()
        term = distance_term("C", net(images), images, torch.tensor([0, 1] * 3), epsilon=1.0)
        assert torch.allclose(term, torch.full((6,), math.exp(-4)), atol=1e-5)


class TestDanil:
    def test_two_classes_take_another_form(self):
        cohort = tiny_cohort(n=60)
        with pytest.raises(InputError, match="use form=B"):
            fit(cohort, build_method("danil", form="C"), tiny_config(), quiet=True)
        assert fit(cohort, build_method("danil"), tiny_config(), quiet=True).report["form"] == "B"

    @pytest.mark.parametrize("where", ["input", "feature"])
    def test_it_moves_the_responses_apart(self, where):
        cohort, config = tiny_cohort("multiclass", n=120), tiny_config(epochs=4)
        ends = [
            fit(cohort, build_method("danil", where=where, weight=w, share=1.0), config, quiet=True).report
            for w in (1e-6, 20.0)
        ]
        assert ends[0]["form"] == "C"
        assert len(ends[0]["term_by_epoch"]) == 4
        above = [end["term_by_epoch"][-1] - math.exp(-4) for end in ends]  # its smallest value: opposite directions
        assert above[1] < 0.7 * above[0]

    def test_the_warm_up_is_plain_training(self):
        cohort, config = tiny_cohort("multiclass", n=60), tiny_config(epochs=2)
        made = [fit(cohort, m, config, quiet=True) for m in (build_method("erm"), build_method("danil", warmup=1.0))]
        assert all(torch.equal(*w) for w in zip(*(f.classifier.parameters() for f in made), strict=True))
        assert made[1].report["term_by_epoch"] == []

    def test_a_run_in_bf16_is_differentiated_in_float32(self):
        cohort = tiny_cohort("multiclass", n=60)
        for where in ("input", "feature"):
            method = build_method("danil", where=where)
            fitted = fit(cohort, method, tiny_config(epochs=2, precision="bf16"), quiet=True)
            assert np.isfinite(fitted.report["term_by_epoch"]).all()
            assert np.isfinite(fitted.history["train_loss"]).all()

    def test_attention_without_second_derivatives_is_replaced(self):
        cohort = tiny_cohort("multiclass", n=40, side=32, channels=3)
        method = build_method("danil", warmup=0.0, where="feature", share=0.2)
        fitted = fit(cohort, method, tiny_config(backbone="test_vit"), quiet=True)
        assert method.plain_attention
        assert method.layer == "blocks.4"  # the patches of the last block have no gradient
        assert np.isfinite(fitted.report["term_by_epoch"]).all()

    def test_a_convolution_is_left_as_it_is(self):
        cohort = tiny_cohort("multiclass", n=60)
        classifier = Classifier.build("compact", cohort=cohort)
        assert not needs_plain_attention(classifier, "")
        assert last_map(classifier) == "stage4"


class TestGradientPenalty:
    def test_it_makes_the_loss_flatter(self):
        """With wrong labels, for where the loss is nearly 0 it is flat of itself."""
        cohort, config = with_label_noise(tiny_cohort("multiclass", n=120), rate=0.3), tiny_config(epochs=4)
        steep = []
        for weight in (0.0, 1.0):
            method = build_method("gradient-penalty", weight=weight, share=1.0)
            made = fit(cohort, method, config, quiet=True).classifier
            images = torch.from_numpy(cohort.images[cohort.rows("val")] / 255).float().requires_grad_()
            labels = torch.from_numpy(cohort.labels[cohort.rows("val")])
            loss = F.cross_entropy(made(images).logits, labels, reduction="none")
            steep.append(response(loss, images).detach().square().sum(1).mean().item())
        assert steep[1] < 0.5 * steep[0]


class TestRegionAttention:
    def test_the_share_outside_by_hand(self):
        maps = torch.tensor([[[1.0, 3.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]])
        masks = torch.zeros(3, 1, 4, 4)
        masks[0, 0, :, :2] = 1  # the left half, which is both left places of the map
        masks[1] = 1
        assert outside(maps, masks).tolist() == [0.75, 0.0, 0.0]  # an empty map, and an image without a mask

    def test_evidence_moves_into_the_mask(self):
        """Two places say the class; the mask holds one of them."""
        cohort = tiny_cohort("multiclass", n=120, side=32)
        images = cohort.images.copy()
        for k in (1, 2):
            images[cohort.labels == k, :, 20:30, 20:30] = 90 * k
        masks = np.zeros((len(cohort), 32, 32), np.uint8)
        masks[:, :16] = 1
        cohort = replace(cohort, images=images, masks=masks)
        shares = []
        for weight in (0.0, 10.0):
            method = build_method("region-attention", weight=weight, warmup=0.0)
            made = fit(cohort, method, tiny_config(epochs=6), quiet=True).classifier
            from trueread.model.explain import grad_cam

            rows = cohort.rows("test")
            batch, labels = torch.from_numpy(images[rows] / 255).float(), torch.from_numpy(cohort.labels[rows])
            maps = grad_cam(made, batch, labels, layer="stage4").maps
            shares.append(float(outside(maps, torch.from_numpy(masks[rows]).float()[:, None]).mean()))
        assert shares[1] < 0.7 * shares[0]

    def test_masks_are_needed(self):
        with pytest.raises(InputError, match="has no masks, and region-attention needs them"):
            fit(tiny_cohort(n=60), build_method("region-attention"), tiny_config(), quiet=True)
