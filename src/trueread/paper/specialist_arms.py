"""The arms of the protocol on planted shortcuts: the method, its controls, and what one would try otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trueread.paper.trial import Arm

ERM, MIXED, TEACHER, FINAL, OURS, CEILING = (
    "erm",
    "erm + clean",
    "teacher alone",
    "final layer",
    "specialist",
    "ceiling",
)
CORE = (ERM, MIXED, TEACHER, FINAL, OURS, CEILING)
CHOSEN: Mapping[str, Any] = {"alpha": 1.0, "beta": 5.0, "start": "random"}  # by benchmarks/specialist_choice.py


def arms(teacher: str) -> list[Arm]:
    """All arms, in the order of the table. teacher: folder of the teacher of each seed, "{seed}" in it."""
    return [
        Arm(ERM, "erm", on="biased"),
        Arm(MIXED, "erm"),
        Arm(TEACHER, "clean-only"),
        Arm(
            FINAL, "final-layer-distillation", {"teacher": teacher, "alpha": CHOSEN["alpha"], "start": CHOSEN["start"]}
        ),
        Arm(OURS, "specialist", {"teacher": teacher, **CHOSEN}),
        Arm("mixup", "mixup"),
        Arm("groupdro", "groupdro"),
        Arm("jtt", "jtt"),
        Arm("dfr", "dfr"),
        Arm(CEILING, "erm", on="unbiased"),
    ]


def gap_closed(rows: Sequence[Mapping[str, Any]], arm: str, key: str) -> float:
    """Share of the way from plain training on the biased images to training without any bias; nan where there is none
    to go (less than 0.01).
    """
    value = {row["arm"]: row["measures"][key]["value"] for row in rows}
    way = value[CEILING] - value[ERM]
    return float((value[arm] - value[ERM]) / way) if way > 0.01 else float("nan")
