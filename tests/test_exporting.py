"""ONNX files: the same answers, the card inside, a quarter of the size with its cost said."""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime
import pytest
import torch

from tiny import tiny_cohort, tiny_config
from trueread import fit
from trueread.commands import audit, read_model
from trueread.errors import InputError, TruereadError
from trueread.exporting import export
from trueread.model import onnx
from trueread.model.classifier import Classifier
from trueread.model.onnx import OnnxPredictor, export_onnx

pytestmark = pytest.mark.usefixtures("quiet_and_on_one_thread")


@pytest.fixture(scope="module")
def trained():
    cohort = tiny_cohort("multiclass", n=120)
    classifier = fit(cohort, config=tiny_config(epochs=3), quiet=True).classifier
    classifier.card.temperature = 1.7
    return cohort, classifier


class TestFile:
    def test_it_answers_as_the_network_for_any_number_of_images(self, trained, tmp_path):
        _, classifier = trained
        path = export_onnx(classifier, tmp_path / "m.onnx")
        session = onnxruntime.InferenceSession(path)
        for n in (1, 2, 7):
            images = torch.rand(n, *classifier.card.input_shape)
            p, logits = session.run(None, {"images": images.numpy()})
            with torch.no_grad():
                assert p == pytest.approx(classifier.probabilities(images).numpy(), abs=1e-5)
                assert logits == pytest.approx(classifier(images).logits.numpy(), abs=1e-3)

    def test_the_card_comes_along(self, trained, tmp_path):
        _, classifier = trained
        path = export_onnx(classifier, tmp_path / "m.onnx")
        assert OnnxPredictor(path).card == classifier.card
        facts = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
        assert json.loads(facts["trueread.card"])["classes"] == list(classifier.card.classes)
        classifier.save(tmp_path / "model")
        weights = (tmp_path / "model" / "weights.safetensors").stat().st_size
        assert path.stat().st_size < 1.05 * weights

    @pytest.mark.parametrize("depth", [0, 8], ids=["resnet", "3d"])
    def test_other_networks(self, depth, tmp_path):
        backbone, cohort = ("compact", {"side": 16, "depth": 8}) if depth else ("resnet18", {"side": 32})
        classifier = Classifier.build(backbone, cohort=tiny_cohort(n=40, **cohort)).eval()
        images = torch.rand(3, *classifier.card.input_shape)
        found = OnnxPredictor(export_onnx(classifier, tmp_path / "m.onnx")).probabilities(images)
        with torch.no_grad():
            assert torch.allclose(found, classifier.probabilities(images), atol=1e-4)

    def test_a_file_that_disagrees_is_not_given_out(self, trained, tmp_path, monkeypatch):
        _, classifier = trained
        monkeypatch.setattr(onnx, "APART", -1.0)
        with pytest.raises(TruereadError, match="apart in their probabilities"):
            export_onnx(classifier, tmp_path / "m.onnx")
        assert not (tmp_path / "m.onnx").exists()


class TestEightBits:
    def test_a_quarter_of_the_size_and_its_cost_is_said(self, trained, tmp_path, monkeypatch):
        cohort, classifier = trained
        said = []
        monkeypatch.setattr("trueread.exporting.say", said.append)
        small = export(classifier, tmp_path / "small.onnx", int8=cohort, resamples=100)
        whole = export(classifier, tmp_path / "whole.onnx")
        assert small.stat().st_size < 0.4 * whole.stat().st_size
        assert OnnxPredictor(small).quantised
        assert not OnnxPredictor(whole).quantised
        assert any(line.startswith("auroc: ") for line in said)
        images = torch.from_numpy(cohort.images[cohort.rows("test")] / 255).float()
        with torch.no_grad():
            apart = (OnnxPredictor(small).probabilities(images) - classifier.probabilities(images)).abs().mean()
        assert 0 < apart < 0.05


class TestCommands:
    def test_a_file_is_audited_and_says_what_needs_gradients(self, trained, tmp_path):
        cohort, classifier = trained
        path = export(classifier, tmp_path / "m.onnx")
        both = [audit(m, cohort, audits=["performance", "distractor"], resamples=100) for m in (path, classifier)]
        ours, theirs = ([f.measures["auroc"].estimate.value for f in found[:1]] for found in both)
        assert ours == pytest.approx(theirs, abs=1e-6)
        assert "gradients" in both[0][1].reason

    def test_slips_are_one_sentence(self, trained, tmp_path, monkeypatch):
        _, classifier = trained
        with pytest.raises(InputError, match="there is no file"):
            read_model(tmp_path / "none.onnx")
        (tmp_path / "text.onnx").write_text("hello")
        with pytest.raises(InputError, match="is no ONNX file"):
            read_model(tmp_path / "text.onnx")
        made = onnx.OnnxPredictor(export_onnx(classifier, tmp_path / "m.onnx"))
        with pytest.raises(InputError, match="reads images of shape"):
            made.probabilities(torch.rand(1, 3, 5, 5))
        import onnx as library

        bare = library.load(tmp_path / "m.onnx")
        del bare.metadata_props[:]
        library.save(bare, tmp_path / "bare.onnx")
        with pytest.raises(InputError, match="was not exported by trueread"):
            read_model(tmp_path / "bare.onnx")
        monkeypatch.setitem(sys.modules, "onnxscript", None)
        with pytest.raises(InputError, match=r"pip install trueread\[onnx\]"):
            export_onnx(classifier, tmp_path / "n.onnx")
        assert not np.any([p.name == "n.onnx" for p in tmp_path.iterdir()])
