"""A shortcut that a study plants: where it is, what the run says, and slips found before anything is trained."""

from __future__ import annotations

from html import unescape

import pytest
import torch

from tiny_runs import tiny_study, with_sites
from trueread import commands, runner
from trueread.cohort.split import assign_splits
from trueread.errors import InputError
from trueread.shift.planting import planted_in
from trueread.study import load_study


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def run(folder, plant, **changed):
    study = tiny_study(plant=plant, audits=["performance"], **changed)
    return commands.run(study, out=folder, cohort=with_sites())


SQUARE = {"cue": "square", "severity": 1.0, "side": 0.2, "prevalence": 0.9, "clean": 0.2}


def test_every_method_trains_on_the_planted_cohort(tmp_path, monkeypatch, capsys):
    seen = []
    trained = runner.fit
    monkeypatch.setattr(runner, "fit", lambda cohort, *args, **kw: seen.append(cohort) or trained(cohort, *args, **kw))
    folder = run(tmp_path / "run", SQUARE, methods=["erm", "clean-only"])
    assert len(seen) == 2
    for cohort in seen:
        assert planted_in(cohort).prevalence["mild"] == 0.9
        cue, test = cohort.truth["cue"], cohort.rows("test")
        assert cue.sum() > 30
        assert not cue[test].any()
        plain = assign_splits(with_sites())
        assert (cohort.images[test] == plain.images[test]).all()
    assert "'square' is planted into" in capsys.readouterr().err
    report = unescape((folder / "report.html").read_text())
    assert "'square' in 10% of the images of 'normal' and 90% of the images of 'mild' (train and val)" in report
    saved = load_study(folder / "study.yaml").plant
    assert (saved.clean, saved.options) == (0.2, {"severity": 1.0, "side": 0.2})


def test_it_is_another_study(tmp_path):
    run(tmp_path / "run", SQUARE)
    with pytest.raises(InputError, match="another study"):
        run(tmp_path / "run", {**SQUARE, "prevalence": 0.8})


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        ("sqare", "Did you mean 'square'"),
        ({"cue": "square", "sid": 0.2}, "'sid'"),
        ({"cue": "square", "prevalence": 1.2}, "prevalence"),
        ({"cue": "square", "clean": -0.1}, "clean"),
        ({"cue": "square", "side": 0.2, "prevalence": {"mild": 0.5}}, "as common in every class"),
        ({"cue": "square", "side": 0.2, "prevalence": {"mold": 0.5}}, "mold"),
        ({"cue": "square", "side": 0.001}, "pixel"),
    ],
)
def test_a_slip_is_refused(tmp_path, plant, said):
    with pytest.raises(InputError, match=said):
        run(tmp_path / "run", plant)
    assert not list(tmp_path.rglob("*.safetensors"))
