"""Planted shortcuts: who carries the cue, in which arrangement, and that nothing else of an image changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tiny import tiny_cohort
from trueread.cohort import load_cohort
from trueread.cohort.cohort import Cohort
from trueread.errors import InputError
from trueread.shift.planting import planted, planted_in, planting, with_cue
from trueread.shift.square import Square


@pytest.fixture(scope="module")
def phantom() -> Cohort:
    return load_cohort("phantom", n_images=1200, size=28)


def shares(cohort: Cohort, carries: np.ndarray) -> list[float]:
    return [float(carries[cohort.labels == k].mean()) for k in range(cohort.n_classes)]


class TestWhoCarriesTheCue:
    def test_shares_are_the_prevalence(self, phantom):
        what = planting(phantom, "square", prevalence={"opacity": 0.9, "normal": 0.2})
        assert shares(phantom, what.carries(phantom, "biased")) == pytest.approx([0.2, 0.9], abs=0.05)
        assert shares(phantom, what.carries(phantom, "balanced")) == pytest.approx([0.5, 0.5], abs=0.06)
        assert shares(phantom, what.carries(phantom, "flipped")) == [1.0, 0.0]
        assert shares(phantom, what.carries(phantom, "clean")) == [0.0, 0.0]

    def test_of_two_classes_the_other_has_the_rest(self, phantom):
        assert planting(phantom, "square").prevalence == {"normal": pytest.approx(0.05), "opacity": 0.95}
        only = planting(phantom, "square", prevalence={"normal": 0.0, "opacity": 0.9})
        assert shares(phantom, only.carries(phantom, "biased"))[0] == 0.0

    def test_an_image_keeps_its_lot_in_any_company(self, phantom):
        what = planting(phantom, "square", prevalence=0.7, seed=3)
        rows = np.random.default_rng(0).permutation(len(phantom))[:300]
        assert (what.carries(phantom, "biased")[rows] == what.carries(phantom.subset(rows), "biased")).all()
        other = planting(phantom, "square", prevalence=0.7, seed=4)
        assert (what.carries(phantom, "biased") != other.carries(phantom, "biased")).mean() > 0.2

    def test_as_few_images_as_can_be_change_between_arrangements(self, phantom):
        """Everyone that carries the cue at 0.5 does at 0.9."""
        what = planting(phantom, "square", prevalence=0.9)
        biased, balanced = what.carries(phantom, "biased"), what.carries(phantom, "balanced")
        positive = phantom.labels == 1
        assert not (balanced & ~biased & positive).any()
        assert not (biased & ~balanced & ~positive).any()

    def test_several_classes(self):
        cohort = load_cohort("phantom", n_images=300, size=28)
        three = replace(cohort, labels=np.arange(300) % 3, classes=("a", "b", "c"), task="multiclass")
        what = planting(three, "square", prevalence={"a": 0.9, "b": 0.1, "c": 0.1})
        assert shares(three, what.carries(three, "flipped")) == [0.0, 1.0, 1.0]
        with pytest.raises(InputError, match="missing for b, c"):
            planting(three, "square", prevalence={"a": 0.9})


class TestPlanted:
    def test_only_carriers_change_and_only_where_the_cue_is(self, phantom):
        what = planting(phantom, "square", severity=1.0, side=0.2, prevalence=0.9)
        made = planted(phantom, what)
        changed = (made.images != phantom.images).any(axis=(1, 2, 3))
        test = phantom.table["split"].to_numpy() == "test"
        assert not changed[test].any()
        carries = what.carries(phantom, "biased") & ~test
        assert (made.truth["cue"].to_numpy() == carries).all()
        assert (changed == carries).mean() > 0.99  # white beneath the square is no change
        assert (made.images[:, :, 8:, 8:] == phantom.images[:, :, 8:, 8:]).all()
        assert (made.images[carries][:, :, 1:7, 1:7] == made.white).all()

    def test_arrangements_differ_in_nothing_but_the_cue(self, phantom):
        what = planting(phantom, Square(severity=1.0, side=0.2))
        test = phantom.rows("test")
        flipped = planted(phantom, what, {"test": "flipped"}, rows=test)
        assert len(flipped) == len(test)
        normal = phantom.labels[test] == 0
        assert (flipped.images[~normal] == phantom.images[test][~normal]).all()
        assert (flipped.images[normal] == with_cue(phantom, what.shift, test[normal])).all()

    def test_images_of_16_bits_stay_what_they_are(self, phantom):
        deep = replace(phantom, images=phantom.images.astype(np.uint16) * 16, white=4095, known=())
        made = planted(deep, planting(deep, "brightness", severity=1.0))
        carries = made.truth["cue"].to_numpy()
        assert made.images.dtype == np.uint16
        assert made.images.max() <= 4095
        expected = np.rint(deep.images[carries] * 0.8 + 0.2 * 4095)
        assert np.abs(made.images[carries] - expected).max() <= 1

    def test_what_was_planted_is_found_again(self, phantom):
        what = planting(phantom, "text", severity=0.7, text="L", height=0.2, prevalence=0.8, seed=5)
        made = planted(phantom, what)
        again = planted_in(made)
        assert again.to_json() == what.to_json()
        assert (planted(phantom, again).images == made.images).all()
        assert planted_in(phantom) is None
        assert made.digest != phantom.digest

    def test_the_cohort_is_left_alone(self, phantom):
        before = phantom.images.copy()
        planted(phantom, planting(phantom, "vignette", severity=1.0))
        assert (phantom.images == before).all()


class TestMistakes:
    def test_each_is_a_sentence(self, phantom):
        what = planting(phantom, "square")
        for bad, words in (
            (lambda: planting(phantom, "squre"), "Did you mean 'square'"),
            (lambda: planting(phantom, "square", prevalence={"opacty": 0.9}), "'opacity'"),
            (lambda: planting(phantom, "square", prevalence=1.2), r"in \[0,1\]; found 1.2"),
            (lambda: planting(phantom, "square", prevalence=0.5), "as common in every class"),
            (lambda: planting(phantom, "square", sde=0.1), "'sde' is not an option"),
            (lambda: planted(phantom.with_split([""] * len(phantom)), what), "split it first"),
            (lambda: planted(planted(phantom, what), what), "a planted cue already"),
            (lambda: planted(phantom, what, {"tset": "biased"}), "'tset' is not a split"),
            (lambda: planted(phantom, what, {"test": "bised"}), "'bised' is not an arrangement"),
            (lambda: planted(phantom, planting(phantom, "square", side=0.01)), "smaller than a pixel"),
        ):
            with pytest.raises(InputError, match=words):
                bad()

    def test_multilabel_is_refused(self, phantom):
        labels = np.zeros((len(phantom), 2), np.float32)
        several = replace(phantom, labels=labels, task="multilabel")
        with pytest.raises(InputError, match="one class per image"):
            planting(several, "square")


class TestCleanTrainingPatients:
    def test_a_share_of_each_class_carries_nothing_and_a_larger_share_contains_it(self):
        cohort = tiny_cohort(n=400)
        kept = []
        for share in (0.05, 0.1, 0.4):
            what = planting(cohort, "square", side=0.2, prevalence={"normal": 0.5, "mild": 1.0}, clean=share)
            made = planted(cohort, what)
            clean = made.truth["clean"].to_numpy()
            assert not made.truth["cue"][clean].any()
            assert (made.images[clean] == cohort.images[clean]).all()
            training = cohort.table["split"].to_numpy() == "train"
            assert not clean[~training].any()
            for k in (0, 1):
                patients = cohort.table["patient"][training & (cohort.labels == k)]
                chosen = cohort.table["patient"][clean & (cohort.labels == k)]
                assert abs(chosen.nunique() - share * patients.nunique()) <= 1
                assert not set(chosen) & set(cohort.table["patient"][training & ~clean])
            kept.append(set(cohort.table["id"][clean]))
        assert kept[0] < kept[1] < kept[2]

    def test_it_is_the_same_among_some_of_the_rows_and_from_what_the_origin_says(self):
        cohort = tiny_cohort(n=200)
        what = planting(cohort, "square", side=0.2, prevalence=0.9, clean=0.2)
        whole, rows = planted(cohort, what), np.arange(0, 200, 3)
        some = planted(cohort, what, rows=rows)
        np.testing.assert_array_equal(some.truth["clean"], whole.truth["clean"].to_numpy()[rows])
        assert planted_in(whole).clean == 0.2

    def test_balanced_ones_carry_the_cue_in_half_of_each_class_and_the_others_are_as_before(self):
        cohort = tiny_cohort(n=1200)
        options = {"side": 0.2, "prevalence": 0.9, "clean": 0.5}
        without = planted(cohort, planting(cohort, "square", **options))
        made = planted(cohort, planting(cohort, "square", clean_arrangement="balanced", **options))
        clean, cue = made.truth["clean"].to_numpy(), made.truth["cue"].to_numpy()
        np.testing.assert_array_equal(clean, without.truth["clean"])
        np.testing.assert_array_equal(cue[~clean], without.truth["cue"][~clean])
        for k in (0, 1):
            assert abs(cue[clean & (cohort.labels == k)].mean() - 0.5) < 0.15
        assert planted_in(made).clean_arrangement == "balanced"

    def test_another_arrangement_of_the_clean_ones_is_refused(self):
        with pytest.raises(InputError, match="Did you mean 'balanced'"):
            planting(tiny_cohort(), "square", side=0.2, clean=0.1, clean_arrangement="balance")

    def test_a_share_outside_its_range_is_refused(self):
        with pytest.raises(InputError, match=r"clean training patients must be in \[0,1\]; found 1.5"):
            planting(tiny_cohort(), "square", side=0.2, clean=1.5)
