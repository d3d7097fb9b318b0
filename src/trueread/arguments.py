"""What was typed on the command line: values by key, and the command itself for the record."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from trueread.errors import InputError
from trueread.files import without_folders


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
    return shlex.join(["trueread", *map(without_folders, arguments)])
