"""The label audit: order and power on planted truth, the list, the warning about minorities, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from tiny import tiny_cohort
from trueread import with_decisions, with_label_noise
from trueread.audit.base import default_thresholds, run_audit
from trueread.audit.finding import Verdict
from trueread.audit.label import LabelAudit
from trueread.audit.label_groups import Groups
from trueread.audit.label_looked import COLUMNS, Looked
from trueread.audit.label_ranks import doubts, found_among_first, rank_share, with_errors
from trueread.audit.subject import Subject
from trueread.stats import mean_over_seeds
from trueread.training.out_of_fold import OutOfFold

pytestmark = pytest.mark.usefixtures("quiet_and_on_one_thread")


def found_of(labels, p):
    """Answers whose loss and margin say the same as the probabilities."""
    own = p[np.arange(len(labels)), labels]
    return OutOfFold(np.arange(len(labels)), p, -np.log(own), 2 * own - 1)


def answers(labels, true, *, sure=2.0, seed=0):
    """Probabilities [n,K] that know the true label rather well."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 1, (len(labels), 3)) + sure * np.eye(3)[true]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def subject_of(cohort):
    return Subject("model", cohort, cohort.rows("test"), [], resamples=100)


class TestRanks:
    @given(st.lists(st.floats(-5, 5), min_size=2, max_size=30))
    def test_the_share_is_scipys_rank(self, values):
        score = np.array(values)
        expected = (rankdata(score) - 1) / (len(score) - 1)
        assert rank_share(score) == pytest.approx(expected)

    def test_the_combined_one_is_the_mean(self):
        labels = np.random.default_rng(0).integers(0, 3, 50)
        made = doubts(labels, found_of(labels, answers(labels, labels)))
        expected = np.mean([rank_share(made[k]) for k in ("confident", "margin", "loss")], axis=0)
        assert made["combined"] == pytest.approx(expected)
        assert next(iter(made)) == "combined"

    def test_found_among_the_first_by_hand(self):
        score, wrong = np.array([0.1, 0.9, 0.5, 0.7]), np.array([True, True, False, False])
        assert found_among_first(score, wrong).tolist() == [0.5, 0.5, 0.5, 1.0]

    def test_errors_are_planted_where_nothing_was_suspected(self):
        from trueread.stats.confident import suspects

        generator = np.random.default_rng(0)
        true = generator.integers(0, 3, 600)
        labels = np.where(generator.random(600) < 0.1, (true + 1) % 3, true)
        found = found_of(labels, answers(labels, true))
        planted = with_errors(labels, found, share=0.1, seed=0)
        assert planted.wrong.sum() == 60
        assert (planted.labels != labels).sum() == 60
        assert (planted.labels[~planted.wrong] == labels[~planted.wrong]).all()
        assert not (planted.wrong & suspects(labels, found.probabilities)).any()
        others = np.where(np.eye(3, dtype=bool)[labels], -1, found.probabilities).argmax(axis=1)
        assert (planted.labels[planted.wrong] == others[planted.wrong]).all()
        again = with_errors(labels, found, share=0.1, seed=0)
        assert (again.labels == planted.labels).all()

    def test_no_class_loses_more_than_half(self):
        labels = np.array([0] * 200 + [1] * 4)
        p = np.tile([0.9, 0.1], (204, 1))
        p[200:] = [0.2, 0.8]
        planted = with_errors(labels, found_of(labels, p), share=0.4, seed=1)
        assert planted.wrong[200:].sum() <= 2
        assert planted.wrong[:200].sum() <= 100


class TestGroups:
    def of(self, suspected, group):
        n = len(group)
        cohort = replace(tiny_cohort(n=n, side=4))
        cohort = replace(cohort, table=cohort.table.assign(site=group))
        codes = cohort.patient_codes()
        return Groups(cohort, suspected, lambda s: mean_over_seeds([s], codes, resamples=200))

    def test_a_minority_in_which_suspects_gather_is_named(self):
        generator = np.random.default_rng(0)
        group = np.where(np.arange(400) % 8 == 0, "B", "A")
        suspected = generator.random(400) < np.where(group == "B", 0.5, 0.1)
        groups = self.of(suspected, group)
        [warning] = groups.warnings()
        assert "of 'site: B' against" in warning
        table = groups.table().set_index("group")
        assert table.loc["site: B", "suspected"].value == pytest.approx(suspected[group == "B"].mean())
        more = suspected[group == "B"].mean() - suspected[group == "A"].mean()
        assert table.loc["site: B", "more than elsewhere"].value == pytest.approx(more)

    def test_neither_a_majority_nor_chance_is(self):
        generator = np.random.default_rng(1)
        group = np.where(np.arange(400) % 8 == 0, "B", "A")
        assert self.of(generator.random(400) < 0.2, group).warnings() == []
        assert self.of(generator.random(400) < np.where(group == "A", 0.4, 0.1), group).warnings() == []


