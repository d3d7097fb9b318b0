"""Clean images only: nothing else is learnt from, in as many steps, and a shortcut that is not in them is not taken."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_method_clean import right_when_flipped, shortcut_world, with_column
from test_method_seam import run, same, survives

from tiny import tiny_cohort, tiny_setup
from trueread.errors import InputError
from trueread.method.base import build_method
from trueread.method.clean import clean_rows
from trueread.training.batches import epoch_order


def marked(task: str = "binary", *, n: int = 200, share: float = 0.2, marks: float = 0.3):
    cohort = tiny_cohort(task, n=n, share=share)
    return with_column(cohort, mark=(np.random.default_rng(2).random(n) < marks).astype(int))


@pytest.mark.parametrize("task", ["binary", "multiclass", "ordinal", "multilabel"])
def test_every_clean_image_is_drawn_equally_often_and_no_other(task):
    cohort = marked(task)
    setup, method = tiny_setup(cohort), build_method("clean-only", clean="mark")
    method.prepare(setup)
    rows = clean_rows(setup, "mark")
    n = len(setup.train_rows)
    assert 0 < len(rows) < n
    np.testing.assert_array_equal(setup.train_rows[method.sampling(None) > 0], rows)
    assert set(method.sampling(None).tolist()) == {0.0, 1.0}
    order = epoch_order(n, generator=torch.Generator().manual_seed(0), sampling=method.sampling(None))
    assert len(order) == n, "an epoch has as many steps as plain training"
    assert set(setup.train_rows[order]) <= set(rows)
    assert method.report() == {
        "clean_images": len(rows),
        "clean_images_per_class": dict(zip(cohort.classes, cohort.class_counts(rows).tolist(), strict=True)),
    }


def test_what_is_not_clean_changes_nothing():
    """Other labels on all other training images, and the same weights to the last bit."""
    cohort = marked()
    labels = cohort.labels.copy()
    others = np.setdiff1d(cohort.rows("train"), clean_rows(tiny_setup(cohort), "mark"))
    labels[others] = 1 - labels[others]
    poisoned = type(cohort)(**{**vars(cohort), "labels": labels})
    one, other = (run(build_method("clean-only", clean="mark"), c, epochs=2) for c in (cohort, poisoned))
    assert same(one.classifier, other.classifier)
    seen = ~one.ledger.loss.isnan()
    assert seen.any()
    assert not seen[:, np.isin(cohort.rows("train"), others)].any()
    assert not same(one.classifier, run(build_method("erm"), cohort, epochs=2).classifier)


def test_does_not_take_a_planted_shortcut():
    world = shortcut_world(prevalence=1.0, clean=0.2)
    plain, _ = right_when_flipped("erm", world)
    alone, report = right_when_flipped("clean-only", world)
    assert alone > plain + 0.2
    assert report["clean_images"] == world[0].truth["clean"].sum()


def test_a_fraction_of_them():
    cohort, seen = marked(marks=1.0), []
    for fraction in (None, 0.5, 0.1):
        method = build_method("clean-only", clean="mark", fraction=fraction)
        method.prepare(tiny_setup(cohort))
        assert method.report()["clean_images"] == int(method.sampling(None).sum())
        seen.append(method.report()["clean_images"] / len(cohort.rows("train")))
    assert seen == pytest.approx([1.0, 0.5, 0.1], abs=0.02)


def test_survives_and_composes(tmp_path):
    make = lambda: build_method("clean-only+balanced-sampling", **{"clean-only": {"clean": "mark"}})  # noqa: E731
    survives(make, tmp_path, cohort=marked())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "tiny-binary has no planted cue, so no image is known to be clean"),
        ({"clean": "marks"}, "no column 'marks' .* Did you mean 'mark'"),
        ({"clean": []}, "found none, among the"),
        ({"clean": ["x"]}, "no image 'x', which is listed as clean"),
    ],
)
def test_no_clean_images(options, sentence):
    with pytest.raises(InputError, match=sentence):
        build_method("clean-only", **options).prepare(tiny_setup(marked()))


@pytest.mark.parametrize("options", [{"fraction": 0}, {"fraction": 1.1}, {"clean": 3}])
def test_options_out_of_range(options):
    with pytest.raises(InputError, match=r"method 'clean-only': '.*' must be"):
        build_method("clean-only", **options)
