"""`trueread check` and `trueread.check`: exit codes, what is written and what is not, and who is named where."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import trueread
from fake_checks import LOOK, SERIOUS, CannotSay, Finds, concern, registered, three_kinds
from tiny import tiny_cohort
from tiny_runs import write_pictures
from trueread import cli
from trueread.checking import check_once
from trueread.cohort.check import CHECKS, Example
from trueread.cohort.split import assign_splits, save_split
from trueread.errors import InputError
from trueread.progress import set_quiet

SMALL = ("-s", "size=16", "-s", r"patient=patient\d+")


@pytest.fixture(autouse=True)
def _loud_again():
    yield
    set_quiet(False)


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a command in this process: (exit code, standard output, standard error)."""

    def called(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["trueread", *map(str, arguments)])
        monkeypatch.setenv("TRUEREAD_DEBUG", "")
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return called


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("data") / "hospital", tiny_cohort(n=40), broken=1)


class TestExitCode:
    @pytest.mark.parametrize(
        ("found", "code"), [((), 0), ((concern(LOOK, 1.0),), 0), ((concern(LOOK), concern(SERIOUS, 0.0)), 1)]
    )
    def test_one_when_something_serious_is_found(self, command, pictures, tmp_path, found, code):
        with registered([Finds("a", *found)]):
            assert command("check", f"folder:{pictures}", *SMALL, "-o", tmp_path)[0] == code
            assert command("check", f"folder:{pictures}", *SMALL, "-o", tmp_path, "--json")[0] == code

    def test_zero_when_it_could_not_be_asked(self, command, pictures, tmp_path):
        with registered([CannotSay()]):
            assert command("check", f"folder:{pictures}", *SMALL, "-o", tmp_path)[0] == 0

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("folder:nowhere",), "'nowhere' is not a folder"),
            (("phantm",), "'phantm' is not a source. Did you mean 'phantom'"),
            (("phantom", "--only", "unreadible"), "'unreadible' is not a check. Did you mean 'unreadable'"),
            (("phantom", "--only", "unreadable", "--only", "unreadable"), "is asked twice"),
            (("phantom", "-s", "n_image=5"), "Did you mean 'n_images'"),
            (("phantom", "-s", "n_images=60", "--split", "nothing.csv"), "nothing.csv"),
            (("phantom", "--seed", "one"), "'--seed'"),
            (("phantom", "--seed", "-1"), "'--seed'"),
        ],
    )
    def test_two_and_one_line_for_bad_input(self, command, tmp_path, monkeypatch, arguments, words):
        monkeypatch.chdir(tmp_path)
        code, out, err = command("--quiet", "check", *arguments)
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        assert words in err
        assert not list(tmp_path.rglob("*.*"))

    def test_a_name_does_not_wait_for_the_data(self, monkeypatch):
        monkeypatch.setattr("trueread.checking.load_cohort", lambda *_a, **_k: pytest.fail("the data were read"))
        with pytest.raises(InputError, match="is not a check"):
            trueread.check("phantom", checks="nothing")

    def test_a_folder_that_cannot_be_made_does_not_wait_for_the_data(self, tmp_path, monkeypatch):
        monkeypatch.setattr("trueread.checking.load_cohort", lambda *_a, **_k: pytest.fail("the data were read"))
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match=r"cannot be made .* choose another with --out"):
            trueread.check("phantom", out=tmp_path / "file" / "below")

    def test_a_folder_with_a_check_json_of_somebody_else_does_not_wait_for_the_data(self, tmp_path, monkeypatch):
        monkeypatch.setattr("trueread.checking.load_cohort", lambda *_a, **_k: pytest.fail("the data were read"))
        (tmp_path / "check.json").write_text('{"mine": true}')
        with pytest.raises(InputError, match=r"is no check of trueread.*--out"):
            trueread.check("phantom", out=tmp_path)
        assert (tmp_path / "check.json").read_text() == '{"mine": true}'


