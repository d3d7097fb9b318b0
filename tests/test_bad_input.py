"""Bad input: one sentence that says what was expected, what was found and what to do; and what was finished stays."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import bad_files as bad
from bad_files import Place
from tiny import Foreign, tiny_cohort
from tiny_runs import TRAIN, write_pictures
from trueread import cli, commands, predicting
from trueread.cohort.cohort import Cohort
from trueread.cohort.read import read_image
from trueread.cohort.source import load_cohort
from trueread.cohort.split import assign_splits
from trueread.errors import InputError
from trueread.method.base import build_method
from trueread.model.classifier import Classifier
from trueread.model.predictor import ProbabilityFunction
from trueread.progress import set_quiet

SMALL = ("-s", "size=16")
QUICK = ("-t", "epochs=1", "-t", "batch_size=4", "-t", "precision=fp32", "-t", "threads=1")
BEGUN = {"study.yaml", "split.csv"}  # all that a run which cannot be trained may leave behind
ADVICE = re.compile(  # a verb where a clause begins: "...; check the path.", "Leave it out."
    r"(?:^|[;:.,?] )(?:add|apply|ask|change|check|choose|collect|convert|copy|delete|did you mean|divide|drop|export|"
    r"fill|get|give|install|known|leave|load|loosen|lower|make|mend|move|name|put|raise|remove|rename|replace|restore|"
    r"return|run|save|say|set|split it|split the cohort|store|try|use|wrap|write)\b|`trueread [^`]+` (?:shows|says)",
    re.IGNORECASE,
)


def judge(sentence: str, words: Sequence[str]) -> None:
    """One line for a person: what was found is named, something is advised, and nothing of the machinery shows."""
    assert "\n" not in sentence
    assert len(sentence) < 400, f"{len(sentence)} characters: {sentence}"
    assert sentence.endswith("."), sentence
    assert ADVICE.search(sentence), f"no advice in: {sentence}"
    hidden = ("Traceback", "site-packages", sys.prefix, "pydantic", "<class", "object at 0x", 'File "')
    assert [h for h in hidden if h in sentence] == []
    assert [w for w in words if w not in sentence] == [], sentence


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    yield
    set_quiet(False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, Path]:
    """Good images, and a finished run on them."""
    root = tmp_path_factory.mktemp("finished")
    hospital = write_pictures(root / "hospital", tiny_cohort(n=60))
    set_quiet(True)
    commands.train(f"folder:{hospital}", out=root / "run", source={"size": 16, "patient": r"patient\d+"}, **TRAIN)
    set_quiet(False)
    return hospital, root / "run"


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of writing of every file below."""
    status = {str(p.relative_to(folder)): p.lstat() for p in folder.rglob("*") if not p.is_dir()}
    return {name: (s.st_size, s.st_mtime_ns) for name, s in status.items()}


@pytest.fixture
def place(finished, tmp_path, monkeypatch) -> Iterator[Place]:
    """The working directory of a case, beside a finished run that has to be as it was when the case is over."""
    hospital, run = finished
    before = snapshot(run.parent)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRUEREAD_DEBUG", "")
    yield Place(tmp_path, hospital, run, monkeypatch)
    assert snapshot(run.parent) == before, "a finished run was changed"


def data(p: Place) -> str:
    return f"folder:{p.hospital}"


def run_of(p: Place) -> Path:
    return p.run


def model_of(p: Place) -> Path:
    return p.model


def text_file(p: Place) -> str:
    return bad.write(p.at / "file", "here is a file").name


def report_of(content: str) -> bad.Maker:
    """A run folder whose summary.json was edited."""

    def made(place: Place) -> str:
        bad.write(place.at / "edited" / "summary.json", content)
        return "edited"

    return made


def unfinished(place: Place) -> str:
    """The folder of a run that was killed in training."""
    bad.write(place.at / "killed" / "study.yaml", (place.run / "study.yaml").read_bytes())
    bad.write(place.at / "killed" / "split.csv", (place.run / "split.csv").read_bytes())
    return "killed"


def weights(make: Callable[[Path, Place], Path], name: str) -> bad.Maker:
    return lambda place: "weights=" + make(place.at / name, place).name


def shares(by_split: dict[str, str]) -> str:
    """CSV text whose images i0.png, ... have these classes in these splits, in turn ("ab" is two images)."""
    cells = [(split, label) for split, labels in by_split.items() for label in labels]
    return bad.rows(len(cells), label=lambda i: cells[i][1], split=lambda i: cells[i][0])


