"""What is kept of a training: it comes back as it was, and a damaged file is named and never read as something else."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tiny import tiny_cohort
from trueread.cells import (
    read_history,
    read_method,
    read_predictions,
    write_history,
    write_method,
    write_predictions,
)
from trueread.cohort.split import assign_splits
from trueread.errors import InputError
from trueread.study import MethodSection


class TestPredictions:
    @pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
    def test_they_come_back_as_the_same_float32(self, tmp_path, task):
        names = ("a,b", 'c "d"', "p:x")[: 2 if task == "binary" else 3]
        cohort = assign_splits(dataclasses.replace(tiny_cohort(task, n=90), classes=names))
        ids = ["NA", "007", "1e5", "null", "a,b", 'say "x"', "nan", "é/ü", "-", "None", *cohort.table["id"][10:]]
        cohort = dataclasses.replace(cohort, table=cohort.table.assign(id=ids))
        rows = np.concatenate([cohort.rows("val"), cohort.rows("test")])
        generator = np.random.default_rng(0)
        p = generator.random((len(rows), cohort.n_classes)).astype(np.float32) ** 20
        p[0], p[1], p[2] = 0, np.float32(1e-42), np.nextafter(np.float32(1), np.float32(0))
        write_predictions(tmp_path, cohort, rows, p)
        for split in ("val", "test"):
            mine = cohort.rows(split)
            back = read_predictions(tmp_path, cohort, mine)
            assert back.dtype == np.float32
            expected = p[[int(np.flatnonzero(rows == r)[0]) for r in mine]]
            assert back.tobytes() == expected.tobytes()

    def test_an_image_that_was_not_predicted_is_named(self, tmp_path):
        cohort = assign_splits(tiny_cohort(n=90))
        rows = cohort.rows("test")
        write_predictions(tmp_path, cohort, rows[1:], np.full((len(rows) - 1, 2), 0.5, np.float32))
        with pytest.raises(InputError, match=f"image '{cohort.table['id'][rows[0]]}' is in test now and was not"):
            read_predictions(tmp_path, cohort, rows)


class TestDamage:
    @pytest.fixture
    def cell(self, tmp_path):
        """A finished cell, without its model."""
        self.cohort = assign_splits(tiny_cohort(n=90))
        self.rows = self.cohort.rows("test")
        p = np.random.default_rng(0).dirichlet([1, 1], len(self.rows)).astype(np.float32)
        write_predictions(tmp_path, self.cohort, self.rows, p)
        history = {"epoch": [1, 2], "train_loss": [0.7, 0.512], "seconds": [1.5, 1.25], "selected": [False, True]}
        write_history(tmp_path, pd.DataFrame(history))
        write_method(tmp_path, MethodSection(name="focal", gamma=1.0, label="x"), {"n": 3})
        return tmp_path

    def test_what_is_whole_comes_back(self, cell):
        assert read_method(cell) == {"name": "focal", "options": {"gamma": 1.0}, "report": {"n": 3}}
        assert read_history(cell)["train_loss"].tolist() == [0.7, 0.512]
        assert read_history(cell)["selected"].tolist() == [False, True]
        assert read_predictions(cell, self.cohort, self.rows).sum() == pytest.approx(len(self.rows))

    def refused(self, path: Path) -> str:
        read = {"method.json": read_method, "history.csv": read_history}.get(path.name)
        with pytest.raises(InputError) as error:
            read(path.parent) if read else read_predictions(path.parent, self.cohort, self.rows)
        words = str(error.value)
        assert words.startswith(f"{path} is damaged (")
        assert words.endswith(f"; delete the folder {path.parent} to train it again.")
        return words

    @pytest.mark.parametrize("name", ["predictions.csv", "history.csv"])
    def test_a_table_cut_anywhere_but_at_the_end_of_a_line(self, cell, name):
        """Also where what is left of its last number is a number."""
        raw = (cell / name).read_bytes()
        for n in range(len(raw) - 1, 0, -1):
            if raw[n - 1 : n] == b"\n":
                break
            os.truncate(cell / name, n)
            assert "it is cut short" in self.refused(cell / name)

    @pytest.mark.parametrize("name", ["predictions.csv", "history.csv", "method.json"])
    def test_gone_empty_and_other_things(self, cell, name):
        (cell / name).unlink()
        assert "it is not there" in self.refused(cell / name)
        for content in (b"", b"\n", b"\xff\x00\n", b"[]\n", b"{}\n", b"[" * 99_999 + b"\n", b"a,b\n1,2,3\n", b"\0\n"):
            (cell / name).write_bytes(content)
            self.refused(cell / name)

    @pytest.mark.parametrize(
        ("column", "value", "why"),
        [
            ("id", "{first}", "an image is in it twice"),
            ("p:mild", "", "could not convert"),
            ("p:mild", "much", "could not convert"),
            ("p:mild", "nan", "'p:mild' is not always a number"),
            ("p:mild", "inf", "'p:mild' is not always a number"),
        ],
    )
    def test_a_cell_that_was_edited(self, cell, column, value, why):
        frame = pd.read_csv(cell / "predictions.csv", dtype=str)
        frame.loc[3, column] = value.format(first=frame["id"][0])
        frame.to_csv(cell / "predictions.csv", index=False)
        assert why in self.refused(cell / "predictions.csv")

    @pytest.mark.parametrize("column", ["id", "split", "p:normal"])
    def test_a_column_that_is_gone(self, cell, column):
        pd.read_csv(cell / "predictions.csv").drop(columns=column).to_csv(cell / "predictions.csv", index=False)
        assert f"it has no '{column}'" in self.refused(cell / "predictions.csv")
