"""Whose a run folder is: what a mistake left behind is nobody's, and everything else is somebody's."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tiny_runs import TRAIN, tiny_study, with_sites
from trueread import commands, runner
from trueread.claim import belongs_to_nobody
from trueread.errors import InputError
from trueread.training.checkpoint import save_checkpoint

pytestmark = pytest.mark.usefixtures("quiet_and_on_one_thread")


@pytest.fixture(autouse=True)
def no_page(monkeypatch):
    """Leave the report out, which takes longer than the training."""
    monkeypatch.setattr(runner, "write_report", lambda _folder: None)
    monkeypatch.setattr(runner, "write_model_card", lambda _folder, _name: None)


def run(folder: Path, **changed) -> Path:
    return commands.run(tiny_study(audits=["performance"], **changed), out=folder, cohort=with_sites())


@pytest.fixture
def begun(tmp_path) -> Path:
    """What a study that cannot be trained leaves."""
    with pytest.raises(InputError, match="batch_size is 999"):
        run(tmp_path / "run", train={**TRAIN, "batch_size": 999})
    assert {p.name for p in (tmp_path / "run").rglob("*") if p.is_file()} == {"study.yaml", "split.csv"}
    return tmp_path / "run"


def test_the_corrected_study_may_differ_in_everything(begun):
    before = pd.read_csv(begun / "split.csv")
    assert belongs_to_nobody(begun)
    run(begun, name="other", split={"seed": 5})
    assert not belongs_to_nobody(begun)
    assert not pd.read_csv(begun / "split.csv")["split"].equals(before["split"])
    with pytest.raises(InputError, match="holds a run of another study"):
        run(begun, name="third")


def test_the_page_of_a_check_is_no_training(begun):
    with pytest.raises(InputError, match="'resnet19' is not a MONAI network"):
        run(begun, train={**TRAIN, "backbone": "monai:resnet19"}, check=True)
    assert (begun / "check.html").is_file()
    assert belongs_to_nobody(begun)


@pytest.mark.parametrize("kept", ["a checkpoint", "a cell of another method", "a summary"])
def test_a_folder_with_work_in_it_is_somebodys(begun, kept):
    if kept == "a checkpoint":
        save_checkpoint(begun / "methods" / "erm" / "seed-0" / "checkpoints", {"epoch": 1, "step": 3})
    else:
        name = "summary.json" if kept == "a summary" else "methods/mixup/seed-0/predictions.csv"
        (begun / name).parent.mkdir(parents=True, exist_ok=True)
        (begun / name).write_text("{}")
    assert not belongs_to_nobody(begun)
    with pytest.raises(InputError, match=r"holds a run of another study \(its 'train' differs\)"):
        run(begun)


def test_a_study_file_that_a_person_wrote_is_not_taken_for_a_beginning(begun):
    (begun / "study.yaml").write_text("data: phantom\nsplit: {file: split.csv}\n")
    assert not belongs_to_nobody(begun)
    with pytest.raises(InputError, match="holds a run of another study"):
        run(begun)
    assert (begun / "study.yaml").read_text() == "data: phantom\nsplit: {file: split.csv}\n"


def test_a_folder_without_a_split_or_a_study_is_no_beginning(begun):
    for name in ("study.yaml", "split.csv"):
        content = (begun / name).read_bytes()
        (begun / name).unlink()
        assert not belongs_to_nobody(begun)
        (begun / name).write_bytes(content)
    assert belongs_to_nobody(begun)
