"""The strips of pictures in findings: written into the run folder, and read back for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from trueread.report.evidence import write_evidence, write_image
from trueread.report.pictures import embedded
from trueread.report.summary import DATA, Json, audit_names, findings_of
from trueread.report.words import counted, slug

if TYPE_CHECKING:
    from trueread.audit.finding import Finding
    from trueread.audit.strip import Panel, Strip

FOLDER = Path("figures") / "strips"


@dataclass(frozen=True)
class PanelView:
    """One picture. Sources are data URIs; "" where there is no such layer. said: (method, or "" for all; caption)."""

    head: str
    image: str
    evidence: str
    alt: str
    said: list[tuple[str, str]]


@dataclass(frozen=True)
class StripView:
    """A strip for reading. rows: title and panels. full_colour: evidence at full colour, in `unit`, or None.
    left_out: what the page has no room for, or ""."""

    title: str
    caption: str
    columns: int
    rows: list[tuple[str, list[PanelView]]]
    full_colour: float | None = None
    left_out: str = ""
    unit: str = "logits"


def with_pictures(finding: Finding, folder: Path | None, *, method: str) -> Json:
    """The finding's JSON, with the pictures of its strips written under `folder`/figures/strips and named in it.

    A panel gets `image` and `evidence`, paths inside the folder (evidence None where there is none); a strip
    `evidence_full_colour`, in its `unit`. No pixel is in the JSON. folder: None leaves the strips out.
    """
    told = finding.to_json()
    if folder is None:
        return told | {"strips": []}
    for strip, entry in zip(finding.strips, told["strips"], strict=True):
        stem = f"{slug(method)}-{slug(finding.audit)}-{slug(strip.name)}"
        entry["evidence_full_colour"] = strip.full_colour
        for r, (panels, row) in enumerate(zip(strip.rows, entry["rows"], strict=True), start=1):
            for c, (panel, cell) in enumerate(zip(panels, row, strict=True), start=1):
                cell |= _write(panel, strip, folder, f"{stem}-{r}-{c}")
    return told


def _write(panel: Panel, strip: Strip, folder: Path, stem: str) -> Json:
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    image, evidence = FOLDER / f"{stem}.png", FOLDER / f"{stem}-evidence.png"
    write_image(panel.image, folder / image, white=strip.white)
    if panel.evidence is not None and strip.full_colour is not None:
        write_evidence(panel.evidence, folder / evidence, full_colour=strip.full_colour)
    return {"image": image.as_posix(), "evidence": None if panel.evidence is None else evidence.as_posix()}


def strip_views(summary: Json, folder: Path, *, per_kind: int | None = None) -> dict[str, list[StripView]]:
    """Every audit's strips, at most `per_kind` rows of each (None: all).

    Methods whose strips of one name show the same pictures share one, with what is said of each method below each
    picture; otherwise every method has its own.
    """
    n_methods = len(summary["methods"])
    found: dict[str, list[StripView]] = {}
    for audit in audit_names(summary):
        by_name: dict[str, dict[str, StripView]] = {}
        for method, finding in findings_of(summary, audit).items():
            for entry in finding.get("strips") or []:
                named = n_methods > 1 and method != DATA
                view = _view(entry, folder, method=method if named else "", per_kind=per_kind)
                by_name.setdefault(entry["name"], {})[method] = view
        found[audit] = [view for views in by_name.values() for view in _together(views, n_methods=n_methods)]
    return found


def _together(views: Mapping[str, StripView], *, n_methods: int) -> list[StripView]:
    """The strips of several methods as one where they show the same; else one by one, with the method in the title."""
    said = {method: [p.said for _, panels in view.rows for p in panels] for method, view in views.items()}
    plain = {method: _saying(view, [[] for _ in said[method]]) for method, view in views.items()}
    first = next(iter(plain.values()))
    if all(view == first for view in plain.values()):
        together = [list(chain(*of_panel)) for of_panel in zip(*said.values(), strict=True)]
        alike = [len(s) == n_methods and len({text for _, text in s}) == 1 for s in together]
        return [_saying(first, [[("", s[0][1])] if same else s for s, same in zip(together, alike, strict=True)])]
    return [
        _saying(replace(view, title=f"{view.title}, {method}"), [[("", text) for _, text in s] for s in said[method]])
        for method, view in plain.items()
    ]


def _saying(view: StripView, said: Sequence[list[tuple[str, str]]]) -> StripView:
    """The strip with other captions, one list per panel, row by row."""
    words = iter(said)
    return replace(view, rows=[(title, [replace(p, said=next(words)) for p in row]) for title, row in view.rows])


def _view(entry: Json, folder: Path, *, method: str, per_kind: int | None) -> StripView:
    rows, heads, titles = entry["rows"], entry["heads"], entry["row_titles"]
    shown = []
    for r, row in enumerate(rows[:per_kind]):
        title, panels = titles[r] if titles else "", []
        for c, panel in enumerate(row):
            head = heads[c] if heads else ""
            place = ", ".join(filter(None, (title, head))) or f"row {r + 1}, picture {c + 1}"
            image, evidence = embedded(folder, panel.get("image"), lossy=True), embedded(folder, panel.get("evidence"))
            panels.append(PanelView(head, image, evidence, f"{entry['title']}: {place}", [(method, panel["caption"])]))
        shown.append((title, panels))
    left = len(rows) - len(shown)
    note = f"{counted(left, 'further row')} in {FOLDER.as_posix()}, left out to keep the page small." if left else ""
    full_colour, unit = entry.get("evidence_full_colour"), entry.get("unit", "logits")
    return StripView(entry["title"], entry["caption"], len(rows[0]), shown, full_colour, note, unit)
