"""The model card: every number that was measured, and a plain "not measured" for the rest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fake_findings import REASON
from fake_run import CLASSES, SECRETS, fake_summary, write_run

from trueread.errors import InputError
from trueread.report import write_model_card
from trueread.report.markdown import as_markdown
from trueread.report.modelcard import limits, not_measured
from trueread.report.scorecard import audit_rows
from trueread.report.summary import audit_names


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = write_model_card(write_run(tmp_path_factory.mktemp("run")), "focal")
    assert path.name == "model_card-focal.md"
    return path.read_text(encoding="utf-8")


def section(card: str, name: str) -> str:
    return card.split(f"## {name}\n")[1].split("\n## ")[0]


def test_every_measure_is_there_with_its_interval(card: str) -> None:
    summary = fake_summary()
    results = section(card, "Results")
    for audit in audit_names(summary):
        for row in audit_rows(summary, audit):
            if row.method == "focal" and row.estimate is not None:
                assert f"| {row.title} ({row.better} is better) | {row.estimate.text()} |" in results
    assert "| 3 seeds, 211 patients | +0.031 (+0.008 to +0.052) | 0.008 | pass |" in results
    assert "0.883" not in results  # that is erm's


def test_tables_have_as_many_cells_as_their_head(card: str) -> None:
    for block in re.findall(r"(?:^\|.*\n)+", card, re.MULTILINE):
        lines = block.strip().splitlines()
        counts = {len(re.findall(r"(?<!\\)\|", row)) for row in lines}
        assert len(counts) == 1, lines[0]


def test_what_was_not_measured_is_said(card: str) -> None:
    missing = section(card, "Not measured")
    assert f"Does it look where the finding is? Not measured, because {REASON}" in missing
    assert "Other data than chest-eight. Not measured, because the study has this one cohort." in missing


def test_questions_the_study_did_not_ask_are_named() -> None:
    summary = fake_summary(methods=("erm",))
    summary["methods"][0]["findings"] = summary["methods"][0]["findings"][:1]
    lines = not_measured(summary)
    assert "Whether its probabilities mean what they say. Not measured, because the study did not ask." in lines
    assert "Whether it works equally well for groups of patients. Not measured, because the study did not ask." in lines


def test_its_use_is_not_invented(card: str) -> None:
    assert "The run records no intended use, so none is stated here." in section(card, "Intended use")
    assert "not a clinical validation" in card


def test_limits_are_what_failed_or_stayed_open(card: str) -> None:
    assert "subgroups fails: For whom does it work less well? Gap to the worst group 0.151 (0.121 to 0.181)" in card
    assert "calibration is undecided" in card
    summary = fake_summary(methods=("erm", "focal"))
    assert [line.split(":")[0] for line in limits(summary | {"methods": summary["methods"][1:]})] == [
        "subgroups fails",
        "calibration is undecided",
    ]
    for f in (findings := summary["methods"][0]["findings"]):
        f["verdict"] = "pass"
    assert limits(summary | {"methods": [summary["methods"][0] | {"findings": findings}]}) == []


def test_facts_of_data_training_and_model(card: str) -> None:
    for expected in (
        "- Input: 1 channel, 224 × 224 pixels, intensities divided by 4,095",
        f"- Classes: {', '.join(CLASSES)}",
        "| pulmonary fibrosis with honeycombing | 38 (2 %) | 8 (2 %) | 8 (2 %) |",
        "- Left out: 3 images that could not be read",
        "- Options: gamma = 2.0",
        "- Selection: the epoch with the highest validation AUROC",
        "- torch: 2.14.0+cpu",
    ):
        assert expected in card.replace("\u00a0", " "), expected
    assert not any(secret in card for secret in SECRETS)


def test_names_cannot_break_the_markdown(tmp_path: Path) -> None:
    hostile = ["<script>x</script>", "a|b", "*c*", "[d](http://e)", "f\ng", "`h`", "i", "j"]
    name = "erm/<b>|../x"
    path = write_model_card(write_run(tmp_path, fake_summary(classes=hostile, methods=(name,))), name)
    assert path.parent == tmp_path
    text = path.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<b>" not in text
    assert r"a\|b" in text
    assert r"\[d\](http://e)" in text
    assert as_markdown("f\ng") == "f g"


def test_a_model_trained_elsewhere(tmp_path: Path) -> None:
    summary = fake_summary(methods=("vendor",))
    summary["methods"][0] |= {"histories": [], "card": {}}
    text = write_model_card(write_run(tmp_path, summary), "vendor").read_text(encoding="utf-8")
    assert "Not measured, because the model was trained elsewhere." in section(text, "Training")
    assert "none; the model was given without one" in text


def test_an_unknown_method_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'focl' is not a method of this run\. Did you mean 'focal'\?"):
        write_model_card(write_run(tmp_path), "focl")
