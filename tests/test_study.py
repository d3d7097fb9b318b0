"""The study file: every slip of the pen is an error that says where, and what is written resolves to itself."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from trueread.errors import InputError
from trueread.options import validate
from trueread.study import MethodSection, Study, load_study, plain_name, save_study
from trueread.training.config import TrainConfig

STUDIES = Path(__file__).resolve().parents[1] / "studies"


@pytest.fixture
def write(tmp_path):
    def written(text: str, name: str = "my-study.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return written


def study(**content) -> Study:
    return validate(Study, {"data": "phantom", **content}, where="study")


def refused(**content) -> str:
    with pytest.raises(InputError) as error:
        study(**content)
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix("study: ")


class TestKeys:
    @pytest.mark.parametrize(
        ("content", "key", "nearest"),
        [
            ({"sead": 3}, "sead", "seeds"),
            ({"method": ["erm"]}, "method", "methods"),
            ({"train": {"epoch": 3}}, "train.epoch", "epochs"),
            ({"train": {"batchsize": 3}}, "train.batchsize", "batch_size"),
            ({"train": {"learning-rate": 3}}, "train.learning-rate", "learning_rate"),
            ({"split": {"tests": 0.2}}, "split.tests", "test"),
        ],
    )
    def test_an_unknown_key_suggests_the_right_one_of_its_level(self, content, key, nearest):
        assert refused(**content).startswith(f"'{key}' is not an option here. Did you mean '{nearest}'? Known here: ")

    def test_keys_of_data_and_methods_are_the_options_of_what_they_name(self):
        made = study(data={"source": "csv:a.csv", "patient": "lesion"}, methods=[{"name": "focal", "gamma": 3}])
        assert made.data.options == {"patient": "lesion"}
        assert made.methods[0].options == {"gamma": 3}
        assert made.methods[0].title == "focal"

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ({"data": {"size": 28}}, "'data.source' is missing"),
            ({"train": {"epochs": 0}}, "'train.epochs' must be greater than or equal to 1; found 0"),
            ({"train": {"epochs": "many"}}, "'train.epochs' must be a valid integer"),
            (
                {"train": {"select": "best"}},
                "'train.select' must be 'auroc', 'balanced-accuracy', 'accuracy', 'loss' or 'last'",
            ),
            ({"train": {"threshold_rule": "middle"}}, "'middle' is no rule for a threshold"),
            ({"train": [1]}, "'train' must be a valid dictionary"),
            ({"split": {"val": 0.6, "test": 0.5}}, "val + test must leave something to train on; found 0.6 + 0.5"),
            ({"split": {"val": 0}}, "'split.val' must be greater than 0"),
            ({"methods": []}, "'methods' must have at least 1 item"),
            ({"methods": [{"gamma": 3}]}, "'methods.0.name' is missing"),
            ({"methods": 3}, "'methods' must be a valid list; found 3"),
            ({"thresholds": {"performance": "high"}}, "'thresholds.performance' must be a valid number"),
            ({"resamples": 10}, "'resamples' must be greater than or equal to 100; found 10"),
            ({"name": "../elsewhere"}, "'name' must match pattern"),
            ({"name": "a b"}, "'name' must match pattern"),
            ({"audits": 5}, "'audits' must be a valid string; found 5"),
        ],
    )
    def test_a_wrong_value_is_said(self, content, words):
        assert words in refused(**content)


class TestShortForms:
    def test_seeds_as_a_count_or_a_list(self):
        assert study().seeds == [0]
        assert study(seeds=3).seeds == [0, 1, 2]
        assert study(seeds=[7, 5]).seeds == [7, 5]

    @pytest.mark.parametrize(
        ("seeds", "words"),
        [
            (0, "a number of seeds must be 1 to 1000; found 0"),
            (-1, "found -1"),
            (1001, "found 1001"),
            ([1, 1], r"seeds must be distinct and at least one; found [1, 1]"),
            ([], "at least one"),
            (True, "'seeds' must be a valid list; found True"),
            ("3", "'seeds' must be a valid list; found '3'"),
            ([0.5], "'seeds.0' must be a valid integer"),
        ],
    )
    def test_seeds_that_are_none(self, seeds, words):
        assert words in refused(seeds=seeds)

    def test_methods_as_names_mappings_and_labels(self):
        made = study(methods=["erm", {"name": "focal", "gamma": 1}, {"name": "focal", "label": "focal 3", "gamma": 3}])
        assert [m.title for m in made.methods] == ["erm", "focal", "focal 3"]
        assert [m.options for m in made.methods] == [{}, {"gamma": 1}, {"gamma": 3}]
        assert [m.name for m in study(methods="mixup").methods] == ["mixup"]
        assert study(methods={"name": "focal", "gamma": 1}).methods[0].options == {"gamma": 1}
        assert study().methods == [MethodSection(name="erm")]

    def test_data_as_a_bare_source(self):
        made = study(data="medmnist:breastmnist")
        assert (made.data.source, made.data.options) == ("medmnist:breastmnist", {})

    def test_two_methods_of_one_title(self):
        words = refused(methods=["focal", {"name": "focal", "gamma": 3}])
        assert words == "the method 'focal' appears twice; give one of them a label of its own."
        assert "'x' appears twice" in refused(methods=[{"name": "erm", "label": "x"}, {"name": "mixup", "label": "x"}])

    def test_two_titles_that_would_share_a_folder(self):
        """Else the second method would be read back from the first one's folder, as if it had been trained."""
        assert refused(methods=[{"name": "erm", "label": "ours, v2"}, {"name": "mixup", "label": "ours v2"}]) == (
            "the methods 'ours, v2' and 'ours v2' would share the folder 'ours_v2'; give one of them another label."
        )


