"""Figures as SVG: as many lines, bars and cells as the data say, colours that follow the page, text that stays text."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_findings import confusion, fake_findings, groups, reliability, roc
from fake_run import CLASSES, METHODS, fake_summary

from trueread.audit.finding import Figure
from trueread.errors import InputError
from trueread.report.combine import label_efficiency, learning_curves, overlay
from trueread.report.draw import draw, is_wide
from trueread.report.plotdata import NARROW, alt_text, cut_note, legend_columns, series_of
from trueread.report.svg import SENTINELS, SERIES
from trueread.stats import Estimate

SVG = "{http://www.w3.org/2000/svg}"
RNG = np.random.default_rng(0)


def of_class(svg: str, name: str) -> list[ET.Element]:
    """The marked groups of the figure, one per line, bar or cell that was drawn."""
    return [e for e in ET.fromstring(svg).iter() if e.get("class") == name]


def texts(svg: str) -> list[str]:
    return [e.text or "" for e in ET.fromstring(svg).iter(f"{SVG}text")]


def line(rows: list[tuple[Any, ...]], columns: list[str], **keys: Any) -> dict[str, Any]:
    figure = Figure("f", "F", keys.pop("kind", "line"), pd.DataFrame(rows, columns=columns), x="x", y="y", **keys)
    return json.loads(json.dumps(figure.to_json()))


def test_one_line_per_group_and_the_line_of_equality() -> None:
    svg = draw(roc(RNG, 0.9, CLASSES).to_json())
    assert len(of_class(svg, "line")) == len(CLASSES)
    assert len(of_class(svg, "equality")) == 1
    assert "no finding" in texts(svg)


def test_a_line_passes_through_its_points() -> None:
    svg = draw(line([(0, 0.0), (1, 1.0), (2, 0.5)], ["x", "y"]))
    (path,) = of_class(svg, "line")[0].iter(f"{SVG}path")
    points = np.array(re.findall(r"-?[\d.]+ -?[\d.]+", path.get("d", "")))
    x, y = np.array([p.split() for p in points], float).T
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.3)
    assert (y[0] - y[2]) / (y[0] - y[1]) == pytest.approx(0.5, abs=0.005)  # SVG's y grows downwards


def test_intervals_have_one_whisker_per_category() -> None:
    figure = groups(RNG)[1].to_json()
    svg = draw(figure)
    assert {"site: north", "age: 48 to 91"} <= set(texts(svg))
    uses = [u for e in of_class(svg, "values") for u in e.iter(f"{SVG}use")]
    assert len(uses) == 6


def test_estimates_in_a_cell_bring_their_own_interval() -> None:
    cells = [("a", Estimate(0.5, 0.4, 0.6)), ("b", Estimate(float("nan")))]
    with_interval = draw(line(cells, ["x", "y"], kind="interval"))
    without = draw(line([("a", 0.5), ("b", None)], ["x", "y"], kind="interval"))
    assert with_interval.count("<path") == without.count("<path") + 1


def test_bars_carry_their_values() -> None:
    svg = draw(line([("a", 2.0), ("b", -1.0), ("c", None)], ["x", "y"], kind="bar"))
    assert len(of_class(svg, "bar")) == 3
    assert {"2.000", "-1.000", "–"} <= {t.replace("−", "-") for t in texts(svg)}


def test_a_matrix_has_a_cell_and_a_number_for_each_entry() -> None:
    figure = confusion(RNG, CLASSES).to_json()
    svg = draw(figure)
    assert len(of_class(svg, "cell")) == 64
    shown = [t for t in texts(svg) if re.fullmatch(r"[01]\.\d\d", t)]
    expected = [f"{v:.2f}" for row in figure["data"]["rows"] for v in row[1:]]
    assert shown == expected


def test_counts_are_shown_as_counts_and_shaded_by_size() -> None:
    frame = pd.DataFrame({"truth": ["a", "b"], "a": [1200, 0], "b": [300, 7]})
    svg = draw(Figure("c", "C", "matrix", frame).to_json())
    assert {"1,200", "0", "300", "7"} <= set(texts(svg))
    shades = [
        float(re.search(r"opacity:([\d.]+)", ET.tostring(c, encoding="unicode"))[1]) for c in of_class(svg, "cell")
    ]
    assert shades == pytest.approx([0.5, 0.155, 0.04, 0.04 + 0.46 * 7 / 1200], abs=1e-3)


def test_colours_are_variables_of_the_page_and_nothing_is_painted_behind() -> None:
    for figure in (roc(RNG, 0.9, CLASSES), confusion(RNG, CLASSES), groups(RNG)[1], reliability(RNG, 0.0)):
        svg = draw(figure.to_json())
        assert not any(s in svg for s in SENTINELS.values())
        colours = set(re.findall(r"(?:fill|stroke):(?!none)([^;\"]+)", svg))
        assert colours
        assert all(c.startswith("var(--") for c in colours), colours
        assert "<rect" not in svg.split("<clipPath")[0]


def test_the_same_figure_gives_the_same_text_and_another_shares_no_id() -> None:
    first, second = roc(RNG, 0.9, CLASSES).to_json(), roc(RNG, 0.7, CLASSES).to_json()
    assert draw(first) == draw(first)
    ids = [set(re.findall(r'\bid="([^"]+)"', draw(f))) for f in (first, second)]
    assert all(ids)
    assert not ids[0] & ids[1]
    for svg in (draw(first), draw(second)):
        referred = set(re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", svg))
        assert {a or b for a, b in referred} <= set(re.findall(r'\bid="([^"]+)"', svg))


def test_a_figure_is_small() -> None:
    x = np.linspace(0, 1, 3000)
    frame = pd.concat([pd.DataFrame({"g": str(k), "x": x, "y": x ** (k + 1)}) for k in range(8)])
    svg = draw(Figure("f", "F", "line", frame, x="x", y="y", group="g").to_json())
    assert len(svg) < 60_000  # 24,000 points
    assert "<metadata" not in svg
    assert "<style" not in svg


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "$x^2", "_hidden", "a & b", "肺炎", "two\nlines\x00", '"quoted"']
)
def test_names_are_text_whatever_they_contain(name: str) -> None:
    figure = line([(name, 0, 0.1), (name, 1, 0.2), ("b", 0, 0.3), ("b", 1, 0.1)], ["g", "x", "y"], group="g")
    svg = draw(figure)
    assert "<script" not in svg
    assert " ".join(name.replace("\x00", " ").split()) in texts(svg)


def test_missing_numbers_leave_gaps_and_single_points_are_seen() -> None:
    svg = draw(line([("a", 0, 0.1), ("a", 1, None), ("a", 2, 0.3), ("b", 1, 0.2)], ["g", "x", "y"], group="g"))
    assert len(of_class(svg, "line")) == 2
    assert svg.count("<use") == 1  # the one point of b has a marker


def test_nothing_to_draw_is_said() -> None:
    assert "nothing to draw" in texts(draw(line([], ["x", "y"])))


def test_words_on_the_x_axis_of_lines() -> None:
    svg = draw(line([("none", 0.9), ("mild", 0.8), ("severe", 0.4)], ["x", "y"]))
    assert {"none", "mild", "severe"} <= set(texts(svg))


def test_an_unknown_kind_and_a_missing_column_are_named() -> None:
    figure = line([(0, 1.0)], ["x", "y"])
    with pytest.raises(InputError, match="'pie' is not a kind of figure"):
        draw(figure | {"kind": "pie"})
    with pytest.raises(InputError, match="names 'z' as its y, but its data have x, y"):
        draw(figure | {"y": "z"})


def test_overlay_gives_each_method_its_own_colour_even_when_one_is_missing() -> None:
    figures = {m: reliability(np.random.default_rng(i), 0.1 * i).to_json() for i, m in enumerate(METHODS)}
    together = overlay(figures, order=METHODS)
    assert together is not None
    svg = draw(together)
    assert len(of_class(svg, "line")) == 3
    assert set(METHODS) <= set(texts(svg))
    del figures[METHODS[1]]
    fewer = overlay(figures, order=METHODS)
    assert fewer is not None
    data = {c: [r[i] for r in fewer["data"]["rows"]] for i, c in enumerate(fewer["data"]["columns"])}
    assert [s.colour for s in series_of(fewer, data)] == [SERIES[0], SERIES[2]]


def test_what_cannot_share_axes_stays_apart() -> None:
    assert overlay({m: confusion(RNG, CLASSES).to_json() for m in METHODS}, order=METHODS) is None
    assert overlay({m: roc(RNG, 0.9, CLASSES).to_json() for m in METHODS}, order=METHODS) is None
    one_class = {m: roc(RNG, 0.9, CLASSES[:1]).to_json() for m in METHODS}
    assert overlay(one_class, order=METHODS) is not None
    differing = {"a": reliability(RNG, 0.0).to_json(), "b": roc(RNG, 0.9, CLASSES[:1]).to_json()}
    assert overlay(differing, order=["a", "b"]) is None


def test_learning_curves_of_every_method_and_seed() -> None:
    loss, auroc, balanced = learning_curves(fake_summary()["methods"])
    svg = draw(loss)
    assert len(of_class(svg, "line")) == 2 * 3 * 3  # training and validation
    assert len(of_class(svg, "mark")) == 3 * 3  # the epoch kept, on validation
    assert len(of_class(draw(auroc), "line")) == 9
    assert balanced["title"] == "Validation balanced accuracy"
    rows = [r for r in auroc["data"]["rows"] if r[:2] == ["erm", 0]]
    kept = [r for r in rows if r[-1]]
    assert len(kept) == 1
    assert kept[0][4] == max(r[4] for r in rows)


def test_methods_without_history_have_no_curves() -> None:
    methods = fake_summary()["methods"]
    assert learning_curves([m | {"histories": []} for m in methods]) == []
    lacking = [{"seed": 0, "table": {"columns": ["epoch", "train_loss", "selected"], "rows": [[1, 0.5, True]]}}]
    (only,) = learning_curves([methods[0] | {"histories": lacking}])
    assert only["name"] == "loss"


def test_alt_text_says_what_is_there() -> None:
    assert alt_text(reliability(RNG, 0.0).to_json()).startswith("Reliability: lines of observed share")
    assert alt_text(confusion(RNG, CLASSES).to_json()) == "Confusion: a table of 8 rows and 8 columns of numbers."
    assert "for no finding, atelectasis" in alt_text(roc(RNG, 0.9, CLASSES).to_json())


def test_what_is_too_long_is_cut_and_says_so() -> None:
    many = line([(f"c{i}", 0.1 * i) for i in range(90)], ["x", "y"], kind="bar")
    assert cut_note(many) == "The first 60 of 90 categories are shown."
    assert len(of_class(draw(many), "bar")) == 60
    frame = pd.DataFrame(np.eye(40), columns=[f"k{i}" for i in range(40)])
    frame.insert(0, "truth", frame.columns)
    wide = Figure("c", "C", "matrix", frame).to_json()
    assert cut_note(wide) == "The first 30 of 40 rows and 30 of 40 columns are shown."
    assert len(of_class(draw(wide), "cell")) == 900
    assert is_wide(wide)
    assert all(cut_note(f.to_json()) == "" for found in fake_findings(0, CLASSES) for f in found.figures)


def test_a_legend_stays_inside_its_figure_as_matplotlib_fills_it() -> None:
    cues = ["blur", "brightness", "gamma", "gaussian-noise", "ruler", "square", "text", "vignette"]
    assert legend_columns(cues, NARROW) == 4  # with more, matplotlib's first column has two names and the others one
    assert legend_columns(["a", "b"], 500) == 2
    assert legend_columns(["a" * 40] * 3, 100) == 1


def test_label_efficiency_is_drawn_when_methods_differ_in_their_labels() -> None:
    def method(name: str, trained: str, report: dict, value: float) -> dict:
        estimate = {"value": value, "low": value - 0.1, "high": value + 0.1}
        finding = {"audit": "performance", "measures": {"balanced-accuracy": {"estimate": estimate}}}
        return {"name": name, "report": report, "card": {"training": {"method": trained}}, "findings": [finding]}

    few = method("a", "few-labels", {"labelled_images": 20}, 0.6)
    more = method("b", "few-labels", {"labelled_images": 100}, 0.7)
    begun = method("c", "curvssl+few-labels", {"few-labels": {"labelled_images": 20}, "curvssl": {}}, 0.65)
    assert label_efficiency([few, begun, method("d", "erm", {}, 0.8)]) == []
    (figure,) = label_efficiency([more, few, begun])
    rows = [(r[0], r[1]) for r in figure["data"]["rows"]]
    assert rows == [("curvssl", "20"), ("no pretraining", "20"), ("no pretraining", "100")]  # in rising order
    assert "labelled training images" in draw(figure)


def test_lines_of_label_efficiency_are_ways_of_beginning_and_end_with_all_labels() -> None:
    def method(trained: str, n: int | None, weights: str = "none (random)", **options: dict) -> dict:
        finding = {"audit": "performance", "measures": {"balanced-accuracy": {"estimate": {"value": 0.5}}}}
        training = {"method": trained, "method_options": options, "train_images": 200}
        report = {} if n is None else {"few-labels": {"labelled_images": n}}
        card = {"training": training, "weights": weights}
        return {"name": trained, "report": report, "card": card, "findings": [finding]}

    studied = [
        method("few-labels+erm", 20),
        method("erm", None),
        method("focal", None),  # not otherwise trained like a method with few labels
        method("curvssl+few-labels", 20, "CurvSSL", curvssl={"form": "corr"}),
        method("curvssl+few-labels", 20, "CurvSSL", curvssl={"form": "outer"}),
        method("curvssl+erm", None, "CurvSSL", curvssl={"form": "outer"}),
        method("few-labels+erm", 20, "file: weights.safetensors (sha256 abc), 5 of 5"),
    ]
    (figure,) = label_efficiency(studied)
    assert [(r[0], r[1]) for r in figure["data"]["rows"]] == [
        ("curvssl (form = corr)", "20"),
        ("curvssl (form = outer)", "20"),
        ("file: weights.safetensors", "20"),
        ("no pretraining", "20"),
        ("curvssl (form = outer)", "200"),
        ("no pretraining", "200"),
    ]


def test_points_are_coloured_by_group_and_described() -> None:
    figure = Figure(
        "map", "A map", "scatter", pd.DataFrame({"x": [0.0, 1.0, 2.0], "y": [0.0, 1.0, 4.0], "g": ["a", "b", "a"]}),
        x="x", y="y", group="g", x_label="first", y_label="second",
    ).to_json()  # fmt: skip
    drawn = draw(figure)
    assert "first" in drawn
    assert "points of second for a, b, from 0 to 4" in drawn
