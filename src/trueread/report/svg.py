"""From matplotlib's SVG to one that can live inside a page: colours as CSS variables, ids of its own, nothing spare."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

CLASS = "class:"  # a matplotlib gid that begins so becomes a class, because several elements may share it
SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"

# Colours are drawn as sentinels, hex values no one would choose, and become variables that the page sets for light,
# dark and print. The fallback makes the file right on its own, on white.
_ROLES = {
    "ink": "#1c2024",
    "muted": "#59616a",
    "rule": "#dfe3e6",
    "paper": "#ffffff",
    "s0": "#46525e",
    "s1": "#0b6bb0",
    "s2": "#c2500f",
    "s3": "#0a7d5f",
    "s4": "#a8458a",
    "s5": "#8a6c00",
    "s6": "#2b8fc4",
    "s7": "#6a53b8",
}
SENTINELS = {name: f"#0102{10 + i:02x}" for i, name in enumerate(_ROLES)}
SERIES = [SENTINELS[f"s{i}"] for i in range(8)]
INK, MUTED, RULE, PAPER = (SENTINELS[n] for n in ("ink", "muted", "rule", "paper"))

_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_LOCAL_URL = re.compile(r"url\(#([^)]+)\)")
# Some versions of matplotlib write font-size and font-family, others the shorthand `font: bold 10px 'DejaVu Sans'`.
_FONT = re.compile(r"font(?:-family|-size)?:[^;]*;?\s*")
_FONT_SIZE = re.compile(r"font(?:-size)?:\s*(?:[\w-]+ )*?([\d.]+)px")
_SPARE = {f"{{{SVG}}}metadata", f"{{{SVG}}}style"}


def tidy(svg: str, *, prefix: str, label: str) -> str:
    """The SVG that matplotlib wrote, fit to stand inside an HTML page beside others.

    prefix: begins every id that is left, so that no two figures share one. label: what a screen reader says.
    Metadata, style sheets, unused ids and empty groups go; coordinates keep one decimal.
    """
    root = ET.fromstring(svg)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    _drop_spare(root)
    _rename_ids(root, prefix)
    for element in root.iter():
        _clean(element)
    _flatten(root)
    root.attrib |= {"role": "img", "aria-label": label, "class": "figure", "font-family": "system-ui, sans-serif"}
    ET.register_namespace("", SVG)
    text = ET.tostring(root, encoding="unicode")
    for name, sentinel in SENTINELS.items():
        text = text.replace(sentinel, f"var(--{name},{_ROLES[name]})")
    return text


def printable(text: object) -> str:
    """Text without the control characters that no XML may hold, on one line."""
    return re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in str(text))).strip()


def _drop_spare(element: ET.Element) -> None:
    for child in list(element):
        if child.tag in _SPARE or child.tag is ET.Comment:
            element.remove(child)
        else:
            _drop_spare(child)


def _rename_ids(root: ET.Element, prefix: str) -> None:
    """Short ids of our own for what is referred to, classes for what is marked with one, and no id for the rest."""
    new: dict[str, str] = {}

    def renamed(old: str) -> str:
        return new.setdefault(old, f"{prefix}{len(new)}")

    for element in root.iter():
        target = element.attrib.pop(f"{{{XLINK}}}href", "")
        if target:
            element.set("href", "#" + renamed(target.removeprefix("#")))
        for name, value in element.attrib.items():
            element.set(name, _LOCAL_URL.sub(lambda m: f"url(#{renamed(m[1])})", value))
    for element in root.iter():
        old = element.attrib.pop("id", "")
        if old.startswith(CLASS):
            element.set("class", old.removeprefix(CLASS))
        elif old in new:
            element.set("id", new[old])


def _clean(element: ET.Element) -> None:
    """Rounded coordinates, and text in the page's own font."""
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    for name in ("d", "transform", "x", "y", "width", "height"):
        if name in element.attrib:
            element.set(name, " ".join(_NUMBER.sub(_rounded, element.attrib[name]).split()))
    style = element.get("style")
    if style is None:
        return
    if element.tag == f"{{{SVG}}}text":
        size = _FONT_SIZE.search(style)
        style = (f"font-size:{size[1]}px;" if size else "") + _FONT.sub("", style)
    element.set("style", re.sub(r";\s*$", "", re.sub(r"([:;])\s+", r"\1", style)))


def _rounded(number: re.Match[str]) -> str:
    short = f"{float(number[0]):.1f}".removesuffix(".0")
    return "0" if short == "-0" else short


def _flatten(element: ET.Element) -> None:
    """Groups without attributes are replaced by what is in them; empty and unseen ones vanish."""
    for child in element:
        _flatten(child)
    kept: list[ET.Element] = []
    for child in element:
        child.tail = None
        is_empty = child.tag in (f"{{{SVG}}}g", f"{{{SVG}}}defs") and not len(child)
        if is_empty or child.get("style") == "fill:none":  # a background that is not seen
            continue
        kept.extend(child if child.tag == f"{{{SVG}}}g" and not child.attrib else [child])
    element[:] = kept
    if len(element):
        element.text = None
