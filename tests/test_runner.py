"""A study from its data to its page: what is written, what is kept, what is refused, and that nothing is lost."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as sk
import torch

from tiny_runs import TRAIN, tiny_study, with_sites, write_pictures
from trueread import commands, runner
from trueread.cells import cell_folder
from trueread.cohort.split import assign_splits, save_split
from trueread.errors import InputError
from trueread.method.base import METHODS, Method
from trueread.model.card import read_card
from trueread.model.classifier import Classifier
from trueread.options import validate
from trueread.runner import run_study
from trueread.study import Study, load_study
from trueread.training import loop

pytestmark = pytest.mark.usefixtures("quiet_and_on_one_thread")

PATIENT = r"patient\d+"


@pytest.fixture
def no_page(monkeypatch):
    """Leave the report out, which takes longer than the training and has tests of its own."""
    monkeypatch.setattr(runner, "write_report", lambda _folder: None)
    monkeypatch.setattr(runner, "write_model_card", lambda _folder, _name: None)


def must_not(what: str):
    """A stand-in for something that must not happen here."""

    def never(*_arguments, **_options):
        pytest.fail(what)

    return never


@pytest.fixture
def trained(monkeypatch):
    """The names of the cells that are trained, in order."""
    calls: list[str] = []

    def counting(*args, what: str, **kwargs):
        calls.append(what)
        return loop.fit(*args, what=what, **kwargs)

    monkeypatch.setattr(runner, "fit", counting)
    return calls


def run(folder: Path, cohort=None, **changed) -> Path:
    return commands.run(tiny_study(**changed), out=folder, cohort=cohort or with_sites())


def findings_of(folder: Path) -> dict:
    """findings.json without how long it took."""
    found = json.loads((folder / "findings.json").read_text())
    for findings in found.values():
        for finding in findings:
            del finding["seconds"]
    return found


def summary_of(folder: Path) -> dict:
    """summary.json without when, where and how long."""
    summary = json.loads((folder / "summary.json").read_text())
    for key in ("date", "seconds", "environment", "command"):
        del summary[key]
    for method in summary["methods"]:
        for finding in method["findings"]:
            del finding["seconds"]
    return summary


def without_timing(folder: Path) -> dict:
    """The same for a run that was trained anew, whose epochs took another time."""
    summary = summary_of(folder)
    for method in summary["methods"]:
        del method["seconds"], method["histories"], method["card"]["training"]["seconds"]
    return summary


def weights_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("weights.safetensors")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole run on files, two of them broken: two methods, two seeds, one epoch, with its page."""
    root = tmp_path_factory.mktemp("whole")
    pictures = write_pictures(root / "hospital", broken=2)
    study = tiny_study(
        data={"source": f"folder:{pictures}", "size": 16, "patient": PATIENT}, methods=["erm", "class-weights"],
        seeds=2, explain=True, audits="all", check=True,
    )  # fmt: skip
    return commands.run(study, out=root / "run", command="trueread run tiny.yaml")


