"""DANIL's term, its identity and its gradients; region attention; what both do to a network that is trained."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tiny import tiny_cohort, tiny_config, tiny_setup, tiny_step
from trueread import build_method, fit, with_label_noise
from trueread.errors import InputError
from trueread.method.danil import direction, distance_term, distractor, doubt
from trueread.method.region_attention import outside
from trueread.method.responses import is_enough, last_map, logits_from, needs_plain_attention, response
from trueread.model.classifier import Classifier
from trueread.training.evaluate import evaluating

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
        squared = (1 + 4) / 0.5**2  # both logits are 0.5 apart
        made = {f: distance_term(f, logits, images, label, epsilon=0.5).item() for f in "ABC"}
        assert made["A"] == pytest.approx(1 / (squared + 0.5))
        assert made["B"] == pytest.approx(-math.log(squared + 0.5))
        p = logits.softmax(1)[0].detach()
        right, other = ((p - F.one_hot(torch.tensor(k), 3)) @ weight for k in (0, 1))
        cosine = float(right @ other / right.norm() / other.norm())
        assert made["C"] == pytest.approx(math.exp(2 * cosine - 2), rel=1e-5)

    @pytest.mark.parametrize("relative", [False, True])
    @pytest.mark.parametrize("form", ["A", "B", "C"])
    def test_gradients_in_the_weights_agree_with_finite_differences(self, form, relative):
        net, images, labels = small_net()
        names = [n for n, _ in net.named_parameters()]

        def term(*weights):
            at = images.clone().requires_grad_()
            logits = torch.func.functional_call(net, dict(zip(names, weights, strict=True)), at)
            return distance_term(form, logits, at, labels, epsilon=0.1, relative=relative).mean()

        weights = tuple(p.detach().clone().requires_grad_() for p in net.parameters())
        assert torch.autograd.gradcheck(term, weights, eps=1e-6, atol=1e-6)

    def test_form_c_is_bounded(self):
        net, images, labels = small_net()
        images.requires_grad_()
        term = distance_term("C", net(images), images, labels, epsilon=1.0)
        assert ((term >= math.exp(-4) - 1e-9) & (term <= 1)).all()
        rows = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
        assert torch.allclose(direction(rows), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))

    @pytest.mark.parametrize("form", ["A", "B"])
    def test_larger_logits_alone_gain_nothing(self, form):
        net, images, labels = small_net()
        images.requires_grad_()
        once, ten = (distance_term(form, k * net(images), images, labels, epsilon=1e-3) for k in (1, 10))
        assert torch.allclose(once, ten, rtol=1e-5)

    @pytest.mark.parametrize("form", ["A", "B"])
    def test_the_scale_of_a_map_alone_gains_nothing(self, form):
        net, images, labels = small_net()
        found = []
        for scale in (1.0, 0.1):  # of the map, which what follows makes up for
            at = (scale * images).requires_grad_()
            found.append(distance_term(form, net(at / scale), at, labels, epsilon=1e-3, relative=True))
        assert torch.allclose(*found, rtol=1e-9)

    def test_a_map_changed_by_its_own_length_changes_a_linear_answer_by_its_own_size(self):
        weight, at = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[2.0, 0.0]]).requires_grad_()
        squared = (1 + 4) * 2**2 / 2**2  # the logits are 2 and 0
        made = distance_term("A", at @ weight.T, at, torch.tensor([0]), epsilon=0.5, relative=True).item()
        assert made == pytest.approx(1 / (squared + 0.5))

    @pytest.mark.parametrize("scale", [1.0, 30.0, 120.0])
    def test_certainty_costs_no_digits(self, scale):
        net, images, labels = small_net()
        found = []
        for dtype in (torch.float32, torch.float64):
            at = images.to(dtype).requires_grad_()
            found.append(distance_term("C", scale * net.to(dtype)(at), at, labels, epsilon=1.0).double())
        assert torch.allclose(*found, atol=1e-5)

    def test_the_gradient_of_the_doubt_points_where_that_of_the_cross_entropy_does(self):
        net, images, labels = small_net()
        images.requires_grad_()
        logits = net(images)
        of_loss = response(F.cross_entropy(logits, labels, reduction="none"), images)
        assert torch.allclose(direction(response(doubt(logits, labels), images)), direction(of_loss), atol=1e-9)
        assert torch.allclose(F.softplus(doubt(logits, labels)), F.cross_entropy(logits, labels, reduction="none"))

    def test_two_classes_always_point_apart(self):
        torch.manual_seed(1)
        net, images = nn.Linear(5, 2), torch.rand(6, 5).requires_grad_()
        term = distance_term("C", net(images), images, torch.tensor([0, 1] * 3), epsilon=1.0)
        assert torch.allclose(term, torch.full((6,), math.exp(-4)), atol=1e-5)


class TestDanil:
    def test_two_classes_take_another_form(self):
        cohort = tiny_cohort(n=60)
        with pytest.raises(InputError, match="use form=A"):
            fit(cohort, build_method("danil", form="C"), tiny_config(), quiet=True)
        assert fit(cohort, build_method("danil"), tiny_config(), quiet=True).report["form"] == "A"

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
        assert made[1].report["term_by_epoch"] == [None, None]

    @pytest.mark.parametrize("where", ["input", "feature"])
    def test_a_run_in_bf16_is_differentiated_in_float32(self, where, monkeypatch):
        cohort, seen = tiny_cohort("multiclass", n=60), []
        method = build_method("danil", where=where, warmup=0.0)
        asked = method.responding

        def watched(step, **options):
            found = asked(step, **options)
            with evaluating(step.classifier), torch.no_grad():
                again = step.classifier(step.images[: len(found[0])], trusted=True).logits
            seen.append((step.output.logits.dtype, found[0].dtype, found[1].dtype, (found[0] - again).abs().max()))
            return found

        monkeypatch.setattr(method, "responding", watched)
        fit(cohort, method, tiny_config(precision="bf16"), quiet=True)
        assert {s[:3] for s in seen} == {(torch.bfloat16, torch.float32, torch.float32)}
        if where == "input":  # a float32 pass in evaluation mode; the map is that of training
            assert max(s[3] for s in seen) < 1e-5

    def test_an_interruption_within_an_epoch_is_not_seen_in_the_report(self, tmp_path):
        cohort, config = tiny_cohort("multiclass", n=120), tiny_config(epochs=2)
        whole = fit(cohort, build_method("danil", warmup=0.0), config, quiet=True).report
        method = build_method("danil", warmup=0.0)
        penalty, done = method.penalty, []

        def stopping(step):
            done.append(step)
            if len(done) == 3:
                raise KeyboardInterrupt
            return penalty(step)

        method.penalty = stopping
        with pytest.raises(KeyboardInterrupt):
            fit(cohort, method, config, folder=tmp_path, quiet=True)
        again = fit(cohort, build_method("danil", warmup=0.0), config, folder=tmp_path, quiet=True)
        assert again.report == whole

    def test_attention_without_second_derivatives_is_replaced(self):
        cohort = tiny_cohort("multiclass", n=40, side=32, channels=3)
        method = build_method("danil", warmup=0.0, where="feature", share=0.2)
        fitted = fit(cohort, method, tiny_config(backbone="test_vit"), quiet=True)
        assert method.plain_attention
        assert method.layer == "blocks.4"  # the patches of the last block have no gradient
        assert method.alone
        assert np.isfinite(fitted.report["term_by_epoch"]).all()

    def test_a_convolution_is_left_as_it_is(self):
        cohort = tiny_cohort("multiclass", n=60)
        classifier = Classifier.build("compact", cohort=cohort)
        assert not needs_plain_attention(classifier, "")
        assert last_map(classifier) == "stage4"


class TestMap:
    """What follows a map is computed again, in evaluation mode."""

    @pytest.mark.parametrize("name", ["compact", "resnet18", "efficientnet_b0"])
    def test_the_logits_of_the_map_are_those_of_the_network(self, name):
        cohort = tiny_cohort("multiclass", n=60, side=32, channels=3)
        classifier = Classifier.build(name, cohort=cohort).eval()
        layer = last_map(classifier)
        assert is_enough(classifier, layer)
        images = torch.rand(3, 3, 32, 32)
        with torch.no_grad():
            whole = classifier(images, taps=(layer,), trusted=True)
            assert torch.allclose(
                logits_from(classifier, layer, whole.taps[layer], images[:1]), whole.logits, atol=1e-6
            )

    def test_no_image_answers_for_another(self):
        """Also where a batch norm follows the map."""
        cohort = tiny_cohort("multiclass", n=60, side=32, channels=3)
        classifier = Classifier.build("efficientnet_b0", cohort=cohort).train()
        step = tiny_step(torch.zeros(3, 3), torch.tensor([0, 1, 2]))
        step.classifier, step.images = classifier, torch.rand(3, 3, 32, 32)
        method = build_method("danil", where="feature")
        setup = tiny_setup(cohort)
        setup.classifier = classifier
        method.prepare(setup)
        step.output = classifier(step.images, taps=method.taps, trusted=True)
        logits, at = method.responding(step)
        [gradient] = torch.autograd.grad(logits[0, 0], at)
        assert gradient[0].any()
        assert not gradient[1:].any()

    def test_a_way_past_the_map_is_noticed(self):
        class Past(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second, self.head = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 3, 3), nn.Linear(3, 3)

            def forward(self, x):
                early = self.first(x)
                return self.head(self.second(early).mean((2, 3)) + early.mean((2, 3)))

        net = Classifier.wrap(Past(), classes=("a", "b", "c"), size=(12, 12), channels=1, task="multiclass")
        layer = last_map(net)
        assert net.taps[layer][0] == "second"
        assert not is_enough(net, layer)


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

    def test_empty_masks_teach_nothing(self):
        cohort = tiny_cohort(n=60)
        cohort = replace(cohort, masks=np.zeros((60, *cohort.spatial), np.uint8))
        with pytest.raises(InputError, match=r"no training image of .* has a mask with anything in it"):
            fit(cohort, build_method("region-attention"), tiny_config(), quiet=True)

    def test_masks_are_needed(self):
        with pytest.raises(InputError, match="has no masks, and region-attention needs them"):
            fit(tiny_cohort(n=60), build_method("region-attention"), tiny_config(), quiet=True)
