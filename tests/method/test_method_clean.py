"""Which training images are clean, and which group each one is in: what the remedies against shortcuts are told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tiny import tiny_cohort, tiny_config, tiny_setup
from trueread.cohort.cohort import Cohort
from trueread.errors import InputError
from trueread.method.base import build_method
from trueread.method.clean import clean_rows
from trueread.method.groups import groups_of
from trueread.shift.planting import planted, planting
from trueread.training.evaluate import predict_probabilities
from trueread.training.loop import fit


def faint(*, n: int = 300, seed: int = 5) -> Cohort:
    """A tiny cohort whose evidence is faint, and in the bottom right corner."""
    cohort = tiny_cohort(n=n)
    grey = np.random.default_rng(seed).normal(0.3, 0.1, cohort.images.shape)
    images = grey + 0.35 * (cohort.images[..., ::-1, ::-1] / 255 - 0.3)
    return replace(cohort, images=(images.clip(0, 1) * 255).round().astype(np.uint8))


def shortcut_world(*, prevalence: float = 0.9, clean: float = 0.0) -> tuple[Cohort, Cohort]:
    """A cohort in which a black square in the other corner is easier to learn than the evidence, and the same test
    images with the square on the other class.
    """
    cohort = faint()
    what = planting(cohort, "square", severity=1.0, side=0.25, level=0.0, prevalence=prevalence, clean=clean)
    return planted(cohort, what), planted(cohort, what, {"test": "flipped"}, rows=cohort.rows("test"))


def right_when_flipped(name: str, world: tuple[Cohort, Cohort], **options) -> tuple[float, dict]:
    """Accuracy of a method on the flipped test images, and what it reports."""
    biased, flipped = world
    config = tiny_config(epochs=6, learning_rate=4e-4, select="last")
    fitted = fit(biased, build_method(name, **options), config, seed=0, quiet=True)
    right = predict_probabilities(fitted.classifier, flipped).argmax(1) == flipped.labels
    return float(right.mean()), fitted.report


def with_column(cohort: Cohort, **columns) -> Cohort:
    return replace(cohort, table=cohort.table.assign(**columns))


def clean_of(cohort: Cohort, clean, *, fraction: float | None = None, seed: int = 0) -> np.ndarray:
    setup = tiny_setup(cohort)
    setup.seed = seed
    return clean_rows(setup, clean, fraction=fraction)


class TestCleanRows:
    @pytest.mark.parametrize("task", ["binary", "multiclass", "ordinal"])
    def test_ids_a_file_and_a_column_name_the_same_images(self, task, tmp_path):
        cohort = tiny_cohort(task, share=0.2)
        chosen = np.random.default_rng(0).random(len(cohort)) < 0.6
        ids = cohort.table["id"][chosen].tolist()
        (tmp_path / "ids.txt").write_text("\n".join(["", *reversed(ids), "  "]), encoding="utf-8-sig")
        expected = np.intersect1d(np.flatnonzero(chosen), cohort.rows("train"))
        assert 0 < len(expected) < chosen.sum(), "some are in validation and test, and are left out"
        cohort = with_column(
            cohort,
            words=np.where(chosen, " Yes", "no"),
            numbers=chosen.astype(int),
            truths=chosen,
            floats=np.where(chosen, 1.0, np.nan),
        )
        for clean in (ids, f"ids:{tmp_path / 'ids.txt'}", "words", "numbers", "truths", "floats"):
            np.testing.assert_array_equal(clean_of(cohort, clean), expected)

    def test_planted_ones_are_those_that_the_planting_kept_clean(self):
        cohort = tiny_cohort(n=200)
        made = planted(cohort, planting(cohort, "square", severity=1.0, side=0.25, prevalence=1.0, clean=0.3))
        rows = clean_of(made, "planted")
        assert (made.images[rows] == cohort.images[rows]).all()
        assert set(rows) == set(np.flatnonzero(made.truth["clean"]))
        assert not made.truth["cue"].to_numpy()[rows].any()

    def test_a_fraction_is_of_each_classs_patients_who_come_whole(self):
        cohort = with_column(tiny_cohort(n=400, share=0.2), clean=1)
        train = cohort.table.iloc[cohort.rows("train")].assign(label=cohort.labels[cohort.rows("train")])
        patients = train.groupby("label")["patient"].nunique()
        smaller: set[int] = set()
        for fraction in (0.001, 0.1, 0.25, 1.0):
            rows = clean_of(cohort, "clean", fraction=fraction)
            chosen = train.loc[rows].groupby("label")["patient"].nunique()
            assert chosen.tolist() == [max(1, round(fraction * n)) for n in patients]
            whole = train.index[train["patient"].isin(train.loc[rows, "patient"])]
            np.testing.assert_array_equal(rows, whole)
            assert smaller <= set(rows), "a larger fraction holds the smaller one"
            smaller = set(rows)

    def test_a_fraction_is_at_most_what_is_clean(self):
        cohort = tiny_cohort(n=200)
        few = [*cohort.rows("train")[:8]]
        ids = cohort.table["id"].iloc[few].tolist()
        np.testing.assert_array_equal(clean_of(cohort, ids, fraction=0.9), few)

    @pytest.mark.parametrize("seed", [0, 7, 2**40])
    def test_the_seed_draws_the_fraction(self, seed):
        cohort = with_column(tiny_cohort(n=400), clean=True)
        rows = clean_of(cohort, "clean", fraction=0.2, seed=seed)
        np.testing.assert_array_equal(rows, clean_of(cohort, "clean", fraction=0.2, seed=seed))
        assert set(rows) != set(clean_of(cohort, "clean", fraction=0.2, seed=seed + 1))

    def test_multilabel_takes_all_that_are_listed_and_no_fraction(self):
        cohort = with_column(tiny_cohort("multilabel"), clean=1)
        np.testing.assert_array_equal(clean_of(cohort, "clean"), cohort.rows("train"))
        with pytest.raises(InputError, match="the task is multilabel; list their ids"):
            clean_of(cohort, "clean", fraction=0.5)


class TestNoCleanImages:
    @pytest.mark.parametrize("task", ["binary", "multilabel"])
    def test_none_at_all(self, task):
        cohort = with_column(tiny_cohort(task), mark="no")
        for clean in ("mark", [], cohort.table["id"].iloc[cohort.rows("test")].tolist()):
            with pytest.raises(InputError, match="images of every class are needed; found none, among the 7"):
                clean_of(cohort, clean, fraction=0.5 if task == "binary" else None)

    def test_none_of_a_class(self):
        cohort = with_column(tiny_cohort("multiclass"), mark=(tiny_cohort("multiclass").labels != 1).astype(int))
        with pytest.raises(InputError, match=r"found \d+, none of 'mild', among"):
            clean_of(cohort, "mark")

    def test_not_planted(self):
        with pytest.raises(InputError, match=r"no planted cue, .*\(clean=COLUMN; it has none\)"):
            clean_of(tiny_cohort(), "planted")

    def test_an_unknown_column_suggests_one(self):
        with pytest.raises(InputError, match=r"no column 'unbiased' .* Did you mean 'unbiassed'"):
            clean_of(with_column(tiny_cohort(), unbiassed=1), "unbiased")

    def test_an_unknown_id_is_named_and_the_others_counted(self):
        with pytest.raises(InputError, match=r"no image 'x1', which is listed as clean \(and 1 more\); .*'i0000'"):
            clean_of(tiny_cohort(), ["i0001", "x2", "x1"])

    @pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"], ids=["missing", "no text"])
    def test_a_list_that_cannot_be_read(self, content, tmp_path):
        if content is not None:
            (tmp_path / "ids.txt").write_bytes(content)
        with pytest.raises(InputError, match=r"ids.txt cannot be read .*give a text file of ids"):
            clean_of(tiny_cohort(), f"ids:{tmp_path / 'ids.txt'}")


class TestGroups:
    def test_are_classes_times_values_and_missing_is_a_value(self):
        cohort = tiny_cohort("multiclass", share=0.4)
        site = np.resize(np.array(["A", "B", None], dtype=object), len(cohort))
        cohort = with_column(cohort, site=site)
        rows = cohort.rows("train")[::-1]
        groups, names = groups_of(cohort, rows, "site")
        assert len(names) == 9
        said = [names[g] for g in groups]
        assert said == [f"{cohort.classes[cohort.labels[r]]}, site: {site[r] or 'unknown'}" for r in rows]

    @pytest.mark.parametrize(
        "values", [[True, False], [0, 1], [1.0, np.nan], pd.Categorical(["m", "f"]), ["a", pd.NA]], ids=str
    )
    def test_any_kind_of_column(self, values):
        cohort = with_column(tiny_cohort(), kind=pd.Series(values).iloc[np.arange(120) % 2].to_numpy())
        groups, names = groups_of(cohort, np.arange(120), "kind")
        _, expected = np.unique(cohort.labels * 2 + np.arange(120) % 2, return_inverse=True)
        assert len(names) == 4
        assert len(set(zip(groups, expected, strict=True))) == 4

    def test_groups_without_an_image_are_none(self):
        cohort = tiny_cohort(n=200)
        made = planted(cohort, planting(cohort, "square", severity=1.0, side=0.25, prevalence=1.0))
        groups, names = groups_of(made, made.rows("train"), "planted")
        assert names == ["mild, planted: True", "normal, planted: False"]
        np.testing.assert_array_equal(groups, 1 - made.labels[made.rows("train")])

    def test_one_value_is_no_group(self):
        cohort = with_column(tiny_cohort(), site="A")
        with pytest.raises(InputError, match=r"'site' has one value in the 72 images .*\(A\), so it makes no groups"):
            groups_of(cohort, cohort.rows("train"), "site")

    def test_wrong_names_and_tasks(self):
        with pytest.raises(InputError, match=r"no attribute 'sit'. Did you mean 'site'\? It has site"):
            groups_of(with_column(tiny_cohort(), site="A"), np.arange(9), "sit")
        with pytest.raises(InputError, match="no planted cue; name the attribute"):
            groups_of(tiny_cohort(), np.arange(9), "planted")
        with pytest.raises(InputError, match="the task is multilabel; use another method"):
            groups_of(tiny_cohort("multilabel"), np.arange(9), "site")
