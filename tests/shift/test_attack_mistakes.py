"""What an attack refuses, each with one sentence."""

from __future__ import annotations

import pytest
import torch
from attack_nets import directions, draw, linear, random_images, trained

from trueread.errors import InputError
from trueread.registry import Registry
from trueread.shift.attack import Ball, apgd, apgd_targeted, fgsm, pgd, square_attack, strongest
from trueread.shift.base import SHIFTS

X, Y = random_images((1, 4, 4)), torch.tensor([0, 1, 2, 0, 1])
MODEL = linear(directions((1, 4, 4), 3))
BALL = Ball("linf", 0.1)

EVERY = {
    "pgd": lambda forward, x, y, **o: pgd(forward, x, y, **{"ball": BALL, "steps": 2, "draw": draw(5), **o}),
    "training": lambda forward, x, y, **o: pgd(
        forward, x, y, **{"ball": BALL, "steps": 2, "draw": torch.Generator(), "stop_when_fooled": False, **o}
    ),
    "fgsm": lambda forward, x, y, **o: fgsm(forward, x, y, **{"ball": BALL, **o}),
    "apgd": lambda forward, x, y, **o: apgd(forward, x, y, **{"ball": BALL, "steps": 2, "draw": draw(5), **o}),
    "targeted": lambda forward, x, y, **o: apgd_targeted(
        forward, x, y, **{"ball": BALL, "steps": 2, "draw": draw(5), **o}
    ),
    "square": lambda forward, x, y, **o: square_attack(
        forward, x, y, **{"ball": BALL, "queries": 3, "draw": draw(5), **o}
    ),
    "ensemble": lambda forward, x, y, **o: strongest(
        forward, x, y, **{"ball": BALL, "steps": 2, "queries": 3, "draw": draw(5), **o}
    ),
}