class TestWhatIsWritten:
    def test_every_file_that_a_run_promises(self, whole):
        for name in ("study.yaml", "split.csv", "history.csv", "findings.json", "metrics.csv", "report.html",
                     "environment.json", "summary.json", "omitted.csv", "model_card-erm.md", "check.html",
                     "check.json"):  # fmt: skip
            assert (whole / name).stat().st_size > 50, name
        assert (whole / "report.html").stat().st_size < 5_000_000
        assert list((whole / "figures").rglob("*.png"))
        for method in ("erm", "class-weights"):
            for seed in (0, 1):
                cell = whole / "methods" / method / f"seed-{seed}"
                assert {p.name for p in cell.iterdir()} == {"model", "history.csv", "predictions.csv", "method.json"}
                assert {p.name for p in (cell / "model").iterdir()} == {
                    "card.json",
                    "typical.safetensors",
                    "weights.safetensors",
                }
        assert not list(whole.rglob("*.part"))
        assert not list(whole.rglob("*.partial"))

    def test_the_numbers_are_those_of_the_stored_predictions(self, whole):
        """From predictions.csv alone, with scikit-learn, to the headline of every method."""
        findings = json.loads((whole / "findings.json").read_text())
        metrics = pd.read_csv(whole / "metrics.csv").set_index(["method", "audit", "measure"])
        for method in ("erm", "class-weights"):
            aurocs, accuracies = [], []
            for seed in (0, 1):
                cell = cell_folder(whole, method, seed)
                test = pd.read_csv(cell / "predictions.csv").query("split == 'test'")
                cut = json.loads((cell / "model" / "card.json").read_text())["threshold"]
                positive = test["label"] == "normal"  # alphabetical: mild, normal
                aurocs.append(sk.roc_auc_score(positive, test["p:normal"]))
                accuracies.append(sk.balanced_accuracy_score(positive, test["p:normal"] >= cut))
            measures = next(f for f in findings[method] if f["audit"] == "performance")["measures"]
            for key, values in (("auroc", aurocs), ("balanced-accuracy", accuracies)):
                estimate = measures[key]["estimate"]
                assert estimate["value"] == pytest.approx(np.mean(values), abs=1e-6)
                assert estimate["spread"] == pytest.approx(np.std(values, ddof=1), abs=1e-6)
                row = metrics.loc[(method, "performance", key)]
                assert (row["value"], row["n_seeds"]) == (pytest.approx(estimate["value"]), 2)
                assert (row["n_images"], row["n_patients"]) == (estimate["n"], estimate["n_clusters"])
        summary = json.loads((whole / "summary.json").read_text())
        assert {m["name"]: m["findings"] for m in summary["methods"]} == findings

    def test_the_baseline_is_the_first_and_the_others_are_compared_with_it(self, whole):
        summary = json.loads((whole / "summary.json").read_text())
        assert [m["baseline"] for m in summary["methods"]] == [True, False]
        value = {m["name"]: m["findings"][0]["measures"]["auroc"]["estimate"]["value"] for m in summary["methods"]}
        difference = next(d for d in summary["differences"] if d["measure"] == "auroc")
        assert (difference["method"], difference["baseline"]) == ("class-weights", "erm")
        assert difference["difference"]["value"] == pytest.approx(value["class-weights"] - value["erm"], abs=1e-9)

    def test_nobody_is_on_both_sides_and_only_val_and_test_are_predicted(self, whole):
        split = pd.read_csv(whole / "split.csv")
        assert split.groupby("patient")["split"].nunique().max() == 1
        assert set(split["split"]) == {"train", "val", "test"}
        predicted = pd.read_csv(cell_folder(whole, "erm", 0) / "predictions.csv")
        expected = split[split["split"] != "train"].set_index("id")["split"]
        assert predicted.set_index("id")["split"].to_dict() == expected.to_dict()

    def test_broken_images_are_counted_listed_and_left_out(self, whole):
        facts = json.loads((whole / "summary.json").read_text())["cohort"]
        assert (facts["images"], facts["n_omitted"], len(facts["omitted"])) == (120, 2, 2)
        omitted = pd.read_csv(whole / "omitted.csv")
        assert sorted(Path(p).name for p in omitted["path"]) == ["patient900-scan900.png", "patient901-scan901.png"]
        assert omitted["reason"].str.len().min() > 5
        assert "2 images could not be read" in (whole / "report.html").read_text()

    def test_what_is_shown_to_others_names_no_patient_no_image_and_no_folder(self, whole):
        shared = ["summary.json", "report.html", "findings.json", "metrics.csv", "environment.json", "check.html",
                  "check.json"]  # fmt: skip
        for path in (*(whole / name for name in shared), *whole.glob("model_card-*.md")):
            text = path.read_text()
            assert not re.search(r"patient\d|scan\d", text), path.name
            assert str(whole.parent) not in text, path.name
            assert str(Path.home()) + "/" not in text, path.name
        for picture in whole.glob("figures/**/*"):
            assert not re.search(r"patient\d|scan\d", picture.name)
        assert json.loads((whole / "summary.json").read_text())["cohort"]["source"] == "folder:hospital"

    def test_the_resolved_study_is_the_study(self, whole):
        again = load_study(whole / "study.yaml")
        assert (again.name, [m.title for m in again.methods], again.seeds) == ("tiny", ["erm", "class-weights"], [0, 1])
        assert again.data.options == {"size": 16, "patient": PATIENT}
        assert again.train.epochs == 1

    def test_history_has_every_epoch_of_every_cell(self, whole):
        history = pd.read_csv(whole / "history.csv")
        cells = history.groupby(["method", "seed"])
        assert len(cells) == 4
        assert cells["selected"].sum().tolist() == [1] * 4
        assert history["train_loss"].notna().all()
        summary = json.loads((whole / "summary.json").read_text())
        for method in summary["methods"]:
            assert method["seconds"] == pytest.approx(
                history.loc[history["method"] == method["name"], "seconds"].sum(), abs=0.11
            )

    def test_the_environment_says_what_ran_and_how(self, whole):
        facts = json.loads((whole / "environment.json").read_text())
        assert (facts["torch"], facts["precision"], facts["threads"]) == (version("torch"), "fp32", 1)
        assert facts == json.loads((whole / "summary.json").read_text())["environment"]

    def test_a_second_run_trains_nothing_and_says_the_same(self, whole, monkeypatch):
        findings, summary, weights = findings_of(whole), summary_of(whole), weights_of(whole)
        monkeypatch.setattr(runner, "fit", must_not("trained again"))
        commands.run(load_study(whole / "study.yaml"), out=whole, command="trueread run tiny.yaml")
        assert findings_of(whole) == findings
        assert summary_of(whole) == summary
        assert weights_of(whole) == weights


