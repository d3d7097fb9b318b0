"""An encoder from a folder without labels, and a run that starts from it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tiny import tiny_cohort
from trueread import pretraining
from trueread.cohort.source import load_cohort
from trueread.cohort.split import assign_splits
from trueread.errors import InputError
from trueread.method.two_views import Pretraining
from trueread.model import Classifier
from trueread.model.weights import read_weights
from trueread.progress import set_quiet

pytestmark = pytest.mark.usefixtures("quiet_and_on_one_thread")
OPTIONS = {"epochs": 2, "batch_size": 16, "width": 16, "k": 3}
SETTINGS = {"threads": 1, "device": "cpu", "precision": "fp32"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Images in a tree without classes, one of them broken."""
    folder = tmp_path_factory.mktemp("archive")
    cohort = tiny_cohort(n=48)
    for i, image in enumerate(cohort.images[:, 0]):
        (folder / f"{i % 3}").mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{i % 3}" / f"{i}.png")
    (folder / "broken.png").write_bytes(b"x")
    return folder


def test_a_later_run_starts_from_its_weights(archive, tmp_path):
    path = pretraining.pretrain(
        [archive],
        "curvssl",
        out=tmp_path / "encoder",
        source={"size": 16, "modality": "radiograph"},
        options=OPTIONS,
        **SETTINGS,
    )
    told = json.loads((tmp_path / "encoder" / "pretraining.json").read_text())
    assert told["images"] == 48
    assert told["views"] == "radiograph"
    assert [w["epoch"] for w in told["watched"]] == [1, 2]
    assert not list((tmp_path / "encoder").rglob("*.pt"))
    made = Classifier.build("compact", cohort=tiny_cohort(n=48), weights=str(path))
    learned = read_weights(path)
    own = made.network.get_submodule("backbone").state_dict()
    assert set(learned) == set(own)
    assert all(torch.equal(learned[k], own[k]) for k in own)
    assert "weights.safetensors" in made.card.weights


def test_it_is_the_same_again_and_another_with_another_seed(archive, tmp_path):
    paths = [
        pretraining.pretrain(
            [archive], "vicreg", out=tmp_path / str(i), seed=seed, source={"size": 16},
            options={"epochs": 1, "batch_size": 16, "width": 16}, **SETTINGS,
        )
        for i, seed in enumerate((0, 0, 1))
    ]  # fmt: skip
    states = [read_weights(p) for p in paths]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not all(torch.equal(states[0][k], states[2][k]) for k in states[0])


def test_of_a_cohort_only_training_images_are_seen(tmp_path):
    cohort = load_cohort("phantom", n_images=80, size=28)
    split = assign_splits(cohort)
    changed = split.images.copy()
    others = np.concatenate([split.rows("val"), split.rows("test")])
    changed[others] = 255 - changed[others]
    paths = [
        pretraining.pretrain(c, "curvssl", out=tmp_path / str(i), options={**OPTIONS, "epochs": 1}, **SETTINGS)
        for i, c in enumerate((split, replace(split, images=changed)))
    ]
    states = [read_weights(p) for p in paths]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_a_source_as_elsewhere_and_a_folder_with_its_prefix(archive, tmp_path):
    made = [
        pretraining.pretrain(
            images, "curvssl", out=tmp_path / str(i), source=source, options={**OPTIONS, "epochs": 1}, **SETTINGS
        )
        for i, (images, source) in enumerate((
            (["phantom"], {"n_images": 80, "size": 28}),
            (load_cohort("phantom", n_images=80, size=28), None),
            ([f"folder:{archive}"], {"size": 16}),
            ([archive], {"size": 16}),
        ))
    ]  # fmt: skip
    states = [read_weights(p) for p in made]
    for one, other in ((0, 1), (2, 3)):
        assert all(torch.equal(states[one][k], states[other][k]) for k in states[one])
    with pytest.raises(InputError, match="'phantom' is a source, of which one can be given"):
        pretraining.pretrain(["phantom", archive], "curvssl", out=tmp_path / "x", options=OPTIONS)


def test_of_a_source_without_a_split_the_images_of_a_later_test_are_not_seen(archive, tmp_path):
    from trueread.commands import train

    files = sorted(p for p in archive.rglob("*.png") if p.name != "broken.png")
    rows = [f"{p},{'ab'[i % 2]}" for i, p in enumerate(files)]
    (tmp_path / "labels.csv").write_text("\n".join(["image,label", *rows]) + "\n")
    data, source = f"csv:{tmp_path / 'labels.csv'}", {"size": 16, "root": str(archive)}
    seen = []

    class Stop(Exception):
        pass

    def stop(_self, cohort, *_, **__):
        seen.append(cohort)
        raise Stop

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Pretraining, "learn", stop)
        with pytest.raises(Stop):
            pretraining.pretrain(
                [data], out=tmp_path / "encoder", source=source, options={"epochs": 1, "batch_size": 16}
            )
    train(data, out=tmp_path / "run", source=source, epochs=1, batch_size=8, **SETTINGS)
    later = pd.read_csv(tmp_path / "run" / "split.csv").set_index("id")["split"]
    (cohort,) = seen
    assert set(later) == {"train", "val", "test"}
    assert cohort.table.set_index("id")["split"].to_dict() == later.to_dict()


def test_folders_of_test_images_are_warned_of(tmp_path, capsys):
    set_quiet(False)
    for i in range(17):
        folder = tmp_path / "images" / ("train" if i else "test") / "a"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16), i, np.uint8)).save(folder / f"{i}.png")
    assert len(pretraining.read_unlabelled([tmp_path / "images"], size=16)) == 17
    assert "1 of 17 images lie in folders called validation or test" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"method": "focal", "options": {}},
            "'focal' does not learn without labels; take one of barlow-twins, curvssl, vicreg",
        ),
        ({"source": {"sise": 16}}, "'sise' is not an option"),
        ({"source": {"modality": "radiographs"}}, "'radiographs'.*radiograph"),
        ({"options": {"epochs": 0}}, "epochs"),
        ({"epochss": 3}, "epochss"),
    ],
)
def test_mistakes(archive, tmp_path, change, message):
    given = {"method": "curvssl", "source": {"size": 16}, "options": OPTIONS, **SETTINGS} | change
    with pytest.raises(InputError, match=message):
        pretraining.pretrain([archive], given.pop("method"), out=tmp_path, **given)


def test_a_handful_of_images_is_not_enough(tmp_path):
    for i in range(3):
        Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / f"{i}.png")
    with pytest.raises(InputError, match="16 or more images are needed to learn from, and 3 can be read"):
        pretraining.pretrain([tmp_path], "curvssl", out=tmp_path / "out")


def test_what_the_method_decides_is_not_asked_of_the_loop(archive, tmp_path):
    with pytest.raises(InputError, match="curvssl decides batch_size and epochs of the loop"):
        pretraining.pretrain([archive], "curvssl", out=tmp_path / "x", options=OPTIONS, epochs=7, batch_size=4)
