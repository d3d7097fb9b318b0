"""Supervised contrastive learning: features in which a class lies together, then a balanced last layer on top."""

from __future__ import annotations

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from trueread.method.base import Method, class_counts, head_of, method
from trueread.method.class_weights import inverse_frequency
from trueread.method.last_layer import refit_balanced
from trueread.training.augment import augment_batch, recipe_for
from trueread.training.hooks import Setup, Step, cross_entropy
from trueread.training.ledger import Ledger


def contrastive_loss(z: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    """float [N]: for each row of z, float [N,D] of length 1, how little its class stands out among all other rows.

    The mean over the other rows of its class of -log softmax of the cosines over the temperature (L_out of the source);
    0 for a row whose class has no other. labels: int64 [N].
    """
    own = torch.eye(len(z), dtype=torch.bool, device=z.device)
    cosines = (z @ z.T / temperature).masked_fill(own, -torch.inf)
    log_p = (cosines - cosines.logsumexp(1, keepdim=True)).masked_fill(own, 0.0)
    alike = (labels[:, None] == labels[None]) & ~own
    return -(log_p * alike).sum(1) / alike.sum(1).clamp_min(1)


@method("supcon", source="Khosla et al. 2020, NeurIPS, eq. 2; Marrakchi, Makansi and Brox 2021, MICCAI (imbalance)")
class SupCon(Method):
    """Features by contrast between classes in two views of balanced batches, then a last layer of its own stage.

    In the first stage a last layer learns along, which the features do not feel, so that epochs can be compared.
    """

    reads_all_labels = True

    def __init__(
        self,
        *,
        temperature: Annotated[float, Field(gt=0, le=10)] = 0.1,
        width: Annotated[int, Field(ge=2, le=4096)] = 128,
        balanced: bool = True,
    ) -> None:
        """temperature: of the contrast. width: of the projection in which it is measured. balanced: whether classes are
        drawn equally often.
        """
        self.temperature, self.width, self.balanced = temperature, width, balanced
        self.strength: float | None = None  # of the second stage

    def prepare(self, setup: Setup) -> None:
        self._know(setup)

    def _know(self, setup: Setup) -> None:
        labels = setup.train_labels()
        counts = class_counts(labels, setup.cohort.n_classes)
        self.probabilities = inverse_frequency(counts)[labels] if self.balanced else None
        self.recipe, self.store = recipe_for(setup.config.augment, setup.cohort.modality)[1], setup.store
        n = head_of(setup.classifier).in_features
        self.projector = nn.Sequential(nn.Linear(n, n), nn.ReLU(), nn.Linear(n, self.width)).to(setup.device)

    def parameters(self) -> list[nn.Parameter]:
        return list(self.projector.parameters())

    def sampling(self, ledger: Ledger) -> Tensor | None:
        return self.probabilities

    def losses(self, step: Step) -> Tensor:
        assert step.output is not None
        view = augment_batch(self.store.batch(torch.from_numpy(step.rows)), self.recipe, step.generator)
        if view.ndim == 4:
            view = view.contiguous(memory_format=torch.channels_last)
        with step.autocast():
            other = step.classifier(view, trusted=True)
        assert step.output.features is not None
        assert other.features is not None
        both = torch.cat([step.output.features.float(), other.features.float()])
        z = F.normalize(self.projector(both))
        loss = contrastive_loss(z, step.labels.repeat(2), temperature=self.temperature)
        return loss.view(2, -1).mean(0)

    def penalty(self, step: Step) -> dict[str, Tensor]:
        """The loss of the last layer that learns along."""
        assert step.output is not None
        assert step.output.features is not None
        head = head_of(step.classifier)
        logits = F.linear(step.output.features.detach().float(), head.weight, head.bias)
        return {"linear": cross_entropy(logits, step.targets).mean()}

    def finish(self, setup: Setup) -> None:
        """The second stage, on the chosen epoch's features."""
        labels = setup.cohort.labels
        self.strength = refit_balanced(setup.classifier, setup.store, labels, setup.train_rows, setup.val_rows)

    def report(self) -> dict[str, Any]:
        return {"c": self.strength}

    def state(self) -> dict[str, Any]:
        return {"projector": self.projector.state_dict()}

    def load_state(self, state: dict[str, Any], setup: Setup) -> None:
        self._know(setup)
        self.projector.load_state_dict(state["projector"])
