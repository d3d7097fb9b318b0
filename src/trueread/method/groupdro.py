"""GroupDRO: the group with the highest loss counts most; groups are the classes with and without the shortcut."""

from __future__ import annotations

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from trueread.method.base import Method, method
from trueread.method.groups import PLANTED, groups_of
from trueread.training.hooks import Setup, Step
from trueread.training.ledger import Ledger
from trueread.training.processes import processes


def ascended(log_q: Tensor, risk: Tensor, *, step: float) -> Tensor:
    """Logarithm of the groups' shares after one step of exponentiated gradient ascent, float [G], its exp summing to 1.

    log_q: of the shares before. risk: float [G], the groups' losses; 0 for a group that shall not gain. step: its size,
    the paper's eta.
    """
    return (log_q + step * risk).log_softmax(0)


@method("groupdro", source="Sagawa et al. 2020, Distributionally robust neural networks, ICLR, algorithm 1")
class GroupDRO(Method):
    """The group with the highest loss counts most; needs to know which training images carry the shortcut."""

    replayable = True

    def __init__(
        self, *, attribute: str = PLANTED, step: Annotated[float, Field(ge=0, le=10)] = 0.01,
        adjustment: Annotated[float, Field(ge=0, le=100)] = 0.0,
    ) -> None:  # fmt: skip
        """attribute: a column, or "planted" for the planted cue; its values and the classes make the groups.

        step: of the groups' shares; 0 keeps them equal. adjustment: C of the term C / sqrt(n_g) that is added to a
        group's loss, because a small group is learnt by heart first.
        """
        self.attribute, self.step, self.adjustment = attribute, step, adjustment
        self.names: list[str] = []
        self.groups = torch.empty(0)  # int64 [N], of the training samples
        self.sizes = torch.empty(0)  # float [G]
        self.log_q = torch.empty(0)  # float [G]

    def prepare(self, setup: Setup) -> None:
        groups, names = groups_of(setup.cohort, setup.train_rows, self.attribute)
        uniform = torch.zeros(len(names)).log_softmax(0)
        self.load_state({"groups": torch.from_numpy(groups), "names": names, "log_q": uniform}, setup)

    def sampling(self, ledger: Ledger) -> Tensor | None:
        """Every group equally often: the algorithm draws the group first, and then an image of it."""
        return (1 / self.sizes)[self.groups].cpu()

    def weights(self, step: Step) -> Tensor:
        assert step.per_sample_loss is not None
        group = self.groups[step.index.to(self.groups.device, non_blocking=True)]
        member = F.one_hot(group, len(self.names)).float()
        loss = step.per_sample_loss.detach().float()
        here = torch.stack([member.sum(0), (member * loss[:, None]).sum(0)])
        count, total = processes().sum(here)  # of the whole batch, so that all processes keep the same shares
        risk = total / count.clamp_min(1) + self.adjustment / self.sizes.sqrt()
        # in place, where a recorded step finds it again; a group that is not in the batch has shown no loss
        self.log_q.copy_(ascended(self.log_q, risk * (count > 0), step=self.step))
        return (self.log_q.exp() / count.clamp_min(1))[group]

    def report(self) -> dict[str, Any]:
        q, sizes = self.log_q.exp().tolist(), self.sizes.tolist()
        return {
            "final_q": {name: round(share, 4) for name, share in zip(self.names, q, strict=True)},
            "group_sizes": {name: int(size) for name, size in zip(self.names, sizes, strict=True)},
        }

    def state(self) -> dict[str, Any]:
        return {"groups": self.groups, "names": self.names, "log_q": self.log_q}

    def load_state(self, state: dict[str, Any], setup: Setup) -> None:
        self.groups, self.names = state["groups"].to(setup.device), list(state["names"])
        self.log_q = state["log_q"].to(setup.device)
        self.sizes = torch.bincount(self.groups, minlength=len(self.names)).float()
