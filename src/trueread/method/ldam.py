"""LDAM: rare classes are learned with a larger margin, and late in the training with a larger weight."""

from __future__ import annotations

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from trueread.method.base import Method, class_counts, head_of, method
from trueread.model.classifier import Classifier
from trueread.training.hooks import Setup, Step, cross_entropy
from trueread.training.ledger import Ledger


def margins(counts: Tensor, *, largest: float) -> Tensor:
    """float [K]: margins in proportion to n_k ** -1/4, of which the largest is given; 0 for a class without samples."""
    raw = torch.where(counts > 0, counts.clamp_min(1) ** -0.25, 0.0)
    return raw * largest / raw.max()


def effective_weights(counts: Tensor, *, beta: float) -> Tensor:
    """float [K], mean 1 over classes that are there: (1 - beta) / (1 - beta ** n_k); 0 for a class without samples.

    Source: Cui et al. 2019, CVPR, eq. 2.
    """
    raw = torch.where(counts > 0, (1 - beta) / (1 - beta ** counts.clamp_min(1)), 0.0)
    return raw * (counts > 0).sum() / raw.sum()


@method("ldam", source="Cao et al. 2019, Label-distribution-aware margin loss, NeurIPS, arXiv 1906.07413, eq. 13")
class Ldam(Method):
    """Cosines with a margin that is larger for rare classes, and class weights late in the training (LDAM-DRW)."""

    def __init__(
        self,
        *,
        margin: Annotated[float, Field(ge=0, le=2)] = 0.5,
        scale: Annotated[float, Field(gt=0, le=1000)] = 30.0,
        reweight_from: Annotated[float, Field(ge=0, le=1)] = 0.8,
        beta: Annotated[float, Field(ge=0, lt=1)] = 0.9999,
    ) -> None:
        """margin: of the rarest class, in cosines. scale: what cosines are multiplied by. reweight_from: share of the
        run after which rare classes weigh more, 1 is never; beta: how much more, see `effective_weights`.
        """
        self.margin, self.scale, self.reweight_from, self.beta = margin, scale, reweight_from, beta

    def prepare(self, setup: Setup) -> None:
        self._count(setup)
        self.level(setup.classifier)

    def _count(self, setup: Setup) -> None:
        counts = class_counts(setup.train_labels(), setup.cohort.n_classes).double()
        self.margins = margins(counts, largest=self.margin).float().to(setup.device)
        self.per_class = effective_weights(counts, beta=self.beta).float().to(setup.device)
        self.classes, self.classifier = setup.cohort.classes, setup.classifier

    def losses(self, step: Step) -> Tensor:
        assert step.output is not None
        features = step.output.features
        assert features is not None
        cosines = F.linear(F.normalize(features.float()), F.normalize(head_of(step.classifier).weight))
        return cross_entropy(self.scale * (cosines - step.targets * self.margins), step.targets)

    def weights(self, step: Step) -> Tensor | None:
        return self.per_class[step.labels] if step.done >= self.reweight_from else None

    def after_epoch(self, ledger: Ledger) -> None:
        self.level(self.classifier)

    def finish(self, setup: Setup) -> None:
        self.level(setup.classifier)

    @staticmethod
    @torch.no_grad()
    def level(classifier: Classifier) -> None:
        """Rows of the head brought to their mean length, and no bias: what the loss sees does not change, and the
        logits decide as the cosines do.
        """
        head = head_of(classifier)
        length = head.weight.norm(dim=1, keepdim=True).mean()
        head.weight.copy_(F.normalize(head.weight) * length)
        head.bias.zero_()

    def report(self) -> dict[str, Any]:
        return {
            "margins": {c: round(float(m), 4) for c, m in zip(self.classes, self.margins, strict=True)},
            "late_weights": {c: round(float(w), 4) for c, w in zip(self.classes, self.per_class, strict=True)},
        }

    def load_state(self, state: dict[str, Any], setup: Setup) -> None:
        self._count(setup)
