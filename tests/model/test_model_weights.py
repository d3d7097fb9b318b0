"""Saving and loading: bit-equal, complete or not at all, and never by running a pickle."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch

from tiny import tiny_cohort
from trueread.errors import InputError
from trueread.model.classifier import Classifier
from trueread.model.weights import load_into, read_weights, save_weights
from trueread.progress import set_quiet


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(3)
    made = Classifier.build(cohort=tiny_cohort(n=40), dropout=0.3)
    made.train()(torch.rand(8, 1, 16, 16))  # so that the batch norms have statistics of their own
    made.card.temperature, made.card.threshold = 1.7, 0.123456789012345
    made.card.training = {"seed": 3, "method": "erm"}
    return made.eval()


@pytest.fixture
def saved(classifier, tmp_path) -> Path:
    return classifier.save(tmp_path / "model")


class TestRoundTrip:
    def test_bit_equal(self, classifier, saved):
        loaded = Classifier.load(saved)
        for (name, a), (other, b) in zip(classifier.state_dict().items(), loaded.state_dict().items(), strict=True):
            assert name == other
            assert torch.equal(a, b), name
        assert loaded.card == classifier.card
        assert not loaded.training
        x = torch.rand(3, 1, 16, 16)
        with torch.no_grad():
            assert torch.equal(loaded.probabilities(x), classifier.probabilities(x))

    def test_a_saved_model_saves_as_the_same_files(self, saved, tmp_path):
        again = Classifier.load(saved).save(tmp_path / "again")
        for file in ("card.json", "weights.safetensors"):
            assert (again / file).read_bytes() == (saved / file).read_bytes()
        assert sorted(p.name for p in saved.iterdir()) == ["card.json", "weights.safetensors"]

    def test_other_backbones_and_volumes(self, tmp_path):
        torch.manual_seed(0)
        for name, options in (("resnet18", {"side": 28, "channels": 3}), ("compact", {"depth": 8})):
            made = Classifier.build(name, cohort=tiny_cohort(n=40, **options))
            loaded = Classifier.load(made.save(tmp_path / name))
            x = torch.rand(2, *made.card.input_shape)
            with torch.no_grad():
                assert torch.equal(made(x).logits, loaded(x).logits)

    def test_a_foreign_network_needs_its_architecture(self, tmp_path):
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
        wrapped = Classifier.wrap(network, classes=["a", "b"], size=(4, 4), channels=1, mean=[0.2], std=[0.5])
        wrapped.save(tmp_path)
        with pytest.raises(InputError, match="foreign network; give its architecture"):
            Classifier.load(tmp_path)
        empty = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
        loaded = Classifier.load(tmp_path, network=empty)
        x = torch.rand(2, 1, 4, 4)
        assert torch.equal(loaded(x).logits, wrapped(x).logits)


class TestBrokenFiles:
    @pytest.mark.parametrize(
        ("edit", "sentence"),
        [
            ({"backbone": "resnet18"}, "weights in .* do not fit its card"),
            ({"backbone": "compactt"}, "'compactt' is not a backbone. Did you mean 'compact'"),
            ({"classes": ["a", "b", "c"], "task": "multiclass"}, "do not fit its card .*head"),
            ({"channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3}, "do not fit its card"),
            ({"temperature": 0}, "temperature"),
            ({"threshold": 1.5}, "threshold"),
            ({"threshold": [0.1, 0.2, 0.3]}, "one value per class"),
            ({"mean": [0.5, 0.5]}, "mean and std must have 1 values"),
            ({"std": [0.0]}, "std above 0"),
            ({"size": [16]}, "size must be"),
            ({"format": 2}, "format"),
            ({"colour": "red"}, "'colour' is not an option here"),
            ({"task": "regression"}, "task"),
        ],
        ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
    )
    def test_an_edited_card(self, saved, edit, sentence):
        path = saved / "card.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | edit))
        with pytest.raises(InputError, match=sentence):
            Classifier.load(saved)

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [("{'a': 1}", "not valid JSON"), ("[1]", "must be a JSON object"), ("{}", "is missing")],
    )
    def test_a_card_that_is_none(self, saved, content, sentence):
        (saved / "card.json").write_text(content)
        with pytest.raises(InputError, match=sentence):
            Classifier.load(saved)

    def test_a_missing_card(self, saved):
        (saved / "card.json").unlink()
        with pytest.raises(InputError, match=r"no saved classifier: there is no card.json"):
            Classifier.load(saved)

    def test_missing_weights(self, saved):
        (saved / "weights.safetensors").unlink()
        with pytest.raises(InputError, match="no weights file"):
            Classifier.load(saved)

    @pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.99])
    def test_truncated_weights(self, saved, keep):
        path = saved / "weights.safetensors"
        whole = path.read_bytes()
        path.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
        with pytest.raises(InputError, match=r"not a readable weights file.*truncated"):
            Classifier.load(saved)

    def test_a_failed_save_leaves_the_old_model(self, saved, classifier, monkeypatch):
        before = (saved / "weights.safetensors").read_bytes()

        def fail(_tensors, path):
            Path(path).write_bytes(b"half")
            raise OSError("disk full")

        monkeypatch.setattr("trueread.model.weights.save_file", fail)
        with pytest.raises(OSError, match="disk full"):
            classifier.save(saved)
        assert (saved / "weights.safetensors").read_bytes() == before


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "the pickle was run")


class TestPickles:
    @pytest.mark.parametrize("ending", [".pt", ".pth", ".bin", ".safetensors", ".pkl", ""])
    @pytest.mark.parametrize("how", ["pickle", "torch", "torch-legacy"])
    def test_a_malicious_file_is_refused_and_not_run(self, tmp_path, ending, how):
        ran, path = tmp_path / "ran", tmp_path / f"weights{ending}"
        content = {"backbone.stem.0.weight": torch.zeros(1), "evil": Payload(ran)}
        with path.open("wb") as file:
            if how == "pickle":
                pickle.dump(content, file)
            else:
                torch.save(content, file, _use_new_zipfile_serialization=how == "torch")
        with pytest.raises(InputError, match="not a readable weights file"):
            read_weights(path)
        assert not ran.exists()
        with path.open("rb") as file:  # the payload does work, or the test would prove nothing
            if how == "pickle":
                pickle.load(file)
            else:
                torch.load(file, weights_only=False)
        assert ran.exists()

    def test_as_the_saved_models_weights(self, saved, tmp_path):
        ran = tmp_path / "ran"
        (saved / "weights.safetensors").write_bytes(pickle.dumps(Payload(ran)))
        with pytest.raises(InputError, match="not a readable weights file"):
            Classifier.load(saved)
        assert not ran.exists()

    def test_as_a_backbones_start(self, tmp_path):
        ran, path = tmp_path / "ran", tmp_path / "start.pt"
        torch.save({"state_dict": {"x": Payload(ran)}}, path)
        with pytest.raises(InputError, match="not a readable weights file"):
            Classifier.build(cohort=tiny_cohort(n=40), weights=str(path))
        assert not ran.exists()

    @pytest.mark.parametrize(
        "content",
        [b"", b"\0" * 64, b"\xff\xd8\xff\xe0JFIF", b"<!DOCTYPE html>", b"\x80\x02.", b"\x80\x02h\x05.", b"PK\x03\x04"],
    )
    def test_bytes_of_something_else(self, tmp_path, content):
        (tmp_path / "w.pt").write_bytes(content)
        with pytest.raises(InputError, match="not a readable weights file"):
            read_weights(tmp_path / "w.pt")

    @pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {"state_dict": {"a": "b"}}, torch.zeros(2)])
    def test_a_torch_file_without_a_state_dict(self, tmp_path, content):
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(InputError, match="must hold a state dict"):
            read_weights(tmp_path / "w.pt")


class TestLoadInto:
    def source(
        self, tmp_path, name: str = "resnet18", *, channels: int = 3, wrapping=lambda s: s
    ) -> tuple[Classifier, Path]:
        torch.manual_seed(5)
        made = Classifier.build(name, cohort=tiny_cohort(n=40, side=28, channels=channels))
        made.train()(torch.rand(4, channels, 28, 28))
        state = {k: v.clone() for k, v in made.eval().network.backbone.state_dict().items()}
        torch.save(wrapping(state), tmp_path / "start.pt")
        return made, tmp_path / "start.pt"

    @pytest.mark.parametrize(("here", "there"), [(1, 3), (3, 1), (3, 3)])
    def test_a_grey_image_gets_the_same_response_through_other_channels(self, tmp_path, here, there):
        theirs, path = self.source(tmp_path, channels=there)
        ours = Classifier.build("resnet18", cohort=tiny_cohort(n=40, side=28, channels=here), weights=str(path))
        grey = torch.randn(2, 1, 28, 28)
        with torch.no_grad():
            a = ours.network.backbone(grey.expand(-1, here, -1, -1))
            b = theirs.network.backbone(grey.expand(-1, there, -1, -1))
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
        assert ours.card.weights.startswith("file: start.pt (sha256 ")
        assert "100 of 100 backbone tensors" in ours.card.weights

    @pytest.mark.parametrize(
        "wrapping",
        [
            lambda s: {f"module.{k}": v for k, v in s.items()},
            lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}},
            lambda s: {"model": s},
            lambda s: {f"module.network.backbone.{k}": v for k, v in s.items()},
        ],
    )
    def test_the_wrappings_of_training_scripts(self, tmp_path, wrapping):
        theirs, path = self.source(tmp_path, "compact", wrapping=wrapping)
        ours = Classifier.build("compact", cohort=tiny_cohort(n=40, side=28, channels=3), weights=str(path))
        for name, value in theirs.network.backbone.state_dict().items():
            assert torch.equal(ours.network.backbone.state_dict()[name], value), name

    def test_a_saved_classifier_is_a_start_for_another_number_of_classes(self, classifier, saved):
        ours = Classifier.build(cohort=tiny_cohort("multiclass", n=40), weights=str(saved / "weights.safetensors"))
        assert torch.equal(ours.network.backbone.stem[0].weight, classifier.network.backbone.stem[0].weight)
        assert ours.network.head[1].weight.shape == (3, 160)
        same = Classifier.build(cohort=tiny_cohort(n=40), weights=str(saved / "weights.safetensors"))
        assert torch.equal(same.network.head[1].weight, classifier.network.head[1].weight)

    def test_another_architecture_is_refused(self, tmp_path):
        _, path = self.source(tmp_path)
        network = Classifier.build(cohort=tiny_cohort(n=40)).network
        before = {k: v.clone() for k, v in network.state_dict().items()}
        with pytest.raises(InputError, match=r"fits \d+ of the \d+ tensors of this backbone"):
            load_into(network, path)
        assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())

    def test_what_has_another_shape_is_said(self, tmp_path, capsys):
        """An encoder learned at 64 px has the small stem, and that of large images stays random without a word."""
        set_quiet(False)
        made = Classifier.build("resnet18", cohort=tiny_cohort(n=40), stem="small")
        save_weights(made.network.backbone, tmp_path / "encoder.safetensors")
        weights = str(tmp_path / "encoder.safetensors")
        ours = Classifier.build("resnet18", cohort=tiny_cohort(n=40), stem="standard", weights=weights)
        assert "99 of 100 backbone tensors" in ours.card.weights
        assert "encoder.safetensors holds conv1.weight [64, 1, 3, 3], here [64, 1, 7, 7]" in capsys.readouterr().err

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(InputError, match="there is no weights file"):
            Classifier.build(cohort=tiny_cohort(n=40), weights=str(tmp_path / "none.pt"))
