"""Decisions about labels: applied as written, logged, and refused with the row that is wrong."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tiny import tiny_cohort
from trueread import with_decisions, with_label_noise
from trueread.cohort.decisions import DECISIONS, decision_log, decisions_in_words
from trueread.errors import InputError


def written(folder, rows, columns=("id", "decision", "label")):
    path = folder / "decided.csv"
    pd.DataFrame(rows, columns=list(columns)).to_csv(path, index=False)
    return path


@pytest.fixture
def cohort():
    return tiny_cohort("multiclass", n=90, side=4)


class TestApplied:
    def test_labels_change_images_go_and_the_rest_stays(self, cohort, tmp_path):
        ids, classes = cohort.table["id"].tolist(), cohort.classes
        new = classes[(cohort.labels[3] + 1) % 3]
        path = written(
            tmp_path,
            [[ids[3], "relabel", new], [ids[7], "DROP", ""], [ids[9], "keep", ""], [ids[11], "", classes[0]]],
        )
        made = with_decisions(cohort, path)
        assert made.table["id"].tolist() == ids[:7] + ids[8:]
        assert made.classes[made.labels[3]] == new
        others = [i for i in range(90) if i not in (3, 7)]
        assert made.labels[[i - (i > 7) for i in others]].tolist() == cohort.labels[others].tolist()
        assert (made.images[7] == cohort.images[8]).all()
        assert made.digest != cohort.digest
        told = made.origin[DECISIONS]
        assert told["counts"] == {"keep": 1, "relabel": 1, "drop": 1}
        assert told["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        given = classes[cohort.labels[3]]
        assert decisions_in_words(made) == f"1 relabelled (1 {given} to {new}), 1 dropped, 1 looked at and kept"
        log = decision_log(made)
        assert log["decision"].tolist() == ["relabel", "drop", "keep"]
        assert log.iloc[0].tolist() == [ids[3], cohort.table["split"].iloc[3], given, "relabel", new]
        assert decision_log(cohort) is None
        assert decisions_in_words(cohort) == ""

    def test_the_suggested_label_is_taken_where_none_is_written(self, cohort, tmp_path):
        ids, classes = cohort.table["id"].tolist(), cohort.classes
        first, second = (classes[(cohort.labels[i] + 1) % 3] for i in (0, 1))
        other = classes[(cohort.labels[1] + 2) % 3]
        rows = [[ids[0], "relabel", "", first], [ids[1], "relabel", other, second]]
        made = with_decisions(cohort, written(tmp_path, rows, ("id", "decision", "label", "suggested")))
        assert [made.classes[k] for k in made.labels[:2]] == [first, other]

    def test_a_corrected_label_is_no_longer_wrong(self, tmp_path):
        cohort = with_label_noise(tiny_cohort(n=120, side=4), rate=0.2)
        wrong = np.flatnonzero(cohort.truth["flipped"])
        true = cohort.truth["true_label"].to_numpy()
        rows = [[cohort.table["id"].iloc[i], "relabel", cohort.classes[true[i]]] for i in wrong[:5]]
        made = with_decisions(cohort, written(tmp_path, rows))
        assert made.truth["flipped"].sum() == len(wrong) - 5

    def test_without_any_decision_nothing_changes(self, cohort, tmp_path):
        made = with_decisions(cohort, written(tmp_path, [[i, "", ""] for i in cohort.table["id"]]))
        assert made.digest == cohort.digest
        assert decision_log(made).empty


class TestRefused:
    @pytest.mark.parametrize(
        ("row", "said"),
        [
            (["i9999", "drop", ""], "row 2: tiny-multiclass has no image 'i9999'"),
            (["i0000", "delete", ""], "row 2: found 'delete'. A decision is keep, relabel or drop"),
            (["i0000", "relabel", "normall"], "no class is called 'normall' Did you mean 'normal'"),
            (["i0000", "relabel", ""], "row 2: the new label is missing"),
        ],
    )
    def test_a_slip_has_its_row(self, cohort, tmp_path, row, said):
        with pytest.raises(InputError) as raised:
            with_decisions(cohort, written(tmp_path, [row]))
        assert said in str(raised.value).replace(".  ", ". ")

    def test_twice(self, cohort, tmp_path):
        with pytest.raises(InputError, match="row 3: image 'i0000' is listed twice"):
            with_decisions(cohort, written(tmp_path, [["i0000", "keep", ""], ["i0000", "drop", ""]]))

    def test_no_such_column(self, cohort, tmp_path):
        with pytest.raises(InputError, match="has no column 'decision' for the decision"):
            with_decisions(cohort, written(tmp_path, [["i0000", "keep"]], ("id", "verdict")))

    def test_an_emptied_class(self, cohort, tmp_path):
        mine = cohort.table["id"][(cohort.labels == 1) & (cohort.table["split"] == "val").to_numpy()]
        with pytest.raises(InputError, match="no image of 'mild' would be left in val"):
            with_decisions(cohort, written(tmp_path, [[i, "drop", ""] for i in mine]))

    def test_applied_before(self, cohort, tmp_path):
        path = written(tmp_path, [["i0000", "keep", ""]])
        with pytest.raises(InputError, match="applied to these labels already"):
            with_decisions(with_decisions(cohort, path), path)

    def test_several_labels(self, tmp_path):
        with pytest.raises(InputError, match="the task is multilabel"):
            with_decisions(tiny_cohort("multilabel", n=60, side=4), tmp_path / "none.csv")

    def test_ids_that_are_numbers_stay_text(self, cohort, tmp_path):
        named = replace(cohort, table=cohort.table.assign(id=[f"{k:03d}" for k in range(90)]))
        assert len(with_decisions(named, written(tmp_path, [["007", "drop", ""]]))) == 89
