"""The source "saved": what was written is what is read, and what is damaged is one sentence."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tiny import tiny_cohort
from trueread import load_cohort, save_cohort
from trueread.errors import InputError
from trueread.shift.planting import planted, planted_in, planting


def rich(**options):
    """A cohort whose table has every kind of column, numbers that look like text and text that looks like numbers."""
    cohort = tiny_cohort(**options)
    n = len(cohort)
    table = cohort.table.assign(
        patient=[f"{int(p.split('-')[1]):03d}" for p in cohort.table["patient"]],
        age=[np.nan, *np.linspace(0.1, 80, n - 1)],
        count=np.arange(n),
        site=["NA", None, *['a, "b"\n'] * (n - 2)],
        smoker=np.arange(n) % 2 == 0,
    )
    table["split"] = table.groupby("patient")["split"].transform("first")
    masks = (np.asarray(cohort.images)[:, 0] > cohort.white // 2).astype(np.uint8)
    truth = pd.DataFrame({"true_label": np.zeros(n, np.int64), "cue": np.arange(n) % 3 == 0})
    return replace(cohort, table=table, masks=masks, truth=truth, modality="ct")


@pytest.mark.parametrize(
    "options", [{}, {"task": "multilabel"}, {"depth": 4}, {"channels": 3}, {"white": 4095}, {"share": 0.1}]
)
def test_what_was_saved_is_what_is_read(tmp_path, options):
    cohort = rich(**options)
    read = load_cohort(f"saved:{save_cohort(cohort, tmp_path / 'here')}")
    assert read.digest == cohort.digest
    np.testing.assert_array_equal(read.images, cohort.images)
    np.testing.assert_array_equal(read.labels, cohort.labels)
    np.testing.assert_array_equal(read.masks, cohort.masks)
    pd.testing.assert_frame_equal(read.table, cohort.table)
    pd.testing.assert_frame_equal(read.truth, cohort.truth)
    for what in ("name", "classes", "task", "white", "modality", "patients_known"):
        assert getattr(read, what) == getattr(cohort, what)


def test_an_unsplit_cohort_stays_unsplit_and_takes_another_name(tmp_path):
    cohort = tiny_cohort()
    save_cohort(cohort.with_split([""] * len(cohort)), tmp_path)
    read = load_cohort(f"saved:{tmp_path}", name="other")
    assert list(read.table["split"]) == [""] * len(cohort)
    assert read.name == "other"


def test_what_was_planted_is_known_afterwards(tmp_path):
    plain = tiny_cohort()
    what = planting(plain, "square", prevalence=0.9, clean=0.2, clean_arrangement="balanced")
    read = load_cohort(f"saved:{save_cohort(planted(plain, what), tmp_path)}")
    assert planted_in(read).to_json() == what.to_json()


def test_saving_again_replaces(tmp_path):
    save_cohort(rich(), tmp_path)
    again = tiny_cohort(seed=3)
    save_cohort(again, tmp_path)
    read = load_cohort(f"saved:{tmp_path}")
    assert read.digest == again.digest
    assert read.masks is None
    assert read.truth is None


@pytest.mark.parametrize("missing", ["cohort.json", "images.npy", "table.csv"])
def test_a_missing_file_is_named(tmp_path, missing):
    save_cohort(tiny_cohort(), tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(InputError, match=f"no saved cohort: there is no {missing}"):
        load_cohort(f"saved:{tmp_path}")


def test_damage_is_one_sentence(tmp_path):
    save_cohort(tiny_cohort(), tmp_path)
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    objects = tmp_path / "objects.npy"
    np.save(objects, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    damage = {
        "images.npy": [whole["images.npy"][:500], b"", objects.read_bytes()],
        "labels.npy": [whole["labels.npy"][:100], objects.read_bytes()],
        "cohort.json": [b"{", b"[]", json.dumps({"arrays": [], "types": {}}).encode()],
        "table.csv": [b"", b"a,b\n1\n2,3,4\n"],
    }
    for name, contents in damage.items():
        for content in contents:
            (tmp_path / name).write_bytes(content)
            with pytest.raises(InputError, match="damaged"):
                load_cohort(f"saved:{tmp_path}")
        (tmp_path / name).write_bytes(whole[name])
    assert load_cohort(f"saved:{tmp_path}").digest == tiny_cohort().digest
