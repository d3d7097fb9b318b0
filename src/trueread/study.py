"""The study file: what is studied, how it is trained, what is asked; typed, so that a slip of the pen is an error."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, field_validator, model_validator

from trueread.errors import InputError
from trueread.files import write_text
from trueread.options import validate
from trueread.plain_yaml import load_plain, problem_of
from trueread.report.words import slug
from trueread.training.config import TrainConfig

OTHER_BREAKS = "\x85\u2028\u2029"  # unless escaped they are read back as spaces
Seed = Annotated[int, Field(ge=0, lt=2**63)]

ADDS_WORK = {"methods", "seeds", "check", "audits", "thresholds", "description", "resamples", "explain"}
WHERE = {"device", "threads", "cuda_graph"}  # it trains


class DataSection(BaseModel):
    """Where the cohort comes from. Every other key is an option of the source (size, patient, label, ...)."""

    model_config = ConfigDict(extra="allow")

    source: str

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class SplitSection(BaseModel):
    """How the cohort is divided, by patient. file: a split.csv to use again instead."""

    model_config = ConfigDict(extra="forbid")

    val: Annotated[float, Field(gt=0, lt=1)] = 0.15
    test: Annotated[float, Field(gt=0, lt=1)] = 0.15
    seed: Seed = 0
    file: str | None = None

    @model_validator(mode="after")
    def _leaves_something(self) -> SplitSection:
        if self.val + self.test >= 1:
            raise ValueError(
                f"val + test must leave something to train on; found {self.val} + {self.test}; lower one of them"
            )
        return self


class PlantSection(BaseModel):
    """A shortcut put into the images, to try remedies on: biased in training and validation, absent from the test.

    See `trueread.shift.planting.planting`. Every other key is an option of the cue.
    """

    model_config = ConfigDict(extra="allow")

    cue: str
    prevalence: Annotated[float, Field(ge=0, le=1)] | dict[str, Annotated[float, Field(ge=0, le=1)]] = 0.95
    clean: Annotated[float, Field(ge=0, le=1)] = 0.0
    clean_arrangement: Literal["clean", "balanced"] = "clean"
    seed: Seed = 0

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class LabelNoiseSection(BaseModel):
    """Labels of training and validation made wrong, to try remedies on; see `trueread.shift.label_noise`."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["symmetric", "class-dependent", "annotators"]
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.2
    by: Literal["image", "patient"] = "image"
    n_annotators: Annotated[int, Field(ge=1, le=1000)] = 5
    seed: Seed = 0


class MethodSection(BaseModel):
    """A method by name, or several joined by a plus sign. Every other key is an option of it."""

    model_config = ConfigDict(extra="allow")

    name: str
    label: str | None = Field(default=None, description="its name in tables; needed when a method appears twice")

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    @property
    def title(self) -> str:
        return self.label or self.name


class Study(BaseModel):
    """A whole study: check -> train methods x seeds -> audit -> compare -> report.

    methods: the first one is the baseline that the others are compared with. seeds: a count or a list.
    decisions: a CSV file of what a person decided about doubtful labels (see `with_decisions`).
    audits: "all" or a list of names or mappings with options. thresholds: over the packaged ones, by audit.
    """

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)] = "study"  # a folder's too
    description: str = ""
    data: DataSection
    split: SplitSection = SplitSection()
    label_noise: LabelNoiseSection | None = None
    decisions: str | None = None
    plant: PlantSection | None = None
    check: bool = True
    train: TrainConfig = TrainConfig()
    methods: Annotated[list[MethodSection], Field(min_length=1)] = Field(
        default_factory=lambda: [MethodSection(name="erm")]
    )
    seeds: list[Seed] = [0]
    audits: str | list[str | dict[str, Any]] = "all"
    thresholds: dict[str, FiniteFloat | None] = Field(default_factory=dict)
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 1000
    explain: bool = True

    @field_validator("data", mode="before")
    @classmethod
    def _bare_source(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value

    @field_validator("plant", mode="before")
    @classmethod
    def _bare_cue(cls, value: Any) -> Any:
        return {"cue": value} if isinstance(value, str) else value

    @field_validator("label_noise", mode="before")
    @classmethod
    def _bare_kind(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @field_validator("methods", mode="before")
    @classmethod
    def _bare_names(cls, value: Any) -> Any:
        value = [value] if isinstance(value, (str, Mapping)) else value
        return [{"name": v} if isinstance(v, str) else v for v in value] if isinstance(value, list) else value

    @field_validator("seeds", mode="before")
    @classmethod
    def _count(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            if not 1 <= value <= 1000:
                raise ValueError(f"a number of seeds must be 1 to 1000; found {value}; give a list for single seeds")
            return list(range(value))
        return value

    @model_validator(mode="after")
    def _distinct(self) -> Study:
        titles = [m.title for m in self.methods]
        if len(set(titles)) < len(titles):
            repeated = next(t for t in titles if titles.count(t) > 1)
            raise ValueError(f"the method '{repeated}' appears twice; give one of them a label of its own")
        folders = {slug(t): t for t in reversed(titles)}
        hidden = next((t for t in titles if folders[slug(t)] != t), None)
        if hidden is not None:
            raise ValueError(
                f"the methods '{folders[slug(hidden)]}' and '{hidden}' would share the folder '{slug(hidden)}'; "
                "give one of them another label"
            )
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                f"seeds must be distinct and at least one; found {self.seeds}; name each once, or give their number"
            )
        return self


def load_study(path: str | Path) -> Study:
    """The study in a YAML file. Paths in it are relative to where the command runs, as on the command line.

    Raises InputError when the file is missing, is not YAML, or has a key or value that the schema does not know.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no study file {path}; check the path, or write one (studies/ has examples).")
    try:
        content = load_plain(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not valid YAML: byte {error.start} is no UTF-8 text; save it as UTF-8.") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {problem_of(error)}; mend it there.") from None
    if not isinstance(content, dict):
        raise InputError(
            f"{path} must be a YAML mapping with at least `data:`; found {type(content).__name__}; write "
            "`data: phantom`, say (studies/ has examples)."
        )
    content.setdefault("name", plain_name(path.stem))
    return validate(Study, content, where=str(path))


def identity(study: Study) -> dict[str, Any]:
    """What makes a study the same, by key: all but what adds work, and where it runs."""
    return study.model_dump(mode="json", exclude={**dict.fromkeys(ADDS_WORK, True), "train": WHERE})


def plain_name(text: str) -> str:
    """A name that a study or folder can have, from a path or a source: "folder-xrays" from "folder:xrays/"."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text)[-80:].strip("-._") or "study"


def save_study(study: Study, path: Path) -> None:
    """Write the resolved study, every default spelled out, so that the run can be repeated from it alone; whole or not
    at all.
    """
    content = study.model_dump(mode="json")
    breaks = any(mark in json.dumps(content, ensure_ascii=False) for mark in OTHER_BREAKS)
    write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=not breaks, width=110))
