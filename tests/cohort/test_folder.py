"""The source "folder": what lies where becomes class, split, patient and id; anything ambiguous is refused in words."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import save, scene
from PIL import Image

from trueread.cohort import load_cohort
from trueread.cohort.classes import natural_key
from trueread.cohort.folder import folder
from trueread.cohort.split import assign_splits, split_note
from trueread.errors import InputError

KERMANY = r"person\d+_(?:bacteria|virus)|(?:NORMAL2-)?IM-\d+"


def grey(value: int) -> np.ndarray:
    return np.full((16, 16), value, np.uint8)


@pytest.fixture
def clinic(tmp_path):
    """Two classes, 3 and 2 images, the grey value naming the image."""
    root = tmp_path / "clinic"
    for value, name in enumerate(["B/img10.png", "B/img2.png", "B/img1.png", "A/x.png", "A/deeper/y.jpeg"]):
        save(root / name, grey(40 * value))
    return root


def test_classes_ids_and_order(clinic):
    cohort = folder(str(clinic), size=16)
    assert list(cohort.table["id"]) == ["A/deeper/y.jpeg", "A/x.png", "B/img1.png", "B/img2.png", "B/img10.png"]
    np.testing.assert_array_equal(cohort.labels, [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(cohort.images[:, 0, 8, 8], [160, 120, 80, 40, 0])
    assert (cohort.classes, cohort.task, cohort.name) == (("A", "B"), "binary", "clinic")
    assert (cohort.table["patient"] == cohort.table["id"]).all()
    assert not cohort.patients_known
    assert (cohort.table["split"] == "").all()
    assert cohort.origin["source"] == f"folder:{clinic}"
    assert cohort.origin["options"]["fit"] == "crop"


def test_it_is_found_by_its_path_and_its_options_are_checked(clinic):
    assert load_cohort(str(clinic), size=16).digest == load_cohort(f"folder:{clinic}", size=16).digest
    with pytest.raises(InputError, match=r"source 'folder': 'size' must be .*16; found 8"):
        load_cohort(str(clinic), size=8)
    with pytest.raises(InputError, match=r"'patients' is not an option here. Did you mean 'patient'"):
        load_cohort(str(clinic), patients="x")
    with pytest.raises(InputError, match="'fit' must be 'crop', 'pad' or 'stretch'"):
        load_cohort(str(clinic), fit="squeeze")


def test_classes_give_the_order_and_leave_others_unread(clinic):
    (clinic / "C").mkdir()  # empty, but not asked for
    cohort = folder(str(clinic), size=16, classes=["B", "A"], modality="ultrasound", task="ordinal", name="n")
    np.testing.assert_array_equal(cohort.labels, [1, 1, 0, 0, 0])
    assert (cohort.classes, cohort.task, cohort.modality, cohort.name) == (("B", "A"), "ordinal", "ultrasound", "n")
    with pytest.raises(InputError, match=r"class folder '.*C' has no image .it holds nothing"):
        folder(str(clinic))
    with pytest.raises(InputError, match=r"there is no class 'D'.* It has A, B"):
        folder(str(clinic), classes=["A", "D", "B"])
    for few in (["A"], ["A", "A"]):
        with pytest.raises(InputError, match="expected at least two different classes"):
            folder(str(clinic), classes=few)


def test_grades_count_by_value_and_three_classes_are_multiclass(tmp_path):
    for grade in (10, 9, 2):
        save(tmp_path / f"grade {grade}" / "a.png", grey(grade))
    cohort = folder(str(tmp_path), size=16)
    assert cohort.classes == ("grade 2", "grade 9", "grade 10")
    assert cohort.task == "multiclass"


@given(st.lists(st.text(alphabet="ab019²٣. ", max_size=8), max_size=8))
def test_natural_order_is_total_and_leaves_nothing_equal(texts):
    backwards = texts[::-1]
    assert sorted(texts, key=natural_key) == sorted(backwards, key=natural_key)
    assert len({natural_key(t) for t in texts}) == len(set(texts))
    numbers = sorted(range(0, 1200, 7), key=lambda i: natural_key(f"a{i}.png"))
    assert numbers == list(range(0, 1200, 7))


@pytest.mark.parametrize("words", [("train", "val", "test"), ("Training", "validation", "Testing")])
def test_split_folders(tmp_path, words):
    for split, word in zip(("train", "val", "test"), words, strict=True):
        for name in ("A/p1.png", "B/p2.png"):
            save(tmp_path / word / name.replace(".", f"_{split}."), grey(9))
    cohort = folder(str(tmp_path), size=16)
    assert {i.split("/")[0]: s for i, s in zip(cohort.table["id"], cohort.table["split"], strict=True)} == dict(
        zip(words, ("train", "val", "test"), strict=True)
    )
    assert split_note(assign_splits(cohort)).how == "official"
    pooled = folder(str(tmp_path), size=16, use_split=False, patient=r"p\d")
    assert (pooled.table["split"] == "").all()
    with pytest.raises(
        InputError, match=r"patient 'p1' is in test and in train and in val, and 1 more.*use_split=false"
    ):
        folder(str(tmp_path), size=16, patient=r"p\d")


def test_split_and_class_folders_may_not_be_mixed(tmp_path):
    save(tmp_path / "train" / "A" / "a.png", grey(1))
    save(tmp_path / "A" / "a.png", grey(1))
    with pytest.raises(InputError, match="split folder 'train' beside 'A'"):
        folder(str(tmp_path))


def test_a_class_must_have_training_images(tmp_path):
    for name in ("train/A/1.png", "train/B/2.png", "test/A/3.png", "test/b/4.png"):
        save(tmp_path / name, grey(1))
    with pytest.raises(InputError, match="class 'b' has no folder in train, which has A, B"):
        folder(str(tmp_path))


@pytest.mark.parametrize(
    ("pattern", "patients"),
    [
        (r"person\d+", ["person1", "person1", "person12", "person3"]),
        (r"person(\d+)_", ["1", "1", "12", "3"]),
        (r"(?P<kind>\w)/.*person(?P<patient>\d+)", ["1", "1", "12", "3"]),
        (r"^./person\d+", ["A/person1", "A/person1", "A/person12", "B/person3"]),
    ],
)
def test_the_patient_is_what_the_pattern_says(tmp_path, pattern, patients):
    for name in ("A/person1_a.png", "A/person1_b.png", "A/person12_a.png", "B/person3_a.png"):
        save(tmp_path / "train" / name, grey(1))
    cohort = folder(str(tmp_path), size=16, patient=pattern)
    assert list(cohort.table["patient"]) == patients
    assert cohort.patients_known


def test_files_the_pattern_does_not_fit_are_named(tmp_path):
    for i in range(8):
        save(tmp_path / "A" / f"{i}.png", grey(1))
    save(tmp_path / "B" / "p1.png", grey(1))
    with pytest.raises(
        InputError, match=r"finds no patient in A/0.png, A/1.png, A/2.png, A/3.png, A/4.png and 3 more; "
    ):
        folder(str(tmp_path), patient=r"p\d+")
    with pytest.raises(InputError, match=r"finds no patient in A/0.png"):
        folder(str(tmp_path), patient=r"(p\d+)?")  # fits, but the group is empty
    with pytest.raises(InputError, match="is no regular expression"):
        folder(str(tmp_path), patient="(")


def test_hidden_and_other_files_are_passed_over_and_told_when_nothing_is_left(clinic):
    for name in (".DS_Store", ".hidden.png", "Thumbs.db", "notes.txt"):
        (clinic / "A" / name).write_bytes(b"x")
    save(clinic / "__MACOSX" / "A" / "x.png", grey(1))
    save(clinic / ".git" / "A" / "x.png", grey(1))
    (clinic / "README.md").write_text("x")
    assert len(folder(str(clinic), size=16)) == 5
    for i in range(3):
        (clinic / "C").mkdir(exist_ok=True)
        (clinic / "C" / f"{i}.MP4").write_bytes(b"x")
    (clinic / "C" / "LICENCE").write_bytes(b"x")
    with pytest.raises(InputError, match=r"has no image \(it holds 3 .mp4, 1 without ending\); expected .*.png"):
        folder(str(clinic))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["A/1.png", "B/1.png", "stray.png"], "stray.png' lies beside the class folders"),
        (["train/A/1.png", "train/B/1.png", "train/stray.png"], "stray.png' lies beside the class folders of 'train'"),
        (["train/A/1.png", "train/B/1.png", "stray.png"], "stray.png' lies beside the split folders"),
        (["1.png", "2.png"], "1.png' lies beside the class folders .* list them in a table"),
        (["A/1.png", "A/2.png"], r"expected at least two different classes, found \['A'\]"),
        (["notes.txt"], "has no class folders; expected one sub-folder of images per class"),
        (["train/notes.txt"], "train' has no class folders"),
    ],
)
def test_other_layouts_are_refused(tmp_path, files, message):
    for name in files:
        if name.endswith(".png"):
            save(tmp_path / name, grey(1))
        else:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("x")
    with pytest.raises(InputError, match=message):
        folder(str(tmp_path))


def test_no_folder_and_a_file(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    for name in ("gone", "a.txt"):
        with pytest.raises(InputError, match=f"{name}' is not a folder"):
            folder(str(tmp_path / name))


def test_links_inside_are_followed_and_others_refused(clinic, tmp_path):
    (clinic / "A" / "same.png").symlink_to(clinic / "A" / "x.png")
    assert len(folder(str(clinic), size=16)) == 6
    (tmp_path / "linked").symlink_to(clinic)
    assert len(folder(str(tmp_path / "linked"), size=16)) == 6
    outside = save(tmp_path / "outside.png", grey(1))
    for target, what in (
        (outside, "a file outside"),
        (clinic / "B", "a folder"),
        (clinic, "a folder"),
        (tmp_path, "a folder"),
    ):
        link = clinic / "A" / "link.png"
        link.symlink_to(target)
        with pytest.raises(InputError, match=f"link.png' is a link to {what}, which is not followed"):
            folder(str(clinic))
        link.unlink()
    (clinic / "C").symlink_to(clinic / "A")
    with pytest.raises(InputError, match="C' is a link to a folder"):
        folder(str(clinic))


def test_broken_images_are_listed_by_id_and_a_class_of_none_is_refused(clinic):
    for i in range(4):
        save(clinic / "B" / f"more{i}.png", grey(i))
    (clinic / "A" / "broken.png").write_bytes(b"")
    (clinic / "B" / "loop.png").symlink_to(clinic / "B" / "loop.png")
    cohort = folder(str(clinic), size=16)
    assert list(cohort.omitted["path"]) == ["A/broken.png", "B/loop.png"]
    assert cohort.omitted["reason"][0] == "the file is empty (0 bytes)"
    assert "A/broken.png" not in set(cohort.table["id"])
    assert len(cohort) == 9
    (clinic / "C").mkdir()
    (clinic / "C" / "broken.png").write_bytes(b"")
    with pytest.raises(InputError, match="no image of the class 'C' can be read"):
        folder(str(clinic), size=16)


def test_names_that_are_no_utf8_are_refused(clinic):
    (clinic / "A" / "x.png").rename(clinic / "A" / os.fsdecode(b"\xff.png"))
    with pytest.raises(InputError, match="not UTF-8; rename the file"):
        folder(str(clinic))


def test_colour_and_16_bit_cohorts(tmp_path):
    save(tmp_path / "A" / "a.png", scene(20, 20, channels=3))
    save(tmp_path / "B" / "b.png", np.full((20, 20), 40_000, np.uint16))
    cohort = folder(str(tmp_path), size=20)
    assert (cohort.images.shape, cohort.images.dtype, cohort.white) == ((2, 3, 20, 20), np.uint16, 65535)
    assert cohort.images[1].min() == cohort.images[1].max() == 40_000
    assert folder(str(tmp_path), size=20, channels=1).channels == 1


@pytest.mark.realdata
@pytest.mark.slow
def test_kermany_by_patient(real_data):
    """The published training folder. Same number and same word means one child; the number alone does not."""
    root = real_data / "kermany"
    cohort = folder(str(root), size=16, patient=KERMANY, modality="radiograph")
    np.testing.assert_array_equal(cohort.class_counts(), [1341, 3875])
    assert cohort.classes == ("NORMAL", "PNEUMONIA")
    assert (cohort.channels, len(cohort.omitted)) == (1, 0)
    by_class = cohort.table.groupby(cohort.labels)["patient"].nunique()
    assert list(by_class) == [1211, 1353 + 1090]
    assert cohort.n_patients == by_class.sum()
    found = assign_splits(cohort, seed=42)
    assert found.table.groupby("patient")["split"].nunique().max() == 1
    for split, share in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
        rows = found.rows(split)
        assert len(rows) / 5216 == pytest.approx(share, abs=0.001)
        assert cohort.labels[rows].mean() == pytest.approx(3875 / 5216, abs=0.002)


def test_12_bits_in_16_use_their_whole_range_when_white_is_said(tmp_path):
    for kind, top in (("a", 4095), ("b", 2048)):
        (tmp_path / kind).mkdir()
        for i in range(2):
            pixels = np.full((20, 20), top, np.uint16)
            Image.fromarray(pixels).save(tmp_path / kind / f"{i}.png")
    cohort = load_cohort(f"folder:{tmp_path}", size=16, white=4095)
    assert cohort.white == 4095
    assert (cohort.images[0].max(), cohort.images[-1].max()) == (4095, 2048)
    with pytest.raises(InputError, match="white is declared as 3000, but an image reaches 4095"):
        load_cohort(f"folder:{tmp_path}", size=16, white=3000)


def test_sites_above_the_classes_are_not_taken_for_classes(tmp_path):
    for site in ("A", "B"):
        for kind in ("NORMAL", "PNEUMONIA"):
            save(tmp_path / site / kind / "1.png", grey(90))
    with pytest.raises(InputError, match=r"'A' and 'B' in .* both hold 'NORMAL' and 'PNEUMONIA'.*did you mean folder:"):
        load_cohort(f"folder:{tmp_path}", size=16)
