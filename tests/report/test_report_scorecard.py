"""The scorecard's words: the format readers know, every verdict, every reason, any width."""

from __future__ import annotations

import io
import math

import pytest
from fake_findings import REASON
from fake_run import METHODS, fake_summary
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from trueread.report.scorecard import ScoreRow, audit_rows, grouped, rule_text, scorecard, verdict_sentence
from trueread.report.tables import table_views
from trueread.report.terminal import print_scorecard
from trueread.report.words import (
    cell_text,
    difference_text,
    duration,
    joined,
    options_text,
    p_phrase,
    reason,
    shortened,
    slug,
    told,
)
from trueread.stats import Estimate

AUROC = Estimate(0.914, 0.887, 0.938, n=412, n_clusters=211, spread=0.008, n_seeds=3)


def row(**changed: object) -> ScoreRow:
    return ScoreRow("performance", "How well?", "focal", "auroc", "AUROC", "higher", estimate=AUROC, **changed)  # type: ignore[arg-type]


def test_the_result_as_the_reader_meets_it() -> None:
    text = row(difference=Estimate(0.031, 0.008, 0.052), baseline="erm").text
    assert text == "0.914 (0.887 to 0.938), 3 seeds, 211 patients; +0.031 over erm (0.008 to 0.052)"
    assert row().text == "0.914 (0.887 to 0.938), 3 seeds, 211 patients"
    assert row(unit="image").text == "0.914 (0.887 to 0.938), 3 seeds, 412 images"


def test_a_loss_is_not_called_a_gain() -> None:
    assert difference_text(Estimate(-0.012, -0.02, -0.004), "erm") == "-0.012 against erm (-0.020 to -0.004)"
    assert difference_text(Estimate(math.nan), "erm") == "difference to erm not defined"
    assert difference_text(Estimate(0.0), "erm") == "+0.000 over erm"


def test_a_number_that_is_not_defined_and_one_that_was_not_measured() -> None:
    undefined = ScoreRow("a", "q", "m", "k", "K", "higher", estimate=Estimate(math.nan, n_seeds=1))
    assert undefined.text == "not defined, 1 seed"
    assert ScoreRow("a", "q", "m", why_not=REASON).text == f"Not measured, because {REASON}"
    assert reason("") == "Not measured, because no reason was given."


def test_every_audit_has_its_headline_and_performance_its_balanced_accuracy() -> None:
    rows = scorecard(fake_summary())
    keys = [(r.audit, r.measure) for r in rows if r.method == "focal"]
    assert keys[:4] == [
        ("performance", "auroc"),
        ("performance", "balanced-accuracy"),
        ("calibration", "ece"),
        ("calibration", "brier"),
    ]
    assert ("evidence", "") in keys
    assert ("scanner-drift", "drift") in keys
    assert len(rows) == len(keys) * 3


def test_only_the_headline_has_a_verdict_and_only_other_methods_a_difference() -> None:
    for r in scorecard(fake_summary()):
        assert bool(r.verdict) == (r.measure in ("auroc", "ece", "gap", "drift", ""))
        assert (r.difference is not None) == (
            r.method != "erm" and r.measure in ("auroc", "balanced-accuracy", "ece", "gap")
        )
    focal = next(r for r in scorecard(fake_summary()) if (r.method, r.measure) == ("focal", "auroc"))
    assert (focal.p_value, focal.p_is_adjusted, focal.p_text) == (0.008, True, "0.008")


def test_all_measures_when_asked() -> None:
    rows = audit_rows(fake_summary(), "performance")
    assert [g[0].measure for g in grouped(rows)] == ["auroc", "balanced-accuracy", "auprc", "sensitivity"]
    assert [len(g[1]) for g in grouped(rows)] == [3, 3, 3, 3]


def test_the_verdict_in_a_sentence() -> None:
    summary = fake_summary()
    assert verdict_sentence(summary, "erm") == (
        "2 of 3 questions pass for erm; fail: subgroups; without a threshold: scanner-drift; not measured: evidence."
    )
    assert verdict_sentence(summary, "focal").startswith(
        "1 of 3 questions passes for focal; fail: subgroups; undecided: calibration;"
    )
    for m in summary["methods"]:
        m["findings"] = [f for f in m["findings"] if f["audit"] == "evidence"]
    assert (
        verdict_sentence(summary, "erm") == "No question has a threshold and an answer for erm; not measured: evidence."
    )


def test_the_rule_names_direction_and_threshold() -> None:
    assert rule_text(row(), 0.8) == "higher is better, passes at 0.8 or more"
    assert rule_text(ScoreRow("a", "q", "m", better="lower"), 0.1) == "lower is better, passes at 0.1 or less"
    assert rule_text(row(), None) == "higher is better"


@pytest.mark.parametrize("width", [40, 80, 160])
def test_a_terminal_of_any_width_shows_every_word(width: int) -> None:
    buffer = io.StringIO()
    print_scorecard(fake_summary(), Console(file=buffer, width=width))
    lines = buffer.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    words = "".join(buffer.getvalue().split())
    for text in ("✓pass", "!warn", "✕fail", "AUROC,higherisbetter,passesat0.8ormore", "".join(reason(REASON).split())):
        assert text in words
    assert "0.914" in words


