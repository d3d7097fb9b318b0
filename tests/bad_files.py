"""Broken, hostile and odd files, each made on the spot, for the tests of what trueread says of them."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from trueread.cohort import medmnist

PLANTED = "planted"  # the file that a payload makes when it is run
COUNTS = {"train": 12, "val": 5, "test": 7}  # images of "mademnist"


@dataclass
class Place:
    """Where a case happens. at: an empty folder, the working directory. hospital: good images in two classes.
    run: a finished run on them. patch: undone after the case. made: what the case made before the command ran.
    """

    at: Path
    hospital: Path
    run: Path
    patch: pytest.MonkeyPatch
    made: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> Path:
        return self.run / "methods" / "erm" / "seed-0" / "model"


Maker = Callable[[Place], Any]


class Payload:
    """Unpickled, it makes the file `PLANTED`."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / PLANTED)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def grey(side: int = 16, *, level: int = 90) -> Image.Image:
    """A plain square with one bright corner, so that it is not constant."""
    pixels = np.full((side, side), level, np.uint8)
    pixels[:3, :3] = 250
    return Image.fromarray(pixels)


def encoded(image: Image.Image, ending: str = "PNG", **options: Any) -> bytes:
    """The bytes of the image as a file of that format."""
    buffer = io.BytesIO()
    image.save(buffer, ending, **options)
    return buffer.getvalue()


def write(path: Path, content: bytes | str) -> Path:
    """A file, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def classes(files: Mapping[str, bytes]) -> Maker:
    """A data folder of these files beside ten good images in each of the classes "a" and "b"."""

    def made(place: Place) -> str:
        for name in ("a", "b"):
            for i in range(10):
                write(place.at / "data" / name / f"p{i}.png", encoded(grey(level=40 + 9 * i)))
        for name, content in files.items():
            write(place.at / "data" / name, content)
        return "folder:data"

    return made


def folder(files: Mapping[str, bytes]) -> Maker:
    """A data folder of these files alone; a name that ends with a slash is an empty folder."""

    def made(place: Place) -> str:
        (place.at / "data").mkdir()
        for name, content in files.items():
            if name.endswith("/"):
                (place.at / "data" / name).mkdir(parents=True)
            else:
                write(place.at / "data" / name, content)
        return "folder:data"

    return made


def linked(name: str, target: str) -> Maker:
    """Two good classes, and a symbolic link at `name` to `target` (as written in the link)."""

    def made(place: Place) -> str:
        source = classes({})(place)
        (place.at / "data" / name).symlink_to(target)
        return str(source)

    return made


def table(text: str | bytes, images: Mapping[str, bytes] | None = None, *, n: int = 0) -> Maker:
    """labels.csv beside `images`, or beside n good ones: i0.png, i1.png, ..."""

    def made(place: Place) -> str:
        for i in range(n):
            write(place.at / f"i{i}.png", encoded(grey(level=30 + 5 * (i % 40))))
        for name, content in (images or {}).items():
            write(place.at / name, content)
        write(place.at / "labels.csv", text)
        return "csv:labels.csv"

    return made


def rows(n: int, **columns: Callable[[int], Any]) -> str:
    """CSV text of n rows, i0.png, i1.png, ..., with classes a and b in turn unless `label` is given."""
    made = {"image": lambda i: f"i{i}.png", "label": lambda i: "ab"[i % 2], **columns}
    lines = [",".join(made), *(",".join(str(cell(i)) for cell in made.values()) for i in range(n))]
    return "\n".join(lines) + "\n"


def study(content: Any, *, name: str = "study.yaml") -> Maker:
    """A study file of this text, or of these keys beside `data: phantom`."""

    def made(place: Place) -> str:
        text = content if isinstance(content, (str, bytes)) else yaml.safe_dump({"data": "phantom", **content})
        write(place.at / name, text)
        return name

    return made


def bomb_png(side: int) -> bytes:
    """A PNG of a few bytes whose header promises side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def mademnist_arrays() -> dict[str, np.ndarray]:
    """The arrays of a small data set in the form of MedMNIST: 28 x 28, grey, two classes."""
    generator = np.random.default_rng(0)
    arrays = {}
    for split, n in COUNTS.items():
        arrays[f"{split}_images"] = generator.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(n) % 2).astype(np.uint8)[:, None]
    return arrays


FACT = {
    "task": "binary", "classes": ["healthy", "ill"], "modality": "ct", "channels": 1, "volume": False,
    "splits": COUNTS, "licence": "CC BY 4.0",
}  # fmt: skip


def mademnist(change: Callable[[dict[str, Any], Path], None], *, official: bool = True) -> Maker:
    """A data set "mademnist" whose arrays were changed before they were saved. official: its md5 is as expected."""

    def made(place: Place) -> str:
        arrays: dict[str, Any] = mademnist_arrays()
        change(arrays, place.at)
        np.savez_compressed(place.at / "mademnist.npz", **arrays)
        return install_mademnist(place, official=official)

    return made


def mademnist_bytes(change: Callable[[bytes], bytes]) -> Maker:
    """A data set "mademnist" whose file was changed after it was saved."""

    def made(place: Place) -> str:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **mademnist_arrays())
        write(place.at / "mademnist.npz", change(buffer.getvalue()))
        return install_mademnist(place)

    return made


def install_mademnist(place: Place, *, official: bool = True) -> str:
    """Make trueread know the file mademnist.npz in the working directory; returns the source."""
    place.patch.setenv("TRUEREAD_DATA", str(place.at))
    md5 = hashlib.md5((place.at / "mademnist.npz").read_bytes()).hexdigest() if official else "0" * 32
    known = {"url": "http://127.0.0.1:9/{file}", "sets": {"mademnist": {**FACT, "md5": {28: md5}}}}
    place.patch.setattr(medmnist, "facts", lambda: known)
    return "medmnist:mademnist"


def packed_zeros(n_bytes: int) -> bytes:
    """A zip archive of a few kB with the members of "mademnist", one of which unpacks to n_bytes of zeros."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in mademnist_arrays():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                for _ in range(n_bytes // 2**20 if name == "train_images" else 0):
                    member.write(b"\0" * 2**20)
    return buffer.getvalue()


def model(change: Callable[[Path, Place], None]) -> Maker:
    """A copy of the finished run's model in the folder "model", changed by hand."""

    def made(place: Place) -> Path:
        copy = place.at / "model"
        shutil.copytree(place.model, copy)
        change(copy, place)
        return Path("model")

    return made


def card(**changed: Any) -> Maker:
    """A model whose card was edited; a value of None removes the key."""

    def edit(copy: Path, _place: Place) -> None:
        content = json.loads((copy / "card.json").read_text()) | changed
        (copy / "card.json").write_text(json.dumps({k: v for k, v in content.items() if v is not None}))

    return model(edit)


def pickled_weights(path: Path, place: Place) -> Path:
    """A torch file that runs code when it is unpickled."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": {"x": torch.zeros(2)}, "payload": Payload(place.at)}, path)
    return path


def bare_pickle(path: Path, place: Place) -> Path:
    """A plain pickle that runs code, under whatever name."""
    return write(path, pickle.dumps(Payload(place.at)))


def other_weights(path: Path) -> Path:
    """A valid safetensors file of another network."""
    save_file({"layer.weight": torch.zeros(4, 4)}, str(path))
    return path
