"""The page: whole, closed, offline, escaped, readable by machine and ear, and honest about what is missing."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_findings import REASON
from fake_run import CLASSES, SECRETS, fake_summary, without_figures, write_run

from trueread.errors import InputError
from trueread.report import page, write_report
from trueread.report.pictures import embedded
from trueread.report.views import caveats, omitted_reasons, studied_sentence

VOID = {"meta", "link", "img", "br", "hr", "input", "source", "col", "wbr", "base"}
HOSTILE = ["<script>alert(1)</script>", '" onload="x', "a & b", "</style><b>", "$5$", "_x", "肺炎", "{{ 7 * 7 }}"]


class Reader(HTMLParser):
    """Collects elements and text, and fails on a tag that closes something else."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice in <{tag}>"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == [], "left open"
    return reader


def words(reader: Reader) -> str:
    return " ".join("".join(reader.text).split())


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = write_run(tmp_path_factory.mktemp("run"), gallery=True)
    return folder, write_report(folder).read_text(encoding="utf-8")


def test_every_tag_is_closed_and_every_id_is_its_own(drawn: tuple[Path, str]) -> None:
    reader = read(drawn[1])
    ids = [attrs["id"] for _, attrs in reader.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {str(a["href"])[1:] for a in reader.all("a") if str(a.get("href", "")).startswith("#")}
    assert targets <= set(ids)
    sections = "glance scorecard studied curves gallery findings numbers methods environment sources"
    assert set(sections.split()) <= targets


def test_nothing_is_loaded_from_anywhere(drawn: tuple[Path, str]) -> None:
    reader = read(drawn[1])
    assert not reader.all("script")
    assert not reader.all("link")
    for tag, attrs in reader.elements:
        assert not any(name.startswith("on") for name in attrs)
        if tag != "a":
            for name in ("src", "href", "xlink:href", "srcset", "data", "poster"):
                assert str(attrs.get(name) or "#").startswith(("#", "data:image/")), (tag, attrs)
    css = "".join(re.findall(r"<style>(.*?)</style>", drawn[1], re.DOTALL))
    assert "url(" not in css
    assert "@import" not in css
    policy = next(m["content"] for m in reader.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert str(policy).startswith("default-src 'none'")


def test_it_is_small_and_the_same_folder_gives_the_same_page(drawn: tuple[Path, str]) -> None:
    folder, text = drawn
    assert len(text.encode()) < 1_500_000
    assert write_report(folder).read_text(encoding="utf-8") == text
    assert not list(folder.glob("*.part"))


def test_what_a_reader_looks_for_is_there(drawn: tuple[Path, str]) -> None:
    text = words(read(drawn[1]))
    for expected in (
        "chest-eight",
        "Three methods (erm, focal and mixup+class-weights), three seeds each, were trained on 1,924 images of 981 "
        "patients and judged on 412 images of 211 patients that training never saw.",
        "2 of 3 questions pass for erm; fail: subgroups",
        "0.914",
        "0.889 to 0.940",
        "+0.031 (0.008 to 0.052)",
        "3 seeds, 211 patients",
        "higher is better, passes at 0.8 or more",
        "pulmonary fibrosis with honeycombing",
        "38 (2 %)",
        "1,000 resamples of whole patients",
        "The epoch with the highest validation AUROC.",
        "Holm",
        "commonly called good discrimination",
        "chance that a positive scores higher than a negative".capitalize(),
        "gamma = 2.0",
        "11,173,962",
        "16 CPU cores",
        "trueread run studies/chest-eight.yaml",
        "Truncated file [file]",
        "not defined",
        "3.2 logits",
    ):
        assert expected in text, expected


def test_what_was_not_measured_is_said(drawn: tuple[Path, str]) -> None:
    text = words(read(drawn[1]))
    assert text.count(f"Not measured, because {REASON}") == 3  # at a glance, on the scorecard, and in full
    assert "Does it look where the finding is?" in text
    assert "not measured, because the model is given as a function" in text  # the gallery's last row
    assert text.count("Whether these maps are fit to be shown as reasons was not checked") == 1


def test_an_audit_no_one_has_heard_of_is_shown_in_full(drawn: tuple[Path, str]) -> None:
    text = words(read(drawn[1]))
    for expected in (
        "Does its answer move when the tube voltage does?",
        "Largest drift (logits)",
        "Per tube",
        "dose (µGy)",
        "B <2>",
        "1,843",
        "Drift per tube",
        "Share kept under rotation",
        "Measured on phantoms supplied by the vendor.",
        "no threshold",
    ):
        assert expected in text, expected


def test_no_identifier_is_on_the_page(drawn: tuple[Path, str]) -> None:
    assert not any(secret in drawn[1] for secret in SECRETS)


def test_it_can_be_heard(drawn: tuple[Path, str]) -> None:
    reader = read(drawn[1])
    levels = [int(tag[1]) for tag, _ in reader.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert all("alt" in a for a in reader.all("img"))
    assert all(a.get("scope") in ("col", "row", "rowgroup") for a in reader.all("th"))
    assert all(a.get("aria-label") for a in reader.all("svg"))
    assert all(a.get("aria-label") for _, a in reader.elements if a.get("role") in ("img", "region"))
    assert reader.all("html")[0]["lang"] == "en"
    assert {"main", "header", "nav", "footer"} <= {tag for tag, _ in reader.elements}


def test_a_verdict_is_a_word_and_not_only_a_colour(drawn: tuple[Path, str]) -> None:
    chips = re.findall(
        r'<span class="verdict v-([a-z_]+)"><span class="sign" aria-hidden="true">(.)</span>([a-z ]*)</span>', drawn[1]
    )
    assert {c[0] for c in chips} == {"pass", "warn", "fail", "no_threshold", "not_measured"}
    assert all(word.replace(" ", "_") == name for name, _, word in chips if word)
    assert len({sign for _, sign, _ in chips}) == 5
    assert drawn[1].count("</span></span> Not measured, because") == sum(not word for _, _, word in chips)


def contrast(a: str, b: str) -> float:
    """WCAG 2 contrast ratio of two #rrggbb colours."""
    light = []
    for colour in (a, b):
        rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        light.append(
            float(np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])
        )
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_text_and_lines_have_enough_contrast_in_both_modes() -> None:
    css = (Path(page.__file__).parent / "style.css").read_text(encoding="utf-8")
    modes = [
        dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    ]
    assert len(modes) == 2
    for colours in modes:
        for name in ("ink", "muted", "link", "pass", "warn", "fail"):
            assert contrast(colours[name], colours["paper"]) >= 4.5, name
        for name in ("pass", "warn"):
            assert contrast(colours[name], colours[f"{name}-tint"]) >= 4.5, name
        assert all(contrast(colours[f"s{i}"], colours["paper"]) >= 3 for i in range(8))


def test_hostile_names_are_text(tmp_path: Path) -> None:
    summary = fake_summary(classes=HOSTILE, methods=("erm", "<img src=x onerror=alert(2)>"))
    summary["title"] = summary["description"] = "</title><script>alert(3)</script>"
    text = write_report(write_run(tmp_path, summary)).read_text(encoding="utf-8")
    reader = read(text)
    assert not reader.all("script")
    assert not any("onerror" in a or "onload" in a for _, a in reader.elements)
    shown = words(reader)
    for name in [*HOSTILE, "<img src=x onerror=alert(2)>", "</title><script>alert(3)</script>"]:
        assert name in shown, name
    assert html.escape(HOSTILE[0]) in text


def test_one_method_one_seed_two_classes(tmp_path: Path) -> None:
    summary = fake_summary(methods=("erm",))
    summary["methods"][0] |= {"seeds": [0], "histories": summary["methods"][0]["histories"][:1]}
    summary["cohort"] |= {"patients_known": False, "patients": None, "classes": CLASSES[:2], "task": "binary"}
    text = words(read(write_report(write_run(tmp_path, summary)).read_text(encoding="utf-8")))
    assert (
        "One method (erm), one seed, was trained on 1,924 images and judged on 412 images that training never saw."
        in text
    )
    assert "in two classes (no finding and atelectasis)" in text
    assert "Nobody said which images belong to the same patient" in text
    assert "Trained once" in text
    assert "resamples of whole images" in text
    assert "Holm" not in text
    assert "Against" not in text


def test_a_model_trained_elsewhere(tmp_path: Path) -> None:
    summary = fake_summary(methods=("resnet of the vendor",))
    summary["methods"][0] |= {"histories": [], "card": {}, "report": {}, "source": ""}
    for key in (
        "differences",
        "gallery",
        "environment",
        "thresholds",
        "resamples",
        "seconds",
        "command",
        "date",
        "description",
    ):
        summary.pop(key)
    del summary["cohort"]["split"], summary["cohort"]["n_omitted"]
    text = words(read(write_report(write_run(tmp_path, summary)).read_text(encoding="utf-8")))
    assert "One model (resnet of the vendor), trained elsewhere, was judged on 2,748 images of 1,403 patients." in text
    assert "Validation AUROC" not in text
    assert "Trained once" not in text
    assert "Gallery" not in text


def test_a_page_that_would_be_too_large_shows_fewer_pictures_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(tmp_path, without_figures(fake_summary()), gallery=True)
    whole = len(write_report(folder).read_bytes())
    monkeypatch.setattr(page, "MAX_BYTES", whole - 1)
    text = write_report(folder).read_text(encoding="utf-8")
    assert len(text.encode()) < whole
    assert "5 further pictures in figures/gallery" in words(read(text))  # one of each of the five kinds


def test_a_figure_that_cannot_be_drawn_costs_only_itself(tmp_path: Path) -> None:
    drawn = fake_summary()
    summary = without_figures(fake_summary())
    for m, whole in zip(summary["methods"], drawn["methods"], strict=True):
        m["findings"][4]["figures"] = whole["findings"][4]["figures"]
        m["findings"][4]["figures"][0]["kind"] = "violin"
        m["findings"][4]["figures"][1]["y"] = "angles"
    text = words(read(write_report(write_run(tmp_path, summary)).read_text(encoding="utf-8")))
    assert "This figure cannot be drawn. 'violin' is not a kind of figure." in text
    assert "names 'angles' as its y, but its data have" in text
    assert "Measured on phantoms" in text


def test_pictures_come_only_from_the_run_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"\x89PNG")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "text.png").write_text("no picture")
    assert embedded(folder, "../secret.png") == ""
    assert embedded(folder, str(tmp_path / "secret.png")) == ""
    assert embedded(folder, "missing.png") == ""
    assert embedded(folder, "text.png") == ""
    assert embedded(folder, None) == ""


