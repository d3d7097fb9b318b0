"""Pictures in findings: what is shown is what was predicted, drawn at random and without a name."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from test_audit_shortcut_reliance import corner, made, nothing, subject_for, with_planting

from tiny import tiny_cohort
from trueread.audit.cue_strips import drawn_at_random
from trueread.audit.shortcut_reliance import ShortcutReliance
from trueread.audit.strip import Panel, Strip
from trueread.errors import InputError
from trueread.shift.base import SHIFTS
from trueread.shift.planting import with_cue

LIBRARY = ["blur", "brightness", "gamma", "gaussian-noise", "ruler", "square", "text", "vignette"]


@pytest.fixture(autouse=True)
def _alone(quiet_and_on_one_thread):
    pass


def strips(subject, **options) -> dict[str, Strip]:
    return {s.name: s for s in ShortcutReliance(**options).run(subject).strips}


def row_of(cohort, image: np.ndarray) -> int:
    """The row whose picture this is."""
    return next(i for i, own in enumerate(cohort.images) if np.array_equal(own, image))


def captions(strip: Strip) -> list[list[str]]:
    return [[panel.caption for panel in row] for row in strip.rows]


class TestPlanted:
    def test_a_pair_is_one_image_without_and_with_the_cue(self):
        _, what, cohort = with_planting()
        strip = strips(subject_for(cohort, corner))["planted"]
        assert (strip.heads, strip.white) == (["without", "with"], 255)
        assert "'square'" in strip.title
        rows = [row_of(cohort, without.image) for without, _ in strip.rows]
        for row, (_, with_) in zip(rows, strip.rows, strict=True):
            assert np.array_equal(with_.image, with_cue(cohort, what.shift, np.array([row]))[0])
            assert (with_.image != cohort.images[row]).any()
        assert captions(strip) == [["mild 20 %", "mild 100 %"]] * 4  # the corner without and with the white square

    def test_they_are_drawn_class_after_class_with_no_patient_twice(self):
        _, _, cohort = with_planting(share=0.05)
        strip = strips(subject_for(cohort, corner))["planted"]
        rows = [row_of(cohort, row[0].image) for row in strip.rows]
        truth = [cohort.classes[k] for k in cohort.labels[rows]]
        assert sorted(truth[:2]) == sorted(truth[2:]) == ["mild", "normal"]
        assert strip.row_titles == [f"Truly {name}" for name in truth]
        assert cohort.table["patient"].iloc[rows].nunique() == 4
        assert "drawn at random" in strip.caption

    def test_they_are_not_those_that_move_most(self):
        """Only one image in ten is moved: among the four of thirty seeds it is as rare as that, or nearly."""
        cohort = tiny_cohort(n=200, side=32)
        cohort = replace(cohort, table=cohort.table.assign(patient=cohort.table["id"])).with_split(["test"] * 200)
        moved = np.random.default_rng(0).permutation(200) < 20
        subjects = [replace(subject_for(cohort, nothing), seed=seed) for seed in range(30)]
        drawn = [i for s in subjects for i in drawn_at_random(s, np.arange(200), count=4)]
        assert len(set(drawn)) > 60
        assert 0.02 < moved[drawn].mean() < 0.2

    def test_the_numbers_are_means_over_seeds(self):
        _, _, cohort = with_planting()
        strip = strips(subject_for(cohort, corner, nothing))["planted"]
        assert captions(strip)[0] == ["mild 25 %", "mild 65 %"]
        assert strip.caption.endswith("the probability of 'mild', mean over 2 seeds.")

    @pytest.mark.parametrize("task", ["multiclass", "ordinal"])
    def test_of_more_classes_it_is_the_probability_of_the_images_own(self, task):
        """The reader calls the second class what it reads of the corner, and the first the rest."""
        _, _, cohort = with_planting(task, n=120)
        strip = strips(subject_for(cohort, corner))["planted"]
        expected = {"normal": ["80 %", "0 %"], "mild": ["20 %", "100 %"]}
        for title, said in zip(strip.row_titles, captions(strip), strict=True):
            name = title.removeprefix("Truly ")
            assert said == [f"{name} {share}" for share in expected.get(name, ["0 %", "0 %"])]
        assert len(set(strip.row_titles[: cohort.n_classes])) == min(4, cohort.n_classes)
        assert "the image's own class" in strip.caption

    def test_test_images_that_carry_the_cue_have_no_pairs(self):
        _, _, cohort = with_planting(test="biased")
        assert set(strips(subject_for(cohort, corner))) == {"library"}


class TestLibrary:
    def test_two_images_of_two_classes_with_every_cue_at_the_judged_severity(self):
        cohort = made(n=100, share=0.1)
        strip = strips(subject_for(cohort, corner), images=40)["library"]
        assert list(strip.heads) == ["as it is", *LIBRARY]
        assert sorted(strip.row_titles) == ["Truly mild", "Truly normal"]
        for panels in strip.rows:
            row = row_of(cohort, panels[0].image)
            for name, panel in zip(LIBRARY, panels[1:], strict=True):
                shift = SHIFTS.build(name, {"severity": 0.5, "seed": 0})
                assert np.array_equal(panel.image, with_cue(cohort, shift, np.array([row]))[0]), name
            said = dict(zip(strip.heads, (p.caption for p in panels), strict=True))
            assert (said["as it is"], said["square"], said["text"]) == ("mild 20 %", "mild 60 %", "mild 20 %")

    @pytest.mark.parametrize("options", [{"channels": 3}, {"white": 4095}], ids=str)
    def test_colour_and_more_bits(self, options):
        cohort = made(n=40, **options)
        strip = strips(subject_for(cohort, corner))["library"]
        assert strip.white == cohort.white
        assert all(p.image.shape == cohort.images.shape[1:] for row in strip.rows for p in row)
        assert all(p.image.dtype == cohort.images.dtype for row in strip.rows for p in row)

    @pytest.mark.parametrize(("marked", "shown"), [(None, 2), (3, 3)])
    def test_of_a_volume_the_slice_with_the_mask_or_the_middle_one(self, marked, shown):
        cohort = made(n=40, depth=4)
        if marked is not None:
            masks = np.zeros((40, 4, 32, 32), np.uint8)
            masks[:, marked, 5:9, 5:9] = 1
            cohort = replace(cohort, masks=masks)
        strip = strips(subject_for(cohort, corner))["library"]
        for row in strip.rows:
            assert any(np.array_equal(row[0].image, own[:, shown]) for own in cohort.images)
            assert row[1 + LIBRARY.index("square")].caption == "mild 60 %"

    def test_multilabel_tells_a_label_that_the_image_has(self):
        cohort = made("multilabel", n=100)
        strip = strips(subject_for(cohort, corner))["library"]
        for title, said in zip(strip.row_titles, captions(strip), strict=True):
            has = title.removeprefix("Truly ").split(", ")
            assert said[0].rsplit(" ", 2)[0] in (has if has != ["none"] else ["nodule"])  # the only one it ever gives

    def test_images_of_which_no_label_is_known_are_not_shown(self):
        cohort = made("multilabel", n=40)
        labels = np.full_like(cohort.labels, np.nan)
        labels[7, 0] = 1
        subject = subject_for(replace(cohort, labels=labels), corner)
        assert drawn_at_random(subject, np.arange(40), count=4) == [7]
        unknown = subject_for(replace(cohort, labels=np.full_like(labels, np.nan)), corner)
        assert drawn_at_random(unknown, np.arange(40), count=4) == []
        assert strips(unknown) == {}

    def test_nothing_is_predicted_for_them(self):
        seen = []
        subject = subject_for(made(n=100), lambda x: seen.append(len(x)) or corner(x))
        seen.clear()
        ShortcutReliance(images=40, strengths=(0.5,)).run(subject)
        assert sum(seen) == 8 * 40

    def test_the_order_of_the_images_does_not_matter(self):
        cohort = made(n=120)
        turned = cohort.subset(np.random.default_rng(0).permutation(120))
        one, other = (strips(subject_for(c, corner))["library"] for c in (cohort, turned))
        for a, b in zip(one.rows, other.rows, strict=True):
            assert all(np.array_equal(p.image, q.image) for p, q in zip(a, b, strict=True))


def test_the_findings_json_has_the_words_and_no_pixel_and_no_name():
    _, _, cohort = with_planting()
    finding = ShortcutReliance().run(subject_for(cohort, corner))
    told = json.loads(json.dumps(finding.to_json()))["strips"]
    assert [s["name"] for s in told] == ["planted", "library"]
    assert told[0]["rows"][0] == [{"caption": "mild 20 %"}, {"caption": "mild 100 %"}]
    assert set(told[0]) == {"name", "title", "caption", "unit", "heads", "row_titles", "rows"}
    names = [*cohort.table["id"], *cohort.table["patient"]]
    assert not any(f'"{name}"' in json.dumps(told) or f" {name}" in json.dumps(told) for name in names)


IMAGE = np.zeros((1, 4, 4), np.uint8)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Panel(IMAGE[0]), r"of shape \[C,H,W\]"),
        (lambda: Panel(np.zeros((1, 3, 4, 4))), "give the slice to show"),
        (lambda: Panel(np.zeros((2, 4, 4))), "1 or 3 channels"),
        (lambda: Panel(IMAGE, "", np.zeros((2, 2))), r"must be of its image's shape, \[4, 4\]; found \[2, 2\]"),
        (lambda: Strip("s", "", "", []), "found no row;"),
        (lambda: Strip("s", "", "", [[Panel(IMAGE)], []]), r"found rows of \[0, 1\]"),
        (lambda: Strip("s", "", "", [[Panel(IMAGE)]], heads=["a", "b"]), "needs 1 heads, or none; found 2"),
        (lambda: Strip("s", "", "", [[Panel(IMAGE)] * 2], row_titles=["a", "b"]), "needs 1 row_titles"),
    ],
)
def test_a_strip_that_cannot_be_drawn_is_refused_where_it_is_made(make, said):
    with pytest.raises(InputError, match=said):
        make()
