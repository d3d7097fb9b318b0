"""The classifier's contract: images in [0,1], its own normalisation, one image's answer independent of the others."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch

from tiny import Foreign, tiny_cohort
from trueread.errors import InputError, NotMeasured
from trueread.model import Predictor, ProbabilityFunction
from trueread.model.backbone import build_backbone
from trueread.model.classifier import (
    Classifier,
    intensity_moments,
    require_gradients,
    to_probabilities,
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def some_images(b: int, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.rand(b, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    return Classifier.build(cohort=tiny_cohort(n=40)).eval()


class TestForward:
    @pytest.mark.parametrize("depth", [0, 8], ids=["image", "volume"])
    def test_an_images_answer_does_not_depend_on_the_others_in_the_batch(self, depth):
        torch.manual_seed(0)
        classifier = Classifier.build(cohort=tiny_cohort(n=40, depth=depth)).eval()
        x = some_images(5, classifier.card.input_shape)
        with torch.no_grad():
            together = classifier(x)
            alone = classifier(x[2:3])
            reversed_ = classifier(x.flip(0))
        assert torch.allclose(together.logits[2:3], alone.logits, atol=1e-6)
        assert torch.allclose(together.logits.flip(0), reversed_.logits, atol=1e-6)
        assert torch.allclose(together.features[2:3], alone.features, atol=1e-6)
        assert (together.logits[0] - together.logits[1]).abs().max() > 1e-4  # it does look at the image

    def test_normalisation_is_what_one_does_by_hand_per_channel(self):
        torch.manual_seed(0)
        classifier = Classifier.build(cohort=tiny_cohort(n=40, channels=3)).eval()
        classifier.mean.copy_(torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1))
        classifier.std.copy_(torch.tensor([0.5, 0.25, 2.0]).view(1, 3, 1, 1))
        x = some_images(2, (3, 16, 16))
        by_hand = x.clone()
        by_hand[:, 0] = (x[:, 0] - 0.1) / 0.5
        by_hand[:, 1] = (x[:, 1] - 0.2) / 0.25
        by_hand[:, 2] = (x[:, 2] - 0.3) / 2.0
        with torch.no_grad():
            assert torch.allclose(classifier(x).logits, classifier.network(by_hand), atol=1e-6)

    def test_logits_are_the_head_of_the_features(self, classifier):
        with torch.no_grad():
            output = classifier(some_images(3, (1, 16, 16)))
        head = classifier.network.head[1]
        assert torch.allclose(output.features @ head.weight.T + head.bias, output.logits, atol=1e-6)

    @pytest.mark.parametrize(
        ("images", "sentence"),
        [
            (torch.rand(2, 3, 16, 16), r"reads images of shape \[B, 1, 16, 16\]; found \[2, 3, 16, 16\]"),
            (torch.rand(1, 16, 16), r"found \[1, 16, 16\]"),
            (torch.rand(2, 1, 4, 16, 16), r"found \[2, 1, 4, 16, 16\]"),
            (torch.rand(2, 1, 16, 16) * 255, r"must be in \[0,1\].*white"),
            (torch.rand(2, 1, 16, 16) - 0.5, r"must be in \[0,1\].*do not normalise"),
            (torch.full((2, 1, 16, 16), torch.nan), r"must be in \[0,1\]; found nan"),
        ],
        ids=["channels", "no-batch", "volume", "grey-levels", "normalised", "nan"],
    )
    def test_refuses_what_it_cannot_read(self, classifier, images, sentence):
        with pytest.raises(InputError, match=sentence):
            classifier(images)

    def test_unknown_tap_names_the_nearest(self, classifier):
        with pytest.raises(InputError, match="Did you mean 'stage3'"):
            classifier(some_images(1, (1, 16, 16)), taps=["stage33"])

    def test_leaves_no_hook_behind(self, classifier):
        classifier(some_images(1, (1, 16, 16)), taps=["stem", "stage4"])
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in classifier.modules())


class TestProbabilities:
    def test_temperature_softens_and_multilabel_is_per_label(self, classifier):
        logits = torch.tensor([[2.0, -1.0], [0.0, 3.0]])
        card = classifier.card.model_copy(update={"temperature": 2.0})
        assert torch.allclose(to_probabilities(logits, card), torch.softmax(logits / 2, 1))
        per_label = card.model_copy(update={"task": "multilabel"})
        assert torch.allclose(to_probabilities(logits, per_label), 1 / (1 + torch.exp(-logits / 2)))

    def test_classifier_uses_its_cards_temperature(self, classifier):
        x = some_images(2, (1, 16, 16))
        cold = classifier.probabilities(x)
        try:
            classifier.card.temperature = 4.0
            warm = classifier.probabilities(x)
        finally:
            classifier.card.temperature = 1.0
        log_odds = torch.log(cold[:, 1] / cold[:, 0])
        assert torch.allclose(torch.log(warm[:, 1] / warm[:, 0]), log_odds / 4, atol=1e-5)


class TestMoments:
    def test_are_the_training_splits_own_in_the_unit_of_white(self):
        cohort = tiny_cohort(n=60, channels=3, white=4095)
        rows = cohort.rows("train")
        mean, std = intensity_moments(cohort, rows)
        x = cohort.images[rows] / 4095
        assert np.allclose(mean, x.mean((0, 2, 3)), rtol=1e-9)
        assert np.allclose(std, x.std((0, 2, 3)), rtol=1e-9)

    def test_do_not_read_the_other_rows(self):
        cohort = tiny_cohort(n=60)
        rows = cohort.rows("train")
        other = cohort.images.copy()
        other[np.setdiff1d(np.arange(60), rows)] = 255
        assert intensity_moments(dataclasses.replace(cohort, images=other), rows) == intensity_moments(cohort, rows)

    def test_a_constant_cohort_does_not_divide_by_zero(self):
        cohort = tiny_cohort(n=20)
        flat = dataclasses.replace(cohort, images=np.full_like(cohort.images, 51))
        assert intensity_moments(flat) == ([pytest.approx(0.2)], [1e-3])


class TestBackbones:
    def test_a_family_without_patches_or_small_stem_keeps_the_standard_one(self):
        assert build_backbone("mixer_s16_224", channels=1, size=(64, 64)).stem == "standard"
        with pytest.raises(InputError, match="cannot be built"):
            build_backbone("mixer_s16_224", channels=1, size=(64, 64), stem="small")

    @pytest.mark.parametrize(
        ("name", "tap"), [("resnet18", "layer1"), ("densenet121", "features.denseblock1"), ("compact", "stage1")]
    )
    def test_small_stem_keeps_the_resolution_of_a_small_image(self, name, tap):
        torch.manual_seed(0)
        made = build_backbone(name, channels=1, size=(28, 28))
        seen = []
        made.module.get_submodule(made.taps[tap][0]).register_forward_hook(lambda _m, _i, o: seen.append(o.shape))
        with torch.no_grad():
            made.module.eval()(torch.rand(1, 1, 28, 28))
        assert seen[0][1] == made.taps[tap][1]
        assert tuple(seen[0][2:]) == (28, 28)

    def test_standard_stem_shrinks_as_published(self):
        made = build_backbone("resnet18", channels=3, size=(64, 64), stem="standard")
        assert made.stem == "standard"
        assert made.module.conv1.kernel_size == (7, 7)
        x = made.module.maxpool(made.module.conv1(torch.rand(1, 3, 64, 64)))
        assert x.shape[-1] == 16

    @pytest.mark.parametrize(
        ("name", "nearest"), [("compactt", "compact"), ("resnet_18", "resnet18"), ("monai:resnet19", "resnet1")]
    )
    def test_unknown_name_says_the_nearest(self, name, nearest):
        with pytest.raises(InputError, match=f"'{name.removeprefix('monai:')}' is not .*Did you mean '{nearest}"):
            build_backbone(name, channels=1, size=(8, 8, 8) if "monai" in name else (28, 28))

    def test_a_2d_network_refuses_volumes_in_words(self):
        with pytest.raises(InputError, match="holds volumes; use compact or monai"):
            build_backbone("resnet18", channels=1, size=(8, 16, 16))

    def test_a_forced_stem_that_does_not_exist_is_an_error(self):
        with pytest.raises(InputError, match="no small-image stem for 'convnext_atto'"):
            build_backbone("convnext_atto", channels=1, size=(64, 64), stem="small")

    def test_an_unknown_tag_of_a_known_architecture_is_an_input_error(self):
        with pytest.raises(InputError, match="'nonsense' is not a set of weights of resnet18"):
            build_backbone("resnet18.nonsense", channels=1, size=(64, 64))

    def test_an_image_too_small_for_the_network_is_said_so(self):
        with pytest.raises(InputError, match=r"'inception_v3' cannot read 16x16 images .*choose a larger size"):
            Classifier.build("inception_v3", cohort=tiny_cohort(n=40), stem="standard")

    @pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenetv3_small_050", "convnext_atto"])
    def test_the_heads_width_is_the_features_width(self, name):
        torch.manual_seed(0)
        classifier = Classifier.build(name, cohort=tiny_cohort(n=40, side=32, channels=3))
        with torch.no_grad():
            output = classifier(torch.rand(2, 3, 32, 32))
        assert output.features.shape == (2, classifier.network.head[1].in_features)
        assert output.logits.shape == (2, 2)


class TestForeign:
    def test_wrap_adds_only_the_normalisation_it_is_told(self):
        torch.manual_seed(0)
        network, x = Foreign(), some_images(3, (1, 12, 12))
        plain = Classifier.wrap(network, classes=["a", "b"], size=(12, 12), channels=1)
        told = Classifier.wrap(network, classes=["a", "b"], size=(12, 12), channels=1, mean=[0.4], std=[0.2])
        with torch.no_grad():
            assert torch.equal(plain(x).logits, network(x))
            assert torch.allclose(told(x).logits, network((x - 0.4) / 0.2))
            assert torch.allclose(plain(x).features, network.body(x).mean((2, 3)))
        assert not plain.training
        assert isinstance(plain, Predictor)
        assert require_gradients(plain) is plain

    def test_its_taps_are_its_convolutions_before_the_inplace_activation(self):
        torch.manual_seed(0)
        wrapped = Classifier.wrap(Foreign(), classes=["a", "b"], size=(12, 12), channels=1)
        x = some_images(3, (1, 12, 12))
        tap = wrapped(x, taps=["body.0"]).taps["body.0"]
        assert torch.equal(tap, wrapped.network.body[0](x))
        assert tap.min() < 0

    def test_unknown_module_names_the_nearest(self):
        with pytest.raises(InputError, match=r"Did you mean 'body\.2'"):
            Classifier.wrap(Foreign(), classes=["a", "b"], size=(12, 12), channels=1, taps=["body.22"])

    @pytest.mark.parametrize(
        ("wrong", "sentence"),
        [
            ({"channels": 2}, "channels"),
            ({"mean": [0.5, 0.5]}, "mean and std must have 1 values"),
            ({"classes": ["a", "b", "c"], "task": "binary"}, "binary"),
            ({"task": "regression"}, "task"),
        ],
    )
    def test_a_wrong_description_is_an_input_error(self, wrong, sentence):
        given = {"classes": ["a", "b"], "size": (12, 12), "channels": 1} | wrong
        with pytest.raises(InputError, match=sentence):
            Classifier.wrap(Foreign(), **given)
        if "mean" not in wrong:
            with pytest.raises(InputError, match=sentence):
                ProbabilityFunction(lambda x: np.full((len(x), 2), 0.5), **given)


class TestProbabilityFunction:
    def make(self, answer):
        return ProbabilityFunction(lambda _x: answer, classes=["a", "b"], size=(4, 4), channels=1)

    def test_is_given_the_images_and_returns_its_answer(self):
        seen = []

        def function(x: np.ndarray) -> np.ndarray:
            seen.append(x)
            p = x.mean((1, 2, 3))
            return np.stack([1 - p, p], 1)

        predictor = ProbabilityFunction(function, classes=["a", "b"], size=(4, 4), channels=1)
        x = some_images(3, (1, 4, 4))
        p = predictor.probabilities(x)
        assert np.array_equal(seen[0], x.numpy())
        assert seen[0].dtype == np.float32
        assert torch.allclose(p[:, 1], x.mean((1, 2, 3)))
        assert isinstance(predictor, Predictor)

    @pytest.mark.parametrize(
        "answer", [np.zeros((2, 2)), np.zeros(3), np.full((3, 2), np.nan), np.full((3, 2), 1.5), np.full((3, 2), -0.1)]
    )
    def test_a_wrong_answer_is_refused(self, answer):
        with pytest.raises(InputError, match=r"must return \(3, 2\) values in \[0,1\]"):
            self.make(answer).probabilities(torch.rand(3, 1, 4, 4))

    def test_has_no_gradients(self):
        with pytest.raises(NotMeasured, match="needs its gradients"):
            require_gradients(self.make(None))


class TestAlexNet:
    def test_grey_weights_are_the_sum_over_colours(self, monkeypatch):
        import torchvision

        whole = torchvision.models.alexnet(weights=None)
        colour = copy.deepcopy(whole)
        colour.classifier = colour.classifier[:-1]
        monkeypatch.setattr("torchvision.models.alexnet", lambda **_: whole)  # as if fetched from the hub
        made = build_backbone("alexnet", channels=1, size=(63, 70), pretrained=True)
        x = torch.rand(2, 1, 63, 70)
        with torch.no_grad():
            features = made.module.eval()(x)
            assert torch.allclose(features, colour.eval()(x.expand(-1, 3, -1, -1)), atol=1e-5)
        assert features.shape == (2, made.n_features)

    @pytest.mark.parametrize(("size", "message"), [((62, 80), "63 pixels or more"), ((64, 64, 64), "holds volumes")])
    def test_what_it_cannot_read(self, size, message):
        with pytest.raises(InputError, match=message):
            build_backbone("alexnet", channels=1, size=size)

    def test_a_hub_that_cannot_be_reached(self, monkeypatch):
        def unreachable(**_):
            raise OSError("no network")

        monkeypatch.setattr("torchvision.models.alexnet", unreachable)
        with pytest.raises(InputError, match="weights of 'alexnet' cannot be fetched"):
            build_backbone("alexnet", channels=3, size=(64, 64), pretrained=True)


class TestHead:
    def test_layers_of_the_published_head(self, tmp_path):
        made = Classifier.build("compact", cohort=tiny_cohort(n=40), head="mlp", dropout=0.5)
        names = [type(m).__name__ for m in made.network.head]
        assert names == ["Linear", "BatchNorm1d", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]
        assert [m.p for m in made.network.head if isinstance(m, torch.nn.Dropout)] == [0.3, 0.2]
        x = some_images(3, (1, 16, 16))
        with torch.no_grad():
            output = made.eval()(x)
            last = made.network.head[-1]
            assert output.features.shape == (3, 128)
            assert torch.allclose(last(output.features), output.logits, atol=1e-6)
            assert torch.equal(Classifier.load(made.save(tmp_path))(x).logits, output.logits)
