"""The source "csv": columns become the cohort, and every bad row is named by the number a spreadsheet shows."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import save, scene

from trueread.cohort import load_cohort
from trueread.cohort.rows import read_rows
from trueread.cohort.table import csv
from trueread.errors import InputError


@pytest.fixture
def images(tmp_path):
    """a0.png ... a9.png, the grey value naming the image."""
    for i in range(10):
        save(tmp_path / f"a{i}.png", np.full((16, 16), 20 * i, np.uint8))
    return tmp_path


def write(folder, *lines, name="labels.csv", encoding="utf-8"):
    (folder / name).write_text("\n".join(lines) + "\n", encoding=encoding)
    return str(folder / name)


def read(path, **options):
    return csv(path, size=16, **options)


def test_image_and_label_are_enough(images):
    path = write(images, "image,label", "a3.png,sick", "a1.png,healthy", "a2.png,sick")
    cohort = load_cohort(path, size=16)
    np.testing.assert_array_equal(cohort.images[:, 0, 0, 0], [60, 20, 40])
    np.testing.assert_array_equal(cohort.labels, [1, 0, 1])
    assert (cohort.classes, cohort.task, cohort.name) == (("healthy", "sick"), "binary", "labels")
    assert list(cohort.table["id"]) == list(cohort.table["patient"]) == ["a3.png", "a1.png", "a2.png"]
    assert not cohort.patients_known
    assert cohort.masks is None
    assert cohort.attributes == []


def test_every_column_by_its_option(images):
    (images / "pictures").mkdir()
    for i in range(4):
        (images / f"a{i}.png").rename(images / "pictures" / f"a{i}.png")
    path = write(
        images,
        "file;finding;who;part;name;age;site",
        "a0.png;x;P1;Training;one;54;A",
        "a1.png;y;P1;train;two;;B",
        "a2.png;x;P2;validation;three;7.5;A",
        "a3.png;y;P3;holdout;four;NA;",
    )
    options = {"image": "file", "label": "finding", "patient": "who", "split": "part", "id": "name"}
    cohort = read(path, **options, root=str(images / "pictures"), modality="ct", name="n", task="multiclass")
    assert list(cohort.table["id"]) == ["one", "two", "three", "four"]
    assert list(cohort.table["patient"]) == ["P1", "P1", "P2", "P3"]
    assert list(cohort.table["split"]) == ["train", "train", "val", "test"]
    assert cohort.attributes == ["age", "site"]
    np.testing.assert_array_equal(cohort.table["age"], [54, np.nan, 7.5, np.nan])
    assert cohort.table["age"].dtype == np.float64
    assert list(cohort.table["site"][:3]) == ["A", "B", "A"]
    assert cohort.table["site"].isna()[3]
    assert cohort.patients_known
    assert (cohort.modality, cohort.name, cohort.task) == ("ct", "n", "multiclass")
    assert cohort.origin["options"]["patient"] == "who"
    assert read(path, **options, root=str(images / "pictures"), attributes=["site"]).attributes == ["site"]


def test_columns_with_the_names_of_roles_are_used_unless_switched_off(images):
    path = write(
        images, "image,label,patient,split,extra", "a0.png,x,P,train,1", "a1.png,y,P,train,2", "a2.png,x,Q,test,3"
    )
    cohort = read(path)
    assert cohort.patients_known
    assert list(cohort.table["split"]) == ["train", "train", "test"]
    without = read(path, patient="", split="")
    assert not without.patients_known
    assert set(without.table["split"]) == {""}
    assert without.attributes == ["extra"]
    with pytest.raises(InputError, match="'patient' cannot be an attribute"):
        read(path, attributes=["patient"])


def test_classes_order_and_leave_rows_out(images):
    path = write(images, "image,label", "a0.png,10", "a1.png,9", "a2.png,2", "a3.png,9")
    assert read(path).classes == ("2", "9", "10")
    some = read(path, classes=["9", "2"])
    assert (list(some.labels), list(some.table["id"])) == ([0, 1, 0], ["a1.png", "a2.png", "a3.png"])
    with pytest.raises(InputError, match=r"there is no class '5'.* It has 2, 9, 10"):
        read(path, classes=["5", "9"])


def test_lists_of_labels_are_multilabel_and_blank_is_unknown(images):
    path = write(images, "image,label", "a0.png,mass|nodule", "a1.png,none", "a2.png,", "a3.png,nodule")
    cohort = read(path)
    assert (cohort.task, cohort.classes) == ("multilabel", ("mass", "nodule", "none"))
    nan = np.nan
    np.testing.assert_array_equal(cohort.labels, np.array([[1, 1, 0], [0, 0, 1], [nan] * 3, [0, 1, 0]], np.float32))
    chosen = read(path, classes=["nodule", "mass"])
    np.testing.assert_array_equal(chosen.labels, np.array([[1, 1], [0, 0], [nan] * 2, [1, 0]], np.float32))
    plain = write(images, "image,label", "a0.png,mass", "a1.png,nodule", name="plain.csv")
    assert read(plain, task="multilabel").labels.tolist() == [[1, 0], [0, 1]]
    with pytest.raises(InputError, match="row 4: the label is blank"):
        read(path, task="multiclass")


def test_columns_of_zeros_and_ones_are_multilabel(images):
    path = write(images, "image,mass,nodule,age", "a0.png,1,0,3", "a1.png,0.0,,4", "a2.png,1.0,nan,5")
    cohort = read(path, labels=["nodule", "mass"])
    np.testing.assert_array_equal(cohort.labels, np.array([[0, 1], [np.nan, 0], [np.nan, 1]], np.float32))
    assert (cohort.classes, cohort.attributes) == (("nodule", "mass"), ["age"])
    bad = write(images, "image,mass,nodule", "a0.png,1,-1", "a1.png,yes,0", name="bad.csv")
    with pytest.raises(
        InputError, match=r"bad.csv, row 2: 'nodule' is '-1'; row 3: 'mass' is 'yes'. Expected 0, 1, or a blank"
    ):
        read(bad, labels=["mass", "nodule"])
    with pytest.raises(InputError, match="leave out classes and task"):
        read(path, labels=["mass", "nodule"], task="binary")
    with pytest.raises(InputError, match=r"no column 'nodul' for the label. Did you mean 'nodule'"):
        read(path, labels=["mass", "nodul"])


def test_a_patient_in_two_splits_is_named_with_the_row(images):
    rows = [f"a{i}.png,{'xy'[i % 2]},P-{i // 2:04d},train" for i in range(6)]
    path = write(images, "image,label,patient,split", *rows, "", "a9.png,x,P-0001,test")
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value) == (
        "labels.csv, row 9: patient 'P-0001' is in train and in test. A patient must stay on one side; "
        "drop the split column to let trueread split by patient."
    )


HEAD = "image,label,patient,split"
GOOD = ["a0.png,x,P,train", "a1.png,y,Q,train"]
BAD_ROWS = {
    "unknown split": ([HEAD, "a0.png,x,P,tarin", GOOD[1]], "row 2: the split is 'tarin'. Expected train, val or test"),
    "blank split": ([HEAD, GOOD[0], "a1.png,y,Q,"], "row 3: the split is ''"),
    "blank label": ([HEAD, GOOD[0], "a1.png,,Q,train"], "row 3: the label is blank. Fill the cell"),
    "blank patient": ([HEAD, "a0.png,x, ,train", GOOD[1]], "row 2: the patient is blank"),
    "blank image": ([HEAD, ",x,P,train", GOOD[1]], "row 2: the image is blank"),
    "repeated image": ([HEAD, *GOOD, "a0.png,y,P,train"], "row 4: the image 'a0.png' is also in row 2"),
    "up and out": ([HEAD, GOOD[0], "../a1.png,y,Q,train"], r"row 3: the path '../a1.png' leaves the folder .*root="),
    "absolute": ([HEAD, "/etc/passwd,x,P,train", GOOD[1]], "row 2: the path '/etc/passwd' leaves the folder"),
    "the root itself": ([HEAD, ".,x,P,train", GOOD[1]], "row 2: the path '.' leaves the folder"),
    "long row": ([HEAD, GOOD[0] + ",more", GOOD[1]], "row 2: expected 4 cells as in the header, found 5"),
    "short row": ([HEAD, GOOD[0], "a1.png,y"], "row 3: expected 4 cells as in the header, found 2"),
    "open quote": ([HEAD, GOOD[0], 'a1.png,"y,Q,train'], "row 3: unexpected end of data; mend the quotes"),
    "one class": ([HEAD, *[row.replace("y", "x") for row in GOOD]], r"at least two different classes, found \['x'\]"),
    "no rows": ([HEAD], "has no rows below its header"),
    "repeated column": (["image,label,label", "a0.png,x,y"], "the column 'label' occurs more than once"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows(images, case):
    lines, message = BAD_ROWS[case]
    with pytest.raises(InputError, match=f"labels.csv.*{message}"):
        read(write(images, *lines))


def test_five_bad_rows_are_shown_and_the_rest_counted(images):
    rows = [f"a{i}.png,{'xy'[i % 2]},{'somewhere' if i else 'train'}" for i in range(10)]
    with pytest.raises(InputError) as caught:
        read(write(images, "image,label,split", *rows))
    text = str(caught.value)
    assert [f"row {n}:" in text for n in range(2, 12)] == [False] + [True] * 5 + [False] * 4
    assert "(and 4 more like it)" in text


def test_rows_are_counted_as_a_spreadsheet_does(images):
    """A line break inside a cell starts no row; a blank line is one."""
    path = write(images, "image,label,note", 'a0.png,x,"two', 'lines"', "", "a1.png,,n", "a2.png,y,n")
    with pytest.raises(InputError, match=r"labels.csv, row 4: the label is blank"):
        read(path)


def test_a_link_out_of_the_folder_is_refused(images, tmp_path_factory):
    outside = save(tmp_path_factory.mktemp("outside") / "b.png", scene())
    (images / "link.png").symlink_to(outside)
    with pytest.raises(InputError, match=r"row 3: the path 'link.png' leaves the folder"):
        read(write(images, "image,label", "a0.png,x", "link.png,y"))


def test_absolute_paths_inside_windows_paths_and_the_working_folder(images, monkeypatch):
    save(images / "deep" / "b.png", np.full((16, 16), 7, np.uint8))
    path = write(images, "image,label", f"{images}/a1.png,x", r"deep\b.png,y")
    assert list(read(path).images[:, 0, 0, 0]) == [20, 7]
    monkeypatch.chdir(images)
    assert list(read("labels.csv").images[:, 0, 0, 0]) == [20, 7]


def test_missing_columns_name_the_nearest(images):
    path = write(images, "image,lable,patient_id", "a0.png,x,1", "a1.png,y,2")
    with pytest.raises(
        InputError, match=r"no column 'label' for the label. Did you mean 'lable'. Its columns: image, lable, pat"
    ):
        read(path)
    with pytest.raises(InputError, match=r"no column 'patient_i' for the patient. Did you mean 'patient_id'"):
        read(path, label="lable", patient="patient_i")
    with pytest.raises(InputError, match="no column 'file' for the image"):
        read(path, label="lable", image="file")
    with pytest.raises(InputError, match="no column 'age' for the attribute"):
        read(path, label="lable", attributes=["age"])


def test_encodings(images):
    lines = ["image,label", "a0.png,Müller", "a1.png,Ärger"]
    for encoding in ("utf-8", "utf-8-sig"):
        assert read(write(images, *lines, encoding=encoding)).classes == ("Müller", "Ärger")
    latin = write(images, *lines, encoding="latin-1")
    with pytest.raises(InputError, match="row 2: this is not utf-8 text; save it as UTF-8, or give encoding"):
        read(latin)
    assert read(latin, encoding="latin-1").classes == ("Müller", "Ärger")
    assert read(write(images, *lines, encoding="utf-16"), encoding="utf-16").classes == ("Müller", "Ärger")
    with pytest.raises(InputError, match="'utf-99' is no text encoding"):
        read(latin, encoding="utf-99")
    (images / "binary.csv").write_bytes(b"image,label\n\0\0,x\n")
    with pytest.raises(InputError, match="holds zero bytes"):
        read(str(images / "binary.csv"))
    with pytest.raises(InputError, match=r"gone.csv cannot be read"):
        read(str(images / "gone.csv"))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_and_an_index_column_without_name(images, delimiter):
    lines = [",image,label,age", "0,a0.png,x,3", "1,a1.png,y,4"]
    cohort = read(write(images, *[line.replace(",", delimiter) for line in lines]))
    assert (len(cohort), cohort.attributes) == (2, ["age"])


def test_missing_and_broken_images_are_listed(images):
    (images / "a3.png").write_bytes(b"no image")
    path = write(images, "image,label,age", "a0.png,x,0", "gone.png,x,1", "a1.png,y,2", "a3.png,y,3", "a4.png,x,4")
    cohort = read(path)
    assert list(cohort.omitted["path"]) == ["gone.png", "a3.png"]
    assert list(cohort.omitted["reason"]) == ["no such file", "not an image of a known format"]
    assert list(cohort.table["age"]) == [0, 2, 4]
    np.testing.assert_array_equal(cohort.labels, [0, 1, 0])
    np.testing.assert_array_equal(cohort.images[:, 0, 0, 0], [0, 20, 80])


def test_a_class_without_readable_images_and_a_column_that_is_no_label(images):
    path = write(images, "image,label", "a0.png,x", "a1.png,y", "gone.png,z")
    with pytest.raises(InputError, match="no image of the class 'z' can be read"):
        read(path)
    many = [f"a{i % 10}.png,{i},{i}" for i in range(60)]
    with pytest.raises(InputError, match="'label' has 60 different values in 60 rows, too many for classes"):
        read(write(images, "image,label,id", *many))


class TestBoxes:
    @pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
    def test_are_the_masks_that_somebody_draws_of_them(self, tmp_path, fit):
        draw, lines = np.random.default_rng(3), ["image,label,mask,box"]
        for i in range(12):
            height, width = draw.integers(60, 200, 2)
            boxes, mask = [], np.zeros((height, width), np.uint8)
            for _ in range(i % 3):
                x, y, w, h = (int(draw.integers(low, high)) for low, high in ((0, 30), (0, 30), (5, 30), (5, 30)))
                mask[y : y + h, x : x + w] = 255
                boxes.append(f"{x} {y} {w} {h}")
            save(tmp_path / f"i{i}.png", np.zeros((height, width), np.uint8))
            save(tmp_path / f"m{i}.png", mask)
            lines.append(f"i{i}.png,{'ab'[i % 2]},m{i}.png,{';'.join(boxes)}")
        path = write(tmp_path, *lines)
        drawn, boxed = (csv(path, size=40, fit=fit, **{other: ""}).masks for other in ("box", "mask"))
        assert (drawn[0] == boxed[0]).all()
        assert drawn[3].sum() == 0 == boxed[3].sum()
        assert (drawn != boxed).mean() < 0.005  # of the edges' pixels half are covered, more or less
        assert (drawn & boxed).sum() > 0.9 * drawn.sum()

    @pytest.mark.parametrize("cell", ["2 4 6 8", '"2, 4, 6, 8"', '"[2, 4, 6, 8]"', '"[[2,4,6,8]]"', "2 4 6 8|2 4 6 8"])
    def test_ways_to_write_them(self, images, cell):
        cohort = read(write(images, "image,label,box", f"a0.png,x,{cell}", "a1.png,y,"))
        expected = np.zeros((16, 16))
        expected[4:12, 2:8] = 1
        np.testing.assert_array_equal(cohort.masks, [expected, expected * 0])
        assert cohort.attributes == []

    def test_a_box_of_less_than_a_pixel_marks_one(self, tmp_path):
        save(tmp_path / "large.png", np.zeros((320, 320), np.uint8))
        save(tmp_path / "other.png", np.zeros((320, 320), np.uint8))
        cohort = read(write(tmp_path, "image,label,box", "large.png,x,100 45 4 4", "other.png,y,"))
        assert np.argwhere(cohort.masks[0]).tolist() == [[2, 5]]

    @pytest.mark.parametrize(
        ("cells", "message"),
        [
            (("1 2 3", "4 5 6 0"), "row 2: the box is '1 2 3'; row 3: the box is '4 5 6 0'. Write x, y, width"),
            (("", "4 5 60 6"), "row 3: the box '4 5 60 6' leaves its image of 16 x 16"),
            (("-5 0 6 6", ""), "row 2: the box '-5 0 6 6' leaves its image"),
            (("nan 0 6 6", ""), "row 2: the box is 'nan 0 6 6'"),
        ],
    )
    def test_mistakes(self, images, cells, message):
        path = write(images, "image,label,box", *(f"a{i}.png,{'xy'[i]},{cell}" for i, cell in enumerate(cells)))
        with pytest.raises(InputError, match=message):
            read(path)

    def test_an_unreadable_image_takes_its_boxes_along(self, images):
        lines = ("none.png,x,0 0 4 4", "a1.png,y,", "a2.png,x,8 8 4 4")
        cohort = read(write(images, "image,label,box", *lines))
        assert cohort.masks.sum((1, 2)).tolist() == [0, 16]

    def test_not_beside_masks(self, images):
        with pytest.raises(InputError, match=r'has masks and boxes; take one of them, .* mask="" or box=""'):
            read(write(images, "image,label,mask,box", "a0.png,x,,", "a1.png,y,,"))


def test_masks(images):
    mask = np.zeros((16, 16), np.uint8)
    mask[2:6, 8:12] = 255
    save(images / "m.png", mask)
    save(images / "wide.png", np.zeros((8, 60), np.uint8))
    path = write(
        images,
        "image,label,mask",
        "a0.png,x,m.png",
        "a1.png,y,",
        "a2.png,x,gone.png",
        "gone.png,x,m.png",
        "a4.png,y,wide.png",
        "a5.png,y,m.png",
        "a6.png,y,m.png",
    )
    cohort = read(path)
    assert list(cohort.table["id"]) == ["a0.png", "a1.png", "a5.png", "a6.png"]
    np.testing.assert_array_equal(cohort.images[:, 0, 0, 0], [0, 20, 100, 120])
    np.testing.assert_array_equal(cohort.labels, [0, 1, 1, 1])
    np.testing.assert_array_equal(cohort.masks, np.stack([mask > 0, mask * 0, mask > 0, mask > 0]))
    assert list(cohort.omitted["path"]) == ["a2.png", "gone.png", "a4.png"]
    assert cohort.omitted["reason"][0] == "mask: no such file"
    assert cohort.omitted["reason"][2].startswith("mask: the mask is 60 x 8")
    assert read(path, mask="").masks is None
    with pytest.raises(InputError, match=r"row 2: the path '../m.png' leaves the folder"):
        read(write(images, "image,label,mask", "a0.png,x,../m.png", "a1.png,y,"))


def test_cells_are_stripped_unless_asked_otherwise(tmp_path):
    path = write(tmp_path, " a , b", " 1 , 2")
    assert read_rows(tmp_path / "labels.csv").to_dict("list") == {"a": ["1"], "b": ["2"]}
    assert read_rows(tmp_path / "labels.csv", strip=False).to_dict("list") == {"a": [" 1 "], "b": [" 2"]}
    assert path.endswith("labels.csv")


@pytest.mark.realdata
def test_ham10000(real_data, tmp_path):
    """Seven classes, lesions with several images, masks and attributes; every eighth row, to be quick."""
    folder = real_data / "ham10000"
    lines = (folder / "metadata.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "some.csv").write_text("\n".join([lines[0], *lines[1::8]]), encoding="utf-8")
    cohort = csv(
        str(tmp_path / "some.csv"), patient="lesion_id", root=str(folder), size=32, attributes=["age", "sex", "site"]
    )
    assert len(cohort) == len(lines[1::8])
    assert cohort.classes == ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    assert (cohort.channels, cohort.task, len(cohort.omitted)) == (3, "multiclass", 0)
    assert cohort.n_patients < len(cohort)
    assert cohort.table["age"].between(0, 90).sum() + cohort.table["age"].isna().sum() == len(cohort)
    assert set(cohort.table["sex"]) <= {"male", "female", "unknown"}
    assert 0.2 < cohort.masks.mean() < 0.5
    grey = cohort.images.mean(axis=1)
    lesion = np.array([g[m > 0].mean() for g, m in zip(grey, cohort.masks, strict=True)])
    skin = np.array([g[m == 0].mean() if (m == 0).any() else np.nan for g, m in zip(grey, cohort.masks, strict=True)])
    assert np.nanmean(lesion < skin) > 0.9  # lesions are darker than the skin around: the masks lie where they should
