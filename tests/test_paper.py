"""Protocols: every arm runs, what is done is not done again, and slips are refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from trueread.commands import run_paper
from trueread.errors import InputError
from trueread.paper import specialist
from trueread.paper.specialist import CEILING, CUES, ERM, OURS, Scale, SpecialistPaper, cohort_of, gap_closed

TINY = Scale(("phantom",), 28, 60, 1, {"epochs": 1, "batch_size": 16, "augment": "none"}, resamples=100)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(SpecialistPaper, "scales", {"smoke": TINY})
    monkeypatch.setitem(specialist.COHORTS, "phantom", {"source": "phantom", "n_images": 120})
    monkeypatch.setattr(specialist, "CUES", {"square": CUES["square"] | {"side": 0.2}})


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_all_arms_once_and_a_second_time_from_what_is_there(tmp_path, monkeypatch):
    path = run_paper("specialist", out=tmp_path)
    result = json.loads(path.read_text())
    assert [row["arm"] for row in result["rows"]] == [arm["name"] for arm in result["arms"]]
    for row in result["rows"]:
        assert 0 <= row["measures"]["auroc-flipped"]["value"] <= 1
        assert row["seconds"] > 0
    assert {d["baseline"] for d in result["differences"]} == {"erm + clean", "final layer", "teacher alone"}
    assert {d["method"] for d in result["differences"]} == {OURS}
    assert str(tmp_path) not in path.read_text()
    monkeypatch.setattr("trueread.runner.fit", lambda *_, **__: pytest.fail("trained again"))
    again = json.loads(run_paper("specialist", out=tmp_path).read_text())
    assert again["rows"] == result["rows"]
    assert again["differences"] == result["differences"]
    changed = {"smoke": replace(TINY, prevalence=0.9)}
    monkeypatch.setattr(SpecialistPaper, "scales", changed)
    with pytest.raises(InputError, match="other data"):
        run_paper("specialist", out=tmp_path)


def test_at_most_so_many_training_images_by_whole_patients():
    cohort = cohort_of("phantom", replace(TINY, train_images=100), None)
    whole = cohort_of("phantom", replace(TINY, train_images=10**6), None)
    assert 95 <= len(cohort.rows("train")) <= 100
    assert list(cohort.table["id"][cohort.rows("test")]) == list(whole.table["id"][whole.rows("test")])
    kept = set(cohort.table["patient"][cohort.rows("train")])
    assert whole.table["patient"].isin(kept).sum() == len(cohort.rows("train"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "specialst"}, "Did you mean 'specialist'"),
        ({"name": "specialist", "scale": "cpuu"}, "Did you mean 'cpu'"),
        ({"name": "specialist", "scale": "cpu", "data": "nowhere"}, "no folder nowhere"),
    ],
)
def test_slips(tmp_path, arguments, said):
    with pytest.raises(InputError, match=said):
        run_paper(**arguments, out=tmp_path)


def test_real_images_that_nobody_named(tmp_path, monkeypatch):
    monkeypatch.delenv("TRUEREAD_DATA", raising=False)
    with pytest.raises(InputError, match="name it with --data"):
        run_paper("specialist", scale="cpu", out=tmp_path)


def test_the_gap_closed():
    def row(arm, value):
        return {"arm": arm, "measures": {"auroc-flipped": {"value": value}}}

    rows = [row(ERM, 0.2), row(OURS, 0.8), row(CEILING, 1.0)]
    assert gap_closed(rows, OURS, "auroc-flipped") == pytest.approx(0.75)
    assert np.isnan(gap_closed([row(ERM, 1.0), row(OURS, 0.8), row(CEILING, 1.0)], OURS, "auroc-flipped"))
