"""What an attack is given, looked at before it starts, so that a mistake is one sentence and not a weak attack."""

from __future__ import annotations

import torch
from torch import Tensor

from trueread.errors import InputError
from trueread.shift.base import Draw


def check_images(images: Tensor, *, trusted: bool) -> None:
    """Images must be float [B,C,...] in [0,1]. trusted: values are not looked at, for which a GPU would have to wait.

    Raises InputError when they are not.
    """
    if not images.is_floating_point():
        raise InputError(
            f"images must be float in [0,1]; found {_kind(images)}; divide stored intensities by their white level."
        )
    if images.ndim < 3 or 0 in images.shape:
        raise InputError(f"images must be a batch [B,C,...] of at least one; found the shape {list(images.shape)}.")
    if not trusted:
        low, high = (float(v) for v in torch.aminmax(images))
        if not (low >= 0 and high <= 1):
            raise InputError(
                f"images must be in [0,1]; found {low:.3g} to {high:.3g}; normalisation belongs inside `forward`."
            )


def check_classes(what: str, classes: Tensor, images: Tensor) -> None:
    """Labels or targets must be int64 [B]. Raises InputError when they are not."""
    if classes.dtype != torch.int64 or classes.shape != images.shape[:1]:
        raise InputError(
            f"{what} must be one class per image, int64 [{len(images)}]; found {_kind(classes)} {list(classes.shape)}."
        )


def check_draw(draw: Draw | torch.Generator | None, images: Tensor) -> None:
    """A draw needs an id per image. Raises InputError when it has not."""
    if draw is None:
        raise InputError("a random start needs `draw`: a Draw of the images' ids, or a torch.Generator in training.")
    if isinstance(draw, Draw) and len(draw.ids) != len(images):
        raise InputError(f"{len(images)} images need as many ids; found {len(draw.ids)}.")


def check_count(what: str, count: int) -> None:
    """Steps, restarts and queries are at least 1. Raises InputError when not."""
    if count < 1:
        raise InputError(f"{what} must be at least 1; found {count}.")


def check_logits(logits: Tensor, classes: dict[str, Tensor], *, trusted: bool) -> None:
    """Logits must be [B,K] with K >= 2, and the classes (labels, targets) among those K; targets are not the labels.

    Raises InputError when not.
    """
    labels = classes["labels"]
    if logits.ndim != 2 or logits.shape[0] != len(labels) or logits.shape[1] < 2:
        raise InputError(
            f"forward must give logits [{len(labels)}, K] of at least two classes; found {list(logits.shape)}; give a "
            "binary task two logits."
        )
    if trusted:
        return
    for what, given in classes.items():
        low, high = (int(v) for v in torch.aminmax(given))
        if low < 0 or high >= logits.shape[1]:
            raise InputError(
                f"{what} must be in [0,{logits.shape[1]}), one of the logits; found {low if low < 0 else high}."
            )
    same = int((classes["targets"] == labels).sum()) if "targets" in classes else 0
    if same:
        raise InputError(f"a target must be another class than the label; found {same} that are the label itself.")


def needs_gradients() -> InputError:
    """For a forward that cannot be differentiated by its images."""
    return InputError(
        "this attack needs gradients, but the logits do not depend on the images as tensors; use `square_attack`, or "
        "leave out no_grad, detach and numpy in `forward`."
    )


def nan_logits() -> InputError:
    return InputError("forward gave logits that are nan, so no attack can be judged; check its weights and precision.")


def _kind(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
