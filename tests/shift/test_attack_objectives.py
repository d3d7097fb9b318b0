"""Objectives: their closed forms, their fallbacks, and that higher is nearer to fooled."""

from __future__ import annotations

import math

import pytest
import torch

from trueread.shift.attack.objectives import OBJECTIVES, cross_entropy, dlr, margin

LOGITS = torch.tensor([[1.0, 4.0, 2.0, -1.0], [3.0, 0.0, 2.5, 1.0]])
LABELS, TARGETS = torch.tensor([1, 2]), torch.tensor([0, 3])


def test_cross_entropy():
    logits = torch.tensor([[0.0, math.log(3)]])
    label, target = torch.tensor([0]), torch.tensor([1])
    assert cross_entropy(logits, label).item() == pytest.approx(math.log(4))
    assert cross_entropy(logits, label, target).item() == pytest.approx(math.log(3 / 4))


def test_margin():
    assert margin(LOGITS, LABELS).tolist() == [-2.0, 0.5]
    assert margin(LOGITS, LABELS, TARGETS).tolist() == [-3.0, -2.0]


def test_dlr():
    assert dlr(LOGITS, LABELS).tolist() == pytest.approx([-2 / 3, 0.5 / 2])
    spans = [4 - (1 - 1) / 2, 3 - (1 + 0) / 2]
    assert dlr(LOGITS, LABELS, TARGETS).tolist() == pytest.approx([(1 - 4) / spans[0], (1 - 2.5) / spans[1]])


@pytest.mark.parametrize("targets", [None, TARGETS], ids=["untargeted", "targeted"])
def test_dlr_knows_neither_the_logits_place_nor_their_scale(targets):
    moved = 100 * LOGITS + torch.tensor([[5.0], [-7.0]])
    assert torch.allclose(dlr(moved, LABELS, targets), dlr(LOGITS, LABELS, targets), atol=1e-5)


def test_dlr_of_few_classes_is_the_margin():
    for k in (2, 3):
        logits, labels, targets = LOGITS[:, :k], torch.tensor([1, 0]), torch.tensor([0, 1])
        assert torch.equal(dlr(logits, labels, targets), margin(logits, labels, targets))
    assert torch.equal(dlr(LOGITS[:, :2], labels), margin(LOGITS[:, :2], labels))
    assert not torch.equal(dlr(LOGITS[:, :3], labels), margin(LOGITS[:, :3], labels))


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("classes", [2, 3, 6])
def test_higher_is_nearer_to_fooled(name, classes):
    logits = torch.randn(40, classes, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.arange(40) % classes
    targets = (labels + 1) % classes
    said = logits.argmax(1)
    for towards, moved, sign, fooled in ((None, labels, -1, said != labels), (targets, targets, 1, said == targets)):
        value = OBJECTIVES[name](logits, labels, towards)
        (slope,) = torch.autograd.grad(value.sum(), logits)
        assert slope.isfinite().all()
        assert (sign * slope.gather(1, moved[:, None]).squeeze(1) > 0)[~fooled].all()
    if name != "cross-entropy":  # their sign is the answer
        assert torch.equal(OBJECTIVES[name](logits, labels, None) > 0, said != labels)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_equal_logits_have_a_finite_slope(name):
    logits = torch.zeros(1, 5, requires_grad=True)
    for targets in (None, torch.tensor([2])):
        (slope,) = torch.autograd.grad(OBJECTIVES[name](logits, torch.tensor([1]), targets).sum(), logits)
        assert slope.isfinite().all()