@pytest.mark.parametrize("attack", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize(
    ("forward", "x", "y", "words"),
    [
        (MODEL, X, torch.tensor([0, 1, 3, 0, 1]), r"labels must be in \[0,3\), one of the logits; found 3"),
        (MODEL, X, torch.tensor([0, 1, -1, 0, 1]), r"labels must be in \[0,3\), one of the logits; found -1"),
        (MODEL, X, Y.float(), r"labels must be one class per image, int64 \[5\]; found float32 \[5\]"),
        (MODEL, X, Y[:4], r"int64 \[5\]; found int64 \[4\]"),
        (MODEL, 2 * X, Y, r"images must be in \[0,1\]; found .* normalisation belongs inside"),
        (MODEL, X - 0.5, Y, r"images must be in \[0,1\]"),
        (MODEL, X / 0 * 0, Y, r"images must be in \[0,1\]; found nan"),
        (MODEL, (255 * X).to(torch.uint8), Y, "images must be float .* found uint8; divide"),
        (MODEL, X[0, 0], Y[:4], r"a batch \[B,C,...\] of at least one; found the shape \[4, 4\]"),
        (MODEL, X[:0], Y[:0], r"of at least one; found the shape \[0, 1, 4, 4\]"),
        (lambda x: MODEL(x) * torch.nan, X, Y, "logits that are nan"),
        (lambda x: MODEL(x)[:, 0], X, Y, r"logits \[5, K\] of at least two classes; found \[5\]; give a binary task"),
        (lambda x: MODEL(x)[:, :1], X, Y, r"found \[5, 1\]"),
    ],
    ids=[
        "label high", "label low", "label float", "labels few", "not in the box", "negative", "nan images", "bytes",
        "no batch", "no image", "nan logits", "one logit", "one column",
    ],
)  # fmt: skip
def test_images_labels_and_logits(attack, forward, x, y, words):
    with pytest.raises(InputError, match=words):
        attack(forward, x, y)


@pytest.mark.parametrize("name", ["pgd", "training", "fgsm", "apgd", "targeted"])
@pytest.mark.parametrize(
    "forward",
    [
        torch.no_grad()(lambda x: MODEL(x)),
        lambda x: MODEL(torch.from_numpy(x.numpy())),
        lambda x: trained()[0](x.detach().repeat(1, 1, 3, 3)),
        lambda x: MODEL((x > 0.5).float()),
    ],
    ids=["no grad", "numpy", "detached before parameters", "steps"],
)
def test_gradient_attacks_need_gradients(name, forward):
    right = torch.from_numpy(forward(X).detach().numpy()).argmax(1)
    with pytest.raises(InputError, match="needs gradients, but the logits do not depend on the images"):
        EVERY[name](forward, X, right)


def test_another_runtime_error_of_forward_is_its_own():
    def forward(_images):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fgsm(forward, X, Y, ball=BALL)


def test_nan_logits_that_come_up_on_the_way():
    """The first look is fine; later ones are not, in some images."""
    for name in ("pgd", "training", "apgd", "targeted", "square", "ensemble"):
        calls = []

        def forward(x, calls=calls):
            calls.append(len(x))
            logits = MODEL(x)
            return logits if len(calls) < 3 else torch.where(torch.arange(len(x))[:, None] == 0, torch.nan, logits)

        with pytest.raises(InputError, match="nan"):
            EVERY[name](forward, X, MODEL(X).argmax(1))


def test_targets():
    for targets, words in (
        (torch.tensor([1, 1, 0, 1, 0]), "a target must be another class than the label; found 1 that are"),
        (torch.tensor([1, 0, 3, 1, 0]), r"targets must be in \[0,3\)"),
        (torch.tensor([1, 0]), r"targets must be one class per image, int64 \[5\]; found int64 \[2\]"),
    ):
        for name in ("pgd", "training", "fgsm"):
            with pytest.raises(InputError, match=words):
                EVERY[name](MODEL, X, Y, targets=targets)


def test_options():
    for name, options, words in (
        ("pgd", {"steps": 0}, "steps must be at least 1; found 0"),
        ("pgd", {"restarts": 0}, "restarts must be at least 1"),
        ("pgd", {"restarts": 2, "random_start": False}, "2 restarts from the same point"),
        ("pgd", {"step_size": -0.1}, "step_size must be at least 0; found -0.1"),
        ("pgd", {"objective": "crossentropy"}, "'crossentropy' is not an objective. Did you mean 'cross-entropy'"),
        ("pgd", {"keep": "last"}, "the last iterate is that of one run in training"),
        ("training", {"keep": "last", "restarts": 2}, "the last iterate is that of one run in training"),
        ("training", {"keep": "lats"}, "'lats' is not an iterate to keep. Did you mean 'last'"),
        ("pgd", {"draw": None}, "a random start needs `draw`"),
        ("pgd", {"draw": draw(4)}, "5 images need as many ids; found 4"),
        ("apgd", {"steps": 0}, "steps must be at least 1"),
        ("apgd", {"restarts": 0}, "restarts must be at least 1"),
        ("apgd", {"draw": draw(4)}, "5 images need as many ids"),
        ("targeted", {"steps": 0}, "steps must be at least 1"),
        ("targeted", {"draw": draw(6)}, "5 images need as many ids"),
        ("square", {"queries": 0}, "queries must be at least 1"),
        ("square", {"draw": draw(6)}, "5 images need as many ids"),
        ("ensemble", {"queries": 0}, "queries must be at least 1"),
        ("ensemble", {"draw": draw(6)}, "5 images need as many ids"),
    ):
        with pytest.raises(InputError, match=words):
            EVERY[name](MODEL, X, Y, **options)


def test_attacks_are_no_shifts():
    """They need a network, so the registry of shifts knows none of them."""
    names = {entry.name for entry in SHIFTS.entries()}
    assert not names & {"attack", "pgd", "square-attack"}
    assert all(".attack" not in entry.factory.__module__ for entry in SHIFTS.entries())
    assert isinstance(SHIFTS, Registry)
