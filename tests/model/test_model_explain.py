"""Grad-CAM against captum, class by class, and in raw units."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from torch import nn

from tiny import Foreign, tiny_cohort
from trueread.errors import InputError, NotMeasured
from trueread.model import ProbabilityFunction
from trueread.model.classifier import Classifier
from trueread.model.explain import explain, grad_cam, grad_cam_map, grad_cam_plus_plus_map, occlusion


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def made(backbone: str = "compact", **cohort) -> Classifier:
    torch.manual_seed(1)
    return Classifier.build(backbone, cohort=tiny_cohort(**{"n": 40, "side": 28} | cohort)).eval()


def captums(classifier: Classifier, images: torch.Tensor, target: torch.Tensor, layer: str) -> torch.Tensor:
    module = classifier.network.get_submodule(classifier.taps[layer][0])
    oracle = LayerGradCam(lambda x: classifier(x).logits, module)
    return oracle.attribute(images, target=target, relu_attributions=True).detach()


class TestAgainstCaptum:
    @pytest.mark.parametrize("layer", ["stage3", "stage4"])
    def test_compact(self, layer):
        self.check(made(task="multiclass"), layer)

    @pytest.mark.parametrize("layer", ["layer2", "layer4"])
    def test_resnet18(self, layer):
        self.check(made("resnet18", task="multiclass"), layer)

    def test_compact_on_volumes(self):
        self.check(made(task="multiclass", depth=12, side=16), "stage3")

    def check(self, classifier, layer):
        x, target = torch.rand(4, *classifier.card.input_shape), torch.tensor([0, 1, 2, 1])
        expected = captums(classifier, x, target, layer)
        seen = classifier(x, taps=[layer])
        gradient = torch.autograd.grad(seen.logits.gather(1, target[:, None]).sum(), seen.taps[layer])[0]
        raw = grad_cam_map(seen.taps[layer].detach(), gradient)
        assert raw.max() > 0
        assert (raw == 0).any()
        assert torch.allclose(raw, expected[:, 0], rtol=1e-4, atol=1e-7)
        explained = grad_cam(classifier, x, target, layer=layer)
        mode = "trilinear" if x.ndim == 5 else "bilinear"
        full = F.interpolate(expected, size=x.shape[2:], mode=mode, align_corners=False)[:, 0]
        assert explained.layer == layer
        assert torch.allclose(explained.maps, full, rtol=1e-4, atol=1e-7)


class TestMap:
    def test_closed_form(self):
        activation = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[1.0, 0.0], [0.0, 1.0]]]])
        gradient = torch.tensor([[[[1.0, 1.0], [1.0, 1.0]], [[-8.0, 0.0], [0.0, 0.0]]]])  # means 1 and -2
        assert torch.equal(grad_cam_map(activation, gradient), torch.tensor([[[0.0, 2.0], [3.0, 2.0]]]))

    def test_is_conditional_on_the_class_asked_for(self):
        classifier, x = made(task="multiclass"), torch.rand(2, 1, 28, 28)
        a = grad_cam(classifier, x, torch.tensor([0, 0])).maps
        b = grad_cam(classifier, x, torch.tensor([1, 0])).maps
        assert not torch.allclose(a[0], b[0], atol=1e-4)
        assert torch.equal(a[1], b[1])

    def test_an_images_map_does_not_depend_on_the_others(self):
        classifier, x, target = made(), torch.rand(3, 1, 28, 28), torch.tensor([0, 1, 1])
        together = grad_cam(classifier, x, target)
        alone = grad_cam(classifier, x[1:2], target[1:2])
        assert together.layer == alone.layer
        assert torch.allclose(together.maps[1:2], alone.maps, rtol=1e-4, atol=1e-6)

    def test_finds_the_bright_blob_that_decides(self):
        network = nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
        )
        with torch.no_grad():
            network[0].weight[0], network[0].weight[1] = 1 / 9, -1 / 9
            network[3].weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        classifier = Classifier.wrap(network, classes=["a", "b"], size=(16, 16), channels=1)
        x = torch.zeros(2, 1, 16, 16)
        x[0, 0, 3:6, 9:12] = 1.0
        x[1, 0, 10:13, 2:5] = 1.0
        maps = grad_cam(classifier, x, torch.tensor([1, 1])).maps
        assert divmod(int(maps[0].argmax()), 16) == (4, 10)
        assert divmod(int(maps[1].argmax()), 16) == (11, 3)
        assert not grad_cam(classifier, x, torch.tensor([0, 0])).maps.any(), "the blob is evidence against the class a"

    def test_no_evidence_stays_zero_instead_of_being_stretched(self):
        classifier = made()
        with torch.no_grad():
            classifier.network.head[1].weight[0] = 0.0
        x = torch.rand(3, 1, 28, 28)
        none = grad_cam(classifier, x, torch.tensor([0, 0, 0]))
        assert none.layer == "stage4"
        assert not none.maps.any()
        some = grad_cam(classifier, x, torch.tensor([0, 1, 1]))
        assert some.layer == "stage4"
        assert not some.maps[0].any()
        assert some.maps[1:].any()

    def test_units_are_the_logits(self):
        classifier, x, target = made(), torch.rand(2, 1, 28, 28), torch.tensor([1, 1])
        before = grad_cam(classifier, x, target).maps
        with torch.no_grad():
            classifier.network.head[1].weight *= 10
        assert torch.allclose(grad_cam(classifier, x, target).maps, 10 * before, rtol=1e-4)


class TestLayer:
    @pytest.mark.parametrize(
        ("backbone", "layer", "channels"),
        [("efficientnet_b0", "bn2", 1280), ("mobilenetv2_100", "bn2", 1280), ("mobilenetv3_large_100", "blocks.6", 960),
         ("densenet121", "features.norm5", 1024), ("alexnet", "features.12", 256)],
    )  # fmt: skip
    def test_it_is_the_last_one_before_pooling(self, backbone, layer, channels):
        classifier = Classifier.build(backbone, cohort=tiny_cohort(n=20, side=96), stem="standard").eval()
        found = explain(classifier, torch.rand(2, 1, 96, 96), torch.tensor([0, 1]))
        assert found.layer == layer
        assert classifier.taps[layer][1] == channels

    def test_a_class_token_leaves_the_last_block_without_a_gradient_on_its_patches(self):
        vit = made("vit_tiny_patch16_224", channels=3)
        explained = grad_cam(vit, torch.rand(2, 3, 28, 28), torch.tensor([0, 1]))
        assert explained.layer == list(vit.taps)[-2] == "blocks.10"
        assert explained.maps.shape == (2, 28, 28)
        assert explained.maps.any()

    def test_a_transformer_on_an_oblong_image_keeps_its_rows(self):
        """A bright left half must not come back as stripes, which is what a square grid of its tokens would give."""
        torch.manual_seed(1)
        tokens = nn.Conv2d(1, 1, 4, stride=4, bias=False)

        class Tokens(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embed, self.block, self.head = tokens, nn.Identity(), nn.Linear(1, 2, bias=False)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                sequence = self.block(self.embed(x).flatten(2).transpose(1, 2))
                return self.head(sequence.mean(1))

        network = Tokens()
        nn.init.ones_(network.embed.weight)
        nn.init.ones_(network.head.weight)
        classifier = Classifier.wrap(network, classes=["a", "b"], size=(16, 64), channels=1, taps=["block"])
        x = torch.zeros(1, 1, 16, 64)
        x[..., :32] = 1.0
        maps = grad_cam(classifier, x, torch.tensor([0])).maps[0]
        assert (maps[:, :30] > 0).all()
        assert not maps[:, 34:].any()

    def test_a_layer_that_does_not_exist_names_the_nearest(self):
        with pytest.raises(InputError, match="Did you mean 'stage4'"):
            grad_cam(made(), torch.rand(1, 1, 28, 28), torch.tensor([0]), layer="stage_4")

    def test_a_network_without_maps_says_why_not(self):
        network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
        classifier = Classifier.wrap(network, classes=["a", "b"], size=(4, 4), channels=1)
        with pytest.raises(NotMeasured, match="no layer of this network"):
            grad_cam(classifier, torch.rand(1, 1, 4, 4), torch.tensor([0]))

    def test_works_with_frozen_weights_and_leaves_everything_as_it_was(self):
        torch.manual_seed(1)
        classifier = Classifier.wrap(Foreign().requires_grad_(False), classes=["a", "b"], size=(12, 12), channels=1)
        x = torch.rand(2, 1, 12, 12, requires_grad=True)
        with torch.no_grad():
            maps = grad_cam(classifier, x, torch.tensor([0, 1])).maps
        assert maps.any()
        assert not maps.requires_grad
        assert x.requires_grad
        assert x.grad is None
        grad_cam(classifier, x * 0.5, torch.tensor([0, 1]))  # not a leaf

    def test_leaves_no_gradient_in_the_weights(self):
        classifier = made()
        grad_cam(classifier, torch.rand(2, 1, 28, 28), torch.tensor([0, 1]))
        assert all(p.grad is None for p in classifier.parameters())


class TestGradCamPlusPlus:
    def test_textbook_loop(self):
        generator = torch.Generator().manual_seed(0)
        activation = torch.rand(2, 3, 4, 5, generator=generator)
        gradient = torch.randn(2, 3, 4, 5, generator=generator)
        expected = torch.zeros(2, 4, 5)
        for b in range(2):
            for c in range(3):
                total = float(activation[b, c].sum())
                weight = 0.0
                for g in gradient[b, c].flatten().tolist():
                    weight += g**2 / (2 * g**2 + total * g**3) * max(g, 0) / 20
                expected[b] += weight * activation[b, c]
        assert torch.allclose(grad_cam_plus_plus_map(activation, gradient), expected.relu(), rtol=1e-4, atol=1e-6)
        assert not grad_cam_plus_plus_map(activation, torch.zeros_like(gradient)).any()

    @pytest.mark.parametrize("low", [-3.99, -4.01])
    def test_negative_activations_do_not_make_a_share_infinite(self, low):
        activation = torch.tensor([low, 0.0, 0.0, 1.0]).view(1, 1, 2, 2)
        found = grad_cam_plus_plus_map(activation, torch.full((1, 1, 2, 2), 0.5))
        assert found.flatten().tolist() == pytest.approx([0, 0, 0, 0.25 / (0.5 + 0.125) * 0.5])

    def test_it_is_asked_by_name(self):
        classifier, x, target = made(), torch.rand(2, 1, 28, 28), torch.tensor([0, 1])
        plain, plus = (explain(classifier, x, target, how=how) for how in ("grad-cam", "grad-cam++"))
        assert plain.layer == plus.layer == "stage4"
        assert plain.maps.shape == plus.maps.shape
        with pytest.raises(InputError, match="'grad-cm' is not a"):
            explain(classifier, x, target, how="grad-cm")


class TestOcclusion:
    def test_the_place_that_decides_is_found_without_gradients(self):
        def bright_in_the_corner(images):
            p = torch.sigmoid(torch.as_tensor(images)[:, 0, 2:6, 20:24].mean((1, 2)) * 10 - 5)
            return torch.stack([1 - p, p], 1)

        function = ProbabilityFunction(bright_in_the_corner, classes=["a", "b"], size=(32, 32), channels=1)
        x = torch.full((2, 1, 32, 32), 0.1)
        x[:, 0, 2:6, 20:24] = 1.0
        maps = occlusion(function, x, torch.tensor([1, 0]))
        row, column = divmod(int(maps[0].argmax()), 32)
        assert 0 <= row < 8
        assert 18 <= column < 26
        assert maps[0, 20:].max() == 0
        assert maps[1].max() == 0  # grey there is no evidence for the other class
        assert torch.equal(explain(function, x, torch.tensor([1, 0]), how="occlusion").maps, maps)

    def test_it_is_in_log_odds(self):
        def first_pixel(x):
            p = torch.as_tensor(x)[:, 0, 0, 0]
            return torch.stack([1 - p, p], 1)

        function = ProbabilityFunction(first_pixel, classes=["a", "b"], size=(16, 16), channels=1)
        x = torch.full((1, 1, 16, 16), 0.5)
        x[0, 0, 0, 0] = 0.9
        mean = float(x.mean())
        expected = torch.logit(torch.tensor(0.9)) - torch.logit(torch.tensor(mean))
        assert occlusion(function, x, torch.tensor([1]))[0, 0, 0].item() == pytest.approx(float(expected), rel=1e-4)

    def test_volumes_are_covered_slice_by_slice_at_a_time(self):
        classifier = made(depth=8, side=16)
        maps = occlusion(classifier, torch.rand(1, 1, 8, 16, 16), torch.tensor([1]))
        assert maps.shape == (1, 8, 16, 16)
        assert torch.equal(maps[:, 0], maps[:, 7])
