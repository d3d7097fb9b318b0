"""The phantom: chest radiographs that nobody took, of which everything is known.

For demonstrations and tests, without a download. The label is uncertain by design: even who knows the severity exactly
cannot tell all patients, as `truth.bayes_probability` says; and what a classifier may lean on wrongly can be planted.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lgamma
from types import SimpleNamespace
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from trueread.cohort.cohort import SPLITS, Cohort
from trueread.cohort.phantom_anatomy import MARKER_ASPECT, Draws, Patients, Scene, bodies
from trueread.cohort.phantom_lungs import opacities, shadows, vessels
from trueread.cohort.source import source
from trueread.cohort.split import share_out
from trueread.errors import InputError
from trueread.options import check

SHARES = (0.70, 0.15, 0.15)  # of the images, in the order of SPLITS
DISEASED = (3.0, 2.2)  # beta distribution of the severity of patients with an opacity
HEALTHY = (1.0, 6.0)  # and of the haze of those without; they overlap, so that the best possible AUROC is 0.96
GRADES = (0.45, 0.70)  # severity from which an opacity is moderate, severe
SITE_TILT = 0.8  # between the prevalences of the first and the last site, in units of p (1 - p)

SPLIT_NOTE = {"how": "by patient, as generated", "warnings": []}


@source("phantom", source="trueread")
def phantom(
    location: str = "",
    *,
    n_images: Annotated[int, Field(gt=0)] = 1200,
    size: Annotated[int, Field(ge=28, le=224)] = 64,
    seed: Annotated[int, Field(ge=0)] = 0,
    images_per_patient: Annotated[int, Field(ge=1, le=20)] = 3,
    n_sites: Annotated[int, Field(ge=1, le=26)] = 2,
    prevalence: Annotated[float, Field(gt=0, lt=1)] = 0.5,
    difficulty: Annotated[float, Field(ge=0, le=1)] = 0.5,
    shortcut: Literal["none", "marker", "exposure"] = "none",
    shortcut_prevalence: Annotated[float, Field(ge=0, le=1)] = 0.9,
    shortcut_strength: Annotated[float, Field(gt=0, le=1)] = 1.0,
    label_noise: Annotated[float, Field(ge=0, lt=0.5)] = 0.0,
    grades: bool = False,
) -> Cohort:
    """Chest-radiograph-like images with planted opacities, and the truth about each of them.

    n_images: in all; the last patient may be cut short.
    size: side of the square images, in pixels.
    images_per_patient: at most; each patient has 1 to this many, equally often. They share anatomy, disease and label.
    n_sites: they differ in look and in prevalence ("A" is the largest and has fewer cases than the last).
    prevalence: expected share of patients whose label is "opacity".
    difficulty: 0 to 1; how faint the opacities are, and how strong shadows that are no disease.
    shortcut: a cue planted in images: a lead marker in the upper corner, or a change of exposure.
    shortcut_prevalence: P(cue | opacity) = this and P(cue | normal) = 1 - this in train and val. In test the cue is a
        coin, so that a classifier which leans on it is found out.
    shortcut_strength: in (0, 1]; 1 is plain to see.
    label_noise: share of the labels of train and val that are wrong; test labels are true.
    grades: four ordered classes (normal, mild, moderate, severe) instead of two.

    The cohort is split by patient, 70/15/15, stratified by label. Its table has site, sex, age and view (PA or AP),
    the last three independent of the disease. Masks mark opacities of severity 0.2 and more. `truth` has `true_label`,
    `severity` (0..1), `cue`, `flipped` and `bayes_probability` = P(true label is not normal | severity, site), whose
    AUROC is the ceiling: who reads honestly beats it only by luck. With the marker it also has the marker's box
    (`marker_left`, `_right`, `_top`, `_bottom`) in shares of the image's side, nan where there is none.

    The same options give the same bytes, and the first images of a larger cohort are those of a smaller one, unless a
    shortcut is planted (the split, and so the cue, needs all patients). Raises InputError for an option out of range,
    or a location.
    """
    options = {name: value for name, value in locals().items() if name != "location"}
    if location:
        raise InputError(
            f"the phantom has no location; found '{location}'. Write `phantom`, and set its options instead."
        )
    from trueread.cohort.phantom_render import render  # torch, which only listing the sources must not load

    options = check(phantom, options, where="source 'phantom'")
    plan = _plan(SimpleNamespace(**options))
    images, masks = render(plan.scene, size=size, seed=seed)
    return Cohort(
        name="phantom",
        images=images,
        labels=plan.labels,
        table=plan.table,
        classes=("normal", "mild", "moderate", "severe") if grades else ("normal", "opacity"),
        task="ordinal" if grades else "binary",
        masks=masks,
        modality="radiograph",
        origin={"source": "phantom", "options": options, "split_note": SPLIT_NOTE},
        truth=plan.truth,
    )


def counterfactual(cohort: Cohort, *, opacity: bool = True, cue: bool = True) -> np.ndarray:
    """The same images, noise and all, as they would be without their opacities or without the planted cue.

    cohort: from the source `phantom`, or a subset of one. opacity, cue: False leaves it out.
    Returns uint8 `[N,1,S,S]`. Raises InputError for any other cohort.
    """
    if cohort.origin.get("source") != "phantom":
        raise InputError(f"{cohort.name}: only the images of a phantom can be rendered anew; found another source.")
    from trueread.cohort.phantom_render import render

    options = cohort.origin["options"]
    plan = _plan(SimpleNamespace(**options))
    images, _ = render(plan.scene, size=options["size"], seed=options["seed"], opacity=opacity, cue=cue)
    return images[pd.Index(plan.table["id"]).get_indexer(cohort.table["id"])]


def marker_mask(cohort: Cohort) -> np.ndarray:
    """uint8 `[N,H,W]`: 1 inside the box of the lead marker, where one was planted. All zero without that shortcut."""
    n, (height, width) = len(cohort), cohort.spatial
    truth = cohort.truth
    if truth is None or "marker_left" not in truth:
        return np.zeros((n, height, width), np.uint8)
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    left, right, top, bottom = (
        truth[f"marker_{side}"].to_numpy()[:, None] for side in ("left", "right", "top", "bottom")
    )
    columns, rows = (x > left * width) & (x < right * width), (y > top * height) & (y < bottom * height)
    return (rows[:, :, None] & columns[:, None, :]).astype(np.uint8)


@dataclass(frozen=True)
class _Plan:
    """All of a cohort but its images."""

    scene: Scene
    labels: np.ndarray
    table: pd.DataFrame
    truth: pd.DataFrame


def _plan(options: SimpleNamespace) -> _Plan:
    """Who is there, what they have, in which split they are, and what is planted in their images."""
    o, n = options, options.n_images
    draws = Draws(o.seed)
    counts = draws.stream("images per patient").integers(1, o.images_per_patient + 1, n)
    patient = np.repeat(np.arange(n), counts)[:n]
    n_patients = int(patient[-1]) + 1

    site, prevalence = _sites(draws, n_patients, o.n_sites, o.prevalence)
    diseased = draws.uniform("diseased", n_patients) < prevalence[site]
    severity = np.where(
        diseased,
        draws.stream("severity, diseased").beta(*DISEASED, n_patients),
        draws.stream("severity, healthy").beta(*HEALTHY, n_patients),
    )
    true = diseased * (1 + np.searchsorted(GRADES, severity, side="right")) if o.grades else diseased.astype(np.int64)
    people = Patients(
        site=site,
        female=draws.uniform("sex", n_patients) < 0.5,
        age=(58 + 17 * draws.spread("age", n_patients)).round(),
        severity=severity,
    )

    presence = true[:, None] == np.arange(4 if o.grades else 2)
    lots = draws.uniform("split", n_patients).argsort().argsort()
    split = share_out(np.bincount(patient), presence, lots, np.array(SHARES))[patient]
    in_test = split == SPLITS.index("test")

    true, diseased = true[patient], diseased[patient]
    labels, flipped = _with_noise(draws, true, ~in_test, o.label_noise, presence.shape[1])
    likely = np.where(in_test, 0.5, np.where(diseased, o.shortcut_prevalence, 1 - o.shortcut_prevalence))
    cue = (draws.uniform("cue, image", n) < likely) & (o.shortcut != "none")
    ap = draws.uniform("view, image", n) < 0.3

    of_image = bodies(draws, people, patient=patient, ap=ap) | _cues(draws, cue, o.shortcut, o.shortcut_strength)
    of_patient = (
        vessels(draws, n_patients)
        | opacities(draws, severity, difficulty=o.difficulty)
        | shadows(draws, n_patients, difficulty=o.difficulty)
    )
    scene = Scene(patient, _float32(of_image), _float32(of_patient))
    names = np.array([f"P{k:05d}" for k in range(1, n_patients + 1)], dtype=object)
    number = np.arange(n) - np.flatnonzero(np.diff(patient, prepend=-1))[patient]
    table = pd.DataFrame(
        {
            "id": [f"{names[k]}-{i + 1}" for k, i in zip(patient, number, strict=True)],
            "patient": names[patient],
            "split": np.array(SPLITS, dtype=object)[split],
            "site": np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), dtype=object)[site[patient]],
            "sex": np.where(people.female, "F", "M").astype(object)[patient],
            "age": people.age[patient].astype(np.int64),
            "view": np.where(ap, "AP", "PA").astype(object),
        }
    )
    truth = pd.DataFrame(
        {
            "true_label": true,
            "severity": severity[patient],
            "cue": cue,
            "flipped": flipped,
            "bayes_probability": bayes_probability(severity, prevalence[site])[patient],
        }
    )
    if o.shortcut == "marker":
        truth = truth.join(_marker_box(of_image, cue))
    return _Plan(scene, labels, table, truth)


def bayes_probability(severity: np.ndarray, prevalence: np.ndarray | float) -> np.ndarray:
    """P(opacity | severity) where the prevalence is as given, by Bayes' rule from the two beta distributions."""
    (a1, b1), (a0, b0) = DISEASED, HEALTHY
    constant = lgamma(a1 + b1) - lgamma(a1) - lgamma(b1) - lgamma(a0 + b0) + lgamma(a0) + lgamma(b0)
    severity = np.clip(severity, 1e-9, 1 - 1e-9)
    log_ratio = (a1 - a0) * np.log(severity) + (b1 - b0) * np.log1p(-severity) + constant
    return 1 / (1 + np.exp(-log_ratio) * (1 - prevalence) / prevalence)


