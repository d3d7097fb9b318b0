"""Findings that no audit made: passes, fails, undecided and unmeasured ones, and those of a third party."""
# ruff: noqa: E501  (questions, definitions and captions are as long as they are)

from __future__ import annotations

import numpy as np
import pandas as pd

from trueread.audit.finding import Better, Difference, Figure, Finding, Measure, Verdict, verdict_of
from trueread.stats import Comparison, Estimate

N_IMAGES, N_PATIENTS = 412, 211
REASON = "the cohort has no masks on its test images."


def estimate(value: float, half: float = 0.025, *, spread: float = 0.008, n: int = N_IMAGES) -> Estimate:
    """An Estimate over three seeds and the test patients, its interval `half` on both sides."""
    return Estimate(value, value - half, value + half, n=n, n_clusters=N_PATIENTS, spread=spread, n_seeds=3)


def fake_findings(i: int, classes: list[str]) -> list[Finding]:
    """What method number i was asked: a pass, a fail, one undecided, one of a third party, and one not measured."""
    rng = np.random.default_rng(i)
    auroc = (0.883, 0.914, 0.901)[i % 3]
    found = [
        Finding(
            "performance", "How well does it tell the classes apart, on patients it has not seen?",
            measures={
                "auroc": Measure("AUROC", estimate(auroc, 0.0255), Better.HIGHER, "chance that a positive scores higher than a negative, ties one half; macro one-vs-rest"),
                "balanced-accuracy": Measure("Balanced accuracy", estimate(auroc - 0.21, 0.04), Better.HIGHER, "mean recall over classes"),
                "auprc": Measure("AUPRC", estimate(auroc - 0.3, 0.05), Better.HIGHER, "average precision; macro one-vs-rest"),
                "sensitivity": Measure("Sensitivity of the rarest class", Estimate(float("nan"), n=0, n_seeds=3), Better.HIGHER, "share of its images that are called it"),
            },
            tables={"Per class": per_class(rng, auroc, classes)},
            figures=[roc(rng, auroc, classes), confusion(rng, classes)],
            notes=["Decisions by the most probable class."],
        ),
        Finding(
            "calibration", "When it says 80 %, is it right 80 % of the time?",
            measures={
                "ece": Measure("Expected calibration error", estimate((0.041, 0.093, 0.132)[i % 3], 0.018), Better.LOWER, "mean distance between probability of the top class and observed share, over 15 equal-width bins"),
                "brier": Measure("Brier score", estimate(0.31 + 0.01 * i, 0.02), Better.LOWER, "mean squared error, summed over classes"),
            },
            figures=[reliability(rng, 0.06 * (i - 0.5))],
            notes=["Logits were divided by a temperature fitted on validation (1.31, 1.28, 1.35; above 1 means overconfident)."],
        ),
        Finding(
            "subgroups", "For whom does it work less well?",
            measures={
                "gap": Measure("Gap to the worst group", estimate((0.142, 0.151, 0.061)[i % 3], 0.03), Better.LOWER, "balanced accuracy over all test images minus that in the worst group"),
                "worst-group": Measure("Worst group's balanced accuracy", estimate(0.55, 0.06), Better.HIGHER, "in site: north"),
            },
            tables={"Per group": groups(rng)[0]},
            figures=[groups(rng)[1]],
            notes=[f"The worst of 6 groups is site: north. The worst of many is low by selection alone: shuffled, the gap is {0.05 + 0.01 * i:.3f} on average."],
        ),
        Finding("evidence", "Does it look where the finding is?", verdict=Verdict.NOT_MEASURED, reason=REASON),
        third_party(rng, i),
    ]  # fmt: skip
    limits = {"performance": 0.8, "calibration": 0.1, "subgroups": 0.1}
    for f in found:
        if f.headline is not None and f.audit in limits:
            f.threshold = limits[f.audit]
            f.verdict = verdict_of(f.headline.estimate, f.threshold, f.headline.better)
    return found


def third_party(rng: np.random.Generator, i: int) -> Finding:
    """An audit no one here has heard of, with columns, cells and figures of its own."""
    tubes = pd.DataFrame(
        {
            "kV": [70, 81, 96, 125],
            "tube": ["A-1", "A-1", "B <2>", None],
            "shift of the logit": rng.normal(0, 1, 4).round(3),
            "dose (µGy)": [3.2, 12.75, 104.0, float("nan")],
            "exposures": [12, 1843, 77, 5],
            "clipped": [True, False, False, None],
        }
    )
    drift = pd.DataFrame({"tube": ["A-1", "A-2", "B-1"], "drift": rng.normal(0, 0.02, 3)})
    angle = pd.DataFrame({"angle": np.arange(0, 91, 15), "share": np.linspace(0.9, 0.4 + 0.05 * i, 7)})
    return Finding(
        "scanner-drift", "Does its answer move when the tube voltage does?",
        measures={"drift": Measure("Largest drift (logits)", estimate(0.02 + 0.02 * i, 0.015), Better.LOWER, "largest change of the mean logit between voltages")},
        tables={"Per tube": tubes},
        figures=[
            Figure("drift", "Drift per tube", "bar", drift, x="tube", y="drift", y_label="change of the mean logit"),
            Figure("angle", "Share kept under rotation", "line", angle, x="angle", y="share", x_label="angle (degrees)"),
        ],
        notes=["Measured on phantoms supplied by the vendor."],
        verdict=Verdict.NO_THRESHOLD,
    )  # fmt: skip


