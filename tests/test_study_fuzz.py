"""Study files made of anything: a Study that can be stored and read again, or one sentence."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trueread.arguments import meant
from trueread.audit.base import build_audits, merged_thresholds
from trueread.cohort.source import SOURCES, parse_source
from trueread.errors import InputError
from trueread.method.base import METHODS, build_method
from trueread.options import check
from trueread.study import Study, load_study, save_study
from trueread.training.config import TrainConfig

PLAIN = {"deadline": None, "derandomize": True, "suppress_health_check": [HealthCheck.too_slow]}  # busy machines

KEYS = sorted({*Study.model_fields, *TrainConfig.model_fields, "source", "label", "size", "val", "file", "bins",
               "gamma", "self", "cls", "int", "str", "dict", "list[", "where", "values", "", "name ",
               "étude", "__class__"})  # fmt: skip
WORDS = ["phantom", "folder:nowhere", "erm", "focal", "focal+mixup", "focal+focal", "+", "all", "performance",
         "auto", "calibration", "compact", "none", "0.5", "last", "yes", "~", "../..", "$HOME", "x" * 300]  # fmt: skip

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.floats(),
    st.sampled_from(WORDS),
    st.text(max_size=5),
)
keys = st.one_of(st.sampled_from(KEYS), st.sampled_from(KEYS), st.text(max_size=4), st.integers(-2, 2), st.booleans())
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=8,
)


names = st.sampled_from(["erm", "focal", "mixup", "focal+mixup", "logit-adjustment+focal"])
texts = st.one_of(st.text(max_size=8), st.sampled_from(["\x85", "a\u2028b", "\u2029x", "\ufeff", "a\tb ", "- x: y"]))
right = st.fixed_dictionaries(
    {"data": st.one_of(st.just("phantom"), st.fixed_dictionaries({"source": st.just("phantom"), "note": scalars}))},
    optional={
        "name": st.from_regex(r"[a-z][a-z0-9._-]{0,5}", fullmatch=True),
        "description": texts,
        "seeds": st.one_of(st.integers(1, 4), st.lists(st.integers(0, 2**40), min_size=1, max_size=3, unique=True)),
        "methods": st.one_of(
            names, st.fixed_dictionaries({"name": names}, optional={"gamma": scalars, "label": texts})),
        "train": st.fixed_dictionaries({}, optional={
            "epochs": st.integers(1, 9), "learning_rate": st.floats(1e-6, 1), "patience": st.none(), "backbone": texts,
            "threshold_rule": st.sampled_from([0.5, "0.25", "sensitivity>=0.9"]), "augment": texts}),
        "split": st.fixed_dictionaries({}, optional={
            "val": st.floats(0.01, 0.4), "seed": st.integers(0, 9), "file": texts}),
        "audits": st.one_of(
            st.just("all"), st.lists(st.fixed_dictionaries({"name": texts, "bins": scalars}), max_size=2)),
        "thresholds": st.dictionaries(st.sampled_from(["performance", "x"]), st.floats(-2, 2), max_size=2),
        "resamples": st.integers(100, 900),
        "explain": st.booleans(),
    },
)  # fmt: skip


@st.composite
def studies(draw) -> dict[str, Any]:
    """A study that is right but for at most two values, at any place, that may be anything."""
    content = draw(right)
    for _ in range(draw(st.integers(0, 2))):
        section = content
        inner = [k for k, v in content.items() if isinstance(v, dict)]
        if inner and draw(st.booleans()):
            section = content[draw(st.sampled_from(inner))]
        section[draw(st.one_of(st.sampled_from([*section] or ["x"]), keys))] = draw(anything)
    return content


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "fuzz.yaml"


def is_a_study_or_one_sentence(path: Path) -> Study | None:
    """The study in the file, None when it is refused in one line; whatever else it raises is a bug."""
    try:
        return load_study(path)
    except InputError as error:
        said = str(error)
    assert said.startswith(str(path))
    assert "\n" not in said
    assert said.endswith(".")
    assert len(said) < 700
    return None


def names_are_built_or_refused(study: Study) -> None:
    """What a run does with a study before it reads the first image."""
    with suppress(InputError):
        for section in study.methods:
            build_method(section.name, **section.options)
        build_audits(study.audits)
        merged_thresholds(study.thresholds)
        name, _ = parse_source(study.data.source)
        check(SOURCES.get(name).factory, study.data.options, where="data")


class TestStructures:
    @given(st.one_of(studies(), anything))
    @settings(max_examples=250, **PLAIN)
    def test_anything_is_a_study_or_one_sentence(self, path, content):
        try:
            path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
        except UnicodeEncodeError:
            return
        study = is_a_study_or_one_sentence(path)
        if study is not None:
            names_are_built_or_refused(study)

    @given(studies())
    @settings(max_examples=150, **PLAIN)
    def test_a_study_that_is_accepted_can_be_stored_and_read_again(self, path, content):
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        study = is_a_study_or_one_sentence(path)
        if study is None:
            return
        save_study(study, path.with_name("saved.yaml"))
        again = load_study(path.with_name("saved.yaml"))
        assert again.model_dump_json() == study.model_dump_json()
        names_are_built_or_refused(again)

    @given(
        st.sampled_from(["focal", "mixup", "erm", "class-weights"]),
        st.dictionaries(keys.map(str), anything, max_size=3),
    )
    @settings(max_examples=100, **PLAIN)
    def test_any_options_make_a_method_or_one_sentence(self, name, options):
        try:
            made = METHODS.build(name, options)
        except InputError:
            return
        assert made.name == name
        assert build_method(name, **options).options == made.options


# what YAML has beyond plain values, and what its readers trip over
BITS = ["a: ", "- ", "[", "]", "{", "}", ": ", ", ", "&a ", "*a", "<<: ", "!!int ", "!!float ", "!!bool ",
        "!!timestamp ", "!!binary ", "!!set ", "!!omap ", "!!python/name:os.system ", "!x ", "? ", "| \n", "> \n", "'",
        '"', "\\ud800", "\\x00", "#", "%YAML 9.9\n", "---\n", "...\n", "\n", "  ", "\t", "0x_", "0b_", "0o9", "1e999",
        ".nan", ".inf", "2020-13-45", "190:20:30", "0" * 30, "9" * 5000, "0x" + "f" * 5000, "data: phantom\n",
        "seeds: ", "train: ", "\ufeff", "\u2028", "\x85", "ünï", "=", "~", "yes"]  # fmt: skip


class TestText:
    @given(st.lists(st.sampled_from(BITS), max_size=12).map("".join))
    @settings(max_examples=300, **PLAIN)
    def test_any_pieces_of_yaml(self, path, text):
        path.write_text(text, encoding="utf-8")
        is_a_study_or_one_sentence(path)

    @given(st.binary(max_size=60))
    @settings(max_examples=150, **PLAIN)
    def test_any_bytes(self, path, raw):
        path.write_bytes(raw)
        is_a_study_or_one_sentence(path)

    @given(st.data())
    @settings(max_examples=150, **PLAIN)
    def test_a_real_study_with_a_few_characters_changed(self, path, data):
        text = (Path(__file__).resolve().parents[1] / "studies" / "quickstart.yaml").read_text(encoding="utf-8")
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(text)))
            new = data.draw(st.sampled_from([*BITS, ""]))
            text = text[:at] + new + text[at + data.draw(st.integers(0, 12)) :]
        path.write_text(text, encoding="utf-8")
        study = is_a_study_or_one_sentence(path)
        if study is not None:
            names_are_built_or_refused(study)

    @given(st.one_of(st.lists(st.sampled_from(BITS), max_size=8).map("".join), st.text(max_size=20)))
    @settings(max_examples=300, **PLAIN)
    def test_any_value_of_an_option_on_the_command_line_is_read(self, text):
        value = meant(text)
        assert value is None or isinstance(value, (str, bool, int, float, list, dict))
