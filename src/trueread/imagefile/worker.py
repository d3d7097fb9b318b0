"""A process that decodes image files for another one: requests come on its input, pixels go to its output.

A request is a line of JSON, [recipe, watch, jobs]. The answer is a line of JSON, a list with an entry for each job,
and then the bytes of the pixels and masks that these entries tell of, in their order. An entry is

    {"reason": text} or {"width": .., "height": .., "deep": bool, "mask": bool}

and, when `watch` is asked for, "stamps" and "contents" as `watched` gives them. The first line is `READY`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import IO, Any

import numpy as np

from trueread.imagefile.decode import Job, Outcome, Picture, Recipe, Seen, Unreadable, decoded, pillow_ready

READY = b"ready\n"


def main() -> None:
    """Answer until the input ends, which it does when the process that asks has ended, however that was."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the one that asks decides
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    try:
        with pillow_ready():
            answers.write(READY)
            answers.flush()
            for line in requests:
                recipe, watch, jobs = json.loads(line)
                for part in encoded(Recipe(**recipe), watch, [(image, mask) for image, mask in jobs]):
                    answers.write(part)
                answers.flush()
    except BrokenPipeError:
        os._exit(0)  # without an attempt to flush what is left


def request(recipe: Recipe, watch: bool, jobs: Sequence[Job]) -> bytes:
    """The line that asks for jobs. watch: with `Seen` for each."""
    return json.dumps([vars(recipe), watch, jobs]).encode() + b"\n"


def encoded(recipe: Recipe, watch: bool, jobs: Sequence[Job]) -> list[bytes]:
    """The answer to a request, in pieces."""
    entries: list[dict[str, Any]] = []
    pieces: list[bytes] = []
    for result, seen in decoded(jobs, recipe, watch=watch):
        entry: dict[str, Any]
        if isinstance(result, Unreadable):
            entry = {"reason": str(result)}
        else:
            entry = {"width": result.width, "height": result.height, "deep": result.pixels.dtype == np.uint16}
            entry["mask"] = result.mask is not None
            pieces.append(result.pixels.tobytes())
            if result.mask is not None:
                pieces.append(result.mask.tobytes())
        if seen is not None:
            entry |= {"stamps": seen.stamps.tolist(), "contents": seen.contents.tolist()}
        entries.append(entry)
    return [json.dumps(entries).encode() + b"\n", *pieces]


def read_answer(answers: IO[bytes], recipe: Recipe) -> list[Outcome]:
    """The other end of `encoded`. Raises EOFError when the process ended before the answer did."""
    line = answers.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    results: list[Outcome] = []
    for entry in json.loads(line):
        result: Picture | Unreadable
        if "reason" in entry:
            result = Unreadable(entry["reason"])
        else:
            pixels = _array(answers, recipe.shape, np.uint16 if entry["deep"] else np.uint8)
            mask = _array(answers, recipe.shape[1:], np.uint8) if entry["mask"] else None
            result = Picture(pixels, entry["width"], entry["height"], mask)
        seen = None
        if "stamps" in entry:
            seen = Seen(np.array(entry["stamps"], np.int64), np.array(entry["contents"], np.uint8))
        results.append((result, seen))
    return results


def _array(answers: IO[bytes], shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    content = answers.read(n_bytes)
    if len(content) < n_bytes:
        raise EOFError
    return np.frombuffer(content, dtype).reshape(shape)
