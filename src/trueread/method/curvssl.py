"""CurvSSL: beside Barlow Twins, the neighbourhoods of an image's two views are curved alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from trueread.errors import InputError
from trueread.method.barlow_twins import barlow_twins_loss
from trueread.method.base import method
from trueread.method.curvature import SCALES, Form, Kernel, curvature_loss, curvatures, nearest
from trueread.method.two_views import Batch, Epochs, Objective, Pretraining, Rate, Width


class CurvatureObjective(Objective):
    """Barlow Twins and a term of curvature, whose weight makes it `share` of Barlow Twins' at the first batch.

    Neighbours are looked for in the batch: of each view ("own"), or of the first view for both ("first").
    """

    def __init__(self, *, form: Form, kernel: Kernel, k: int, neighbours: str, share: float, redundancy: float) -> None:
        self.form, self.kernel, self.k, self.neighbours = form, kernel, k, neighbours
        self.share, self.redundancy = share, redundancy
        self.weight: float | None = None  # known from the first batch on

    def __repr__(self) -> str:
        facts = (self.form, self.kernel, self.k, self.neighbours, self.share, self.redundancy)
        return f"CurvatureObjective{facts}"

    @property
    def scales(self) -> tuple[int, ...]:
        """Numbers of neighbours."""
        return SCALES if self.form == "multi" else (self.k,)

    def __call__(self, first: Tensor, second: Tensor) -> dict[str, Tensor]:
        barlow = barlow_twins_loss(first, second, redundancy=self.redundancy)
        if self.share == 0 or (self.weight is not None and max(self.scales) >= len(first)):
            return {"barlow": barlow}  # or the last batch of an epoch, in which nobody has so many neighbours
        scores = self.scores(first, second)
        curved = curvature_loss(*scores, form=self.form, redundancy=self.redundancy)
        if self.weight is None and curved.detach() > 0:
            self.weight = float((self.share * barlow.detach() / curved.detach()).item())
        return {"barlow": barlow, "curvature": (self.weight or 0.0) * curved}

    def scores(self, first: Tensor, second: Tensor) -> list[Tensor]:
        """Of both views: float [b], or [b,m] of m numbers of neighbours."""
        scales = self.scales
        if max(scales) >= len(first):
            raise InputError(too_few(max(scales), len(first)))
        near = [nearest(z, max(scales)) for z in (first, second)]
        if self.neighbours == "first":
            near[1] = near[0]
        found = []
        for z, indices in zip((first, second), near, strict=True):
            each = curvatures(z, indices, scales, kernel=self.kernel)
            found.append(each if self.form == "multi" else each[:, 0])
        return found

    def state(self) -> dict[str, Any]:
        return {"weight": self.weight}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.weight = state["weight"]


def too_few(k: int, batch: int) -> str:
    """What to do about batches in which nobody has so many neighbours."""
    return (
        f"{k} neighbours are asked for in batches of {batch} images; take fewer (form corr or outer), or larger "
        "batches where there are images for them."
    )


@method("curvssl", source="Ghojogh, Sepanj and Fieguth 2025, CurvSSL, arXiv 2511.17426")
class CurvSSL(Pretraining):
    """First weights from two views of each image, without labels; neighbourhoods are curved alike in both."""

    what = "CurvSSL"

    def __init__(
        self,
        *,
        form: Form = "corr",
        kernel: Kernel = "none",
        k: Annotated[int, Field(ge=2, le=256)] = 10,
        neighbours: Literal["own", "first"] = "own",
        share: Annotated[float, Field(ge=0, le=100)] = 0.1,
        redundancy: Annotated[float, Field(ge=0, le=10)] = 0.005,
        epochs: Epochs = 50,
        batch_size: Batch = 256,
        learning_rate: Rate = 1e-3,
        weight_decay: Annotated[float, Field(ge=0)] = 1e-4,
        width: Width = 1024,
        views: str = "auto",
    ) -> None:
        """form: how both views' scores are compared; see `curvature_loss`. kernel: of the edges; "none" is the cosine.
        k: neighbours, in the forms outer and corr. neighbours: each view's own, or the first view's for both. share: of
        the Barlow Twins loss that the curvature has at the first batch. redundancy: weight of the off-diagonal terms.
        The others: see `Pretraining`.
        """
        super().__init__(
            epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, weight_decay=weight_decay, width=width,
            views=views,
        )  # fmt: skip
        self.form, self.kernel, self.k, self.neighbours = form, kernel, k, neighbours
        self.share, self.redundancy = share, redundancy
        self.refuse_batches(batch_size)

    def refuse_batches(self, size: int) -> None:
        most = max(SCALES) if self.form == "multi" else self.k
        if most >= size:
            raise InputError(too_few(most, size))

    def objective(self) -> Objective:
        return CurvatureObjective(
            form=self.form, kernel=self.kernel, k=self.k, neighbours=self.neighbours, share=self.share,
            redundancy=self.redundancy,
        )  # fmt: skip
