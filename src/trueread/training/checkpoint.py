"""Where a killed run goes on from: the last two states, each written whole, verified, and read without running code."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import torch

from trueread.errors import InputError
from trueread.files import whole
from trueread.model.weights import load_tensors
from trueread.progress import say

KEPT = 2  # the last one, and one more in case a disk loses it
_NAME = re.compile(r"epoch-(\d{5})-step-(\d{7})-([0-9a-f]{16})\.pt")


def save_checkpoint(folder: Path, state: dict[str, Any]) -> Path:
    """Write `state` (tensors, numbers, strings and containers of them; `epoch` and `step` say how far it is) and
    drop all but the last two.

    The name carries the content's hash, so that a damaged file is known for one. Raises DiskFull.
    """
    new = folder / "new.pt"
    with whole(new) as part:
        with part.open("wb") as file:  # given a path, torch hides why it could not write
            torch.save(state, file)
        name = f"epoch-{state['epoch']:05d}-step-{state['step']:07d}-{_hash(part)}.pt"
    path = new.replace(folder / name)
    for old in _saved(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(folder: Path, *, fingerprint: str) -> dict[str, Any] | None:
    """The newest state that is whole, or None when there is none; says so when a damaged one is passed over.

    fingerprint: describes data, method and options; a checkpoint of another fingerprint is refused, because going on
    from it would mix two experiments. Raises InputError then.
    """
    for path in _saved(folder):
        state = _read(path)
        if state is None:
            continue
        if state.get("fingerprint") != fingerprint:
            raise InputError(
                f"{folder.parent} holds a half-trained run of other data, method or options; give another run folder, "
                "or delete it to start again."
            )
        return state
    return None


def drop_checkpoint(folder: Path) -> None:
    """Remove the checkpoints of a run that is finished."""
    for path in [*_saved(folder), *folder.glob("new.pt*")]:  # the latter of a run killed while it wrote
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _saved(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, the newest first."""
    found = [p for p in folder.iterdir() if _NAME.fullmatch(p.name)] if folder.is_dir() else []
    return sorted(found, key=lambda p: p.name, reverse=True)


def _read(path: Path) -> dict[str, Any] | None:
    """The state in a file, or None, with a warning, when it is not what was written."""
    match = _NAME.fullmatch(path.name)
    try:
        if match is not None and match[3] == _hash(path):
            state = load_tensors(path)
            if isinstance(state, dict):
                return state
    except (InputError, OSError):  # unreadable sectors, or written by a torch that this one cannot read
        pass
    say(f"warning: the checkpoint {path} is damaged and passed over; going on from the one before it, or the start.")
    return None


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
