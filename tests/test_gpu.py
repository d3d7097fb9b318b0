"""The same numbers on a GPU, as far as its arithmetic allows; skipped where there is none."""

from __future__ import annotations

import dataclasses
import signal

import numpy as np
import pytest
import torch

from tiny import tiny_cohort, tiny_config
from trueread.method.base import build_method
from trueread.model.explain import grad_cam
from trueread.training.batches import ImageStore
from trueread.training.evaluate import predict_probabilities
from trueread.training.loop import fit
from trueread.training.steps import Stepper

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    pytest.mark.usefixtures("quiet_and_on_one_thread"),
]
COHORT = tiny_cohort(n=240)


def trained(*, cohort=COHORT, hooks=None, folder=None, **config):
    settings = tiny_config(**{"epochs": 6, "device": "cuda", **config})
    return fit(cohort, hooks, settings, seed=1, folder=folder, quiet=True)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "ordinal", "multilabel"])
def test_learns_in_every_precision_and_task(task, precision):
    fitted = trained(cohort=tiny_cohort(task, n=240), precision=precision, augment="any", clip_norm=1.0, ema_decay=0.8)
    assert next(fitted.classifier.parameters()).is_cuda
    assert fitted.history["val_auroc"].max() > 0.8
    assert not fitted.ledger.loss.isnan().all(1).any()


def test_the_trained_classifier_says_the_same_on_the_cpu():
    fitted = trained(precision="bf16")
    there = predict_probabilities(fitted.classifier, COHORT)
    here = predict_probabilities(fitted.classifier.cpu(), COHORT)
    np.testing.assert_allclose(there, here, atol=2e-3)  # TF32 and other sums


@pytest.mark.parametrize(
    "method", ["erm", "class-weights+focal", "label-smoothing", "logit-adjustment", "balanced-sampling"]
)
def test_a_replayed_step_is_the_step_itself(method):
    options = {"precision": "bf16", "augment": "any", "dropout": 0.2, "ema_decay": 0.8, "clip_norm": 1.0, "epochs": 4}
    replayed, taken = (
        trained(hooks=build_method(method), cohort=tiny_cohort(n=250, share=0.3), cuda_graph=graph, **options)
        for graph in (True, False)
    )
    np.testing.assert_allclose(replayed.history["train_loss"], taken.history["train_loss"], rtol=5e-3)
    assert torch.allclose(replayed.ledger.loss, taken.ledger.loss, atol=0.05, equal_nan=True)
    pairs = zip(replayed.classifier.parameters(), taken.classifier.parameters(), strict=True)
    apart = torch.stack([(a - b).norm() / (a.norm() + 1e-3) for a, b in pairs])
    assert apart.max() < 0.05


@pytest.mark.parametrize("white", [255, 4095, 65535])
def test_images_on_the_device_have_the_same_bits(white):
    scale = 257 if white == 65535 else 1
    images = COHORT.images.astype(np.uint16 if white > 255 else np.uint8) * scale
    cohort = dataclasses.replace(COHORT, images=images, white=white)
    rows = np.array([3, 0, 77])
    on_gpu = ImageStore(cohort, torch.device("cuda"))
    assert on_gpu.resident is not None
    assert torch.equal(on_gpu.batch(rows).cpu(), ImageStore(cohort, torch.device("cpu")).batch(rows))


@pytest.mark.parametrize("method", ["erm", "balanced-sampling+focal", "mixup", "class-weights+label-smoothing"])
def test_an_interrupted_training_goes_on_to_the_same_classifier(tmp_path, monkeypatch, method):
    options = {"precision": "bf16", "augment": "any", "dropout": 0.1, "ema_decay": 0.8}
    whole = trained(hooks=build_method(method), **options)
    taken, real = [], Stepper.__call__

    def interrupted(self, epoch, index):
        taken.append(1)
        if len(taken) == 8:
            signal.raise_signal(signal.SIGINT)
        return real(self, epoch, index)

    monkeypatch.setattr(Stepper, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained(hooks=build_method(method), folder=tmp_path, **options)
    again = trained(hooks=build_method(method), folder=tmp_path, **options)
    ours, theirs = (predict_probabilities(f.classifier, COHORT) for f in (whole, again))
    np.testing.assert_allclose(ours, theirs, atol=0.02)  # cuDNN adds up gradients in any order
    assert len(taken) == len(whole.history) * -(-len(COHORT.rows("train")) // 24)


def test_grad_cam_is_that_of_the_cpu():
    fitted = trained(precision="fp32")
    images = torch.from_numpy(COHORT.images[:6]).float() / 255
    target = torch.ones(len(images), dtype=torch.int64)
    there = grad_cam(fitted.classifier, images.cuda(), target.cuda())
    here = grad_cam(fitted.classifier.cpu(), images, target)
    assert there.layer == here.layer
    assert (there.maps.cpu() - here.maps).abs().max() < 0.02 * here.maps.abs().max()
