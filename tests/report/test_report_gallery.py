"""The gallery: the planted images are picked, the evidence is on one absolute scale, and no one is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fake_run import SECRETS
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from trueread.cohort.cohort import Cohort
from trueread.cohort.showing import class_after_class, slice_to_show
from trueread.errors import InputError
from trueread.model import Classifier, ProbabilityFunction
from trueread.report import make_gallery
from trueread.report.evidence import LEVELS, evidence_levels, evidence_palette, mask_outline
from trueread.report.gallery import KINDS, choose, outcome_of
from trueread.report.pictures import _doubts

CLASSES = ("normal", "opacity")


class Brightness(nn.Module):
    """logit(opacity) = 8 times the mean intensity, logit(normal) its negative: so the evidence for opacity is where the
    image is bright, 8 intensity / (H W) per pixel, and there is none for normal."""

    def __init__(self, *, depth: bool = False) -> None:
        super().__init__()
        self.seen = nn.Conv3d(1, 1, 1, bias=False) if depth else nn.Conv2d(1, 1, 1, bias=False)
        self.head = nn.Linear(1, 2)
        nn.init.ones_(self.seen.weight)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[-8.0], [8.0]]))
            self.head.bias.copy_(torch.tensor([0.05, -0.05]))  # a black image is normal

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.seen(images).flatten(1).mean(1, keepdim=True))


def cohort(*, n: int = 8, side: int = 16, depth: int = 0, masks: bool = True, white: int = 255) -> Cohort:
    """n images, half of them with a bright square (volumes: in slice 2) that the mask marks; two images per patient."""
    shape = (n, 1, depth, side, side) if depth else (n, 1, side, side)
    images = np.zeros(shape, np.uint8 if white <= 255 else np.uint16)
    labels = (np.arange(n) % 2).astype(np.int64)
    place = (slice(4, 8), slice(9, 13))
    marked = np.zeros((n, *shape[2:]), np.uint8)
    for i in np.flatnonzero(labels):
        at = (2, *place) if depth else place
        images[(i, 0, *at)] = white
        marked[(i, *at)] = 1
    table = pd.DataFrame(
        {
            "id": [f"{i}-{SECRETS[1]}" for i in range(n)],
            "patient": [f"{SECRETS[0]}-{i // 2}" for i in range(n)],
            "split": "test",
        }
    )
    return Cohort(
        name="planted", images=images, labels=labels, table=table, classes=CLASSES, task="binary",
        masks=marked if masks else None, white=white,
    )  # fmt: skip


def classifier(side: int = 16, depth: int = 0) -> Classifier:
    size = (depth, side, side) if depth else (side, side)
    return Classifier.wrap(Brightness(depth=depth > 0), classes=CLASSES, size=size, channels=1, taps=["seen"])


def alpha(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGBA"))[..., 3]


# Which image is what: the class of largest probability decides, its lead over the second is the certainty.
TABLE = np.array(
    [
        [0.98, 0.01, 0.01],  # 0: right, surest
        [0.02, 0.95, 0.03],  # 1: right, second surest
        [0.01, 0.02, 0.97],  # 2: wrong, surest of the wrong
        [0.90, 0.05, 0.05],  # 3: wrong, second
        [0.34, 0.33, 0.33],  # 4: right, least certain
        [0.32, 0.35, 0.33],  # 5: wrong, second least certain
        [0.60, 0.20, 0.20],  # 6: right, ordinary
        [0.20, 0.50, 0.30],  # 7: wrong, ordinary
    ]
)
TRUTH = np.array([0, 1, 0, 1, 0, 2, 0, 2])


def planted(**changed: Any) -> dict[str, list[int]]:
    outcome = outcome_of(TABLE, TRUTH, classes=("a", "b", "c"), task="multiclass")
    return choose(outcome, **{"per_kind": 2, **changed})


def test_the_planted_images_are_picked() -> None:
    assert planted() == {
        "right": [6],
        "wrong": [7],
        "confidently right": [0, 1],
        "confidently wrong": [2, 3],
        "least certain": [4, 5],
    }


def test_doubtful_errors_are_not_called_confident() -> None:
    everything = planted(per_kind=8)
    assert everything["confidently wrong"] == [2, 3]  # 5 and 7 are in the less certain half
    assert everything["confidently right"] == [0, 1]


def test_a_patient_is_shown_once_per_kind() -> None:
    patients = np.array([0, 0, 1, 1, 2, 3, 4, 5])
    chosen = planted(patients=patients)
    assert chosen["confidently right"] == [0]
    assert chosen["confidently wrong"] == [2]
    assert all(len({patients[i] for i in picked}) == len(picked) for picked in chosen.values())


def test_ordinary_images_take_turns_between_the_classes() -> None:
    truth = np.array([0] * 90 + [1] * 10)
    p = np.tile([0.8, 0.2], (100, 1))
    p[90:] = [0.2, 0.8]
    outcome = outcome_of(p, truth, classes=CLASSES, task="binary")
    right = choose(outcome, per_kind=4)["right"]
    assert sorted(truth[right]) == [0, 0, 1, 1]


def test_classes_take_turns_and_no_patient_comes_twice() -> None:
    truth, patients = list("aaabbc"), [0, 1, 2, 0, 3, 3]
    assert class_after_class(range(6), truth, patients, count=2) == [0, 4]  # not 3, whose patient is shown already
    assert class_after_class([5, 0, 1, 2, 3, 4], truth, patients, count=4) == [5, 0, 1, 2]
    assert class_after_class(range(6), truth, range(6), count=4) == [0, 3, 5, 1]
    assert class_after_class(range(6), truth, [7] * 6, count=4) == [0]
    assert class_after_class([], truth, patients, count=4) == []


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 40))
def test_any_outcome_gives_distinct_images_of_their_kind(seed: int, per_kind: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    p, labels = rng.dirichlet([1, 1, 1], n), rng.choice(3, n, p=[0.8, 0.15, 0.05])
    outcome = outcome_of(p, labels, classes=("a", "b", "c"), task="multiclass")
    chosen = choose(outcome, per_kind=per_kind)
    assert tuple(chosen) == KINDS
    flat = [i for picked in chosen.values() for i in picked]
    assert len(flat) == len(set(flat))
    assert all(len(picked) <= per_kind for picked in chosen.values())
    assert all(outcome.right[chosen["right"] + chosen["confidently right"]])
    assert not any(outcome.right[chosen["wrong"] + chosen["confidently wrong"]])
    assert choose(outcome, per_kind=per_kind) == chosen


def test_a_binary_decision_is_at_the_classifiers_own_threshold() -> None:
    p = np.array([[0.75, 0.25], [0.85, 0.15], [0.0, 1.0], [1.0, 0.0]])
    outcome = outcome_of(p, np.array([1, 0, 1, 1]), classes=CLASSES, task="binary", threshold=0.2)
    assert outcome.decided == ["opacity", "normal", "opacity", "normal"]
    assert outcome.right.tolist() == [True, True, True, False]
    assert outcome.certainty == pytest.approx([0.05 / 0.8, 0.05 / 0.2, 1, 1])
    assert outcome.explained.tolist() == [1, 0, 1, 0]


def test_a_multilabel_image_is_right_when_every_known_label_is() -> None:
    p = np.array([[0.9, 0.2], [0.9, 0.6], [0.1, 0.3], [0.5, 0.5]])
    labels = np.array([[1, 0], [1, 0], [0, np.nan], [np.nan, np.nan]], np.float32)
    outcome = outcome_of(p, labels, classes=("mass", "effusion"), task="multilabel", threshold=[0.5, 0.4])
    assert outcome.right.tolist() == [True, False, True, True]
    assert outcome.usable.tolist() == [True, True, True, False]
    assert outcome.truth == ["mass", "mass", "none", "none"]
    assert outcome.decided == ["mass", "mass, effusion", "none", "mass, effusion"]
    assert outcome.certainty[:3] == pytest.approx([0.5, (0.6 - 0.4) / 0.6, 0.8])
    assert 3 not in [i for picked in choose(outcome).values() for i in picked]


def test_evidence_is_absolute_and_nothing_is_transparent() -> None:
    palette = evidence_palette()
    assert palette[0][3] == 0
    assert [c[3] for c in palette] == sorted(c[3] for c in palette)
    levels = evidence_levels(np.array([[0.0, 1.0, 2.0, 9.0, np.nan]]), full_colour=2.0)
    assert levels.tolist() == [[0, round(0.5 * (LEVELS - 1)), LEVELS - 1, LEVELS - 1, 0]]
    assert not evidence_levels(np.ones((3, 3)), full_colour=0.0).any()


def test_the_palette_grows_lighter_evenly() -> None:
    rgb = np.array([c[:3] for c in evidence_palette()]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    lightness = 116 * np.cbrt(luminance) - 16
    assert np.all(np.diff(lightness) > 0)
    assert np.diff(lightness).max() < 2.5 * np.diff(lightness).mean()


def test_the_outline_is_the_border_and_a_rim_around_it() -> None:
    mask = np.zeros((7, 7), np.uint8)
    mask[2:5, 2:5] = 9
    line = mask_outline(mask)
    assert np.sum(line == 1) == 8
    assert line[3, 3] == 0
    assert line[1, 3] == 2
    assert not mask_outline(np.zeros((4, 4))).any()


def test_evidence_lies_where_the_image_is_bright_and_is_clear_where_there_is_none(tmp_path: Path) -> None:
    data, model = cohort(), classifier()
    rows = np.arange(len(data))
    p = model.probabilities(torch.from_numpy(data.images / np.float32(255))).detach().numpy()
    entries = make_gallery(model, data, rows, p, tmp_path, per_kind=2, method="erm")
    assert {e["label"] for e in entries} == set(CLASSES)
    peak = 8 / 16**2  # weight of the logit per pixel times an intensity of 1
    for e in entries:
        opacity = e["predicted"] == "opacity"
        assert e["evidence_full_colour"] == pytest.approx(peak, rel=1e-4)
        assert e["evidence_peak"] == pytest.approx(peak if opacity else 0, abs=1e-7)
        shown = alpha(tmp_path / e["overlay"])
        assert shown.shape == (208, 208)
        if not opacity:
            assert not shown.any()  # a black image, decided normal: no evidence, no colour
            continue
        per_pixel = shown.reshape(16, 13, 16, 13)  # rows and columns of the image, each 13 display pixels wide
        assert per_pixel[4:8, :, 9:13].mean() > 100
        around = np.ones((16, 16), bool)
        around[3:9, 8:14] = False  # smooth resizing reaches half a pixel far
        assert not per_pixel.transpose(0, 2, 1, 3)[around].any()


def test_entries_name_no_one_and_point_to_their_files(tmp_path: Path) -> None:
    data, model = cohort(), classifier()
    rows = np.arange(len(data))[::-1].copy()
    p = model.probabilities(torch.from_numpy(data.images[rows] / np.float32(255))).detach().numpy()
    entries = make_gallery(model, data, rows, p, tmp_path, per_kind=3, method="mixup+class weights")
    assert len({e["number"] for e in entries}) == len(entries)
    for e in entries:
        assert not any(secret in str(e) for secret in SECRETS)
        assert e["image"].startswith("figures/gallery/mixup+class_weights-")
        assert (tmp_path / e["image"]).is_file()
        assert e["label"] == CLASSES[data.labels[rows[e["number"] - 1]]]
        assert e["probability"] == pytest.approx(p[e["number"] - 1].max())
        assert (e["outline"] is not None) == (e["label"] == "opacity")
        assert (e["layer"], e["method"], e["n_images"], e["slice"]) == ("seen", "mixup+class weights", 8, None)
    assert not any(secret in f.name for f in tmp_path.rglob("*") for secret in SECRETS)
    assert model.training is False


def test_a_function_has_no_evidence_and_says_why(tmp_path: Path) -> None:
    data = cohort(masks=False)
    function = ProbabilityFunction(
        lambda x: np.tile([0.3, 0.7], (len(x), 1)), classes=CLASSES, size=(16, 16), channels=1
    )
    p = np.tile(np.float32([0.3, 0.7]), (8, 1))
    entries = make_gallery(function, data, np.arange(8), p, tmp_path)
    assert entries
    assert all(e["overlay"] is None and e["outline"] is None and "gradients" in e["reason"] for e in entries)
    assert {e["predicted"] for e in entries} == {"opacity"}


def test_a_volume_shows_the_slice_with_the_evidence(tmp_path: Path) -> None:
    data, model = cohort(depth=5), classifier(depth=5)
    p = model.probabilities(torch.from_numpy(data.images / np.float32(255))).detach().numpy()
    entries = make_gallery(model, data, np.arange(8), p, tmp_path)
    found = [e for e in entries if e["predicted"] == "opacity"]
    assert found
    for e in found:
        assert (e["slice"], e["n_slices"]) == (3, 5)  # counted from 1
        assert np.asarray(Image.open(tmp_path / e["image"])).max() > 250
        assert e["outline"] is not None


def test_the_slice_without_evidence_is_the_masks_and_then_the_middle() -> None:
    nothing, mask = np.zeros((5, 2, 2)), np.zeros((5, 2, 2), np.uint8)
    mask[4, 0, 0] = 1
    assert slice_to_show(nothing, mask, depth=5) == 4
    assert slice_to_show(None, None, depth=5) == 2
    assert slice_to_show(nothing, np.zeros((5, 2, 2)), depth=5) == 2


@pytest.mark.parametrize("white", [255, 4095])
def test_the_stored_white_is_shown_white(tmp_path: Path, white: int) -> None:
    data, model = cohort(white=white), classifier()
    p = model.probabilities(torch.from_numpy(data.images / np.float32(white))).detach().numpy()
    for e in make_gallery(model, data, np.arange(8), p, tmp_path):
        shown = np.asarray(Image.open(tmp_path / e["image"]))
        assert shown.dtype == np.uint8
        assert shown.max() == (255 if e["label"] == "opacity" else 0)


def test_colour_images_that_are_not_square_keep_their_shape(tmp_path: Path) -> None:
    data = cohort(n=6, masks=False)
    wide = np.repeat(np.repeat(data.images, 3, axis=1), 2, axis=3)
    data = dataclasses.replace(data, images=wide)
    function = ProbabilityFunction(
        lambda x: np.tile([0.3, 0.7], (len(x), 1)), classes=CLASSES, size=(16, 32), channels=3
    )
    entries = make_gallery(function, data, np.arange(6), np.tile(np.float32([0.3, 0.7]), (6, 1)), tmp_path)
    with Image.open(tmp_path / entries[0]["image"]) as picture:
        assert (picture.mode, picture.size) == ("RGB", (208, 104))


def test_rows_without_probabilities_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found 8 images, 7 rows and per_kind = 4"):
        make_gallery(classifier(), cohort(), np.arange(8), np.zeros((7, 2)), tmp_path)


def test_maps_that_failed_are_not_shown_without_the_warning():
    warned = {"audit": "localisation", "measures": {"pointing": {}}, "notes": ["300 images.", "Warning: maps move."]}
    summary = {"methods": [{"name": "a", "findings": [warned]}, {"name": "b", "findings": []}]}
    assert _doubts(summary, "a") == ["Warning: maps move."]
    assert "was not checked" in _doubts(summary, "b")[0]
    assert "was not checked" in _doubts({"methods": [{"name": "a", "findings": [warned | {"measures": {}}]}]}, "a")[0]
