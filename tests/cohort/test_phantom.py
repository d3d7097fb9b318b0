"""The phantom: is what it says about itself true?"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import integrate, stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from trueread.cohort import Cohort, load_cohort
from trueread.cohort.phantom import DISEASED, HEALTHY, _plan, bayes_probability, counterfactual, marker_mask, phantom
from trueread.cohort.phantom_body import chest
from trueread.cohort.phantom_lungs import VISIBLE
from trueread.cohort.phantom_render import _grain, _tensors, render
from trueread.errors import InputError

SMALL = {"n_images": 90, "size": 28}


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    """The default phantom, but for its size in pixels."""
    return phantom(size=28)


def facts(**options) -> SimpleNamespace:
    """What `phantom(**options)` says, without its images: labels, table, truth and scene."""
    plan = _plan(SimpleNamespace(**phantom(n_images=1, size=28).origin["options"] | options))
    return SimpleNamespace(labels=plan.labels, table=plan.table, truth=plan.truth, scene=plan.scene)


def within_binomial(successes: int, n: int, p: float, *, alpha: float = 1e-4) -> bool:
    """Whether a count is one that a binomial draw gives, but for one in ten thousand."""
    low, high = stats.binom.interval(1 - alpha, n, p)
    return low <= successes <= high


# the same options, the same bytes


def test_the_same_options_give_the_same_cohort_and_another_seed_another():
    first, again, other = phantom(**SMALL), phantom(**SMALL), phantom(**SMALL, seed=1)
    assert first.digest == again.digest != other.digest
    pd.testing.assert_frame_equal(first.table, again.table)
    pd.testing.assert_frame_equal(first.truth, again.truth)
    assert np.array_equal(first.masks, again.masks)


@pytest.mark.parametrize("size", [28, 61])
@pytest.mark.parametrize("shortcut", ["none", "marker", "exposure"])
def test_neither_chunks_nor_threads_change_a_pixel(size: int, shortcut: str):
    whole = phantom(n_images=37, size=size, seed=5, shortcut=shortcut)
    plan = _plan(SimpleNamespace(**whole.origin["options"]))
    threads = torch.get_num_threads()
    for chunk in (1, 10, 36, 1000):
        images, masks = render(plan.scene, size=size, seed=5, chunk=chunk)
        assert np.array_equal(images, whole.images)
        assert np.array_equal(masks, whole.masks)
    try:
        torch.set_num_threads(3)
        assert np.array_equal(phantom(n_images=37, size=size, seed=5, shortcut=shortcut).images, whole.images)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_a_larger_cohort_begins_with_the_smaller_one():
    few, many = phantom(n_images=50, size=28), phantom(n_images=90, size=28)
    assert np.array_equal(few.images, many.images[:50])
    assert np.array_equal(few.labels, many.labels[:50])
    assert list(few.table["id"]) == list(many.table["id"][:50])


def test_grain_begins_at_a_known_place_and_is_close_to_normal():
    whole = _grain(3, 30, 0, 40)
    assert np.array_equal(whole[17:29], _grain(3, 30, 17, 29))
    assert abs(whole.mean()) < 4 / np.sqrt(whole.size)
    assert whole.std() == pytest.approx(1, abs=0.02)
    assert stats.kurtosis(whole.ravel()) == pytest.approx(-0.3, abs=0.1)  # the sum of four uniform numbers has -6/5/4
    assert abs(np.corrcoef(whole[:-1].ravel(), whole[1:].ravel())[0, 1]) < 0.03


# patients and splits


def test_a_patient_is_in_one_split_at_one_site_and_has_one_disease(cohort: Cohort):
    of_patient = pd.concat([cohort.table, cohort.truth], axis=1).groupby("patient")
    for column in ("split", "site", "sex", "age", "severity", "true_label", "bayes_probability"):
        assert (of_patient[column].nunique() == 1).all()
    assert of_patient.size().max() == 3
    assert of_patient["view"].nunique().max() == 2  # but not one view


@pytest.mark.parametrize("prevalence", [0.5, 0.05])
def test_splits_are_stratified(prevalence: float):
    c = facts(n_images=2000, seed=2, prevalence=prevalence)
    for name, share in (("train", 0.70), ("val", 0.15), ("test", 0.15)):
        here = (c.table["split"] == name).to_numpy()
        assert here.mean() == pytest.approx(share, abs=0.02)
        assert c.labels[here].mean() == pytest.approx(c.labels.mean(), rel=0.15)


@pytest.mark.parametrize("prevalence", [0.05, 0.5, 0.9])
def test_prevalence_over_patients_and_sites(prevalence: float):
    c = facts(n_images=4000, images_per_patient=1, prevalence=prevalence)
    assert within_binomial(c.labels.sum(), 4000, prevalence)
    by_site = pd.Series(c.labels).groupby(c.table["site"]).mean()
    assert list(by_site.index) == ["A", "B"]
    assert by_site["B"] - by_site["A"] == pytest.approx(0.8 * prevalence * (1 - prevalence), abs=0.06)


def test_images_of_a_patient_look_more_alike_than_those_of_two(cohort: Cohort):
    flat = cohort.images.reshape(len(cohort), -1).astype(float)
    flat = (flat - flat.mean(1, keepdims=True)) / flat.std(1, keepdims=True)
    flat -= flat.mean(0)
    patient = cohort.patient_codes()
    same = patient[:-1] == patient[1:]
    alike = (flat[:-1] * flat[1:]).mean(1)
    assert alike[same].mean() > alike[~same].mean() + 0.1
    assert not (cohort.images[:-1] == cohort.images[1:]).all((1, 2, 3)).any()


def test_sites_differ_in_look(cohort: Cohort):
    at_b = (cohort.table["site"] == "B").to_numpy()
    assert roc_auc_score(at_b, cohort.images.std((1, 2, 3))) < 0.3  # less contrast
    assert roc_auc_score(at_b, cohort.images.mean((1, 2, 3))) > 0.6  # brighter


# the label and its ceiling


def test_ceiling_is_the_overlap_of_the_two_distributions(cohort: Cohort):
    ill, well = stats.beta(*DISEASED), stats.beta(*HEALTHY)
    exact = integrate.quad(lambda s: ill.pdf(s) * well.cdf(s), 0, 1)[0]  # P(an ill patient's severity is the higher)
    assert 0.95 < exact < 0.97
    measured = roc_auc_score(cohort.labels, cohort.truth["bayes_probability"])
    assert 0.9 < measured < 1
    assert measured == pytest.approx(exact, abs=0.02)  # knowing the site adds little


@pytest.mark.parametrize("prevalence", [0.02, 0.5])
def test_bayes_probability_is_bayes_rule(prevalence: float):
    s = np.linspace(0.01, 0.99, 50)
    ill, well = prevalence * stats.beta(*DISEASED).pdf(s), (1 - prevalence) * stats.beta(*HEALTHY).pdf(s)
    np.testing.assert_allclose(bayes_probability(s, prevalence), ill / (ill + well), rtol=1e-10)
    assert (np.diff(bayes_probability(s, prevalence)) > 0).all()


@pytest.mark.parametrize("prevalence", [0.05, 0.5])
def test_bayes_probability_is_calibrated(prevalence: float):
    c = facts(n_images=6000, images_per_patient=1, prevalence=prevalence)
    p = c.truth["bayes_probability"].to_numpy()
    for low, high in ((0, 0.1), (0.1, 0.4), (0.4, 0.6), (0.6, 0.9), (0.9, 1)):
        here = (p >= low) & (p < high)
        spread = np.sqrt((p[here] * (1 - p[here])).sum())
        assert abs(c.labels[here].sum() - p[here].sum()) < 4 * spread


def test_grades_are_ordered_by_severity():
    c = phantom(n_images=600, size=28, grades=True)
    assert c.task == "ordinal"
    assert c.classes == ("normal", "mild", "moderate", "severe")
    assert (c.class_counts() > 40).all()
    severity = c.truth["severity"].groupby(c.labels)
    assert (severity.max()[[1, 2]].to_numpy() < severity.min()[[2, 3]].to_numpy()).all()
    binary = phantom(n_images=600, size=28)
    assert np.array_equal(binary.images, c.images)
    assert np.array_equal(binary.labels, c.labels > 0)


def test_brightness_alone_tells_almost_nothing_and_pixels_not_all(cohort: Cohort):
    flat = cohort.images.reshape(len(cohort), -1) / 255
    assert 0.4 < roc_auc_score(cohort.labels, flat.mean(1)) < 0.62
    train, rest = cohort.rows("train"), np.concatenate([cohort.rows("val"), cohort.rows("test")])
    pixels = LogisticRegression(C=0.01, max_iter=500).fit(flat[train], cohort.labels[train])
    assert 0.6 < roc_auc_score(cohort.labels[rest], pixels.decision_function(flat[rest])) < 0.85


# the evidence


@pytest.mark.parametrize("size", [28, 64])
def test_masks_lie_in_the_lungs_and_mark_what_is_visible(size: int):
    c = phantom(n_images=400, size=size, seed=7)
    visible = (c.truth["severity"] >= VISIBLE).to_numpy()
    assert np.array_equal(c.masks.any((1, 2)), visible)
    assert set(np.unique(c.masks)) == {0, 1}
    area = c.masks.mean((1, 2))[visible]
    assert area.min() > 3 / size**2
    assert area.max() < 0.3
    lung = chest(_tensors(_plan(SimpleNamespace(**c.origin["options"])).scene.rows(0, len(c))), size).lung.numpy()
    assert (lung[c.masks > 0] > 0.1).all()
    assert 0.2 < (lung > 0.5).mean() < 0.5


def test_an_opacity_brightens_its_place_and_nothing_else():
    c = phantom(n_images=150, size=64, seed=3)
    without = counterfactual(c, opacity=False)
    change = (c.images.astype(float) - without)[:, 0]
    inside, outside = c.masks > 0, np.ones_like(c.masks, bool)
    for shift in range(-6, 7):  # further than 6 pixels from the mask
        outside &= (np.roll(c.masks, shift, 1) == 0) & (np.roll(c.masks, shift, 2) == 0)
    severity = c.truth["severity"].to_numpy()
    added = np.array([change[k][inside[k]].mean() if inside[k].any() else 0 for k in range(len(c))])
    assert (added[severity >= VISIBLE] > 3).all()  # grey levels
    assert stats.spearmanr(added[severity >= VISIBLE], severity[severity >= VISIBLE]).statistic > 0.7
    assert np.abs(change[outside]).mean() < 1
    assert np.abs(change[severity < 0.01]).mean() < 1


def test_counterfactual_of_a_part_is_part_of_the_counterfactual():
    c = phantom(**SMALL, shortcut="marker")
    rows = np.array([40, 3, 77])
    assert np.array_equal(counterfactual(c), c.images)
    assert np.array_equal(counterfactual(c.subset(rows), cue=False), counterfactual(c, cue=False)[rows])
    foreign = Cohort("other", c.images, c.labels, c.table, c.classes, c.task)
    with pytest.raises(InputError, match="only the images of a phantom"):
        counterfactual(foreign)


# what is planted


@pytest.mark.parametrize("shortcut", ["marker", "exposure"])
@pytest.mark.parametrize("prevalence", [0.5, 0.05])
def test_cues_are_as_frequent_as_asked(shortcut: str, prevalence: float):
    c = facts(n_images=3000, prevalence=prevalence, shortcut=shortcut, shortcut_prevalence=0.8)
    cue, positive = c.truth["cue"].to_numpy(), c.truth["true_label"].to_numpy() == 1
    for split, expected in (("train", (0.2, 0.8)), ("val", (0.2, 0.8)), ("test", (0.5, 0.5))):
        here = (c.table["split"] == split).to_numpy()
        for label, p in enumerate(expected):
            rows = here & (positive == label)
            assert within_binomial(cue[rows].sum(), rows.sum(), p)


def test_the_marker_is_where_the_truth_says():
    c = phantom(n_images=120, size=64, shortcut="marker", seed=4)
    box, cue = marker_mask(c) > 0, c.truth["cue"].to_numpy()
    assert np.array_equal(box.any((1, 2)), cue)
    change = np.abs(c.images.astype(float) - counterfactual(c, cue=False))[:, 0]
    near = box.copy()
    for axis in (1, 2):
        near |= np.roll(near, 1, axis) | np.roll(near, -1, axis)
    assert change[~near].max() <= 8  # scatter alone
    assert (change * box).sum((1, 2))[cue].min() > 20 * box[cue].sum((1, 2)).min()
    assert box[cue].mean((1, 2)).max() < 0.02
    rows, columns = np.nonzero(box.any(0))
    assert rows.max() < 0.25 * 64
    assert columns.min() > 0.75 * 64
    assert not marker_mask(phantom(**SMALL)).any()


def test_the_exposure_cue_brightens_in_proportion_to_its_strength():
    changes = []
    for strength in (0.4, 1.0):
        c = phantom(n_images=120, size=28, shortcut="exposure", shortcut_strength=strength)
        change = (c.images.astype(float) - counterfactual(c, cue=False)).mean((1, 2, 3))
        cue = c.truth["cue"].to_numpy()
        assert (change[~cue] == 0).all()
        changes.append(change[cue].mean())
    assert 3 < changes[0] < changes[1] < 40


@pytest.mark.parametrize("grades", [False, True])
@pytest.mark.parametrize("prevalence", [0.5, 0.05])
def test_label_noise_is_in_train_and_val_only_and_known(grades: bool, prevalence: float):
    c, k = facts(n_images=3000, label_noise=0.2, grades=grades, prevalence=prevalence), 4 if grades else 2
    flipped = c.truth["flipped"].to_numpy()
    assert np.array_equal(flipped, c.labels != c.truth["true_label"])
    test = (c.table["split"] == "test").to_numpy()
    assert not flipped[test].any()
    for label in range(k):  # symmetric: as likely whatever the label, and to any other
        rows = ~test & (c.truth["true_label"] == label).to_numpy()
        assert within_binomial(flipped[rows].sum(), rows.sum(), 0.2)
        for other in set(range(k)) - {label}:
            moved = (c.labels[rows & flipped] == other).sum()
            assert within_binomial(moved, (rows & flipped).sum(), 1 / (k - 1))
    clean = facts(n_images=3000, grades=grades, prevalence=prevalence)
    assert np.array_equal(clean.labels, c.truth["true_label"])


def test_difficulty_hides_the_opacity():
    def contrast(difficulty: float) -> float:
        c = phantom(n_images=60, size=28, difficulty=difficulty)
        change = c.images.astype(float) - counterfactual(c, opacity=False)
        return change[:, 0][c.masks > 0].mean()

    assert contrast(0.0) > contrast(0.5) > contrast(1.0) > 3


# how it is asked for


def test_it_is_found_by_name_and_refuses_what_it_cannot_do():
    c = load_cohort("phantom", n_images=4, size=28)
    assert (c.name, c.modality, c.images.shape, c.images.dtype) == ("phantom", "radiograph", (4, 1, 28, 28), np.uint8)
    assert phantom(**c.origin["options"]).digest == c.digest
    with pytest.raises(InputError, match="no location"):
        load_cohort("phantom:somewhere")
    for options, message in (
        ({"size": 20}, "'size' must be greater than or equal to 28; found 20"),
        ({"n_images": 0}, "'n_images' must be greater than 0"),
        ({"label_noise": 0.5}, "'label_noise' must be less than 0.5"),
        ({"shortcut": "tube"}, "'shortcut' must be 'none', 'marker' or 'exposure'"),
    ):
        with pytest.raises(InputError, match=message):
            phantom(**options)


@pytest.mark.parametrize("n_images", [1, 2, 5])
def test_a_handful_of_images_is_a_cohort(n_images: int):
    c = phantom(n_images=n_images, size=28, n_sites=5, label_noise=0.4, shortcut="marker")
    assert len(c) == n_images
    assert c.is_split
