"""The page of a check: whole, offline, escaped, ranked, without names; and the same on a terminal."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_run import SECRETS
from PIL import Image
from rich.console import Console
from test_report_page import HOSTILE, read, words

from fake_checks import LOOK, NOTE, SERIOUS, CannotSay, Finds, concern, three_kinds
from tiny import tiny_cohort
from trueread.checking import write_check
from trueread.cohort.check import Check, Example, run_checks
from trueread.cohort.cohort import Cohort
from trueread.errors import InputError
from trueread.report.check_page import write_check_page
from trueread.report.check_terminal import print_check
from trueread.report.check_words import caveats, cohort_sentence, looked_at, read_check, verdict_sentence
from trueread.report.page import MAX_BYTES


def secret(cohort: Cohort) -> Cohort:
    """The cohort with names in it that must not reach what is shared."""
    table = cohort.table.assign(
        id=[f"{SECRETS[1]}-{k}" for k in range(len(cohort))], patient=SECRETS[0] + "-" + cohort.table["patient"]
    )
    return dataclasses.replace(cohort, table=table)


def checked(folder: Path, cohort: Cohort, *checks: Check) -> str:
    """The page of these checks."""
    write_check(cohort, run_checks(cohort, checks), folder, seed=0, command="trueread check folder:xrays")
    return (folder / "check.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("check")
    return folder, checked(folder, secret(tiny_cohort(n=40)), *three_kinds())


def test_every_tag_is_closed_and_every_link_leads_somewhere(drawn: tuple[Path, str]) -> None:
    reader = read(drawn[1])
    ids = [attrs["id"] for _, attrs in reader.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {str(a["href"])[1:] for a in reader.all("a") if str(a.get("href", "")).startswith("#")}
    assert {"glance", "concerns", "looked", "studied", "reading", "concern-1", "concern-2"} == targets
    assert targets <= set(ids)


def test_nothing_is_loaded_from_anywhere(drawn: tuple[Path, str]) -> None:
    reader = read(drawn[1])
    assert not reader.all("script")
    assert not reader.all("link")
    for tag, attrs in reader.elements:
        assert not any(name.startswith("on") for name in attrs)
        for name in ("src", "href", "srcset", "data"):
            assert str(attrs.get(name) or "#").startswith(("#", "data:image/")), (tag, attrs)
    assert len(reader.all("img")) == 4
    css = "".join(re.findall(r"<style>(.*?)</style>", drawn[1], re.DOTALL))
    assert "url(" not in css
    assert "prefers-color-scheme: dark" in css
    policy = next(m["content"] for m in reader.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert str(policy).startswith("default-src 'none'")


def test_it_says_what_was_found_in_order_and_what_was_not(drawn: tuple[Path, str]) -> None:
    text = words(read(drawn[1]))
    for expected in (
        "tiny-binary: 40 images of 20 patients in two classes (normal and mild); split: official.",
        "Three checks found one serious concern and one concern worth a look. One check could not be made.",
        "Look into it.",
        "The first pair.",
        "train · row 3",
        "Details: checks/twins.csv, 4 lines.",
        "Not checked, because nobody said what colour is.",
        "Looked at 40 images.",
        "Details: checks/cues-measured.csv, 15 lines.",
    ):
        assert expected in text, expected
    assert text.index("2 pairs are twins.") < text.index("Brightness gives the label away.")
    assert "cue 11" in text
    assert "cue 12" not in text


def test_the_pictures_are_those_of_the_rows(tmp_path: Path) -> None:
    """Row 5 is black with one white half, and no other image is."""
    cohort = tiny_cohort(n=12)
    images = cohort.images.copy()
    images[5, :, :, :8], images[5, :, :, 8:] = 0, 255
    checked(tmp_path, dataclasses.replace(cohort, images=images), Finds("a", concern(examples=(Example((5,)),))))
    with Image.open(tmp_path / "figures" / "check" / "000005.png") as picture:
        shown = np.asarray(picture.convert("L"), dtype=float)
    assert shown.shape == (208, 208)
    assert shown[:, :90].max() < 15
    assert shown[:, -90:].min() > 240


def test_no_name_reaches_what_is_shared_and_the_tables_have_them(tmp_path: Path) -> None:
    cohort = secret(tiny_cohort(n=20))
    found = concern(examples=(Example((1, 2)),), table=pd.DataFrame({"row": [1, 2], "twin": [2, 1]}))
    names = pd.DataFrame({"id": cohort.table["id"], "level": "as measured"})
    checked(tmp_path, cohort, Finds("a", found, table=names))
    shared = (tmp_path / "check.html").read_text() + (tmp_path / "check.json").read_text()
    assert not any(name in shared for name in SECRETS)
    assert "Details: checks/a-measured.csv, 20 lines." in shared
    assert "as measured" not in shared
    cases = pd.read_csv(tmp_path / "checks" / "a.csv")
    assert list(cases.columns) == ["row", "id", "patient", "split", "label", "twin"]
    assert list(cases["id"]) == list(cohort.table["id"].iloc[[1, 2]])
    assert list(cases["twin"]) == [2, 1]
    shown = pd.read_csv(tmp_path / "checks" / "shown.csv")
    assert list(shown["row"]) == [1, 2]
    assert list(shown["patient"]) == list(cohort.table["patient"].iloc[[1, 2]])
    assert list(shown["label"]) == [cohort.classes[y] for y in cohort.labels[[1, 2]]]
    assert list(pd.read_csv(tmp_path / "checks" / "a-measured.csv").columns) == list(names.columns)


@pytest.mark.parametrize(
    ("column", "is_shown"),
    [("id", False), ("Patient", False), ("patient_of_twin", False), ("twin_id", False), ("first path", False),
     ("n_patients", True), ("patients", True), ("identical", True), ("width", True)],
)  # fmt: skip
def test_a_table_that_names_somebody_is_not_shared(tmp_path: Path, column: str, is_shown: bool) -> None:
    made = Finds("a", table=pd.DataFrame({"x": [1], column: ["found-here"]}))
    checked(tmp_path, tiny_cohort(n=12), made)
    assert ("found-here" in (tmp_path / "check.html").read_text()) is is_shown
    assert ("found-here" in (tmp_path / "check.json").read_text()) is is_shown
    assert "found-here" in (tmp_path / "checks" / "a-measured.csv").read_text()


def test_a_long_table_is_cut_where_it_is_shared(tmp_path: Path) -> None:
    checked(tmp_path, tiny_cohort(n=12), Finds("a", table=pd.DataFrame({"x": range(2000)})))
    [entry] = json.loads((tmp_path / "check.json").read_text())["checks"]
    assert ([row[0] for row in entry["measured"]["rows"]], entry["n_measured"]) == (list(range(100)), 2000)
    assert len(pd.read_csv(tmp_path / "checks" / "a-measured.csv")) == 2000


def test_a_small_p_value_is_not_shown_as_nothing(tmp_path: Path) -> None:
    table = pd.DataFrame({"cue": ["a", "b", "c"], "p": [2e-5, 0.0317, np.nan], "gap": [2e-5, 0.5, 0.25]})
    page = checked(tmp_path, tiny_cohort(n=12), Finds("a", table=table))
    cells = re.findall(r'<td class="num">([^<]*)</td>', page.partition("What a measured")[2].partition("</table>")[0])
    assert cells == ["&lt; 0.001", "0.000", "0.032", "0.500", "", "0.250"]


def test_what_people_write_is_text_and_never_markup(tmp_path: Path) -> None:
    for number, hostile in enumerate(HOSTILE):
        found = concern(
            title=hostile, examples=(Example((0,), hostile),), table=pd.DataFrame({hostile: [hostile]}),
        )  # fmt: skip
        cohort = dataclasses.replace(tiny_cohort(n=12), name=hostile, classes=("normal", hostile))
        made = Finds("a", found, table=pd.DataFrame({hostile: [hostile]}))
        made.question = hostile  # type: ignore[misc]
        reader = read(checked(tmp_path / str(number), cohort, made))
        assert not reader.all("script")
        assert not any("onload" in attrs for _, attrs in reader.elements)
        assert " ".join(hostile.split()) in words(reader)


@pytest.mark.slow
def test_a_page_of_many_large_pictures_stays_below_five_megabytes_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    """Noise in colour cannot be compressed: 8 concerns of 8 examples of 4 images would be twice as much."""
    generator = np.random.default_rng(0)
    cohort = tiny_cohort(n=12, side=208, channels=3)
    cohort = dataclasses.replace(cohort, images=generator.integers(0, 256, cohort.images.shape, dtype=np.uint8))
    examples = tuple(Example((k, k + 1, k + 2, k + 3)) for k in range(8))
    found = [concern(title=f"Concern {k}.", examples=(*examples, *examples)) for k in range(8)]
    page = checked(tmp_path, cohort, Finds("a", *found))
    assert 1_000_000 < len(page.encode()) < MAX_BYTES
    n_examples = len(read(page).all("img")) // 4 // 8
    assert n_examples in (1, 2, 4)
    assert f"{16 - n_examples} further examples not shown." in words(read(page))


def test_few_small_pictures_are_all_shown_up_to_the_limit(tmp_path: Path) -> None:
    many = tuple(Example((k,)) for k in range(9))
    wide = concern(examples=(Example(tuple(range(11)), "All alike."),))
    reader = read(checked(tmp_path, tiny_cohort(n=12), Finds("a", concern(examples=many), wide)))
    assert len(reader.all("img")) == 8 + 8
    assert "1 further example not shown." in words(reader)
    assert "All alike. 3 further images not shown." in words(reader)


def test_the_same_folder_gives_the_same_page(drawn: tuple[Path, str]) -> None:
    folder, text = drawn
    assert write_check_page(folder).read_text(encoding="utf-8") == text


def test_a_lost_picture_is_said(tmp_path: Path) -> None:
    checked(tmp_path, tiny_cohort(n=12), Finds("a", concern(examples=(Example((1, 2)),))))
    (tmp_path / "figures" / "check" / "000002.png").unlink()
    reader = read(write_check_page(tmp_path).read_text(encoding="utf-8"))
    assert "The picture is missing from the folder." in words(reader)
    assert len(reader.all("img")) == 1


def test_nothing_found_is_good_news_that_says_what_was_looked_at(tmp_path: Path) -> None:
    reader = read(checked(tmp_path, tiny_cohort(n=12), Finds("a"), Finds("b")))
    assert "Two checks found nothing of concern." in words(reader)
    assert "nothing found" in words(reader)
    assert "concerns" not in [attrs.get("id") for _, attrs in reader.elements]
    assert not (tmp_path / "checks").exists()


@pytest.mark.parametrize("task", ["multiclass", "ordinal", "multilabel"])
def test_every_task_has_its_labels_beside_the_picture(tmp_path: Path, task: str) -> None:
    cohort = tiny_cohort(task, n=30)
    page = checked(tmp_path, cohort, Finds("a", concern(examples=(Example(tuple(range(8))),))))
    content = json.loads((tmp_path / "check.json").read_text())
    for image in content["concerns"][0]["examples"][0]["images"]:
        label = cohort.labels[image["row"]]
        if task == "multilabel":
            present = [c for c, y in zip(cohort.classes, label, strict=True) if y == 1]
            assert image["label"] == (", ".join(present) or "none")
        else:
            assert image["label"] == cohort.classes[label]
        assert image["label"] in page


def test_a_volume_is_shown_at_the_slice_with_the_largest_mask(tmp_path: Path) -> None:
    cohort = tiny_cohort(n=12, depth=6)
    masks = np.zeros((12, 6, 16, 16), np.uint8)
    masks[3, 4, :4, :4] = 1
    page = checked(tmp_path, dataclasses.replace(cohort, masks=masks), Finds("a", concern(examples=(Example((3, 2)),))))
    assert "slice 5 of 6" in words(read(page))
    assert "slice 4 of 6" in words(read(page))  # no mask: the middle one


def test_classes_are_counted_by_split_where_there_is_one(tmp_path: Path) -> None:
    """A class's patients are in train, val, test, train, train, ...: of its 20 images 12, 4 and 4."""
    cohort = tiny_cohort(n=40)
    assert "mild20(50%)12(50%)4(50%)4(50%)" in class_table(checked(tmp_path / "a", cohort, Finds("a")))
    page = checked(tmp_path / "b", cohort.with_split([""] * 40), Finds("a"))
    assert class_table(page) == "Images by class Class All normal 20 (50 %) mild 20 (50 %) Images 40".replace(" ", "")
    assert "not split." in words(read(page))


