"""docs/results.md, docs/reliability.md and the README's table from results/*.json, with command, seeds, interval,
machine and date.

    python benchmarks/results_page.py [--check]

--check writes nothing and exits with 1 when a page is not what the files say.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import curvssl_page
import danil_page
import nonrobust_page
import pneumonia_page
import readme_table
import reliability_page
import shortcut_page
import specialist_page
import step_e_page
from sheet import HEAD, Row, cells, number

from trueread import Estimate

HERE = Path(__file__).resolve().parents[1]
PAGE = HERE / "docs" / "results.md"
RELIABILITY = HERE / "docs" / "reliability.md"
README = HERE / "README.md"
PUBLISHED = {"auroc": "AUROC", "accuracy": "accuracy"}
INTRODUCTION = """# Results

Generated from `results/*.json` by `make results`. Intervals are 95 %, by bootstrap over patients (over images where
patients are not published): they are about other patients. Another training may differ by more: ± is the standard
deviation over seeds. In the first section weights and thresholds were chosen on validation and the test set was read
once. In the protocols test images were read more than once while methods were built; what was changed after results
had been seen is said where it is.
"""


def erm_section(result: dict[str, Any]) -> str:
    lines = [
        f"## {result['title']}",
        "",
        f"Command: `{result['command']}`. Machine and date of each row are below.",
        "",
        "| cohort | test set | network, side | AUROC | balanced accuracy | accuracy | published |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = result["rows"].values()
    lines += [_erm_row(row) for row in rows]
    lines += [
        "",
        "Ordinal tasks, quadratic weighted kappa: " + "; ".join(_kappa(r) for r in rows if _kappa(r)) + ".",
        "",
    ]
    lines += ["How each row was made:", "", *(f"- {_provenance(row)}" for row in rows), ""]
    return "\n".join(lines)


def _provenance(row: dict[str, Any]) -> str:
    machine = row["environment"]
    return (
        f"{row['cohort']}: split {row['split']}; {row['backbone']}, {row['weights']}, {row['epochs']} epochs, kept: "
        f"{row['selection']}; decision: {row['threshold']}; {machine['machine']}, {machine['device']}, torch "
        f"{machine['torch']}, {row['date']}, {row['seconds'] / 60:.0f} minutes of training for all seeds."
    )


def _erm_row(row: dict[str, Any]) -> str:
    side = "x".join(str(s) for s in row["size"])
    cells = [_cell(row["measures"].get(k)) for k in ("auroc", "balanced-accuracy", "accuracy")]
    published = row["published"]
    theirs = "-"
    if published:
        figures = [f"{title} {published[k]:.3f} (ours {_difference(row, k)})" for k, title in PUBLISHED.items()]
        theirs = f"{', '.join(figures)}; {published['source']}; protocol differs"
    return f"| {row['cohort']} | {_test_set(row)} | {row['backbone']}, {side} | {' | '.join(cells)} | {theirs} |"


def _difference(row: dict[str, Any], measure: str) -> str:
    return f"{row['measures'][measure]['value'] - row['published'][measure]:+.3f}"


def _test_set(row: dict[str, Any]) -> str:
    unit = f"{row['test_patients']} patients" if row["test_patients"] else "patients unknown"
    return f"{row['test_images']} images, {unit}"


def _cell(estimate: dict[str, Any] | None) -> str:
    if estimate is None:
        return "-"
    e = Estimate.from_json(estimate)
    return f"{e.text()}; spread {e.spread:.3f}, {e.n_seeds} seeds" if e.spread is not None else e.text()


def _kappa(row: dict[str, Any]) -> str:
    estimate = row["measures"].get("quadratic-kappa")
    return f"{row['cohort']} {_cell(estimate)}" if estimate else ""


def speed_section(result: dict[str, Any]) -> str:
    """A table of ratios for each part of the benchmarks, and time and memory by size where a part measured them."""
    lines = [
        f"## {result['title']}",
        "",
        "Each ratio is of two things measured in one run, in turns; the middle half of the rounds is beside it. An aim "
        "that was missed stays in the table.",
    ]
    for part in result["parts"].values():
        rows = [Row.from_json(r) for r in part["rows"]]
        lines += ["", f"### {part['title']}", "", *_markdown(HEAD, [cells(r) for r in rows])]
        if "sizes" in part["detail"]:
            lines += ["", *_by_size(part["detail"]["sizes"])]
        lines += ["", *(f"- Not measured: {reason}." for reason in part["not_measured"]), _speed_provenance(part)]
    return "\n".join([*lines, ""])


def _speed_provenance(part: dict[str, Any]) -> str:
    machine, detail = part["environment"], part["detail"]
    device = detail.get("gpu") or machine["device"] or f"CPU, {machine['threads']} threads"
    return (
        f"- `{part['command']}`: {part['date']}, {part['seconds']:.0f} s; {machine['machine']}, {device}, torch "
        f"{machine['torch']}, Python {machine['python']}; load average {part['load_at_start']:.1f} at the start."
    )


def _by_size(sizes: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    stages = list(next(iter(sizes.values())))
    rows = [
        [f"{int(n):,}", *(f"{number(v[s]['seconds'])} s, {number(v[s]['megabytes'])} MB" for s in stages)]
        for n, v in sorted(sizes.items(), key=lambda item: int(item[0]))
    ]
    return _markdown(["images", *stages], rows)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def copies_section(result: dict[str, Any]) -> str:
    """The share of planted copies that the check and a perceptual hash find, and the pairs beside them."""
    rows, machine = result["rows"], result["environment"]
    table = [
        [name, *(f"{100 * r['trueread']['found'][k]:.0f} / {100 * r['phash']['found'][k]:.0f}" for r in rows)]
        for k, name in enumerate(result["alterations"])
    ]
    counts = [
        [words, *(f"{r['trueread'][key]:,} / {r['phash'][key]:,}" for r in rows)]
        for words, key in (
            ("pairs of two patients, before", "pairs_before"),
            ("pairs of a copy and a stranger", "wrong_pairs"),
            ("seconds", "seconds"),
        )
    ]
    promised = ["what the check says it finds", *(f"{r['promised']} %" for r in rows)]
    heads = [f"{r['cohort']}, {r['images']:,} images, {'x'.join(str(s) for s in r['size'])}" for r in rows]
    return "\n".join(
        [
            f"## {result['title']}",
            "",
            f"Into each cohort {rows[0]['per_alteration']} copies of every kind were planted (fewer in a small one), "
            "each of another image. Per cent found by `trueread check` / by a perceptual hash (pHash, at most 8 of 64 "
            "bits apart, in the same eight poses). Pairs that were there before may be true: samples of those of "
            "breastmnist and retinamnist are, by eye. The limits of the check were chosen on these cohorts.",
            "",
            *_markdown(["planted", *heads], [*table, promised, *counts]),
            "",
            f"- `{result['command']}`: {result['date']}; {machine['machine']}, torch {machine['torch']}, Python "
            f"{machine['python']}.",
            "",
        ]
    )


def replay_section(result: dict[str, Any]) -> str:
    """Steps taken as usual beside steps replayed, on a GPU."""
    machine = result["environment"]
    head = ["augmentation", "batch", "as usual", "replayed", "ratio", "validation AUROC, both"]
    rows = [
        [
            r["augment"], f"{r['batch_size']}", f"{r['eager']:,.0f} images/s", f"{r['replayed']:,.0f} images/s",
            f"{r['ratio']:.1f}x", f"{r['eager_auroc']:.3f}, {r['replayed_auroc']:.3f}",
        ]
        for r in result["rows"]
    ]  # fmt: skip
    return "\n".join(
        [
            f"## {result['title']}",
            "",
            "ResNet-18 (standard stem) on 6,000 grey phantoms of 28 px, the whole loop; median of epochs 2 to 6.",
            "",
            *_markdown(head, rows),
            "",
            f"- `{result['command']}`: {result['date']}; {machine['device']}, {machine['machine']}, "
            f"{machine['precision']}, torch {machine['torch']}, Python {machine['python']}.",
            "",
        ]
    )


SECTIONS = {
    "erm": erm_section,
    "specialist-choice": specialist_page.choice_section,
    "specialist-cpu": specialist_page.section,
    "specialist-gpu": specialist_page.section,
    "nonrobust-cpu": nonrobust_page.section,
    "nonrobust-gpu": nonrobust_page.section,
    "step-e-cpu": step_e_page.section,
    "step-e-gpu": step_e_page.section,
    "danil-cpu": danil_page.section,
    "danil-gpu": danil_page.section,
    "pneumonia-cpu": pneumonia_page.section,
    "pneumonia-gpu": pneumonia_page.section,
    "curvssl-cpu": curvssl_page.section,
    "curvssl-gpu": curvssl_page.section,
    "shortcut-audits": shortcut_page.section,
    "copies": copies_section,
    "speed": speed_section,
    "speed-gpu": speed_section,
    "replay": replay_section,
}
JOINED = {"speed": ("decoding",)}  # benchmarks with a file of their own that belong under the same heading


def page() -> str:
    """The whole page as the result files have it."""
    parts = [INTRODUCTION]
    for name, section in SECTIONS.items():
        found = [r for r in map(_result, (name, *JOINED.get(name, ()))) if r]
        if found:
            more = {k: v for r in found for k, v in r.get("parts", {}).items()}
            parts.append(section(found[0] | ({"parts": more} if more else {})))
    return "\n".join(parts) + "\n"


def _result(name: str) -> dict[str, Any]:
    path = HERE / "results" / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def readme() -> str:
    """The README with its table of results between the two marks made anew."""
    text = README.read_text()
    before, begin, rest = text.partition("<!-- results -->")
    _, end, after = rest.partition("<!-- /results -->")
    return f"{before}{begin}\n{readme_table.table(_result)}\n{end}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    wanted = {PAGE: page(), README: readme()}
    if reliability := _result("reliability"):
        wanted[RELIABILITY] = reliability_page.page(reliability)
    for made in (specialist_page, nonrobust_page, step_e_page, danil_page, curvssl_page):
        protocol = made.__name__.removesuffix("_page").replace("_", "-")
        for scale in ("cpu", "gpu"):
            if result := _result(f"{protocol}-{scale}"):
                wanted |= {PAGE.parent / "images" / file: svg for file, svg in made.figures(result).items()}
    if parser.parse_args().check:
        stale = [p.name for p, text in wanted.items() if not p.is_file() or p.read_text() != text]
        sys.exit(f"{', '.join(stale)}: not what results/*.json say; run `make results`." if stale else 0)
    for path, text in wanted.items():
        path.write_text(text)
        print(path.relative_to(HERE))


if __name__ == "__main__":
    main()
