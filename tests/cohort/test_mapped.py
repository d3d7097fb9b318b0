"""Arrays that lie in a file are read like arrays in memory, and do not fill it."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trueread.cohort import Cohort, mapped
from trueread.cohort.mapped import Rows, brightest_of, content_digest, pieces, release, selected
from trueread.files import DiskFull
from trueread.training.batches import ImageStore, _on_device


@pytest.fixture
def small(monkeypatch):
    """Limits that a few kilobytes exceed."""
    monkeypatch.setattr(mapped, "PIECE_BYTES", 1000)
    monkeypatch.setattr(mapped, "HELD_BYTES", 5000)


def in_file(path: Path, array: np.ndarray, *, mode: str = "r") -> np.memmap:
    array.tofile(path)
    return np.memmap(path, array.dtype, mode, shape=array.shape)


@pytest.fixture
def values():
    return np.random.default_rng(0).integers(0, 60_000, size=(90, 1, 8, 9)).astype(np.uint16)


def cohort_of(images: np.ndarray) -> Cohort:
    n = len(images)
    table = pd.DataFrame({"id": [f"i{k}" for k in range(n)], "patient": [f"p{k}" for k in range(n)], "split": ""})
    return Cohort("c", images, np.arange(n) % 9 // 8, table, ("no", "yes"), "binary", white=65535)  # 1 of 9 positive


@pytest.mark.usefixtures("small")
class TestRows:
    @pytest.mark.parametrize("cut", [slice(None), slice(7, 80), slice(None, None, 2)])
    @pytest.mark.parametrize("mode", ["r", "c", "r+"])
    def test_any_rows_in_any_order(self, tmp_path, values, cut, mode):
        there = in_file(tmp_path / "a", values, mode=mode)[cut]
        rows = np.random.default_rng(1).integers(0, len(there), 200)
        reader = Rows(there)
        for part in np.split(rows, 20):
            picked = reader[part]
            np.testing.assert_array_equal(picked, values[cut][part])
            assert type(picked) is np.ndarray
        np.testing.assert_array_equal(there, values[cut])

    def test_what_was_written_to_a_private_copy_is_not_let_go(self, tmp_path, values):
        there = in_file(tmp_path / "a", values, mode="c")
        there[5] = 1
        release(there)
        assert Rows(there)[np.array([5])].max() == 1

    def test_a_batch_is_that_of_the_array_in_memory(self, tmp_path, values):
        there, here = cohort_of(in_file(tmp_path / "a", values)), cohort_of(values)
        for rows in (np.array([3, 88, 3, 0]), np.arange(90)):
            batches = [ImageStore(cohort, torch.device("cpu")).batch(rows) for cohort in (there, here)]
            assert torch.equal(*batches)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_a_device_gets_every_bit(self, tmp_path, values, dtype):
        there = in_file(tmp_path / "a", values.astype(dtype))
        assert np.array_equal(_on_device(there, torch.device("cpu")).numpy().view(dtype), there)


@pytest.mark.usefixtures("small")
class TestSelected:
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(rows=st.lists(st.integers(0, 89), min_size=1, max_size=120))
    def test_as_in_memory(self, tmp_path, values, rows):
        np.testing.assert_array_equal(selected(in_file(tmp_path / "a", values), np.array(rows)), values[rows])

    def test_large_ones_lie_in_a_file_without_a_name(self, tmp_path, values):
        there = in_file(tmp_path / "a", values)
        rows = np.arange(90)[::-1]
        chosen = selected(there, rows)
        assert isinstance(chosen, np.memmap)
        assert not np.shares_memory(chosen, there)
        np.testing.assert_array_equal(chosen, values[::-1])
        assert [p.name for p in tmp_path.iterdir()] == ["a"]
        assert np.shares_memory(selected(there, np.arange(10, 70)), there)  # neighbours need no copy
        assert type(selected(there, rows[:9])) is np.ndarray
        again = selected(chosen, rows)  # of one that has no name itself
        np.testing.assert_array_equal(again, values)

    def test_subsets_of_a_cohort(self, tmp_path, values):
        there, here = cohort_of(in_file(tmp_path / "a", values)), cohort_of(values)
        for rows in (np.arange(90)[::-1], np.arange(5, 60), np.arange(90) % 3 == 0, [8, 1]):
            assert there.subset(rows).digest == here.subset(rows).digest
        assert isinstance(there.subset(np.arange(90)[::-1]).images, np.memmap)

    def test_a_full_disk(self, tmp_path, values, monkeypatch):
        class Full:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                return None

            def write(self, _):
                raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(mapped, "_nameless_file", lambda _: Full())
        with pytest.raises(DiskFull, match="90 of 90 images are to be selected, and the disk has no room"):
            selected(in_file(tmp_path / "a", values), np.arange(90)[::-1])


@pytest.mark.usefixtures("small")
class TestDigest:
    def test_it_is_blake2b_of_shape_type_and_bytes(self, values, tmp_path):
        expected = hashlib.blake2b(f"{values.shape}<u2".encode() + values.tobytes(), digest_size=16).hexdigest()
        there = in_file(tmp_path / "a", values)
        for array in (values, there, np.asfortranarray(values), values[::-1].copy()[::-1], np.array(there)):
            assert content_digest(array) == expected
        for other in (values[:-1], values.reshape(90, 1, 9, 8), values.view(np.int16), values + np.uint16(1)):
            assert content_digest(other) != expected

    def test_pieces_and_brightest(self, values, tmp_path):
        there = in_file(tmp_path / "a", values)
        cut = list(pieces(there))
        assert len(cut) == 90 // (1000 // 144) == 15
        np.testing.assert_array_equal(np.concatenate(cut), values)
        values[77, 0, 3, 3] = 65_000
        assert brightest_of(values) == brightest_of(in_file(tmp_path / "b", values)) == 65_000

    def test_what_is_known_of_one_array_is_not_believed_of_another(self, values):
        known = mapped.Known(values, "0" * 32, 65_535)
        cohort = dataclasses.replace(cohort_of(values), known=(known,))
        assert cohort.digest != cohort_of(values).digest
        assert dataclasses.replace(cohort, images=values.copy()).digest == cohort_of(values).digest


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_reading_a_file_through_does_not_keep_it_in_this_process(tmp_path, monkeypatch):
    def resident_mib() -> float:
        text = Path("/proc/self/status").read_text()
        return int(text.partition("RssFile:")[2].split()[0]) / 1024

    monkeypatch.setattr(mapped, "HELD_BYTES", 2**23)
    there = in_file(tmp_path / "a", np.zeros((16_384, 1, 64, 64), np.uint8))  # 64 MiB
    before = resident_mib()
    reader, most = Rows(there), 0.0
    for rows in np.random.default_rng(0).permutation(len(there)).reshape(-1, 64):
        reader[rows]
        most = max(most, resident_mib() - before)
    assert most < 16
    content_digest(there)
    assert resident_mib() - before < 18
    assert np.asarray(there).max() == 0
    assert resident_mib() - before > 60, "what is read without them stays"
