"""Maps of the evidence held against the masks of a cohort, one row for each kind of map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trueread.audit.finding import warnings_in
from trueread.audit.localisation import Localisation
from trueread.audit.performance import measure
from trueread.audit.subject import Subject
from trueread.cohort.cohort import Cohort
from trueread.paper.bench import Arm, Bench
from trueread.progress import say
from trueread.report.evidence import write_strip
from trueread.report.pictures import UNFIT
from trueread.report.words import slug

How = Literal["grad-cam", "grad-cam++", "occlusion"]
HOWS: tuple[How, ...] = ("grad-cam", "grad-cam++")


@dataclass(frozen=True)
class View:
    """One kind of map. layer: a tap, or "auto". images: at most, of the test."""

    how: How
    layer: str = "auto"
    images: int = 300


def cams(*earlier: str) -> tuple[View, ...]:
    """Grad-CAM and Grad-CAM++ of the last layer and of some earlier ones."""
    return tuple(View(how, layer) for layer in ("auto", *earlier) for how in HOWS)


@dataclass(frozen=True)
class Ask:
    """Whose maps are held against the masks of a cohort. views: kinds of maps, by backbone. methods: that train it.
    train: options of `TrainConfig`.
    """

    cohort: str
    views: Mapping[str, tuple[View, ...]]
    methods: tuple[str, ...] = ("erm",)
    train: Mapping[str, Any] = field(default_factory=dict)


def located(ask: Ask, cohort: Cohort, folder: Path, *, seeds: int, resamples: int) -> list[dict[str, Any]]:
    """The localisation audit of each method, backbone and kind of map, whose pictures are written into the folder."""
    rows = []
    for backbone, views in ask.views.items():
        bench = Bench(folder / backbone, train={"backbone": backbone, **ask.train}, seeds=seeds, resamples=resamples)
        for method in ask.methods:
            subject = bench.subject(Arm(method, method), cohort)
            auroc = measure(subject, "auroc").estimate.to_json()
            for view in views:
                who = {"cohort": cohort.name, "method": method, "backbone": backbone}
                rows.append({**who, "auroc": auroc, **_row(subject, view, folder, f"{method}-{backbone}")})
    return rows


def _row(subject: Subject, view: View, folder: Path, who: str) -> dict[str, Any]:
    found = Localisation(images=view.images, how=view.how, layer=view.layer).run(subject)
    unfit = UNFIT if warnings_in(found.notes) else ""
    for strip in found.strips:
        write_strip(strip, folder / f"places-{slug(who)}-{slug(view.how)}-{slug(view.layer)}{unfit}.png")
    values = {k: m.estimate.to_json() for k, m in found.measures.items()}
    say(f"{who}, {view.how}, {view.layer}: " + ", ".join(f"{k} {values[k]['value']:.3f}" for k in ("pointing", "mass")))
    return {"how": view.how, "layer": view.layer, "measures": values, "notes": found.notes}
