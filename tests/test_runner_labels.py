"""Labels that a study makes wrong, doubts, and corrects: what the run says, writes, and comes back to."""

from __future__ import annotations

from html import unescape

import pandas as pd
import pytest
import torch

from tiny_runs import tiny_study, with_sites
from trueread import commands
from trueread.errors import InputError

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def run(folder, **changed):
    return commands.run(tiny_study(**{"audits": ["performance"], **changed}), out=folder, cohort=with_sites())


def test_from_wrong_labels_to_decisions_and_back(tmp_path, capsys):
    noise = {"kind": "symmetric", "rate": 0.2}
    doubt = {"name": "label", "folds": 2, "epochs": 2}
    first = run(tmp_path / "first", label_noise=noise, methods=["erm", "true-labels"], audits=["performance", doubt])
    assert "labels of training and validation were made wrong" in capsys.readouterr().err
    report = unescape((first / "report.html").read_text())
    assert "This is an experiment: labels were made wrong" in report
    assert "Labels that look wrong" in report
    suspects = pd.read_csv(first / "suspects.csv", keep_default_na=False)
    assert len(suspects) == len(with_sites())
    assert suspects["id"][0] not in report

    training = suspects[suspects["split"] == "train"].index
    suspects.loc[training[:3], "decision"] = "drop"
    relabelled = suspects[(suspects["split"] == "train") & (suspects["suggested"] != "")].index[3:5]
    suspects.loc[relabelled, "decision"] = "relabel"
    suspects.to_csv(tmp_path / "decided.csv", index=False)
    given = {"label_noise": noise, "decisions": str(tmp_path / "decided.csv")}
    second = run(tmp_path / "second", **given)
    assert f"{len(relabelled)} relabelled" in capsys.readouterr().err
    assert "Labels after review" in unescape((second / "report.html").read_text())
    log = pd.read_csv(second / "decisions.csv", keep_default_na=False)
    assert log["decision"].tolist().count("drop") == 3
    before, after = (pd.read_csv(f / "split.csv", dtype=str).set_index("id")["split"] for f in (first, second))
    assert len(before) - len(after) == 3
    assert (before.loc[after.index] == after).all()

    run(tmp_path / "second", **given)  # which it comes back to
    assert "seed 0: compact" not in capsys.readouterr().err
    with pytest.raises(InputError, match="another study"):
        run(tmp_path / "second", label_noise=noise)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"label_noise": "symetric"}, "symmetric"),
        ({"label_noise": {"kind": "symmetric", "rate": 1.5}}, "rate"),
        ({"decisions": "nowhere.csv"}, "nowhere.csv cannot be read"),
    ],
)
def test_a_slip_is_refused(tmp_path, changed, said):
    with pytest.raises(InputError, match=said):
        run(tmp_path / "run", **changed)
    assert not list(tmp_path.rglob("*.safetensors"))
