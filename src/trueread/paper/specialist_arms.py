"""The arms of the protocol on planted shortcuts: the method, its controls, and what one would try otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trueread.paper.bench import Arm

ERM, MIXED, TEACHER, CEILING = "erm", "erm + clean", "teacher alone", "ceiling"
FINAL, UNLABELLED, OURS = "final layer", "final layer, no labels", "specialist"
CORE = (ERM, MIXED, TEACHER, FINAL, UNLABELLED, OURS, CEILING)
CHOSEN: Mapping[str, Any] = {"alpha": 0.5, "beta": 25.0, "start": "auto"}  # see benchmarks/specialist_choice.py


def arms(teacher: str) -> list[Arm]:
    """All arms, in the order of the table. teacher: folder of the teacher of each seed, "{seed}" in it."""
    return [
        Arm(ERM, "erm", on="biased"),
        Arm(MIXED, "erm"),
        Arm(TEACHER, "clean-only"),
        Arm(FINAL, "final-layer-distillation", {"teacher": teacher, **_but(CHOSEN, "beta")}),
        Arm(UNLABELLED, "final-layer-distillation", {"teacher": teacher, **_but(CHOSEN, "beta"), "alpha": 1.0}),
        Arm(OURS, "specialist", {"teacher": teacher, **CHOSEN}),
        Arm("mixup", "mixup"),
        Arm("groupdro", "groupdro"),
        Arm("jtt", "jtt"),
        Arm("dfr", "dfr"),
        Arm(CEILING, "erm", on="unbiased"),
    ]


def _but(options: Mapping[str, Any], left_out: str) -> dict[str, Any]:
    return {k: v for k, v in options.items() if k != left_out}


def gap_closed(rows: Sequence[Mapping[str, Any]], arm: str, key: str) -> float:
    """Share of the way from plain training on the biased images to training without any bias; nan where there is none
    to go (less than 0.01).
    """
    value = {row["arm"]: row["measures"][key]["value"] for row in rows}
    way = value[CEILING] - value[ERM]
    return float((value[arm] - value[ERM]) / way) if way > 0.01 else float("nan")
