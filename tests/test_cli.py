"""The command line: exit codes, one line per mistake, and a standard output that machines can read."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tiny import tiny_cohort
from tiny_runs import write_pictures
from trueread import __version__, cli, commands, predicting, runner
from trueread.arguments import meant, pairs, typed_command
from trueread.cells import cell_folder
from trueread.errors import InputError
from trueread.progress import set_quiet

COMMANDS = ("run", "train", "audit", "check", "predict", "report", "list")
SMALL = ("-s", "size=16", "-s", r"patient=patient\d+")
QUICK = ("-t", "epochs=1", "-t", "batch_size=24", "-t", "precision=fp32", "-t", "threads=1")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    yield
    set_quiet(False)


@pytest.fixture
def trueread(monkeypatch, capsys):
    """Run a command in this process: (exit code, standard output, standard error)."""

    def called(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["trueread", *map(str, arguments)])
        monkeypatch.setenv("TRUEREAD_DEBUG", "")
        monkeypatch.setenv("COLUMNS", "120")
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return called


def process(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "trueread", *arguments], capture_output=True, text=True, timeout=300, check=False,
        **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Files of which every fifth patient has the wrong label, so that no classifier is perfect, and one is broken."""
    cohort = tiny_cohort(n=120)
    wrong = cohort.patient_codes() % 5 == 0
    cohort = dataclasses.replace(cohort, labels=np.where(wrong, 1 - cohort.labels, cohort.labels))
    return write_pictures(tmp_path_factory.mktemp("cli") / "hospital", cohort, broken=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, pictures):
    """A run folder made by `trueread train`, with what it printed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    done = process("train", f"folder:{pictures}", *SMALL, *QUICK, "-o", str(folder))
    assert done.returncode == 0, done.stderr
    return folder, done


class TestHelp:
    def test_help_comes_at_once(self):
        """In processor time, because the machine may be busy; torch alone would take longer. Best of three."""
        times = []
        for _ in range(3):
            before = os.times()
            done = process("--help")
            after = os.times()
            assert done.returncode == 0
            times.append(after.children_user + after.children_system - before.children_user - before.children_system)
        assert min(times) < 0.5
        assert all(f" {c} " in done.stdout for c in COMMANDS)

    def test_nothing_heavy_is_imported_for_it(self):
        code = "import sys, trueread.cli; print([m for m in ('torch', 'numpy', 'pandas', 'rich') if m in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert not set(json.loads(done.stdout.replace("'", '"'))) & {"torch", "numpy", "pandas"}

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_has_an_example(self, trueread, command):
        code, out, err = trueread(command, "--help")
        assert (code, err) == (0, "")
        assert f"trueread {command} " in out.split("Example", 1)[1]

    def test_without_arguments_the_help_is_shown(self, trueread):
        code, out, err = trueread()
        assert (code, err) == (2, "")
        assert "predict" in out

    def test_the_version(self, trueread):
        assert trueread("--version") == (0, __version__ + "\n", "")


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("trian",), "No such command 'trian'"),
            (("train",), "Missing argument 'DATA'"),
            (("list", "methdos"), "Did you mean 'methods'"),
            (("list", "methods", "--jsno"), "No such option"),
            (("run",), "say what to study"),
            (("run", "nothing.yaml"), "there is no study file nothing.yaml"),
            (("run", "--data", "phantom", "--seeds", "two"), "'--seeds'"),
            (("train", "phantm"), "'phantm' is not a source. Did you mean 'phantom'"),
            (("train", "phantom", "-m", "focal-loss"), "'focal-loss' is not a method. Did you mean 'focal'"),
            (("train", "phantom", "-s", "n_image=5"), "'n_image' is not an option here. Did you mean 'n_images'"),
            (("train", "phantom", "-s", "n_images"), "'n_images' must be KEY=VALUE, for example size=64"),
            (("train", "phantom", "-t", "epoch=5"), "'epoch' is not an option here. Did you mean 'epochs'"),
            (("train", "phantom", "-t", "seed=5"), "'seed' is not an option here"),
            (("train", "phantom", "-t", "epochs=many"), "'epochs' must be a valid integer"),
            (("train", "folder:nowhere"), "'nowhere' is not a folder"),
            (("audit", "nowhere", "phantom"), "there is no saved classifier in nowhere"),
            (("predict", "nowhere", "x.png"), "there is no saved classifier in nowhere"),
            (("report", "nowhere"), "nowhere is no finished run"),
        ],
    )
    def test_each_is_one_line_on_stderr_and_exit_code_2(self, trueread, tmp_path, monkeypatch, arguments, words):
        monkeypatch.chdir(tmp_path)
        code, out, err = trueread(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("trueread: ")
        assert err.count("\n") == 1
        assert words in err
        assert "Traceback" not in err
        assert list(tmp_path.iterdir()) == []  # nothing was begun

    def test_a_mistake_in_a_process_of_its_own(self):
        done = process("trian")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("trueread: No such command 'trian'")
        assert done.stderr.endswith("--help` says more.\n")
        assert done.stderr.count("\n") == 1

    def test_an_argument_of_the_function_is_no_option_of_the_loop(self, trueread, tmp_path):
        code, _, err = trueread("pretrain", tmp_path, "-o", tmp_path / "out", "-t", "seed=3")
        assert code == 2
        assert "'seed' is not an option" in err

    def test_debug_lets_a_known_mistake_through(self, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["trueread", "--debug", "run", "nothing.yaml"])
        monkeypatch.setenv("TRUEREAD_DEBUG", "")
        with pytest.raises(InputError, match="there is no study file"):
            cli.main()

    def test_a_file_system_that_refuses_is_no_traceback(self, trueread, monkeypatch):
        def full(*_arguments, **_options):
            raise OSError(28, "No space left on device", "/data/run/x.csv")

        monkeypatch.setattr(commands, "catalogue", full)
        code, _, err = trueread("list", "methods")
        assert code == 2
        assert err == (
            "trueread: No space left on device (/data/run/x.csv); check that path, then give the same command again: "
            "what was finished before is kept.\n"
        )

    def test_a_bug_keeps_its_traceback(self, monkeypatch):
        def bug(*_arguments, **_options):
            raise ZeroDivisionError

        monkeypatch.setattr(commands, "catalogue", bug)
        monkeypatch.setattr(sys, "argv", ["trueread", "list", "methods"])
        with pytest.raises(ZeroDivisionError):
            cli.main()

    def test_interrupted(self, trueread, monkeypatch):
        def interrupted(*_arguments, **_options):
            raise KeyboardInterrupt

        monkeypatch.setattr(commands, "catalogue", interrupted)
        code, out, err = trueread("list", "methods")
        assert (code, out) == (130, "")
        assert err == "trueread: interrupted; the same command continues where it stopped.\n"


class TestStdout:
    def test_a_list_is_pure_json_of_objects(self, trueread):
        for kind in ("methods", "audits", "shifts", "sources", "backbones"):
            code, out, _ = trueread("list", kind, "--json")
            rows = json.loads(out)
            assert code == 0
            assert all({"name", "summary", "source"} <= set(row) for row in rows)
            assert rows == commands.catalogue(kind)

    def test_a_list_for_people_has_every_name(self, trueread):
        _, out, _ = trueread("list", "methods")
        assert all(row["name"] in out for row in commands.catalogue("methods"))

    def test_training_prints_the_scorecard_and_the_model_and_talks_on_stderr(self, trained):
        folder, done = trained
        assert done.stdout.splitlines()[-1] == str(cell_folder(folder, "erm", 0) / "model")
        assert "AUROC" in done.stdout
        assert "kept epoch" not in done.stdout
        assert "kept epoch" in done.stderr
        assert "1 unreadable images are left out" in done.stderr

    def test_quiet_is_quiet(self, trueread, pictures, tmp_path):
        code, out, err = trueread("--quiet", "train", f"folder:{pictures}", *SMALL, *QUICK, "-o", tmp_path / "run")
        assert (code, err) == (0, "")
        assert "AUROC" in out

    def test_json_of_a_run_and_the_gate(self, trueread, pictures, tmp_path):
        study = tmp_path / "gate.yaml"
        study.write_text(
            f"data: {{source: 'folder:{pictures}', size: 16, patient: 'patient\\d+'}}\n"
            "train: {epochs: 1, batch_size: 24, precision: fp32, threads: 1}\naudits: performance\nresamples: 100\n"
            "explain: false\ncheck: false\nthresholds: {performance: 1.0}\n"
        )
        out_folder = tmp_path / "run"
        code, out, err = trueread("run", study, "-o", out_folder, "--json")
        summary = json.loads(out)
        assert code == 0
        assert summary == json.loads((out_folder / "summary.json").read_text())
        assert summary["title"] == "gate"
        assert err
        text = study.read_text()
        study.write_text(text.replace("performance: 1.0", "performance: 1.01"))  # no AUROC reaches it
        cases = tmp_path / "gate" / "junit.xml"
        code, out, _ = trueread("run", study, "-o", out_folder, "--gate", "--junit", cases)
        assert code == 1
        assert 'failures="1"' in cases.read_text()
        assert str(out_folder / "report.html") in out
        assert trueread("run", study, "-o", out_folder)[0] == 0  # without --gate a failed audit is no failure
        study.write_text(text.replace("performance: 1.0", "performance: 0.0"))
        code, out, _ = trueread(
            "run", study, "-o", out_folder, "--gate", "--audits", "performance,calibration", "--json"
        )
        assert code == 0
        assert [f["audit"] for f in json.loads(out)["methods"][0]["findings"]] == ["performance", "calibration"]

    def test_audit_as_json_and_the_gate(self, trueread, trained, pictures, tmp_path):
        folder, _ = trained
        data = (f"folder:{pictures}", "-s", r"patient=patient\d+", "--audits", "performance,calibration,subgroups")
        code, out, _ = trueread("audit", folder, *data, "--json")
        findings = json.loads(out)
        assert code == 0
        assert [f["audit"] for f in findings] == ["performance", "calibration", "subgroups"]
        assert findings[2]["verdict"] == "not measured"
        stored = json.loads((folder / "findings.json").read_text())["erm"][0]["measures"]["auroc"]["estimate"]
        assert findings[0]["measures"]["auroc"]["estimate"]["value"] == pytest.approx(stored["value"], abs=1e-6)
        code, out, err = trueread("audit", folder, *data, "--junit", tmp_path / "junit.xml")
        assert 'tests="3"' in (tmp_path / "junit.xml").read_text()
        assert "split: as saved in split.csv\n" in err
        assert "test images of " in err
        assert "patients; unreadable and left out: 1." in err
        assert "subgroups: not measured, because" in out
        assert f"performance: AUROC {stored['value']:.3f}" in out

    def test_the_gate_of_an_audit(self, trueread, trained, pictures, monkeypatch):
        from trueread.audit import base

        folder, _ = trained
        arguments = ("audit", folder, f"folder:{pictures}", "-s", r"patient=patient\d+", "--audits", "performance")
        monkeypatch.setattr(base, "default_thresholds", lambda: {"performance": 1.01})
        assert trueread(*arguments)[0] == 0
        assert trueread(*arguments, "--gate")[0] == 1
        monkeypatch.setattr(base, "default_thresholds", lambda: {"performance": 0.0})
        assert trueread(*arguments, "--gate")[0] == 0

    def test_a_reader_that_closes_the_pipe_sees_no_traceback(self):
        for arguments in (["--help"], ["list", "methods", "--json"]):
            reading, writing = os.pipe()
            os.close(reading)
            done = subprocess.run(
                [sys.executable, "-m", "trueread", *arguments], stdout=writing, stderr=subprocess.PIPE, timeout=60,
                check=False,
            )  # fmt: skip
            os.close(writing)
            assert done.stderr == b""
            assert done.returncode in (0, 1)


class TestPredict:
    def test_python_csv_and_json_are_the_same_numbers(self, trueread, trained, pictures, tmp_path):
        folder, _ = trained
        table = predicting.predict(folder, [pictures / "mild"])
        code, out, err = trueread("predict", folder, pictures / "mild")
        assert code == 0
        assert "file,decision,reason" not in err
        of_csv = pd.read_csv(io.StringIO(out), keep_default_na=False)
        _, out, _ = trueread("predict", folder, pictures / "mild", "--json")
        of_json = json.loads(out)
        trueread("predict", folder, pictures / "mild", "-o", tmp_path / "deep" / "p.csv")
        of_file = pd.read_csv(tmp_path / "deep" / "p.csv", keep_default_na=False)
        assert of_csv.equals(of_file)
        assert list(of_csv["file"]) == list(table["file"]) == [r["file"] for r in of_json]
        broken = table["reason"] != ""
        assert broken.sum() == 1
        for column in ("p:mild", "p:normal"):
            expected = table.loc[~broken, column].to_numpy(np.float32)
            csv = of_csv.loc[~broken, column].to_numpy(dtype=np.float64).astype(np.float32)
            as_json = np.array([r[column] for r in of_json if not r["reason"]], np.float32)
            assert csv.tobytes() == expected.tobytes()
            assert as_json.tobytes() == expected.tobytes()
        row = next(r for r in of_json if r["reason"])
        assert (row["decision"], row["p:mild"]) == (None, None)
        assert [r["decision"] for r in of_json if not r["reason"]] == list(table.loc[~broken, "decision"])

    def test_a_small_probability_keeps_its_digits_in_json(self, trueread, trained, monkeypatch):
        folder, _ = trained
        small = pd.DataFrame({"file": ["x"], "p:a": np.array([1.2345679e-7], np.float32)})
        monkeypatch.setattr(predicting, "predict", lambda *_a, **_k: small)
        _, out, _ = trueread("predict", folder, "x.png", "--json")
        assert np.float32(json.loads(out)[0]["p:a"]) == pytest.approx(1.2345679e-7, rel=1e-6)

    def test_the_rule_and_the_count_are_said_and_what_cannot_be_written(self, trueread, trained, pictures, tmp_path):
        folder, _ = trained
        (tmp_path / "file").write_text("")
        code, out, err = trueread("predict", folder, pictures / "mild", "-o", tmp_path / "p.csv")
        n = len(list((pictures / "mild").iterdir()))
        assert (code, out) == (0, "")
        assert "decision: 'normal' from a probability of 0." in err
        assert f"p.csv: {n} images, 1 not readable\n" in err
        one = next((pictures / "normal").iterdir())
        for option, place in (("-o", tmp_path / "file" / "x.csv"), ("--explain", tmp_path / "file" / "x")):
            code, out, err = trueread("predict", folder, one, option, place)
            last = err.splitlines()[-1]
            assert (code, out) == (2, "")
            assert last.startswith(f"trueread: {place} cannot be written (")
            assert last.endswith(f"give {option} a place you can write to.")

    def test_overlays(self, trueread, trained, pictures, tmp_path):
        folder, _ = trained
        whole = [p for p in sorted((pictures / "mild").iterdir()) if "patient900" not in p.name][:3]
        code, out, _ = trueread("predict", folder, *whole, "--explain", tmp_path / "overlays")
        assert code == 0
        assert len(list((tmp_path / "overlays").glob("*.png"))) == 3
        assert "evidence" in out.splitlines()[0]


class TestValues:
    @pytest.mark.parametrize(
        "text",
        [
            r"person\d+|IM-\d+", r"(?:NORMAL2-)?IM-\d+", r"^[^/]+/(\d+)", r"[A-Z]+-\d{3}", r"id: (\d+)", r"\d+ #\d",
            r"*\.png", r"&x", r"!tag", r"%x", r"(?P<patient>\d+)", "2020-01-01", "a: b", "lesion_id", "person_1", "-",
            "folder:C:\\data", "", "null-device",
        ],
    )  # fmt: skip
    def test_words_and_patterns_stay_as_they_are(self, text):
        assert pairs([f"patient={text}"]) == {"patient": text}

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("64", 64), ("0.5", 0.5), ("1e-3", "1e-3"), ("1.0e-3", 0.001), ("true", True), ("false", False),
            ("null", None), ("~", None), ("[normal,opacity]", ["normal", "opacity"]), ("[1, 2]", [1, 2]),
            ("{gamma: 1}", {"gamma": 1}), ("'64'", "64"), ('"null"', "null"), ("-3", -3),
        ],
    )  # fmt: skip
    def test_numbers_lists_and_null_are_meant(self, text, value):
        assert meant(text) == value

    def test_keys_may_be_written_with_dashes(self):
        assert pairs(["batch-size=3", "x=a=b"]) == {"batch_size": 3, "x": "a=b"}
        with pytest.raises(InputError, match="'=3' must be KEY=VALUE"):
            pairs(["=3"])

    def test_a_learning_rate_as_people_write_it(self, trueread, tmp_path, monkeypatch):
        """YAML takes 1e-3 for a word; the option is a number and reads it all the same."""
        seen = {}
        monkeypatch.setattr(commands, "train", lambda *_a, **k: seen.update(k))
        monkeypatch.setattr(cli, "_show_scorecard", lambda _folder: None)
        assert trueread("train", "phantom", "-t", "learning-rate=1e-3", "-o", tmp_path)[0] == 0
        from trueread.training.config import TrainConfig

        assert TrainConfig(learning_rate=seen["learning_rate"]).learning_rate == 0.001

    def test_options_reach_the_data_source(self, trueread, monkeypatch):
        asked = {}

        def stop(source, **options):
            asked.update(source=source, **options)
            raise InputError("enough.")

        monkeypatch.setattr(runner, "load_cohort", stop)
        options = (r"patient=person\d+|IM-\d+", "classes=[normal,opacity]", "size=64")
        trueread("train", "folder:x", *(part for option in options for part in ("-s", option)))
        assert asked == {
            "source": "folder:x", "patient": r"person\d+|IM-\d+", "classes": ["normal", "opacity"], "size": 64,
        }  # fmt: skip

    def test_the_command_line_goes_over_the_study_file(self, trueread, tmp_path, monkeypatch):
        seen = {}

        def stop(content, **_options):
            seen.update(content)
            raise InputError("enough.")

        monkeypatch.setattr(commands, "run", stop)
        study = tmp_path / "a.yaml"
        train = "train: {epochs: 3, batch_size: 32}"
        study.write_text(f"data: {{source: phantom, size: 28, n_images: 500}}\n{train}\nseeds: 2\n")
        trueread("run", study, "-s", "n_images=100", "-t", "epochs=1", "-m", "erm", "-m", "focal", "--seeds", "3")
        assert seen["data"] == {"source": "phantom", "size": 28, "n_images": 100}
        assert seen["train"] == {"epochs": 1, "batch_size": 32}
        assert (seen["methods"], seen["seeds"], seen["name"]) == (["erm", "focal"], 3, "a")
        trueread("run", "--data", "csv:a+b.csv")
        assert seen["name"] == "csv-a-b.csv"


class TestRecord:
    def test_the_command_is_kept_without_the_folders_of_its_maker(self, tmp_path):
        (tmp_path / "xrays").mkdir()
        typed = ["run", "--data", f"folder:{tmp_path}/xrays", f"--out={tmp_path}/run", "-s", f"root={tmp_path}",
                 "-s", r"patient=/(\d+)/", "-m", "erm+mixup"]  # fmt: skip
        kept = typed_command(typed)
        assert kept == (
            f"trueread run --data folder:xrays --out=run -s root={tmp_path.name} -s 'patient=/(\\d+)/' -m erm+mixup"
        )

    def test_relative_paths_are_kept(self):
        assert typed_command(["run", "studies/a.yaml", "-o", "runs/a b"]) == "trueread run studies/a.yaml -o 'runs/a b'"

    def test_it_stands_in_the_report(self, trained):
        folder, _ = trained
        command = json.loads((folder / "summary.json").read_text())["command"]
        assert command.startswith("trueread train folder:hospital -s size=16 ")
        assert str(folder.parent) not in (folder / "report.html").read_text()


@pytest.mark.parametrize(("rank", "wrote"), [("0", True), ("1", False)])
def test_of_several_processes_one_checks(pictures, tmp_path, monkeypatch, rank, wrote):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    done = process("check", f"folder:{pictures}", *SMALL, "--only", "unreadable", "-o", str(tmp_path / "c"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "c" / "check.json").is_file() == wrote
    assert bool(done.stdout) == wrote
    assert bool(done.stderr) == wrote


QUICKSTART = Path(__file__).resolve().parents[1] / "studies" / "quickstart.yaml"


@pytest.mark.slow
def test_the_quickstart_runs_from_a_fresh_folder(tmp_path):
    done = process(
        "run", str(QUICKSTART), "-t", "epochs=1", "-s", "n_images=200", "-t", "precision=fp32", "-t", "threads=1",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "quickstart"
    assert done.stdout.splitlines()[-1] == str(Path("runs") / "quickstart" / "report.html")
    summary = json.loads((folder / "summary.json").read_text())
    assert [m["name"] for m in summary["methods"]] == ["erm", "class-weights", "mixup"]
    assert all(m["seeds"] == [0, 1] for m in summary["methods"])
    assert (folder / "report.html").stat().st_size < 5_000_000
    assert summary["cohort"]["images"] == 200
