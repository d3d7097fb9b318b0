"""The distractor audit on a network that sees colours: red speaks for one class, green for another, at known places."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from tiny import tiny_cohort
from trueread.audit.base import Verdict, run_audit
from trueread.audit.cues import means
from trueread.audit.distractor import DistractorAudit, distracting_place, elsewhere, same_place, share_inside
from trueread.audit.subject import Subject
from trueread.cohort.cohort import Cohort
from trueread.model import Classifier, ProbabilityFunction

pytestmark = pytest.mark.usefixtures("quiet_and_on_one_thread")
SIDE, N = 32, 60
A, B = (slice(4, 12), slice(4, 12)), (slice(18, 26), slice(18, 26))


def coloured(*, apart=True, seed=0) -> Cohort:
    """Class 1 is red at A, class 2 green at A; each has the other colour, weaker, at B, or at A too."""
    generator = np.random.default_rng(seed)
    labels = np.arange(N) % 3
    images = generator.integers(15, 25, (N, 3, SIDE, SIDE)).astype(np.uint8)
    for i, y in enumerate(labels):
        if y:
            images[i, y - 1][A] = generator.integers(180, 220)
            images[i, 2 - y][B if apart else A] = generator.integers(120, 160)
    masks = np.zeros((N, SIDE, SIDE), np.uint8)
    masks[:, A[0], A[1]] = 1
    masks[labels == 0] = 0
    table = pd.DataFrame(
        {"id": [f"i{k}" for k in range(N)], "patient": [f"p{k // 2}" for k in range(N)], "split": "test"}
    )
    return Cohort(
        name="coloured", images=images, labels=labels.astype(np.int64), table=table, classes=("none", "red", "green"),
        task="multiclass", masks=masks,
    )  # fmt: skip


def colour_reader(cohort: Cohort, *, strength=60.0) -> Classifier:
    conv, head = nn.Conv2d(3, 2, 1), nn.Linear(2, 3)
    with torch.no_grad():
        conv.weight.copy_(torch.eye(3)[:2, :, None, None])
        conv.bias.fill_(-0.3)
        head.weight.copy_(torch.tensor([[0.0, 0.0], [strength, 0.0], [0.0, strength]]))
        head.bias.copy_(torch.tensor([0.3, 0.0, 0.0]))
    net = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    return Classifier.wrap(net, classes=cohort.classes, size=cohort.spatial, channels=3, task="multiclass")


def asked(cohort, **options):
    subject = Subject.of(colour_reader(cohort), cohort, resamples=50)
    return run_audit(DistractorAudit(**options), subject, thresholds={})


class TestPieces:
    def test_same_place_by_hand(self):
        a = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]], [[0.0, 0.0]]])
        b = torch.tensor([[[0.0, 2.0]], [[3.0, 3.0]], [[1.0, 0.0]]])
        found = same_place(a, b)
        assert found[:2].tolist() == pytest.approx([0.0, 1.0])
        assert found[2].isnan()

    def test_the_place_speaks_for_the_distractor_and_not_for_the_class(self):
        right, wrong = torch.zeros(2, 10, 10), torch.zeros(2, 10, 10)
        right[0, :, 0], wrong[0, :, 0], wrong[0, :, 7] = 4.0, 1.0, 1.0
        place = distracting_place(right, wrong)
        assert place[0, :, 7].all()
        assert place[0].sum() == 10
        assert not place[1].any()  # no map
        assert elsewhere(place)[0, :, 2].all()
        assert elsewhere(place).sum() == place.sum()

    def test_the_share_inside_by_hand(self):
        maps = torch.tensor([[[1.0, 3.0]], [[0.0, 0.0]], [[1.0, 1.0]]])
        masks = torch.tensor([[[True, False]], [[True, True]], [[False, False]]])
        found = share_inside(maps, masks)
        assert found[0] == 0.25
        assert found[1:].isnan().all()


class TestAudit:
    def test_a_place_elsewhere_that_distracts_is_found(self):
        finding = asked(coloured())
        value = {k: m.estimate.value for k, m in finding.measures.items()}
        assert next(iter(value)) == "relief"
        assert value["relief"] > 0.1
        assert value["same-place"] < 0.1
        assert value["inside"] > 0.99
        assert value["inside-distractor"] < 0.01
        assert value["confused"] < 0.1
        pairs = finding.tables["By pair of classes"]
        assert {("red", "green"), ("green", "red")} <= set(
            pairs[["true class", "distractor"]].itertuples(index=False, name=None)
        )
        assert finding.verdict is Verdict.NO_THRESHOLD

    def test_both_in_one_place_is_found_too(self):
        value = {k: m.estimate.value for k, m in asked(coloured(apart=False)).measures.items()}
        assert value["same-place"] > 0.99
        assert value["inside-distractor"] > 0.99

    def test_pictures_are_of_what_is_confused(self):
        cohort = coloured()
        labels = np.where(cohort.labels == 1, 2, np.where(cohort.labels == 2, 1, 0))  # so that it is always wrong
        finding = asked(replace(cohort, labels=labels))
        [strip] = finding.strips
        assert strip.heads == ["the image", "for its own class", "for the distractor"]
        assert set(strip.row_titles) == {"Truly red", "Truly green"}
        assert finding.tables["By pair of classes"]["taken for it"][0] == 20
        assert not any(str(i) in p.caption for row in strip.rows for p in row for i in cohort.table["id"])

    def test_without_masks_and_with_gradients(self):
        finding = asked(replace(coloured(), masks=None), maps="gradient", images=30)
        assert all(strip.unit == "logits per unit of intensity" for strip in finding.strips)
        assert list(finding.measures) == ["relief", "rise", "rise-distractor", "confused", "same-place", "lead"]
        assert any("Without masks" in note for note in finding.notes)

    def test_seeds_that_know_other_images_are_averaged(self):
        """Without a map an image does not count in that seed; it does in the others."""
        subject = Subject.of(colour_reader(coloured()), coloured(), resamples=50)
        values = np.full((3, N, 1), np.nan)
        for s in range(3):
            values[s, s::3] = s + 1.0
        [estimate] = means(subject, values, np.arange(N))
        assert estimate.value == pytest.approx(2.0)
        assert (estimate.n, estimate.n_seeds, estimate.spread) == (N, 3, pytest.approx(1.0))
        values[2] = np.nan
        assert means(subject, values, np.arange(N))[0].value == pytest.approx(1.5)

    def test_the_flow_between_classes_adds_up(self):
        flow = asked(coloured()).tables["Decided, by true class"]
        assert flow["true class"].tolist() == ["none", "red", "green"]
        assert flow[["none", "red", "green"]].sum(axis=1).tolist() == pytest.approx([1.0, 1.0, 1.0])

    def test_two_classes_are_decided_at_the_threshold(self):
        cohort = tiny_cohort(n=60).with_split(["test"] * 60)
        classifier = Classifier.build("compact", cohort=cohort).eval()
        classifier.card.threshold = 0.0  # all are positive
        subject = Subject.of(classifier, cohort, resamples=20)
        found = run_audit(DistractorAudit(), subject, thresholds={}).measures["confused"].estimate.value
        assert found == pytest.approx((cohort.labels == 0).mean())

    def test_volumes_and_two_classes(self):
        cohort = tiny_cohort(n=40, side=16, depth=8).with_split(["test"] * 40)
        subject = Subject.of(Classifier.build("compact", cohort=cohort).eval(), cohort, resamples=20)
        finding = run_audit(DistractorAudit(), subject, thresholds={})
        assert finding.reason == ""
        assert len(finding.tables["By pair of classes"]) == 2

    def test_a_network_without_maps_is_told_what_to_ask_instead(self):
        cohort = coloured()
        net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 8), nn.ReLU(), nn.Linear(8, 3))
        flat = Classifier.wrap(net, classes=cohort.classes, size=cohort.spatial, channels=3, task="multiclass")
        subject = Subject.of(flat.eval(), cohort, resamples=20)
        assert "`maps: gradient` needs no layer" in run_audit(DistractorAudit(), subject, thresholds={}).reason
        assert run_audit(DistractorAudit(maps="gradient"), subject, thresholds={}).reason == ""

    def test_what_it_cannot_be_asked_of(self):
        cohort = tiny_cohort("multilabel", n=60).with_split(["test"] * 60)
        subject = Subject.of(Classifier.build("compact", cohort=cohort).eval(), cohort, resamples=20)
        assert "multilabel" in run_audit(DistractorAudit(), subject, thresholds={}).reason
        cohort = coloured()
        function = ProbabilityFunction(
            lambda x: np.full((len(x), 3), 1 / 3), classes=cohort.classes, size=cohort.spatial
        )
        finding = run_audit(DistractorAudit(), Subject.of(function, cohort, resamples=20), thresholds={})
        assert finding.verdict is Verdict.NOT_MEASURED