def class_table(page: str) -> str:
    """The text of the table of classes, without spaces."""
    table = page[page.index("<caption>Images by class") :].partition("</table>")[0]
    return re.sub(r"<[^>]*>|\s", "", table)


class TestWords:
    @pytest.mark.parametrize(
        ("found", "n_made", "n_unmade", "said"),
        [
            ((0, 0, 0), 3, 0, "Three checks found nothing of concern."),
            ((1, 0, 0), 1, 0, "One check found one serious concern."),
            ((2, 1, 12), 8, 1, "Eight checks found two serious concerns, one concern worth a look and 12 notes. "
             "One check could not be made."),
            ((0, 2, 1), 2, 2, "Two checks found two concerns worth a look and one note. Two checks could not be made."),
            ((0, 0, 0), 0, 2, "Two checks could not be made."),
        ],
    )  # fmt: skip
    def test_the_verdict_in_a_sentence(self, found, n_made, n_unmade, said):
        checks = [{"reason": ""}] * n_made + [{"reason": "x"}] * n_unmade
        counts = dict(zip(("serious", "worth a look", "note"), found, strict=True))
        assert verdict_sentence({"found": counts, "checks": checks}) == said

    def test_what_silence_may_hide_is_said(self):
        def facts(*, is_split: bool, known: bool) -> dict:
            split = {"how": "official", "warnings": []}
            return {"cohort": {"is_split": is_split, "patients_known": known, "split": split}}

        assert caveats(facts(is_split=True, known=True)) == []
        [unsplit] = caveats(facts(is_split=False, known=True))
        assert "nothing was compared between training and test" in unsplit
        assert "by patient" in unsplit
        by_image, unknown = caveats(facts(is_split=False, known=False))
        assert "by image" in by_image
        assert "every image counts as a patient of its own" in unknown

    @pytest.mark.parametrize(
        ("said", "expected"),
        [
            ("every pair.", "looked at every pair."),
            ("The intensities of 3 images. No more", "looked at the intensities of 3 images. No more."),
            ("CT images", "looked at CT images."),
            ("7", "looked at 7."),
        ],
    )
    def test_what_was_looked_at_ends_a_sentence(self, said, expected):
        assert looked_at({"looked_at": said}) == expected

    def test_the_cohort_in_a_sentence(self):
        facts = {
            "name": "eye", "images": 1200, "patients": None, "classes": list("abcde"), "task": "multilabel",
            "split": {"how": "not split"},
        }  # fmt: skip
        assert cohort_sentence(facts) == "eye: 1,200 images (patients unknown) in five labels; not split."


