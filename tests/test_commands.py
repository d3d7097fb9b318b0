"""The commands as functions: what is audited is what was held out, and what is predicted is what was audited."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as sk
import torch
from PIL import Image

from tiny import Foreign, tiny_cohort
from tiny_runs import TRAIN, tiny_study, with_sites
from trueread import commands
from trueread.audit.finding import Verdict
from trueread.cells import cell_folder
from trueread.cohort.split import assign_splits, save_split
from trueread.commands import find_model
from trueread.errors import InputError
from trueread.model.classifier import Classifier
from trueread.model.predictor import ProbabilityFunction, check_fits
from trueread.progress import set_quiet

pytestmark = pytest.mark.usefixtures("quiet_and_on_one_thread")


def headline(findings, audit: str = "performance"):
    return next(f for f in findings if f.audit == audit).headline.estimate


@pytest.fixture(scope="module")
def memorised(tmp_path_factory):
    """A run on a table whose test labels are half wrong: what it learned shows on its training images alone."""
    root = tmp_path_factory.mktemp("memorised")
    cohort = assign_splits(with_sites(), test=0.3)
    rows = cohort.rows("test")
    labels = cohort.labels.copy()
    labels[rows[::2]] = 1 - labels[rows[::2]]
    files = [f"{name}.png" for name in cohort.table["id"]]
    for image, name in zip(cohort.images, files, strict=True):
        Image.fromarray(image[0]).save(root / name)
    table = cohort.table[["patient", "site"]].assign(image=files, label=[cohort.classes[k] for k in labels])
    table.to_csv(root / "labels.csv", index=False)
    saved = dataclasses.replace(cohort, table=cohort.table.assign(id=files))
    save_split(saved, root / "mine.csv")
    study = tiny_study(
        data={"source": f"csv:{root / 'labels.csv'}", "size": 16}, split={"file": str(root / "mine.csv")},
        audits=["performance", "calibration"], train={**TRAIN, "epochs": 2},
    )  # fmt: skip
    return commands.run(study, out=root / "run"), root


class TestAudit:
    def test_a_run_is_asked_about_its_own_test_images(self, memorised):
        folder, root = memorised
        findings = commands.audit(folder, f"csv:{root / 'labels.csv'}", audits="performance,calibration", resamples=100)
        stored = json.loads((folder / "findings.json").read_text())["erm"]
        for finding, of_run in zip(findings, stored, strict=True):
            for key, measure in finding.measures.items():
                expected = of_run["measures"][key]["estimate"]
                assert measure.estimate.value == pytest.approx(expected["value"], abs=1e-6)
                assert measure.estimate.n == expected["n"]
        assert headline(findings).value < 0.75  # the training images would be near 1

    def test_without_its_split_beside_it_all_images_are_asked_and_a_warning_says_so(self, memorised, tmp_path, capsys):
        folder, root = memorised
        alone = tmp_path / "model"
        shutil.copytree(cell_folder(folder, "erm", 0) / "model", alone)
        set_quiet(False)
        findings = commands.audit(alone, f"csv:{root / 'labels.csv'}", audits="performance")
        set_quiet(True)
        assert headline(findings).n == 120
        assert headline(findings).value > 0.75
        assert "the numbers below include its training images" in capsys.readouterr().err

    def test_other_data_are_asked_whole_unless_they_have_a_split(self, memorised):
        folder, _ = memorised
        other = tiny_cohort(n=90, seed=5)
        other = dataclasses.replace(other, classes=("mild", "normal"), labels=1 - other.labels)
        assert headline(commands.audit(folder, other, audits="performance")).n == len(other.rows("test"))
        whole = other.with_split([""] * 90)
        assert headline(commands.audit(folder, whole, audits="performance")).n == 90

    def test_the_split_is_found_again_at_another_size_and_with_more_images(self, memorised, tmp_path, capsys):
        """The digest is another then, and the training images would be asked about."""
        folder, root = memorised
        model = Classifier.load(find_model(folder))
        cohort = commands.load_like(model, f"csv:{root / 'labels.csv'}", {})
        saved = pd.read_csv(root / "mine.csv").set_index("id")["split"]
        n_test = int((saved == "test").sum())
        set_quiet(False)
        less = headline(commands.audit(folder, cohort.subset(np.arange(1, 120)), audits="performance"))
        assert less.n == n_test - (saved[cohort.table["id"].iloc[0]] == "test")
        assert less.value < 0.75
        assert "split: as saved in split.csv for 119 of 119 images" in capsys.readouterr().err
        set_quiet(True)
        official = cohort.subset(np.arange(119)).with_split(["test"] * 119)
        assert headline(commands.audit(folder, official, audits="performance")).value < 0.75
        new = cohort.table["id"].where(cohort.table.index >= 6, "new-" + cohort.table["id"])
        renamed = dataclasses.replace(cohort, table=cohort.table.assign(id=new))
        assert headline(commands.audit(folder, renamed, audits="performance")).n == n_test

    def test_columns_of_labels_and_the_white_of_the_model(self, memorised, tmp_path):
        model = Classifier.load(find_model(memorised[0]))
        model.card.white = 4095
        Image.fromarray(np.full((16, 16), 4000, np.uint16)).save(tmp_path / "a.png")
        (tmp_path / "l.csv").write_text("image,mild,normal\na.png,1,0\n")
        cohort = commands.load_like(model, f"csv:{tmp_path / 'l.csv'}", {"labels": ["mild", "normal"]})
        assert (cohort.task, cohort.classes, cohort.white) == ("multilabel", ("mild", "normal"), 4095)

    @pytest.mark.parametrize(
        ("of_model", "of_cohort", "fits"),
        [
            (4095, 65535, False), (4095, 255, False), (65535, 4095, False), (4095, 4095, True), (255, 65535, True),
            (65535, 255, True), (255, 4095, True),
        ],
    )  # fmt: skip
    def test_the_white_level_has_to_be_that_of_the_model(self, of_model, of_cohort, fits):
        cohort = tiny_cohort(n=30, white=of_cohort)
        made = Classifier.wrap(TestForeignModels.Pixel(), classes=cohort.classes, size=(16, 16), channels=1)
        made.card.white = of_model
        if fits:
            check_fits(made, cohort)
            return
        with pytest.raises(
            InputError, match=rf"differ in white: .* has {of_model}, .* {of_cohort}; .*white={of_model}"
        ):
            check_fits(made, cohort)

    def test_what_it_finds_is_written(self, memorised, tmp_path):
        folder, root = memorised
        findings = commands.audit(folder, f"csv:{root / 'labels.csv'}", audits="performance", out=tmp_path / "a" / "b")
        stored = json.loads((tmp_path / "a" / "b" / "findings.json").read_text())["erm"]
        assert stored == [f.to_json() for f in findings]
        metrics = pd.read_csv(tmp_path / "a" / "b" / "metrics.csv").set_index("measure")
        assert metrics["value"]["auroc"] == pytest.approx(headline(findings).value)

    def test_thresholds_of_the_caller(self, memorised):
        folder, root = memorised
        for threshold, verdict in ((0.0, Verdict.PASS), (1.0, Verdict.FAIL), (None, Verdict.NO_THRESHOLD)):
            found = commands.audit(
                folder, f"csv:{root / 'labels.csv'}", audits="performance", thresholds={"performance": threshold}
            )
            assert found[0].verdict is verdict

    def test_every_site_of_the_table_is_a_group(self, memorised):
        folder, root = memorised
        asked = [{"name": "subgroups", "minimum_patients_per_class": 1}]
        table = commands.audit(folder, f"csv:{root / 'labels.csv'}", audits=asked)[0].tables["Per group"]
        assert list(table["group"]) == ["A", "B"]

    @pytest.mark.parametrize(
        ("changed", "words"),
        [
            ({"classes": ("a", "b")}, r"classes: the model has \['mild', 'normal'\], the cohort \['a', 'b'\]"),
            ({"images": np.zeros((90, 3, 16, 16), np.uint8)}, "differ in channels: the model has 1, the cohort 3"),
            ({"images": np.zeros((90, 1, 20, 20), np.uint8)}, r"size: the model has \[16, 16\], .* \[20, 20\]"),
        ],
    )
    def test_a_cohort_that_does_not_fit_is_refused(self, memorised, changed, words):
        other = dataclasses.replace(tiny_cohort(n=90), classes=("mild", "normal"))
        with pytest.raises(InputError, match=words):
            commands.audit(memorised[0], dataclasses.replace(other, **changed))


class TestForeignModels:
    """A reader of one pixel, trained by nobody here, and asked as a network and as a function."""

    class Pixel(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            grey = images[:, 0, 3, 3]
            return torch.stack([-grey, grey], dim=1)

    def cohort(self):
        return tiny_cohort(n=200, share=0.2)

    def test_a_network_and_the_same_as_a_function_give_the_same_numbers_and_sklearns(self):
        cohort = self.cohort()
        facts = {"classes": cohort.classes, "size": (16, 16), "channels": 1}
        wrapped = Classifier.wrap(self.Pixel(), **facts)

        def probabilities(images: np.ndarray) -> np.ndarray:
            return torch.softmax(self.Pixel()(torch.from_numpy(images)), 1).numpy()

        of_network = commands.audit(wrapped, cohort, audits=["performance", "calibration"])
        of_function = commands.audit(
            ProbabilityFunction(probabilities, **facts), cohort, audits=["performance", "calibration"]
        )
        rows = cohort.rows("test")
        expected = sk.roc_auc_score(cohort.labels[rows], cohort.images[rows, 0, 3, 3])
        assert headline(of_network).value == pytest.approx(expected)
        assert expected > 0.9
        for a, b in zip(of_network, of_function, strict=True):
            for key, measure in a.measures.items():
                assert measure.estimate.value == pytest.approx(b.measures[key].estimate.value, abs=1e-6)

    def test_its_own_normalisation_is_applied_to_images_in_0_to_1(self):
        """A network that wants (x - 0.3) / 0.1 and would answer nonsense to grey levels."""

        class Wants(torch.nn.Module):
            def forward(self, images: torch.Tensor) -> torch.Tensor:
                assert images.abs().max() < 8
                signal = images[:, 0, 2:7, 2:7].mean((1, 2))
                return torch.stack([1 - signal, signal - 1], dim=1)

        cohort = self.cohort()
        made = Classifier.wrap(Wants(), classes=cohort.classes, size=(16, 16), channels=1, mean=[0.3], std=[0.1])
        found = commands.audit(made, cohort, audits="performance")[0]
        assert found.headline.estimate.value > 0.99
        assert found.measures["balanced-accuracy"].estimate.value > 0.9

    def test_a_bare_network_is_told_how_to_be_wrapped(self):
        with pytest.raises(InputError, match=r"a Foreign does not say what it reads and answers; .*Classifier\.wrap"):
            commands.audit(Foreign(), self.cohort())

    def test_a_function_that_answers_nonsense_is_named(self):
        function = ProbabilityFunction(
            lambda x: np.full((len(x), 2), 3.0), classes=("normal", "mild"), size=(16, 16), channels=1
        )
        with pytest.raises(InputError, match=r"must return .* values in \[0,1\]"):
            commands.audit(function, self.cohort())


class TestTrain:
    def test_it_returns_the_classifier_it_trained_whatever_else_is_in_the_folder(self, tmp_path):
        cohort = with_sites()
        trained = {
            (method, seed): commands.train(cohort, method, out=tmp_path, seed=seed, **TRAIN)
            for method, seed in (("mixup", 1), ("erm", 0), ("erm", 1))
        }
        for (method, seed), classifier in trained.items():
            assert classifier.card.training["method"] == method
            assert classifier.card.training["seed"] == seed
        assert (tmp_path / "report.html").is_file()

    def test_options_of_method_and_loop(self, tmp_path):
        made = commands.train(with_sites(), "focal", out=tmp_path, options={"gamma": 0.5}, **{**TRAIN, "epochs": 2})
        assert made.card.training["method_options"] == {"gamma": 0.5}
        assert made.card.training["epochs"] == 2

    def test_an_unknown_setting_suggests_the_right_one(self, tmp_path):
        with pytest.raises(InputError, match=r"'train.epoch' is not an option here\. Did you mean 'epochs'"):
            commands.train(with_sites(), out=tmp_path, epoch=3)


class TestFindModel:
    def test_the_only_one_below_and_never_one_of_several(self, memorised, tmp_path):
        folder, _ = memorised
        assert find_model(folder) == cell_folder(folder, "erm", 0) / "model"
        assert find_model(cell_folder(folder, "erm", 0) / "model") == cell_folder(folder, "erm", 0) / "model"
        for name in ("erm", "mixup"):
            shutil.copytree(cell_folder(folder, "erm", 0), cell_folder(tmp_path, name, 0))
        with pytest.raises(InputError, match=r"holds 2 classifiers .*name one of their folders"):
            find_model(tmp_path)


class TestCatalogue:
    @pytest.mark.parametrize("kind", ["methods", "audits", "shifts", "sources", "backbones"])
    def test_every_row_says_what_it_is_and_where_it_comes_from(self, kind):
        rows = commands.catalogue(kind)
        assert len(rows) >= 2
        for row in rows:
            assert set(row) == {"name", "summary", "source", "options"}
            assert row["summary"].endswith(".")
        assert len({r["name"] for r in rows}) == len(rows)

    def test_options_are_those_that_can_be_given(self):
        assert "n_images" in next(r for r in commands.catalogue("sources") if r["name"] == "phantom")["options"]
        assert next(r for r in commands.catalogue("audits") if r["name"] == "calibration")["options"] == ["bins"]

    def test_an_unknown_kind(self):
        with pytest.raises(InputError, match=r"'method' is not a kind of thing to list. Did you mean 'methods'"):
            commands.catalogue("method")


class TestReport:
    def test_the_same_folder_gives_the_same_page(self, memorised):
        folder, _ = memorised
        page = (folder / "report.html").read_bytes()
        (folder / "report.html").unlink()
        assert commands.report(folder) == folder / "report.html"
        assert (folder / "report.html").read_bytes() == page

    def test_a_folder_without_a_finished_run(self, tmp_path):
        with pytest.raises(InputError, match=r"is no finished run: there is no summary\.json"):
            commands.report(tmp_path)
