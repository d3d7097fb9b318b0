"""The source "medmnist": facts, files and downloads. Whatever a broken or foreign file does is an InputError."""

from __future__ import annotations

import hashlib
import http.server
import threading
import zipfile

import numpy as np
import pytest
import requests

from trueread.cohort import load_cohort, medmnist
from trueread.cohort.medmnist import facts, find_file, parse_location, read_npz
from trueread.errors import InputError

SPLITS = ("train", "val", "test")
COUNTS = {"train": 12, "val": 5, "test": 7}


def made(*, task="binary", n_classes=2, side=28, channels=1, volume=False, swap=False, seed=0):
    """A fact as in medmnist.yaml, and the arrays of its file."""
    generator = np.random.default_rng(seed)
    shape = (side,) * (3 if volume else 2) + ((3,) if channels == 3 else ())
    width = n_classes if task == "multilabel" else 1
    top = 2 if task == "multilabel" else n_classes
    arrays = {}
    for split, n in COUNTS.items():
        arrays[f"{split}_images"] = generator.integers(0, 256, (n, *shape), dtype=np.uint8)
        arrays[f"{split}_labels"] = generator.integers(0, top, (n, width)).astype(np.uint8)
    fact = {
        "task": task,
        "classes": [f"c{i}" for i in range(n_classes)],
        "modality": "ct",
        "channels": channels,
        "volume": volume,
        "splits": COUNTS,
        "licence": "CC BY 4.0",
        "md5": {},
        **({"swap": True} if swap else {}),
    }
    return fact, arrays


