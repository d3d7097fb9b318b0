"""Sentences on corruption and attack say the numbers they are given, and nothing that was not measured."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from fake_run import fake_summary, without_figures

from trueread.audit.finding import Better, Difference, Finding, Measure
from trueread.report.remedy import in_words
from trueread.stats import Comparison, Estimate

HIGHER = Better.HIGHER


def measures(**values: float) -> dict[str, Measure]:
    titles = {"robust": "Balanced accuracy under attack, 2.30 grey levels"}
    return {
        k.replace("_", "-"): Measure(titles.get(k, k), Estimate(v, v - 0.1, v + 0.1), HIGHER) for k, v in values.items()
    }


def summary_of(audit: str, *found: dict[str, Measure], names=("erm", "other"), differences=(), tables=None) -> Any:
    summary = without_figures(fake_summary(methods=names[: len(found)]))
    for method, mine in zip(summary["methods"], found, strict=True):
        method["findings"].append(Finding(audit, "?", measures=mine, tables=tables or {}).to_json())
    summary["differences"] = [
        Difference(audit, key, names[1], names[0], Comparison(Estimate(*numbers), 0.01)).to_json()
        for key, *numbers in differences
    ]
    return summary


def test_corruption() -> None:
    table = pd.DataFrame(
        {"corruption": ["pixelate", "jpeg"], "mean": [Estimate(0.55, 0.5, 0.6), Estimate(0.7, 0.6, 0.8)]}
    )
    summary = summary_of(
        "corruption", measures(drop=0.1, corrupted=0.72, clean=0.84), measures(drop=0.0, corrupted=0.8, clean=0.8),
        differences=[("corrupted", 0.08, 0.02, 0.14), ("clean", -0.04, -0.06, -0.02)],
        tables={"Per corruption, balanced accuracy": table},
    )  # fmt: skip
    said = in_words(summary, "corruption")
    assert said[0] == (
        "erm: balanced accuracy 0.72 (0.62 to 0.82) on corrupted images, 0.84 (0.74 to 0.94) on the same images clean; "
        "'pixelate' costs most (0.55)."
    )
    assert said[2] == (
        "other against erm: balanced accuracy on corrupted images +0.08 (+0.02 to +0.14), better; balanced accuracy on "
        "clean ones \N{MINUS SIGN}0.04 (\N{MINUS SIGN}0.06 to \N{MINUS SIGN}0.02), worse."
    )


@pytest.mark.parametrize(("names", "asks"), [(("erm", "other"), True), (("erm", "adversarial"), False)])
def test_attack(names: tuple[str, str], asks: bool) -> None:
    found = measures(robust=0.2, smallest_change=0.3, clean=0.9), measures(robust=0.6, smallest_change=2.1, clean=0.8)
    summary = summary_of("adversarial", *found, names=names, differences=[("robust", 0.4, 0.3, 0.5)])
    said = in_words(summary, "adversarial")
    assert said[0] == (
        "erm: a change of 0.30 (0.20 to 0.40) grey levels misleads on half of the images that it reads rightly; under "
        "attack with 2.30 grey levels balanced accuracy is 0.20 (0.10 to 0.30), without 0.90 (0.80 to 1.00)."
    )
    for value, never in ((4.6, True), (4.5, False)):
        nearest = Measure("", Estimate(value, 4.2, 4.6), HIGHER, "median; 4.60 where none was found")
        both = measures(robust=0.6, clean=0.8) | {"smallest-change": nearest}
        first = in_words(summary_of("adversarial", both), "adversarial")[0]
        assert first.startswith("erm: no change up to 4.60 grey levels misleads") == never
    assert said[2] == f"{names[1]} against erm: balanced accuracy under attack +0.40 (+0.30 to +0.50), better."
    assert (said[-1].startswith("What adversarial training would buy")) == asks


@pytest.mark.parametrize("audit", ["corruption", "adversarial"])
def test_what_was_not_measured_is_not_said(audit: str) -> None:
    assert in_words(summary_of(audit, {}), audit) == []
    assert in_words(summary_of(audit, measures(clean=float("nan"))), audit) == []
