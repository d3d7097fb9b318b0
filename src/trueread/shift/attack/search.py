"""What every attack shares: asking the network, keeping each image's best, and letting fooled images leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from trueread.errors import unknown
from trueread.shift.attack.balls import per_image
from trueread.shift.attack.checks import check_classes, check_images, check_logits, nan_logits, needs_gradients
from trueread.shift.attack.objectives import OBJECTIVES, Formula
from trueread.shift.base import Draw

Forward = Callable[[Tensor], Tensor]
Source = TypeVar("Source", bound=Draw | torch.Generator)


@dataclass(frozen=True)
class Attacked:
    """What an attack found.

    images: float [B,C,...], of each the best one. fooled: bool [B]. forward_passes: int64 [B], what it took.
    objective: float [B], of the image that is returned.
    """

    images: Tensor
    fooled: Tensor
    forward_passes: Tensor
    objective: Tensor


class Search:
    """An attack under way.

    forward: float [B,C,...] in [0,1] -> logits [B,K], in evaluation mode, its own normalisation and autocast inside.
    images, labels: float [B,C,...] in [0,1] and int64 [B]. targets: int64 [B], the only classes that count as fooled;
    None for any but the label. aims: the classes that the objective leads to; the targets at first.
    images and logits of half precision are worked with in float32.
    rows: positions of the images that are still under way, `center` these images as given.
    trusted: neither images nor labels nor logits are looked at, so that nothing waits for the device.
    Raises InputError as told in `checks`.
    """

    def __init__(
        self, forward: Forward, images: Tensor, labels: Tensor, *, objective: str | Formula,
        targets: Tensor | None = None,
        trusted: bool = False,
    ) -> None:  # fmt: skip
        if isinstance(objective, str) and objective not in OBJECTIVES:
            raise unknown("objective", objective, OBJECTIVES)
        check_images(images, trusted=trusted)
        check_classes("labels", labels, images)
        if targets is not None:
            check_classes("targets", targets, images)
        self.forward, self.trusted = forward, trusted
        self.objective = OBJECTIVES[objective] if isinstance(objective, str) else objective
        self.labels, self.targets, self.aims = labels, targets, targets
        self.center = _single(images.detach())
        self.rows: Tensor | slice = slice(None)
        self.found = self.center.clone()
        self.value = self.center.new_full(labels.shape, -torch.inf)
        self.fooled = torch.zeros_like(labels, dtype=torch.bool)
        self.passes = torch.zeros_like(labels)
        self.broken = torch.zeros((), dtype=torch.bool, device=images.device)
        self.checked = False

    def __len__(self) -> int:
        """How many images are still under way."""
        return len(self.center)

    def look(self, images: Tensor) -> Tensor:
        """The logits [b,K] of perturbed images of those under way; each image's best is kept."""
        with torch.no_grad():
            logits = self._logits(images)
            self._keep(images, logits, self._score(logits))
        return logits

    def gradient(self, images: Tensor, *, judge: bool = True) -> tuple[Tensor, Tensor]:
        """The same, giving the objective [b] and its gradient with respect to the images, and to nothing else.

        judge: False does not ask whether these images are the best, which costs a small network's time on a GPU.
        """
        with torch.enable_grad():
            leaf = images.detach().requires_grad_()
            try:
                logits = self._logits(leaf)
            except RuntimeError as error:
                if "requires grad" in str(error):  # what numpy says of such a tensor
                    raise needs_gradients() from None
                raise
            value = self._score(logits)
            if not value.requires_grad:
                raise needs_gradients()
            (gradient,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
        if gradient is None:
            raise needs_gradients()
        value = value.detach()
        if judge:
            self._keep(images, logits.detach(), value)
        return value, gradient

    def drop_fooled(self) -> Tensor | None:
        """Lets the fooled images leave. Returns the positions, among those under way, of the ones that stay; None when
        all do. Waits for the device once.
        """
        flags = torch.cat([~self.fooled[self.rows], self.broken.view(1)]).cpu()
        if flags[-1]:
            raise nan_logits()
        stay = flags[:-1].nonzero().squeeze(1)
        if len(stay) == len(self):
            return None
        stay = stay.to(self.labels.device)
        self.rows = stay if isinstance(self.rows, slice) else self.rows[stay]
        self.center = self.center[stay]
        return stay

    def draw(self, draw: Source) -> Source:
        """The draw of the images under way."""
        if isinstance(draw, Draw) and isinstance(self.rows, Tensor):
            return replace(draw, ids=[draw.ids[row] for row in self.rows.tolist()])
        return draw

    def result(self) -> Attacked:
        if not self.trusted and self.broken:
            raise nan_logits()
        return Attacked(self.found, self.fooled, self.passes, self.value)

    def _logits(self, images: Tensor) -> Tensor:
        logits = _single(self.forward(images))
        self.passes[self.rows] += 1
        if not self.checked:  # the classes are known from the first logits on
            self.checked = True
            classes = {"labels": self.labels} | ({} if self.targets is None else {"targets": self.targets})
            check_logits(logits, classes, trusted=self.trusted)
        return logits

    def _score(self, logits: Tensor) -> Tensor:
        return self.objective(logits, self.labels[self.rows], None if self.aims is None else self.aims[self.rows])

    def _keep(self, images: Tensor, logits: Tensor, value: Tensor) -> None:
        """Replaces each image's best where this one is fooled and that one was not, or else where the objective is
        higher.
        """
        rows, said = self.rows, logits.argmax(1)
        fooled = said != self.labels[rows] if self.targets is None else said == self.targets[rows]
        nan = logits.isnan().any(1)
        fooled &= ~nan  # what is no number fools nobody
        self.broken |= nan.any()
        better = torch.where(fooled == self.fooled[rows], value > self.value[rows], fooled)
        self.found[rows] = torch.where(per_image(better, images), images, self.found[rows])
        self.value[rows] = torch.where(better, value, self.value[rows])
        self.fooled[rows] |= fooled


def _single(x: Tensor) -> Tensor:
    """At least float32: in half precision a step would be lost in rounding."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
