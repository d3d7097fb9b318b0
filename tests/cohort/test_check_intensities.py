"""Intensities: every fault planted in otherwise good images is found, in those images, and in no others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from trueread.cohort import load_cohort
from trueread.cohort.check import Answer, Concern, Seriousness, run_check
from trueread.cohort.check.intensities import Intensities, intensity_table
from trueread.cohort.cohort import Cohort


@pytest.fixture(scope="module")
def phantom() -> Cohort:
    return load_cohort("phantom", n_images=240, size=48)


def asked(cohort: Cohort) -> Answer:
    return run_check(Intensities(permutations=300), cohort)


def with_images(cohort: Cohort, images: np.ndarray, **parts: object) -> Cohort:
    return replace(cohort, images=images, masks=None, **parts)  # type: ignore[arg-type]


def only(cohort: Cohort, words: str) -> Concern:
    """The one concern whose title has these words; no other may be there."""
    answer = asked(cohort)
    [found] = answer.concerns
    assert words in found.title, found.title
    return found


def rows_of(concern: Concern) -> list[int]:
    return sorted(concern.table.index)


def colour(n: int = 60) -> Cohort:
    images = np.random.default_rng(0).integers(20, 230, size=(n, 3, 16, 16), dtype=np.uint8)
    table = pd.DataFrame({"id": [f"i{k}" for k in range(n)], "patient": [f"p{k}" for k in range(n)], "split": ""})
    return Cohort("colour", images, np.arange(n) % 2, table, ("no", "yes"), "binary")


def test_good_images_give_no_concern(phantom):
    answer = asked(phantom)
    assert answer.concerns == ()
    assert "240 images" in answer.looked_at
    assert "Inverted images were looked for." in answer.looked_at


class TestTable:
    def test_by_hand(self):
        images = np.zeros((3, 1, 10, 10), np.uint8)
        images[0, 0, :7] = 255
        images[1] = 7
        images[2, 0] = np.arange(100).reshape(10, 10) + 20
        cohort = Cohort(
            "hand", images, np.array([0, 1, 1]),
            pd.DataFrame({"id": list("abc"), "patient": list("abc"), "split": ""}), ("no", "yes"), "binary",
        )  # fmt: skip
        table = intensity_table(cohort)
        assert table["least"].tolist() == [0, 7, 20]
        assert table["greatest"].tolist() == [255, 7, 119]
        assert table["range"].tolist() == [255, 0, 99]
        assert table["levels"].tolist() == [2, 1, 100]
        assert table["one value"].tolist() == [0.7, 1.0, 0.01]
        assert table["at white"].tolist() == [0.7, 0.0, 0.0]
        assert table["bright end"].tolist() == [255, 7, 20 + 98]

    def test_a_lively_channel_counts(self):
        images = np.full((2, 3, 8, 8), 50, np.uint8)
        images[1, 2] = np.arange(64).reshape(8, 8)
        cohort = replace(colour(2), images=images)
        table = intensity_table(cohort)
        assert table["range"].tolist() == [0, 63]
        assert table["levels"].tolist() == [1, 64]
        assert table["colour"].tolist() == [0, 50]

    def test_parts_are_as_the_whole(self, phantom, monkeypatch):
        whole = intensity_table(phantom)
        monkeypatch.setattr("trueread.cohort.check.intensities.PIXELS_AT_A_TIME", 48 * 48 * 11)
        pd.testing.assert_frame_equal(intensity_table(phantom), whole)


class TestSingleImages:
    def test_constant_images_are_serious(self, phantom):
        images = phantom.images.copy()
        images[[3, 77]] = 90
        found = only(with_images(phantom, images), "2 of 240 images hold a single value")
        assert found.seriousness is Seriousness.SERIOUS
        assert rows_of(found) == [3, 77]
        assert found.examples[0].rows == (3, 77)
        images[77] = phantom.images[77]
        assert "1 of 240 images holds a single value and shows" in only(with_images(phantom, images), "single").title

    def test_nearly_empty(self, phantom):
        images = phantom.images.copy()
        images[5] = 0
        images[5, 0, :9, :9] = phantom.images[5, 0, 20:29, 20:29]
        found = only(with_images(phantom, images), "one value in at least 95 %")
        assert (found.seriousness, rows_of(found)) == (Seriousness.LOOK, [5])

    def test_posterised(self, phantom):
        images = phantom.images.copy()
        images[10:14] = images[10:14] // 32 * 32
        found = only(with_images(phantom, images), "16 grey levels or fewer")
        assert rows_of(found) == [10, 11, 12, 13]

    def test_clipped_at_white(self, phantom):
        images = phantom.images.astype(int)
        images[20] = images[20] * 2
        assert (images[20] >= 255).mean() > 0.05
        found = only(with_images(phantom, images.clip(0, 255).astype(np.uint8)), "at white")
        assert rows_of(found) == [20]

    @pytest.mark.parametrize("share", [0.01, 0.3])
    def test_inverted_few_or_many(self, phantom, share):
        images = phantom.images.copy()
        rows = np.sort(np.random.default_rng(0).choice(240, int(share * 240), replace=False))
        images[rows] = 255 - images[rows]
        found = [c for c in asked(with_images(phantom, images)).concerns if "inverted" in c.title]
        recovered = set(rows_of(found[0])) & set(rows)
        assert len(recovered) >= 0.9 * len(rows)
        assert set(rows_of(found[0])) <= set(rows)

    def test_images_unlike_each_other_are_not_called_inverted(self):
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, size=(60, 3, 16, 16), dtype=np.uint8)
        answer = asked(replace(colour(), images=images))
        assert answer.concerns == ()
        assert "too unlike each other" in answer.looked_at

    def test_dim_ones_among_others(self, phantom):
        images = phantom.images.astype(np.uint16) * 257
        images[[7, 8]] //= 16  # twelve bits that nobody scaled
        found = only(with_images(phantom, images, white=65535), "less than a quarter of the usual brightness")
        assert rows_of(found) == [7, 8]

    def test_grey_among_colour(self):
        cohort = colour()
        images = cohort.images.copy()
        images[:5] = images[:5, :1]
        found = only(replace(cohort, images=images), "5 of 60 images are grey among images in colour")
        assert rows_of(found) == [0, 1, 2, 3, 4]


class TestWholeCohort:
    def test_twelve_bits_in_sixteen(self, phantom):
        images = phantom.images.astype(np.uint16) * 16
        found = only(with_images(phantom, images, white=65535), "No image is brighter than 3,")
        assert "white=4095" in found.advice
        assert asked(with_images(phantom, images, white=4095)).concerns == ()

    def test_three_channels_without_colour(self):
        cohort = colour()
        found = only(replace(cohort, images=cohort.images[:, :1].repeat(3, axis=1)), "no colour")
        assert found.seriousness is Seriousness.NOTE

    def test_masks_as_images_are_noted_and_not_called_faults(self, phantom):
        answer = asked(with_images(phantom, (phantom.images > 128).astype(np.uint8) * 255))
        assert answer.concerns
        assert {c.seriousness for c in answer.concerns} == {Seriousness.NOTE}
        assert "masks or cut-outs" in answer.concerns[0].advice

    def test_volumes(self):
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, size=(30, 1, 4, 8, 8), dtype=np.uint8)
        images[4] = 0
        cohort = replace(colour(30), images=images)
        assert rows_of(only(cohort, "a single value")) == [4]


class TestSplits:
    def test_a_darker_test_set_is_named(self, phantom):
        images = phantom.images.astype(float)
        rows = phantom.rows("test")
        images[rows] *= 0.75
        found = [c for c in asked(with_images(phantom, images.astype(np.uint8))).concerns if "in test than" in c.title]
        assert found[0].title.startswith("Brightness is lower in test than in train: AUROC 0.")
        assert {phantom.table["split"][r] for r in found[0].examples[0].rows} == {"train"}
        assert {phantom.table["split"][r] for r in found[0].examples[1].rows} == {"test"}

    @pytest.mark.slow
    def test_splits_of_like_images_rarely_alarm(self, phantom):
        alarms = 0
        for seed in range(40):
            patients = phantom.table["patient"].unique()
            drawn = dict(zip(patients, np.random.default_rng(seed).permutation(len(patients)), strict=True))
            split = np.where(phantom.table["patient"].map(drawn) < 12, "test", "train")
            alarms += bool(asked(phantom.with_split(split)).concerns)
        assert alarms <= 4

    def test_too_few_patients_are_not_compared(self, phantom):
        split = ["test"] * 4 + ["train"] * 236
        images = phantom.images.copy()
        images[:4] //= 2
        assert phantom.table["patient"][:4].nunique() < 5
        patients = phantom.table["patient"].astype(str).where(np.arange(240) >= 4, "first")
        cohort = with_images(phantom, images, table=phantom.table.assign(patient=patients, split=split))
        assert not any("than in train" in c.title for c in asked(cohort).concerns)


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.02])
def test_inverted_radiographs_among_real_ones(real_data: Path, share: float):
    cohort = load_cohort(f"folder:{real_data / 'kermany'}", size=64).subset(np.arange(0, 5216, 4))
    rows = np.random.default_rng(0).choice(len(cohort), int(share * len(cohort)), replace=False)
    images = cohort.images.copy()
    images[rows] = 255 - images[rows]
    concerns = asked(replace(cohort, images=images)).concerns
    assert all("inverted" in c.title for c in concerns)  # and not also called white
    found = rows_of(concerns[0]) if concerns else []
    assert set(found) <= set(rows)
    assert len(found) >= 0.9 * len(rows)