class TestLooked:
    def test_copies_come_first_and_the_list_can_be_decided(self, tmp_path):
        cohort = tiny_cohort(n=160, side=16)
        images, labels = cohort.images.copy(), cohort.labels.copy()
        images[5] = images[8]
        labels[5], labels[8] = 0, 1
        cohort = replace(cohort, images=images, labels=labels)
        p = np.full((160, 2), 0.1)
        p[np.arange(160), labels] = 0.9
        p[20] = p[20][::-1]
        looked = Looked(cohort, found_of(labels, p), resamples=100, seed=0)
        table = looked.table()
        assert list(table.columns) == COLUMNS
        ids = cohort.table["id"]
        assert set(table["id"][:2]) == {ids[5], ids[8]}
        assert table["reason"][0].endswith("is a copy of it")
        assert table["suggested"][0] != table["given"][0]
        assert table["id"][2] == ids[20]
        assert table["reason"][2].startswith("looks like")
        assert len(table) == 160
        assert (table["suggested"][3:] == "").all()
        [strip] = looked.strips()
        assert sum(len(row) for row in strip.rows) == 3
        assert not any(str(i) in panel.caption for row in strip.rows for panel in row for i in ids)
        table.loc[2, "decision"] = "relabel"
        table.to_csv(tmp_path / "decided.csv", index=False)
        assert with_decisions(cohort, tmp_path / "decided.csv").labels[20] == 1 - labels[20]


@pytest.fixture(scope="module")
def asked():
    cohort = with_label_noise(tiny_cohort(n=200), rate=0.1)
    finding = run_audit(LabelAudit(folds=2, epochs=8, errors=0.1), subject_of(cohort), thresholds=default_thresholds())
    return cohort, finding


class TestAudit:
    def test_wrong_labels_come_first(self, asked):
        cohort, finding = asked
        wrong = set(cohort.table["id"][cohort.truth["flipped"]])
        first = finding.lists["suspects"]["id"][: len(wrong)]
        assert len(wrong & set(first)) / len(wrong) > 0.8
        assert finding.verdict is Verdict.NO_THRESHOLD
        assert len(finding.lists["suspects"]) == 200

    def test_it_knows_its_power(self, asked):
        _, finding = asked
        assert finding.measures["power"].estimate.value > 0.9
        rankings = finding.tables["Rankings"]
        assert rankings["order"][0] == "combined"
        assert (rankings["AUROC, errors known from the truth"].map(lambda e: e.value) > 0.9).all()
        recovered = finding.tables["Planted errors found"]
        assert recovered["combined"].is_monotonic_increasing
        assert any("20 labels (10%) were made wrong" in note for note in finding.notes)
        assert 0.03 < finding.measures["suspected"].estimate.value < 0.25

    def test_the_figure_is_the_table(self, asked):
        _, finding = asked
        [figure] = finding.figures
        mine = figure.data[figure.data["order"] == "combined"]
        assert mine["found"].iloc[0] == 0
        assert mine["found"].iloc[-1] == 1

    def test_methods_share_one_answer(self, monkeypatch):
        cohort = tiny_cohort(n=80)
        audit = LabelAudit(folds=2, epochs=1)
        subject = subject_of(cohort)
        first = audit.run(subject)
        monkeypatch.setattr("trueread.audit.label.out_of_fold", lambda *_, **__: pytest.fail("trained again"))
        again = audit.run(replace(subject, name="another"))
        pd.testing.assert_frame_equal(first.lists["suspects"], again.lists["suspects"])

    def test_an_interrupted_one_goes_on(self, tmp_path, monkeypatch):
        from trueread.training.out_of_fold import out_of_fold

        cohort, asked = tiny_cohort(n=80), []

        def killed_in_the_second(*given, **options):
            asked.append(options["folder"])
            if len(asked) == 2:
                raise KeyboardInterrupt
            return out_of_fold(*given, **options)

        whole = LabelAudit(folds=2, epochs=1).run(subject_of(cohort))
        kept = replace(subject_of(cohort), folder=tmp_path / "audits")
        with monkeypatch.context() as patched:
            patched.setattr("trueread.audit.label.out_of_fold", killed_in_the_second)
            with pytest.raises(KeyboardInterrupt):
                LabelAudit(folds=2, epochs=1).run(kept)
        assert list((tmp_path / "audits").rglob("*.pt"))
        again = LabelAudit(folds=2, epochs=1).run(kept)
        pd.testing.assert_frame_equal(whole.lists["suspects"], again.lists["suspects"])
        assert not (tmp_path / "audits").exists()

    def test_no_list_is_in_the_report(self, asked):
        _, finding = asked
        assert "lists" not in finding.to_json()

    def test_what_it_cannot_be_asked_of(self):
        audit = LabelAudit()
        for cohort, said in (
            (tiny_cohort("multilabel", n=120, side=4), "the task is multilabel"),
            (tiny_cohort(n=40, side=4), "40 images are too few"),
        ):
            finding = run_audit(audit, subject_of(cohort), thresholds={})
            assert finding.verdict is Verdict.NOT_MEASURED
            assert said in finding.reason