def store(path, arrays):
    np.savez_compressed(path, **arrays)
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a made data set under the name "mademnist" and its file into a folder; returns the folder and the arrays."""

    def put(*, side=28, name="mademnist", **options):
        fact, arrays = made(side=side, **options)
        file = tmp_path / medmnist.file_name(name, side)
        fact["md5"][side] = store(file, arrays)
        known = {"url": "http://127.0.0.1:9/{file}", "sets": {**facts()["sets"], name: fact}}
        monkeypatch.setattr(medmnist, "facts", lambda: known)
        return tmp_path, arrays

    return put


def test_the_table_of_facts_is_complete_and_positive_means_disease():
    sets = facts()["sets"]
    assert len(sets) == 18
    assert sum(fact["volume"] for fact in sets.values()) == 6
    for name, fact in sets.items():
        assert fact["volume"] == name.endswith("3d")
        assert list(fact["md5"]) == ([28, 64] if fact["volume"] else [28, 64, 128, 224])
        assert all(len(md5) == 32 and int(md5, 16) >= 0 for md5 in fact["md5"].values())
        assert list(fact["splits"]) == list(SPLITS)
        assert fact["title"].lower() == name
    total = {name: sum(fact["splits"].values()) for name, fact in sets.items()}
    assert (total["pathmnist"], total["chestmnist"], total["breastmnist"], total["vesselmnist3d"]) == (
        107180,
        112120,
        780,
        1908,
    )
    binary = {n: f["classes"][:: -1 if f.get("swap") else 1][1] for n, f in sets.items() if f["task"] == "binary"}
    assert binary == {
        "pneumoniamnist": "pneumonia",
        "breastmnist": "malignant",
        "nodulemnist3d": "malignant",
        "adrenalmnist3d": "hyperplasia",
        "vesselmnist3d": "aneurysm",
        "synapsemnist3d": "excitatory synapse",
    }
    assert [n for n, f in sets.items() if f["task"] == "ordinal"] == ["retinamnist"]
    assert [n for n, f in sets.items() if f["task"] == "multilabel"] == ["chestmnist"]


@pytest.mark.parametrize(
    ("location", "size", "expected"),
    [
        ("breastmnist", None, ("breastmnist", 28)),
        ("BreastMNIST@64", None, ("breastmnist", 64)),
        ("chestmnist", 224, ("chestmnist", 224)),
        ("chestmnist@128", 128, ("chestmnist", 128)),
    ],
)
def test_locations(location, size, expected):
    assert parse_location(location, size) == expected


@pytest.mark.parametrize(
    ("location", "size", "message"),
    [
        ("brestmnist", None, "'brestmnist' is not a MedMNIST data set. Did you mean 'breastmnist'"),
        ("", None, "'' is not a MedMNIST data set. Known: adrenalmnist3d"),
        ("breastmnist@32", None, "breastmnist has no size '32'; choose one of 28, 64, 128, 224"),
        ("nodulemnist3d", 128, "nodulemnist3d has no size '128'; choose one of 28, 64"),
        ("breastmnist@", None, "breastmnist has no size ''"),
        ("breastmnist@64", 28, "are two sizes; give one"),
    ],
)
def test_locations_that_are_none(location, size, message):
    with pytest.raises(InputError, match=message):
        parse_location(location, size)


def test_the_arrays_come_back_channels_first_in_official_splits(install):
    root, arrays = install(task="multiclass", n_classes=5, channels=3)
    cohort = load_cohort("medmnist:mademnist", root=str(root))
    for split in SPLITS:
        rows = cohort.rows(split)
        np.testing.assert_array_equal(np.moveaxis(cohort.images[rows], 1, -1), arrays[f"{split}_images"])
        np.testing.assert_array_equal(cohort.labels[rows], arrays[f"{split}_labels"][:, 0])
    assert cohort.table["id"][0] == "train/000000"
    assert cohort.table["id"].iloc[-1] == "test/000006"
    assert not cohort.patients_known
    assert (cohort.table["patient"] == cohort.table["id"]).all()
    assert (cohort.name, cohort.modality, cohort.white) == ("mademnist", "ct", 255)
    assert cohort.origin["source"] == "medmnist:mademnist@28"
    assert load_cohort("medmnist:mademnist", root=str(root), modality="oct", name="n").modality == "oct"


def test_volumes_multilabel_and_larger_sides(install):
    root, arrays = install(volume=True)
    volumes = load_cohort("medmnist:mademnist", root=str(root))
    assert volumes.images.shape == (24, 1, 28, 28, 28)
    np.testing.assert_array_equal(volumes.images[volumes.rows("val"), 0], arrays["val_images"])
    root, arrays = install(task="multilabel", n_classes=14, side=64)
    many = load_cohort("medmnist:mademnist@64", root=str(root))
    assert (many.name, many.labels.dtype, many.images.shape) == ("mademnist_64", np.float32, (24, 1, 64, 64))
    np.testing.assert_array_equal(many.labels[many.rows("test")], arrays["test_labels"])


def test_swapped_labels_move_with_their_names(install):
    root, arrays = install(swap=True)
    cohort = load_cohort("medmnist:mademnist", root=str(root))
    assert cohort.classes == ("c1", "c0")
    official = np.concatenate([arrays[f"{s}_labels"][:, 0] for s in SPLITS])
    assert [cohort.classes[label] for label in cohort.labels] == [f"c{label}" for label in official]


def test_where_files_are_looked_for(install, tmp_path, monkeypatch):
    root, _ = install()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / ".cache"))
    monkeypatch.delenv("TRUEREAD_DATA", raising=False)
    file = root / "mademnist.npz"
    with pytest.raises(
        InputError, match=r"mademnist.npz is not in .*trueread, .*\.medmnist, and download is off; get http://"
    ):
        load_cohort("medmnist:mademnist", download=False)
    data = tmp_path / "data" / "medmnist"
    for folder in (data, tmp_path / "home" / ".cache" / "trueread", tmp_path / "home" / ".medmnist"):
        folder.mkdir(parents=True)
        file = file.rename(folder / file.name)
        monkeypatch.setenv("TRUEREAD_DATA", str(data.parent))
        assert len(load_cohort("medmnist:mademnist", download=False)) == 24
    with pytest.raises(InputError, match=r"mademnist.npz is not in .*elsewhere, and download is off"):
        load_cohort("medmnist:mademnist", root=str(tmp_path / "elsewhere"), download=False)


def test_a_file_that_is_not_the_official_one_is_refused(install):
    root, arrays = install()
    arrays["train_labels"][0] ^= 1
    store(root / "mademnist.npz", arrays)
    with pytest.raises(
        InputError, match=r"mademnist.npz' has md5 [0-9a-f]{32}, the official file [0-9a-f]{32}; .*delete it"
    ):
        load_cohort("medmnist:mademnist", root=str(root))


@pytest.fixture
def server(tmp_path):
    """A web server of one folder; yields (folder, url template, names that were asked for)."""
    folder, asked = tmp_path / "www", []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *_):
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_port}/{{file}}?download=1", asked
        running.shutdown()
        thread.join()


def test_download_once_verified_and_whole(server, tmp_path, capfd):
    folder, url, asked = server
    md5 = store(folder / "x_64.npz", made()[1])
    root = tmp_path / "new" / "cache"
    for _ in range(2):
        path = find_file("x", 64, md5=md5, root=str(root), download=True, url=url)
        assert path == root / "x_64.npz"
        assert path.read_bytes() == (folder / "x_64.npz").read_bytes()
    assert asked == ["/x_64.npz?download=1"]
    assert [p.name for p in root.iterdir()] == ["x_64.npz"]
    assert capfd.readouterr().err == ""


def test_failed_downloads_say_what_to_do_and_leave_nothing(server, tmp_path):
    folder, url, _ = server
    store(folder / "x.npz", made()[1])
    options = {"md5": "0" * 32, "root": str(tmp_path / "cache"), "download": True}
    with pytest.raises(
        InputError, match=r"x.npz cannot be downloaded from 127.0.0.1:\d+ \(.*hash.*\); get http.* and put it at"
    ):
        find_file("x", 28, **options, url=url)
    with pytest.raises(InputError, match=r"y.npz cannot be downloaded from .*HTTPError"):
        find_file("y", 28, **options, url=url)
    with pytest.raises(InputError, match=r"z.npz cannot be downloaded from 127.0.0.1:9 \(ConnectionError\)"):
        find_file("z", 28, **options, url="http://127.0.0.1:9/{file}")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_hung_server_is_given_up(tmp_path, monkeypatch):
    def hang(*_, **options):
        assert options["timeout"] > 0
        raise requests.exceptions.ReadTimeout

    monkeypatch.setattr(requests, "get", hang)
    with pytest.raises(InputError, match="ReadTimeout"):
        find_file("x", 28, md5="0" * 32, root=str(tmp_path), download=True, url="http://127.0.0.1:9/{file}")


def changed(arrays, key, value):
    return {k: v for k, v in {**arrays, key: value}.items() if v is not None}


def zeros(*shape, dtype=np.uint8):
    return np.zeros(shape, dtype)


WRONG = {
    "missing": ("val_labels", None, "has no array 'val_labels'"),
    "objects": ("train_labels", np.array([[{}]] * 12, dtype=object), "is no .npz file of plain arrays .*allow_pickle"),
    "floats": ("train_images", zeros(12, 28, 28, dtype=np.float32), "must be integers of .*; found float32"),
    "16 bits": ("train_images", zeros(12, 28, 28, dtype=np.uint16), "must be integers of .*; found uint16"),
    "few": ("test_images", zeros(6, 28, 28), r"must be .*\(7, 28, 28\); found uint8 of \(6, 28, 28\)"),
    "colour": ("test_images", zeros(7, 28, 28, 3), "test_images must be"),
    "flat labels": ("test_labels", zeros(7), r"test_labels must be .*\(7, 1\)"),
    "large label": ("test_labels", zeros(7, 1) + 2, r"labels must be in 0..1; found 0..2"),
    "negative label": ("test_labels", zeros(7, 1, dtype=np.int8) - 1, r"labels must be in 0..1; found -1..1"),
    "bomb": ("more", zeros(50_000_000), "would unpack to 50,.* bytes, expected at most"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arrays(tmp_path, case):
    key, value, message = WRONG[case]
    fact, arrays = made()
    store(tmp_path / "x.npz", changed(arrays, key, value))
    with pytest.raises(InputError, match=message):
        read_npz(tmp_path / "x.npz", fact, side=28)


def test_files_that_are_no_archives(tmp_path):
    fact, arrays = made()
    store(tmp_path / "whole.npz", arrays)
    whole = (tmp_path / "whole.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        for key in arrays:
            archive.writestr(f"{key}.npy", b"not an array")
    (tmp_path / "cut.npz").write_bytes(whole[:-300])
    (tmp_path / "empty.npz").write_bytes(b"")
    damaged = bytearray(whole)
    damaged[2000:2100] = b"\xff" * 100
    (tmp_path / "damaged.npz").write_bytes(damaged)
    for name in ("text", "cut", "empty", "damaged"):
        with pytest.raises(InputError, match=f"{name}.npz' is no .npz file|no array|must be"):
            read_npz(tmp_path / f"{name}.npz", fact, side=28)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "counts", "classes"),
    [
        ("breastmnist", [[399, 147], [57, 21], [114, 42]], ("normal, benign", "malignant")),
        ("retinamnist", [[486, 128, 206, 194, 66], [54, 12, 28, 20, 6], [174, 46, 92, 68, 20]], tuple("01234")),
        ("adrenalmnist3d", [[929, 259], [68, 30], [227, 71]][:1], ("normal", "hyperplasia")),
    ],
)
def test_official_files(real_data, name, counts, classes):
    cohort = load_cohort(f"medmnist:{name}", root=str(real_data))
    assert cohort.classes == classes
    assert cohort.is_split
    for split, expected in zip(SPLITS, counts, strict=False):
        np.testing.assert_array_equal(cohort.class_counts(cohort.rows(split)), expected)
