"""The gallery's pictures inside the page: small, complete, and only from the run folder."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from trueread.audit.finding import warnings_in
from trueread.model.card import Card
from trueread.report.evidence import LEVELS, evidence_palette
from trueread.report.gallery import KINDS
from trueread.report.summary import Json
from trueread.report.words import reason

UNCHECKED = "Whether these maps are fit to be shown as reasons was not checked; the audit localisation does that."
UNFIT = "-unfit"  # ends the name of a picture's file whose map that audit warns of, for it has no words to warn with
WEBP_QUALITY = 90  # for the page only; the gallery's folder keeps the pictures without loss
EXPLANATIONS = {
    "right": "Drawn at random from the right decisions, class after class.",
    "wrong": "Drawn at random from the wrong decisions, class after class.",
    "confidently right": "The most certain right decisions.",
    "confidently wrong": "The most certain wrong decisions, if they are among the more certain half of all.",
    "least certain": "The decisions closest to the threshold, or to the second most probable class.",
}


@dataclass(frozen=True)
class Picture:
    """One image of the gallery. Sources are data URIs; "" where there is no such layer."""

    entry: Json
    image: str
    overlay: str
    outline: str
    alt: str
    overlay_alt: str


@dataclass(frozen=True)
class Shelf:
    """Pictures of one kind."""

    kind: str
    explanation: str
    pictures: list[Picture]


@dataclass(frozen=True)
class GalleryView:
    """One method's gallery. full_colour: evidence at full colour, in logit units, or None without evidence. doubts:
    what has to be known before any map is taken for a reason.
    """

    method: str
    full_colour: float | None
    layer: str
    why_not: str
    n_images: str
    shelves: list[Shelf]
    left_out: int
    doubts: list[str]


def gallery_views(summary: Json, folder: Path, *, per_kind: int | None = None) -> list[GalleryView]:
    """The gallery by method and kind; per_kind: show at most so many of a kind, so that the page stays small."""
    entries = summary.get("gallery") or []
    views = []
    for method in dict.fromkeys(e.get("method", "") for e in entries):
        mine = [e for e in entries if e.get("method", "") == method]
        kinds = [k for k in KINDS if any(e["kind"] == k for e in mine)]
        kinds += [k for k in dict.fromkeys(e["kind"] for e in mine) if k not in kinds]
        shelves = [
            Shelf(k, EXPLANATIONS.get(k, ""), [_picture(e, folder) for e in mine if e["kind"] == k][:per_kind])
            for k in kinds
        ]
        shown = [p.entry for s in shelves for p in s.pictures]
        explained = [e for e in mine if e.get("overlay")]
        scale = max((e.get("evidence_full_colour") or e.get("evidence_peak") or 0.0 for e in explained), default=None)
        why_not = next((reason(e["reason"]) for e in mine if not e.get("overlay") and e.get("reason")), "")
        layer = next((e["layer"] for e in explained if e.get("layer")), "")
        n_images = next((f"{e['n_images']:,}" for e in mine if e.get("n_images")), "")
        filled = [s for s in shelves if s.pictures]
        doubts = _doubts(summary, method)
        views.append(GalleryView(method, scale, layer, why_not, n_images, filled, len(mine) - len(shown), doubts))
    return views


def doubts_of(card: Card, how: str) -> list[str]:
    """What its card says against showing a classifier's maps of a kind as reasons."""
    return [UNCHECKED] if card.maps is None or card.maps.how != how else card.maps.warnings


def _doubts(summary: Json, method: str) -> list[str]:
    """What the localisation audit warns of, or that it was not asked."""
    findings = [f for m in summary.get("methods") or [] if m["name"] == method for f in m.get("findings") or []]
    found = next((f for f in findings if f["audit"] == "localisation" and f.get("measures")), None)
    if found is None:
        return [UNCHECKED]
    return warnings_in(found.get("notes") or [])


def scale_stops() -> list[tuple[str, str, float]]:
    """(offset, colour, opacity) of the colour scale's gradient, from no evidence to full colour."""
    palette = evidence_palette()
    picked = [round(i * (LEVELS - 1) / 12) for i in range(13)]
    return [
        (f"{100 * i / (LEVELS - 1):.0f}%", "#{:02x}{:02x}{:02x}".format(*palette[i][:3]), palette[i][3] / 255)
        for i in picked
    ]


def _picture(entry: Json, folder: Path) -> Picture:
    decided = f"true class {entry.get('label')}, decided {entry.get('predicted')}"
    return Picture(
        entry,
        embedded(folder, entry.get("image"), lossy=True),
        embedded(folder, entry.get("overlay")),
        embedded(folder, entry.get("outline")),
        f"Test image {entry.get('number')}: {decided}",
        f"The same image with the evidence for {entry.get('explained') or entry.get('predicted')} laid over it",
    )


def embedded(folder: Path, relative: str | None, *, lossy: bool = False) -> str:
    """A picture of the run folder as a data URI; "" when it is missing, no picture, or not inside the folder.

    lossy: as WebP, a fifth of the size, where that is smaller.
    """
    if not relative:
        return ""
    kind = "png"
    try:
        path = (folder / relative).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            return ""
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as picture:
            kind = (picture.format or "png").lower()
            if lossy:
                buffer = io.BytesIO()
                picture.convert("RGB").save(buffer, "WEBP", quality=WEBP_QUALITY, method=4)
                if len(buffer.getvalue()) < len(content):
                    content, kind = buffer.getvalue(), "webp"
    except (OSError, ValueError):  # no picture, one that is cut short, or a name that no file can have
        return ""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