@pytest.mark.usefixtures("no_page")
class TestResume:
    @pytest.fixture
    def uninterrupted(self, tmp_path, no_page):
        return run(tmp_path / "uninterrupted", methods=["erm", "mixup"], train={**TRAIN, "epochs": 2, "augment": "any"})

    @pytest.mark.parametrize("at", [1, 2, 3, "predictions"])
    def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(self, tmp_path, uninterrupted, monkeypatch, at):
        """In the first cell's second epoch, in the second cell's first and second one, and after all its training."""
        place, name = (runner, "predict_probabilities") if at == "predictions" else (loop._Run, "_validate")
        real, calls = getattr(place, name), []

        def interrupting(*arguments, **options):
            calls.append(1)
            if len(calls) == (2 if at == "predictions" else at + 1):
                raise KeyboardInterrupt
            return real(*arguments, **options)

        options = {"methods": ["erm", "mixup"], "train": {**TRAIN, "epochs": 2, "augment": "any"}}
        folder = tmp_path / "interrupted"
        monkeypatch.setattr(place, name, interrupting)
        with pytest.raises(KeyboardInterrupt):
            run(folder, **options)
        monkeypatch.setattr(place, name, real)
        assert not (folder / "summary.json").exists()
        run(folder, **options)
        assert weights_of(folder) == weights_of(uninterrupted)
        assert findings_of(folder) == findings_of(uninterrupted)
        assert without_timing(folder) == without_timing(uninterrupted)
        timing = ["seconds", "images_per_second"]
        histories = [pd.read_csv(f / "history.csv").drop(columns=timing) for f in (folder, uninterrupted)]
        pd.testing.assert_frame_equal(*histories, check_exact=True)
        assert not list(folder.rglob("*.pt"))

    def test_a_method_or_a_seed_added_later_trains_only_its_own_cells(self, tmp_path, trained):
        run(tmp_path, methods=["erm"])
        before = (cell_folder(tmp_path, "erm", 0) / "predictions.csv").read_bytes()
        first = findings_of(tmp_path)["erm"]
        run(tmp_path, methods=["erm", "mixup"])
        assert trained == ["erm, seed 0", "mixup, seed 0"]
        assert findings_of(tmp_path)["erm"] == first
        run(tmp_path, methods=["erm", "mixup"], seeds=2)
        assert trained[2:] == ["erm, seed 1", "mixup, seed 1"]
        assert (cell_folder(tmp_path, "erm", 0) / "predictions.csv").read_bytes() == before

    def test_seeds_differ_and_methods_share_their_start(self, tmp_path):
        folder = run(tmp_path, seeds=2)
        first, second = (Classifier.load(cell_folder(folder, "erm", s) / "model").state_dict() for s in (0, 1))
        assert any(not torch.equal(v, second[k]) for k, v in first.items())

    def test_other_audits_thresholds_and_resamples_train_nothing(self, tmp_path, trained):
        run(tmp_path)
        run(tmp_path, audits=["performance"], thresholds={"performance": 0.99}, resamples=200, description="again")
        assert trained == ["erm, seed 0"]
        assert [f["audit"] for f in findings_of(tmp_path)["erm"]] == ["performance"]
        assert findings_of(tmp_path)["erm"][0]["threshold"] == 0.99

    def test_what_was_found_of_its_maps_goes_into_the_cards(self, tmp_path, trained, monkeypatch):
        """Of the network's last map, and again when it is asked again."""
        cards = [cell_folder(tmp_path, "erm", seed) / "model" for seed in (0, 1)]
        run(tmp_path, seeds=2, audits=["performance", {"name": "localisation", "images": 8, "layer": "stage3"}])
        assert [read_card(card).maps for card in cards] == [None, None]
        for steady in (-1.0, 1.1):  # from which rank correlation on, under noise, maps are steady
            monkeypatch.setattr("trueread.audit.localisation.STEADY", steady)
            run(tmp_path, seeds=2, audits=["performance", {"name": "localisation", "images": 8}])
            notes = findings_of(tmp_path)["erm"][1]["notes"]
            for maps in (read_card(card).maps for card in cards):
                assert maps is not None
                assert maps.how == "grad-cam"
                assert maps.warnings == [n for n in notes if n.startswith("Warning")]
                assert any("under noise" in w for w in maps.warnings) == (steady > 1)
        assert trained == ["erm, seed 0", "erm, seed 1"]

    def test_where_it_runs_may_change(self, tmp_path, trained):
        run(tmp_path)
        run(tmp_path, train={**TRAIN, "device": "auto", "threads": None})
        assert trained == ["erm, seed 0"]


