"""What methods share that learn from gradients with respect to the image or to a feature map, inside the step.

Such a penalty is differentiated twice. Second derivatives lose their digits in bf16 and fp16, so the forward pass that
is differentiated is in float32; and not every kernel has them, so attention is computed by its plain formula where the
fused one has none.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from trueread.errors import InputError
from trueread.method.base import Method
from trueread.model.classifier import Classifier
from trueread.model.taps import as_map
from trueread.training.device import forward_pass
from trueread.training.evaluate import evaluating
from trueread.training.hooks import Setup, Step

INPUT, FEATURE = "input", "feature"


class Responding(Method):
    """Base of methods that ask how an answer changes with the image ("input") or with the last map ("feature").

    where: set before `prepare`. layer: the tap of the map, found in `prepare`. plain_attention: whether attention is
    computed by its plain formula.
    """

    where: str = INPUT
    layer: str = ""
    plain_attention: bool = False

    def prepare(self, setup: Setup) -> None:
        self._find_out(setup)

    def _find_out(self, setup: Setup) -> None:
        if setup.cohort.task == "multilabel":
            raise InputError(f"'{self.name}' compares one class with another; the task is multilabel.")
        if self.where == FEATURE:
            self.layer = last_map(setup.classifier)
        self.plain_attention = needs_plain_attention(setup.classifier, self.layer)

    @property
    def taps(self) -> tuple[str, ...]:  # type: ignore[override]  # known once the network is
        return (self.layer,) if self.layer else ()

    def responding(self, step: Step, *, share: float = 1.0) -> tuple[Tensor, Tensor]:
        """Logits float32 [b,K] of the first b images of the batch, and the images or map [b,...] that they can be
        differentiated by.

        share: of the batch, in (0,1]. The images go through the network once more, in evaluation mode, where a batch
        norm carries nothing from one image to another. The run's own pass does for the map where it is in float32.
        """
        output, n = step.output, max(1, round(share * len(step.images)))
        assert output is not None
        images = step.images
        if self.where == INPUT or step.precision != "fp32" or self.plain_attention:
            images = images[:n].detach().requires_grad_()
            with (
                evaluating(step.classifier),
                attention(plain=self.plain_attention),
                forward_pass(images.device, "fp32"),
            ):
                output = step.classifier(images, taps=self.taps, trusted=True)
        at = images if self.where == INPUT else output.taps[self.layer]
        return output.logits.float()[:n], at

    def load_state(self, state: dict[str, object], setup: Setup) -> None:
        self._find_out(setup)


def response(scores: Tensor, at: Tensor) -> Tensor:
    """d(sum of scores)/d(at), float [b,-1], itself differentiable: a row is the response of that image's score.

    scores: float [b,...]. at: float [B,...], of which the first b rows are taken.
    """
    [gradient] = torch.autograd.grad(scores.sum(), at, create_graph=True)
    return gradient[: len(scores)].to(torch.promote_types(gradient.dtype, torch.float32)).flatten(1)


def last_map(classifier: Classifier) -> str:
    """The last tap with a spatial extent and a gradient in it: of a transformer that classifies by its class token, the
    patches of the last block have none. Raises InputError where there is no such tap.
    """
    with evaluating(classifier), torch.enable_grad():
        images = torch.rand(2, *classifier.card.input_shape, device=classifier.mean.device).requires_grad_()
        output = classifier(images, taps=list(classifier.taps), trusted=True)
        named = [(n, t) for n, t in reversed(output.taps.items()) if t.requires_grad]
        gradients = torch.autograd.grad(output.logits.float()[:, 0].sum(), [t for _, t in named], allow_unused=True)
    for (name, tap), gradient in zip(named, gradients, strict=True):
        channels = classifier.taps[name][1]
        if gradient is None or tap.ndim < 3:
            continue
        found = as_map(gradient, channels=channels, size=images.shape[2:])
        if min(found.shape[2:]) > 1 and found.any():
            return name
    raise InputError(
        f"no layer of '{classifier.card.backbone}' keeps a map at this size; take larger images or another backbone."
    )


def needs_plain_attention(classifier: Classifier, layer: str) -> bool:
    """Whether second derivatives exist only with attention by its plain formula. Raises InputError where there are none
    at all.
    """
    reason = ""
    for plain in (False, True):
        images = torch.rand(2, *classifier.card.input_shape, device=classifier.mean.device).requires_grad_()
        try:
            with evaluating(classifier), torch.enable_grad(), attention(plain=plain):
                output = classifier(images, taps=(layer,) if layer else (), trusted=True)
                at = output.taps[layer] if layer else images
                found = response(output.logits.logsumexp(1), at).square().sum()
                torch.autograd.grad(found, [p for p in classifier.parameters() if p.requires_grad], allow_unused=True)
            return plain
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
    raise InputError(
        f"'{classifier.card.backbone}' has no second derivatives ({reason}); take another backbone for this method."
    )


def attention(*, plain: bool) -> sdpa_kernel | nullcontext[None]:  # type: ignore[valid-type]
    """The context of a forward pass whose attention is computed by its plain formula."""
    return sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()
