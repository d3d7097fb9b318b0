"""A student learns from a classifier's own perturbations; its share is what the numbers beside it say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tiny import tiny_cohort, tiny_config
from trueread import fit
from trueread.audit.base import Verdict, run_audit
from trueread.audit.feature_use import FeatureUse
from trueread.audit.subject import Subject
from trueread.model import Classifier

ASKED = {"images": 120, "epochs": 6, "steps": 15}


@pytest.fixture(autouse=True)
def _alone(quiet_and_on_one_thread):
    pass


@pytest.fixture(scope="module")
def trained():
    torch.set_num_threads(1)
    cohort = tiny_cohort("multiclass", n=200, share=0.6)
    classifier = fit(cohort, config=tiny_config(epochs=5), quiet=True).classifier
    return cohort, classifier


def asked(cohort, classifier, **options):
    subject = Subject.of(classifier, cohort, resamples=40)
    return run_audit(FeatureUse(**ASKED | options), subject, thresholds={})


def test_the_share_is_that_of_the_numbers_beside_it(trained):
    cohort, classifier = trained
    finding = asked(cohort, classifier, epsilon=2.0)
    value = {k: m.estimate.value for k, m in finding.measures.items()}
    assert value["share"] == pytest.approx((value["student"] - 1 / 3) / (value["classifier"] - 1 / 3))
    assert value["classifier"] > 0.8
    table = finding.tables["Students"]
    assert list(table["learned from"]) == ["d_det", "noise"]  # three classes
    assert table["balanced accuracy"][0].value == value["student"]
    assert table["balanced accuracy"][1].value == value["control"]
    assert table["taken for the new class"][0] > 0.5 > table["taken for the new class"][1]
    assert table["moved, grey levels"][0] == pytest.approx(255 * 2 / 16, rel=0.05)
    assert "d_det" in finding.notes[0]


def test_a_low_fooling_rate_is_said_and_two_classes_get_random_labels(trained):
    cohort, classifier = trained
    assert "That is little: raise epsilon" in asked(cohort, classifier, epsilon=0.01, epochs=1).notes[1]
    binary = tiny_cohort(n=160)
    net = fit(binary, config=tiny_config(epochs=1), quiet=True).classifier
    assert list(asked(binary, net, epochs=1).tables["Students"]["learned from"]) == ["d_rand", "noise"]


def test_the_same_question_gets_the_same_answer(trained):
    cohort, classifier = trained
    first, second = (asked(cohort, classifier, epochs=1, steps=2).measures["student"].estimate for _ in range(2))
    assert first.value == second.value


def test_a_foreign_network_has_a_student_of_the_compact_one():
    cohort = tiny_cohort(n=160)
    foreign = Classifier.wrap(
        nn.Sequential(nn.Flatten(), nn.Linear(256, 2)), classes=cohort.classes, size=(16, 16), channels=1
    )
    finding = asked(cohort, foreign, epochs=1, steps=2)
    assert finding.verdict is Verdict.NO_THRESHOLD


def test_what_cannot_be_asked(trained):
    cohort, classifier = trained
    few = cohort.subset(np.concatenate([cohort.rows("train")[:20], cohort.rows("test")]))
    for given, reason in (
        (few, "takes 50 training images; found 20"),
        (replace(cohort).with_split(["test"] * 200), "found 0"),
    ):
        finding = asked(given, classifier)
        assert finding.verdict is Verdict.NOT_MEASURED
        assert reason in finding.reason
    multilabel = tiny_cohort("multilabel", n=200)
    net = Classifier.build("compact", cohort=multilabel)
    assert "the task is multilabel" in asked(multilabel, net).reason
