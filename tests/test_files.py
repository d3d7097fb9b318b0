"""Files are there whole or not at all."""

from __future__ import annotations

import errno
import json
import os

import numpy as np
import pytest
import torch

from trueread.errors import TruereadError
from trueread.files import DiskFull, is_disk_full, plain, whole, without_folders, write_json, write_text


class TestWhole:
    def test_takes_the_place_of_what_was_there(self, tmp_path):
        path = tmp_path / "new" / "a.txt"
        write_text(path, "one")
        write_text(path, "twö")
        assert path.read_text(encoding="utf-8") == "twö"
        assert list(path.parent.iterdir()) == [path]

    def test_a_failed_body_leaves_what_was_there(self, tmp_path):
        path = tmp_path / "a.txt"
        write_text(path, "one")

        def fails() -> None:
            with whole(path) as part:
                part.write_text("half")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fails()
        assert path.read_text() == "one"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_full_disk_is_one_sentence(self, tmp_path):
        def fails() -> None:
            with whole(tmp_path / "a.txt"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with pytest.raises(DiskFull, match=r"a.txt cannot be written: the disk is full .* before is kept\.$") as caught:
            fails()
        assert isinstance(caught.value, TruereadError)

    def test_other_refusals_of_the_file_system_stay_what_they_are(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match=r"Not a directory|exists"):
            write_text(tmp_path / "file" / "a.txt", "")


class TestDiskFull:
    def test_is_told_by_number_by_words_and_by_cause(self):
        hidden = RuntimeError("unexpected pos 1 vs 2")
        hidden.__context__ = OSError(errno.EDQUOT, "quota")
        assert is_disk_full(hidden)
        assert is_disk_full(RuntimeError("I/O error: No space left on device (os error 28)"))
        assert is_disk_full(OSError(errno.EFBIG, "File too large"))

    def test_and_nothing_else_is(self):
        assert not is_disk_full(OSError(errno.EACCES, "No space left in the words alone"))
        assert not is_disk_full(RuntimeError("unexpected pos 1 vs 2"))


class TestPlain:
    def test_everything_becomes_json(self, tmp_path):
        value = {
            1: np.float32(0.5), "a": [np.int64(2), float("nan"), -np.inf, (True, None)],
            "t": torch.tensor([1.0, np.nan]), "n": np.array([[1, 2]]), "o": tmp_path, "e": np.float64("nan"),
        }  # fmt: skip
        write_json(tmp_path / "a.json", value)
        assert json.loads((tmp_path / "a.json").read_text()) == {
            "1": 0.5, "a": [2, None, None, [True, None]], "t": [1.0, None], "n": [[1, 2]],
            "o": str(tmp_path), "e": None,
        }  # fmt: skip

    def test_tells_numbers_from_truth(self):
        assert plain(np.bool_(True)) is True
        assert plain(1) is not True


class TestWithoutFolders:
    def test_an_absolute_path_keeps_its_name(self, tmp_path):
        assert without_folders(f"folder:{tmp_path}") == f"folder:{tmp_path.name}"
        assert without_folders(f"mask={tmp_path / 'm.png'}") == "mask=m.png"

    def test_what_is_no_path_of_somebodys_stays(self):
        for text in ("phantom", "folder:data/xrays", "medmnist:breastmnist@28", "/tmp", r"patient=IM-\d+"):
            assert without_folders(text) == text