class TestOutput:
    def test_the_help_has_examples(self, command):
        code, out, err = command("check", "--help")
        assert (code, err) == (0, "")
        assert "trueread check " in out.split("Examples", 1)[1]

    def test_text_json_page_and_tables(self, command, pictures, tmp_path):
        with registered(three_kinds()):
            code, out, err = command("check", f"folder:{pictures}", *SMALL, "-o", tmp_path / "out")
        assert code == 1
        assert out.startswith("Three checks found one serious concern and one concern worth a look.")
        assert out.splitlines()[-1] == str(tmp_path / "out" / "check.html")
        assert "hospital: 40 images of 20 patients in two classes (mild and normal); not split." in err
        names = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()}
        assert names == {
            "check.html", "check.json", "checks/twins.csv", "checks/shown.csv", "checks/cues-measured.csv",
            *(f"figures/check/{row:06d}.png" for row in (1, 2, 3, 7)),
        }  # fmt: skip
        content = json.loads((tmp_path / "out" / "check.json").read_text())
        assert set(content["files"]) == names - {"check.html", "check.json"}
        assert content["command"].startswith("trueread check folder:hospital -s size=16")

    def test_json_on_stdout_is_the_file_and_its_keys_are_stable(self, command, pictures, tmp_path):
        with registered(three_kinds()):
            _, out, _ = command("check", f"folder:{pictures}", *SMALL, "-o", tmp_path, "--json", "--seed", "3")
        content = json.loads(out)
        assert content == json.loads((tmp_path / "check.json").read_text())
        assert set(content) == {
            "title", "command", "date", "seconds", "seed", "fingerprint", "cohort", "found", "concerns", "checks",
            "files", "environment",
        }  # fmt: skip
        assert content["seed"] == 3
        assert content["found"] == {"serious": 1, "worth a look": 1, "note": 0}
        first = content["concerns"][0]
        assert set(first) == {
            "check", "seriousness", "title", "advice", "strength", "n_images", "n_examples", "examples", "n_lines",
            "table",
        }  # fmt: skip
        assert (first["check"], first["strength"], first["n_images"]) == ("twins", 0.9, 4)
        assert [e["rows"] for e in first["examples"]] == [[3, 7], [1, 2]]
        assert set(content["checks"][0]) == {
            "check", "question", "looked_at", "n_concerns", "reason", "seconds", "measured", "n_measured", "table"
        }  # fmt: skip
        assert [c["check"] for c in content["checks"]] == ["blind", "cues", "quiet", "twins"]
        assert content["checks"][1]["measured"]["rows"][14] == ["cue 14", pytest.approx(0.62)]

    def test_the_folder_is_named_after_the_data(self, command, pictures, tmp_path, monkeypatch):
        monkeypatch.chdir(pictures.parent)
        with registered([Finds("a")]):
            command("check", "folder:hospital", *SMALL)
        assert (pictures.parent / "runs" / "check-folder-hospital" / "check.html").is_file()

    def test_quiet_leaves_the_result_alone(self, command, pictures, tmp_path):
        with registered([Finds("a")]):
            code, out, err = command("--quiet", "check", f"folder:{pictures}", *SMALL, "-o", tmp_path)
        assert (code, err) == (0, "")
        assert out.startswith("One check found nothing of concern.")

    def test_only_these_are_asked(self, command, pictures, tmp_path):
        checks = three_kinds()
        with registered(checks):
            code, _, _ = command(
                "check", f"folder:{pictures}", *SMALL, "--only", "quiet", "--only", "blind", "-o", tmp_path
            )
        assert code == 0
        assert [c["check"] for c in json.loads((tmp_path / "check.json").read_text())["checks"]] == ["quiet", "blind"]

    def test_the_seed_reaches_the_checks(self, tmp_path):
        made = Finds("a")
        with registered([made]):
            trueread.check(tiny_cohort(n=12), seed=11)
        assert made.seeds == [11]

    def test_what_an_earlier_check_left_is_gone_and_what_others_left_is_not(self, tmp_path):
        cohort = tiny_cohort(n=12)
        with registered(three_kinds()):
            trueread.check(cohort, out=tmp_path)
        (tmp_path / "checks" / "mine.csv").write_text("mine")
        assert (tmp_path / "figures" / "check" / "000007.png").is_file()
        shown = concern(examples=(Example((5,)),))
        with registered([Finds("other", shown)]):
            trueread.check(cohort, out=tmp_path)
        left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
        assert left == {"check.html", "check.json", "checks/mine.csv", "checks/shown.csv", "figures/check/000005.png"}

    def test_a_check_json_that_lists_files_elsewhere_removes_nothing(self, tmp_path):
        cohort = tiny_cohort(n=12)
        with registered([Finds("a")]):
            trueread.check(cohort, out=tmp_path / "out")
            content = json.loads((tmp_path / "out" / "check.json").read_text())
            precious = tmp_path / "precious.csv"
            content["files"] = ["../precious.csv", "checks/../../precious.csv", "check.html", str(precious)]
            (tmp_path / "out" / "check.json").write_text(json.dumps(content))
            precious.write_text("")
            trueread.check(cohort, out=tmp_path / "out")
        assert precious.exists()


