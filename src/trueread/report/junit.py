"""Verdicts as JUnit XML, which continuous integration reads: a suite per method, a case per audit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from trueread.files import write_text
from trueread.report.summary import Json
from trueread.report.words import cell_text

UNFIT_FOR_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd]")


def write_junit(found: Mapping[str, Sequence[Json]], path: str | Path) -> Path:
    """Write the findings of each method, as their JSON, to `path`. A failed audit is a failure; one that is undecided,
    has no threshold or could not be measured is skipped, with its reason.
    """
    root = ET.Element("testsuites", name="trueread")
    totals = {"tests": 0, "failures": 0, "skipped": 0}
    for method, findings in found.items():
        suite = ET.SubElement(root, "testsuite", name=_text(method))
        counts = {"tests": len(findings), "failures": 0, "skipped": 0}
        for finding in findings:
            case = ET.SubElement(
                suite, "testcase", classname=f"trueread.{_text(method)}", name=finding["audit"],
                time=f"{finding.get('seconds') or 0:.3f}",
            )  # fmt: skip
            said, verdict = _said(finding), finding["verdict"]
            if verdict == "fail":
                counts["failures"] += 1
                ET.SubElement(case, "failure", message=said)
            elif verdict != "pass":
                counts["skipped"] += 1
                ET.SubElement(case, "skipped", message=f"{'undecided' if verdict == 'warn' else verdict}: {said}")
            else:
                ET.SubElement(case, "system-out").text = said
        suite.attrib.update({k: str(v) for k, v in counts.items()})
        totals = {k: v + counts[k] for k, v in totals.items()}
    root.attrib.update({k: str(v) for k, v in totals.items()})
    ET.indent(root)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n')
    return path


def _said(finding: Json) -> str:
    """ "AUROC 0.746 (0.661 to 0.828), threshold 0.8", or why it was not measured."""
    if not finding["measures"]:
        return _text(finding.get("reason") or "")
    headline = next(iter(finding["measures"].values()))
    against = f", threshold {finding['threshold']:g}" if finding.get("threshold") is not None else ""
    return _text(f"{headline['title']} {cell_text(headline['estimate'])}{against}")


def _text(text: str) -> str:
    """Without the characters that XML cannot hold."""
    return UNFIT_FOR_XML.sub("?", text)