@pytest.mark.usefixtures("no_page")
class TestRefused:
    def refusal(self, folder: Path, cohort=None, **changed) -> str:
        """What a run in this folder says, which leaves everything there as it was."""
        before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        with pytest.raises(InputError) as error:
            run(folder, cohort, **changed)
        assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
        assert "\n" not in str(error.value)
        return str(error.value)

    @pytest.mark.parametrize(
        ("key", "changed"),
        [
            ("train", {"train": {**TRAIN, "epochs": 2}}),
            ("data", {"data": {"source": "tiny-binary", "size": 32}}),
            ("split", {"split": {"seed": 5}}),
            ("name", {"name": "other"}),
        ],
    )
    def test_another_study_in_the_same_folder(self, tmp_path, key, changed):
        run(tmp_path)
        words = self.refusal(tmp_path, **changed)
        assert f"holds a run of another study (its '{key}' differs)" in words
        assert "--out" in words

    def test_a_finished_training_of_other_options_is_not_passed_off_as_this_one(self, tmp_path):
        run(tmp_path, methods=[{"name": "focal", "gamma": 1.0}])
        words = self.refusal(tmp_path, methods=[{"name": "focal", "gamma": 3.0}])
        assert "finished training of 'focal' with other options" in words
        run(tmp_path, methods=[{"name": "focal", "gamma": 1.0}, {"name": "focal", "gamma": 3.0, "label": "focal 3"}])
        assert set(findings_of(tmp_path)) == {"focal", "focal 3"}
        assert "with other name" in self.refusal(tmp_path, methods=[{"name": "erm", "label": "focal"}])

    def test_a_stale_training_is_found_before_a_new_one_starts(self, tmp_path, trained):
        run(tmp_path, methods=[{"name": "focal", "gamma": 1.0}])
        self.refusal(tmp_path, methods=["erm", {"name": "focal", "gamma": 3.0}])
        assert trained == ["focal, seed 0"]

    def test_other_data_under_the_same_name(self, tmp_path):
        """The files were replaced, or the cohort was made anew in Python: the ids are the same, the images are not."""
        cohort = with_sites()
        run(tmp_path, cohort)
        other = dataclasses.replace(cohort, images=255 - cohort.images)
        assert "with other data" in self.refusal(tmp_path, other)
        relabelled = dataclasses.replace(cohort, labels=1 - cohort.labels)
        assert "with other data" in self.refusal(tmp_path, relabelled)

    def test_an_image_that_moved_from_validation_to_test(self, tmp_path):
        """The selection has seen it: it is no test image of this classifier."""
        run(tmp_path)
        split = pd.read_csv(tmp_path / "split.csv")
        moved = split.loc[split["split"] == "val", "patient"].iloc[0]
        split.loc[split["patient"] == moved, "split"] = "test"
        split.to_csv(tmp_path / "split.csv", index=False)
        words = self.refusal(tmp_path)
        assert "is in test now and was not when" in words

    def test_an_image_that_moved_from_train_to_test(self, tmp_path):
        run(tmp_path)
        split = pd.read_csv(tmp_path / "split.csv")
        moved = split.loc[split["split"] == "train", "patient"].iloc[0]
        split.loc[split["patient"] == moved, "split"] = "test"
        split.to_csv(tmp_path / "split.csv", index=False)
        assert "is in test now and was not when" in self.refusal(tmp_path)

    @pytest.mark.parametrize(
        ("changed", "words"),
        [
            ({"thresholds": {"perfomance": 0.9}}, "'perfomance' is not an audit. Did you mean 'performance'"),
            ({"methods": ["focal-loss"]}, "'focal-loss' is not a method. Did you mean 'focal'"),
            ({"methods": [{"name": "focal", "gama": 1}]}, "method 'focal': 'gama' is not an option here"),
            ({"audits": ["calibration", {"name": "calibration", "bins": 5}]}, "asked twice"),
            ({"audits": [{"name": "calibration", "bin": 5}]}, "audit 'calibration': 'bin' is not an option here"),
        ],
    )
    def test_mistakes_in_names_do_not_wait_for_the_data(self, tmp_path, monkeypatch, changed, words):
        monkeypatch.setattr(runner, "load_cohort", must_not("data were loaded"))
        with pytest.raises(InputError) as error:
            commands.run(tiny_study(**changed), out=tmp_path / "run")
        assert words in str(error.value)
        assert not (tmp_path / "run").exists()

    def test_a_data_option_that_the_source_does_not_take(self, tmp_path):
        with pytest.raises(
            InputError, match=r"source 'phantom': 'n_image' is not an option here\. Did you mean 'n_images'"
        ):
            commands.run(tiny_study(data={"source": "phantom", "n_image": 100}), out=tmp_path)

    def test_a_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match="cannot be made"):
            run(tmp_path / "file" / "run")


