"""Strips of pictures: written beside the run, shown on the page, cut when it grows too large, and never in the JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_run import fake_summary, without_figures, write_run
from PIL import Image
from test_report_page import read, words

from tiny_runs import tiny_study, with_sites
from trueread import commands
from trueread.audit.finding import Finding
from trueread.audit.strip import Panel, Strip
from trueread.errors import InputError
from trueread.report import page, read_summary, write_report
from trueread.report.strips import FOLDER, strip_views, with_pictures

MISSING = "The picture is missing from the run folder."


def panel(level: float, caption: str, *, evidence: float | None = None, side: int = 8) -> Panel:
    """A grey picture of one level in [0,1] with noise of a fixed seed, so that its file has some size."""
    noise = np.random.default_rng(round(1000 * level)).uniform(-0.05, 0.05, (1, side, side))
    image = np.round(4095 * np.clip(level + noise, 0, 1)).astype(np.uint16)
    return Panel(image, caption, None if evidence is None else np.full((side, side), evidence))


def pairs(n: int = 4, *, evidence: float | None = None, said: str = "A", shift: float = 0.0) -> Strip:
    rows = [
        [panel(0.1 * i + shift, f"{said} {i} %"), panel(0.5 + 0.1 * i + shift, f"{said} 9{i} %", evidence=evidence)]
        for i in range(n)
    ]
    titles = [f"Truly {i}" for i in range(n)]
    return Strip("pairs", "With <b> & without", "Drawn at random.", rows, ["without", "with"], titles, 4095)


def finding(*strips: Strip) -> Finding:
    return Finding("scanner-drift", "Does it drift?", strips=list(strips))


def run_with(folder: Path, *strips: Strip, summary: dict[str, Any] | None = None) -> Path:
    """A fake run whose methods have a strip each in their third-party finding."""
    summary = summary or without_figures(fake_summary(methods=("erm", "focal")[: len(strips)]))
    folder.mkdir(exist_ok=True)
    for method, strip in zip(summary["methods"], strips, strict=True):
        drawn = with_pictures(finding(strip), folder, method=method["name"])
        method["findings"][4]["strips"] = drawn["strips"]
    return write_run(folder, summary)


def shown(folder: Path) -> Any:
    return read(write_report(folder).read_text(encoding="utf-8"))


def article(text: str, audit: str) -> Any:
    found = re.search(rf'<article id="audit-{audit}">.*?</article>', text, re.DOTALL)
    assert found is not None
    return read(found[0])


def test_pictures_are_files_and_the_json_names_them(tmp_path: Path) -> None:
    told = with_pictures(finding(pairs(2, evidence=0.4)), tmp_path, method="a+b c")
    [strip] = told["strips"]
    assert {k: strip[k] for k in ("name", "title", "caption", "heads", "row_titles")} == {
        "name": "pairs", "title": "With <b> & without", "caption": "Drawn at random.", "heads": ["without", "with"],
        "row_titles": ["Truly 0", "Truly 1"],
    }  # fmt: skip
    assert strip["evidence_full_colour"] == 0.4
    cells = [cell for row in strip["rows"] for cell in row]
    assert [c["caption"] for c in cells] == ["A 0 %", "A 90 %", "A 1 %", "A 91 %"]
    assert [c["evidence"] is None for c in cells] == [True, False, True, False]
    assert len({c["image"] for c in cells}) == 4
    for cell, level in zip(cells, (0.0, 0.5, 0.1, 0.6), strict=True):
        assert cell["image"].startswith("figures/strips/a+b_c-scanner-drift-pairs-")
        with Image.open(tmp_path / cell["image"]) as picture:
            assert (picture.mode, picture.size) == ("L", (208, 208))
            assert np.asarray(picture).mean() / 255 == pytest.approx(level, abs=0.03)  # 4095 is white
    with Image.open(tmp_path / cells[1]["evidence"]) as layer:
        assert (np.asarray(layer.convert("RGBA"))[..., 3] > 150).all()  # the strongest evidence of the strip everywhere
    assert len(json.dumps(told)) < 2000


def test_evidence_of_one_strip_is_on_one_scale(tmp_path: Path) -> None:
    rows = [[panel(0.5, "", evidence=e) for e in (0.0, 1.0, 4.0)]]
    told = with_pictures(finding(Strip("s", "S", "", rows)), tmp_path, method="erm")
    opacity = []
    for cell in told["strips"][0]["rows"][0]:
        with Image.open(tmp_path / cell["evidence"]) as layer:
            opacity.append(int(np.asarray(layer.convert("RGBA"))[..., 3].max()))
    assert opacity[0] == 0 < opacity[1] < opacity[2]


def test_the_page_shows_them_inside_the_findings_article(tmp_path: Path) -> None:
    folder = run_with(tmp_path, pairs(evidence=0.4))
    text = write_report(folder).read_text(encoding="utf-8")
    inside = article(text, "scanner-drift")
    pictures = inside.all("img")
    assert len(pictures) == 8 + 4
    assert all(str(a["src"]).startswith("data:image/") for a in pictures)
    assert [a["alt"] for a in pictures if a["alt"]][:2] == [
        "With <b> & without: Truly 0, without", "With <b> & without: Truly 0, with",
    ]  # fmt: skip
    for expected in ("With <b> & without. Drawn at random.", "Truly 3", "A 93 %", "0.4 logits"):
        assert expected in words(inside), expected
    assert text.count("data:image/") == 12
    assert text == write_report(folder).read_text(encoding="utf-8")


def test_methods_that_show_the_same_pictures_share_them(tmp_path: Path) -> None:
    folder = run_with(tmp_path, pairs(2, said="A"), pairs(2, said="B"))
    [strip] = strip_views(read_summary(folder), folder)["scanner-drift"]
    assert strip.rows[1][1][1].said == [("erm", "A 91 %"), ("focal", "B 91 %")]
    assert len(shown(folder).all("img")) == 4
    folder = run_with(tmp_path / "same", pairs(2), pairs(2))
    [strip] = strip_views(read_summary(folder), folder)["scanner-drift"]
    assert strip.rows[1][1][1].said == [("", "A 91 %")]  # of every method


def test_methods_that_show_other_pictures_have_their_own(tmp_path: Path) -> None:
    folder = run_with(tmp_path, pairs(2, said="A"), pairs(2, said="B", shift=0.05))
    strips = strip_views(read_summary(folder), folder)["scanner-drift"]
    assert [s.title for s in strips] == ["With <b> & without, erm", "With <b> & without, focal"]
    assert [s.rows[1][1][1].said for s in strips] == [[("", "A 91 %")], [("", "B 91 %")]]


def test_a_page_that_would_be_too_large_shows_fewer_rows_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_with(tmp_path, pairs(5))
    whole = len(write_report(folder).read_bytes())
    monkeypatch.setattr(page, "MAX_BYTES", whole - 1)
    some = shown(folder)
    assert len(some.all("img")) == 2 * 3
    assert "2 further rows in figures/strips, left out to keep the page small." in words(some)
    monkeypatch.setattr(page, "MAX_BYTES", 1)
    none = shown(folder)
    assert not none.all("img")
    assert "5 further rows in figures/strips" in words(none)
    assert "With <b> & without" in words(none)


def test_a_summary_of_an_earlier_run_has_no_strips(tmp_path: Path) -> None:
    summary = without_figures(fake_summary())
    for method in summary["methods"]:
        for f in method["findings"]:
            f.pop("strips")
    assert not shown(write_run(tmp_path, summary)).all("img")


@pytest.mark.parametrize("at", ["image", "evidence"])
@pytest.mark.parametrize("path", [None, "gone.png", "../secret.png", "summary.json", "a\0b", "x" * 5000, "cut.png"])
def test_a_picture_that_is_not_there_is_said(tmp_path: Path, at: str, path: str | None) -> None:
    folder = run_with(tmp_path / "run", pairs(2, evidence=1.0))
    summary = json.loads((folder / "summary.json").read_text())
    rows = summary["methods"][0]["findings"][4]["strips"][0]["rows"]
    (folder / "cut.png").write_bytes((folder / rows[1][1]["image"]).read_bytes()[:200])
    rows[0][1][at] = path
    (folder / "summary.json").write_text(json.dumps(summary))
    page_ = shown(folder)
    if at == "image":
        assert words(page_).count(MISSING) == 1
        assert len(page_.all("img")) == 3 + 1
    elif path != "cut.png":  # its layer is not read, only passed on
        assert MISSING not in words(page_)
        assert len(page_.all("img")) == 4 + 1


@pytest.mark.parametrize(
    "changed",
    [
        3,
        {"name": "pairs"},
        [3],
        [{}],
        ["rows", []],
        ["rows", [[]]],
        ["rows", [3]],
        ["rows", [[{"caption": 3, "image": "a"}, {"caption": ""}]]],
        ["rows", [[{"caption": "", "image": 3}, {"caption": ""}]]],
        ["rows", [[{"caption": ""}]] * 2],
        ["heads", ["one"]],
        ["heads", None],
        ["row_titles", [1, 2]],
        ["row_titles", "ab"],
        ["title", None],
        ["caption", 3],
        ["evidence_full_colour", "red"],
    ],
    ids=str,
)
def test_odd_strips_are_one_sentence(tmp_path: Path, changed: Any) -> None:
    folder = run_with(tmp_path, pairs(2))
    summary = json.loads((folder / "summary.json").read_text())
    its = summary["methods"][0]["findings"][4]
    if isinstance(changed, list) and isinstance(changed[0], str):
        its["strips"][0][changed[0]] = changed[1]
    else:
        its["strips"] = changed
    (folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(InputError, match=r"was edited: its 'strips' is not what a run writes\. Run the study again"):
        write_report(folder)


@pytest.fixture(scope="module", autouse=True)
def _alone(quiet_and_on_one_thread: None) -> None:
    pass


PLANT = {"cue": "square", "severity": 1.0, "side": 0.2, "prevalence": 0.9, "clean": 0.2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = tiny_study(plant=PLANT, methods=["erm", "dfr"], audits=["shortcut-reliance"], explain=True)
    return commands.run(study, out=tmp_path_factory.mktemp("run") / "run", cohort=with_sites())


class TestOfARun:
    def test_it_has_the_pictures_and_the_page_shows_them(self, whole: Path) -> None:
        summary = read_summary(whole)
        strips = summary["methods"][0]["findings"][0]["strips"]
        assert [(s["name"], len(s["rows"])) for s in strips] == [("planted", 4), ("library", 2)]
        listed = {
            cell["image"]
            for m in summary["methods"] for s in m["findings"][0]["strips"] for row in s["rows"] for cell in row
        }  # fmt: skip
        assert listed == {str(p.relative_to(whole)) for p in (whole / FOLDER).iterdir()}
        of_one = sum(len(row) for s in strips for row in s["rows"])
        assert len(listed) == 2 * of_one
        html = (whole / "report.html").read_text()
        assert len(article(html, "shortcut-reliance").all("img")) == of_one  # asked of both methods
        assert "Without and with the planted cue" in html

    def test_a_study_that_shows_no_images_has_no_strips(self, tmp_path: Path) -> None:
        study = tiny_study(plant=PLANT, audits=["shortcut-reliance"], explain=False)
        folder = commands.run(study, out=tmp_path / "run", cohort=with_sites())
        assert not list(folder.rglob("*.png"))
        assert read_summary(folder)["methods"][0]["findings"][0]["strips"] == []
        assert "data:image" not in (folder / "report.html").read_text()

    def test_without_and_with_differ_where_the_cue_is(self, whole: Path) -> None:
        [planted, _] = read_summary(whole)["methods"][0]["findings"][0]["strips"]
        for row in planted["rows"]:
            without, with_ = (np.asarray(Image.open(whole / cell["image"]), np.float64) for cell in row)
            changed = np.abs(with_ - without) > 8
            assert 0.01 < changed.mean() < 0.2
            assert with_[changed].mean() > without[changed].mean()

    def test_no_pixel_is_in_the_findings_and_no_patient_on_the_page(self, whole: Path) -> None:
        findings = (whole / "findings.json").read_text()
        assert "data:image" not in findings
        assert json.loads(findings)["erm"][0]["strips"][0]["rows"][0][0].keys() == {"caption", "image", "evidence"}
        cohort = with_sites()
        names = {*cohort.table["id"], *cohort.table["patient"]}
        text = " ".join(read((whole / "report.html").read_text()).text)
        told = json.dumps([m["findings"] for m in read_summary(whole)["methods"]])
        files = " ".join(p.name for p in (whole / "figures").rglob("*"))
        for name in names:
            assert not re.search(rf"\b{re.escape(name)}\b", f"{text} {told} {files}"), name
