"""Boxes by hand, controls by their definition, and the audit on networks that look at a known place."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tiny import tiny_cohort
from trueread.audit.base import Verdict, run_audit
from trueread.audit.boxes import (
    Box,
    average_precision_of_boxes,
    best_cut,
    boxes_of,
    boxes_of_mask,
    mask_overlap,
    matched,
    overlap,
)
from trueread.audit.finding import Better, Measure
from trueread.audit.localisation import Localisation, _failed, against_masks
from trueread.audit.map_controls import centred, faithfulness, pointed_at, randomised
from trueread.audit.subject import Subject
from trueread.audit.untaught import after_shuffled_labels, unlearned
from trueread.cohort.cohort import Cohort
from trueread.model import Classifier
from trueread.stats import Estimate
from trueread.stats.bootstrap import point_values
from trueread.training.batches import ImageStore
from trueread.training.config import TrainConfig
from trueread.training.loop import fit

pytestmark = pytest.mark.usefixtures("quiet_and_on_one_thread")
SIDE, N = 32, 60


def box(top, left, bottom, right, score=1.0):
    return Box(top, left, bottom, right, score)


class TestBoxes:
    def test_around_connected_places(self):
        evidence = np.zeros((8, 8))
        evidence[1:3, 1:4], evidence[6, 6] = 2.0, 4.0
        evidence[0, 7] = 0.5  # weaker than the cut
        assert boxes_of(evidence, cut=0.5) == [box(6, 6, 7, 7, 4.0), box(1, 1, 3, 4, 2.0)]
        assert boxes_of(np.zeros((8, 8)), cut=0.5) == []
        corner = np.eye(3, dtype=bool)
        assert boxes_of_mask(corner) == [box(0, 0, 3, 3)]

    def test_overlap_by_hand(self):
        assert overlap(box(0, 0, 2, 2), box(1, 1, 3, 3)) == pytest.approx(1 / 7)
        assert overlap(box(0, 0, 2, 2), box(2, 0, 4, 2)) == 0
        assert overlap(box(0, 0, 2, 2), box(0, 0, 2, 2)) == 1

    def test_each_true_box_is_taken_once(self):
        found = [box(0, 0, 4, 4, 3.0), box(0, 0, 4, 5, 2.0), box(9, 9, 10, 10, 1.0)]
        assert matched(found, [box(0, 0, 4, 4)], at=0.5) == [True, False, False]

    def test_the_cut_that_overlaps_best_is_chosen(self):
        evidence, mask = np.zeros((10, 10)), np.zeros((10, 10), bool)
        evidence[2:8, 2:8], evidence[4:6, 4:6] = 0.45, 1.0
        mask[2:8, 2:8] = True
        assert mask_overlap(evidence, mask, cut=0.5) == pytest.approx(4 / 36)
        assert best_cut([evidence], [mask]) == 0.1
        assert best_cut([evidence], [evidence == 1]) == 0.5

    def test_average_precision_by_hand_and_with_weights(self):
        true = [[box(0, 0, 4, 4)], [box(0, 0, 4, 4)], []]
        found = [[box(0, 0, 4, 4, 3.0)], [box(6, 6, 8, 8, 2.0), box(0, 0, 4, 4, 1.0)], [box(1, 1, 2, 2, 2.5)]]
        made = average_precision_of_boxes(found, true, at=0.5)
        # ranked: hit, miss, miss, hit; precision 1 at recall 1/2 and 2/4 at recall 1
        assert point_values(made, 3)[0] == pytest.approx(0.5 * 1 + 0.5 * 0.5)
        twice = average_precision_of_boxes([found[0], found[0], found[1]], [true[0], true[0], true[1]], at=0.5)
        assert made(np.array([[2.0, 1.0, 0.0]]))[0] == pytest.approx(point_values(twice, 3)[0])
        assert np.isnan(made(np.array([[0.0, 0.0, 1.0]])))
        assert average_precision_of_boxes([[]], [true[0]], at=0.5)(np.ones((1, 1)))[0] == 0


class TestControls:
    def test_the_blob_in_the_middle_is_as_large_as_the_map(self):
        maps = np.zeros((3, 40, 40))
        maps[0, :10, :10], maps[1, :20, :16] = 2.0, 5.0
        made = centred(maps)
        for k, area in enumerate((100, 320)):
            assert (made[k] >= made[k].max() / 2).sum() == pytest.approx(area, rel=0.12)
            assert made[k, 20, 20] == made[k].max() == pytest.approx(made[k, 19, 19])
        assert np.isfinite(made[2]).all()

    def test_random_weights_are_new_in_every_layer_and_repeat(self):
        classifier = Classifier.build("compact", cohort=tiny_cohort(n=40)).eval()
        one, two, other = (randomised(classifier, seed=s) for s in (0, 0, 1))
        for a, b, c, d in zip(*(m.parameters() for m in (classifier, one, two, other)), strict=True):
            assert torch.equal(b, c)
            if a.ndim > 1:
                assert not torch.equal(a, b)
                assert not torch.equal(b, d)

    def test_positions_of_a_transformer_are_new_too(self):
        cohort = tiny_cohort(n=40, side=32, channels=3)
        classifier = Classifier.build("test_vit", cohort=cohort).eval()
        for (name, a), b in zip(classifier.named_parameters(), randomised(classifier).parameters(), strict=True):
            assert name.endswith(("bias", "weight")) or not torch.equal(a, b), name

    @pytest.mark.parametrize("backbone", ["resnet18", "mobilenetv3_small_100"])
    def test_a_network_with_random_weights_still_sees_the_image(self, backbone):
        """Without its batch norms being measured the signal of a deep one comes to nothing."""
        cohort = tiny_cohort(n=60, side=64)
        classifier = Classifier.build(backbone, cohort=cohort, stem="standard").eval()
        subject = Subject.of(classifier, cohort, resamples=20)
        store = ImageStore(cohort, torch.device("cpu"))
        seen = []
        for seed in range(3):
            with torch.no_grad():
                features = unlearned(classifier, subject, store, seed=seed)(store.batch(subject.rows)).features
            seen.append(float(features.std(0).mean() / features.abs().mean()))
        assert min(seen) > 0.01

    def test_the_strongest_place_of_an_enlarged_map_is_its_cells_middle(self):
        coarse = torch.zeros(4, 1, 3, 3)
        for k, cell in enumerate([(0, 0), (0, 1), (1, 1), (2, 0)]):
            coarse[k, 0][cell] = 1.0
        maps = F.interpolate(coarse, size=(96, 96), mode="bilinear", align_corners=False)[:, 0].numpy()
        found = [pointed_at(m) for m in maps]
        for (row, column), (r, c) in zip(found, [(15.5, 15.5), (15.5, 47.5), (47.5, 47.5), (79.5, 15.5)], strict=True):
            assert abs(row - r) <= 1
            assert abs(column - c) <= 1
        one = np.zeros((5, 6))
        one[4, 0] = 1.0
        assert pointed_at(one) == (4, 0)

    def test_a_right_map_deletes_sooner_and_inserts_later_than_a_wrong_one(self):
        cohort = blobs()
        classifier = corner_reader(cohort)
        rows = np.flatnonzero(cohort.labels == 1)[:4]
        images, target = torch.from_numpy(cohort.images[rows] / 255).float(), torch.ones(4, dtype=torch.int64)
        right = torch.from_numpy(cohort.masks[rows]).float()
        del_right, ins_right = faithfulness(classifier, images, target, right)
        del_wrong, ins_wrong = faithfulness(classifier, images, target, 1 - right)
        assert (del_right < del_wrong - 0.2).all()
        assert (ins_right > ins_wrong + 0.2).all()


def blobs(*, seed=0) -> Cohort:
    """Class 1 has a bright square somewhere, which is its mask; class 0 has none."""
    generator = np.random.default_rng(seed)
    labels = np.arange(N) % 2
    images = generator.integers(15, 25, (N, 1, SIDE, SIDE)).astype(np.uint8)
    masks = np.zeros((N, SIDE, SIDE), np.uint8)
    for i in np.flatnonzero(labels):
        top, left = generator.integers(1, SIDE - 9, 2)
        images[i, 0, top : top + 8, left : left + 8] = 220
        masks[i, top : top + 8, left : left + 8] = 1
    split = np.where(np.arange(N) % 6 < 2, "val", "test")
    ids, patients = [f"i{k}" for k in range(N)], [f"p{k}" for k in range(N)]
    return Cohort(
        name="blobs", images=images, labels=labels.astype(np.int64), classes=("none", "square"), task="binary",
        table=pd.DataFrame({"id": ids, "patient": patients, "split": split}), masks=masks,
    )  # fmt: skip


def corner_reader(cohort: Cohort) -> Classifier:
    """Bright means class 1; the map is where it is bright."""
    conv, head = nn.Conv2d(1, 2, 3, padding=1), nn.Linear(2, 2)
    with torch.no_grad():
        conv.weight.fill_(1 / 9)
        conv.bias.fill_(-0.2)
        head.weight.copy_(torch.tensor([[0.0, 0.0], [40.0, 40.0]]))
        head.bias.copy_(torch.tensor([1.5, 0.0]))
    net = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    return Classifier.wrap(net, classes=cohort.classes, size=cohort.spatial, channels=1, taps=["1"])


def asked(classifier, cohort, **options):
    return run_audit(Localisation(**options), Subject.of(classifier, cohort, resamples=60), thresholds={})


class TestAudit:
    def test_one_that_looks_at_the_finding(self):
        cohort = blobs()
        finding = asked(corner_reader(cohort), cohort)
        value = {k: m.estimate.value for k, m in finding.measures.items()}
        assert next(iter(value)) == "pointing"
        assert value["pointing"] == 1
        assert value["mass"] > 0.6
        assert value["overlap"] > 0.7
        assert value["box-precision"] > 0.9
        assert value["hit"] == 1
        assert value["under-noise"] > 0.5
        assert finding.measures["mass-over-centre"].estimate.low > 0.2
        assert finding.measures["pointing"].estimate.n == (cohort.masks[cohort.rows("test")].any(axis=(1, 2))).sum()
        table = finding.tables["Beside controls"].set_index("map")
        assert table.loc["a blob in the middle", "Evidence inside"].value < 0.3
        [strip] = finding.strips
        assert len(strip.rows[0]) == 3

    def test_one_that_looks_at_the_border_warns(self):
        cohort = blobs()
        images = cohort.images.copy()
        images[cohort.labels == 1, :, :3] = 255  # and the square is still there, but darker
        images = np.where(cohort.masks[:, None] > 0, np.minimum(images, 60), images).astype(np.uint8)
        finding = asked(corner_reader(replace(cohort, images=images)), replace(cohort, images=images))
        assert finding.measures["pointing"].estimate.value < 0.3
        assert finding.verdict is Verdict.WARN
        assert any("no more of the mask than a blob in the middle" in note for note in finding.notes)

    def test_what_makes_a_map_unfit_is_said(self):
        def of(**values):
            made = {k: Measure(k, Estimate(v, v - 0.05, v + 0.05, n=9), Better.HIGHER) for k, v in values.items()}
            return {k.replace("_", "-"): measure for k, measure in made.items()}

        fit = {"random_weights": 0.2, "under_noise": 0.9, "mass_over_centre": 0.3, "mass_over_random": 0.3}
        fit |= {"insertion_over_random": 0.04, "deletion_over_random": -0.2}  # one of them is enough
        assert _failed(of(**fit)) == []
        assert _failed(of(**fit | {"insertion_over_random": 0.2, "deletion_over_random": 0.1})) == []
        without = {k: v for k, v in fit.items() if k != "random_weights"}
        assert "is not defined, because maps are empty" in _failed(of(**without))[0]
        assert "60% of the maps are empty" in _failed(of(**fit, empty=0.6))[0]
        for key, value, said in (
            ("random_weights", 0.6, "hardly depend on what was learned"),
            ("under_noise", 0.4, "move under noise"),
            ("deletion_over_random", 0.04, "no more than random ones"),
            ("mass_over_centre", 0.02, "than a blob in the middle would"),
            ("mass_over_random", -0.1, "than the maps of random weights would"),
        ):
            [warning] = _failed(of(**fit | {key: value}))
            assert said in warning

    def test_a_map_that_no_weight_moves_warns(self):
        """As if new weights were the old ones."""
        cohort = blobs()
        classifier = corner_reader(cohort)
        same = asked(classifier, cohort)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("trueread.audit.untaught.randomised", lambda network, **_: network)
            finding = asked(classifier, cohort)
        assert finding.measures["random-weights"].estimate.value == pytest.approx(1)
        assert finding.measures["mass-over-random"].estimate.value == pytest.approx(0)
        assert finding.verdict is Verdict.WARN
        assert same.measures["random-weights"].estimate.value < 1

    def test_after_shuffled_labels_the_map_is_another(self):
        cohort = blobs().with_split(["train", "val", "test"] * (N // 3))
        config = {"epochs": 3, "batch_size": 8, "threads": 1, "device": "cpu", "precision": "fp32"}
        classifier = fit(cohort, config=TrainConfig(**config), quiet=True).classifier
        plain = asked(classifier, cohort)
        assert "shuffled-labels" not in plain.measures
        assert "shuffled-labels" not in asked(classifier, cohort, shuffled=1).measures  # it has not learned them
        with pytest.MonkeyPatch.context() as patched:  # as if labels did not matter
            patched.setattr("trueread.audit.localisation.after_shuffled_labels", lambda made, *_, **__: (made, 0.9))
            finding = asked(classifier, cohort, shuffled=2)
        assert finding.measures["shuffled-labels"].estimate.value == pytest.approx(1)
        assert finding.verdict is Verdict.WARN
        assert any("after shuffled labels they are alike" in note for note in finding.notes)

    def test_shuffled_labels_need_training_images(self):
        finding = asked(Classifier.build("compact", cohort=blobs()).eval(), blobs(), shuffled=1)
        assert finding.verdict is Verdict.NOT_MEASURED
        assert "no training images" in finding.reason

    def test_shuffled_labels_that_were_learned(self):
        """Of few images, by heart; a network from elsewhere is not made anew."""
        cohort = blobs().with_split(["train", "val", "test"] * (N // 3))
        classifier = Classifier.build("compact", cohort=cohort).eval()
        subject = Subject.of(classifier, cohort, resamples=20)
        _, learned = after_shuffled_labels(classifier, subject, epochs=60, seed=0)
        assert learned >= 0.8
        finding = asked(corner_reader(cohort), cohort, shuffled=1)
        assert "made elsewhere cannot be made anew" in finding.reason

    def test_a_control_is_cut_where_it_overlaps_best(self):
        """A blob in the middle that is the mask is as good as a map that is, whatever suits the map."""
        cohort = blobs()
        y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2 + 0.5
        masks = np.where(cohort.labels[:, None, None] == 1, y**2 + x**2 < 60, False).astype(np.uint8)
        images = np.where(masks[:, None] > 0, 200, 20).astype(np.uint8)
        images[:, :, 12:20, 12:20] = np.where(masks[:, None, 12:20, 12:20] > 0, 250, 20)
        cohort = replace(cohort, images=images, masks=masks)
        finding = asked(corner_reader(cohort), cohort)
        assert finding.measures["overlap-over-centre"].estimate.value < 0.2
        assert finding.measures["overlap-over-centre"].estimate.value > -0.2

    def test_without_masks_there_is_still_deletion(self):
        cohort = replace(blobs(), masks=None)
        finding = asked(corner_reader(cohort), cohort, cut=0.3, how="grad-cam++")
        assert next(iter(finding.measures)) == "insertion"
        assert finding.tables == {}
        assert any("There are no masks" in note for note in finding.notes)

    def test_what_it_cannot_be_asked_of(self):
        cohort = tiny_cohort(n=40, depth=8).with_split(["test"] * 40)
        finding = asked(Classifier.build("compact", cohort=cohort).eval(), cohort)
        assert finding.verdict is Verdict.NOT_MEASURED

    def test_numbers_by_hand(self):
        maps = np.zeros((2, 4, 4))
        maps[0, 0, 0], maps[0, 3, 3] = 3.0, 1.0
        masks = np.zeros((2, 4, 4), bool)
        masks[:, 0, 0] = True
        found = against_masks(maps, masks, cut=0.2)
        assert found[0].tolist() == [1.0, 0.75, 0.5]
        assert found[1].tolist() == [0.0, 0.0, 0.0]
        assert not math.isnan(found.sum())
