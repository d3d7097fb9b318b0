"""Several methods in one figure: the same figure of each overlaid, and everyone's learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trueread.report.words import options_text

Json = dict[str, Any]

METHOD, FEW, PLAIN = "method", "few-labels", "erm"


def overlay(figures: Mapping[str, Json], *, order: Sequence[str]) -> Json | None:
    """The same figure of several methods as one, a colour per method; None when they are better drawn side by side.

    figures: by method name, all of one name and kind. order: all methods of the run, which decides the colours.
    Side by side: matrices, figures whose lines already tell groups apart, and figures that differ in what they show.
    """
    first = next(iter(figures.values()))
    same = all(
        (f["kind"], f.get("x"), f.get("y"), f["data"]["columns"])
        == (first["kind"], first.get("x"), first.get("y"), first["data"]["columns"])
        for f in figures.values()
    )
    grouped = any(len(_groups(f)) > 1 for f in figures.values())
    if not same or grouped or first["kind"] not in ("line", "interval", "bar") or METHOD in first["data"]["columns"]:
        return None
    rows = [[name, *row] for name, f in figures.items() for row in f["data"]["rows"]]
    return first | {
        "colour": METHOD,
        "dash": None,
        "group": None,
        "order": list(order),
        "data": {"columns": [METHOD, *first["data"]["columns"]], "rows": rows},
    }


def _groups(figure: Json) -> set[str]:
    group = figure.get("group")
    if not group or group not in figure["data"]["columns"]:
        return set()
    position = figure["data"]["columns"].index(group)
    return {str(row[position]) for row in figure["data"]["rows"]}


def learning_curves(methods: Sequence[Json]) -> list[Json]:
    """Loss and validation metrics against the epoch: one line per method and seed, a dot on the epoch that was kept.

    methods: as in the summary. Methods without a history (models trained elsewhere) are left out; [] when none has one.
    """
    names = [m["name"] for m in methods]
    curves = (
        (
            "loss",
            "Loss",
            "loss",
            (("train_loss", "training"), ("val_loss", "validation")),
        ),
        ("val-auroc", "Validation AUROC", "AUROC", (("val_auroc", "validation"),)),
        (
            "val-balanced-accuracy",
            "Validation balanced accuracy",
            "balanced accuracy",
            (("val_balanced_accuracy", "validation"),),
        ),
    )
    own = " Training loss is the method's own and includes augmentation; validation loss is cross-entropy without it."
    figures = []
    for name, title, label, wanted in curves:
        rows = [row for m in methods for h in m.get("histories") or [] for row in _curve(m["name"], h, wanted)]
        if not any(row[4] is not None for row in rows):
            continue
        seeds = max(len(m.get("histories") or []) for m in methods)
        each = "One line per seed; the dot is" if seeds > 1 else "The dot is"
        figures.append(
            {
                "name": name,
                "title": title,
                "kind": "line",
                "x": "epoch",
                "y": "value",
                "group": "seed",
                "colour": METHOD,
                "dash": "split" if len(wanted) > 1 else None,
                "mark": "kept",
                "order": names,
                "x_label": "epoch",
                "y_label": label,
                "caption": f"{each} the epoch whose weights were kept.{own if name == 'loss' else ''}",
                "data": {"columns": [METHOD, "seed", "split", "epoch", "value", "kept"], "rows": rows},
            }
        )
    return figures


def _curve(method: str, history: Json, wanted: Sequence[tuple[str, str]]) -> list[list[Any]]:
    """Rows of method, seed, split, epoch, value, kept; the dot goes on the last wanted column, validation's."""
    table = history["table"]
    at = {c: i for i, c in enumerate(table["columns"])}
    return [
        [
            method,
            history.get("seed", 0),
            split,
            row[at["epoch"]],
            row[at[column]],
            bool(row[at["selected"]]) and column == wanted[-1][0],
        ]
        for column, split in wanted
        if column in at and "epoch" in at and "selected" in at
        for row in table["rows"]
    ]


def label_efficiency(methods: Sequence[Json]) -> list[Json]:
    """Balanced accuracy on the test images against the number of labelled ones, evenly spaced, a line per way of
    beginning; [] unless methods of the study differ in how many labels they were given (see the method few-labels).
    Methods that were given all of them are a line's last point when they are otherwise trained like its others.
    """
    found = [(told, m) for m in methods if (told := _labels_told(m)) is not None]
    lines = dict.fromkeys(_begun(m) for (few, _), m in found if few)
    names = _named(list(lines))
    rows = [
        [names[key], labelled, estimate]
        for (_, labelled), m in found
        if (key := _begun(m)) in names and (estimate := _balanced_accuracy(m)) is not None
    ]
    if len({row[1] for row in rows}) < 2:
        return []
    return [
        {
            "name": "label-efficiency",
            "title": "Balanced accuracy by labels",
            "kind": "line",
            "x": "labelled images",
            "y": "balanced accuracy",
            "group": "begun with",
            "x_label": "labelled training images",
            "y_label": "balanced accuracy",
            "caption": "On the test images; of the images without a label a pretraining still learns.",
            "data": {
                "columns": ["begun with", "labelled images", "balanced accuracy"],
                "rows": [[begun, f"{n:,}", v] for begun, n, v in sorted(rows, key=lambda row: (row[1], row[0]))],
            },
        }
    ]


def _labels_told(method: Json) -> tuple[bool, int] | None:
    """Whether the method few-labels decided how many images have a label, and how many; None when nobody says."""
    told = method.get("report") or {}
    few = told.get("labelled_images", (told.get(FEW) or {}).get("labelled_images"))
    n = few if few is not None else _trained(method).get("train_images")
    return None if n is None else (few is not None, int(n))


def _balanced_accuracy(method: Json) -> Json | None:
    """Its estimate on the test images, where it was measured."""
    measures: Json = next((f["measures"] for f in method["findings"] if f["audit"] == "performance"), {})
    return measures["balanced-accuracy"]["estimate"] if "balanced-accuracy" in measures else None


def _trained(method: Json) -> Json:
    return (method.get("card") or {}).get("training") or {}


def _begun(method: Json) -> tuple[str, str, str]:
    """What was done besides choosing labels, with which options, and the first weights."""
    trained = _trained(method)
    name = str(trained.get("method", method["name"]))
    parts = [p for p in name.split("+") if p not in (FEW, PLAIN)]
    given = trained.get("method_options") or {}
    each = given if "+" in name else {name: given}
    options = {part: each[part] for part in parts if each.get(part)}
    return "+".join(parts), options_text(options), str((method.get("card") or {}).get("weights", "none"))


def _named(lines: Sequence[tuple[str, str, str]]) -> dict[tuple[str, str, str], str]:
    """A short name for each line, with its options or weights where it takes them to tell two apart."""

    def start(weights: str) -> str:
        return "no pretraining" if weights.startswith("none") else weights.partition(" (")[0]

    short = {line: line[0].replace("+", " + ") or start(line[2]) for line in lines}
    named = {}
    for line, name in short.items():
        alike = [other for other, theirs in short.items() if theirs == name and other != line]
        options, weights = (any(other[i] != line[i] for other in alike) for i in (1, 2))
        named[line] = (line[1] if options and line[1] else name) + (f", {line[2]}" if weights else "")
    return named
