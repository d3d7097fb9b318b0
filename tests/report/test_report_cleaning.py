"""What was left out is told as the record of the training has it; what is about the data is told once."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from fake_run import fake_summary, without_figures

from trueread.audit.finding import Better, Difference, Figure, Finding, Measure
from trueread.report.remedy import in_words
from trueread.report.scorecard import scorecard, verdict_sentence
from trueread.report.summary import DATA
from trueread.report.views import figure_views, finding_views
from trueread.stats import Comparison, Estimate

RECORD = {
    "excluded": 749, "excluded_share": {"normal": 0.0738, "opacity": 0.4365}, "started_after_epoch": 4,
    "against_the_truth": {"precision": 0.9079, "recall": 0.951, "f1": 0.929, "auroc": 0.995},
}  # fmt: skip


def summary_of(record: dict[str, Any] | None = None, *, seeds: int = 1) -> Any:
    summary = without_figures(fake_summary(methods=("erm", "step-e")))
    for method in summary["methods"]:
        method["seeds"] = list(range(seeds))
        measures = {"auroc": Measure("AUROC", Estimate(0.9, 0.8, 1.0), Better.HIGHER)}
        method["findings"] = [Finding("performance", "?", measures=measures).to_json()]
    summary["methods"][1]["report"] = RECORD | (record or {})
    difference = Difference("performance", "auroc", "step-e", "erm", Comparison(Estimate(0.09, 0.07, 0.12), 0.01))
    summary["differences"] = [difference.to_json()]
    return summary


def test_what_was_left_out_since_when_how_rightly_and_what_it_bought():
    assert in_words(summary_of(), "performance") == [
        "step-e left 749 training images out in the end, the first after epoch 4: 44% of opacity and 7% of normal. "
        "Of these 91% are known to be labelled wrongly, and 95% of all that are wrong are among them.",
        "step-e against erm: AUROC +0.09 (+0.07 to +0.12), better.",
    ]


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"excluded": 0}, "step-e left nothing out in the end."),
        ({"started_after_epoch": None, "against_the_truth": {}, "excluded_share": {}},
         "step-e left 749 training images out in the end."),
        ({"against_the_truth": {"precision": None, "recall": 0.0}, "excluded_share": {str(k): 0.1 for k in range(9)}},
         "step-e left 749 training images out in the end, the first after epoch 4: at most 10% of 0, 10% of 1, 10% of "
         "2 and 10% of 3."),
    ],
)  # fmt: skip
def test_what_is_not_known_is_not_said(record, says):
    assert in_words(summary_of(record), "performance")[0] == says


def test_of_several_seeds_it_is_the_first():
    assert in_words(summary_of(seeds=2), "performance")[0].startswith("step-e (first seed) left 749")


def about_data(summary: Any) -> Any:
    """Both methods get the same finding of an audit of the data, with a figure, a table and a note."""
    line = Figure("found", "Planted errors found", "line", pd.DataFrame({"x": [0, 1], "y": [0, 1]}), "x", "y")
    for method in summary["methods"]:
        found = Finding(
            "label", "Which labels look wrong?", about_data=True, notes=["264 suspects."],
            measures={"suspected": Measure("Labels that look wrong", Estimate(0.2, 0.1, 0.3), Better.LOWER)},
            tables={"By group": pd.DataFrame({"group": ["A"], "images": [3]})},
            figures=[line],
        )  # fmt: skip
        method["findings"].append(found.to_json())
    return summary


def test_what_is_about_the_data_is_shown_once():
    summary = about_data(summary_of())
    assert [row.method for row in scorecard(summary) if row.audit == "label"] == [DATA]
    assert [view.title for view in figure_views(summary, "label")] == ["Planted errors found"]
    [view] = [v for v in finding_views(summary) if v.question.audit == "label"]
    assert view.notes == [("", "264 suspects.")]
    assert [len(table.blocks) for table in view.tables] == [1]
    assert "label" not in verdict_sentence(summary, "step-e")