class TestPython:
    def test_answers_come_back_and_nothing_is_written_without_a_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with registered(three_kinds()):
            answers = trueread.check(tiny_cohort(n=12))
        assert [a.check for a in answers] == ["blind", "cues", "quiet", "twins"]
        assert [c.title for _, c in trueread.ranked(answers)] == [
            "2 pairs are twins.",
            "Brightness gives the label away.",
        ]
        assert list(tmp_path.iterdir()) == []

    def test_the_data_are_checked_with_the_split_they_have_or_are_given(self, tmp_path):
        class Split(Finds):
            def run(self, cohort, *, seed=0):
                self.seen = sorted(set(cohort.table["split"]))
                return super().run(cohort, seed=seed)

        cohort = tiny_cohort(n=40).with_split([""] * 40)
        save_split(assign_splits(cohort, seed=5), tmp_path / "split.csv")
        made = Split("a")
        with registered([made]):
            trueread.check(cohort)
            assert made.seen == [""]
            trueread.check(cohort, split=tmp_path / "split.csv", out=tmp_path / "out")
            assert made.seen == ["test", "train", "val"]
        facts = json.loads((tmp_path / "out" / "check.json").read_text())["cohort"]
        assert facts["is_split"]
        assert facts["split"]["how"] == "as saved in split.csv"

    def test_the_list_has_every_check_with_its_options(self, command):
        code, out, _ = command("list", "checks", "--json")
        rows = {row["name"]: row for row in json.loads(out)}
        assert code == 0
        assert list(rows) == [e.name for e in CHECKS.entries()]
        assert rows["unreadable"]["options"] == ["serious_share"]


class TestOnce:
    """In a run that is resumed, the same question about the same data is not asked again."""

    def asked(self, folder: Path, cohort, *, seed: int = 0) -> int:
        made = Finds("a", concern(SERIOUS, title="It is so."))
        with registered([made]):
            content = check_once(cohort, folder, seed=seed)
        assert content["concerns"][0]["title"] == "It is so."
        assert content == json.loads((folder / "check.json").read_text())
        return len(made.seeds)

    def test_the_same_is_read_back(self, tmp_path):
        assert [self.asked(tmp_path, tiny_cohort(n=12)) for _ in range(2)] == [1, 0]

    @pytest.mark.parametrize("what", ["images", "labels", "split", "omitted", "seed", "checks"])
    def test_anything_else_is_asked_anew(self, tmp_path, what):
        cohort, seed = tiny_cohort(n=20), 0
        assert self.asked(tmp_path, cohort) == 1
        if what == "images":
            cohort = dataclasses.replace(cohort, images=255 - cohort.images)
        elif what == "labels":
            cohort = dataclasses.replace(cohort, labels=1 - cohort.labels)
        elif what == "split":
            cohort = cohort.with_split([""] * 20)
        elif what == "omitted":
            cohort = dataclasses.replace(cohort, omitted=pd.DataFrame({"path": ["x.png"], "reason": ["gone"]}))
        elif what == "seed":
            seed = 1
        else:
            with registered([Finds("b")]):
                check_once(cohort, tmp_path)
        assert self.asked(tmp_path, cohort, seed=seed) == 1


def test_a_broken_file_is_found_by_the_whole_command(command, pictures, tmp_path):
    """1 of 41 files is 2.4 %: worth a look. Its name stands in the table and not on the page."""
    code, out, _ = command("check", f"folder:{pictures}", *SMALL, "--only", "unreadable", "-o", tmp_path)
    assert code == 0
    assert (
        "! worth a look: 1 of 41 files (2.4 %) could not be read and are left out; all: the file is cut short." in out
    )
    [lost] = pd.read_csv(tmp_path / "checks" / "unreadable.csv")["path"]
    assert Path(lost).name == "patient900-scan900.png"
    assert "patient900" not in (tmp_path / "check.html").read_text() + (tmp_path / "check.json").read_text() + out


@pytest.mark.slow
def test_no_check_names_an_image_or_a_patient_in_what_is_shared(tmp_path):
    """Every check of the package, on data with planted twins, label conflicts, an odd image, and a telling site."""
    cohort = trueread.load_cohort("phantom", n_images=240, size=48, seed=3)
    images, labels = cohort.images.copy(), cohort.labels.copy()
    images[10:14], images[20] = images[50:54], 0
    labels[10] = 1 - labels[50]
    table = cohort.table.assign(
        id=[f"scan_doe_{k:05d}" for k in range(240)],
        patient="DOE-JANE-" + cohort.table["patient"].astype(str),
        site=np.where(labels == 1, "north", "south"),
    )  # fmt: skip
    planted = dataclasses.replace(cohort, images=images, labels=labels, table=table, masks=None, truth=None)
    answers = trueread.check(planted, out=tmp_path)
    shared = (tmp_path / "check.html").read_text() + (tmp_path / "check.json").read_text()
    assert "scan_doe_" not in shared
    assert "DOE-JANE" not in shared
    assert sum(len(a.concerns) for a in answers) == len(json.loads((tmp_path / "check.json").read_text())["concerns"])
