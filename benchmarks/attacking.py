"""PGD beside torchattacks and foolbox on the same network, and what adversarial training costs over its passes.

The peers are those of the tests. All take the same steps from the same random kind of start. In evaluation trueread
also says who is fooled, as foolbox does; torchattacks is given the forward pass that this takes. Fooled images stay,
though in an evaluation they leave.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from options import Options
from sheet import Aim, Sheet, row
from timing import Work, in_turns, middle
from torch import Tensor, nn

from trueread import TrainConfig, build_method, fit, load_cohort
from trueread.model.classifier import Classifier
from trueread.shift.attack import Ball, pgd
from trueread.shift.base import Draw

TITLE = "PGD-10 beside torchattacks and foolbox; adversarial training over its passes; one thread"
STEPS, EPSILON = 10, {"linf": 4 / 255, "l2": 0.5}
JUDGED = "torchattacks and who is fooled"
PAIRS = (("training", "torchattacks"), ("training", "foolbox"), ("evaluation", JUDGED), ("evaluation", "foolbox"))


def measure(sheet: Sheet, options: Options) -> None:
    torch.set_num_threads(1)
    batch, rounds = (8, 1) if options.smoke else (32, 5)
    for backbone, side in (("compact", 28),) if options.smoke else (("compact", 64), ("resnet18", 28)):
        cohort = load_cohort("phantom", n_images=max(batch, 40), size=side)
        net = Classifier.build(backbone, cohort=cohort).eval().requires_grad_(False)
        images = torch.from_numpy(cohort.images[:batch].astype(np.float32)) / cohort.white
        labels = net(images).logits.argmax(1)  # all right at first, so that none is done before it starts
        for norm in EPSILON:
            works: dict[str, Work] = {"training": ours(net, images, labels, norm, keep="last")}
            works["evaluation"] = ours(net, images, labels, norm, keep="best")
            for name, make in (("torchattacks", by_torchattacks), ("foolbox", by_foolbox)):
                with sheet.attempt(f"{name}, {norm}"):
                    works[name] = make(net, images, labels, norm)
            if "torchattacks" in works:
                works[JUDGED] = judged(net, works["torchattacks"])
            taken = in_turns(works, rounds=rounds)
            for mine, peer in PAIRS:
                if peer in works:
                    sheet.add(
                        row(f"{backbone}, {side} px, {norm}, as in {mine}", "ms", 1e3 * middle(taken[mine]).value,
                            middle(taken[peer] / taken[mine]), peer=peer, theirs=1e3 * middle(taken[peer]).value,
                            aim=Aim("ratio", "at least", 1.0))
                    )  # fmt: skip
    passes(sheet, options)


def ours(net: Classifier, images: Tensor, labels: Tensor, norm: str, *, keep: str) -> Work:
    """keep: "last" as in training; "best" as in evaluation, where every image takes all steps here too."""
    draw = Draw([f"{i}" for i in range(len(images))], 0, "benchmark")
    generator = torch.Generator().manual_seed(0)

    def work() -> None:
        pgd(
            lambda x: net(x, trusted=True).logits, images, labels, ball=Ball(norm, EPSILON[norm]), steps=STEPS,  # type: ignore[arg-type]
            draw=generator if keep == "last" else draw, stop_when_fooled=False, keep=keep, trusted=keep == "last",  # type: ignore[arg-type]
        )  # fmt: skip

    return work


class Logits(nn.Module):
    """The classifier as the peers take it: images in [0,1] to logits."""

    def __init__(self, net: Classifier) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images, trusted=True).logits


def by_torchattacks(net: Classifier, images: Tensor, labels: Tensor, norm: str) -> Work:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torchattacks
    size = 2.5 * EPSILON[norm] / STEPS
    kind = torchattacks.PGD if norm == "linf" else torchattacks.PGDL2
    attack = kind(Logits(net), eps=EPSILON[norm], alpha=size, steps=STEPS, random_start=True)
    return lambda: attack(images, labels)


def judged(net: Classifier, attack: Callable[[], Tensor]) -> Work:
    return lambda: net(attack(), trusted=True).logits.argmax(1)


def by_foolbox(net: Classifier, images: Tensor, labels: Tensor, norm: str) -> Work:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import foolbox
    kind = foolbox.attacks.LinfPGD if norm == "linf" else foolbox.attacks.L2PGD
    attack = kind(abs_stepsize=2.5 * EPSILON[norm] / STEPS, steps=STEPS, random_start=True)
    model = foolbox.PyTorchModel(Logits(net).eval(), bounds=(0, 1), device="cpu")
    return lambda: attack(model, images, labels, epsilons=EPSILON[norm])


def passes(sheet: Sheet, options: Options) -> None:
    """Seconds of an epoch of adversarial training over those of plain training, times the passes it takes."""
    steps = 1 if options.smoke else 7
    cohort = load_cohort("phantom", n_images=100 if options.smoke else 200, size=28 if options.smoke else 64)
    config = TrainConfig(epochs=1, augment="none", select="last")
    seconds: dict[str, list[float]] = {"plain": [], "adversarial": []}

    def epoch(name: str, method: Callable) -> None:
        seconds[name].append(float(fit(cohort, method(), config, quiet=True).history["seconds"].sum()))

    works: dict[str, Work] = {
        "plain": lambda: epoch("plain", lambda: build_method("erm")),
        "adversarial": lambda: epoch("adversarial", lambda: build_method("adversarial", steps=steps)),
    }
    in_turns(works, rounds=1 if options.smoke else 5)
    plain, adversarial = (np.array(seconds[name][1:]) for name in ("plain", "adversarial"))
    sheet.add(
        row(f"an epoch of PGD-{steps} training, compact, 64 px", "s", middle(adversarial).value,
            middle(adversarial / ((steps + 1) * plain)), peer=f"{steps + 1} plain epochs",
            theirs=(steps + 1) * middle(plain).value, aim=Aim("ratio", "at most", 1.05))
    )  # fmt: skip
