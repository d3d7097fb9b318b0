"""Decoded images on disk: bit for bit those in memory, decoded once, whatever happens to files, processes and disks."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from pictures import save, scene
from test_read import broken_files

from trueread.cohort import cache as caching
from trueread.cohort import cohort as cohorts
from trueread.cohort import load_cohort, store, writer
from trueread.cohort.cache import Cache, cache_for, default_folder
from trueread.cohort.index import RECORD, block, read_index
from trueread.cohort.read import read_images
from trueread.errors import InputError, TruereadError
from trueread.files import DiskFull
from trueread.imagefile import decode, filestate

GREY, DEEP, COLOUR = "grey", "deep", "colour"


def picture(kind: str, seed: int) -> np.ndarray:
    if kind == DEEP:
        return scene(20, 24, seed=seed).astype(np.uint16) * 200 + seed
    return scene(20, 24, channels=3 if kind == COLOUR else 1, seed=seed)


def make(folder, kinds):
    """A file per kind, in two class folders; "broken" is no image."""
    for i, kind in enumerate(kinds):
        path = folder / ("A" if i % 3 else "B") / f"{i}.png"
        if kind == "broken":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"no image")
        else:
            save(path, picture(kind, i))
    return sorted(folder.rglob("*.png"), key=lambda p: int(p.stem))


@pytest.fixture
def place(tmp_path):
    return Cache(tmp_path / "cache" / "clinic", "clinic")


@pytest.fixture
def old_files(monkeypatch):
    """Files count as long written, although the test has just made them."""
    monkeypatch.setattr(filestate, "YOUNG_NS", -1)


@pytest.fixture
def work(monkeypatch):
    """Which files were decoded and hashed, by name."""
    seen = {"decoded": Counter(), "hashed": Counter()}
    decode_image, content = decode.decode_image, filestate.content

    def counted_decode(path, **options):
        seen["decoded"][path.name] += 1
        return decode_image(path, **options)

    def counted_content(path):
        seen["hashed"][os.path.basename(path)] += 1  # noqa: PTH119
        return content(path)

    monkeypatch.setattr(decode, "decode_image", counted_decode)
    monkeypatch.setattr(filestate, "content", counted_content)
    monkeypatch.setattr(decode, "content", counted_content)
    return seen


def assert_equal(found, expected):
    assert (found.images.dtype, found.white) == (expected.images.dtype, expected.white)
    np.testing.assert_array_equal(found.images, expected.images)
    for name in ("kept", "whites", "brightest"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.files.equals(expected.files)
    assert found.omitted.equals(expected.omitted)
    if expected.masks is None:
        assert found.masks is None
    else:
        np.testing.assert_array_equal(found.masks, expected.masks)
        assert found.masks.dtype == np.uint8


MIXES = {
    "grey": [GREY] * 9,
    "colour among grey": [GREY] * 5 + [COLOUR] + [GREY] * 3,
    "16 bits": [DEEP] * 6,
    "16 bits last": [GREY] * 8 + [DEEP],
    "16 bits first": [DEEP] + [GREY] * 8,
    "16 bits amid broken ones": [GREY, "broken", GREY, GREY, "broken", DEEP, GREY, "broken", DEEP, GREY],
}


class TestEqualToMemory:
    @pytest.mark.parametrize("mix", MIXES)
    @pytest.mark.parametrize("fit", ["crop", "pad"])
    def test_read_images(self, tmp_path, place, monkeypatch, mix, fit):
        monkeypatch.setattr(writer, "PIECE_BYTES", 3000)  # so that several blocks are written
        files = make(tmp_path / "clinic", MIXES[mix])
        expected = read_images(files, size=16, fit=fit)
        for _ in range(3):
            found = read_images(files, size=16, fit=fit, cache=place)
            assert_equal(found, expected)
            assert isinstance(found.images, np.memmap)
            assert found.known[0].brightest == expected.images.max()
        index = read_index(next(place.folder.glob("*.index")))
        np.testing.assert_array_equal(index.records["white"] > 0, [kind != "broken" for kind in MIXES[mix]])

    @pytest.mark.parametrize("fit", ["crop", "stretch"])
    def test_masks(self, tmp_path, place, fit):
        files = make(tmp_path / "clinic", [GREY, DEEP, "broken", GREY, GREY, GREY, GREY, COLOUR])
        marked = np.zeros((20, 24), np.uint8)
        marked[3:9, 5:17] = 255
        mask, wide = save(tmp_path / "mask.png", marked), save(tmp_path / "wide.png", scene(20, 60))
        masks = [mask, None, mask, mask, wide, tmp_path / "gone.png", None, mask]
        expected = read_images(files, masks=masks, size=16, fit=fit)
        assert list(expected.kept) == [0, 1, 3, 6, 7]
        assert expected.masks.any(axis=(1, 2)).tolist() == [True, False, True, False, True]
        for _ in range(3):
            assert_equal(read_images(files, masks=masks, size=16, fit=fit, cache=place), expected)
        other = [None, *masks[1:]]
        assert_equal(
            read_images(files, masks=other, size=16, fit=fit, cache=place),
            read_images(files, masks=other, size=16, fit=fit),
        )

    def test_cohorts_have_one_digest(self, tmp_path, monkeypatch):
        root = tmp_path / "clinic"
        files = make(root, MIXES["16 bits amid broken ones"])
        (tmp_path / "clinic.csv").write_text(
            "image,label,mask\n" + "".join(f"{f.relative_to(root)},{f.parent.name},\n" for f in files)
        )
        sources = {f"folder:{root}": {}, f"csv:{tmp_path / 'clinic.csv'}": {"root": str(root)}}
        for source, options in sources.items():
            memory = load_cohort(source, size=16, cache=False, **options)
            for _ in range(2):
                disk = load_cohort(source, size=16, cache=str(tmp_path / "cache"), **options)
                assert disk.digest == memory.digest
                assert disk.origin == memory.origin
                assert (disk.white, list(disk.omitted["path"])) == (65535, list(memory.omitted["path"]))
            changed = replace(disk, images=65535 - disk.images)
            assert changed.digest == replace(memory, images=65535 - memory.images).digest != disk.digest
            part = disk.subset(np.array([2, 0]))
            assert part.digest == memory.subset(np.array([2, 0])).digest != disk.digest
            assert disk.with_split(["train"] * len(disk)).digest == disk.digest

        def unread(array):
            assert array.ndim == 1, "only the labels are read to tell the digest"
            return content_digest(array)

        content_digest = cohorts.content_digest
        again = load_cohort(source, size=16, cache=str(tmp_path / "cache"), **options)
        monkeypatch.setattr(cohorts, "content_digest", unread)
        assert again.digest == disk.digest
        assert again.with_split(["test"] * len(again)).digest == disk.digest

    def test_the_declared_white_is_checked_without_reading(self, tmp_path, monkeypatch):
        root, options = tmp_path / "clinic", {"size": 16, "cache": str(tmp_path / "cache")}
        make(root, [DEEP, GREY, DEEP])
        top = int(load_cohort(f"folder:{root}", size=16).images.max())
        assert load_cohort(f"folder:{root}", white=top, **options).white == top
        monkeypatch.setattr(cohorts, "brightest_of", lambda _: pytest.fail("the pixels were read"))
        assert load_cohort(f"folder:{root}", white=top, **options).white == top
        with pytest.raises(InputError, match=f"white is declared as {top - 1}, but an image reaches {top}"):
            load_cohort(f"folder:{root}", white=top - 1, **options)

    def test_it_cannot_be_written_to(self, tmp_path, place):
        found = read_images(make(tmp_path, [GREY] * 3), size=16, cache=place)
        with pytest.raises(ValueError, match="read-only"):
            found.images[0] = 0

    def test_bombs_pipes_and_whatever_else_cannot_be_read(self, tmp_path, place, old_files):
        files = make(tmp_path / "clinic", [GREY] * 14)
        (tmp_path / "broken").mkdir()
        reasons = broken_files(tmp_path / "broken")
        files += [tmp_path / "broken" / name for name in reasons]
        expected = read_images(files, size=16)
        assert len(expected.omitted) == len(reasons) > 10
        for _ in range(3):
            assert_equal(read_images(files, size=16, cache=place), expected)

    def test_too_many_broken_ones_are_refused_every_time(self, tmp_path, place):
        files = make(tmp_path / "clinic", ["broken", GREY, "broken"])
        for _ in range(2):
            with pytest.raises(InputError, match="2 of 3 files cannot be read"):
                read_images(files, size=16, cache=place)
        with pytest.raises(InputError, match="2 of 2 files cannot be read"):
            read_images(files[::2], size=16, tolerated=1, cache=place)


@pytest.mark.usefixtures("old_files")
class TestSecondStart:
    @pytest.fixture
    def files(self, tmp_path, place, work):
        files = make(tmp_path / "clinic", [GREY, GREY, "broken", DEEP, GREY, GREY])
        read_images(files, size=16, cache=place)
        work["decoded"].clear(), work["hashed"].clear()
        return files

    def read(self, files, place, work):
        """(decoded, hashed) by the next start, which gives what decoding all anew gives. "auto" may decode more."""
        found = read_images(files, size=16, cache=place)
        counts = {kind: dict(counter) for kind, counter in work.items()}
        assert_equal(found, read_images(files, size=16))
        work["decoded"].clear(), work["hashed"].clear()
        return counts["decoded"], counts["hashed"]

    def test_it_opens_no_file(self, files, place, work):
        assert self.read(files, place, work) == ({}, {})

    def test_a_touched_file_is_hashed_once_and_not_decoded(self, files, place, work):
        os.utime(files[3], ns=(1, 1))
        files[2].touch()
        assert self.read(files, place, work) == ({}, {"3.png": 1, "2.png": 1})
        assert self.read(files, place, work) == ({}, {})

    def test_a_file_copied_over_itself_is_the_same(self, files, place, work):
        shutil.copy(files[0], files[0].with_suffix(".bak"))
        files[0].with_suffix(".bak").replace(files[0])
        assert self.read(files, place, work) == ({}, {"0.png": 1})

    def test_a_changed_file_alone_is_decoded(self, tmp_path, place, work):
        files = make(tmp_path / "clinic", [GREY, GREY, "broken", DEEP, GREY, GREY])
        first = read_images(files, size=16, channels=1, cache=place)
        pixels = first.images.copy()
        work["decoded"].clear()
        save(files[4], picture(GREY, 44))
        second = read_images(files, size=16, channels=1, cache=place)
        assert work["decoded"] == {"4.png": 1}
        assert (second.images[3] != first.images[3]).any()
        np.testing.assert_array_equal(first.images, pixels)  # who reads the old one keeps it
        assert_equal(second, read_images(files, size=16, channels=1))
        assert len(list(place.folder.glob("*.list"))) == 1

    def test_same_size_and_date_but_other_bytes(self, tmp_path, place, work):
        """What rsync and unpacked archives do: the date is that of the original."""
        grey = [np.full((16, 16), level, np.uint8) for level in (7, 8)]
        files = [save(tmp_path / f"{i}.bmp", grey[0]) for i in range(4)]
        read_images(files, size=16, channels=1, cache=place)
        before = files[1].stat()
        save(files[1], grey[1])
        os.utime(files[1], ns=(before.st_atime_ns, before.st_mtime_ns))
        after = files[1].stat()
        assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        work["decoded"].clear()
        found = read_images(files, size=16, channels=1, cache=place)
        assert work["decoded"] == {"1.bmp": 1}
        assert found.images[:, 0, 0, 0].tolist() == [7, 8, 7, 7]

    def test_a_file_that_becomes_16_bit_or_stops_to_be(self, files, place, work):
        save(files[0], picture(DEEP, 9))
        self.read(files, place, work)
        save(files[0], picture(GREY, 0))
        save(files[3], picture(GREY, 3))
        decoded, _ = self.read(files, place, work)
        assert {"0.png", "3.png"} <= set(decoded)
        assert read_images(files, size=16, cache=place).white == 255
        assert self.read(files, place, work) == ({}, {})

    def test_colour_that_comes_makes_all_anew(self, files, place, work):
        save(files[5], picture(COLOUR, 5))
        self.read(files, place, work)
        assert read_images(files, size=16, cache=place).images.shape[1] == 3

    def test_files_that_come_go_and_are_mended(self, tmp_path, files, place, work):
        options = {"size": 16, "channels": 1, "cache": place}
        read_images(files, **options)
        work["decoded"].clear()
        new = save(tmp_path / "clinic" / "A" / "0b.png", picture(GREY, 70))
        save(files[2], picture(GREY, 2))
        listed = [files[0], new, *files[2:]]
        found = read_images(listed, **options)
        assert work["decoded"] == {"0b.png": 1, "2.png": 1}
        assert_equal(found, read_images(listed, size=16, channels=1))
        work["decoded"].clear()
        assert_equal(read_images(listed[::-1], **options), read_images(listed[::-1], size=16, channels=1))
        assert set(work["decoded"].values()) == {1}  # those are of the reading without the cache

    def test_a_missing_file_is_looked_for_again(self, tmp_path, files, place, work):
        files = [*files, tmp_path / "late.png"]
        found = read_images(files, size=16, cache=place)
        assert found.omitted["reason"].tolist()[-1] == "no such file"
        work["decoded"].clear()
        decoded, _ = self.read(files, place, work)
        assert decoded == {"late.png": 1}
        save(files[-1], picture(GREY, 80))
        assert len(read_images(files, size=16, cache=place).kept) == 6
        files[-1].unlink()
        assert len(read_images(files, size=16, cache=place).kept) == 5

    def test_another_decoder_decodes_again(self, files, place, work, monkeypatch):
        monkeypatch.setattr(store, "decoder_version", lambda: "another")
        decoded, _ = self.read(files, place, work)
        assert set(decoded) == {f.name for f in files}
        assert len(list(place.folder.glob("*.list"))) == 1

    def test_options_do_not_displace_each_other(self, tmp_path, work):
        root, options = tmp_path / "more", {"cache": str(tmp_path / "cache"), "channels": 1}
        make(root, [GREY] * 6)
        different = [{"size": 16}, {"size": 24}, {"size": 16, "fit": "pad"}]
        expected = [load_cohort(f"folder:{root}", **options, **each).digest for each in different]
        work["decoded"].clear()
        assert [load_cohort(f"folder:{root}", **options, **each).digest for each in different] == expected
        assert not work["decoded"]

    @pytest.mark.parametrize("suffix", ["current", ".list", ".index", ".u16"])
    @pytest.mark.parametrize("damage", ["gone", "empty", "cut", "other"])
    def test_a_damaged_cache_is_made_anew(self, files, place, work, suffix, damage):
        path = next(p for p in place.folder.iterdir() if p.name.endswith(suffix))
        content = path.read_bytes()
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "other": b"[1]\n" * 9}[damage])
        self.read(files, place, work)
        assert self.read(files, place, work) == ({}, {})


class TestYoungFiles:
    def test_a_file_written_twice_within_its_clock_is_noticed(self, tmp_path, place, monkeypatch, work):
        """On disks that count time in steps of seconds, the second writing shows in the content only."""
        exact = filestate.stamp

        def coarse(path):
            size, modified, changed = exact(path)
            return size, modified // 10**10 * 10**10, changed // 10**10 * 10**10

        for module in (filestate, decode):
            monkeypatch.setattr(module, "stamp", coarse)
        monkeypatch.setattr(filestate, "YOUNG_NS", 20 * 10**9)
        file = save(tmp_path / "a.bmp", np.full((16, 16), 7, np.uint8))
        read_images([file], size=16, channels=1, cache=place)
        save(file, np.full((16, 16), 8, np.uint8))
        assert read_images([file], size=16, channels=1, cache=place).images.max() == 8

    def test_a_file_that_changes_while_it_is_read_is_read_again(self, tmp_path, place, monkeypatch):
        file = save(tmp_path / "a.bmp", np.full((16, 16), 7, np.uint8))
        decode_image = decode.decode_image

        def decode_and_change(path, **options):
            result = decode_image(path, **options)
            save(file, np.full((16, 16), 8, np.uint8))
            return result

        with monkeypatch.context() as patch:
            patch.setattr(decode, "decode_image", decode_and_change)
            assert read_images([file], size=16, channels=1, cache=place).images.max() == 7
        assert read_images([file], size=16, channels=1, cache=place).images.max() == 8


CHILD = """
import sys
from trueread.cohort import cache, decoding, writer
from trueread.cohort.read import read_images
from trueread.imagefile import decode
writer.SECONDS = 0.02
decoding.MANY = 10**9  # in this process, where it can be counted
decoded = []
plain = decode.decode_image
decode.decode_image = lambda path, **options: decoded.append(path) or plain(path, **options)
files = open(sys.argv[2]).read().split()
print("ready", flush=True)
sys.stdin.readline()
found = read_images(files, size=48, channels=1, cache=cache.Cache(cache.Path(sys.argv[1]), "clinic"))
print(len(decoded), found.known[0].digest, flush=True)
"""


class TestProcesses:
    N = 1500

    @pytest.fixture
    def start(self, tmp_path, place):
        """Starts processes that read the same files into the same cache when told so."""
        files = [save(tmp_path / "clinic" / f"{i}.jpg", scene(150, 200, seed=i)) for i in range(30)]
        deep = save(tmp_path / "clinic" / "deep.png", picture(DEEP, 3))
        self.files = [deep if i == self.N // 2 else files[i % 30] for i in range(self.N)]
        for i, file in enumerate(self.files):  # each its own file: jobs are told apart by their paths
            self.files[i] = file.with_name(f"{i}-{file.name}")
            os.link(file, self.files[i])
        (tmp_path / "files").write_text("\n".join(map(str, self.files)))
        running = []

        def begin():
            command = [sys.executable, "-c", CHILD, str(place.folder), str(tmp_path / "files")]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            running.append(subprocess.Popen(command, **pipes))
            assert running[-1].stdout.readline() == "ready\n"
            return running[-1]

        yield begin
        for process in running:
            process.kill()
            process.communicate()

    def go(self, process):
        process.stdin.write("\n")
        process.stdin.flush()

    def index_grows(self, place, beyond):
        """The size of the index once it is larger than `beyond`."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            size = max((p.stat().st_size for p in place.folder.glob("*.index")), default=0)
            if size > beyond:
                return size
            time.sleep(0.002)
        raise AssertionError("nothing was written")

    @pytest.mark.slow
    def test_killed_decoding_goes_on_where_it_stopped(self, start, place):
        size = 0
        for _ in range(3):
            process = start()
            self.go(process)
            size = self.index_grows(place, size)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        done = len(read_index(next(place.folder.glob("*.index"))).records)
        assert 0 < done < self.N
        process = start()
        self.go(process)
        out, err = process.communicate(timeout=120)
        decoded, digest = out.split()
        assert int(decoded) == self.N - done
        assert f"decoding continues after {done:,} of {self.N:,} images" in err
        expected = read_images(self.files, size=48, channels=1)
        assert expected.white == 65535
        assert digest == cohorts.content_digest(expected.images)
        assert_equal(read_images(self.files, size=48, channels=1, cache=place), expected)

    @pytest.mark.slow
    def test_two_at_once_share_the_work(self, start, place):
        first, second = start(), start()
        self.go(first)
        self.go(second)
        results = [process.communicate(timeout=120) for process in (first, second)]
        decoded, digests = zip(*(out.split() for out, _ in results), strict=True)
        assert sorted(map(int, decoded)) == [0, self.N]
        assert digests[0] == digests[1] == cohorts.content_digest(read_images(self.files, size=48, channels=1).images)
        assert sum("another process is decoding it" in err for _, err in results) == 1

    @pytest.mark.slow
    def test_who_waits_for_a_process_that_is_killed_goes_on_with_its_work(self, start, place):
        first, second = start(), start()
        self.go(first)
        self.index_grows(place, 0)
        self.go(second)
        time.sleep(0.2)
        first.send_signal(signal.SIGKILL)
        out, err = second.communicate(timeout=120)
        assert int(out.split()[0]) < self.N
        assert "decoding continues after" in err
        assert_equal(
            read_images(self.files, size=48, channels=1, cache=place), read_images(self.files, size=48, channels=1)
        )


