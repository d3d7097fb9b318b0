"""The report without pictures, and the verdicts for continuous integration: the same numbers as the page."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from fake_run import SECRETS, fake_summary, write_run

from trueread.errors import InputError
from trueread.report import write_junit, write_markdown_report
from trueread.report.scorecard import scorecard, verdict_sentence


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = write_markdown_report(write_run(tmp_path_factory.mktemp("run")))
    assert path.name == "report.md"
    return path.read_text(encoding="utf-8")


class TestMarkdown:
    def test_every_row_of_the_scorecard_is_there(self, text: str) -> None:
        summary = fake_summary()
        rows = scorecard(summary)
        assert len(re.findall(r"^\|(?! :--| Images|  \| Method)", text.split("## Data")[0], re.MULTILINE)) == 1 + len(
            rows
        )
        for row in rows:
            if row.estimate is not None:
                assert (
                    f"| {row.verdict} | {row.method} | {row.title} ({row.better} is better) | {row.estimate.text()}"
                    in text
                )
        for method in summary["methods"]:
            assert f"- {verdict_sentence(summary, method['name'])}" in text

    def test_tables_have_as_many_cells_as_their_head(self, text: str) -> None:
        for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            counts = {len(re.findall(r"(?<!\\)\|", row)) for row in block.strip().splitlines()}
            assert len(counts) == 1, block

    def test_no_patient_is_named(self, text: str) -> None:
        assert [secret for secret in SECRETS if secret in text] == []

    def test_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(InputError):
            write_markdown_report(tmp_path)


class TestJunit:
    @staticmethod
    def finding(audit: str, verdict: str, **more: object) -> dict:
        measures = {"auroc": {"title": "AUROC", "estimate": {"value": 0.75, "low": 0.7, "high": 0.8, "n": 9}}}
        return {"audit": audit, "verdict": verdict, "measures": measures, "threshold": 0.8, "seconds": 1.5} | more

    def test_a_suite_for_each_method_and_a_case_for_each_audit(self, tmp_path: Path) -> None:
        found = {
            "erm": [self.finding("performance", "fail"), self.finding("calibration", "pass")],
            "a <b> \x00": [
                self.finding("performance", "warn"),
                self.finding("label", "not measured", measures={}, reason="there is no \x0b label."),
                self.finding("adversarial", "no threshold", threshold=None),
            ],
        }
        root = ET.parse(write_junit(found, tmp_path / "new" / "junit.xml")).getroot()
        assert {k: root.get(k) for k in ("tests", "failures", "skipped")} == {
            "tests": "5",
            "failures": "1",
            "skipped": "3",
        }
        erm, other = root
        assert (erm.get("tests"), erm.get("failures"), other.get("skipped")) == ("2", "1", "3")
        assert other.get("name") == "a <b> ?"
        [failure] = erm.findall("testcase/failure")
        assert failure.get("message") == "AUROC 0.750 (0.700 to 0.800), threshold 0.8"
        assert [s.get("message") for s in other.findall("testcase/skipped")] == [
            "undecided: AUROC 0.750 (0.700 to 0.800), threshold 0.8",
            "not measured: there is no ? label.",
            "no threshold: AUROC 0.750 (0.700 to 0.800)",
        ]
        assert erm[0].get("time") == "1.500"

    def test_of_a_whole_run(self, tmp_path: Path) -> None:
        summary = fake_summary()
        found = {m["name"]: m["findings"] for m in summary["methods"]}
        root = ET.parse(write_junit(found, tmp_path / "junit.xml")).getroot()
        failed = [f for findings in found.values() for f in findings if f["verdict"] == "fail"]
        assert int(root.get("failures") or 0) == len(failed) > 0
