"""Adversarial training: what is learned from lies in the ball and misleads, TRADES adds what it says, runs go on."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tiny import tiny_cohort, tiny_config, tiny_setup, tiny_step
from trueread import build_method, fit
from trueread.errors import InputError
from trueread.method.adversarial import Adversarial, divergence_from
from trueread.model.classifier import Classifier
from trueread.shift.attack import usual_epsilon


@pytest.fixture(scope="module")
def trained():
    """A network that has learned the tiny blobs."""
    torch.set_num_threads(1)
    cohort = tiny_cohort()
    return cohort, fit(cohort, config=tiny_config(epochs=4), quiet=True).classifier


def batch(trained, *, done=0.0, seed=0):
    cohort, classifier = trained[0], deepcopy(trained[1])  # a forward pass in training moves its statistics
    rows = cohort.rows("train")[:16]
    images = torch.from_numpy(cohort.images[rows] / 255).float()
    with torch.no_grad():
        logits = classifier.eval()(images).logits
    step = tiny_step(logits, torch.from_numpy(cohort.labels[rows]), images=images, seed=seed)
    classifier.zero_grad(set_to_none=True)
    step.classifier, step.done = classifier.train(), done
    return step


def made(trained, **options):
    method = Adversarial(**options)
    method.prepare(tiny_setup(trained[0]))
    return method


def test_the_usual_epsilon_changes_every_size_as_much():
    for values, expected in (
        (28 * 28, 0.25),
        (28 * 28 * 3, 0.44),
        (64 * 64, 0.58),
        (64 * 64 * 3, 1.0),
        (32 * 32 * 3, 0.5),
    ):
        assert usual_epsilon("l2", values) == pytest.approx(expected, abs=0.006)
    assert usual_epsilon("linf", 1) == usual_epsilon("linf", 10**6) == pytest.approx(4 / 255)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_it_learns_from_images_of_the_ball_that_mislead(trained, norm):
    step = batch(trained)
    clean, before = step.images, F.cross_entropy(step.logits, step.labels)
    statistics = step.classifier.network.state_dict()
    kept = {name: value.clone() for name, value in statistics.items()}
    method = made(trained, norm=norm, epsilon=0.5 if norm == "l2" else 0.05)
    method.perturb(step)
    moved = (step.images - clean).flatten(1)
    length = moved.norm(dim=1) if norm == "l2" else moved.abs().amax(1)
    assert (length <= method.epsilon).all()
    assert (length > 0.5 * method.epsilon).all()
    assert step.images.min() >= 0
    assert step.images.max() <= 1
    with torch.no_grad():
        after = F.cross_entropy(step.classifier.eval()(step.images).logits, step.labels)
    assert after > 3 * before
    for name, value in step.classifier.network.state_dict().items():
        assert torch.equal(value, kept[name]), f"the attack moved {name}"
    assert all(p.grad is None for p in step.classifier.parameters())


def test_the_classifier_is_back_in_training_mode(trained):
    step = batch(trained)
    made(trained).perturb(step)
    assert step.classifier.training


def test_epsilon_grows_during_the_warm_up(trained):
    lengths = []
    for done in (0.0, 0.1, 0.2, 0.9):
        step = batch(trained, done=done)
        clean = step.images
        made(trained, epsilon=0.4, warmup=0.2).perturb(step)
        lengths.append(float((step.images - clean).flatten(1).norm(dim=1).max()))
    assert lengths[0] == 0
    assert lengths[1] == pytest.approx(0.2, rel=0.02)
    assert lengths[2] == lengths[3] == pytest.approx(0.4, rel=0.02)


def test_epsilon_0_is_plain_training():
    torch.set_num_threads(1)
    cohort, config = tiny_cohort(), tiny_config(epochs=1)
    plain = fit(cohort, config=config, quiet=True).classifier.state_dict()
    same = fit(cohort, Adversarial(epsilon=0.0), config, quiet=True).classifier.state_dict()
    assert all(torch.equal(value, same[name]) for name, value in plain.items())


def test_the_divergence_is_the_textbook_one():
    generator = torch.Generator().manual_seed(0)
    clean, other = torch.randn(5, 3, generator=generator), torch.randn(5, 3, generator=generator)
    found = divergence_from(clean)(other, torch.zeros(5, dtype=torch.int64), None)
    for k in range(5):
        p, q = clean[k].softmax(0).double(), other[k].softmax(0).double()
        assert float(found[k]) == pytest.approx(
            sum(float(a * (a / b).log()) for a, b in zip(p, q, strict=True)), rel=1e-5
        )
    assert divergence_from(clean)(clean, torch.zeros(5, dtype=torch.int64), None).abs().max() < 1e-6


def test_trades_keeps_the_images_and_adds_beta_times_the_divergence(trained):
    terms = []
    for beta in (1.0, 6.0):
        step = batch(trained)
        clean = step.images.clone()
        method = made(trained, loss="trades", epsilon=0.5, beta=beta)
        method.perturb(step)
        assert torch.equal(step.images, clean)
        terms.append(method.penalty(step)["trades"])
    assert terms[0].item() > 0.001
    assert terms[1].item() == pytest.approx(6 * terms[0].item(), rel=1e-4)
    terms[1].backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in step.classifier.parameters())


def test_it_is_harder_to_mislead_than_plain_training():
    torch.set_num_threads(1)
    cohort, config = tiny_cohort(n=240, share=0.3), tiny_config(epochs=6)
    wrong = {}
    for name, options in (("erm", {}), ("adversarial", {"epsilon": 1.5})):
        classifier = fit(cohort, build_method(name, **options), config, seed=0, quiet=True).classifier.eval()
        step = batch((cohort, classifier))
        made((cohort, classifier), epsilon=1.5, steps=20, step_size=0.3).perturb(step)
        with torch.no_grad():
            wrong[name] = float((classifier.eval()(step.images).logits.argmax(1) != step.labels).float().mean())
    assert wrong["adversarial"] < wrong["erm"] - 0.2


def test_the_record_says_epsilon_in_grey_levels(trained):
    told = made(trained, norm="linf", epsilon=8 / 255).report()
    assert told["epsilon_grey_levels"] == 8
    told = made(trained, epsilon=1.6).report()
    assert told["epsilon_grey_levels"] == pytest.approx(255 * 1.6 / 16, abs=0.01)  # 16 x 16 pixels


def test_several_labels_are_refused():
    with pytest.raises(InputError, match="one class per image"):
        Adversarial().prepare(tiny_setup(tiny_cohort("multilabel")))


def test_a_state_brings_back_the_epsilon(trained):
    first = made(trained)
    second = Adversarial()
    second.load_state(first.state(), tiny_setup(trained[0]))
    assert (second.epsilon, second.report()) == (first.epsilon, first.report())


def test_volumes_and_composition():
    torch.set_num_threads(1)
    cohort = tiny_cohort(n=40, depth=8)
    fitted = fit(cohort, build_method("class-weights+adversarial", adversarial={"steps": 1}), tiny_config(), quiet=True)
    assert isinstance(fitted.classifier, Classifier)
    assert np.isfinite(fitted.history["train_loss"]).all()
