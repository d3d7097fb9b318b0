"""Multiple-instance learning: the places of the last map are a bag, of which some say what the image is."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from trueread.method.base import Method, method
from trueread.method.distillation import divergence
from trueread.method.responses import last_map
from trueread.model.taps import as_map
from trueread.training.hooks import Setup, Step, cross_entropy


class GatedAttention(nn.Module):
    """A bag's logits from its places. forward: float [B,T,C] -> logits [B,K], and each place's share [B,T], sum 1.

    Source: Ilse, Tomczak and Welling 2018, ICML, eq. 9.
    """

    def __init__(self, channels: int, n_outputs: int, *, width: int) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(channels, width), nn.Linear(channels, width)
        self.score, self.head = nn.Linear(width, 1), nn.Linear(channels, n_outputs)

    def forward(self, places: Tensor) -> tuple[Tensor, Tensor]:
        share = self.score(self.value(places).tanh() * self.gate(places).sigmoid()).softmax(1)
        return self.head((share * places).sum(1)), share[..., 0]


@method("mil", source="Yu et al. 2021, MIL-VT, MICCAI (a second head on the patches); the consistency term is ours")
class Mil(Method):
    """A second head, which weighs the places of the last map, is trained beside and has to agree with the first."""

    def __init__(
        self,
        *,
        weight: Annotated[float, Field(ge=0, le=1000)] = 1.0,
        consistency: Annotated[float, Field(ge=0, le=1000)] = 1.0,
        width: Annotated[int, Field(ge=1, le=4096)] = 64,
    ) -> None:
        """weight: of the second head's loss. consistency: weight of how far both heads' answers are apart. width: of
        the attention.
        """
        self.weight, self.consistency, self.width = weight, consistency, width
        self.layer = ""

    @property
    def taps(self) -> tuple[str, ...]:  # type: ignore[override]  # known once the network is
        return (self.layer,) if self.layer else ()

    def prepare(self, setup: Setup) -> None:
        self.layer = last_map(setup.classifier)
        channels, k = setup.classifier.taps[self.layer][1], setup.cohort.n_classes
        self.bag = GatedAttention(channels, k, width=self.width).to(setup.device)

    def parameters(self) -> list[nn.Parameter]:
        return list(self.bag.parameters())

    def penalty(self, step: Step) -> dict[str, Tensor]:
        assert step.output is not None
        tap, channels = step.output.taps[self.layer], step.classifier.taps[self.layer][1]
        places = as_map(tap.float(), channels=channels, size=step.images.shape[2:]).flatten(2).transpose(1, 2)
        said, _ = self.bag(places)
        one, other = (
            divergence(a, b, temperature=1.0, multilabel=step.multilabel).mean()
            for a, b in ((step.logits, said), (said, step.logits))
        )
        return {
            "bag": self.weight * cross_entropy(said, step.targets, multilabel=step.multilabel).mean(),
            "consistency": self.consistency * (one + other) / 2,
        }

    def report(self) -> dict[str, Any]:
        return {"layer": self.layer}

    def state(self) -> dict[str, Any]:
        return {"bag": self.bag.state_dict()}

    def load_state(self, state: dict[str, Any], setup: Setup) -> None:
        self.prepare(setup)
        self.bag.load_state_dict(state["bag"])