class TestTerminal:
    def printed(self, folder: Path, **options) -> str:
        stream = io.StringIO()
        print_check(read_check(folder), folder, Console(file=stream, **options))
        return stream.getvalue()

    def test_a_pipe_gets_whole_sentences_and_no_colour(self, drawn):
        text = self.printed(drawn[0], width=40)
        assert "\x1b" not in text
        lines = text.splitlines()
        assert lines[0].startswith("Three checks found one serious concern and one concern worth a look.")
        assert "✕ serious: 2 pairs are twins." in lines
        assert f"  details: {drawn[0] / 'checks' / 'twins.csv'}, 4 lines" in lines
        assert "blind: not checked, because nobody said what colour is." in lines
        assert any(re.fullmatch(r"quiet: nothing found, 0\.\d s; looked at 40 images\.", line) for line in lines)
        assert lines[-1] == str(drawn[0] / "check.html")

    def test_a_terminal_gets_colour_within_its_width(self, drawn):
        text = self.printed(drawn[0], width=60, force_terminal=True, color_system="standard")
        plain = re.sub(r"\x1b\[[\d;]*m", "", text)
        assert "\x1b[1;31m✕ serious\x1b[0m" in text
        assert max(map(len, plain.splitlines()[:-1])) <= 60

    def test_brackets_are_no_markup(self, tmp_path):
        checked(tmp_path, tiny_cohort(n=12), Finds("a", concern(NOTE, title="[bold]x[/bold] [0, 1]")))
        assert "note: [bold]x[/bold] [0, 1]" in self.printed(tmp_path)


