"""Options: what a person wrote becomes a checked value, or one sentence that says what to write instead."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from trueread.errors import InputError
from trueread.options import build, check, option_names, validate


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    epochs: int = 3


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern="^[a-z]+$")] = "x"
    train: Inner = Inner()
    sizes: list[int] = Field(default=[1], min_length=1)
    audits: str | list[str] = "all"
    limit: float | None = None


class Loss:
    """Something with options."""

    def __init__(
        self, location: str = "", *, gamma: Annotated[float, Field(ge=0, le=10)] = 2.0,
        kind: Literal["soft", "hard"] = "soft", names: list[str] | None = None,
    ) -> None:  # fmt: skip
        self.location, self.gamma, self.kind, self.names = location, gamma, kind, names


def sentence(values: dict) -> str:
    with pytest.raises(InputError) as error:
        validate(Outer, values, where="a.yaml")
    assert str(error.value).startswith("a.yaml: ")
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix("a.yaml: ")


class TestSentences:
    def test_an_unknown_key_at_each_level_gets_the_nearest_one_of_that_level(self):
        assert sentence({"tran": {}}) == (
            "'tran' is not an option here. Did you mean 'train'? Known here: name, train, sizes, audits, limit."
        )
        assert sentence({"train": {"epoch": 1}}) == (
            "'train.epoch' is not an option here. Did you mean 'epochs'? Known here: learning_rate, epochs."
        )

    def test_nothing_is_suggested_for_what_resembles_nothing(self):
        assert "Did you mean" not in sentence({"zzz": 1})

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            (
                {"train": {"epochs": "ten"}},
                "'train.epochs' must be a valid integer, unable to parse .*; found 'ten'. "
                "Change it, or leave it out for 3.",
            ),
            (
                {"train": {"epochs": 1.5}},
                "'train.epochs' must be a valid integer, .* found 1.5. Change it, or leave it out for 3.",
            ),
            (
                {"train": {"learning_rate": 0}},
                "'train.learning_rate' must be greater than 0; found 0. Change it, or leave it out for 0.1.",
            ),
            ({"train": 3}, "'train' must be a valid dictionary .*; found 3. Change it."),
            (
                {"sizes": ["a", "b"]},
                r"'sizes.0' must be a valid integer, .* found 'a' \(and 1 more like it\). Change it.",
            ),
            ({"sizes": []}, "'sizes' must have at least 1 item .*; found \\[\\]. Change it."),
            (
                {"name": "A b"},
                r"'name' must match pattern '\^\[a-z\]\+\$'; found 'A b'. "
                "Change it, or leave it out for 'x'.",
            ),
            ({"audits": 5}, r"'audits' must be a valid string; found 5. Put it in quotes."),
            ({"limit": "high"}, "'limit' must be a valid number, .* found 'high'. Change it, or leave it out."),
        ],
    )
    def test_a_wrong_value_is_named_with_what_was_expected_and_found(self, values, expected):
        assert re.fullmatch(expected, sentence(values))

    def test_a_missing_value(self):
        class Needs(BaseModel):
            source: str

        with pytest.raises(InputError, match="w: 'source' is missing; give it a value"):
            validate(Needs, {}, where="w")

    def test_what_was_found_is_shown_in_short_however_large_it_is(self):
        nested: list = [1]
        for _ in range(40):
            nested = [nested] * 10  # printed whole it would have 10^40 numbers
        assert len(sentence({"name": nested})) < 500
        assert len(sentence({"name": "x" * 100_000 + "!"})) < 500


class TestFactories:
    def test_values_are_coerced_and_only_those_given_are_passed_on(self):
        assert check(Loss, {"gamma": 1}, where="loss") == {"gamma": 1.0}
        assert isinstance(check(Loss, {"gamma": 1}, where="loss")["gamma"], float)
        assert check(Loss, {}, where="loss") == {}

    def test_only_keyword_parameters_are_options(self):
        assert option_names(Loss) == ["gamma", "kind", "names"]
        with pytest.raises(InputError, match="'location' is not an option here"):
            check(Loss, {"location": "x"}, where="loss")

    def test_it_is_built_with_its_defaults(self):
        made = build(Loss, {"kind": "hard", "names": ["a"]}, where="loss")
        assert (made.gamma, made.kind, made.names) == (2.0, "hard", ["a"])

    @pytest.mark.parametrize(
        ("values", "words"),
        [
            ({"gama": 1}, r"loss: 'gama' is not an option here\. Did you mean 'gamma'\?"),
            ({"gamma": 11}, "loss: 'gamma' must be less than or equal to 10; found 11"),
            ({"gamma": float("nan")}, "loss: 'gamma' must be"),
            ({"kind": "sotf"}, "loss: 'kind' must be 'soft' or 'hard'; found 'sotf'"),
            ({"names": "a"}, "loss: 'names' must be a valid list; found 'a'"),
        ],
    )
    def test_mistakes_are_said_before_anything_is_built(self, values, words):
        with pytest.raises(InputError, match=words):
            build(Loss, values, where="loss")

    def test_functions_have_options_too(self):
        def source(location: str, *, size: int = 28) -> tuple[str, int]:
            return location, size

        assert option_names(source) == ["size"]
        assert check(source, {"size": "64"}, where="source") == {"size": 64}

    def test_an_input_error_is_a_value_error(self):
        with pytest.raises(ValueError, match="gama"):
            build(Loss, {"gama": 1}, where="loss")
