"""The README's table: each remedy beside plain training and the best of its alternatives, all on the same cohort."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pages import line, rule, shown

from trueread import Estimate
from trueread.paper.curvssl import CHOSEN, COLUMNS, SCRATCH

Json = dict[str, Any]
HEAD = ("what goes wrong", "measured", "plain training", "remedy", "best beside it")


@dataclass(frozen=True)
class Question:
    """A line. name: of the result file. wrong, measured: for people. where: what its rows have in common. no_remedy:
    arms that know what nobody does, or that are the remedy under another name. table: of the file.
    """

    name: str
    wrong: str
    measured: str
    where: Json
    plain: str
    remedy: str
    key: str
    no_remedy: Sequence[str] = ()
    table: str = "rows"


CONTROLS = ("d_rand", "d_det", "noise (control)", "shuffled (control)", "adversarial, 0.25 epsilon")
KNOWING = (
    "true labels", "step-e, soft", "step-e, share told", "erm, epoch by validation", "step-e, epoch by validation",
)  # fmt: skip


def _shortcut(cue: str, wrong: str) -> Question:
    where = {"cohort": "ham10000", "cue": cue}
    measured = "accuracy of the worst group of class and mark"
    return Question(
        "specialist-cpu", wrong, measured, where, "erm + clean", "specialist", "worst-group", ("erm", "ceiling")
    )


def _labels(setting: str, wrong: str) -> Question:
    where = {"setting": f"ham10000-seven-{setting}-long"}
    return Question("step-e-cpu", wrong, "balanced accuracy", where, "erm", "step-e", "balanced-accuracy", KNOWING)


QUESTIONS = (
    _shortcut("square", "it reads a planted square"),
    _shortcut("gaussian-noise", "it reads planted noise"),
    Question(
        "nonrobust-cpu", "it reads patterns nobody sees", "balanced accuracy under attack",
        {"cohort": "ham10000-seven"}, "standard", "adversarial, 1 epsilon", "robust", CONTROLS,
    ),
    Question(
        "nonrobust-cpu", "the same: what the remedy costs", "balanced accuracy without attack",
        {"cohort": "ham10000-seven"}, "standard", "adversarial, 1 epsilon", "clean", CONTROLS,
    ),
    _labels("symmetric-0.2", "18 % of the labels are wrong, at random"),
    _labels("symmetric-0.4", "39 %, at random"),
    _labels("class-dependent-0.2", "18 %, each class called the next one"),
    _labels("class-dependent-0.4", "39 %, each class called the next one"),
    Question(
        "danil-cpu", "classes look alike, some are rare", "macro F1",
        {"cohort": "ham10000-seven"}, "erm", "danil", "macro-f1", ("danil, feature",),
    ),
    Question(
        "curvssl-cpu", "a tenth of the labels", "balanced accuracy",
        {"cohort": "ham10000-seven", "share": 0.1}, SCRATCH, CHOSEN, COLUMNS[0], (), "tuned",
    ),
)  # fmt: skip


def table(result_of: Callable[[str], Json]) -> str:
    """Markdown. result_of: the result file of a name, {} where there is none."""
    lines = [
        "Skin lesions (HAM10000) on 2 CPU cores, 3 seeds: 95 % intervals over patients, ± standard deviation over",
        "seeds. Small on purpose, 800 to 2,000 training images of 28 to 64 pixels, so that rows cannot be compared",
        "with each other. Plain training has the same images as the remedy. The best beside it is picked by these",
        "very numbers, which flatters it. A remedy that does not pay is shown like one that does.",
        "",
        line(HEAD),
        rule(len(HEAD)),
    ]
    return "\n".join([*lines, *(_line(q, found) for q in QUESTIONS if (found := result_of(q.name)))])


def _line(asked: Question, result: Json) -> str:
    rows = [r for r in result[asked.table] if all(r[k] == v for k, v in asked.where.items())]
    values = {r["arm"]: Estimate.from_json(r["measures"][asked.key]) for r in rows}
    plain, remedy = values[asked.plain], values[asked.remedy]
    others = {a: v for a, v in values.items() if a not in (asked.plain, asked.remedy, *asked.no_remedy)}
    best = max(others, key=lambda a: others[a].value)
    cells = [f"{asked.remedy}: {shown(remedy)}", f"{best}: {shown(others[best])}"]
    return line([asked.wrong, asked.measured, shown(plain), *cells])
