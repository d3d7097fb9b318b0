"""What the models lean on, and what a remedy bought and cost: better, worse, no clear difference, not measured."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from fake_run import fake_summary, without_figures, write_run
from test_report_page import read, words

from trueread.audit.finding import Better, Difference, Finding, Measure, Verdict
from trueread.report import write_report
from trueread.report.remedy import in_words
from trueread.stats import Comparison, Estimate

AUDIT = "shortcut-reliance"
NAN = float("nan")


def measure(title: str, value: float, low: float, high: float, better: Better = Better.LOWER) -> Measure:
    return Measure(title, Estimate(value, low, high), better)


def planted(reliance: float, biased: float, flipped: float, *, metric: str = "AUROC") -> dict[str, Measure]:
    key, gap = metric.lower().replace(" ", "-"), biased - flipped
    return {
        "planted": measure("Reliance on the planted cue", reliance, reliance - 0.03, reliance + 0.03),
        f"{key}-biased": measure(f"{metric}, biased", biased, 0.9, 1, Better.HIGHER),
        f"{key}-clean": measure(f"{metric}, clean", 0.8, 0.7, 0.9, Better.HIGHER),
        f"{key}-flipped": measure(f"{metric}, flipped", flipped, 0, 0.1, Better.HIGHER),
        f"{key}-gap": measure(f"{metric}, biased - flipped", gap, gap - 0.05, gap + 0.05),
    }


def library(local: float = 0.32, diffuse: float = 0.11) -> dict[str, Measure]:
    return {
        "local": measure("Reliance on the worst local cue", local, local - 0.04, local + 0.04),
        "diffuse": measure("Reliance on the worst diffuse cue", diffuse, diffuse - 0.02, diffuse + 0.02),
    }


def per_cue() -> dict[str, pd.DataFrame]:
    rows = [("ruler", "local", 0.3), ("text", "local", 0.1), ("blur", "diffuse", 0.12), ("gamma", "diffuse", 0.05)]
    table = pd.DataFrame(rows, columns=["cue", "kind", "reliance"])
    return {"Per cue, severity 0.5": table.assign(reliance=[Estimate(r, r - 0.01, r + 0.01) for _, _, r in rows])}


def summary_of(
    *measures: dict[str, Measure], verdict: Verdict = Verdict.FAIL, differences: Any = (), task: str = "binary",
    told: str | None = "'square' in 5% of the images of 'normal' (train and val)", tables: Any = None,
) -> dict[str, Any]:  # fmt: skip
    """A summary with the methods erm, specialist, ... and these measures. differences: (measure, value, low, high) of
    the second to the first."""
    summary = without_figures(fake_summary(methods=("erm", "specialist", "dfr")[: len(measures)]))
    summary["cohort"] |= {"planted": told, "task": task}
    for method, found in zip(summary["methods"], measures, strict=True):
        asked = Finding(AUDIT, "Does a mark move it?", measures=found, verdict=verdict, tables=tables or {})
        method["findings"].append(asked.to_json())
    summary["differences"] = [
        Difference(AUDIT, key, "specialist", "erm", Comparison(Estimate(*numbers), 0.01)).to_json()
        for key, *numbers in differences
    ]
    return summary


def test_what_it_leans_on_and_what_becomes_of_the_metric() -> None:
    assert in_words(summary_of(planted(0.91, 0.99, 0.02)), AUDIT) == [
        "erm leans on 'square' (planted): putting it into a test image moves the probability by 0.91 on average (0.88 "
        "to 0.94); AUROC falls from 0.99 where the cue goes with the label to 0.02 where it is turned round."
    ]


@pytest.mark.parametrize(
    ("verdict", "says"),
    [
        (Verdict.WARN, "erm may lean on 'square' (planted): putting"),
        (Verdict.PASS, "erm is moved little by 'square' (planted): putting"),
        (Verdict.NO_THRESHOLD, "erm and 'square' (planted): putting"),
    ],
)
def test_the_verb_is_that_of_the_verdict(verdict: Verdict, says: str) -> None:
    assert in_words(summary_of(planted(0.1, 0.9, 0.5), verdict=verdict), AUDIT)[0].startswith(says)


def test_a_metric_that_does_not_clearly_fall_is_not_said_to_fall() -> None:
    [text] = in_words(summary_of(planted(0.02, 0.91, 0.9)), AUDIT)
    assert text.endswith(
        "; AUROC is 0.91 where the cue goes with the label and 0.90 where it is turned round, no clear difference."
    )
    rises = planted(0.02, 0.7, 0.9)
    assert (
        "AUROC is 0.70 where the cue goes with the label and 0.90 where it is turned round."
        in (in_words(summary_of(rises), AUDIT)[0])
    )


def test_of_more_classes_balanced_accuracy_and_several_probabilities() -> None:
    [text] = in_words(summary_of(planted(0.4, 0.9, 0.3, metric="Balanced accuracy"), task="multiclass"), AUDIT)
    assert "moves the probabilities by 0.40 on average" in text
    assert "Balanced accuracy falls from 0.90" in text


@pytest.mark.parametrize(
    ("flipped", "clean", "says"),
    [
        (
            (0.77, 0.70, 0.84), (-0.01, -0.03, 0.0),
            "with the cue turned round AUROC +0.77 (+0.70 to +0.84), better; on clean images AUROC −0.01 (−0.03 to "
            "+0.00), no clear difference",
        ),
        (
            (-0.2, -0.3, -0.1), (-0.05, -0.08, -0.02),
            "with the cue turned round AUROC −0.20 (−0.30 to −0.10), worse; on clean images AUROC −0.05 (−0.08 to "
            "−0.02), worse",
        ),
        ((0.5, NAN, NAN), (NAN, NAN, NAN), "with the cue turned round AUROC +0.50"),
    ],
)  # fmt: skip
def test_what_a_remedy_bought_and_cost(flipped: Any, clean: Any, says: str) -> None:
    given = [("auroc-flipped", *flipped), ("auroc-clean", *clean)]
    summary = summary_of(planted(0.9, 0.99, 0.1), planted(0.05, 0.95, 0.87), differences=given)
    assert in_words(summary, AUDIT)[2:] == [f"specialist against erm: {says}."]


def test_without_a_planted_cue_the_worst_of_the_library() -> None:
    given = [("local", -0.1, -0.12, -0.07), ("diffuse", 0.01, -0.02, 0.03)]
    summary = summary_of(library(), library(0.2, 0.12), told=None, tables=per_cue(), differences=given)
    assert in_words(summary, AUDIT) == [
        "erm leans on the worst local mark of the library, 'ruler': at severity 0.5 it moves the probability by 0.32 "
        "on average (0.28 to 0.36). The worst change of the whole image, 'blur', moves it by 0.11 on average (0.09 to "
        "0.13).",
        "specialist leans on the worst local mark of the library, 'ruler': at severity 0.5 it moves the probability by "
        "0.20 on average (0.16 to 0.24). The worst change of the whole image, 'blur', moves it by 0.12 on average "
        "(0.10 to 0.14).",
        "specialist against erm: reliance on the worst local mark −0.10 (−0.12 to −0.07), better; reliance on the "
        "worst change of the whole image +0.01 (−0.02 to +0.03), no clear difference.",
    ]


def test_less_movement_by_a_change_of_the_whole_image_is_not_called_better() -> None:
    summary = summary_of(library(), library(), told=None, differences=[("diffuse", -0.1, -0.2, -0.05)])
    assert in_words(summary, AUDIT)[-1] == (
        "specialist against erm: reliance on the worst change of the whole image −0.10 (−0.20 to −0.05)."
    )


def test_without_the_table_the_cue_has_no_name() -> None:
    assert in_words(summary_of({"local": library()["local"]}, told=None), AUDIT) == [
        "erm leans on the worst local mark of the library: it moves the probability by 0.32 on average (0.28 to 0.36)."
    ]
    assert in_words(summary_of({"diffuse": library()["diffuse"]}, told=None, verdict=Verdict.NO_THRESHOLD), AUDIT) == [
        "erm: the worst change of the whole image moves the probability by 0.11 on average (0.09 to 0.13)."
    ]


def test_what_was_not_measured_has_no_sentence() -> None:
    assert in_words(summary_of(planted(0.9, 0.9, 0.1)), "performance") == []
    assert in_words(fake_summary(), AUDIT) == []  # not asked
    assert in_words(summary_of({}, {}, verdict=Verdict.NOT_MEASURED), AUDIT) == []
    assert in_words(summary_of({"planted": measure("Reliance", NAN, NAN, NAN)}), AUDIT) == []
    alone = {"planted": measure("Reliance on the planted cue", 0.5, NAN, NAN)}
    assert in_words(summary_of(alone, told=None), AUDIT) == [
        "erm leans on the planted cue: putting it into a test image moves the probability by 0.50 on average."
    ]
    uncompared = in_words(summary_of(planted(0.9, 0.99, 0.1), planted(0.05, 0.95, 0.87)), AUDIT)
    assert not any("against" in text for text in uncompared)


def test_the_sentences_are_under_the_question(tmp_path: Any) -> None:
    summary = summary_of(planted(0.91, 0.99, 0.02))
    text = write_report(write_run(tmp_path, summary)).read_text(encoding="utf-8")
    article = text[text.index(f'<article id="audit-{AUDIT}">') :]
    assert "erm leans on 'square' (planted): putting it into" in words(
        read(article[: article.index("<table")] + "</div></article>")
    )
    assert text.count("leans on") == 1