def _sites(draws: Draws, n: int, n_sites: int, prevalence: float) -> tuple[np.ndarray, np.ndarray]:
    """The site of each patient, int64 [n], and the prevalence of each site; on average it is the one asked for."""
    share = 0.7 ** np.arange(n_sites)
    share /= share.sum()
    tilt = SITE_TILT * (np.linspace(0, 1, n_sites) - share @ np.linspace(0, 1, n_sites))
    site = np.searchsorted(share.cumsum()[:-1], draws.uniform("site", n), side="right")
    return site, prevalence + prevalence * (1 - prevalence) * tilt


def _with_noise(
    draws: Draws, true: np.ndarray, noisy: np.ndarray, rate: float, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Labels int64 [N], a share `rate` of the `noisy` ones wrong (each other class as often); and which, bool [N]."""
    n = len(true)
    flipped = noisy & (draws.uniform("flip, image", n) < rate)
    other = (true + draws.stream("flip to, image").integers(1, k, n)) % k
    return np.where(flipped, other, true).astype(np.int64), flipped


def _cues(draws: Draws, cue: np.ndarray, shortcut: str, strength: float) -> dict[str, np.ndarray]:
    """What the renderer needs to plant the cue, `[N]` each."""
    n = len(cue)
    return {
        "cue": cue,
        "marker": np.full(n, strength * (shortcut == "marker")),
        "marker_x": 0.82 + 0.025 * draws.spread("marker x, image", n),
        "marker_y": -0.80 + 0.03 * draws.spread("marker y, image", n),
        "marker_height": 0.22 + 0.01 * draws.spread("marker height, image", n),
        "exposure_cue": np.full(n, 0.5 * strength * (shortcut == "exposure")),
    }


def _marker_box(of_image: dict[str, np.ndarray], cue: np.ndarray) -> pd.DataFrame:
    """The marker's frame in shares of the image's side, nan where there is none."""
    x, y, half = of_image["marker_x"], of_image["marker_y"], of_image["marker_height"] / 2
    box = {"left": x - MARKER_ASPECT * half, "right": x + MARKER_ASPECT * half, "top": y - half, "bottom": y + half}
    return pd.DataFrame({f"marker_{side}": np.where(cue, (at + 1) / 2, np.nan) for side, at in box.items()})


def _float32(parameters: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(values, dtype=np.float32) for name, values in parameters.items()}