def test_a_missing_picture_is_said(tmp_path: Path) -> None:
    summary = without_figures(fake_summary())
    folder = write_run(tmp_path, summary, gallery=True)
    (folder / summary["gallery"][0]["image"]).unlink()
    assert "The picture is missing from the run folder." in words(
        read(write_report(folder).read_text(encoding="utf-8"))
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "is no finished run: there is no summary.json in it"),
        ("{", "is not valid JSON"),
        ("[]", "'title' is missing"),
        ('{"title": "t", "cohort": {"a": 1}, "methods": []}', "'methods' is missing"),
    ],
)
def test_a_folder_without_a_finished_run_is_refused_in_words(tmp_path: Path, content: str | None, says: str) -> None:
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    with pytest.raises(InputError, match=re.escape(says)):
        write_report(tmp_path)


def test_left_out_files_are_counted_by_reason_and_not_named() -> None:
    def of(*omitted: tuple[str, str]) -> list[str]:
        listed: list[dict[str, Any]] = [{"path": p, "reason": r} for p, r in omitted]
        return omitted_reasons({"cohort": {"omitted": listed}})

    assert of(("a/doe.png", "cannot read a/doe.png"), ("b/roe.png", "cannot read roe.png"), ("c.png", "empty")) == [
        "2 images: Cannot read [file].",
        "1 image: Empty.",
    ]


