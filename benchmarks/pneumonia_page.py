"""The section of docs/results.md on pneumonia: backbones beside published ones, the recipe taken apart, maps."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from pages import held, line, made_by, rule, shown, signed

from trueread import Estimate
from trueread.audit.finding import warnings_in
from trueread.paper.pneumonia import COLUMNS, LESION, LOCALISATION, MAPS, REMEDY, SPLIT
from trueread.stats import METRICS

Json = dict[str, Any]
PUBLISHED = {  # accuracy, F1, AUROC, sensitivity, specificity of 906 images, one seed
    "resnet18": (0.981, 0.987, 0.9971, 0.9895, 0.9578),
    "efficientnet_b0": (0.979, 0.986, 0.9971, 0.9836, 0.9662),
    "mobilenetv3_large_100": (0.974, 0.982, 0.9971, 0.9746, 0.9705),
    "vit_base_patch16_224": (0.974, 0.982, 0.9947, 0.9806, 0.9536),
    "mobilenetv2_100": (0.971, 0.980, 0.9946, 0.9795, 0.9494),
    "resnet50": (0.965, 0.976, 0.9952, 0.9746, 0.9367),
}
TITLES = {
    "insertion-over-random": "insertion over a random order", "deletion-over-random": "deletion over a random order",
    "random-weights": "likeness to random weights", "under-noise": "likeness under noise", "empty": "empty maps",
}  # fmt: skip
ASKED = {
    LOCALISATION: "Of a diagnosis: which of two lesions it is. A lesion lies in the middle of nearly every image.",
    LESION: "Of a lesion told from skin, in windows where it lies anywhere. Asked after the maps of a diagnosis had "
    "missed.",
    REMEDY: "Of a diagnosis, plain training beside the remedy that reads the masks of training images. Asked after the "
    "maps above had missed.",
}
PLACES = ("pointing", "mass", "overlap", "box-precision", "hit")
OVER = ("pointing-over-centre", "pointing-over-random", "mass-over-centre", "mass-over-random")


def section(result: Json) -> str:
    """Markdown of one result file."""
    setting = result["setting"]
    split = result["split"][0]
    counted = ", ".join(f"{name} {' / '.join(map(str, s['images']))}" for name, s in split.items())
    first = result["rows"][0]["weights"].partition(" (")[0]
    lines = [
        f"## {result['title']} ({result['scale']})",
        "",
        f"What the recipe and the columns are: [Protocols](papers.md#pneumonia). {setting['size']} px, first weights: "
        f"{first}; {setting['seeds']} seeds, 95 % intervals by patient. Images normal / pneumonia: {counted}; no "
        f"patient in two of them (seed {SPLIT['seed']}).",
        "",
        *_backbones(result["rows"]),
        *_abstained(result["rows"]),
        *_maps(result["rows"]),
        *_variations(result),
        *_places(result["places"]),
    ]
    return "\n".join([*lines, "", made_by(result), ""])


def _backbones(rows: list[Json]) -> list[str]:
    head = ["backbone", *(METRICS[c].title for c in COLUMNS), "published: accuracy, F1, AUROC, sens., spec."]
    lines = [line(head), rule(len(head))]
    for row in rows:
        cells = [shown(row["measures"][c]) for c in COLUMNS]
        published = PUBLISHED.get(row["backbone"])
        cells.append("-" if published is None else " / ".join(f"{v:.3f}" for v in published))
        lines.append(line([row["backbone"], *cells]))
    return lines


def _abstained(rows: list[Json]) -> list[str]:
    """What the limits of the classifiers leave out."""
    head = ["backbone", "marked as not to rely on", "balanced accuracy of the others", "of the marked"]
    lines = ["", "### When not to rely on it", "", line(head), rule(len(head))]
    for row in rows:
        found = row["abstained"]
        lines.append(line([row["backbone"], *(shown(found[k]) for k in found)]))
    return lines


def _maps(rows: list[Json]) -> list[str]:
    """What can be said of maps without masks."""
    head = ["backbone", *(TITLES[k] for k in MAPS), "from"]
    lines = ["", "### Maps without masks", "", line(head), rule(len(head))]
    for row in rows:
        cells = [shown(row["maps"][k]) if k in row["maps"] else "-" for k in MAPS]
        lines.append(line([row["backbone"], *cells, row["layer"].partition(" class, from ")[2].partition(",")[0]]))
    lines += ["", *(f"- {_faithful(row)}" for row in rows)]
    return [*lines, *(f"- {row['backbone']}: {said}" for row in rows for said in row["warnings"])]


def _faithful(row: Json) -> str:
    inserted, deleted = (Estimate.from_json(row["maps"][k]) for k in ("insertion-over-random", "deletion-over-random"))
    told = [("insertion", inserted.low > 0), ("deletion", deleted.high < 0)]
    by = [name for name, is_shown in told if is_shown]
    said = (
        f"the strongest places matter more than random ones, by {' and '.join(by) or 'neither insertion nor deletion'}"
    )
    return f"{held(bool(by))}: {row['backbone']}: {said}."


def _variations(result: Json) -> list[str]:
    if not result.get("variations"):
        return []
    keys = ("balanced-accuracy", "auroc", "accuracy", "f1")
    head = ["recipe", *(METRICS[k].title for k in keys), f"{METRICS[keys[0]].title}, more than as it is"]
    apart = {
        d["method"]: signed(Estimate.from_json(d["difference"]))
        for d in result["differences"] if d["measure"] == keys[0]
    }  # fmt: skip
    backbone = result["variations"][0]["backbone"]
    lines = ["", "### Single choices", "", f"Of {backbone}, one seed.", "", line(head), rule(len(head))]
    for row in result["variations"]:
        values = [shown(row["measures"][k]) for k in keys]
        lines.append(line([row["what"], *values, apart.get(row["what"], "-")]))
    return lines


def _places(rows: list[Json]) -> list[str]:
    """Maps against masks, and the controls they have to beat."""
    lines = ["", "### Maps against masks"]
    for part, some in groupby(rows, key=_part):
        found = list(some)
        lines += ["", ASKED[part]]
        head = [found[0]["cohort"], "AUROC", *PLACES]
        lines += ["", line(head), rule(len(head))]
        for row in found:
            cells = [_text(row, k) for k in PLACES]
            auroc = shown(row["auroc"])
            lines.append(line([_named(row), auroc, *cells]))
        head = [found[0]["cohort"], *(k.replace("-over-centre", ", over a blob in the middle").replace(
            "-over-random", ", over random weights") for k in OVER)]  # fmt: skip
        lines += ["", line(head), rule(len(head))]
        for row in found:
            cells = [_text(row, k) for k in OVER]
            lines.append(line([_named(row), *cells]))
        lines += ["", *(f"- {said}" for row in found for said in _claims(row))]
    return lines


def _part(row: Json) -> str:
    return str(row.get("part", LOCALISATION))


def _named(row: Json) -> str:
    layer = {"auto": "last layer"}.get(row["layer"], row["layer"])
    whose = row["backbone"] if row.get("method", "erm") == "erm" else f"{row['backbone']}, {row['method']}"
    return f"{whose}, {row['how']}" + ("" if row["how"] == "occlusion" else f", {layer}")


def _text(row: Json, key: str) -> str:
    return shown(row["measures"][key]) if key in row["measures"] else "-"


def _claims(row: Json) -> list[str]:
    above = all(k in row["measures"] and Estimate.from_json(row["measures"][k]).low > 0 for k in OVER)
    named = _named(row)
    warned = warnings_in(row["notes"])
    return [
        f"{held(above)}: {named}: above both controls in pointing and mass.",
        f"{held(not warned)}: {named}: fit to be shown.{''.join(f' {note}' for note in warned)}",
    ]
