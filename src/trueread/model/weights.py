"""Weights in and out of files, without ever running a pickle."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trueread.errors import InputError
from trueread.files import whole
from trueread.progress import say


def save_weights(network: nn.Module, path: Path) -> None:
    """Write the state dict as safetensors, whole or not at all."""
    save_tensors(network.state_dict(), path)


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write named tensors as safetensors, whole or not at all."""
    with whole(path) as part:
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, str(part))


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from .safetensors, or from a torch file read with `weights_only` (tensors alone, no code).

    Raises InputError when the file is missing, truncated, or holds anything but tensors.
    """
    if not path.is_file():
        raise InputError(f"there is no weights file {path}; check the path.")
    if path.suffix == ".safetensors":
        try:
            return load_file(str(path))
        except (SafetensorError, ValueError, RuntimeError) as error:
            raise InputError(_unreadable(path, error)) from None
    content = load_tensors(path)
    for key in ("state_dict", "model"):  # common wrappings of training scripts
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(
            f"{path} must hold a state dict (names and tensors); found {type(content).__name__}; save "
            "`model.state_dict()`."
        )
    return content


def load_tensors(path: Path) -> Any:
    """What a torch file holds, read without running any code. Raises InputError when it cannot be read so."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle's protocol; what matters is said in the error
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # torch's own words are about its options
        raise InputError(
            f"{path} is not a readable weights file (it holds something else than tensors, and code in it is never "
            "run); save `model.state_dict()` alone, or copy the file again."
        ) from None
    except Exception as error:  # broken bytes fail in a dozen ways, from struct.error to AssertionError
        raise InputError(_unreadable(path, error)) from None


def _unreadable(path: Path, error: Exception) -> str:
    reason = str(error).strip().partition("\n")[0][:160] or type(error).__name__
    return f"{path} is not a readable weights file ({reason}); it may be truncated: copy or save it again."


def load_into(network: nn.Module, path: Path) -> str:
    """Load a file's weights into the backbone of `network`, and its head where it fits; says what was done.

    Names may carry the prefixes of common wrappers (`module.`, `network.`, `backbone.`). A first convolution for
    another number of channels is summed or spread, as timm does; a head of another size is left at its random start.
    So is a tensor of another shape in the backbone, such as the first of another stem, with a warning.
    Raises InputError when fewer than half of the backbone's tensors find their place: then it is another architecture.
    """
    state = read_weights(path)
    own = network.state_dict()
    fitted: dict[str, Tensor] = {}
    others: list[str] = []  # of the backbone, for which the file has another shape
    for name, value in state.items():
        for prefix in ("module.", "network.", "model."):
            name = name.removeprefix(prefix)
        target = next((n for n in (name, f"backbone.{name}") if n in own), None)
        if target is None:
            continue
        value = _adapt_channels(value, own[target])
        if value.shape == own[target].shape:
            fitted[target] = value
        elif target.startswith("backbone."):
            others.append(f"{name} {list(value.shape)}, here {list(own[target].shape)}")
    wanted = [n for n in own if n.startswith("backbone.") and not n.endswith("num_batches_tracked")]
    found = sum(n in fitted for n in wanted)
    if found < len(wanted) / 2:
        raise InputError(
            f"{path} fits {found} of the {len(wanted)} tensors of this backbone; give weights of the same architecture."
        )
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        say(
            f"warning: {path.name} holds {others[0]}{more}: this starts at random; give the stem, or the size of "
            "images, that the weights were made with."
        )
    network.load_state_dict(fitted, strict=False)
    sha = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return f"file: {path.name} (sha256 {sha}), {found} of {len(wanted)} backbone tensors"


def _adapt_channels(value: Tensor, own: Tensor) -> Tensor:
    """A convolution kernel for 3 input channels as one for 1 (summed), or the other way round (shared out)."""
    if value.ndim < 4 or value.ndim != own.ndim or value.shape[1] == own.shape[1]:
        return value
    if value.shape[1] == 3 and own.shape[1] == 1:
        return value.sum(1, keepdim=True)
    if value.shape[1] == 1 and own.shape[1] == 3:
        return value.expand(-1, 3, *value.shape[2:]) / 3
    return value
