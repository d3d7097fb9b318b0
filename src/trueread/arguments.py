"""What is typed on the command line: what several commands take, values by key, and the command for the record."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from trueread.errors import InputError
from trueread.files import without_folders

DATA_HELP = "phantom, medmnist:NAME[@SIZE], folder:PATH, csv:PATH, dicom:PATH, saved:PATH, or a path"
AUDITS_HELP = "names separated by commas; all: the standard ones; all,localisation: these and one that takes longer"
SET_HELP = "option of the data source, as key=value; repeat for more (size=64, patient=lesion_id)"
OPTION_HELP = "option of the method, as key=value (gamma=1); of composed ones, per name (focal={gamma: 1})"
MODEL_HELP = "folder of a saved classifier, or of a run that holds one"
TRAIN_HELP = "option of the training loop, as key=value (epochs=20, backbone=resnet18)"

Data = Annotated[str, typer.Argument(metavar="DATA", help=DATA_HELP)]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help=MODEL_HELP)]
DataOptions = Annotated[list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help=SET_HELP)]
TrainOptions = Annotated[list[str] | None, typer.Option("--train", "-t", metavar="KEY=VALUE", help=TRAIN_HELP)]
MethodOptions = Annotated[list[str] | None, typer.Option("--option", "-x", metavar="KEY=VALUE", help=OPTION_HELP)]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="folder for the results")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON on stdout, for machines")]
Junit = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="write the verdicts as JUnit XML")]
Gate = Annotated[bool, typer.Option("--gate", help="exit with 1 when an audit fails")]


def pairs(values: Sequence[str] | None) -> dict[str, Any]:
    """{"size": 64} from ["size=64"]. Raises InputError for what has no key or no equals sign."""
    found = {}
    for value in values or ():
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise InputError(f"'{value}' must be KEY=VALUE, for example size=64; write it so.")
        found[key.strip().replace("-", "_")] = meant(text)
    return found


def meant(text: str) -> Any:
    """The number, truth value, list, mapping or null that the text looks like, read as YAML; otherwise the text itself,
    because a regular expression may be YAML by accident.
    """
    import yaml

    from trueread.plain_yaml import load_plain

    try:
        value = load_plain(text)
    except yaml.YAMLError:
        return text
    looks_like_it = isinstance(value, (bool, int, float)) or text in ("null", "~") or text[:1] in tuple("[{\"'")
    return value if looks_like_it else text


def typed_command(arguments: Sequence[str]) -> str:
    """The command as it was typed, for the record, with names instead of absolute paths: reports are shared."""
    return shlex.join(["trueread", *map(without_folders, arguments)])
