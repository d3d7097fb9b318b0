"""Which corruptions belong to which images, and how strong each of the five levels is."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from trueread.errors import InputError, unknown

LEVELS = (1, 2, 3, 4, 5)


@cache
def facts() -> dict[str, Any]:
    """What lists.yaml says: families, modalities, lists, alexnet."""
    return yaml.safe_load(files("trueread.shift.corruption").joinpath("lists.yaml").read_text())


def set_for(name: str) -> str:
    """The set of MedMNIST-C whose list fits.

    name: of a set ("derma"), of a MedMNIST cohort ("dermamnist", "organcmnist"), or a modality ("dermatoscopy").
    Raises InputError for a name that is none of them, as the modalities "any", "mra" and "electron microscopy", for
    which the benchmark has no list: name a set for them.
    """
    known = facts()
    if name in known["lists"]:
        return name
    if name in known["alexnet"]:
        return known["alexnet"][name]["list"]
    if name in known["modalities"]:
        return known["modalities"][name]
    names = [*known["lists"], *known["modalities"]]
    raise unknown("set or modality with a list of corruptions", name, dict.fromkeys(names))


def corruptions_for(name: str) -> tuple[str, ...]:
    """The names of the corruptions of a set, a MedMNIST cohort or a modality, in the order of MedMNIST-C."""
    return tuple(facts()["lists"][set_for(name)])


def parameters(set_name: str, name: str, level: int) -> tuple[float, ...]:
    """The numbers of a corruption at a level, 1 to 5, as lists.yaml explains them.

    Raises InputError for a corruption that the set does not have, and for another level.
    """
    listed = facts()["lists"][set_name]
    if name not in listed:
        raise unknown(f"corruption of '{set_name}'", name, listed)
    if level not in LEVELS:
        raise InputError(f"the level of a corruption is 1, 2, 3, 4 or 5; found {level!r}.")
    values = listed[name][LEVELS.index(level)]
    return tuple(values) if isinstance(values, list) else (values,)


def family_of(name: str) -> str:
    """digital, noise, blur, colour or task-specific. Raises InputError for an unknown corruption."""
    families = {corruption: family for family, members in facts()["families"].items() for corruption in members}
    if name not in families:
        raise unknown("corruption", name, families)
    return families[name]
