"""Where a killed run goes on from: one file, written whole or not at all, read without running any code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from trueread.errors import InputError
from trueread.model.weights import load_tensors

FILE = "last.pt"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings and containers of them) as the folder's only checkpoint, atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / (FILE + ".part")
    torch.save(state, part)
    part.replace(folder / FILE)


def load_checkpoint(folder: Path, *, fingerprint: str) -> dict[str, Any] | None:
    """The state that was saved, or None when there is none.

    fingerprint: describes data, method and options; a checkpoint of another fingerprint is refused, because going on
    from it would mix two experiments. Raises InputError then, and when the file cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        state = load_tensors(path)
    except InputError:
        raise InputError(f"{path} is not a readable checkpoint; delete it to train from the start.") from None
    if not isinstance(state, dict) or state.get("fingerprint") != fingerprint:
        raise InputError(
            f"{folder.parent} holds a half-trained run of other data, method or options; give another run folder, "
            "or delete it to start again."
        )
    return state


def drop_checkpoint(folder: Path) -> None:
    """Remove the checkpoint of a run that is finished."""
    (folder / FILE).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