def test_names_that_look_like_markup_are_printed_as_they_are() -> None:
    buffer = io.StringIO()
    print_scorecard(fake_summary(methods=("erm", "[bold]focal[/bold]")), Console(file=buffer, width=120))
    assert "[bold]focal[/bold]" in buffer.getvalue()


def test_tables_of_several_methods_become_one_block_by_block() -> None:
    summary = fake_summary()
    findings = {m["name"]: m["findings"][0] for m in summary["methods"]}
    (table,) = table_views(findings)
    assert [name for name, _ in table.blocks] == list(METHODS)
    assert table.numeric == [False, True, True, True]
    first = table.blocks[0][1][0]
    cells = findings["erm"]["tables"]["Per class"]["rows"][0]
    assert [c.text for c in first] == ["no finding", "190", f"{cells[2]['value']:.3f}", f"{cells[3]['value']:.3f}"]
    assert first[2].interval == f"{cells[2]['low']:.3f} to {cells[2]['high']:.3f}"
    assert table.blocks[0][1][6][2].text == "not defined"


def test_columns_are_rounded_as_one_and_long_tables_are_cut_in_the_open() -> None:
    rows = [[f"r{i}", 0.00012 * i, 1234.5 + i, True, None] for i in range(75)]
    table = {"columns": ["name", "tiny", "large", "flag", "nothing"], "rows": rows}
    (view,) = table_views({"m": {"tables": {"T": table}}})
    assert [c.text for c in view.blocks[0][1][1]] == ["r1", "0.00012", "1,235.5", "yes", "–"]
    assert len(view.blocks[0][1]) == 60
    assert view.note == "15 further rows in findings.json."


def test_words() -> None:
    assert joined(["a", "b", "c"]) == "a, b and c"
    assert [duration(s) for s in (4.2, 59, 59.99, 185, 7800, None)] == [
        "4.2 s", "59 s", "1 min 0 s", "3 min 5 s", "2 h 10 min", "not measured",
    ]  # fmt: skip
    assert [p_phrase(p) for p in (0.0004, 0.0123, 1.0, None, math.nan)] == [
        "p < 0.001",
        "p = 0.012",
        "p = 1.000",
        "",
        "",
    ]
    assert cell_text({"a": 1, "b": [0.5, None]}) == "a: 1; b: 0.500, –"
    assert slug("a/b c+d=1") == "a_b_c+d=1"


@given(st.text(min_size=0, max_size=80), st.integers(min_value=3, max_value=60))
def test_a_shortened_name_keeps_its_ends_and_its_limit(text: str, limit: int) -> None:
    short = shortened(text, limit)
    assert len(short) <= limit
    if len(text) <= limit:
        assert short == text
    else:
        assert "…" in short


@given(st.floats(-1, 1), st.floats(0, 0.2), st.integers(1, 9), st.integers(1, 5000))
def test_the_text_reads_back(value: float, half: float, seeds: int, patients: int) -> None:
    text = (
        row(**{})
        .__class__(
            "a",
            "q",
            "m",
            "k",
            "K",
            "higher",
            estimate=Estimate(value, value - half, value + half, n_clusters=patients, n_seeds=seeds),
        )
        .text
    )
    head, _, tail = text.partition(" (")
    low, _, rest = tail.partition(" to ")
    assert float(head) == pytest.approx(value, abs=5.1e-4)
    assert float(low) == pytest.approx(value - half, abs=5.1e-4)
    assert float(rest.partition(")")[0]) == pytest.approx(value + half, abs=5.1e-4)
    assert f"{seeds} seed" in rest


def test_what_a_method_says_of_itself_is_one_line() -> None:
    report = {
        "curvssl": {
            "views": "any",
            "watched": [{"epoch": 1, "rank": 80.0}, {"epoch": 8, "rank": 66.0}],
            "warnings": [],
        },
        "few-labels": {"labelled_images": 54, "by_class": {"a_b": 18, "c": 36}},
    }
    assert told(report) == (
        "curvssl: views any, watched (epoch 8, rank 66.000); few-labels: labelled_images 54, by_class (a_b 18, c 36)"
    )
    one = {"share_drawn": {"a_b": 0.5}, "spread_by_epoch": [0.1] * 6 + [0.9], "noise": None, "layer": "stage4"}
    assert told(one) == "share drawn: a_b 0.500; spread by epoch 0.100 … 0.900 (7 values); layer stage4"
    assert told([1, 2]) == "1, 2"
    assert told([]) == "–"
    assert told({"warnings": [], "by_class": {}}) == ""
    assert options_text({"curvssl": {"epochs": 8}, "few-labels": {}}) == "curvssl (epochs = 8), few-labels = {}"
    assert options_text({"gamma": 2.0}) == "gamma = 2.0"
