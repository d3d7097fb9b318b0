"""Taps are the modules' real outputs, in the graph, and every family's layout becomes [B,C,h,w]."""

from __future__ import annotations

import pytest
import torch

from tiny import tiny_cohort
from trueread.model.classifier import Classifier
from trueread.model.compact import Block, Compact
from trueread.model.taps import as_map, capture, find_head, find_taps, pooled, token_grid

FAMILIES = {
    "compact": {},
    "resnet18": {},
    "densenet121": {"side": 32},
    "mobilenetv3_small_050": {"side": 32},
    "vit_tiny_patch16_224": {"channels": 3},
    "swin_tiny_patch4_window7_224": {"channels": 3, "side": 32},
    "monai:resnet10": {"depth": 8},
    "monai:densenet121": {"depth": 32, "side": 32},
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    options = {"side": 28, "n": 40} | FAMILIES[request.param]
    return Classifier.build(request.param, cohort=tiny_cohort(**options), stem="auto").eval()


class TestEveryFamily:
    def test_a_tap_is_what_its_module_put_out(self, family):
        seen = {}
        handles = [
            family.network.get_submodule(path).register_forward_hook(
                lambda _m, _i, output, name=name: seen.update({name: output.detach().clone()})
            )
            for name, (path, _) in family.taps.items()
        ]
        x = torch.rand(2, *family.card.input_shape)
        output = family(x, taps=list(family.taps))
        for handle in handles:
            handle.remove()
        assert list(output.taps) == list(family.taps)
        for name, tap in output.taps.items():
            assert torch.equal(tap, seen[name]), f"{name} was changed after it was caught"
        with torch.no_grad():
            assert torch.equal(family(x).logits, output.logits), "looking inside changed the answer"

    def test_gradients_flow_from_the_logits_to_a_tap_and_from_a_tap_to_the_weights_before_it(self, family):
        output = family(torch.rand(2, *family.card.input_shape), taps=list(family.taps))
        first, *_, last = output.taps.values()
        early, late = torch.autograd.grad(output.logits[:, 0].sum(), [first, last], retain_graph=True)
        assert early.abs().sum() > 0
        assert late.abs().sum() > 0
        weights = [p for p in family.network.parameters() if p.ndim > 1]
        reached = torch.autograd.grad(first.pow(2).sum(), weights, allow_unused=True)
        assert reached[0] is not None
        assert reached[0].abs().sum() > 0
        assert reached[-1] is None, "the head comes after every tap"

    def test_the_declared_width_is_the_maps_channels(self, family):
        output = family(torch.rand(2, *family.card.input_shape), taps=list(family.taps))
        for name, (_, width) in family.taps.items():
            size = family.card.size
            spread = as_map(output.taps[name], channels=width, size=size)
            assert spread.shape[:2] == (2, width)
            assert spread.ndim == 2 + len(size)
            assert pooled(output.taps[name], channels=width).shape == (2, width)


class TestCompact:
    @pytest.mark.parametrize("depth", [0, 8], ids=["image", "volume"])
    def test_its_features_are_the_mean_of_its_last_map(self, depth):
        torch.manual_seed(0)
        classifier = Classifier.build(cohort=tiny_cohort(n=40, depth=depth)).eval()
        output = classifier(torch.rand(2, *classifier.card.input_shape), taps=["stage4"])
        assert torch.allclose(output.features, output.taps["stage4"].flatten(2).mean(2), atol=1e-6)

    def test_a_blocks_shortcut_is_added_before_the_activation(self):
        torch.manual_seed(0)
        block = Block(3, 3, stride=1, dims=2).eval()
        x = torch.randn(2, 3, 6, 6)
        torch.nn.init.zeros_(block.conv2.weight)
        assert torch.allclose(block(x), x.clamp_min(0))
        halved = Block(3, 5, stride=2, dims=2).eval()
        torch.nn.init.zeros_(halved.conv2.weight)
        pooled_first = torch.nn.functional.avg_pool2d(x, 2)
        scale = 1 / (1 + halved.norm2.eps) ** 0.5
        expected = torch.einsum("bchw,oc->bohw", pooled_first, halved.shortcut[1].weight[:, :, 0, 0]) * scale
        assert torch.allclose(halved(x), expected.clamp_min(0), atol=1e-5)

    @pytest.mark.parametrize(("side", "last"), [(16, 2), (28, 4), (32, 4), (64, 4), (96, 6), (128, 4), (224, 7)])
    def test_its_last_map_stays_small_but_a_map(self, side, last):
        network = Compact(channels=1, size=side).eval()
        x = torch.rand(1, 1, side, side)
        with torch.no_grad():
            for stage in (network.stem, *network.stages()):
                x = stage(x)
        assert x.shape == (1, 160, last, last)


class TestAsMap:
    def test_a_cnn_map_passes(self):
        tap = torch.rand(2, 3, 4, 5)
        assert as_map(tap, channels=3, size=(8, 10)) is tap

    def test_a_volumes_map_passes(self):
        tap = torch.rand(2, 3, 4, 4, 3)
        assert as_map(tap, channels=3, size=(8, 8, 6)) is tap

    def test_channels_last_are_permuted(self):
        image = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
        assert torch.equal(as_map(image.permute(0, 2, 3, 1), channels=3, size=(8, 10)), image)

    def test_unknown_channels_are_told_by_the_square_they_leave(self):
        image = torch.arange(2 * 3 * 4 * 4.0).view(2, 3, 4, 4)
        assert torch.equal(as_map(image.permute(0, 2, 3, 1), channels=0, size=(8, 8)), image)
        assert as_map(image, channels=0, size=(8, 8)) is image

    @pytest.mark.parametrize("prefix", [0, 1, 5])
    @pytest.mark.parametrize("size", [(28, 28), (28, 56), (56, 28), (29, 57)])
    def test_tokens_lose_their_prefix_and_keep_their_rows(self, prefix, size):
        h, w = size[0] // 2, size[1] // 2
        image = torch.arange(2 * 3 * h * w * 1.0).view(2, 3, h, w)
        patches = image.flatten(2).transpose(1, 2)  # row by row, as a patch embedding lays them
        tokens = torch.cat([torch.full((2, prefix, 3), -1.0), patches], dim=1)
        assert torch.equal(as_map(tokens, channels=3, size=size), image)

    def test_too_few_tokens_are_no_image(self):
        with pytest.raises(ValueError, match="0 tokens are no image of 8x8"):
            token_grid(0, (8, 8))

    @pytest.mark.parametrize(
        ("tokens", "size", "grid"),
        [
            (197, (224, 224), (14, 14)),
            (261, (224, 224), (16, 16)),
            (1374, (518, 518), (37, 37)),
            (99, (224, 112), (14, 7)),
        ],
    )
    def test_grids_of_published_transformers(self, tokens, size, grid):
        assert token_grid(tokens, size) == grid


class TestPooled:
    def test_is_the_mean_over_positions_in_every_layout(self):
        image = torch.rand(2, 3, 4, 4)
        expected = image.mean((2, 3))
        assert torch.allclose(pooled(image, channels=3), expected)
        assert torch.allclose(pooled(image.permute(0, 2, 3, 1), channels=3), expected)
        assert torch.allclose(pooled(image.flatten(2).transpose(1, 2), channels=3), expected)
        assert torch.equal(pooled(expected, channels=3), expected)

    def test_sums_in_float32(self):
        tap = torch.full((1, 1, 64, 64), 1.0, dtype=torch.bfloat16)
        tap[..., 0] = 1.0078125  # the next bf16 above 1, which a bf16 mean would round away
        assert pooled(tap, channels=1).item() == pytest.approx(1 + 0.0078125 / 64, rel=1e-6)


class TestFinding:
    def test_a_network_without_a_description(self):
        network = torch.nn.Sequential(
            *(torch.nn.Conv2d(1, 1, 1) for _ in range(9)),
            torch.nn.Flatten(),
            torch.nn.Linear(4, 3),
            torch.nn.Linear(3, 2),
        )
        assert list(find_taps(network)) == ["0", "2", "4", "6", "8"]
        assert find_head(network) == "11"
        assert find_head(torch.nn.Conv2d(1, 1, 1)) is None
        assert find_taps(torch.nn.Linear(1, 1)) == {}

    def test_hooks_are_gone_even_when_the_network_fails(self):
        network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
        with pytest.raises(RuntimeError), capture(network, {"a": "0"}, "1"):
            network(torch.rand(1, 3))
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
