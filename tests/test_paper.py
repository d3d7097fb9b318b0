"""Protocols: every arm runs, what is done is not done again, and slips are refused."""

from __future__ import annotations

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tiny import tiny_cohort
from trueread.audit.subject import Member, Subject
from trueread.cohort.cohort import Cohort
from trueread.commands import run_paper
from trueread.errors import InputError
from trueread.model.weights import read_weights
from trueread.paper import base, cohorts, curvssl, danil, nonrobust, places, pneumonia, specialist, step_e
from trueread.paper.base import Paper
from trueread.paper.bench import Arm, Bench
from trueread.paper.side_by_side import side_by_side
from trueread.paper.specialist import CUES, Scale, SpecialistPaper, cohort_of
from trueread.paper.specialist_arms import CEILING, CHOSEN, ERM, OURS, TEACHER, gap_closed
from trueread.paper.specialist_variations import variations

TINY = Scale(
    ("phantom",), 28, 60, 1, {"epochs": 1, "batch_size": 16, "augment": "none"}, resamples=100, varied="phantom",
    choices=("clean share", "labels", "teacher"),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def page(monkeypatch):
    """The section of docs/results.md on a protocol's result."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))

    def written(name: str, result: dict) -> str:
        return importlib.import_module(f"{name}_page").section(result)

    return written


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(SpecialistPaper, "scales", {"smoke": TINY})
    monkeypatch.setitem(cohorts.COHORTS, "phantom", {"source": "phantom", "n_images": 120})
    monkeypatch.setattr(specialist, "CUES", {"square": CUES["square"] | {"side": 0.2}})
    monkeypatch.setitem(specialist.ELSEWHERE, "phantom", {"seed": 1})


def test_parts_side_by_side_pass_on_what_they_say(capfd):
    side_by_side({"one": ["list", "methods"], "two": ["list", "papers"]}, jobs=2)
    assert capfd.readouterr().out == ""
    with pytest.raises(InputError, match="bad: not done, for the reason above"):
        side_by_side({"bad": ["list", "nothing"], "later": ["list", "papers"]}, jobs=1)
    assert "bad: trueread: " in capfd.readouterr().err


def test_parts_are_joined_in_order_whoever_ran_them(tmp_path, monkeypatch):
    asked = []

    class Two(Paper):
        title, scales = "Two parts", {"smoke": None}

        def parts(self, scale):
            return ["long", "short"]

        def setting(self, scale):
            return {"setting": scale}

        def run_part(self, part, scale, folder, data):
            asked.append(part)
            return {"rows": [{"part": part}], **({"more": [1]} if part == "short" else {})}

    monkeypatch.setattr(base.PAPERS, "build", lambda _: Two())

    def one_after_the_other(commands, *, jobs):
        assert jobs == 2
        for c in reversed(commands.values()):
            run_paper(c[1], out=c[c.index("--out") + 1], part=c[c.index("--part") + 1])

    monkeypatch.setattr(base, "side_by_side", one_after_the_other)
    told = {jobs: json.loads(run_paper("two", out=tmp_path / str(jobs), jobs=jobs).read_text()) for jobs in (1, 2)}
    assert asked == ["long", "short", "short", "long"]
    for result in told.values():
        assert result["rows"] == [{"part": "long"}, {"part": "short"}]
        assert (result["more"], result["setting"]) == ([1], "smoke")
    again = json.loads(run_paper("two", out=tmp_path / "1", jobs=1).read_text())
    assert (len(asked), again["rows"]) == (4, told[1]["rows"])  # what is done is not done again
    monkeypatch.setattr(Two, "setting", lambda *_: {"setting": "other"})
    run_paper("two", out=tmp_path / "1", jobs=1)
    assert asked[4:] == ["long", "short"]
    with pytest.raises(InputError, match="Did you mean 'short'"):
        run_paper("two", out=tmp_path, part="shortt")
    with pytest.raises(InputError, match="at least 1; found 0"):
        run_paper("two", out=tmp_path, jobs=0)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_all_arms_once_and_a_second_time_from_what_is_there(tmp_path, monkeypatch):
    path = run_paper("specialist", out=tmp_path)
    result = json.loads(path.read_text())
    assert [row["arm"] for row in result["rows"]] == [arm["name"] for arm in result["arms"]]
    for row in result["rows"]:
        assert 0 <= row["measures"]["auroc-flipped"]["value"] <= 1
        assert row["seconds"] > 0
    assert {d["baseline"] for d in result["differences"]} == {
        "erm + clean",
        "final layer",
        "final layer, no labels",
        "teacher alone",
    }
    assert {d["method"] for d in result["differences"]} == {OURS}
    assert [part["arm"] for part in result["layers"]] == [ERM, OURS]
    taught = [(v["value"], v["arm"]) for v in result["variations"] if v["what"] == "clean share"]
    assert taught[:3] == [("1%", TEACHER), ("1%", OURS), ("3%", TEACHER)]
    assert len({v["measures"]["auroc-clean"]["n_seeds"] for v in result["variations"]}) == 1
    assert [v["arm"] for v in result["variations"] if v["what"] == "teacher"] == [TEACHER, OURS]
    assert str(tmp_path) not in path.read_text()
    monkeypatch.setattr("trueread.runner.fit", lambda *_, **__: pytest.fail("trained again"))
    shutil.rmtree(tmp_path / "parts")  # so that all is measured again
    again = json.loads(run_paper("specialist", out=tmp_path).read_text())
    assert again["rows"] == result["rows"]
    assert again["differences"] == result["differences"]
    assert again["variations"] == result["variations"]
    changed = {"smoke": replace(TINY, prevalence=0.9)}
    monkeypatch.setattr(SpecialistPaper, "scales", changed)
    with pytest.raises(InputError, match="other data"):
        run_paper("specialist", out=tmp_path)


@pytest.mark.parametrize("cue", list(CUES))
def test_a_variation_differs_from_the_trial_in_something_and_no_two_are_the_same(cue):
    all_of_them = variations(["stem", "stage1", "stage2", "stage3"], cue=cue, epochs=8)
    assert len({(v.what, v.value) for v in all_of_them}) == len(all_of_them)
    halves = [v.options["layers"] for v in all_of_them if v.what == "layers"]
    assert halves[:2] == [["stem", "stage1"], ["stage2", "stage3"]]
    for one in all_of_them:
        assert one.options or one.train or one.clean or one.clean_arrangement or one.cue
        assert not one.cue or {**CUES[cue], **one.cue} != CUES[cue]
        assert not one.options or {**CHOSEN, **one.options} != CHOSEN


def test_at_most_so_many_training_images_by_whole_patients():
    cohort = cohort_of("phantom", replace(TINY, train_images=100), None)
    whole = cohort_of("phantom", replace(TINY, train_images=10**6), None)
    assert 95 <= len(cohort.rows("train")) <= 100
    assert list(cohort.table["id"][cohort.rows("test")]) == list(whole.table["id"][whole.rows("test")])
    kept = set(cohort.table["patient"][cohort.rows("train")])
    assert whole.table["patient"].isin(kept).sum() == len(cohort.rows("train"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "specialst"}, "Did you mean 'specialist'"),
        ({"name": "specialist", "scale": "cpuu"}, "Did you mean 'cpu'"),
        ({"name": "specialist", "scale": "cpu", "data": "nowhere"}, "no folder nowhere"),
    ],
)
def test_slips(tmp_path, arguments, said):
    with pytest.raises(InputError, match=said):
        run_paper(**arguments, out=tmp_path)


def test_real_images_that_nobody_named(tmp_path, monkeypatch):
    monkeypatch.delenv("TRUEREAD_DATA", raising=False)
    with pytest.raises(InputError, match="name their folder with --data"):
        run_paper("specialist", scale="cpu", out=tmp_path)


def test_the_gap_closed():
    def row(arm, value):
        return {"arm": arm, "measures": {"auroc-flipped": {"value": value}}}

    rows = [row(ERM, 0.2), row(OURS, 0.8), row(CEILING, 1.0)]
    assert gap_closed(rows, OURS, "auroc-flipped") == pytest.approx(0.75)
    assert np.isnan(gap_closed([row(ERM, 1.0), row(OURS, 0.8), row(CEILING, 1.0)], OURS, "auroc-flipped"))


class TestNonrobust:
    @pytest.fixture
    def tiny(self, monkeypatch):
        scale = nonrobust.Scale(
            ("phantom",), 28, 60, 1, {"epochs": 1, "batch_size": 16, "augment": "none"}, {}, (0.5, 1.0),
            matched=("phantom",), steps=2, matched_steps=2, attack_steps=2, images=20, explained=8, resamples=100,
            adversarial_steps=1,
        )  # fmt: skip
        monkeypatch.setattr(nonrobust.NonrobustPaper, "scales", {"smoke": scale})
        monkeypatch.setitem(cohorts.COHORTS, "phantom", {"source": "phantom", "n_images": 120, "grades": True})
        monkeypatch.setitem(nonrobust.CORRUPTIONS, "phantom", "oct")  # the shortest list

    def test_every_arm_is_asked_everything_and_nothing_is_trained_twice(self, tmp_path, tiny, monkeypatch):
        result = json.loads(run_paper("nonrobust", out=tmp_path, jobs=1).read_text())
        robust = [nonrobust.Task.robust(m) for m in (0.5, 1.0)]
        arms = [row["arm"] for row in result["rows"]]
        assert arms == [
            "standard", *robust, "corruption-augment", "d_rand", "d_det", "noise (control)", "shuffled (control)",
            "d_nr", "d_r",
        ]  # fmt: skip
        for row in result["rows"]:
            asked = {"clean", "auroc", "corrupted", "auroc-corrupted", "robust", "smallest-change", "family-noise"}
            assert asked <= set(row["measures"])
            assert ("next-class" in row["measures"]) == (row["arm"] == "d_det")
        rates = {r["arm"]: r["told"][0].get("nonrobust-only", {}).get("fooling_rate") for r in result["rows"]}
        assert rates["standard"] is None
        assert rates["d_det"] > 0.5 > rates["noise (control)"]
        epsilons = {r["arm"]: r["told"][0]["adversarial"]["epsilon"] for r in result["rows"] if r["arm"] in robust}
        assert epsilons[robust[0]] == pytest.approx(epsilons[robust[1]] / 2, rel=1e-3)
        assert {d["baseline"] for d in result["differences"]} == {"standard"}
        assert [r["arm"] for r in result["stability"]] == ["standard", robust[1]]
        maps = sorted((tmp_path / "phantom").glob("maps-*.png"))
        assert [p.name for p in maps] == ["maps-adversarial_1_epsilon.png", "maps-standard.png"]
        with Image.open(maps[1]) as sheet:  # four pictures in a row: image and map, before and after
            assert sheet.width > 4 * 200
        monkeypatch.setattr("trueread.runner.fit", lambda *_, **__: pytest.fail("trained again"))
        monkeypatch.setattr(nonrobust.Task, "stability", lambda *_: [])
        again = json.loads(run_paper("nonrobust", out=tmp_path, jobs=1).read_text())
        assert again["rows"] == result["rows"]

    def test_the_next_class_is_what_d_det_says_of_what_is_seen(self):
        cohort = tiny_cohort("multiclass", n=60)
        rows = cohort.rows("test")
        seen = np.eye(3)[(cohort.labels[rows] + 1) % 3]
        subject = Subject("s", cohort, rows, [Member(None, 0, seen)], resamples=20)
        assert nonrobust._against_next(subject).estimate.value == 1.0


def test_file_names_give_three_classes():
    names = ["NORMAL/IM-1.jpeg", "PNEUMONIA/person1_bacteria_2.jpeg", "PNEUMONIA/person1_virus_3.jpeg"]
    cohort = tiny_cohort(n=60)
    named = cohort.table.assign(id=[f"{names[i % 3]}-{i}" for i in range(60)])
    made = cohorts.by_germ(replace(cohort, table=named))
    assert made.classes == ("normal", "bacteria", "virus")
    assert list(made.labels[:3]) == [0, 1, 2]


class TestStepE:
    @pytest.fixture
    def tiny(self, monkeypatch):
        settings = (step_e.Setting("phantom", "long", "symmetric", 0.3), step_e.Setting("phantom"))
        scale = step_e.Scale(
            settings, 28, 0, 60, 1, {"batch_size": 16}, {"long": {"epochs": 2, "augment": "none"}},
            varied=settings[0].name, folds=2, resamples=100,
        )  # fmt: skip
        monkeypatch.setattr(step_e.StepEPaper, "scales", {"smoke": scale})
        monkeypatch.setattr(step_e, "VARIATIONS", {"ramp 0": {"ramp": 0.0}})
        monkeypatch.setitem(cohorts.COHORTS, "phantom", {"source": "phantom", "n_images": 120})

    def test_every_arm_learns_from_the_wrong_labels_and_is_tested_on_the_true_ones(self, tmp_path, tiny, monkeypatch):
        result = json.loads(run_paper("step-e", out=tmp_path, jobs=1).read_text())
        wrong, right = (
            [r for r in result["rows"] if r["setting"] == name]
            for name in ("phantom-symmetric-0.3-long", "phantom-long")
        )
        assert wrong[0]["wrong"] > 0.2
        assert right[0]["wrong"] == 0
        chosen = [step_e.ERM_CHOSEN, step_e.OURS_CHOSEN]
        assert [r["arm"] for r in wrong] == [*(r["arm"] for r in right), step_e.ORACLE, *chosen]
        told = {r["arm"]: r["told"][0] for r in wrong}
        assert told[step_e.ORACLE]["mended"] > 10
        assert told["one-shot"]["excluded"] == pytest.approx(0.3 * 60, abs=6)
        assert {"precision", "recall", "auroc"} <= set(told["confident learning"]["against_the_truth"])
        assert len(told[step_e.OURS]["auroc_by_epoch"]) == 2
        controls = {step_e.ERM, step_e.TRUNCATION, step_e.SELF_PACED, step_e.ERM_CHOSEN}
        assert {d["baseline"] for d in result["differences"]} == controls
        assert {d["method"] for d in result["differences"]} == {step_e.OURS, step_e.SOFT, step_e.OURS_CHOSEN}
        assert [r["what"] for r in result["variations"]] == ["ramp 0"]
        monkeypatch.setattr("trueread.runner.fit", lambda *_, **__: pytest.fail("trained again"))
        assert json.loads(run_paper("step-e", out=tmp_path, jobs=1).read_text())["rows"] == result["rows"]

    def test_what_is_read_is_as_the_setting_says(self, tiny):
        scale = step_e.StepEPaper.scales["smoke"]
        noisy, plain = (step_e.cohort_of(s, scale, None) for s in scale.settings)
        assert (noisy.labels != plain.labels).mean() > 0.1
        test = plain.rows("test")
        assert (noisy.labels[test] == plain.labels[test]).all()


class TestDanil:
    @pytest.fixture
    def tiny(self, monkeypatch):
        scale = danil.Scale(
            {"phantom": 28}, 60, 1, {"epochs": 1, "batch_size": 16, "augment": "none"}, varied="phantom", images=20,
            resamples=100,
        )  # fmt: skip
        monkeypatch.setattr(danil.DanilPaper, "scales", {"smoke": scale})
        monkeypatch.setattr(danil, "VARIATIONS", {"form A": {"form": "A"}})
        monkeypatch.setitem(cohorts.COHORTS, "phantom", {"source": "phantom", "n_images": 120})

    def test_every_arm_is_measured_compared_and_asked_for_its_distractors(self, tmp_path, tiny, page):
        result = json.loads(run_paper("danil", out=tmp_path, jobs=1).read_text())
        arms = [r["arm"] for r in result["rows"]]
        assert arms[0] == danil.ERM
        assert "region attention" in arms
        assert {"balanced-accuracy", "macro-f1", "weighted-f1", "accuracy"} <= set(result["rows"][0]["measures"])
        compared = {(d["baseline"], d["method"]) for d in result["differences"]}
        assert {(danil.CONTROL, danil.OURS), (danil.CONTROL, danil.FEATURE), (danil.ERM, danil.OURS)} <= compared
        assert [r["arm"] for r in result["distractors"]] == list(danil.SHOWN)
        assert result["distractors"][0]["pairs"]
        assert [r["what"] for r in result["variations"]] == ["form A"]
        text = page("danil", result)
        assert text.count("- Holds:") + text.count("- **Missed**:") == 4
        del result["distractors"][1]["measures"]["relief"]  # an arm without any map
        assert "| - |" in page("danil", result).split("### What distracts them")[1]


class TestPneumonia:
    @pytest.fixture
    def tiny(self, monkeypatch):
        scale = replace(
            pneumonia.PneumoniaPaper.scales["smoke"], backbones=("compact",), train_images=60, images=16, resamples=100,
            located_train={"epochs": 1, "batch_size": 16},
        )  # fmt: skip
        monkeypatch.setattr(pneumonia.PneumoniaPaper, "scales", {"smoke": scale})
        chosen = {k: pneumonia.VARIATIONS[k] for k in ("cross-entropy alone", "the other head")}
        monkeypatch.setattr(pneumonia, "VARIATIONS", chosen)
        ask = places.Ask("phantom", {"compact": (places.View("occlusion", images=16),)}, ("region-attention",))
        asked = replace(ask, train={"epochs": 1, "batch_size": 16})
        monkeypatch.setattr(pneumonia, "FURTHER", {"smoke": {pneumonia.REMEDY: asked}})
        monkeypatch.setitem(cohorts.COHORTS, "phantom", {"source": "phantom", "n_images": 160})

    def test_recipe_variations_limits_and_maps(self, tmp_path, tiny, page):
        result = json.loads(run_paper("pneumonia", out=tmp_path, jobs=1).read_text())
        [row] = result["rows"]
        assert set(row["measures"]) == set(pneumonia.COLUMNS)
        assert row["weights"].startswith("none")
        assert 0 <= row["abstained"]["share"]["value"] <= 1
        assert {d["method"] for d in result["differences"]} == {"the other head"}
        assert set(row["maps"]) == set(pneumonia.MAPS)
        assert [r["what"] for r in result["variations"]] == ["cross-entropy alone", "the other head"]
        assert result["variations"][1]["n_weights"] < row["n_weights"]
        assert [(r["method"], r["how"]) for r in result["places"]] == [
            ("erm", "grad-cam"), ("erm", "grad-cam++"), ("region-attention", "occlusion")
        ]  # fmt: skip
        drawn = {p.name.split("-unfit")[0] for p in tmp_path.rglob("places-*.png")}
        assert len(drawn) == 3
        assert {"pointing", "mass", "box-precision", "mass-over-centre"} <= set(result["places"][0]["measures"])
        images = np.sum([s["images"] for s in result["split"][0].values()])
        assert images <= 160
        assert set(result["split"][0]) == {"train", "val", "test"}
        assert "compact, region-attention, occlusion:" in page("pneumonia", result)

    def test_a_part_asked_otherwise_is_measured_again_and_no_other(self, monkeypatch):
        protocol = pneumonia.PneumoniaPaper()
        before = {p: protocol.setting_of(p, "cpu") for p in protocol.parts("cpu")}
        other = replace(pneumonia.FURTHER["cpu"][pneumonia.LESION], methods=("mixup",))
        monkeypatch.setitem(pneumonia.FURTHER["cpu"], pneumonia.LESION, other)
        assert [p for p in before if protocol.setting_of(p, "cpu") != before[p]] == [pneumonia.LESION]

    def test_backbones_whose_last_layer_alone_is_new(self):
        assert pneumonia.recipe_of("resnet18")["head"] == "mlp"
        assert pneumonia.recipe_of("efficientnet_b0")["head"] == "linear"


def test_windows_of_skin_and_of_lesions_show_what_their_masks_say():
    n, side = 60, 2 * cohorts.WINDOW
    rng, y = np.random.default_rng(0), np.arange(side)
    at, radius = rng.uniform(0.3, 0.7, (n, 2)) * side, rng.uniform(10, 60, n)
    masks = np.stack([(y[:, None] - a) ** 2 + (y[None] - b) ** 2 < r**2 for (a, b), r in zip(at, radius, strict=True)])
    masks[0], masks[1] = True, False  # all of it a lesion: no window fits; no lesion: skin alone
    whose = np.broadcast_to(np.arange(n)[:, None, None], masks.shape)
    images = np.stack([whose, masks * 200, whose], axis=1).astype(np.uint8)
    table = pd.DataFrame({"id": [f"i{k}" for k in range(n)], "patient": [f"p{k}" for k in range(n)], "split": ""})
    labels = np.arange(n) % 2
    whole = Cohort("w", images, labels, table, ("a", "b"), "binary", masks=masks.astype(np.uint8))
    cut = cohorts.lesion_or_skin(whole)
    inside = cut.masks > 0
    assert cut.classes == ("skin", "lesion")
    assert cut.spatial == (cohorts.WINDOW, cohorts.WINDOW)
    assert np.array_equal(cut.images[:, 1] > 0, inside)  # cut at the same place
    assert np.array_equal([f"i{k}" for k in cut.images[:, 0, 0, 0]], cut.table["id"])  # of the same image
    assert "i0" not in set(cut.table["id"])
    share = inside.mean(axis=(1, 2))
    assert (share[cut.labels == 0] == 0).all()
    low, high = cohorts.PART_OF_IT
    assert ((share[cut.labels == 1] >= low) & (share[cut.labels == 1] <= high)).all()
    assert 0.2 < (cut.labels == 1).mean() < 0.9
    middle = cohorts.WINDOW // 2
    assert inside[cut.labels == 1, middle, middle].mean() < 0.5


def test_trainings_with_other_settings_do_not_pass_for_these(tmp_path):
    cohort = tiny_cohort(n=60)
    settings = {"epochs": 1, "batch_size": 16, "threads": 1}
    Bench(tmp_path, train=settings, seeds=1, resamples=100).subject(Arm("erm", "erm"), cohort)
    Bench(tmp_path, train=settings, seeds=2, resamples=100).subject(Arm("erm", "erm"), cohort)
    with pytest.raises(InputError, match="holds trainings with other settings of epochs"):
        Bench(tmp_path, train=settings | {"epochs": 2}, seeds=1, resamples=100).subject(Arm("erm", "erm"), cohort)


class TestCurvssl:
    @pytest.fixture
    def tiny(self, monkeypatch):
        scale = replace(
            curvssl.CurvsslPaper.scales["smoke"], varied="phantom", resamples=100,
            pretraining={"phantom": {"epochs": 1, "batch_size": 16, "width": 16}}, tuned=("curvssl, corr",),
        )  # fmt: skip
        monkeypatch.setattr(curvssl.CurvsslPaper, "scales", {"smoke": scale})
        monkeypatch.setattr(curvssl, "VARIATIONS", {"5 neighbours": {"k": 5}})
        monkeypatch.setitem(cohorts.COHORTS, "phantom", {"source": "phantom", "n_images": 140})

    def test_frozen_tuned_and_compared_and_nothing_learned_twice(self, tmp_path, tiny, monkeypatch, page):
        result = json.loads(run_paper("curvssl", out=tmp_path, jobs=1).read_text())
        arms = [curvssl.BARLOW, "curvssl, corr"]
        assert [r["arm"] for r in result["rows"]] == [curvssl.SCRATCH, *arms]
        assert [(r["arm"], r["share"]) for r in result["tuned"]] == [
            (a, s) for a in (curvssl.SCRATCH, "curvssl, corr") for s in (0.1, 1.0)
        ]
        assert page("curvssl", result).count("with 10% of the labels curvssl, corr is above no pretraining") == 1
        compared = {(d["baseline"], d["method"], d["share"], d["measure"]) for d in result["differences"]}
        assert (curvssl.BARLOW, "curvssl, corr", None, "linear") in compared
        assert (curvssl.SCRATCH, "curvssl, corr", 0.1, "balanced-accuracy") in compared
        assert [r["what"] for r in result["variations"]] == ["5 neighbours"]
        [folder] = (tmp_path / "phantom" / "encoders").glob("barlow-twins-*/seed-0")
        assert not any(key.startswith("head") for key in read_weights(folder / "encoder.safetensors"))
        for place in ("trueread.runner.fit", "trueread.paper.curvssl.fit"):
            monkeypatch.setattr(place, lambda *_, **__: pytest.fail("trained again"))
        assert json.loads(run_paper("curvssl", out=tmp_path, jobs=1).read_text())["rows"] == result["rows"]
        other = replace(curvssl.CurvsslPaper.scales["smoke"], pretraining={"phantom": {"epochs": 2, "batch_size": 16}})
        task = curvssl.Task("phantom", curvssl.cohort_of("phantom", other, None), other, tmp_path / "phantom")
        assert task._folder(curvssl.BARLOW, 0) != folder  # another encoder, which is not there
