"""What methods share that learn from gradients with respect to the image or to a feature map, inside the step.

Such a penalty is differentiated twice. Second derivatives lose their digits in bf16 and fp16, so the forward pass that
is differentiated is in float32, and in evaluation mode, where a batch norm carries nothing from one image to another;
and not every kernel has them, so attention is computed by its plain formula where the fused one has none.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn
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
    computed by its plain formula. alone: whether what follows the map needs nothing beside it, so that the run's own
    pass does for what comes before.
    """

    where: str = INPUT
    layer: str = ""
    plain_attention: bool = False
    alone: bool = False

    def prepare(self, setup: Setup) -> None:
        self._find_out(setup)

    def _find_out(self, setup: Setup) -> None:
        if setup.cohort.task == "multilabel":
            raise InputError(
                f"'{self.name}' needs one class for each image; the task of {setup.cohort.name} is multilabel. Take a "
                "method without this need, such as erm."
            )
        if self.where == FEATURE:
            self.layer = last_map(setup.classifier)
            self.alone = is_enough(setup.classifier, self.layer)
        self.plain_attention = needs_plain_attention(setup.classifier, self.layer)

    @property
    def taps(self) -> tuple[str, ...]:  # type: ignore[override]  # known once the network is
        return (self.layer,) if self.layer else ()

    def responding(self, step: Step, *, share: float = 1.0) -> tuple[Tensor, Tensor]:
        """Logits float32 [b,K] of the first b images of the batch, and the images or map [b,...] that they can be
        differentiated by.

        share: of the batch, in (0,1]. The images go through the network once more; of the map only what follows it is
        computed again, unless that looks past the map.
        """
        n = max(1, round(share * len(step.images)))
        images = step.images[:n].detach()
        with evaluating(step.classifier), attention(plain=self.plain_attention), forward_pass(images.device, "fp32"):
            if self.alone:
                assert step.output is not None
                at = at_least_float32(step.output.taps[self.layer][:n])
                return logits_from(step.classifier, self.layer, at, images[:1]), at
            images.requires_grad_()
            output = step.classifier(images, taps=self.taps, trusted=True)
        return at_least_float32(output.logits), images if self.where == INPUT else output.taps[self.layer]

    def load_state(self, state: dict[str, object], setup: Setup) -> None:
        self._find_out(setup)


def response(scores: Tensor, at: Tensor) -> Tensor:
    """d(sum of scores)/d(at), float [b,-1], itself differentiable: a row is the response of that image's score.

    scores: float [b,...]. at: float [B,...], of which the first b rows are taken.
    """
    [gradient] = torch.autograd.grad(scores.sum(), at, create_graph=True)
    return at_least_float32(gradient[: len(scores)]).flatten(1)


def at_least_float32(values: Tensor) -> Tensor:
    """float64 as it is, anything less as float32."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def logits_from(classifier: Classifier, layer: str, tap: Tensor, image: Tensor) -> Tensor:
    """Logits float [B,K] of the layer's output float [B,...], differentiable by it.

    image: float [1,C,...], any; the network is run on it, and what the layer makes of it is replaced by `tap`.
    """

    def put(_module: nn.Module, _inputs: object, output: object) -> object:
        mine = tap.clone()  # an in-place activation that follows changes the copy
        return type(output)((mine, *output[1:])) if isinstance(output, (tuple, list)) else mine

    handle = classifier.network.get_submodule(classifier.taps[layer][0]).register_forward_hook(put)
    try:
        return at_least_float32(classifier(image, trusted=True).logits)
    finally:
        handle.remove()


@torch.no_grad()
def is_enough(classifier: Classifier, layer: str) -> bool:
    """Whether the logits depend on the layer's output alone, and not on what went past it."""
    with evaluating(classifier):
        images = torch.rand(2, *classifier.card.input_shape, device=classifier.mean.device)
        tap = torch.randn_like(at_least_float32(classifier(images, taps=(layer,), trusted=True).taps[layer]))
        try:
            found, other = (logits_from(classifier, layer, tap, x) for x in (images, torch.zeros_like(images[:1])))
        except RuntimeError:  # of what goes past there is one image, and of the map two
            return False
    return found.shape == other.shape and torch.allclose(found, other, rtol=1e-4, atol=1e-6)


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
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
    raise InputError(
        f"'{classifier.card.backbone}' has no second derivatives ({reason}); take another backbone for this method."
    )


def attention(*, plain: bool) -> sdpa_kernel | nullcontext[None]:  # type: ignore[valid-type]
    """The context of a forward pass whose attention is computed by its plain formula."""
    return sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()
