"""The check of the data inside a study: made once, before anything is trained, said, kept, and in nobody's way."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pytest

from fake_checks import LOOK, NOTE, SERIOUS, CannotSay, Finds, concern, registered
from tiny_runs import TRAIN, tiny_study, with_sites
from trueread import commands, runner
from trueread.cells import cell_folder
from trueread.errors import InputError
from trueread.report import read_summary, write_report
from trueread.training import loop
from trueread.training.processes import Processes

pytestmark = pytest.mark.usefixtures("quiet_and_on_one_thread")

CONCERNS = (
    concern(NOTE, 0.1, "The images are small."),
    concern(LOOK, 0.4, "Site gives the label <away>."),
    concern(SERIOUS, 0.9, "2 pairs are twins."),
)


@pytest.fixture
def events(monkeypatch):
    """What happened, in order: "checked", the names of the cells that were trained, and what was said."""
    happened: list[str] = []

    def fitting(*args, what: str, **kwargs):
        happened.append(what)
        return loop.fit(*args, what=what, **kwargs)

    monkeypatch.setattr(runner, "fit", fitting)
    monkeypatch.setattr(runner, "say", happened.append)
    return happened


@pytest.fixture
def no_page(monkeypatch):
    """Leave the report out, which takes longer than the training."""
    monkeypatch.setattr(runner, "write_report", lambda _folder: None)
    monkeypatch.setattr(runner, "write_model_card", lambda _folder, _name: None)


class Watched(Finds):
    """Finds what it was made with, and tells that it was asked."""

    def __init__(self, events: list[str], *concerns) -> None:
        super().__init__("watched", *concerns)
        self.events = events

    def run(self, cohort, *, seed: int = 0):
        assert cohort.is_split
        self.events.append("checked")
        return super().run(cohort, seed=seed)


def run(folder: Path, **changed) -> Path:
    study = tiny_study(check=True, audits=["performance"], **changed)
    return commands.run(study, out=folder, cohort=with_sites(), command="trueread run tiny.yaml")


def section(folder: Path) -> str:
    """The text of the report's section on the check, without its tags."""
    html = (folder / "report.html").read_text()
    found = re.search(r'<section id="checked">(.*?)</section>', html, re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", "", found[1])).split())


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same study with and without checks."""
    root = tmp_path_factory.mktemp("both")
    commands.run(tiny_study(audits=["performance"]), out=root / "without", cohort=with_sites())
    return run(root / "with"), root / "without"


class TestTheRealChecks:
    def test_the_page_lies_beside_the_report(self, both):
        checked, unchecked = both
        content = json.loads((checked / "check.json").read_text())
        assert content["cohort"]["is_split"]
        assert content["command"] == "trueread run tiny.yaml"
        assert (checked / "check.html").stat().st_size > 5000
        assert not list(unchecked.glob("check*"))

    def test_summary_and_report_have_it_in_short(self, both):
        checked, _ = both
        content, told = json.loads((checked / "check.json").read_text()), read_summary(checked)["check"]
        assert set(told) == {"verdict", "found", "concerns", "page"}
        assert (told["found"], told["page"]) == (content["found"], "check.html")
        titles = [c["title"] for c in content["concerns"] if c["seriousness"] != "note"]
        assert [c["title"] for c in told["concerns"]] == titles
        assert all(title in section(checked) for title in [told["verdict"], *titles])

    def test_it_changes_nothing_in_what_is_trained(self, both):
        weights, predictions = ("model/weights.safetensors", "predictions.csv")
        cells = [cell_folder(folder, "erm", 0) for folder in both]
        for name in (weights, predictions):
            assert (cells[0] / name).read_bytes() == (cells[1] / name).read_bytes()


@pytest.mark.usefixtures("no_page")
class TestOrder:
    def test_it_is_made_once_and_before_the_first_training(self, tmp_path, events):
        with registered([Watched(events, *CONCERNS)]):
            run(tmp_path, methods=["erm", "mixup"])
        done = [e for e in events if e in ("checked", "erm, seed 0", "mixup, seed 0")]
        assert done == ["checked", "erm, seed 0", "mixup, seed 0"]

    def test_what_is_serious_is_said_a_line_each_and_where_the_page_is(self, tmp_path, events):
        with registered([Watched(events, *CONCERNS), CannotSay()]):
            run(tmp_path)
        start = events.index("checked") + 1
        assert events[start : events.index("erm, seed 0")] == [
            "serious: 2 pairs are twins.",
            "One check found one serious concern, one concern worth a look and one note. One check could not be made. "
            f"Details: {tmp_path / 'check.html'}",
        ]

    def test_a_second_start_reads_the_answer_and_says_the_same(self, tmp_path, events):
        with registered([Watched(events, *CONCERNS)]):
            run(tmp_path)
            first, told = list(events), read_summary(tmp_path)["check"]
            files = {name: (tmp_path / name).stat().st_mtime_ns for name in ("check.json", "check.html")}
            events.clear()
            run(tmp_path, seeds=2)
        assert [e for e in events if e in ("checked", "erm, seed 0", "erm, seed 1")] == ["erm, seed 1"]
        assert [e for e in first if e.startswith("serious")] == [e for e in events if e.startswith("serious")]
        assert read_summary(tmp_path)["check"] == told
        assert {name: (tmp_path / name).stat().st_mtime_ns for name in files} == files

    def test_data_that_cannot_be_trained_on_do_not_wait_for_it(self, tmp_path, events):
        with registered([Watched(events)]), pytest.raises(InputError, match="batch_size is 999"):
            run(tmp_path, train={**TRAIN, "batch_size": 999})
        assert "checked" not in events
        assert not (tmp_path / "check.json").exists()

    def test_a_check_that_was_interrupted_is_made_again(self, tmp_path, events):
        class Interrupted(Watched):
            def run(self, cohort, *, seed: int = 0):
                raise KeyboardInterrupt

        with registered([Interrupted(events)]), pytest.raises(KeyboardInterrupt):
            run(tmp_path)
        with registered([Watched(events, *CONCERNS)]):
            run(tmp_path)
        assert [e for e in events if e in ("checked", "erm, seed 0")] == ["checked", "erm, seed 0"]

    def test_processes_that_follow_do_not_check(self, tmp_path, events, monkeypatch):
        monkeypatch.setattr(runner, "processes", lambda: Follower(1, 2))
        monkeypatch.setattr(runner, "train_method", lambda *_arguments: events.append("erm, seed 0"))
        with registered([Watched(events, *CONCERNS)]):
            run(tmp_path)
        assert "checked" not in events
        assert events[-1] == "erm, seed 0"
        assert not list(tmp_path.iterdir())


class Follower(Processes):
    """A process beside another one that is not there."""

    def wait(self) -> None:
        pass


class TestOnThePage:
    def test_the_concerns_in_order_and_a_link(self, tmp_path):
        with registered([Finds("a", *CONCERNS)]):
            run(tmp_path)
        text = section(tmp_path)
        assert "One check found one serious concern, one concern worth a look and one note." in text
        assert 0 < text.index("2 pairs are twins.") < text.index("Site gives the label <away>.")
        assert "The images are small." not in text
        html = (tmp_path / "report.html").read_text()
        assert '<a href="check.html">check.html</a>' in html
        assert "One serious concern about the data came up before training" in html

    def test_nothing_of_concern(self, tmp_path):
        with registered([Finds("a")]):
            run(tmp_path)
        assert "One check found nothing of concern." in section(tmp_path)
        assert "came up" not in (tmp_path / "report.html").read_text()

    def test_the_page_is_whole_without_the_files_of_the_check(self, tmp_path):
        with registered([Finds("a", *CONCERNS)]):
            run(tmp_path)
        before = (tmp_path / "report.html").read_bytes()
        for name in ("check.html", "check.json"):
            (tmp_path / name).unlink()
        assert write_report(tmp_path).read_bytes() == before

    def test_a_run_of_before_there_were_checks_was_not_checked(self, tmp_path):
        commands.run(tiny_study(audits=["performance"]), out=tmp_path, cohort=with_sites())
        summary = read_summary(tmp_path)
        assert summary.pop("check") is None
        assert section(tmp_path).startswith("Check of the data Not checked.")
        before = (tmp_path / "report.html").read_bytes()
        (tmp_path / "summary.json").write_text(json.dumps(summary))
        assert write_report(tmp_path).read_bytes() == before

    @pytest.mark.parametrize("edited", [3, {}, {"concerns": 3}, {"concerns": [3]}, {"concerns": [{"title": 1}]}])
    def test_an_edited_summary_is_one_sentence(self, tmp_path, edited):
        summary = {"title": "x", "cohort": {"a": 1}, "methods": [{"name": "erm"}], "check": edited}
        (tmp_path / "summary.json").write_text(json.dumps(summary))
        with pytest.raises(InputError, match=r"summary\.json was edited: its 'check' .* Run the study again"):
            write_report(tmp_path)


class TestSwitch:
    def test_false_leaves_it_out_and_true_brings_it_later(self, tmp_path, events):
        with registered([Watched(events, *CONCERNS)]):
            commands.run(tiny_study(audits=["performance"]), out=tmp_path, cohort=with_sites())
            assert "checked" not in events
            assert not list(tmp_path.glob("check*"))
            events.clear()
            run(tmp_path)
        assert "checked" in events
        assert "erm, seed 0" not in events  # trained before
        assert "2 pairs are twins." in section(tmp_path)

    @pytest.mark.usefixtures("no_page")
    def test_train_does_not_check(self, tmp_path, events):
        with registered([Watched(events, *CONCERNS)]):
            commands.train(with_sites(), out=tmp_path, **tiny_study()["train"])
        assert "checked" not in events

    def test_a_check_json_of_somebody_else_is_left_alone_and_nothing_is_trained(self, tmp_path, events):
        (tmp_path / "check.json").write_text('{"mine": true}')
        with registered([Watched(events)]), pytest.raises(InputError, match=r"is no check of trueread.*--out"):
            run(tmp_path)
        assert (tmp_path / "check.json").read_text() == '{"mine": true}'
        assert "erm, seed 0" not in events
