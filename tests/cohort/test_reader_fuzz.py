"""Readers fed with damaged files: a valid cohort or one sentence, in bounded time and memory, and nothing is run."""

from __future__ import annotations

import io
import resource
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import scene
from PIL import Image

import bad_files as bad
from trueread.cohort.cohort import Cohort
from trueread.cohort.medmnist import read_npz
from trueread.cohort.read import read_image
from trueread.cohort.source import load_cohort
from trueread.errors import InputError

T = TypeVar("T")

pytestmark = pytest.mark.slow
PLAIN = {"deadline": None, "derandomize": True, "suppress_health_check": [HealthCheck.too_slow]}  # busy machines
SECONDS, PYTHON_BYTES, PROCESS_BYTES = 10.0, 64 * 2**20, 600 * 2**20  # of one file; of all files of a test


@contextmanager
def bounded() -> Iterator[None]:
    """Fails when the body takes longer than a damaged file may, or asks for more memory in Python and numpy."""
    tracemalloc.start()
    start = time.process_time()  # not of the clock: a busy machine may take its time
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < SECONDS
    assert peak < PYTHON_BYTES, f"{peak / 2**20:.0f} MiB for one file"


def attempt(read: Callable[[], T]) -> tuple[T | None, str]:
    """What was read in bounded time and memory and "", or None and the sentence of a refusal; all else is a bug."""
    with bounded():
        try:
            return read(), ""
        except InputError as error:
            said = str(error)
    assert "\n" not in said
    assert said.endswith(".")
    return None, said