TEN = {f"a/{i}.png": bad.encoded(bad.grey(level=20 * i)) for i in range(10)}
JPEG = bad.encoded(bad.grey(64), "JPEG")
BROKEN = {f"{c}/x{i}.jpg": JPEG[: len(JPEG) // 2] for c in "ab" for i in range(20)}
EMPTY = {f"{c}/x{i}.png": b"" for c in "ab" for i in range(20)}
BOMBS = {f"{c}/x{i}.png": bad.bomb_png(30_000) for c in "ab" for i in range(3)}
ALIASES = "\n".join(
    ["x: &a0 [1, 1, 1, 1, 1, 1, 1, 1]"] + [f"x{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 8)}]" for i in range(1, 30)]
)


def train(source: Any, *more: Any) -> tuple[Any, ...]:
    return ("train", source, *SMALL, *QUICK, *more)


def drop(key: str) -> Callable[[dict[str, Any], Path], None]:
    return lambda arrays, _at: arrays.pop(key)


def put(key: str, make: Callable[[np.ndarray, Path], Any]) -> Callable[[dict[str, Any], Path], None]:
    return lambda arrays, at: arrays.update({key: make(arrays[key], at)})


# name of the case, the command (what is callable makes its files first), words that the sentence has to have
COMMANDS: list[tuple[str, tuple[Any, ...], tuple[str, ...]]] = [
    # folders of images
    ("empty folder", train(bad.folder({})), ("/data' has no class folders", "one sub-folder of images per class")),
    ("folder that is not there", train("folder:nowhere"), ("'nowhere' is not a folder",)),
    ("folder that is a file", train(lambda p: f"folder:{text_file(p)}"), ("'file' is not a folder",)),
    ("one class", train(bad.folder(TEN)), ("at least two different classes", "found ['a']")),
    ("class without an image", train(bad.folder({**TEN, "b/x.txt": b"?"})), ("/b' has no image", "1 .txt")),
    ("image beside the classes", train(bad.folder({**TEN, "x.png": b"?"})), ("/x.png' lies beside the class folders",)),
    ("truncated JPEG", train(bad.folder(BROKEN)), ("40 of 40 files cannot be read", "the file is cut short")),
    ("0-byte file", train(bad.folder(EMPTY)), ("40 of 40 files cannot be read", "the file is empty (0 bytes)")),
    ("image bomb", train(bad.folder(BOMBS)), ("6 of 6 files", "more than 100 million pixels",)),
    ("link loop", train(bad.linked("a/loop", "..")), ("loop' is a link to a folder", "not followed")),
    ("link out of the folder", train(bad.linked("a/x.png", "/etc/hostname")), ("is a link to a file outside",)),
    ("patient pattern that never fits", train(bad.folder(TEN | {"b/1.png": TEN["a/1.png"]}), "-s", "patient=p(\\d+)"),
     ("finds no patient in a/0.png",)),
    ("patient pattern that is none", train(data, "-s", "patient=(p"), ("is no regular expression",)),
    ("patient in two splits", train(bad.folder({
        f"{s}/{c}/p{i}.png": TEN["a/1.png"] for s, i in (("train", 0), ("test", 0)) for c in "ab"}),
        "-s", r"patient=p\d+"), ("patient 'p0' is in test and in train",)),
    ("class that is not there", train(data, "-s", "classes=[normal,nodule]"), ("there is no class 'nodule'",)),
    ("environment variable not set", train("folder:$TRUEREAD_NOT_SET/x"), ("$TRUEREAD_NOT_SET", "is not set")),
    # tables
    ("CSV that is not there", train("csv:nothing.csv"), ("nothing.csv cannot be read", "No such file")),
    ("CSV that is a folder", train(lambda p: f"csv:{p.hospital}"), ("cannot be read", "Is a directory")),
    ("CSV without rows", train(bad.table("image,label\n")), ("has no rows below its header",)),
    ("CSV without the label column", train(bad.table(bad.rows(4).replace("label", "lable"), n=4)),
     ("has no column 'label' for the label", "Did you mean 'lable'")),
    ("CSV without the patient column", train(bad.table(bad.rows(4), n=4), "-s", "patient=who"),
     ("has no column 'who' for the patient", "image, label")),
    ("CSV in another encoding", train(bad.table(bad.rows(4, note=lambda _i: "für").encode("latin-1"), n=4)),
     ("row 2: this is not utf-8 text", "encoding=latin-1")),
    ("CSV in an encoding that is none", train(bad.table(bad.rows(4), n=4), "-s", "encoding=utf-7000"),
     ("'utf-7000' is no text encoding",)),
    ("CSV with zero bytes", train(bad.table(b"image,label\ni0.png,\0\n")), ("holds zero bytes",)),
    ("CSV with an open quote",
     train(bad.table('image,label\ni0.png,"a\n')), ("row 2: unexpected end of data", "mend the quotes")),
    ("CSV with a short row", train(bad.table("image,label\ni0.png,a\ni1.png\n", n=2)),
     ("row 3: expected 2 cells as in the header, found 1",)),
    ("CSV with a column twice", train(bad.table("image,label,label\ni0.png,a,b\n", n=1)),
     ("the column 'label' occurs more than once",)),
    ("duplicated id", train(bad.table(bad.rows(4, id=lambda i: i // 2), n=4)), ("row 3: the id '0' is also in row 2",)),
    ("image twice", train(bad.table(bad.rows(3) + "i0.png,a\n", n=4)), ("row 5: the image 'i0.png' is also in row 2",)),
    ("blank label", train(bad.table(bad.rows(4, label=lambda i: "ab "[i % 3]), n=4)), ("row 4: the label is blank",)),
    ("labels that are names", train(bad.table(bad.rows(50, label=lambda i: f"note {i}"), n=1)),
     ("'label' has 50 different values in 50 rows",)),
    ("label out of 0 and 1", train(bad.table("image,x,y\ni0.png,0,1\ni1.png,2,0\n", n=2), "-s", "labels=[x,y]"),
     ("row 3: 'x' is '2'", "Expected 0, 1, or a blank cell")),
    ("path that leaves the folder", train(bad.table("image,label\ni0.png,a\n../../x.png,b\n", n=1)),
     ("row 3: the path '../../x.png' leaves the folder", "root=")),
    ("absolute path outside", train(bad.table("image,label\ni0.png,a\n/etc/passwd,b\n", n=1)),
     ("row 3: the path '/etc/passwd' leaves the folder",)),
    ("unknown split", train(bad.table(bad.rows(4, split=lambda i: "train" if i else "trian"), n=4)),
     ("row 2: the split is 'trian'", "Expected train, val or test")),
    ("patient in train and test", train(bad.table(
        bad.rows(4, patient=lambda i: f"P{i // 2}", split=lambda i: ("train", "test")[i % 2]), n=4)),
     ("row 3: patient 'P0' is in train and in test", "A patient must stay on one side")),
    ("images that are missing", train(bad.table(bad.rows(4))), ("4 of 4 files cannot be read", "no such file")),
    ("missing masks", train(bad.table(bad.rows(4, mask=lambda i: f"m{i}.png"), n=4)),
     ("4 of 4 files cannot be read", "mask: no such file", "i0.png")),
    ("masks of another shape", train(bad.table(
        bad.rows(4, mask=lambda i: f"m{i}.png"),
        {f"m{i}.png": bad.encoded(bad.grey().resize((40, 16))) for i in range(4)},
        n=4)), ("the mask is 40 x 16, another shape than its image",)),
    ("too few patients", train(bad.table(bad.rows(4, patient=lambda i: f"P{i // 2}"), n=4)),
     ("2 patients cannot be shared among train, val, test",)),
    ("empty training split", train(bad.table(shares({"val": "ab", "test": "ab"}), n=4)),
     ("the training split is empty",)),
    ("class absent from training", train(bad.table(shares({"train": "aaaaaa", "val": "ab", "test": "ab"}), n=10)),
     ("the training split has no image of class 'b'",)),
    ("one-class validation", train(bad.table(shares({"train": "aabbab", "val": "aa", "test": "ab"}), n=10)),
     ("the validation split has one class only, so auroc can select no epoch",)),
    # archives
    ("npz that is another file", ("train", bad.mademnist(drop("val_labels"), official=False)),
     ("mademnist.npz' has md5", "the official file")),
    ("npz with a pickled object", ("train", bad.mademnist(put("train_images", lambda a, at: np.array(
        [bad.Payload(at)] * len(a), dtype=object)))), ("is no .npz file of plain arrays", "Object arrays")),
    ("npz missing a key", ("train", bad.mademnist(drop("val_labels"))), ("has no array 'val_labels'",)),
    ("npz of floats", ("train", bad.mademnist(put("test_images", lambda a, _at: a / 255))),
     ("test_images must be", "(7, 28, 28)", "found float64")),
    ("npz of another shape", ("train", bad.mademnist(put("train_images", lambda a, _at: a[:, :20]))),
     ("train_images must be", "(12, 28, 28)", "(12, 20, 28)")),
    ("npz with a label out of range", ("train", bad.mademnist(put("val_labels", lambda a, _at: a + 7))),
     ("labels must be in 0..1", "found 0..8")),
    ("npz with negative labels", ("train", bad.mademnist(put("val_labels", lambda a, _at: a.astype(np.int8) - 3))),
     ("labels must be in 0..1", "found -3..1")),
    ("npz bomb", ("train", bad.mademnist_bytes(lambda _c: bad.packed_zeros(64 * 2**20))),
     ("would unpack to", "expected at most")),
    ("npz cut short", ("train", bad.mademnist_bytes(lambda c: c[: len(c) // 2])), ("is no .npz file of plain arrays",)),
    ("npz of 0 bytes", ("train", bad.mademnist_bytes(lambda _c: b"")), ("is no .npz file of plain arrays",)),
    ("data set that is none", train("medmnist:brestmnist"), ("'brestmnist' is not a MedMNIST data set", "breastmnist")),
    ("data set in no such size", ("train", "medmnist:breastmnist@31"), ("breastmnist has no size '31'", "28, 64, 128")),
    # names and options
    ("unknown source", train("phantm"), ("'phantm' is not a source", "Did you mean 'phantom'")),
    ("unknown source option", ("train", "phantom", "-s", "n_image=5"),
     ("'n_image' is not an option here", "'n_images'")),
    ("wrong type of option", ("train", "phantom", "-s", "n_images=many"),
     ("'n_images' must be a valid integer", "'many'")),
    ("source option out of range", train(data, "-s", "size=4"), ("'size' must be greater than or equal to 16", "4")),
    ("option without a value", train(data, "-s", "size"), ("'size' must be KEY=VALUE",)),
    ("unknown method", ("train", "phantom", "-m", "focal-loss"), ("'focal-loss' is not a method", "'focal'")),
    ("unknown method option", train(data, "-m", "focal", "-x", "gama=1"), ("'gama' is not an option", "'gamma'")),
    ("method option out of range", train(data, "-m", "focal", "-x", "gamma=-1"),
     ("method 'focal'", "'gamma' must be greater than or equal to 0", "found -1")),
    ("option for a method without any", train(data, "-m", "erm", "-x", "gamma=1"), ("'gamma' is not an option here",)),
    ("two replaced losses", train(data, "-m", "focal+logit-adjustment"),
     ("'focal' and 'logit-adjustment' both replace the per-sample loss",)),
    ("a method twice", train(data, "-m", "mixup+mixup"), ("'mixup' is named twice",)),
    ("an empty part of a method", train(data, "-m", "focal+"), ("'focal+' is no method", "write one name")),
    ("unknown backbone", train(data, "-t", "backbone=monai:resnet19"), ("'resnet19' is not a MONAI network",)),
    ("hub weights of compact", train(data, "-t", "weights=hub"), ("'compact' has no weights on the hub",)),
    ("unknown recipe", train(data, "-t", "augment=heavy"), ("'heavy' is not",)),
    ("unknown training key", train(data, "-t", "epoch=5"), ("'epoch' is not an option here", "'epochs'")),
    ("no epochs", train(data, "-t", "epochs=0"), ("'epochs' must be greater than or equal to 1", "found 0")),
    ("negative epochs", train(data, "-t", "epochs=-3"), ("'epochs' must be greater than or equal to 1", "found -3")),
    ("learning rate nan", train(data, "-t", "learning_rate=.nan"), ("'learning_rate' must be", "nan")),
    ("threshold rule out of range", train(data, "-t", "threshold_rule=1.5"), ("'1.5' is no rule for a threshold",)),
    ("sensitivity out of range", train(data, "-t", "threshold_rule=sensitivity>=1.2"), ("is no rule for a threshold",)),
    ("batch larger than the cohort", train(data, "-t", "batch_size=999"), ("batch_size is 999", "training images")),
    ("seed that is no number", train(data, "--seed", "one"), ("Invalid value for '--seed'", "valid integer")),
    ("unknown kind of list", ("list", "method"), ("'method' is not a kind of thing to list", "'methods'")),
    ("unknown command", ("trian",), ("No such command 'trian'",)),
    ("unknown flag", ("train", data, "--epochs", "3"), ("No such option", "--epochs")),
    ("nothing to study", ("run",), ("say what to study",)),
    # run folders
    ("run folder that is a file", train(data, "-o", text_file), ("file cannot be made", "--out")),
    ("run folder below a file", train(data, "-o", lambda p: f"{text_file(p)}/x"), ("file/x cannot be made", "--out")),
    ("run folder with a name that is too long", train(data, "-o", "x" * 300), ("cannot be made", "too long")),
    ("run folder of another study", train(data, "-o", run_of), ("holds a run of another study",)),
    # studies
    ("study that is not there", ("run", "nothing.yaml"), ("there is no study file nothing.yaml",)),
    ("study that is a folder", ("run", "."), ("there is no study file .",)),
    ("study that is not YAML", ("run", bad.study("data: [phantom")),
     ("study.yaml is not valid YAML", "(line 1, column 15)")),
    ("study that is a list", ("run", bad.study("- phantom")), ("must be a YAML mapping", "found list")),
    ("study that is empty", ("run", bad.study("")), ("must be a YAML mapping", "found NoneType")),
    ("study that is binary", ("run", bad.study(b"\xff\xfe\x00\x81")), ("is not valid YAML",)),
    ("study with an alias bomb", ("run", bad.study(ALIASES)), ("aliases (*) are not read", "write the value out")),
    ("study nested without end", ("run", bad.study("data: " + "[" * 5000)), ("study.yaml is not valid YAML", "nested")),
    ("study that runs code", ("run", bad.study("data: !!python/object/apply:os.mkdir [planted]")),
     ("is not valid YAML", "tag")),
    ("study with a number that is none", ("run", bad.study("data: phantom\nseeds: 0x_")),
     ("study.yaml is not valid YAML", "this is no int", "line 2")),
    ("study with bytes", ("run", bad.study("data: phantom\ndescription: !!binary AAAA")),
     ("is not valid YAML", "binary")),
    ("study with a key twice", ("run", bad.study("data: phantom\nseeds: 1\nseeds: 2")), ("'seeds' is given twice",)),
    ("study with a misspelt key", ("run", bad.study({"sead": 3})), ("'sead' is not an option here", "'seeds'")),
    ("study with a misspelt training key", ("run", bad.study({"train": {"epoch": 3}})), ("'train.epoch'", "'epochs'")),
    ("study without data", ("run", bad.study("seeds: 2")), ("'data' is missing",)),
    ("study with a numbered key", ("run", bad.study({3: 4})), ("the key 3 must be text", "Put it in quotes")),
    ("seeds empty", ("run", bad.study({"seeds": []})), ("seeds must be distinct and at least one", "found []")),
    ("seeds duplicated", ("run", bad.study({"seeds": [1, 2, 1]})), ("seeds must be distinct", "[1, 2, 1]")),
    ("no seeds", ("run", "--data", "phantom", "--seeds", "0"), ("a number of seeds must be 1 to 1000", "found 0")),
    ("methods empty", ("run", bad.study({"methods": []})), ("'methods' must have at least 1 item",)),
    ("key called like a type", ("run", bad.study({"int": 3})), ("'int' is not an option here",)),
    ("number of 5000 digits", ("run", bad.study("data: phantom\nresamples: 0x" + "f" * 5000)), ("'resamples' must", )),
    ("negative seed", ("run", bad.study({"seeds": [-1]})), ("'seeds.0' must be greater than or equal to 0", "-1")),
    ("name of 300 letters", ("run", bad.study({"name": "x" * 300})), ("'name' must have at most 100 characters",)),
    ("name that is a number", ("run", bad.study({"name": 2024})), ("'name' must be a valid string", "in quotes")),
    ("text with a zero byte", ("run", bad.study('data: "folder:a\\0b"')),
     ("is not valid YAML", "a zero byte", "line 1")),
    ("text with half a character", ("run", bad.study('data: phantom\ndescription: "\\ud800"')),
     ("is not valid YAML", "surrogates", "line 2")),
    ("shares that leave nothing", ("run", bad.study({"split": {"val": 0.6, "test": 0.5}})), ("found 0.6 + 0.5",)),
    ("threshold nan", ("run", bad.study({"thresholds": {"performance": float("nan")}})),
     ("'thresholds.performance' must be a finite number", "nan")),
    ("threshold infinite", ("run", bad.study("data: phantom\nthresholds: {performance: .inf}")), ("finite", "inf")),
    ("threshold of no audit", ("run", bad.study({"thresholds": {"performence": 0.9}})),
     ("'performence' is not an audit",)),
    ("audit that is none in a study", ("run", bad.study({"audits": ["perf"]})), ("'perf' is not an audit",)),
    ("audit without a name", ("run", bad.study({"audits": [{"bins": 3}]})), ("an audit needs a name",)),
    ("audit option out of range", ("run", bad.study({"audits": [{"name": "calibration", "bins": 0}]})),
     ("audit 'calibration'", "'bins' must be greater than", "found 0")),
    ("split file that is not there", ("run", bad.study({"split": {"file": "nothing.csv"}, "data": {
        "source": "phantom", "n_images": 40, "size": 32}})), ("nothing.csv cannot be read",)),
    # audits
    ("audit of a folder without a card", ("audit", lambda p: p.hospital, data), ("there is no saved classifier",)),
    ("unknown audit", ("audit", run_of, data, "--audits", "performence"), ("'performence' is not an audit", "'perf")),
    ("the same audit twice", ("audit", run_of, data, "--audits", "performance,performance"), ("is asked twice",)),
    ("model of other classes", ("audit", run_of, bad.classes({})), ("there is no class 'mild'", "It has a, b")),
    ("model of another task", ("audit", bad.card(task="multilabel"), data), ("differ in task", "multilabel", "binary")),
    ("model of another size", ("audit", run_of, data, "-s", "size=20"), ("differ in size", "[16, 16]", "[20, 20]")),
    ("model of other channels", ("audit", run_of, data, "-s", "channels=3"), ("differ in channels", "has 1", "3")),
    ("findings that cannot be written", ("audit", run_of, data, "-o", text_file), ("cannot be written", "-o")),
    # checks
    ("check of data that are not there", ("check", "folder:nowhere"), ("'nowhere' is not a folder",)),
    ("unknown check", ("check", data, "--only", "unreadabel"), ("'unreadabel' is not a check", "'unreadable'")),
    ("check into a file", ("check", data, *SMALL, "-o", text_file), ("file", "cannot be made")),
    ("check with a split that is not there", ("check", data, *SMALL, "--split", "nothing.csv", "-o", "c"),
     ("nothing.csv cannot be read",)),
    ("check with a split of other data", ("check", data, *SMALL, "-o", "c", "--split", lambda p: bad.write(
        p.at / "s.csv", "id,patient,split\nx,y,train\n")),
        ("s.csv: 60 images are not in it", "It was made for other data")),
    ("check with a negative seed", ("check", data, "--seed", "-1"), ("'--seed'", "greater than or equal to 0")),
    # saved classifiers
    ("card that is not JSON", ("predict", bad.model(lambda m, _p: (m / "card.json").write_text("{,")), data),
     ("card.json is not valid JSON", "restore the card")),
    ("card that is a list", ("predict", bad.model(lambda m, _p: (m / "card.json").write_text("[]")), data),
     ("card.json must be a JSON object; found list",)),
    ("card nested without end", ("predict", bad.model(lambda m, _p: (m / "card.json").write_text("[" * 99_999)), data),
     ("card.json is not valid JSON", "restore the card")),
    ("card that is binary", ("predict", bad.model(lambda m, _p: (m / "card.json").write_bytes(b"\xff\x00")), data),
     ("card.json is not valid JSON",)),
    ("card with an unknown key", ("predict", bad.card(colour=3), data), ("'colour' is not an option here",)),
    ("card without its classes", ("predict", bad.card(classes=None), data), ("'classes' is missing",)),
    ("card with another class", ("predict", bad.card(classes=["a", "b", "c"], task="multiclass"), data),
     ("do not fit its card", "restore the card")),
    ("card with other channels", ("predict", bad.card(channels=3, mean=[0.5] * 3, std=[0.5] * 3), data),
     ("do not fit its card", "restore the card")),
    ("card of a huge image", ("predict", bad.card(size=[10**7, 10**7]), data), ("size", "10000000")),
    ("card with a threshold out of range", ("predict", bad.card(threshold=1.5), data),
     ("'threshold' must be less than or equal to 1", "found 1.5")),
    ("card with a nan", ("predict", bad.card(temperature=float("nan")), data), ("'temperature' must be", "nan")),
    ("card of the future", ("predict", bad.card(format=2), data), ("'format' must be 1", "found 2")),
    ("model without its weights", ("predict", bad.model(lambda m, _p: (m / "weights.safetensors").unlink()), data),
     ("there is no weights file",)),
    ("weights truncated", ("predict", bad.model(lambda m, _p: os.truncate(m / "weights.safetensors", 5000)), data),
     ("is not a readable weights file", "may be truncated")),
    ("weights of 0 bytes", ("predict", bad.model(lambda m, _p: os.truncate(m / "weights.safetensors", 0)), data),
     ("is not a readable weights file",)),
    ("weights of another network", ("predict", bad.model(
        lambda m, _p: bad.other_weights(m / "weights.safetensors")), data), ("do not fit its card",)),
    ("weights that are a pickle", ("predict", bad.model(lambda m, p: bad.bare_pickle(
        m / "weights.safetensors", p)), data), ("is not a readable weights file",)),
    ("weights to start from that are a pickle", train(data, "-t", weights(bad.bare_pickle, "w.pt")),
     ("w.pt is not a readable weights file",)),
    ("weights to start from with code", train(data, "-t", weights(bad.pickled_weights, "w.pt")),
     ("w.pt is not a readable weights file",)),
    ("weights to start from that are not there", train(data, "-t", "weights=w.pt"), ("there is no weights file w.pt",)),
    ("weights to start from of another network", train(data, "-t", weights(lambda w, _p: bad.other_weights(w),
        "w.safetensors")), ("w.safetensors fits 0 of the",)),
    # predictions
    ("predict without an image", ("predict", run_of), ("Missing argument 'IMAGE...'",)),
    ("predict of a folder without images", ("predict", run_of, "."), ("there is no image in .",)),
    ("predict of a file that is not there", ("predict", run_of, "x.png"), ("there is no file or folder x.png",)),
    ("predict of text", ("predict", run_of, text_file), ("none of 1 files can be predicted", "not an image")),
    ("predict of 16 bits with a model of 12", ("predict", bad.card(white=4095), lambda p: bad.write(
        p.at / "x.png", bad.encoded(bad.Image.fromarray(np.full((16, 16), 60_000, np.uint16))))),
     ("than the model's white (4095)", "60000", "4095")),
    ("predictions that cannot be written", ("predict", run_of, data, "-o", lambda p: f"{text_file(p)}/p.csv"),
     ("file/p.csv cannot be written", "-o")),
    ("overlays that cannot be written", ("predict", run_of, data, "--explain", text_file), ("cannot be", "--explain")),
    # reports
    ("report on an unfinished run", ("report", unfinished), ("killed is no finished run", "summary.json")),
    ("report on a summary that is not JSON", ("report", report_of("{")), ("summary.json is not valid JSON",)),
    ("report on a summary that is a list", ("report", report_of("[1]")), ("'title' is missing",)),
    ("report on a summary of other things", ("report", report_of('{"title": 1, "cohort": 2, "methods": 3}')),
     ("summary.json was edited: its 'cohort'", "Run the study again")),
    ("report on a summary with other methods",
     ("report", report_of('{"title": "x", "cohort": {"a": 1}, "methods": [3]}')),
     ("summary.json was edited: its 'methods'", "Run the study again")),
]  # fmt: skip


def cases(table: Sequence[tuple[str, Any, Any]]) -> list[Any]:
    """The rows of a table as parameters."""
    return [pytest.param(*row, id=name.replace(" ", "-")) for name, *row in table]


def called(arguments: Sequence[Any], place: Place, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a quiet command, whose callable arguments are made first."""
    made = [str(a(place) if callable(a) else a) for a in arguments]
    made = [a.removeprefix("folder:") if made[0] == "predict" else a for a in made]
    place.made = snapshot(place.at)
    place.patch.setattr(sys, "argv", ["trueread", "--quiet", *made])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0), *capsys.readouterr()


def one_sentence(answer: tuple[int, str, str], words: Sequence[str]) -> None:
    code, out, err = answer
    assert (code, out) == (2, "")
    assert err.startswith("trueread: ")
    assert err.count("\n") == 1, err
    judge(err.removeprefix("trueread: ").removesuffix("\n"), words)


@pytest.mark.parametrize(("command", "words"), cases(COMMANDS))
def test_a_mistake_is_one_sentence(place, capsys, command, words):
    one_sentence(called(command, place, capsys), words)
    new = snapshot(place.at).keys() - place.made.keys()
    assert {Path(name).name for name in new} <= BEGUN  # no half-written file, and no payload was run
    assert {k: v for k, v in snapshot(place.at).items() if k in place.made} == place.made


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unknown backbone of timm", "weights to start from with code", "link loop"])
def test_a_mistake_in_a_process_of_its_own(place, name):
    """As people meet it: nothing of an interpreter, its warnings or its end shows."""
    table = {row[0]: row[1:] for row in COMMANDS}
    table["unknown backbone of timm"] = (
        train(data, "-t", "backbone=resnet19"),
        ("'resnet19' is not a backbone", "resnet18"),
    )
    command, words = table[name]
    made = [str(a(place) if callable(a) else a) for a in command]
    done = subprocess.run(
        [sys.executable, "-m", "trueread", "--quiet", *made],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    one_sentence((done.returncode, done.stdout, done.stderr), words)
    assert not (place.at / bad.PLANTED).exists()


def test_the_payload_does_harm_where_it_is_let(place):
    """Or the tests above would prove nothing."""
    import pickle

    for path in (bad.bare_pickle(place.at / "p", place), bad.pickled_weights(place.at / "w", place)):
        if path.name == "p":
            pickle.loads(path.read_bytes()).close()
        else:
            torch.load(path, weights_only=False)["payload"].close()
        (place.at / bad.PLANTED).unlink()


class TestAfterwards:
    """What a mistake leaves behind is in nobody's way."""

    AGAIN = (
        "train",
        data,
        *SMALL,
        "-s",
        r"patient=patient\d+",
        *(x for k, v in TRAIN.items() for x in ("-t", f"{k}={v}")),
    )

    @pytest.mark.parametrize("wrong", cases([
        (wrong, wrong) for wrong in ("batch_size=999", "backbone=monai:resnet19", "augment=heavy", "weights=hub")
    ]))  # fmt: skip
    def test_the_corrected_command_runs_in_the_same_folder(self, place, capsys, wrong):
        assert called((*self.AGAIN, "-t", wrong, "-o", "run"), place, capsys)[0] == 2
        code, _, err = called((*self.AGAIN, "-o", "run"), place, capsys)
        assert (code, err) == (0, "")

    def test_a_corrected_split_column_is_what_counts(self, place, capsys):
        """Validation has one class at first; then two images change places in the table."""
        for sides, code in (("train train train train train val val test test train", 2),
                            ("train train train train val val train test test train", 0)):  # fmt: skip
            text = bad.rows(10, label=lambda i: "abababbaba"[i], split=lambda i, sides=sides: sides.split()[i])
            command = train(bad.table(text, n=10), "-t", "augment=none", "-t", "device=cpu", "-o", "run")
            assert called(command, place, capsys)[0] == code

    @pytest.mark.parametrize(("damage", "words"), cases([
        ("predictions cut short", lambda cell: os.truncate(cell / "predictions.csv", 300),
         ("predictions.csv", "damaged")),
        ("predictions empty", lambda cell: os.truncate(cell / "predictions.csv", 0), ("predictions.csv", "damaged")),
        ("predictions of other classes", lambda cell: edit(cell / "predictions.csv", "p:mild", "p:x"),
         ("predictions.csv",)),
        ("predictions that are binary", lambda cell: (cell / "predictions.csv").write_bytes(b"\xff\x00"),
         ("predictions.csv",)),
        ("method file missing", lambda cell: (cell / "method.json").unlink(), ("method.json", "damaged")),
        ("method file broken", lambda cell: (cell / "method.json").write_text("{"), ("method.json", "damaged")),
        ("method file a list", lambda cell: (cell / "method.json").write_text("[]"), ("method.json", "damaged")),
        ("history missing", lambda cell: (cell / "history.csv").unlink(), ("history.csv", "damaged")),
        ("history of other columns", lambda cell: (cell / "history.csv").write_text("x\n"), ("history.csv", "damaged")),
        ("weights of a run cut short", lambda cell: os.truncate(cell / "model" / "weights.safetensors", 400),
         ("is not a readable weights file",)),
        ("study of a run broken", lambda cell: (cell.parents[2] / "study.yaml").write_text("["),
         ("is not valid YAML",)),
        ("split of a run broken", lambda cell: (cell.parents[2] / "split.csv").write_text("id,split\n"),
         ("split.csv", "rows")),
        ("split of a run with other sides", lambda cell: edit(cell.parents[2] / "split.csv", ",test", ",train"),
         ("the test split is empty",)),
        ("a file where a folder should be", lambda cell: (shutil.rmtree(cell.parents[2] / "figures",
         ignore_errors=True),
         (cell.parents[2] / "figures").write_text("")), ("Not a directory", "figures")),
    ]))  # fmt: skip
    def test_a_damaged_run_is_named_and_never_mixed_with_new_numbers(self, place, capsys, damage, words):
        shutil.copytree(place.run, place.at / "run")
        cell = place.at / "run" / "methods" / "erm" / "seed-0"
        damage(cell)
        trained = snapshot(cell)
        one_sentence(called((*self.AGAIN, "-o", "run"), place, capsys), words)
        assert snapshot(cell) == trained


def edit(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def cohort(**changed: Any) -> Cohort:
    return dataclasses.replace(tiny_cohort(n=30), **changed)


def table_of(**columns: Any) -> pd.DataFrame:
    return tiny_cohort(n=30).table.assign(**columns)


def saved(p: Place) -> Classifier:
    return Classifier.load(p.model)


def function(answer: Any, **facts: Any) -> ProbabilityFunction:
    """A model that gives the same answer for every image."""
    given = {"classes": ("normal", "mild"), "size": (16, 16), "channels": 1, **facts}
    return ProbabilityFunction(lambda images: [answer] * len(images), **given)


PIXEL = torch.zeros(2, 1, 16, 16)

PYTHON: list[tuple[str, Callable[[Place], Any], tuple[str, ...]]] = [
    # cohorts
    ("NaN pixel in a cohort", lambda _p: cohort(images=np.full((30, 1, 16, 16), np.nan, np.float32)),
     ("images must be uint8 or uint16", "found float32", "Store intensities as integers")),
    ("images without a channel axis", lambda _p: cohort(images=np.zeros((30, 16, 16), np.uint8)),
     ("images must be [N,C,H,W]", "found shape (30, 16, 16)")),
    ("no images", lambda _p: cohort(images=np.zeros((0, 1, 16, 16), np.uint8)), ("there is no image in it",)),
    ("brighter than white", lambda _p: cohort(white=10), ("white is declared as 10", "an image reaches")),
    ("NaN labels", lambda _p: cohort(labels=np.full(30, np.nan)), ("labels must be int64", "found float64")),
    ("labels one too few", lambda _p: cohort(labels=np.zeros(29, np.int64)), ("of shape (30,)", "(29,)")),
    ("labels out of range", lambda _p: cohort(labels=np.full(30, 7)), ("labels must be in 0..1", "found 7..7")),
    ("multilabel labels of 2", lambda _p: cohort(task="multilabel", labels=np.full((30, 2), 2, np.float32)),
     ("multilabel labels must be 0, 1 or nan",)),
    ("one class name", lambda _p: cohort(classes=("normal",)), ("needs exactly two classes", "['normal']")),
    ("one class name twice", lambda _p: cohort(classes=("a", "a")), ("must differ from each other", "['a', 'a']")),
    ("task that is none", lambda _p: cohort(task="regression"), ("the task must be one of", "'regression'")),
    ("masks of another size", lambda _p: cohort(masks=np.zeros((30, 8, 8), np.uint8)),
     ("masks must be uint8 of shape (30, 16, 16)", "(30, 8, 8)")),
    ("ids twice", lambda _p: cohort(table=table_of(id=["x"] * 30)), ("ids must be unique", "'x'")),
    ("ids that are numbers", lambda _p: cohort(table=table_of(id=range(30))), ("ids must be text", "astype(str)")),
    ("patient unknown", lambda _p: cohort(table=table_of(patient=None)), ("the patient is missing",)),
    ("patients in two splits", lambda _p: cohort(table=table_of(patient=["a", "b"] * 15, split=["train", "train",
     "test"] * 10)),
     ("patient 'a' is in test and in train", "drop the split column")),
    ("split of another name", lambda _p: cohort(table=table_of(split="tarin")), ("split must be", "'tarin'")),
    ("table one row too short", lambda _p: cohort(table=table_of().iloc[1:]), ("30 rows", "found 29 rows")),
    ("nothing selected", lambda _p: cohort().subset([]), ("no image is left",)),
    ("impossible shares", lambda _p: assign_splits(cohort(), val=0.6, test=0.6),
     ("shares in [0, 1)", "found 0.6 and 0.6")),
    ("path with a zero byte", lambda _p: load_cohort("folder:a\0b"), ("a zero byte",)),
    ("root with a zero byte", lambda p: load_cohort(bad.table(bad.rows(4), n=4)(p), root="\0"), ("a zero byte",)),
    ("source option called data", lambda _p: load_cohort("phantom", data=3), ("'data' is not an option here",)),
    # models
    ("NaN pixel for a classifier", lambda p: saved(p)(PIXEL * float("nan")),
     ("images must be in [0,1]", "found nan to nan")),
    ("stored intensities for a classifier", lambda p: saved(p)(PIXEL + 255),
     ("images must be in [0,1]", "255", "Divide")),
    ("normalised images for a classifier", lambda p: saved(p)(PIXEL - 1.5), ("images must be in [0,1]", "found -1.5")),
    ("one image without a batch", lambda p: saved(p)(PIXEL[0]), ("[B, 1, 16, 16]", "found [1, 16, 16]", "batch")),
    ("colour for a grey classifier", lambda p: saved(p)(PIXEL.expand(2, 3, 16, 16)),
     ("[B, 1, 16, 16]", "[2, 3, 16, 16]")),
    ("unknown tap", lambda p: saved(p)(PIXEL, taps=["stage9"]), ("'stage9' is not a tap", "Did you mean 'stage")),
    ("std of zero", lambda _p: Classifier.wrap(Foreign(), classes="ab", size=(16, 16), channels=1, mean=[0.5], std=[0]),
     ("std above 0", "Mend the description")),
    ("a function's threshold out of range", lambda _p: function([0.5, 0.5], threshold=1.5),
     ("'threshold' must be", "1.5")),
    ("probabilities that sum to 1.6", lambda _p: function([0.8, 0.8]).probabilities(PIXEL),
     ("must sum to 1", "found 1.6")),
    ("probabilities that sum to 0", lambda _p: function([0.0, 0.0]).probabilities(PIXEL), ("must sum to 1", "found 0")),
    ("logits for probabilities", lambda _p: function([-2, 2]).probabilities(PIXEL),
     ("values in [0,1]", "-2 to 2", "not logits")),
    ("probabilities with nan", lambda _p: function([np.nan, 1]).probabilities(PIXEL), ("values in [0,1]", "nan")),
    ("probabilities of one column", lambda _p: function([1.0]).probabilities(PIXEL), ("(2, 2) values", "shape (2, 1)")),
    ("probabilities that are words", lambda _p: function(["a", "b"]).probabilities(PIXEL),
     ("(2, 2) values", "found list")),
    ("a network that nobody wrapped", lambda _p: commands.audit(Foreign(), cohort()),
     ("a Foreign does not say what it reads",)),
    ("a cohort of other classes", lambda p: commands.audit(p.run, cohort(classes=("a", "b"))),
     ("differ in classes", "['a', 'b']")),
    # work
    ("unknown setting of training", lambda p: commands.train(cohort(), out=p.at / "x", epoch=3),
     ("'train.epoch'", "'epochs'")),
    ("options of composed methods", lambda _p: build_method("focal+mixup", gamma=1),
     ("by method name", "found 'gamma'")),
    ("study that is a number", lambda p: commands.run({"data": 3}, out=p.at / "x"), ("'data' must be", "found 3")),
    ("cohort without a test split", lambda p: commands.train(cohort(table=table_of(split="train")), out=p.at / "x", **{
        **TRAIN, "batch_size": 99}), ("batch_size is 99", "training images")),
    ("predict without files", lambda p: predicting.predict(p.run, []), ("there is no image", "give image files")),
]  # fmt: skip


@pytest.mark.parametrize(("call", "words"), cases(PYTHON))
def test_a_mistake_in_python_is_the_same_sentence(place, call, words):
    set_quiet(True)
    with pytest.raises(InputError) as error:
        call(place)
    judge(str(error.value), words)


SQUARE = np.asarray(bad.grey())  # 16 x 16, so that nothing is resized
RED = np.stack([SQUARE, SQUARE // 2, SQUARE // 5], axis=-1)
SEEN = np.where(np.arange(16) < 8, 255, 0).astype(np.uint8)[None].repeat(16, 0)  # opaque on the left


def palette() -> Image.Image:
    image = Image.fromarray(SQUARE // 16).convert("P")
    image.putpalette([c for i in range(256) for c in (i, 255 - i, i // 2)])
    image.putdata(list((SQUARE // 16).ravel()))
    return image


def with_alpha(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack([pixels, SEEN]))


def frames(kind: str) -> bytes:
    """An animation whose first frame is the square."""
    others = [Image.fromarray(255 - SQUARE), Image.fromarray(np.zeros_like(SQUARE))]
    return bad.encoded(bad.grey(), kind, save_all=True, append_images=others)


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    return bad.encoded(Image.fromarray(np.rot90(RED)), "PNG", exif=exif)


HIDDEN = np.where(SEEN == 255, 1, 0)
INDEX = SQUARE // 16
COLOURS = np.stack([INDEX, 255 - INDEX, INDEX // 2])
DEEP = SQUARE.astype(np.uint16) * 200 + 7

# name of the case, the file, channels, the pixels [C,16,16], and how far they may be off (JPEG loses some)
FINE: list[tuple[str, bytes, int, np.ndarray, int]] = [
    ("grey PNG", bad.encoded(bad.grey()), 1, SQUARE[None], 0),
    ("grey PNG in colour", bad.encoded(bad.grey()), 3, SQUARE[None].repeat(3, 0), 0),
    ("16-bit PNG", bad.encoded(Image.fromarray(DEEP)), 1, DEEP[None], 0),
    ("16-bit TIFF", bad.encoded(Image.fromarray(DEEP), "TIFF"), 1, DEEP[None], 0),
    ("RGBA PNG", bad.encoded(with_alpha(RED)), 3, RED.transpose(2, 0, 1) * HIDDEN, 0),
    ("grey PNG with alpha", bad.encoded(with_alpha(SQUARE)), 1, SQUARE[None] * HIDDEN, 0),
    ("palette PNG", bad.encoded(palette()), 3, COLOURS, 0),
    ("palette PNG with a transparent colour", bad.encoded(palette(), transparency=15), 3, COLOURS * (INDEX != 15), 0),
    ("CMYK TIFF", bad.encoded(Image.merge("CMYK", [*Image.fromarray(255 - RED).split(), Image.new("L",
     (16, 16))]), "TIFF"),
     3, RED.transpose(2, 0, 1), 0),
    ("CMYK JPEG", bad.encoded(Image.new("CMYK", (16, 16), (10, 200, 60, 0)), "JPEG", quality=100), 3,
     np.array([245, 55, 195])[:, None, None].repeat(16, 1).repeat(16, 2), 4),
    ("animated GIF", frames("GIF"), 1, SQUARE[None], 0),
    ("animated WebP", frames("WEBP"), 1, SQUARE[None], 6),
    ("TIFF of several pages", frames("TIFF"), 1, SQUARE[None], 0),
    ("1-bit PNG", bad.encoded(Image.fromarray(SQUARE > 100)), 1, np.where(SQUARE > 100, 255, 0)[None], 0),
    ("PNG turned by EXIF", turned(), 3, RED.transpose(2, 0, 1), 0),
    ("progressive JPEG", bad.encoded(bad.grey(), "JPEG", progressive=True, quality=95), 1, SQUARE[None], 12),
    ("BMP", bad.encoded(Image.fromarray(RED), "BMP"), 3, RED.transpose(2, 0, 1), 0),
    ("one pixel", bad.encoded(Image.new("L", (1, 1), 77)), 1, np.full((1, 16, 16), 77), 0),
    ("a line of 1 x 5000", bad.encoded(Image.new("L", (5000, 1), 77)), 1, np.full((1, 16, 16), 77), 0),
    ("PNG with rubbish after its end", bad.encoded(bad.grey()) + b"rubbish" * 99, 1, SQUARE[None], 0),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "channels", "pixels", "slack"), cases(FINE))
def test_odd_pictures_are_read_as_people_see_them(tmp_path, raw, channels, pixels, slack):
    """Under whatever ending: what a file is, is told by its bytes."""
    for name in ("x.png", "X.JPG"):
        found = read_image(bad.write(tmp_path / name, raw), size=16, channels=channels)
        assert found.dtype == (np.uint16 if pixels.max() > 255 else np.uint8)
        assert np.abs(found.astype(int) - pixels).max() <= slack


ODD_NAMES = ["a b.png", "ünïcödé.png", "肺炎.png", "📷.png", "-rf.png",
"a'b\"c.png", "100%.png", "a,b;c.png", "x" * 200 + ".png",
             "tab\there.png", "#1.PNG", "$HOME.png", "a\\b.png", "{}.png", "[red].png"]  # fmt: skip


def test_odd_file_names_stay_as_they_are(place, capsys):
    for i, name in enumerate(ODD_NAMES):
        bad.write(place.at / "my data" / "ab"[i % 2] / name, bad.encoded(bad.grey(level=10 * i)))
    bad.write(place.at / "my data" / "a" / ".DS_Store", b"hidden")
    bad.write(place.at / "my data" / "a" / "Thumbs.db", b"of another system")
    found = load_cohort("folder:my data", size=16)
    assert set(found.table["id"]) == {f"{'ab'[i % 2]}/{name}" for i, name in enumerate(ODD_NAMES)}
    by_name = dict(zip(found.table["id"], found.images[:, 0, 8, 8], strict=True))
    assert all(by_name[f"{'ab'[i % 2]}/{name}"] == 10 * i for i, name in enumerate(ODD_NAMES))
    code, out, err = called(("predict", run_of, "my data", "--json", "--explain", "my overlays"), place, capsys)
    assert (code, err) == (0, "")
    assert {Path(row["file"]).name for row in json.loads(out)} == set(ODD_NAMES)
    assert len(list((place.at / "my overlays").glob("*.png"))) == len(ODD_NAMES)


LINES = ["image,label,patient", "i0.png,a,p0", "i1.png,b,p1", "i2.png,a,p2", "i3.png,b,p3"]
FINE_TABLES: Mapping[str, bytes] = {
    "as it should be": "\n".join(LINES).encode(),
    "with a byte-order mark": ("\ufeff" + "\n".join(LINES)).encode(),
    "from a spreadsheet": "\r\n".join(LINES).replace(",", ";").encode("utf-8-sig"),
    "with tabs": "\n".join(LINES).replace(",", "\t").encode(),
    "with blank rows": "\n\n".join([*LINES, ",,", ""]).encode(),
    "with quotes": "\n".join('"' + line.replace(",", '","') + '"' for line in LINES).encode(),
    "with spaces around": "\n".join(line.replace(",", " , ") for line in LINES).encode(),
    "with dots in the paths": "\n".join(line.replace("i1.png", "./sub/../i1.png") for line in LINES).encode(),
}


@pytest.mark.parametrize("raw", FINE_TABLES.values(), ids=FINE_TABLES)
def test_odd_tables_are_read_as_people_mean_them(place, raw):
    (place.at / "sub").mkdir()
    found = load_cohort(bad.table(raw, n=4)(place), size=16)
    assert found.classes == ("a", "b")
    assert found.labels.tolist() == [0, 1, 0, 1]
    assert list(found.table["patient"]) == ["p0", "p1", "p2", "p3"]
    assert found.images[:, 0, 8, 8].tolist() == [30, 35, 40, 45]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.jpg", JPEG[: len(JPEG) // 2], "cut short"),
        ("x.png", b"", "empty (0 bytes)"),
        ("x.png", bad.bomb_png(30_000), "more than 100 million pixels"),
        ("x.png", b"GIF89a", "cut short|broken|known format"),
        ("x.png", b"<html></html>", "not an image"),
        ("x.tif", bad.encoded(Image.new("F", (16, 16), 0.5), "TIFF"), "float intensities"),
    ],
    ids=["truncated JPEG", "0 bytes", "image bomb", "only a head", "web page", "floats"],
)
def test_one_broken_picture_among_good_ones_is_left_out_and_listed(place, name, content, reason):
    found = load_cohort(bad.classes({f"a/{name}": content})(place), size=16)
    assert len(found) == 20
    assert list(found.omitted["path"]) == [f"a/{name}"]
    assert re.search(reason.replace("(", r"\(").replace(")", r"\)"), found.omitted["reason"].iloc[0])


def test_a_link_to_itself_is_left_out_and_listed(place):
    found = load_cohort(bad.linked("a/loop.png", "loop.png")(place), size=16)
    assert (len(found), list(found.omitted["path"])) == (20, ["a/loop.png"])
