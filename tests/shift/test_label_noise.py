"""Wrong labels: as many as asked, of the kind asked, the same for the same image, and the truth is kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny import tiny_cohort
from trueread import load_cohort, save_cohort
from trueread.errors import InputError
from trueread.shift.label_noise import NOISE, with_label_noise

N = 4000


@pytest.fixture(scope="module")
def cohort():
    return tiny_cohort("multiclass", n=N, share=0.6, side=4)


def noisy_rows(cohort):
    return np.concatenate([cohort.rows("train"), cohort.rows("val")])


def weak(cohort, seed=0):
    generator = np.random.default_rng(seed)
    p = generator.dirichlet(np.ones(cohort.n_classes), len(cohort)) + 0.7 * np.eye(cohort.n_classes)[cohort.labels]
    return p / p.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("kind", ["symmetric", "class-dependent", "annotators", "feature-dependent"])
def test_the_rate_is_the_expected_share_and_test_stays(cohort, kind):
    options = {"probabilities": weak(cohort)} if kind == "feature-dependent" else {}
    made = with_label_noise(cohort, kind, rate=0.3, n_annotators=400, **options)
    rows, wrong = noisy_rows(cohort), made.labels != cohort.labels
    assert wrong[rows].mean() == pytest.approx(0.3, abs=0.03)
    assert not wrong[cohort.rows("test")].any()
    np.testing.assert_array_equal(made.truth["flipped"], wrong)
    np.testing.assert_array_equal(made.truth["true_label"], cohort.labels)
    told = made.origin[NOISE]
    assert (told["wrong"], told["of"]) == (wrong.sum(), len(rows))
    assert made.images is cohort.images


def shares(cohort, made):
    """[K,K]: share of each given label among images of each true one."""
    rows = noisy_rows(cohort)
    table = np.zeros((3, 3))
    np.add.at(table, (cohort.labels[rows], made.labels[rows]), 1)
    return table / table.sum(axis=1, keepdims=True)


def test_symmetric_noise_goes_anywhere_and_class_dependent_noise_to_the_next(cohort):
    symmetric = shares(cohort, with_label_noise(cohort, "symmetric", rate=0.3))
    np.testing.assert_allclose(symmetric, 0.15 + 0.55 * np.eye(3), atol=0.04)
    pairs = shares(cohort, with_label_noise(cohort, "class-dependent", rate=0.3))
    np.testing.assert_allclose(pairs, 0.7 * np.eye(3) + 0.3 * np.roll(np.eye(3), 1, axis=1), atol=0.04)


def test_a_matrix_says_what_becomes_of_each_class(cohort):
    matrix = [[1, 0, 0], [0.2, 0.5, 0.3], [0, 0.4, 0.6]]
    found = shares(cohort, with_label_noise(cohort, "class-dependent", matrix=matrix))
    np.testing.assert_allclose(found, matrix, atol=0.05)
    assert found[0, 0] == 1


def test_feature_dependent_noise_is_where_the_weak_model_doubts(cohort):
    p = weak(cohort)
    made = with_label_noise(cohort, "feature-dependent", rate=0.1, probabilities=p)
    rows, n = noisy_rows(cohort), np.arange(N)
    others = np.where(np.eye(3, dtype=bool)[cohort.labels], -1, p)
    doubt = others.max(axis=1) - p[n, cohort.labels]
    wrong = np.isin(n, rows) & made.truth["flipped"].to_numpy()
    assert wrong.sum() == round(0.1 * len(rows))
    assert doubt[wrong].min() >= doubt[np.setdiff1d(rows, n[wrong])].max()
    np.testing.assert_array_equal(made.labels[wrong], others.argmax(axis=1)[wrong])


def test_annotators_differ_and_keep_to_neighbouring_grades():
    cohort = tiny_cohort("ordinal", n=N, side=4)
    made = with_label_noise(cohort, "annotators", rate=0.2, n_annotators=4, seed=1)
    rows = noisy_rows(cohort)
    who, wrong = made.truth["annotator"].to_numpy(), made.truth["flipped"].to_numpy()
    assert set(who[rows]) == {0, 1, 2, 3}
    assert (who[cohort.rows("test")] == -1).all()
    rates = [wrong[who == a].mean() for a in range(4)]
    assert max(rates) > 1.5 * min(rates)
    assert np.mean(rates) == pytest.approx(0.2, abs=0.04)
    assert (np.abs(made.labels - cohort.labels)[wrong] == 1).all()


@settings(max_examples=15, deadline=None)
@given(
    kind=st.sampled_from(["symmetric", "class-dependent", "annotators"]), seed=st.integers(0, 99),
    by=st.sampled_from(["image", "patient"]),
)  # fmt: skip
def test_a_label_does_not_depend_on_the_other_images(kind, seed, by):
    cohort = tiny_cohort("multiclass", n=240, side=4)
    made = with_label_noise(cohort, kind, rate=0.25, seed=seed, by=by)
    label = dict(zip(made.table["id"], made.labels, strict=True))
    some = np.random.default_rng(seed).permutation(240)[:200]
    again = with_label_noise(cohort.subset(some), kind, rate=0.25, seed=seed, by=by)
    assert all(label[i] == y for i, y in zip(again.table["id"], again.labels, strict=True))


def test_a_patient_keeps_one_label(cohort):
    made = with_label_noise(cohort, "symmetric", rate=0.4, by="patient")
    assert (made.truth.assign(p=made.table["patient"]).groupby("p")["flipped"].nunique() == 1).all()
    assert 0.3 < made.truth["flipped"][noisy_rows(cohort)].mean() < 0.5


def test_no_noise_changes_nothing_and_another_seed_something_else(cohort):
    assert with_label_noise(cohort, rate=0.0).digest == cohort.digest
    first, second = (with_label_noise(cohort, rate=0.2, seed=s) for s in (0, 1))
    assert (first.labels != second.labels).any()
    only = with_label_noise(cohort, rate=0.2, splits=("train",))
    assert not only.truth["flipped"][cohort.rows("val")].any()


def test_it_can_be_saved(tmp_path, cohort):
    made = with_label_noise(cohort, "annotators", rate=0.2)
    read = load_cohort(f"saved:{save_cohort(made, tmp_path)}")
    assert read.digest == made.digest
    assert read.origin[NOISE] == made.origin[NOISE]
    np.testing.assert_array_equal(read.truth["flipped"], made.truth["flipped"])


def test_bad_input_is_one_sentence():
    small = tiny_cohort("multiclass", n=60, side=4)
    once = with_label_noise(small, rate=0.1)
    emptying = [[0, 1, 0], [0, 1, 0], [0, 0, 1]]
    cases = [
        (small, {"kind": "symetric"}, "Did you mean 'symmetric'"),
        (small, {"rate": 1.0}, r"in \[0,1\)"),
        (small, {"by": "site"}, "'site'"),
        (small, {"splits": ("trian",)}, "Did you mean 'train'"),
        (small, {"kind": "annotators", "n_annotators": 0}, "at least one annotator"),
        (small, {"kind": "feature-dependent"}, "found none"),
        (small, {"kind": "feature-dependent", "probabilities": np.ones((60, 3))}, r"found \[60, 3\]"),
        (small, {"matrix": np.eye(3)}, "goes with class-dependent"),
        (small, {"kind": "class-dependent", "matrix": np.eye(2)}, r"found \[2, 2\]"),
        (small, {"kind": "class-dependent", "matrix": emptying}, "no image of 'normal' would be left"),
        (once, {}, "made wrong already"),
        (small.with_split([""] * 60), {}, "no split yet"),
        (tiny_cohort("multilabel", n=60), {}, "the task is multilabel"),
    ]  # fmt: skip
    for given_cohort, options, said in cases:
        with pytest.raises(InputError, match=said):
            with_label_noise(given_cohort, **options)