class TestFile:
    def test_what_is_resolved_is_read_back_as_the_same_study(self, tmp_path):
        shared = ["normal", "opacity"]
        made = study(
            name="all", description="Ümlaute: \"quotes\", # no comment\nand 2 lines", seeds=[3, 1],
            data={"source": "folder:x", "patient": r"person\d+|IM-\d+", "classes": shared, "note": "no", "when": "1e3"},
            methods=["erm", {"name": "focal", "label": "f: 3", "gamma": 3.0, "names": shared}],
            train={"epochs": 2, "learning_rate": 1e-5, "patience": None, "threads": 1},
            split={"val": 0.2, "seed": 4}, audits=["performance", {"name": "calibration", "bins": 5}],
            thresholds={"performance": 0.9, "calibration": None}, resamples=200, explain=False,
        )  # fmt: skip
        path = tmp_path / "study.yaml"
        save_study(made, path)
        again = load_study(path)
        assert again == made
        assert again.model_dump() == made.model_dump()
        save_study(again, tmp_path / "again.yaml")
        assert (tmp_path / "again.yaml").read_bytes() == path.read_bytes()
        assert not list(tmp_path.glob("*.part"))

    def test_the_resolved_file_spells_every_default_out(self, tmp_path):
        save_study(study(), tmp_path / "study.yaml")
        content = yaml.safe_load((tmp_path / "study.yaml").read_text())
        assert set(content) == set(Study.model_fields)
        assert set(content["train"]) == set(TrainConfig.model_fields)
        assert content["train"]["epochs"] == TrainConfig().epochs

    def test_a_study_is_called_like_its_file_when_it_has_no_name(self, write):
        assert load_study(write("data: phantom")).name == "my-study"
        assert load_study(write("data: phantom", "my study (2).yaml")).name == "my-study-2"
        assert load_study(write("data: phantom\nname: other")).name == "other"

    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("folder:xrays/", "folder-xrays"), ("csv:/data/a+b.csv", "csv-data-a-b.csv"), ("phantom", "phantom"),
            ("medmnist:x@28-erm", "medmnist-x-28-erm"), ("..", "study"), ("肺炎", "study"), ("x" * 200, "x" * 80),
        ],
    )  # fmt: skip
    def test_any_text_gives_a_name_that_a_study_can_have(self, text, name):
        assert plain_name(text) == name
        assert study(name=name).name == name

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("data: [phantom", "is not valid YAML: .*line 1"),
            ("- data", "must be a YAML mapping with at least `data:`; found list"),
            ("", "must be a YAML mapping with at least `data:`; found NoneType"),
            ("just words", "found str"),
            ("name: x", "'data' is missing"),
            ("data: phantom\nseeds: 2\ndata: csv:x.csv", "'data' is given twice .*line 3"),
            ("data: phantom\ntrain:\n  epochs: 2\n  epochs: 3", "'epochs' is given twice .*line 4"),
        ],
    )
    def test_a_file_that_is_no_study(self, write, text, words):
        with pytest.raises(InputError, match=words) as error:
            load_study(write(text))
        assert "my-study.yaml" in str(error.value)

    def test_a_file_that_is_not_there_or_not_text(self, tmp_path, write):
        with pytest.raises(InputError, match=r"there is no study file .*nothing\.yaml"):
            load_study(tmp_path / "nothing.yaml")
        (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
        with pytest.raises(InputError, match="is not valid YAML"):
            load_study(tmp_path / "binary.yaml")


class TestHostile:
    @pytest.mark.parametrize(
        "value",
        [
            "!!python/object/apply:os.system ['touch {}']",
            "!!python/object/new:subprocess.Popen [['touch', '{}']]",
            "!!python/name:os.system",
            "!!python/module:os",
        ],
    )
    def test_no_code_runs_out_of_a_study(self, write, tmp_path, value):
        touched = tmp_path / "touched"
        for text in (f"data: {value.format(touched)}", f"data: {{source: phantom, x: {value.format(touched)}}}"):
            with pytest.raises(InputError, match=r"is not valid YAML: .*tag"):
                load_study(write(text))
        assert not touched.exists()

    @pytest.mark.parametrize("place", ["description", "audits", "data", "methods"])
    def test_a_few_lines_do_not_stand_for_gigabytes(self, write, place):
        lines = ["x: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
        lines += [f"x{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
        lines += [f"{place}: *a11"]
        start = time.perf_counter()
        with pytest.raises(InputError, match="aliases"):
            load_study(write("\n".join(lines)))
        assert time.perf_counter() - start < 1


@pytest.mark.parametrize("path", sorted(STUDIES.rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_study_of_the_repository_is_valid(path):
    from trueread.audit.base import build_audits, merged_thresholds
    from trueread.cohort.source import SOURCES, parse_source
    from trueread.method.base import build_method
    from trueread.options import check

    made = load_study(path)
    name, _ = parse_source(made.data.source)
    check(SOURCES.get(name).factory, made.data.options, where=str(path))
    for section in made.methods:
        build_method(section.name, **section.options)
    build_audits(made.audits)
    merged_thresholds(made.thresholds)
    assert made.description
    assert made.name == path.stem


def test_the_five_real_studies_are_there():
    assert {p.stem for p in (STUDIES / "real").glob("*.yaml")} >= {
        "kermany", "ham10000", "breastmnist", "retinamnist", "adrenalmnist3d",
    }  # fmt: skip


def test_the_recipe_of_the_protocol_is_that_of_the_study_files():
    from trueread.paper.pneumonia import BACKBONES, METHOD, SPLIT, recipe_of
    from trueread.training.config import TrainConfig

    found = {}
    for path in (STUDIES / "pneumonia").glob("*.yaml"):
        made = load_study(path)
        found[made.train.backbone] = made.train
        assert [m.name for m in made.methods] == [METHOD]
        assert made.split.model_dump(exclude={"file"}) == SPLIT
    assert found == {b: TrainConfig(**recipe_of(b, weights="hub")) for b in BACKBONES}
