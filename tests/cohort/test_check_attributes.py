"""Attributes: planted links with the label and with the images are found, alone and together; and none without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import linear_model
from sklearn import metrics as sk

from tiny import tiny_cohort
from trueread.cohort import load_cohort
from trueread.cohort.check import Answer, Seriousness, run_check
from trueread.cohort.check.attributes import Attributes
from trueread.cohort.check.columns import described, named_values, nearly_identifies
from trueread.cohort.check.probe import (
    discriminant,
    embedding,
    normal_scores,
    patient_folds,
    standardised,
    told_out_of_fold,
    told_together,
)
from trueread.cohort.cohort import Cohort


def studied(
    *, n: int = 500, share: float = 0.5, tells: float = 0.0, shows: float = 0.0, seed: int = 0, disease: float = 0.05
) -> Cohort:
    """Noisy images of patients with two images each. The label is `share` of all and adds a faint blob.

    tells: how much more often site B has the label, as a difference of probabilities. shows: how much brighter the
    lower left of its images is. sex and age are independent of all.
    """
    rng = np.random.default_rng(seed)
    patients = n // 2
    site = rng.permutation(np.arange(patients) % 2)
    odds = np.clip(share + tells * (site - 0.5), 0, 1)
    labels = (rng.random(patients) < odds).astype(np.int64).repeat(2)
    images = 0.4 + 0.05 * rng.normal(size=(n, 16, 16)) + 0.04 * rng.normal(size=(patients, 1, 1)).repeat(2, axis=0)
    images[:, 4:9, 4:9] += disease * labels[:, None, None]
    images[:, 10:, :6] += shows * site.repeat(2)[:, None, None]
    table = pd.DataFrame(
        {
            "id": [f"i{k}" for k in range(n)],
            "patient": np.arange(patients).repeat(2).astype(str),
            "split": "",
            "site": np.where(site == 1, "B", "A").repeat(2),
            "sex": rng.choice(["F", "M"], patients).repeat(2),
            "age": rng.integers(20, 90, patients).repeat(2).astype(float),
        }
    )
    stored = (images.clip(0, 1) * 255).round().astype(np.uint8)[:, None]
    return Cohort("studied", stored, labels, table, ("normal", "opacity"), "binary")


def asked(cohort: Cohort, **options: object) -> Answer:
    return run_check(Attributes(**options), cohort)  # type: ignore[arg-type]


def about(answer: Answer, name: str):
    return [c for c in answer.concerns if c.title.startswith(f"'{name}'")]


def measured(answer: Answer, name: str) -> pd.Series:
    return answer.table.set_index("attribute").loc[name]


class TestSeriousness:
    @pytest.mark.parametrize("share", [0.5, 0.15])
    def test_both_links_are_serious(self, share):
        answer = asked(studied(n=800, share=share, tells=2 * min(share, 0.35), shows=0.08))
        [found] = about(answer, "site")
        assert found.seriousness is Seriousness.SERIOUS
        assert "'site' alone tells opacity from normal with AUROC 0." in found.title
        assert "it can be read from images of one class (balanced accuracy" in found.title
        assert [e.caption.split(",")[0] for e in found.examples] in (["site A", "site B"], ["site B", "site A"])
        assert len(answer.concerns) == 1

    def test_the_examples_are_of_one_class_and_two_values(self):
        cohort = studied(n=800, tells=0.7, shows=0.08)
        [found] = about(asked(cohort), "site")
        for example in found.examples:
            value = example.caption.split(",")[0].removeprefix("site ")
            assert set(cohort.table["site"].iloc[list(example.rows)]) == {value}
        assert len({int(cohort.labels[r]) for e in found.examples for r in e.rows}) == 1

    def test_only_the_label_knows_it(self):
        [found] = about(asked(studied(n=800, tells=0.7)), "site")
        assert found.seriousness is Seriousness.LOOK
        assert "it cannot be read" in found.title
        assert "looks better than it is" in found.advice

    def test_only_the_images_know_it(self):
        [found] = about(asked(studied(shows=0.08)), "site")
        assert found.seriousness is Seriousness.LOOK
        assert "'site' hardly tells a label" in found.title
        assert "it can be read" in found.title

    def test_a_weak_link_is_a_note(self):
        [found] = about(asked(studied(n=1600, tells=0.28)), "site")
        assert found.seriousness is Seriousness.NOTE
        assert 0.6 <= measured(asked(studied(n=1600, tells=0.28)), "site")["auroc"] < 0.7

    def test_a_site_that_is_the_label_is_serious_although_nothing_can_be_compared(self):
        cohort = studied(tells=1.0)
        assert (cohort.labels == (cohort.table["site"] == "B")).all()
        [found] = about(asked(cohort), "site")
        assert found.seriousness is Seriousness.SERIOUS
        assert "AUROC 1.00" in found.title
        assert "cannot be asked, because no class has enough patients of two values" in found.title

    def test_none_without_a_link(self):
        answer = asked(studied())
        assert answer.concerns == ()
        assert "site, sex, age: against the label" in answer.looked_at
        assert answer.table["attribute"].tolist() == ["site", "sex", "age"]

    @pytest.mark.slow
    @pytest.mark.parametrize("share", [0.5, 0.05])
    def test_no_more_than_one_null_cohort_in_twenty_alarms(self, share):
        """30 cohorts of 600 images and three attributes, three questions of each. 5 of 30 is exceeded in 0.3 % of runs
        at a rate of 5 %."""
        alarms = 0
        for seed in range(30):
            table = Attributes(permutations=300).run(studied(n=600, share=share, seed=seed + 100), seed=seed).table
            alarms += bool((table[["tells p", "read p", "loss p"]] <= 0.05).any(axis=None))
        assert alarms <= 5


class TestTellingTheLabel:
    def test_many_values_do_not_tell_a_random_label(self):
        """Thirty wards of thirteen patients: counted on the same patients their shares would reach an AUROC of 0.65."""
        cohort = studied(n=800)
        ward = np.random.default_rng(4).integers(0, 30, 400).repeat(2)
        table = cohort.table.assign(ward=[f"w{k}" for k in ward])
        row = measured(asked(replace(cohort, table=table)), "ward")
        shares = pd.Series(cohort.labels).groupby(ward).transform("mean")
        assert sk.roc_auc_score(cohort.labels, shares) > 0.6
        assert abs(row["auroc"] - 0.5) < 0.08
        assert row["cramers v"] < 0.15  # uncorrected it is near (30 / 400) ** 0.5 = 0.27
        assert row["tells p"] > 0.05

    def test_age_tells_by_rank_and_at_both_ends(self):
        cohort = studied(n=800)
        rng = np.random.default_rng(0)
        far = np.abs(rng.normal(55, 5, 400) + 25 * rng.choice([-1, 1], 400) * (cohort.labels[::2] == 1))
        table = cohort.table.assign(age=far.repeat(2))
        row = measured(asked(replace(cohort, table=table)), "age")
        assert row["auroc"] > 0.9  # the label is with the young and the old
        assert sk.roc_auc_score(cohort.labels, table["age"]) < 0.6

    def test_that_it_is_missing_may_tell_as_well(self):
        cohort = studied(n=600)
        age = cohort.table["age"].where((cohort.labels == 0) | (np.arange(600) % 4 < 2))
        row = measured(asked(replace(cohort, table=cohort.table.assign(age=age))), "age")
        assert row["auroc"] > 0.65
        assert row["tells p"] <= 0.05

    def test_cramers_v_and_the_auroc_by_hand(self):
        cohort = studied(n=400)
        site = np.where(np.random.default_rng(0).random(200) < 0.9, cohort.labels[::2], 1 - cohort.labels[::2])
        row = measured(asked(replace(cohort, table=cohort.table.assign(site=site.repeat(2)))), "site")
        assert row["auroc"] == pytest.approx(sk.roc_auc_score(cohort.labels, site.repeat(2)), abs=0.02)
        assert row["cramers v"] == pytest.approx(abs(np.corrcoef(cohort.labels[::2], site)[0, 1]), abs=0.02)


class TestOtherTasks:
    def test_grades(self):
        cohort = tiny_cohort("ordinal", n=320)
        grade = cohort.table.groupby("patient").ngroup()
        table = cohort.table.assign(dose=cohort.labels + grade % 2, centre=(grade % 2).map({0: "x", 1: "y"}))
        answer = asked(replace(cohort, table=table))
        [found] = about(answer, "dose")
        assert "'dose' alone orders the grades, concordance 0." in found.title
        assert not any("orders" in c.title for c in about(answer, "centre"))

    def test_multilabel_with_unknown_labels_and_unknown_values(self):
        cohort = tiny_cohort("multilabel", n=400)
        known = ~np.isnan(cohort.labels[:, 1])
        device = np.where(known & (cohort.labels[:, 1] == 1), "mobile", "fixed").astype(object)
        device[::7] = np.nan
        [found] = about(asked(replace(cohort, table=cohort.table.assign(device=device))), "device")
        assert "tells nodule from no nodule" in found.title
        assert "missing" in found.table["value"].tolist()
        assert found.n_images == int(pd.notna(device).sum())

    def test_several_classes_name_the_one_that_is_told(self):
        cohort = tiny_cohort("multiclass", n=300, share=0.4)
        table = cohort.table.assign(lamp=np.where(cohort.labels == 2, "uv", "white"))
        [found] = about(asked(replace(cohort, table=table)), "lamp")
        assert "tells moderate from the rest with AUROC 1.00" in found.title
        counts = found.table.set_index("value")
        assert counts.loc["uv", "moderate images"] == (cohort.labels == 2).sum()
        assert counts.loc["uv", "normal images"] == 0
        assert counts["images"].sum() == 300


class TestHeldOut:
    def test_a_site_whose_disease_looks_otherwise_costs(self):
        """At site C the sign of the disease is the other way round."""
        rng = np.random.default_rng(0)
        n = 900
        labels = rng.integers(0, 2, n)
        site = rng.choice(["A", "B", "C"], n)
        features = rng.normal(size=(n, 6))
        features[:, 0] += np.where(site == "C", -2.0, 2.0) * labels
        features[:, 1] += 4.0 * (site == "C")
        features[:, 2] += np.where(site == "C", 2.5, 0.0) * labels
        cohort = studied(n=n)
        table = cohort.table.assign(site=site, patient=np.arange(n).astype(str)).drop(columns=["sex", "age"])
        cohort = replace(cohort, labels=labels.astype(np.int64), table=table)
        attributes, _ = described(cohort)
        answer = Attributes().ask(cohort, attributes, features)
        row = measured(answer, "site")
        assert row["held out"] == "C"
        assert row["loss"] > 0.2
        assert row["loss low"] > 0.1
        assert "a probe that has not seen 'C' loses 0." in answer.concerns[0].title

    def test_sites_that_are_alike_cost_nothing(self):
        row = measured(asked(studied(n=800)), "site")
        assert abs(row["loss"]) < 0.05
        assert row["loss low"] < 0 < row["loss high"]

    def test_values_of_few_patients_are_not_held_out(self):
        cohort = studied(n=200)
        site = np.where(np.arange(100) < 10, "tiny", "A").repeat(2)
        row = measured(asked(replace(cohort, table=cohort.table.assign(site=site))), "site")
        assert row["held out"] == "A" or np.isnan(row["loss"])


class TestProbe:
    def test_told_together_is_a_ridge_regression_judged_fold_by_fold(self):
        rng = np.random.default_rng(0)
        clusters = rng.integers(0, 40, 200)
        x = rng.normal(size=(200, 5)).astype(np.float32)
        target = (x[:, 0] + rng.normal(size=200) > 0.8).astype(float)
        folds = patient_folds(clusters, seed=3)
        won, pairs = 0.0, 0
        for fold in range(5):
            test = folds == fold
            assert not set(clusters[test]) & set(clusters[~test])
            ridge = linear_model.Ridge(alpha=0.01 * (~test).sum()).fit(standardised(x)[~test], target[~test])
            n = int(target[test].sum() * (1 - target[test]).sum())
            won += n * sk.roc_auc_score(target[test], ridge.predict(standardised(x)[test]))
            pairs += n
        found = told_together(x, target, clusters, seed=3)
        assert found.value == pytest.approx(won / pairs, abs=1e-6)
        assert found.low < found.value < found.high

    @pytest.mark.parametrize("share", [0.5, 0.04])
    def test_noise_tells_nothing_and_not_less(self, share):
        """Scores pooled over folds would fall below one half: a fold with many of a class has a fit with few."""
        rng = np.random.default_rng(0)
        found = []
        for seed in range(40):
            target = (np.arange(250) < share * 250).astype(float)
            found.append(told_together(rng.normal(size=(250, 3)), target, np.arange(250), seed=seed).value)
        assert np.mean(found) == pytest.approx(0.5, abs=0.03)

    def test_folds_are_even_whole_and_ignore_the_order(self):
        clusters = np.random.default_rng(0).integers(0, 53, 300)
        folds = patient_folds(clusters, seed=1)
        per_patient = pd.Series(folds).groupby(clusters).agg(["nunique", "first"])
        assert per_patient["nunique"].max() == 1
        assert np.ptp(np.bincount(per_patient["first"])) <= 1
        turned = patient_folds(clusters[::-1], seed=1)[::-1]
        np.testing.assert_array_equal(turned, folds)

    @pytest.mark.parametrize("share", [0.5, 0.05])
    def test_noise_is_not_told_out_of_fold(self, share):
        rng = np.random.default_rng(0)
        x, clusters = rng.normal(size=(400, 30)), np.arange(400)
        codes = (rng.random(400) < share).astype(np.int64)
        told = told_out_of_fold(x, codes, clusters).argmax(axis=1)
        assert sk.balanced_accuracy_score(codes, told) == pytest.approx(0.5, abs=0.12)
        within = discriminant(x, codes, x, n_values=2).argmax(axis=1)
        assert sk.balanced_accuracy_score(codes, within) > 0.58  # what it would seem on the same images

    def test_three_values_in_a_row_are_all_said(self):
        rng = np.random.default_rng(0)
        codes = rng.integers(0, 3, 600)
        x = codes[:, None] + 0.3 * rng.normal(size=(600, 1))
        told = told_out_of_fold(x, codes, np.arange(600)).argmax(axis=1)
        assert (told[codes == 1] == 1).mean() > 0.8

    def test_a_rare_value_is_not_passed_over(self):
        rng = np.random.default_rng(0)
        codes = (np.arange(1000) < 30).astype(np.int64)
        x = rng.normal(size=(1000, 2)) + codes[:, None]
        told = told_out_of_fold(x, codes, np.arange(1000)).argmax(axis=1)
        recall = [(told[codes == k] == k).mean() for k in (0, 1)]
        assert min(recall) > 0.6

    def test_values_that_were_hardly_seen_have_no_probability(self):
        x = np.random.default_rng(0).normal(size=(20, 3))
        codes = np.array([0] * 9 + [1] * 9 + [2] * 2)
        found = discriminant(x, codes, x[:4], n_values=4)
        np.testing.assert_array_equal(found[:, 2:], 0)
        np.testing.assert_allclose(found.sum(axis=1), 1)
        np.testing.assert_array_equal(discriminant(x[:9], codes[:9], x[:2], n_values=2), [[1, 0], [1, 0]])

    def test_the_embedding_shows_where_images_differ(self):
        cohort = studied(shows=0.1)
        numbers = embedding(cohort)
        assert numbers.shape[0] == len(cohort)
        assert np.isfinite(numbers).all()
        varying = numbers.std(axis=0) > 0
        np.testing.assert_allclose(numbers[:, varying].std(axis=0), 1, rtol=1e-3)
        site = (cohort.table["site"] == "B").to_numpy().astype(np.int64)
        told = told_out_of_fold(numbers, site, cohort.patient_codes()).argmax(axis=1)
        assert sk.balanced_accuracy_score(site, told) > 0.9
        assert np.isfinite(embedding(tiny_cohort(n=40, depth=4))).all()

    def test_normal_scores_know_only_the_order(self):
        values = np.random.default_rng(0).normal(size=(50, 2))
        np.testing.assert_allclose(normal_scores(np.exp(values)), normal_scores(values))
        np.testing.assert_array_equal(normal_scores(np.full((5, 1), 3.0)), 0)


class TestColumns:
    def test_what_is_left_out_is_said(self):
        cohort = studied(n=200)
        table = cohort.table.assign(
            hospital="only",
            unknown=np.nan,
            accession=[f"A{k}" for k in range(200)],
            diary=[f"d{k % 90}" for k in range(200)],
            serial=np.arange(200) * 1000,
            lesion=np.linspace(0, 1, 200),
            width=np.arange(200),
        )
        attributes, skipped = described(replace(cohort, table=table))
        assert [a.name for a in attributes] == ["site", "sex", "age", "lesion"]
        text = " ".join(skipped)
        assert "'hospital' has one value" in text
        assert "'unknown' has no value" in text
        for name in ("accession", "diary", "serial"):
            assert f"'{name}' has " in text
        assert "identifier or nearly one" in text
        assert "width" not in text  # of the file: a cue and no attribute

    def test_ranges_of_numbers(self):
        values = named_values(pd.Series([*range(30), np.nan]))
        assert values[[0, 15, 29, 30]].tolist() == ["0 to 9", "10 to 19", "20 to 29", "missing"]
        assert named_values(pd.Series([1.0, 2.0, np.nan])).tolist() == ["1.0", "2.0", "missing"]

    def test_ages_are_no_identifiers(self):
        clusters = np.arange(60)
        assert not nearly_identifies(pd.Series(np.arange(60) + 20), clusters)
        assert nearly_identifies(pd.Series(np.arange(60) * 7), clusters)
        assert not nearly_identifies(pd.Series(np.random.default_rng(0).random(60)), clusters)
        assert nearly_identifies(pd.Series([f"x{k}" for k in range(60)]), clusters)

    def test_what_cannot_be_asked_says_why(self):
        cohort = studied(n=60)
        plain = replace(cohort, table=cohort.table[["id", "patient", "split"]])
        assert "no attribute" in asked(plain).reason
        only = replace(cohort, table=plain.table.assign(hospital="only"))
        assert "'hospital' has one value and is left out" in asked(only).reason
        assert "no attribute 'scanner'" in asked(cohort, attributes=["scanner"]).reason
        alone = replace(cohort, labels=np.zeros(60, np.int64))
        assert "no label has 5 patients" in asked(alone).reason

    def test_named_attributes_are_asked_even_if_they_identify(self):
        cohort = studied(n=100)
        table = cohort.table.assign(code=cohort.table["patient"].map(lambda p: f"c{int(p) % 40}"))
        assert "'code'" in asked(replace(cohort, table=table)).looked_at
        assert asked(replace(cohort, table=table), attributes=["code"]).table["attribute"].tolist() == ["code"]

    def test_the_answer_is_that_of_the_seed(self):
        cohort = studied(n=120)
        first, again = (Attributes(permutations=200).run(cohort, seed=4) for _ in range(2))
        pd.testing.assert_frame_equal(first.table, again.table)
        assert not Attributes(permutations=200).run(cohort, seed=5).table.equals(first.table)


def test_the_phantoms_sites_and_views_are_read_and_its_age_is_not():
    answer = asked(load_cohort("phantom", n_images=900, size=48))
    assert "it can be read" in about(answer, "site")[0].title
    assert "it can be read" in about(answer, "view")[0].title
    assert about(answer, "age") == []


@pytest.mark.realdata
@pytest.mark.slow
def test_how_lesions_were_confirmed_gives_naevi_away(real_data: Path):
    """In HAM10000 every lesion confirmed by follow-up is a naevus, and those pictures differ from the others."""
    path = real_data / "ham10000" / "metadata.csv"
    cohort = load_cohort(f"csv:{path}", size=32, patient="lesion_id", mask="", attributes=["dx_type", "sex"])
    answer = asked(cohort)
    [found] = about(answer, "dx_type")
    assert found.seriousness is Seriousness.SERIOUS
    assert "'dx_type' alone tells nv from the rest" in found.title
    counts = found.table.set_index("value")
    assert counts.loc["follow_up", "nv images"] == counts.loc["follow_up", "images"]
    assert not any("alone tells" in c.title for c in about(answer, "sex"))
