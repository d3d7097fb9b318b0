"""Distillation's arithmetic: how far one network's softened answer is from another's, and which layers are compared."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from trueread.errors import InputError, unknown
from trueread.model.classifier import Classifier
from trueread.model.taps import pooled


def divergence(student: Tensor, teacher: Tensor, *, temperature: float, multilabel: bool = False) -> Tensor:
    """t^2 KL(teacher || student) of softened answers, float [B], per sample; logits [B,K] of both.

    Softmax over classes. Multilabel: of each label's Bernoulli distribution, mean over labels. t^2 keeps the gradients
    of the size they have at t = 1 (Hinton, Vinyals and Dean 2015, arXiv 1503.02531, section 2).
    """
    wanted, said = teacher / temperature, student / temperature
    if multilabel:
        p = wanted.sigmoid()
        on = F.logsigmoid(wanted) - F.logsigmoid(said)
        off = F.logsigmoid(-wanted) - F.logsigmoid(-said)
        return temperature**2 * (p * on + (1 - p) * off).mean(1)
    log_p, log_q = wanted.log_softmax(1), said.log_softmax(1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(1)


def paired_layers(student: Classifier, teacher: Classifier, layers: Sequence[str] | None) -> dict[str, str]:
    """The teacher's layer for each of the student's (all by default), in the student's order.

    Layers of the same name where both networks have the same names; else those at the same share of the depth.
    Raises InputError for a layer the student does not have, and for a network without intermediate layers.
    """
    mine, theirs = list(student.taps), list(teacher.taps)
    for side, names in (("student", mine), ("teacher", theirs)):
        if not names:
            raise InputError(f"the {side} ('{student.card.backbone}') has no intermediate layers to compare.")
    for layer in layers or ():
        if layer not in mine:
            raise unknown("layer of the student", layer, mine)
    if mine == theirs:
        pairs = {name: name for name in mine}
    else:
        last = max(len(mine) - 1, 1)
        pairs = {name: theirs[round(i * (len(theirs) - 1) / last)] for i, name in enumerate(mine)}
    return {name: other for name, other in pairs.items() if layers is None or name in layers}


def layer_vectors(taps: dict[str, Tensor], of: Classifier) -> dict[str, Tensor]:
    """float32 [B,C] of each tap that was asked for: its mean over positions."""
    return {name: pooled(tap, channels=of.taps[name][1]) for name, tap in taps.items()}


def linear_probes(widths: dict[str, int], n_outputs: int) -> torch.nn.ModuleList:
    """A linear layer for each of the layers, in order."""
    return torch.nn.ModuleList(torch.nn.Linear(width, n_outputs) for width in widths.values())