@pytest.mark.usefixtures("no_page")
class TestSplit:
    def test_a_split_that_was_saved_is_used_again(self, tmp_path):
        cohort = with_sites()
        own = assign_splits(cohort, val=0.3, test=0.3, seed=9)
        save_split(own, tmp_path / "mine.csv")
        run(tmp_path / "by-file", cohort, split={"file": str(tmp_path / "mine.csv")})
        (tmp_path / "earlier").mkdir()
        shutil.copy(tmp_path / "mine.csv", tmp_path / "earlier" / "split.csv")
        run(tmp_path / "earlier", cohort)
        for folder in ("by-file", "earlier"):
            used = pd.read_csv(tmp_path / folder / "split.csv")
            assert used["split"].tolist() == own.table["split"].tolist()
            facts = json.loads((tmp_path / folder / "summary.json").read_text())["cohort"]["split"]
            assert facts["how"].startswith("as saved in ")
            assert str(tmp_path) not in facts["how"]
            assert facts["test"]["images"] == len(own.rows("test"))
            assert facts["test"]["patients"] == own.table.loc[own.rows("test"), "patient"].nunique()

    def test_its_seed_makes_another_split(self, tmp_path):
        a, b = (run(tmp_path / str(s), split={"seed": s}) for s in (0, 1))
        assert not pd.read_csv(a / "split.csv")["split"].equals(pd.read_csv(b / "split.csv")["split"])

    def test_a_patient_in_two_splits_is_refused(self, tmp_path):
        cohort = with_sites()
        save_split(assign_splits(cohort), tmp_path / "split.csv")
        split = pd.read_csv(tmp_path / "split.csv")
        twice = split.index[(split["split"] == "train") & split["patient"].duplicated()][0]
        split.loc[twice, "split"] = "test"
        split.to_csv(tmp_path / "split.csv", index=False)
        with pytest.raises(InputError, match=f"patient '{split['patient'][twice]}' is in test and in train"):
            run(tmp_path / "run", cohort, split={"file": str(tmp_path / "split.csv")})

    def test_without_validation_the_last_epoch_is_kept_and_nothing_is_calibrated(self, tmp_path):
        cohort = with_sites()
        save_split(assign_splits(cohort, val=0, test=0.3), tmp_path / "two.csv")
        options = {"split": {"file": str(tmp_path / "two.csv")}, "audits": ["performance", "calibration"]}
        with pytest.raises(InputError, match="no validation split to select by"):
            run(tmp_path / "select", cohort, **options)
        folder = run(tmp_path / "last", cohort, train={**TRAIN, "select": "last"}, **options)
        card = json.loads((cell_folder(folder, "erm", 0) / "model" / "card.json").read_text())
        assert (card["temperature"], card["threshold"]) == (1.0, None)

    def test_test_labels_decide_nothing(self, tmp_path):
        """With every test label turned round, weights, threshold and temperature are the same; the AUROC is not."""
        cohort = assign_splits(with_sites(), test=0.3)
        labels = cohort.labels.copy()
        labels[cohort.rows("test")] = 1 - labels[cohort.rows("test")]
        folders = [
            run(tmp_path / name, c, train={**TRAIN, "epochs": 2})
            for name, c in (("true", cohort), ("turned", dataclasses.replace(cohort, labels=labels)))
        ]
        assert weights_of(folders[0]) == weights_of(folders[1])
        cards = [json.loads((cell_folder(f, "erm", 0) / "model" / "card.json").read_text()) for f in folders]
        for key in ("threshold", "temperature", "mean", "std"):
            assert cards[0][key] == cards[1][key]
        assert cards[0]["training"]["selected_epoch"] == cards[1]["training"]["selected_epoch"]
        true, turned = (findings_of(f)["erm"][0]["measures"]["auroc"]["estimate"]["value"] for f in folders)
        assert true + turned == pytest.approx(1)
        assert true > 0.6


@pytest.mark.usefixtures("no_page")
class TestMethodsReport:
    def test_a_report_that_is_not_json_costs_no_training(self, tmp_path, monkeypatch):
        class Talkative(Method):
            """Says odd things."""

            def report(self):
                return {
                    "rate": float("nan"), "tensor": torch.tensor([1.0, float("inf")]), "n": np.int64(3),
                    "path": Path("x"), "by class": {0: np.float32(0.5)},
                }  # fmt: skip

        METHODS.entries()
        monkeypatch.setattr(METHODS, "_entries", dict(METHODS._entries))
        METHODS.register("talkative")(Talkative)
        folder = run(tmp_path, methods=["talkative"])
        report = json.loads((folder / "summary.json").read_text())["methods"][0]["report"]
        assert report == {"rate": None, "tensor": [1.0, None], "n": 3, "path": "x", "by class": {"0": 0.5}}


@pytest.mark.usefixtures("no_page")
def test_run_study_takes_a_study_and_names_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = run_study(validate(Study, tiny_study(), where="x"), cohort=with_sites())
    assert folder == Path("runs") / "tiny"
    assert (tmp_path / "runs" / "tiny" / "summary.json").is_file()