class TestInterrupted:
    """Inside one process, where it can be said exactly at which point it ends."""

    def interrupted(self, monkeypatch, place, files, *, at, name="add"):
        """Read until the `at`-th call of a Writer's method, which fails."""
        plain, calls = getattr(writer.Writer, name), []

        def failing(self, *args):
            calls.append(1)
            if len(calls) == at:
                raise KeyboardInterrupt
            return plain(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(writer, "PIECE_BYTES", 600)
            patch.setattr(writer.Writer, name, failing)
            with pytest.raises(KeyboardInterrupt):
                read_images(files, size=16, channels=1, cache=place)

    @pytest.mark.parametrize("tail", [b"", b"\0" * 500, b'{"n": 3, "crc": 0, "reasons": {}}\nxx'])
    @pytest.mark.parametrize("at", [2, 5, 9])
    def test_torn_tails_do_not_count(self, tmp_path, place, monkeypatch, at, tail):
        files = make(tmp_path / "clinic", [GREY, "broken", GREY, GREY, GREY, "broken", DEEP, GREY, GREY, GREY])
        self.interrupted(monkeypatch, place, files, at=at)
        for path in place.folder.glob("*.[iu]*"):
            with path.open("ab") as file:
                file.write(tail)
        assert_equal(read_images(files, size=16, channels=1, cache=place), read_images(files, size=16, channels=1))

    def test_while_the_pixels_become_16_bits(self, tmp_path, place, monkeypatch):
        files = make(tmp_path / "clinic", [GREY] * 6 + [DEEP] + [GREY] * 2)
        self.interrupted(monkeypatch, place, files, at=1, name="_widen")
        expected = read_images(files, size=16, channels=1)
        plain, calls = writer._append, []

        def failing(file, content):
            if str(getattr(file, "name", "")).endswith(".u16.part"):
                calls.append(1)
                file.write(b"half")
                raise KeyboardInterrupt
            plain(file, content)

        with monkeypatch.context() as patch:
            patch.setattr(writer, "_append", failing)
            with pytest.raises(KeyboardInterrupt):
                read_images(files, size=16, channels=1, cache=place)
        assert calls
        assert_equal(read_images(files, size=16, channels=1, cache=place), expected)
        assert sorted(p.suffix for p in place.folder.iterdir()) == ["", "", ".index", ".list", ".u16"]

    def test_after_the_last_image(self, tmp_path, place, monkeypatch, work):
        files = make(tmp_path / "clinic", [GREY, "broken", DEEP, GREY])

        def interrupted(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(caching, "write_json", interrupted)
            with pytest.raises(KeyboardInterrupt):
                read_images(files, size=16, channels=1, cache=place)
        work["decoded"].clear()
        found = read_images(files, size=16, channels=1, cache=place)
        assert not work["decoded"]
        assert_equal(found, read_images(files, size=16, channels=1))

    def test_a_file_changed_in_between(self, tmp_path, place, monkeypatch, work):
        files = make(tmp_path / "clinic", [GREY] * 12)
        self.interrupted(monkeypatch, place, files, at=10)
        save(files[1], picture(GREY, 90))
        work["decoded"].clear()
        found = read_images(files, size=16, channels=1, cache=place)
        assert work["decoded"]["1.png"] == 1
        assert 1 < sum(work["decoded"].values()) < 12
        assert_equal(found, read_images(files, size=16, channels=1))

    def test_a_list_changed_in_between_keeps_what_was_decoded(self, tmp_path, place, monkeypatch, work):
        files = make(tmp_path / "clinic", [GREY] * 12)
        self.interrupted(monkeypatch, place, files, at=10)
        work["decoded"].clear()
        found = read_images(files[2:], size=16, channels=1, cache=place)
        assert sum(work["decoded"].values()) < 10
        assert not {"2.png", "3.png"} & set(work["decoded"])
        assert_equal(found, read_images(files[2:], size=16, channels=1))
        assert len(list(place.folder.glob("*.list"))) == 1


class TestDisk:
    def test_a_full_disk_is_told_and_decoding_goes_on_when_there_is_room(self, tmp_path, place, work, monkeypatch):
        """A limit on the size of files, which the system enforces as it does a quota."""
        files = make(tmp_path / "clinic", [GREY] * 40)
        monkeypatch.setattr(writer, "PIECE_BYTES", 600)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
        try:
            with pytest.raises(DiskFull, match=r"the disk is full .*continues; or .*cache=PATH.*cache=false"):
                read_images(files, size=16, channels=1, cache=place)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        work["decoded"].clear()
        found = read_images(files, size=16, channels=1, cache=place)
        assert 0 < sum(work["decoded"].values()) < 40
        assert_equal(found, read_images(files, size=16, channels=1))

    def test_too_little_room_is_told_before_anything_is_decoded(self, tmp_path, place, work, monkeypatch, capsys):
        files = make(tmp_path / "clinic", [GREY] * 4)
        monkeypatch.setattr(caching.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
        with pytest.raises(DiskFull, match=r"need 0 MiB in .*clinic, whose disk has 0 MiB left; make space, or name"):
            read_images(files, size=16, channels=1, cache=place)
        assert not work["decoded"]
        found = read_images(files, size=16, channels=1, cache=replace(place, required=False))
        assert "make space" in (told := capsys.readouterr().err)
        assert "The images are kept in memory this time." in told
        assert not isinstance(found.images, np.memmap)
        assert len(found.images) == 4

    def test_a_folder_that_cannot_be_made(self, tmp_path, capsys):
        files = make(tmp_path / "clinic", [GREY] * 4)
        (tmp_path / "file").write_text("not a folder")
        wrong = Cache(tmp_path / "file" / "cache", "clinic")
        with pytest.raises(InputError, match=r"cannot be kept in .*Not a directory.*; name another folder"):
            read_images(files, size=16, cache=wrong)
        assert len(read_images(files, size=16, cache=replace(wrong, required=False)).images) == 4
        assert "kept in memory this time" in capsys.readouterr().err

    def test_a_disk_that_fails(self, tmp_path, place, monkeypatch):
        def failing(*_):
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(writer, "_append", failing)
        with pytest.raises(TruereadError, match=r"cannot be written \(Input/output error\); check the disk"):
            read_images(make(tmp_path / "clinic", [GREY] * 4), size=16, cache=place)

    def test_without_file_locks_images_stay_in_memory(self, tmp_path, place, monkeypatch):
        monkeypatch.setattr(caching, "fcntl", None)
        files = make(tmp_path / "clinic", [GREY] * 4)
        assert len(read_images(files, size=16, cache=replace(place, required=False)).images) == 4
        with pytest.raises(InputError, match="not Windows"):
            read_images(files, size=16, cache=place)

    def test_a_finished_cache_may_be_read_only(self, tmp_path, place, monkeypatch):
        """As that of a colleague: nothing is written, not even the lock."""
        files = make(tmp_path / "clinic", [GREY] * 4)
        expected = read_images(files, size=16, cache=place)
        files[0].touch()
        before = {p: p.stat().st_mtime_ns for p in place.folder.iterdir()}

        def denied(*_, **__):
            raise caching.NotCached("this may not be written")

        monkeypatch.setattr(caching, "_locked", denied)
        assert_equal(read_images(files, size=16, cache=place), expected)
        assert {p: p.stat().st_mtime_ns for p in place.folder.iterdir()} == before


class TestWhere:
    def test_small_cohorts_stay_in_memory_and_large_ones_do_not(self, tmp_path, monkeypatch):
        root = tmp_path / "clinic"
        make(root, [GREY] * 4)
        monkeypatch.setenv("TRUEREAD_CACHE", str(tmp_path / "cache"))
        small = load_cohort(f"folder:{root}", size=16)
        assert not isinstance(small.images, np.memmap)
        assert not (tmp_path / "cache").exists()
        for least, kind in ((4 * 16 * 16 + 1, np.ndarray), (4 * 16 * 16, np.memmap)):  # grey, though it might be colour
            monkeypatch.setattr(caching, "LEAST_BYTES", least)
            assert type(load_cohort(f"folder:{root}", size=16).images) is kind
        monkeypatch.setattr(caching, "LEAST_BYTES", 2**28)
        assert isinstance(load_cohort(f"folder:{root}", size=16, cache=True).images, np.memmap)
        folder = next((tmp_path / "cache" / "images").iterdir())
        assert folder.name.startswith("clinic-")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700  # images of patients

    def test_the_words_of_the_option(self, tmp_path):
        assert cache_for(False, name="a") is cache_for("off", name="a") is None
        assert cache_for(True, name="a") == cache_for("on", name="a")
        assert cache_for("auto", name="a").least_bytes == 2**28
        named = cache_for(str(tmp_path), name="../a b", root="x")
        assert named.folder.parent == tmp_path / "images"
        assert named.folder.name.startswith("_a_b-")
        assert (named.least_bytes, named.required) == (0, True)
        assert named.folder != cache_for(str(tmp_path), name="../a b", root="y").folder

    def test_the_usual_folder(self, tmp_path, monkeypatch):
        monkeypatch.delenv("TRUEREAD_CACHE", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        if sys.platform == "linux":
            assert default_folder() == tmp_path / "trueread"
        monkeypatch.setenv("TRUEREAD_CACHE", "~/there")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert default_folder() == tmp_path / "there"


class TestIndex:
    def blocks(self):
        records = np.zeros(7, RECORD)
        records["white"], records["width"] = 255, np.arange(7)
        return [block(records[:3], {1: "zeile\nzwei ü"}), block(records[3:], {0: "a"})], records

    def test_it_comes_back(self, tmp_path):
        blocks, records = self.blocks()
        (tmp_path / "a").write_bytes(b"".join(blocks))
        index = read_index(tmp_path / "a")
        assert (index.records == records).all()
        assert index.reasons == {1: "zeile\nzwei ü", 3: "a"}
        assert index.n_bytes == sum(map(len, blocks))

    def test_a_last_block_cut_anywhere_is_passed_over(self, tmp_path):
        blocks, _ = self.blocks()
        for length in range(len(blocks[1])):
            (tmp_path / "a").write_bytes(blocks[0] + blocks[1][:length])
            index = read_index(tmp_path / "a")
            assert (len(index.records), index.n_bytes, index.reasons) == (3, len(blocks[0]), {1: "zeile\nzwei ü"})

    def test_a_flipped_byte_ends_it(self, tmp_path):
        blocks, _ = self.blocks()
        head = len(blocks[0].partition(b"\n")[0]) + 1
        for at in range(head, len(blocks[0]), 37):
            broken = bytearray(blocks[0] + blocks[1])
            broken[at] ^= 4
            (tmp_path / "a").write_bytes(broken)
            assert len(read_index(tmp_path / "a").records) == 0


@pytest.mark.slow
@pytest.mark.realdata
def test_real_radiographs(real_data, tmp_path):
    options = {"size": 32, "patient": r"person\d+_(?:bacteria|virus)|(?:NORMAL2-)?IM-\d+"}
    source = f"folder:{real_data / 'kermany'}"
    memory = load_cohort(source, cache=False, **options)
    for _ in range(2):
        disk = load_cohort(source, cache=str(tmp_path), **options)
        assert np.array_equal(disk.images, memory.images)
        assert disk.digest == memory.digest
    assert json.loads(next(tmp_path.rglob("current")).read_text())["digests"]["images"] == disk.known[0].digest
