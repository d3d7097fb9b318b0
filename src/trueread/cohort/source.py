"""Where cohorts come from: `load_cohort("folder:PATH")` and the registry of sources behind it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from trueread.cohort.cohort import Cohort
from trueread.errors import InputError
from trueread.options import check
from trueread.registry import Registry

SOURCES: Registry[Cohort] = Registry("source", "sources", package="trueread.cohort")
source = SOURCES.register


def load_cohort(data: str, /, **values: Any) -> Cohort:
    """The cohort that `data` names, read and checked; not yet split if the data do not come with a split.

    data: "SOURCE" or "SOURCE:LOCATION": `phantom`, `medmnist:breastmnist@28`, `folder:PATH`, `csv:PATH`. A bare path
        to a folder or to a .csv file is understood too. $NAME stands for an environment variable.
    values: keyword options of that source (`size=64`, `patient="lesion_id"`, ...), checked against its annotations.
    Raises InputError for an unknown source or option, and for whatever the source finds wrong.
    """
    if any("\0" in text for text in (data, *values.values()) if isinstance(text, str)):
        raise InputError("the data or an option of them holds a zero byte, which no file name can; remove it.")
    name, location = parse_source(expand_variables(data))
    factory = SOURCES.get(name).factory
    return factory(location, **check(factory, values, where=f"source '{name}'"))


def expand_variables(text: str) -> str:
    """`text` with $NAME and ${NAME} replaced. Raises InputError for a variable that is not set."""
    expanded = os.path.expandvars(text)
    left = re.search(r"\$(\w+|\{\w+\})", expanded)
    if left:
        raise InputError(
            f"'{text}' names the environment variable {left[0]}, which is not set; set it to the data's folder."
        )
    return expanded


def parse_source(data: str) -> tuple[str, str]:
    """("folder", "PATH") from "folder:PATH"; the source of a bare existing path is told by what lies there."""
    name, colon, location = data.partition(":")
    if colon and len(name) > 1:  # one letter before a colon is a Windows drive
        return name, location
    path = Path(data).expanduser()
    if path.is_dir():
        return "folder", data
    if path.suffix.lower() == ".csv":
        return "csv", data
    if any(mark in data for mark in "/\\."):
        raise InputError(
            f"'{data}' is neither a folder nor a .csv file; check the path, or name the source (`folder:{data}`)."
        )
    return data, ""
