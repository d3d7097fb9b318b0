"""Constructed sets: for a linear classifier the perturbation is known, labels are as said, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tiny import tiny_cohort, tiny_setup
from trueread import load_cohort, save_cohort
from trueread.errors import InputError
from trueread.method.constructed import CONSTRUCTED, WHITE, Making, constructed
from trueread.method.nonrobust_only import NonrobustOnly
from trueread.model.classifier import Classifier

SIDE = 16
KINDS = ("d_rand", "d_det", "d_r", "d_nr", "noise", "shuffled")


def linear(cohort, *, seed=0, scale=1.0):
    """Logits that are linear in the pixels, the pixels being the features."""
    n_values = cohort.channels * int(np.prod(cohort.spatial))
    head = nn.Linear(n_values, cohort.n_classes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.weight.copy_(scale * torch.randn(head.weight.shape, generator=generator))
        head.bias.zero_()
    net = nn.Sequential(nn.Flatten(), head)
    return Classifier.wrap(
        net, classes=cohort.classes, size=cohort.spatial, channels=cohort.channels, task=cohort.task
    )  # fmt: skip


def pixels(cohort, rows):
    return torch.from_numpy(cohort.images[rows].astype(np.float64) / cohort.white)


@pytest.fixture(scope="module", params=[{"n": 90}, {"task": "multiclass", "n": 90, "share": 0.3}], ids=["two", "three"])
def cohort(request):
    """Imbalanced in the second case; nowhere black or white, so that nothing is cut off."""
    made = tiny_cohort(**request.param)
    return replace(made, images=(60 + made.images // 2).astype(np.uint8))


def test_each_image_is_moved_along_the_gradient_of_its_new_label(cohort):
    classifier, rows = linear(cohort, scale=0.2), cohort.rows("train")
    made = constructed(cohort, classifier, "d_det", epsilon=0.3, steps=40)
    labels, before = torch.from_numpy(made.labels[rows]), torch.from_numpy(cohort.labels[rows])
    assert (labels == (before + 1) % cohort.n_classes).all()
    moved = (pixels(made, rows) - pixels(cohort, rows)).flatten(1)
    assert moved.norm(dim=1) == pytest.approx(0.3, abs=2e-3)
    weight = classifier.network[1].weight.detach().double()
    if cohort.n_classes == 2:
        direction = weight[labels] - weight[before]
        along = torch.cosine_similarity(moved, direction, dim=1)
        assert (along > 0.999).all()
    log_p = classifier(pixels(cohort, rows).float()).logits.log_softmax(1)
    log_q = classifier(pixels(made, rows).float()).logits.log_softmax(1)
    assert (log_q.gather(1, labels[:, None]) > log_p.gather(1, labels[:, None])).all()


def test_the_fooling_rate_counts_images_whose_label_is_new(cohort):
    classifier, rows = linear(cohort), cohort.rows("train")
    made = constructed(cohort, classifier, "d_rand", epsilon=0.25, steps=10)
    said = classifier(pixels(made, rows).float()).logits.argmax(1).numpy()
    new = made.labels[rows] != cohort.labels[rows]
    assert 0 < new.sum() < len(rows)
    told = made.origin[CONSTRUCTED]
    assert told["fooling_rate"] == pytest.approx((said == made.labels[rows])[new].mean(), abs=1e-4)
    assert 0 < told["fooling_rate"] < 1
    assert told["epsilon_grey_levels"] == pytest.approx(255 * 0.25 / SIDE, abs=1e-3)
    np.testing.assert_array_equal(made.truth["says_label"][rows], said == made.labels[rows])
    np.testing.assert_array_equal(made.truth["content_label"], cohort.labels)


def test_random_labels_belong_to_the_image_and_noise_has_the_same(cohort):
    classifier = linear(cohort)
    made = constructed(cohort, classifier, "d_rand", epsilon=0.25, steps=1)
    few = cohort.subset(np.concatenate([cohort.rows("train")[::-3], cohort.rows("test")]))
    label = dict(zip(made.table["id"], made.labels, strict=True))
    again = constructed(few, classifier, "d_rand", epsilon=0.25, steps=1)
    assert all(label[i] == k for i, k in zip(again.table["id"], again.labels, strict=True))
    noise = constructed(cohort, classifier, "noise", epsilon=0.25)
    np.testing.assert_array_equal(noise.labels, made.labels)
    other = constructed(cohort, classifier, "d_rand", epsilon=0.25, steps=1, seed=1)
    assert (other.labels != made.labels).any()
    counts = np.bincount(made.labels[cohort.rows("train")], minlength=cohort.n_classes)
    assert counts.min() > 0.5 * counts.mean()  # each class as likely, however rare it was


def test_noise_moves_as_far_and_nowhere_in_particular(cohort):
    classifier, rows = linear(cohort), cohort.rows("train")
    made = constructed(cohort, classifier, "noise", epsilon=0.25)
    moved = (pixels(made, rows) - pixels(cohort, rows)).flatten(1)
    assert moved.norm(dim=1) == pytest.approx(0.25, abs=1e-3)
    assert (torch.corrcoef(moved) - torch.eye(len(rows))).abs().max() < 0.4  # each image its own
    assert moved.mean(0).norm() < 0.1


def test_noise_moves_as_far_in_images_that_are_half_black():
    cohort = tiny_cohort(n=60)
    cohort = replace(cohort, images=np.where(np.arange(16) < 8, 0, cohort.images).astype(np.uint8))
    made = constructed(cohort, linear(cohort), "noise", epsilon=0.25)
    rows = cohort.rows("train")
    assert (pixels(made, rows) - pixels(cohort, rows)).flatten(1).norm(dim=1) == pytest.approx(0.25, abs=2e-3)


@pytest.mark.parametrize("kind", ["d_r", "d_nr"])
def test_where_pixels_are_the_features_the_wanted_image_comes_out(cohort, kind):
    classifier, rows = linear(cohort), cohort.rows("train")
    made = constructed(cohort, classifier, kind, steps=300)
    np.testing.assert_array_equal(made.labels, cohort.labels)
    apart = (pixels(made, rows) - pixels(cohort, rows)).flatten(1).norm(dim=1)
    assert apart.max() < 0.06  # the length of a step: it stays in motion around the image
    assert (made.truth["moved"][rows] > 0.5).all()  # it came from another one
    assert (made.truth["content_label"] != cohort.labels).any()
    assert made.origin[CONSTRUCTED]["epsilon"] is None


def test_shuffled_labels_are_the_same_labels_on_the_same_images(cohort):
    made, rows = constructed(cohort, linear(cohort), "shuffled"), cohort.rows("train")
    np.testing.assert_array_equal(made.images, cohort.images.astype(np.uint16) * 257)
    np.testing.assert_array_equal(np.bincount(made.labels[rows]), np.bincount(cohort.labels[rows]))
    assert (made.labels[rows] != cohort.labels[rows]).mean() > 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_validation_and_test_stay_and_saving_keeps_all(cohort, kind, tmp_path):
    made = constructed(cohort, linear(cohort), kind, steps=2)
    rest = np.concatenate([cohort.rows("val"), cohort.rows("test")])
    np.testing.assert_array_equal(made.images[rest], cohort.images[rest].astype(np.uint16) * 257)
    np.testing.assert_array_equal(made.labels[rest], cohort.labels[rest])
    assert not made.truth["moved"][rest].any()
    assert (made.images.dtype, made.white) == (np.uint16, WHITE)
    assert load_cohort(f"saved:{save_cohort(made, tmp_path)}").digest == made.digest
    again = constructed(cohort, linear(cohort), kind, steps=2)
    assert again.digest == made.digest


def test_bad_input_is_one_sentence():
    cohort = tiny_cohort(n=60)
    classifier = linear(cohort)
    for options, said in (
        ({"construction": "d_rnd"}, "Did you mean 'd_rand'"),
        ({"construction": "d_det", "epsilon": 0.0}, "epsilon must be above 0"),
        ({"construction": "d_det", "steps": 0}, "steps must be at least 1"),
    ):
        with pytest.raises(InputError, match=said):
            Making(**options)
    made = constructed(cohort, classifier, "shuffled")
    multilabel = tiny_cohort("multilabel", n=60)
    larger = tiny_cohort(n=60, side=24)
    for given, said in (
        (made, "already"),
        (multilabel, "the task is multilabel"),
        (larger, "differ in size"),
        (cohort.with_split([""] * len(cohort)), "at least 2 training images"),
    ):
        with pytest.raises(InputError, match=said):
            constructed(given, classifier, "d_det")
    headless = Classifier.wrap(
        nn.Sequential(nn.Conv2d(1, 2, 16), nn.Flatten()), classes=cohort.classes, size=(16, 16), channels=1
    )
    with pytest.raises(InputError, match="no linear head"):
        constructed(cohort, headless, "d_nr", steps=1)


def test_the_method_learns_from_the_new_images_and_labels_and_goes_on_from_disk(tmp_path):
    cohort = tiny_cohort(n=60)
    folder = tmp_path / "given" / "7"
    Classifier.save(classifier_that_can_be_saved(cohort), folder)
    method = NonrobustOnly(construction="d_det", classifier=str(tmp_path / "given" / "{seed}"), epsilon=0.2, steps=10)
    setup = replace(tiny_setup(cohort), seed=7, folder=tmp_path / "run")
    method.prepare(setup)
    rows = cohort.rows("train")
    np.testing.assert_array_equal(setup.ledger.labels, 1 - cohort.labels[rows])
    seen = setup.store.batch(rows)
    assert (seen - pixels(cohort, rows)).flatten(1).norm(dim=1) == pytest.approx(0.2, abs=2e-3)
    assert setup.cohort is cohort  # validation keeps its images
    assert method.report()["construction"] == "d_det"

    later = replace(tiny_setup(cohort), seed=7, folder=tmp_path / "run")
    again = NonrobustOnly(construction="d_det", classifier="gone", epsilon=0.2, steps=10)
    again.load_state(method.state(), later)
    assert torch.equal(later.store.batch(rows), seen)
    assert torch.equal(later.ledger.labels, setup.ledger.labels)
    assert again.report() == method.report()
    with pytest.raises(InputError, match="train from the start"):
        again.load_state(method.state(), tiny_setup(cohort))


def classifier_that_can_be_saved(cohort):
    torch.manual_seed(0)
    return Classifier.build("compact", cohort=cohort)
