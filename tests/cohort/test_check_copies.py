"""Copies: what is planted is found, in every pose; look-alikes, constant images and one patient's series are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from trueread.cohort import load_cohort
from trueread.cohort.check import Concern, Seriousness, run_check
from trueread.cohort.check.copies import Copies, copies_of, equal_images, in_words
from trueread.cohort.check.descriptors import (
    POSES,
    Alteration,
    altered,
    appearance,
    gist,
    permutation,
    posed,
)
from trueread.cohort.check.duplicates import Duplicates, how_serious
from trueread.cohort.check.label_conflicts import LabelConflicts
from trueread.cohort.check.likeness import COPY, tells_apart
from trueread.cohort.check.registration import inside, inverse, registered, resampled
from trueread.cohort.cohort import Cohort

pytestmark = pytest.mark.usefixtures("quiet_and_on_one_thread")
SIDE = 48


@pytest.fixture(scope="module")
def phantom() -> Cohort:
    """240 images, each of a patient of its own."""
    cohort = load_cohort("phantom", n_images=600, size=SIDE)
    cohort = cohort.subset(np.unique(cohort.patient_codes(), return_index=True)[1][:240])
    return replace(cohort.with_split([""] * 240), masks=None, truth=None)


def with_copies(cohort: Cohort, copies: np.ndarray, of: np.ndarray, **columns: object) -> Cohort:
    """The cohort and behind it copies, whose originals are the rows `of`; labels as theirs, patients of their own."""
    n = len(copies)
    more = pd.DataFrame({"id": [f"copy{k}" for k in range(n)], "patient": [f"other{k}" for k in range(n)], "split": ""})
    table = pd.concat([cohort.table, more.assign(**columns)], ignore_index=True)
    images = np.concatenate([cohort.images, copies.astype(cohort.images.dtype)])
    labels = np.concatenate([cohort.labels, cohort.labels[of]])
    return replace(cohort, images=images, labels=labels, table=table)


def split(cohort: Cohort, test: np.ndarray) -> Cohort:
    sides = np.full(len(cohort), "train", dtype=object)
    sides[test] = "test"
    sides[50:80] = "val"
    return cohort.with_split(sides)


def found(cohort: Cohort) -> set[tuple[int, int]]:
    pairs = copies_of(cohort).pairs
    pairs = pairs[pairs["alike"] >= COPY]
    return set(zip(pairs["row"], pairs["other"], strict=True))


def concerns(cohort: Cohort) -> dict[Seriousness, Concern]:
    answer = run_check(Duplicates(), cohort)
    assert len({c.seriousness for c in answer.concerns}) == len(answer.concerns), [c.title for c in answer.concerns]
    return {c.seriousness: c for c in answer.concerns}


def whole(cohort: Cohort, rows: np.ndarray) -> np.ndarray:
    """float [n,S,S] in [0,1]."""
    return cohort.images[rows, 0].astype(np.float32) / cohort.white


def stored(images: np.ndarray) -> np.ndarray:
    return (np.clip(images, 0, 1) * 255).round().astype(np.uint8)[:, None]


class TestSearch:
    def test_different_patients_of_a_phantom_are_no_copies(self, phantom):
        assert found(phantom) == set()

    @pytest.mark.parametrize("pose", range(len(POSES)))
    def test_a_copy_in_any_pose(self, phantom, pose):
        of = np.arange(0, 60, 6)
        cohort = with_copies(phantom, stored(posed(whole(phantom, of), pose)), of)
        assert found(cohort) == {(int(row), 240 + k) for k, row in enumerate(of)}
        if pose:
            pairs = copies_of(cohort).pairs
            assert set(pairs.loc[pairs["alike"] >= COPY, "how"]) == {POSES[pose]}

    @pytest.mark.parametrize(
        "how",
        [
            Alteration(degrees=10, least_kept=1, shift=0, log_gamma=0, noise=0, blurred=0),
            Alteration(degrees=0, least_kept=0.88, shift=0, log_gamma=0, noise=0, blurred=0),
            Alteration(degrees=0, least_kept=1, shift=0.025, log_gamma=0, noise=0, blurred=0),
            Alteration(degrees=0, least_kept=1, shift=0, log_gamma=0.35, noise=0.01, blurred=0),
            Alteration(degrees=5, least_kept=0.93, shift=0, log_gamma=0.2, noise=0.01, blurred=0),
        ],
        ids=["turned", "cropped", "shifted", "brightened", "all"],
    )
    def test_altered_copies(self, phantom, how):
        """Four of five at least, and nothing else."""
        of = np.arange(0, 240, 8)
        copies = altered(whole(phantom, of), how, np.random.default_rng(1))[0]
        truth = {(int(row), 240 + k) for k, row in enumerate(of)}
        pairs = found(with_copies(phantom, stored(copies), of))
        assert len(pairs & truth) >= 24
        assert pairs <= truth

    def test_the_order_of_images_does_not_matter(self, phantom):
        of = np.arange(0, 40, 4)
        cohort = with_copies(phantom, stored(posed(whole(phantom, of), 4)), of)
        order = np.random.default_rng(0).permutation(len(cohort))
        shuffled = {frozenset(order[[a, b]].tolist()) for a, b in found(cohort.subset(order))}
        assert shuffled == {frozenset(p) for p in found(cohort)}

    def test_a_series_of_copies_hangs_together(self, phantom):
        """Of twenty copies of one image nearly all are found, though only four neighbours are looked at."""
        rng = np.random.default_rng(2)
        how = Alteration(degrees=3, least_kept=0.97, shift=0, log_gamma=0.1, noise=0.01, blurred=0)
        copies = altered(np.repeat(whole(phantom, np.array([5])), 20, axis=0), how, rng)[0]
        pairs = found(with_copies(phantom, stored(copies), np.full(20, 5)))
        assert len({row for pair in pairs for row in pair} & {5, *range(240, 260)}) >= 18

    def test_near_copies_of_one_patient_are_left_out_unless_labels_differ(self, phantom):
        of = np.arange(0, 40, 4)
        copies = stored(altered(whole(phantom, of), Alteration(3, 1, 0, 0.1, 0.01, 0, 0), np.random.default_rng(0))[0])
        cohort = with_copies(phantom, copies, of, patient=phantom.table["patient"].to_numpy()[of])
        assert found(cohort) == set()
        labels = cohort.labels.copy()
        labels[240] = 1 - labels[240]
        assert found(replace(cohort, labels=labels)) == {(0, 240)}

    def test_how_many_planted_copies_it_would_find(self, phantom):
        copies = copies_of(phantom)
        assert copies.n_planted == 100
        assert copies.n_found >= 85
        faint = np.random.default_rng(0).integers(126, 131, size=phantom.images.shape, dtype=np.uint8)
        assert copies_of(replace(phantom, images=faint)).n_found < 30  # the noise of a copy hides what it shows

    def test_few_and_small_images_are_compared_pixel_for_pixel(self, phantom):
        few = phantom.subset(np.arange(60))
        images = few.images.copy()
        images[7] = images[3]
        answer = run_check(Duplicates(), replace(few, images=images))
        assert [c.title for c in answer.concerns] == [
            "1 pair of copies of different patients that a split may part (1 equal pixel for pixel)."
        ]
        assert "near copies are looked for among 100 images or more" in answer.looked_at
        tiny = replace(phantom, images=phantom.images[:, :, :12, :12])
        assert "from 16 pixels" in run_check(Duplicates(), tiny).looked_at

    def test_colour_and_volumes(self, phantom):
        of = np.arange(0, 40, 4)
        cohort = with_copies(phantom, stored(posed(whole(phantom, of), 1)), of)
        truth = found(cohort)
        colour = np.repeat(cohort.images, 3, axis=1)
        assert found(replace(cohort, images=colour)) == truth
        volume = np.repeat(cohort.images[:, :, None], 3, axis=2)
        assert found(replace(cohort, images=volume)) == truth

    def test_oblong_images(self, phantom):
        cohort = replace(phantom, images=np.ascontiguousarray(phantom.images[:, :, :, :36]))
        of = np.arange(0, 40, 4)
        copies = cohort.images[of, :, :, ::-1]
        assert found(with_copies(cohort, copies, of)) == {(int(row), 240 + k) for k, row in enumerate(of)}


class TestTellingApart:
    def test_few_directions_and_many_pairs_do_not(self):
        """In 20 directions products of 0.88 are common among a million pairs; in 150 they never come by chance."""
        rng = np.random.default_rng(0)
        for directions, expected in ((8, False), (20, False), (150, True)):
            vectors = rng.normal(size=(400, directions)).astype(np.float32)
            assert tells_apart(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), 10**6) is expected
        few = rng.normal(size=(400, 45)).astype(np.float32)
        few /= np.linalg.norm(few, axis=1, keepdims=True)
        assert tells_apart(few, 10**4)
        assert not tells_apart(few, 10**9)

    def test_images_that_show_too_little_are_compared_pixel_for_pixel(self, phantom):
        """Blobs of three numbers each: place and size."""
        rng = np.random.default_rng(0)
        y, x = np.mgrid[:SIDE, :SIDE]
        at, width = rng.uniform(16, 32, (240, 2)), rng.uniform(4, 8, 240)
        apart = (y - at[:, 0, None, None]) ** 2 + (x - at[:, 1, None, None]) ** 2
        blobs = stored(np.exp(-apart / (2 * width[:, None, None] ** 2)))
        answer = run_check(Duplicates(), replace(phantom, images=blobs))
        assert answer.concerns == ()
        assert "show too little to tell altered copies" in answer.looked_at


class TestEqual:
    def test_groups(self, phantom):
        images = phantom.images.copy()
        images[9] = images[4]
        images[11] = images[4]
        images[20] = images[21] = 7  # of a single value: nothing is copied
        groups = equal_images(replace(phantom, images=images))
        assert len({groups[4], groups[9], groups[11]}) == 1
        assert groups[20] != groups[21]
        assert len(np.unique(groups)) == 238

    def test_one_grey_level_is_a_difference(self, phantom):
        images = phantom.images.copy()
        images[9] = images[4]
        images[9, 0, 0, 0] ^= 1
        pairs = copies_of(replace(phantom, images=images)).pairs
        assert pairs[["row", "other", "exact"]].to_numpy().tolist() == [[4, 9, False]]


class TestDuplicates:
    def test_equal_images_in_two_splits_are_serious(self, phantom):
        of = np.array([1, 2, 3])
        cohort = split(with_copies(phantom, phantom.images[of], of), np.arange(240, 243))
        concern = concerns(cohort)[Seriousness.SERIOUS]
        assert concern.title == ("3 pairs of equal images in two splits: 3 in train and test.")
        assert concern.n_images == 6
        assert [e.rows for e in concern.examples] == [(1, 240), (2, 241), (3, 242)]
        assert concern.table["row"].tolist() == [1, 240, 2, 241, 3, 242]

    def test_a_group_that_is_in_three_splits(self, phantom):
        images = phantom.images.copy()
        images[60] = images[1]  # val
        images[100] = images[1]  # train
        images[239] = images[1]  # test
        cohort = split(replace(phantom, images=images), np.array([239]))
        concern = concerns(cohort)[Seriousness.SERIOUS]
        assert "2 pairs" in concern.title
        assert "train and" in concern.title
        assert concerns(cohort)[Seriousness.LOOK].n_images == 2  # rows 1 and 100, both in train

    def test_altered_copies_in_two_splits_are_serious(self, phantom):
        of = np.array([1, 2, 3])
        copies = stored(
            posed(altered(whole(phantom, of), Alteration(6, 0.95, 0, 0.1, 0, 0, 0), np.random.default_rng(3))[0], 4)
        )
        cohort = split(with_copies(phantom, copies, of), np.arange(240, 243))
        concern = concerns(cohort)[Seriousness.SERIOUS]
        assert "3 pairs of altered copies in two splits: 3 in train and test" in concern.title
        assert concern.examples[0].caption.startswith("mirrored")

    def test_a_search_that_misses_most_is_not_sure_of_the_rest(self):
        none = pd.DataFrame()
        assert how_serious(Copies(none, n_planted=100, n_found=50)) is Seriousness.SERIOUS
        assert how_serious(Copies(none, n_planted=100, n_found=49)) is Seriousness.LOOK

    def test_copies_in_one_split_are_worth_a_look(self, phantom):
        of = np.array([1, 2, 3])
        cohort = split(with_copies(phantom, phantom.images[of], of), np.array([100]))
        [concern] = run_check(Duplicates(), cohort).concerns
        assert concern.seriousness == Seriousness.LOOK
        assert concern.title.startswith("3 pairs of copies of different patients within a split")

    def test_equal_images_of_one_patient_are_a_note(self, phantom):
        of = np.array([1, 2, 3])
        own = phantom.table["patient"].to_numpy()[of]
        cohort = split(with_copies(phantom, phantom.images[of], of, patient=own), np.array([100]))
        [concern] = run_check(Duplicates(), cohort).concerns
        assert concern.seriousness == Seriousness.NOTE

    def test_silence_says_what_was_compared(self, phantom):
        answer = run_check(Duplicates(), split(phantom, np.arange(100, 140)))
        assert answer.concerns == ()
        assert "240 images pixel for pixel; 28,680 pairs for altered copies. Of 100 planted ones" in answer.looked_at


class TestLabelConflicts:
    def test_one_image_under_two_labels(self, phantom):
        of = np.array([1, 2, 3])
        cohort = with_copies(phantom, phantom.images[of], of)
        assert run_check(LabelConflicts(), cohort).concerns == ()
        labels = cohort.labels.copy()
        labels[240] = 1 - labels[240]
        [concern] = run_check(LabelConflicts(), replace(cohort, labels=labels)).concerns
        assert concern.seriousness == Seriousness.SERIOUS
        assert concern.title == (
            f"1 pair of equal images under two labels: 1 times {cohort.classes[0]} and {cohort.classes[1]}."
        )
        assert concern.table["row"].tolist() == [1, 240]

    def test_an_altered_copy_under_another_label_is_worth_a_look(self, phantom):
        of = np.array([1, 2, 3])
        cohort = with_copies(phantom, stored(posed(whole(phantom, of), 6)), of)
        labels = cohort.labels.copy()
        labels[240:] = 1 - labels[240:]
        [concern] = run_check(LabelConflicts(), replace(cohort, labels=labels)).concerns
        assert concern.seriousness == Seriousness.LOOK
        assert concern.n_images == 6

    def test_of_several_labels_only_known_ones_can_disagree(self, phantom):
        of = np.array([1, 2, 3])
        cohort = with_copies(phantom, phantom.images[of], of)
        labels = np.zeros((243, 2), np.float32)
        labels[1] = (1, np.nan)
        labels[240] = (1, 1)  # agrees where both are known
        labels[241] = (0, 1)
        cohort = replace(cohort, labels=labels, classes=("nodule", "fluid"), task="multilabel")
        [concern] = run_check(LabelConflicts(), cohort).concerns
        assert concern.title.endswith("1 times fluid or not.")


class TestRegistration:
    def test_a_known_map_is_found(self, phantom):
        small = whole(phantom, np.arange(40))
        maps = np.tile(np.eye(2, 3, dtype=np.float32), (40, 1, 1))
        rng = np.random.default_rng(0)
        angle = np.deg2rad(rng.uniform(-10, 10, 40))
        maps[:, 0, 0] = maps[:, 1, 1] = 0.92 * np.cos(angle)
        maps[:, 0, 1], maps[:, 1, 0] = -0.92 * np.sin(angle), 0.92 * np.sin(angle)
        maps[:, :, 2] = rng.uniform(-0.06, 0.06, (40, 2))
        moved = 0.8 * resampled(small, maps) + 0.1
        there = registered(moved, small, side=16)
        there = registered(moved, small, side=SIDE, start=there)
        assert np.quantile(np.abs(there - maps).max(axis=(1, 2)), 0.9) < 0.02

    def test_resampled_by_hand(self):
        image = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
        none = np.eye(2, 3, dtype=np.float32)[None]
        assert resampled(image, none) == pytest.approx(image, abs=1e-5)
        right = none.copy()
        right[0, 0, 2] = 0.5  # a quarter of the width: one pixel; the last column goes on
        assert resampled(image, right)[0, 0] == pytest.approx([1, 2, 3, 3])
        assert inside(right, 4)[0, 0] == pytest.approx([1, 1, 1, 0])
        assert inside(none, 4).all()

    def test_inverse(self):
        maps = np.random.default_rng(0).normal(np.eye(2, 3), 0.1, (5, 2, 3)).astype(np.float32)
        full = [np.concatenate([m, [[0, 0, 1]]]) for m in (maps, inverse(maps)) for m in m]
        for there, back in zip(full[:5], full[5:], strict=True):
            assert there @ back == pytest.approx(np.eye(3), abs=1e-5)

    def test_in_words(self):
        angle = np.deg2rad(5)
        turned = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]])
        assert in_words(0, np.eye(2, 3)) == "in place"
        assert in_words(4, turned) == "mirrored, turned by 5°"
        assert in_words(0, np.array([[0.9, 0, 0.1], [0, 0.9, 0]])) == "scaled by 0.90, shifted"


@pytest.mark.parametrize("features", [gist, appearance])
@pytest.mark.parametrize("pose", range(len(POSES)))
def test_a_pose_only_exchanges_features(features, pose):
    images = np.random.default_rng(pose).random((3, 32, 32)).astype(np.float32)
    order = permutation(features, 32, pose)
    assert features(posed(images, pose)) == pytest.approx(features(images)[:, order], abs=1e-5)