def test_the_sentence_names_labels_and_small_sets_of_classes() -> None:
    summary = fake_summary(methods=("erm",))
    summary["cohort"] |= {"task": "multilabel", "modality": "any"}
    assert studied_sentence(summary).endswith("The cohort is chest-eight: images with eight labels.")
    assert caveats(summary) == ["'pulmonary fibrosis with honeycombing' has 8 test images; its numbers are uncertain."]


def test_sources_become_links_and_stay_text() -> None:
    assert (
        page.linked("arXiv 1710.09412, <b>")
        == '<a href="https://arxiv.org/abs/1710.09412">arXiv 1710.09412</a>, &lt;b&gt;'
    )
    assert page.linked("doi:10.1000/xyz.1.") == '<a href="https://doi.org/10.1000/xyz.1">doi:10.1000/xyz.1</a>.'


def test_the_summary_survives_json(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary == json.loads(json.dumps(fake_summary()))


def test_the_page_says_how_the_calibration_error_and_its_differences_are_made(tmp_path: Path) -> None:
    summary = fake_summary()
    write_run(tmp_path, summary)
    text = " ".join(write_report(tmp_path).read_text(encoding="utf-8").split())
    assert "interval of an expected calibration error are bias-corrected" in text
    assert "Its differences between methods are of the uncorrected errors" in text
    assert "A number without an interval" in text
    assert "judged by its value" not in text