@pytest.fixture(autouse=True)
def _process_stays_small():
    """The decoders' own memory, which Python does not count."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < PROCESS_BYTES, f"the process grew by {grown / 2**20:.0f} MiB"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@st.composite
def damaged(draw, wholes: list[bytes], *, edits: int = 6, heads: tuple[int, ...] = (40, 200)) -> bytes:
    """A good file with up to so many edits: bytes changed, cut out, put in, repeated, or the end lost. Its first bytes,
    so many of them, are hit most often.
    """
    raw = bytearray(draw(st.sampled_from(wholes)))
    for _ in range(draw(st.integers(1, edits))):
        at = draw(st.integers(0, max(0, min(len(raw), draw(st.sampled_from([*heads, len(raw)]))) - 1)))
        match draw(st.sampled_from(["set", "set", "flip", "cut", "insert", "repeat", "end"])):
            case "set" if raw:
                raw[at] = draw(st.sampled_from([0, 1, 0x31, 0x7F, 0x80, 0xFF, draw(st.integers(0, 255))]))
            case "flip" if raw:
                raw[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del raw[at : at + draw(st.integers(1, 30))]
            case "insert":
                raw[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "repeat":
                raw[at:at] = raw[at : at + draw(st.integers(1, 60))]
            case "end":
                del raw[at:]
    return bytes(raw)


def pictures() -> list[bytes]:
    """The same scene in every format and mode that is read."""
    grey, colour = scene(24, 32), scene(24, 32, channels=3)
    images = [Image.fromarray(grey), Image.fromarray(colour)]
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    made = [
        bad.encoded(image, kind) for image in images for kind in ("PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP", "PPM")
    ]
    made += [bad.encoded(deep, "PNG"), bad.encoded(deep, "TIFF"), bad.encoded(images[1].convert("CMYK"), "JPEG")]
    made += [bad.encoded(images[1].convert("P"), "PNG"), bad.encoded(images[1].convert("RGBA"), "PNG")]
    made += [bad.encoded(images[0], "TIFF", compression=c) for c in ("tiff_lzw", "tiff_deflate", "packbits")]
    made += [bad.encoded(images[0], "JPEG", progressive=True), bad.encoded(images[0], "JPEG2000")]
    exif = Image.Exif()
    exif[0x0112] = 6
    made += [bad.encoded(images[1], "JPEG", exif=exif), bad.encoded(images[1], "PNG", exif=exif)]
    frames = [Image.fromarray(np.roll(grey, k, axis=0)) for k in range(3)]
    return [*made, bad.encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])]


class TestImages:
    @pytest.mark.filterwarnings("ignore")
    @given(damaged(pictures()), st.sampled_from([1, 3]), st.sampled_from(["crop", "pad", "stretch"]))
    @settings(max_examples=1500, **PLAIN)
    def test_a_damaged_picture_is_read_or_refused(self, folder, raw, channels, fit):
        path = bad.write(folder / "x.png", raw)
        pixels, said = attempt(lambda: read_image(path, size=16, channels=channels, fit=fit))
        if pixels is None:
            assert said.startswith(f"{path} cannot be read: ")
            assert said.endswith("replace the file or leave it out.")
            return
        assert pixels.shape == (channels, 16, 16)
        assert pixels.dtype in (np.uint8, np.uint16)

    def test_a_length_that_is_wrong_by_one_bit_takes_no_gigabytes(self, folder):
        raw = bytearray(bad.encoded(bad.grey()))
        raw[raw.index(b"IDAT") - 4] = 0x40  # the chunk now claims a gigabyte
        found, _ = attempt(lambda: read_image(bad.write(folder / "x.png", bytes(raw)), size=16, channels=1))
        assert found is None or (found[0] == np.asarray(bad.grey())).all()

    @given(st.lists(damaged(pictures()[:4]), min_size=1, max_size=4), st.sampled_from(["auto", 1, 3]))
    @settings(max_examples=60, **PLAIN)
    def test_damaged_pictures_among_good_ones_change_no_other(self, tmp_path_factory, raws, channels):
        root = tmp_path_factory.mktemp("among")
        for c in "ab":
            for i in range(6):
                bad.write(root / c / f"{i}.png", bad.encoded(bad.grey(level=20 * i + 5)))
        alone = load_cohort(f"folder:{root}", size=16, channels=1)
        for i, raw in enumerate(raws):
            bad.write(root / "ab"[i % 2] / f"x{i}.png", raw)
        with bounded():
            cohort = load_cohort(f"folder:{root}", size=16, channels=channels)
        assert len(cohort) + len(cohort.omitted) == 12 + len(raws)
        assert set(cohort.omitted["path"]) <= {f"{'ab'[i % 2]}/x{i}.png" for i in range(len(raws))}
        scale = cohort.white // 255
        for row, name in zip(alone.images, alone.table["id"], strict=True):
            found = cohort.images[list(cohort.table["id"]).index(name)]
            assert (found == row.astype(np.uint16) * scale).all()


def stored(**changed: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **(bad.mademnist_arrays() | changed))
    return buffer.getvalue()


def packed() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **bad.mademnist_arrays())
    return buffer.getvalue()


def claiming(shape: str, dtype: str = "|u1") -> bytes:
    """An archive whose first array says that it has another shape, with the bytes of the true one."""
    raw = stored()
    head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    start = raw.index(b"{'descr'")
    end = raw.index(b"\n", start)
    changed = raw[:start] + head.ljust(end - start)[: end - start] + raw[end:]
    return recrc(changed)


def recrc(raw: bytes) -> bytes:
    """The archive with check sums that are right again, so that what is inside is looked at."""
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as old:
            members = {}
            for info in old.infolist():
                lengths = np.frombuffer(raw[info.header_offset + 26 : info.header_offset + 30], "<u2")
                start = info.header_offset + 30 + int(lengths.sum())
                members[info.filename] = raw[start : start + info.file_size]
    except Exception:
        return raw
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as new:
        for name, content in members.items():
            new.writestr(name, content)
    return buffer.getvalue()


class TestArchives:
    @pytest.mark.filterwarnings("ignore")
    @given(
        st.one_of(
            damaged([stored(), packed()]),
            damaged([stored()]).map(recrc),
            st.sampled_from(["(10000000000,)", "(99999999, 99999)", "(12, -28, 28)", "(-1,)", "()", "(12, 28, 28.5)",
                             "'x'", "(12, 28, 28)*9", "[" * 40]).map(claiming),
            st.sampled_from(["|O", "|V1", "<f8", "<M8[s]", "<c16", "|S1", "<U9", "|b1", "<i8", "[('a','|O')]"]).map(
                lambda dtype: claiming("(12, 28, 28)", dtype)
            ),
        )
    )  # fmt: skip
    @settings(max_examples=600, **PLAIN)
    def test_a_damaged_archive_is_read_or_refused(self, folder, raw):
        path = bad.write(folder / "x.npz", raw)
        found, _ = attempt(lambda: read_npz(path, bad.FACT, side=28))
        if found is None:
            return
        images, labels, splits = found
        assert images.shape == (24, 1, 28, 28)
        assert images.dtype == np.uint8
        assert set(labels) <= {0, 1}
        assert list(splits) == ["train"] * 12 + ["val"] * 5 + ["test"] * 7

    @pytest.mark.parametrize("allowed", [False, True])
    def test_a_pickle_inside_is_never_run(self, folder, allowed):
        """And it would do harm if it were."""
        payload = np.array([bad.Payload(folder)] * 12, dtype=object)
        (folder / "x.npz").write_bytes(stored(train_images=payload))
        if allowed:
            with np.load(folder / "x.npz", allow_pickle=True) as archive:
                archive["train_images"][0].close()
            assert (folder / bad.PLANTED).exists()
            (folder / bad.PLANTED).unlink()
            return
        with pytest.raises(InputError, match=r"is no .npz file of plain arrays"):
            read_npz(folder / "x.npz", bad.FACT, side=28)
        assert not (folder / bad.PLANTED).exists()

    @pytest.mark.parametrize("mebibytes", [1, 256])
    def test_a_bomb_is_refused_before_it_is_unpacked(self, folder, mebibytes):
        (folder / "x.npz").write_bytes(bad.packed_zeros(mebibytes * 2**20))
        with bounded(), pytest.raises(InputError, match=r"would unpack to|no .npz file of plain arrays"):
            read_npz(folder / "x.npz", bad.FACT, side=28)

    def test_a_bomb_that_lies_about_its_size_is_refused(self, folder):
        """The zip directory says 9,408 bytes, the member holds 256 MB: what is unpacked is what was promised."""
        raw = bytearray(bad.packed_zeros(256 * 2**20))
        honest = (256 * 2**20).to_bytes(8, "little"), (256 * 2**20).to_bytes(4, "little")
        for size in honest:
            at = 0
            while (at := raw.find(size, at)) >= 0:
                raw[at : at + len(size)] = (9408).to_bytes(len(size), "little")
                at += 1
        (folder / "x.npz").write_bytes(bytes(raw))
        with bounded(), pytest.raises(InputError, match=r"is no .npz file of plain arrays|must be|has no array"):
            read_npz(folder / "x.npz", bad.FACT, side=28)


CELLS = ["i0.png", "i1.png", "i2.png", "i3.png", "a", "b", "", " ", "NA", "nan", "0", "1", "1.0", "2", "train", "val",
         "test", "Test ", "a|b", "|", "../x.png", "/etc/passwd", ".", "i0.png ", "ü", "\ufeff", '"', "''", "=1", "-",
         "1e999", "\\\\server\\x", "C:\\x.png", "i0.png/", "\u202e", "x" * 300, "\t", "p1", "p2"]  # fmt: skip
HEADERS = ["image", "label", "patient", "split", "mask", "id", "labels", "site", "", " image", "Image", "a", "b",
           "index", "level_0", "image.1", "\ufeffimage"]  # fmt: skip


def holds(cohort: Cohort) -> None:
    """What a cohort promises, looked at from outside."""
    n = len(cohort)
    assert n > 0
    assert cohort.images.shape == (n, cohort.channels, 16, 16)
    assert len(cohort.labels) == len(cohort.table) == n
    assert cohort.table["id"].is_unique
    assert cohort.table["split"].isin(["train", "val", "test", ""]).all()
    if cohort.task != "multilabel":
        assert (cohort.class_counts() > 0).all()
    sides = cohort.table[cohort.table["split"] != ""].groupby("patient")["split"].nunique()
    assert (sides <= 1).all()
    assert len(cohort.digest) == 16


@pytest.fixture(scope="module")
def images(folder) -> Path:
    root = folder / "table"
    for i in range(6):
        bad.write(root / f"i{i}.png", bad.encoded(bad.grey(level=30 * i + 5)))
    return root


def read_table(path: Path, options: dict[str, object]) -> None:
    cohort, _ = attempt(lambda: load_cohort(f"csv:{path}", size=16, **options))
    if cohort is not None:
        holds(cohort)


odd_options = st.fixed_dictionaries(
    {},
    optional={
        "label": st.sampled_from(HEADERS),
        "image": st.sampled_from(HEADERS),
        "patient": st.sampled_from(HEADERS),
        "split": st.sampled_from(HEADERS),
        "mask": st.sampled_from(HEADERS),
        "labels": st.lists(st.sampled_from(HEADERS), max_size=2),
        "classes": st.lists(st.sampled_from(["a", "b", "0", "1", ""]), max_size=3),
        "attributes": st.lists(st.sampled_from(HEADERS), max_size=2),
        "encoding": st.sampled_from(["utf-8", "latin-1", "utf-16", "rot13", "base64", "", "\0", "cp1252"]),
        "task": st.sampled_from(["auto", "binary", "ordinal", "multilabel"]),
        "root": st.sampled_from([".", "/", "", "nowhere", "\0"]),
    },
)
options = st.one_of(st.just({}), st.just({}), st.sampled_from([{"task": "multilabel"}, {"patient": ""}]), odd_options)
COLUMNS = {
    "image": "i{}.png".format,
    "label": lambda i: "ab"[i % 2],
    "patient": lambda i: f"p{i // 2}",
    "split": lambda i: ("train", "train", "val", "val", "test", "test")[i],
    "mask": lambda i: "" if i % 3 else f"i{i}.png",
    "site": lambda i: "AB"[i % 2],
    "age": lambda i: 30 + i,
}


@st.composite
def tables(draw) -> list[list[str]]:
    """A good table of up to six images, of which at most three cells or column names are something else."""
    chosen = draw(st.lists(st.sampled_from(list(COLUMNS)[2:]), unique=True))
    names = ["image", "label", *chosen]
    lines = [names, *([str(COLUMNS[name](i)) for name in names] for i in range(draw(st.integers(2, 6))))]
    for _ in range(draw(st.integers(0, 3))):
        line = draw(st.integers(0, len(lines) - 1))
        lines[line][draw(st.integers(0, len(names) - 1))] = draw(st.sampled_from(CELLS if line else HEADERS))
    return draw(st.one_of(st.just(lines), st.lists(st.lists(st.sampled_from(CELLS), max_size=3), max_size=3)))


WHOLE_TABLES = [
    "\n".join(",".join(str(column(i)) for column in COLUMNS.values()) for i in range(6)).encode(),
    "image;label\r\ni0.png;ä\r\ni1.png;b\r\n".encode("utf-16"),
    '\ufeffimage,label\ni0.png,a\n\ni1.png,"b"\n'.encode(),
]
WHOLE_TABLES[0] = ",".join(COLUMNS).encode() + b"\n" + WHOLE_TABLES[0]


class TestTables:
    @given(tables(), st.sampled_from([",", ";", "\t"]), options)
    @settings(max_examples=400, **PLAIN)
    def test_any_cells_under_any_header(self, images, lines, delimiter, options):
        text = "\n".join(delimiter.join(line) for line in lines)
        read_table(bad.write(images / "x.csv", text.encode("utf-8", "surrogatepass")), options)

    @given(damaged(WHOLE_TABLES, edits=2, heads=()), options)
    @settings(max_examples=300, **PLAIN)
    def test_a_damaged_table(self, images, raw, options):
        read_table(bad.write(images / "x.csv", raw), options)