def per_class(rng: np.random.Generator, auroc: float, classes: list[str]) -> pd.DataFrame:
    counts = [190, 58, 37, 49, 33, 21, 8, 16]
    values = np.clip(auroc + rng.normal(0, 0.04, len(classes)), 0.5, 0.99)
    return pd.DataFrame(
        {
            "class": classes,
            "test images": counts[: len(classes)],
            "AUROC (one against the rest)": [
                estimate(float(v), 0.6 / np.sqrt(n)) if n > 10 else Estimate(float("nan"), n=n, n_seeds=3)
                for v, n in zip(values, counts, strict=False)
            ],
            "sensitivity": [estimate(float(v) - 0.2, 1.1 / np.sqrt(n)) for v, n in zip(values, counts, strict=False)],
        }
    )


def roc(rng: np.random.Generator, auroc: float, classes: list[str]) -> Figure:
    x = np.linspace(0, 1, 101)
    shapes = auroc / (1 - auroc) * np.exp(rng.normal(0, 0.3, len(classes)))
    frames = [
        pd.DataFrame({"class": c, "1 - specificity": x, "sensitivity": x ** (1 / a)})
        for c, a in zip(classes, shapes, strict=True)
    ]
    return Figure(
        "roc", "ROC", "line", pd.concat(frames), x="1 - specificity", y="sensitivity", group="class", x_label="1 - specificity",
        y_label="sensitivity", diagonal=True, caption="Mean over seeds at equal false-positive rates.",
    )  # fmt: skip


def confusion(rng: np.random.Generator, classes: list[str]) -> Figure:
    shares = rng.dirichlet(np.full(len(classes), 0.25), len(classes)) * 0.4 + 0.6 * np.eye(len(classes))
    data = pd.DataFrame(shares, columns=classes)
    data.insert(0, "truth", classes)
    caption = "Share of each true class (row) that was called each class (column), over all seeds."
    return Figure("confusion", "Confusion", "matrix", data, x_label="decision", y_label="truth", caption=caption)


def reliability(rng: np.random.Generator, bend: float) -> Figure:
    stated = np.linspace(0.1, 0.97, 13)
    observed = np.clip(stated - bend + rng.normal(0, 0.015, 13), 0, 1)
    half = 0.05 * np.sqrt(stated * (1 - stated)) + 0.01
    data = pd.DataFrame(
        {"stated": stated, "observed": observed, "low": observed - half, "high": observed + half, "n": 60}
    )
    return Figure(
        "reliability", "Reliability", "line", data, x="stated", y="observed", low="low", high="high",
        x_label="stated probability", y_label="observed share", diagonal=True,
        caption="Bars are Wilson intervals that count each image once per seed.",
    )  # fmt: skip


def groups(rng: np.random.Generator) -> tuple[pd.DataFrame, Figure]:
    names = [("site", "north"), ("site", "south"), ("sex", "F"), ("sex", "M"), ("age", "18 to 47"), ("age", "48 to 91")]
    sizes = [66, 346, 190, 222, 201, 211]
    values = [estimate(float(v), 0.9 / np.sqrt(n), n=n) for v, n in zip(rng.normal(0.68, 0.05, 6), sizes, strict=True)]
    table = pd.DataFrame(
        {
            "attribute": [a for a, _ in names], "group": [g for _, g in names], "images": sizes,
            "patients": [n // 2 for n in sizes], "balanced accuracy": values, "ranked": ["yes"] * 5 + ["no, under 8 patients of a class"],
        }
    )  # fmt: skip
    data = pd.DataFrame(
        {
            "group": [f"{a}: {g}" for a, g in names],
            "value": [v.value for v in values],
            "low": [v.low for v in values],
            "high": [v.high for v in values],
        }
    )
    return table, Figure(
        "groups",
        "Balanced accuracy by group",
        "interval",
        data,
        x="group",
        y="value",
        low="low",
        high="high",
        y_label="balanced accuracy",
    )


def fake_differences(methods: tuple[str, ...]) -> list[Difference]:
    """The second and third methods against the first."""
    made = []
    for i, name in enumerate(methods[1:3]):
        for audit, measure, value, low, high, p in (
            ("performance", "auroc", (0.031, 0.018)[i], (0.008, -0.006)[i], (0.052, 0.041)[i], (0.004, 0.142)[i]),
            (
                "performance",
                "balanced-accuracy",
                (0.022, -0.004)[i],
                (-0.011, -0.03)[i],
                (0.051, 0.021)[i],
                (0.2, 0.77)[i],
            ),
            ("calibration", "ece", (0.052, 0.091)[i], (0.03, 0.06)[i], (0.07, 0.12)[i], 0.002),
            ("subgroups", "gap", (0.009, -0.081)[i], (-0.03, -0.12)[i], (0.05, -0.04)[i], (0.61, 0.002)[i]),
        ):
            made.append(
                Difference(audit, measure, name, methods[0], Comparison(Estimate(value, low, high, n=N_IMAGES, n_clusters=N_PATIENTS, spread=0.006, n_seeds=3), p, min(1.0, 2 * p)))
            )  # fmt: skip
    return made