class TestReading:
    def test_a_folder_without_a_check(self, tmp_path):
        with pytest.raises(InputError, match=r"there is no check\.json"):
            read_check(tmp_path)

    @pytest.mark.parametrize(
        ("text", "said"), [("{", "not valid JSON"), ("[]", "'title' is missing"), ("{}", "'title'")]
    )
    def test_another_file_of_that_name(self, tmp_path, text, said):
        (tmp_path / "check.json").write_text(text)
        with pytest.raises(InputError, match=said):
            read_check(tmp_path)


def test_a_check_that_found_two_things_has_two_tables(tmp_path: Path) -> None:
    first, second = (concern(LOOK, s, table=pd.DataFrame({"n": [s]})) for s in (0.25, 0.75))
    serious = concern(SERIOUS, 0.0)
    write_check(tiny_cohort(n=12), run_checks(tiny_cohort(n=12), [Finds("a", first, second, serious), CannotSay()]),
                tmp_path, seed=0)  # fmt: skip
    content = read_check(tmp_path)
    assert [c["table"] for c in content["concerns"]] == [None, "checks/a.csv", "checks/a-2.csv"]
    assert [float(pd.read_csv(tmp_path / c["table"])["n"][0]) for c in content["concerns"][1:]] == [0.75, 0.25]
