"""Mixed precision speeds the network up and touches nothing else: the images, the taps, the operating point."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tiny import tiny_cohort, tiny_config
from trueread.method.base import Method
from trueread.stats.threshold import choose_threshold
from trueread.training.evaluate import predict_probabilities
from trueread.training.loop import fit


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def run(hooks=None, cohort=None, **config):
    return fit(cohort or tiny_cohort(), hooks, tiny_config(precision="bf16", **config), quiet=True)


class TestBf16:
    def test_the_network_multiplies_in_bf16_but_the_images_reach_it_unrounded(self):
        """16-bit intensities that differ by less than a bf16 step must still be told apart."""

        class Look(Method):
            name = "look"

            def prepare(self, setup):
                self.inputs, self.products = [], []
                stem = setup.classifier.network.backbone.stem[0]
                stem.register_forward_hook(self.look)

            def look(self, module, inputs, output):
                if module.training:
                    self.inputs.append(inputs[0])
                    self.products.append(output.dtype)

        cohort, look = tiny_cohort(white=65535), Look()
        fine = np.random.default_rng(0).integers(60_000, 60_100, size=cohort.images.shape).astype(np.uint16)
        run(look, dataclasses.replace(cohort, images=fine))
        assert set(look.products) == {torch.bfloat16}
        assert look.inputs[0].dtype == torch.float32
        assert len(look.inputs[0].unique()) > 90

    def test_logits_depend_on_the_taps_that_are_handed_out(self):
        class Slope(Method):
            name, taps = "slope", ("stage3", "stage4")

            def penalty(self, step):
                taps = [step.output.taps[t] for t in self.taps]
                slopes = torch.autograd.grad(step.logits.sum(), taps, create_graph=True)
                return {"slope": sum(s.float().pow(2).mean() for s in slopes)}

        assert np.isfinite(run(Slope()).history["train_loss"]).all()

    def test_hooks_compute_in_float32_unless_they_ask(self):
        class Types(Method):
            name = "types"

            def penalty(self, step):
                a = step.images.flatten(1)
                assert (a @ a.T).dtype == torch.float32
                assert step.classifier(step.images).logits.dtype == torch.float32
                with step.autocast(), torch.no_grad():
                    assert step.classifier(step.images).logits.dtype == torch.bfloat16
                assert step.logits.dtype == torch.float32
                return {}

        run(Types())

    def test_the_threshold_holds_for_the_predictions_that_are_made_later(self):
        cohort = tiny_cohort(n=200, share=0.3)
        labels = np.where(np.random.default_rng(0).random(200) < 0.2, 1 - cohort.labels, cohort.labels)
        cohort = dataclasses.replace(cohort, labels=labels)
        fitted = run(cohort=cohort, threshold_rule="sensitivity>=0.9")
        rows = cohort.rows("val")
        p = predict_probabilities(fitted.classifier, cohort, rows)[:, 1]
        threshold = fitted.classifier.card.threshold
        assert threshold == choose_threshold(p, labels[rows], rule="sensitivity>=0.9")
        assert (p[labels[rows] == 1] >= threshold).mean() >= 0.9
        by_hand = fitted.classifier.probabilities(torch.from_numpy(cohort.images[rows] / np.float32(255))).detach()
        assert np.allclose(by_hand[:, 1], p, atol=1e-6)
