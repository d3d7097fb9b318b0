"""What was typed on the command line: values by key, and the command itself for the record."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trueread.errors import InputError


def pairs(values: Sequence[str] | None) -> dict[str, Any]:
    """{"size": 64} from ["size=64"]. Raises InputError for what has no key or no equals sign."""
    found = {}
    for value in values or ():
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise InputError(f"'{value}' must be KEY=VALUE, for example size=64.")
        found[key.strip().replace("-", "_")] = meant(text)
    return found


def meant(text: str) -> Any:
    """The number, truth value, list, mapping or null that the text looks like, read as YAML; otherwise the text itself,
    because a regular expression may be YAML by accident.
    """
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    looks_like_it = isinstance(value, (bool, int, float)) or text in ("null", "~") or text[:1] in tuple("[{\"'")
    return value if looks_like_it else text


def typed_command(arguments: Sequence[str]) -> str:
    """The command as it was typed, for the record, with names instead of absolute paths: reports are shared."""
    return shlex.join(["trueread", *map(_without_folders, arguments)])


def _without_folders(argument: str) -> str:
    """ "folder:kermany" from "folder:/home/somebody/kermany"."""
    start = re.match(r"([\w-]+[=:])*", argument).end()  # type: ignore[union-attr]
    path = Path(argument[start:]).expanduser()
    is_folder_of_somebody = path.is_absolute() and len(path.parts) > 2 and path.parent.exists()
    return argument[:start] + path.name if is_folder_of_somebody else argument
