"""The attacks beside torchattacks and foolbox, on the same network."""

from __future__ import annotations

import copy
import warnings
from types import ModuleType

import pytest
import torch
from attack_nets import distances, draw, trained

from trueread.shift.attack import Ball, apgd, apgd_targeted, fgsm, pgd, square_attack
from trueread.shift.attack.objectives import cross_entropy, dlr

EPSILON = {"linf": 0.045, "l2": 0.4}


def peer(name: str) -> ModuleType:
    with warnings.catch_warnings():  # at their imports
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name}, a peer to compare with, is not installed")


@pytest.fixture
def subject():
    """A network of its own, because foolbox leaves gradients in the parameters, and what it classifies rightly."""
    net, x, y = trained()
    right = net(x).argmax(1) == y
    return copy.deepcopy(net), x[right], y[right]


def mine(net, x, y, norm, steps, **options):
    return pgd(
        net, x, y, ball=Ball(norm, EPSILON[norm]), steps=steps, step_size=EPSILON[norm] / 4, random_start=False,
        stop_when_fooled=False, **options,
    )  # fmt: skip


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("which", ["torchattacks", "foolbox"])
def test_pgd_takes_the_same_steps(subject, norm, which):
    """From the image itself, their last iterate is one of ours: where it is the best it is the same image, and nowhere
    is it better.
    """
    net, x, y = subject
    package, steps, epsilon = peer(which), 8, EPSILON[norm]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if which == "torchattacks":
            attack = package.PGD if norm == "linf" else package.PGDL2
            theirs = attack(net, eps=epsilon, alpha=epsilon / 4, steps=steps, random_start=False)(x, y)
        else:
            attack = package.attacks.LinfPGD if norm == "linf" else package.attacks.L2PGD
            made = attack(abs_stepsize=epsilon / 4, steps=steps, random_start=False)
            _, theirs, _ = made(package.PyTorchModel(net, bounds=(0, 1), device="cpu"), x, y, epsilons=epsilon)
    found = mine(net, x, y, norm, steps)
    with torch.no_grad():
        value = cross_entropy(net(theirs), y)
        fooled = net(theirs).argmax(1) != y
    assert distances(Ball(norm, epsilon), theirs, x).max() <= epsilon + 1e-5
    assert (found.fooled >= fooled).all()
    alike = found.fooled == fooled
    assert (found.objective - value > -1e-3)[alike].all()
    last = alike & ((found.objective - value).abs() < 1e-3)
    assert last.float().mean() > 0.5
    apart = (found.images - theirs).flatten(1)[last].abs()
    assert apart.median() < 1e-5
    assert (apart.amax(1) < 2e-3).float().mean() > 0.7


def test_fgsm_is_the_same_image(subject):
    net, x, y = subject
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peer("torchattacks").FGSM(net, eps=0.03)(x, y)
    found = fgsm(net, x, y, ball=Ball("linf", 0.03), stop_when_fooled=False)
    rose = (found.images != x).flatten(1).any(1)
    assert rose.float().mean() > 0.9
    assert torch.allclose(found.images[rose], theirs[rose], atol=1e-6)


def test_dlr_is_theirs(subject):
    package = peer("torchattacks")
    net = subject[0]
    logits = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % 6
    theirs = package.APGD(net, loss="dlr").dlr_loss(logits, labels)
    assert torch.allclose(dlr(logits, labels), theirs, atol=1e-5)
    targeted = package.APGDT(net, n_classes=6)
    targets = (labels + 2) % 6
    assert torch.allclose(dlr(logits, labels, targets), targeted.dlr_loss_targeted(logits, labels, targets), atol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_apgd_and_square_are_as_strong(norm):
    """Their random numbers differ, so that a few images may too. Theirs needs a side that is a multiple of 5 in L2."""
    net, x, y = trained(side=15)
    package = peer("torchattacks")
    size, name = EPSILON[norm] * 0.8, {"linf": "Linf", "l2": "L2"}[norm]
    theirs_of = {"norm": name, "eps": size, "seed": 0}
    ours_of = {"ball": Ball(norm, size), "draw": draw(len(x))}
    pairs = {
        "apgd-ce": (package.APGD(net, steps=20, loss="ce", **theirs_of), apgd(net, x, y, steps=20, **ours_of)),
        "apgd-targeted": (
            package.APGDT(net, steps=20, n_classes=4, **theirs_of),
            apgd_targeted(net, x, y, steps=20, **ours_of),
        ),
        "square": (
            package.Square(net, n_queries=300, **theirs_of),
            square_attack(net, x, y, queries=300, **ours_of),
        ),
    }
    for what, (theirs, found) in pairs.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with torch.random.fork_rng():
                images = theirs(x, y)
        with torch.no_grad():
            fooled = net(images).argmax(1) != y
        assert int(found.fooled.sum()) >= int(fooled.sum()) - 3, what
