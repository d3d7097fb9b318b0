"""A member of a subject as attacks see it: logits whose largest is the decision."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trueread.audit.performance import threshold_of
from trueread.audit.subject import Member
from trueread.errors import NotMeasured
from trueread.model.classifier import Classifier
from trueread.shift.attack.search import Forward

SUREST = 1e-6  # a threshold of 0 or 1 decides the same for all


def decision_logits(member: Member) -> Forward:
    """images float [B,C,...] in [0,1] -> logits [B,K], whose argmax is the member's decision at its own threshold.

    Of a function, which has no gradients, they are the logarithms of its probabilities.
    Raises NotMeasured for a multilabel task, in which an image has no single class.
    """
    predictor, card = member.predictor, member.predictor.card
    if card.task == "multilabel":
        raise NotMeasured("an attack leads an image out of its one class, and the task is multilabel.")
    shift = 0.0
    if card.task == "binary":
        threshold = min(max(float(threshold_of(member)), SUREST), 1 - SUREST)  # type: ignore[arg-type]
        shift = math.log(threshold / (1 - threshold))
    offset = torch.tensor([0.0, shift]) if card.task == "binary" else torch.zeros(len(card.classes))

    def forward(images: Tensor) -> Tensor:
        if isinstance(predictor, Classifier):
            logits = predictor(images, trusted=True).logits.float() / card.temperature
        else:
            logits = predictor.probabilities(images).clamp_min(1e-12).log()
        return logits - offset.to(logits)

    if isinstance(predictor, Classifier):
        predictor.eval()
    return forward
