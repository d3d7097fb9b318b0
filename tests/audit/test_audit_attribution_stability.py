"""Maps of a linear classifier do not move at all; those of one that reads ripples do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tiny import tiny_cohort
from trueread.audit.attribution_stability import AttributionStability
from trueread.audit.base import Verdict, run_audit
from trueread.audit.subject import Subject
from trueread.model import Classifier, ProbabilityFunction

SIDE = 16


@pytest.fixture(autouse=True)
def _alone(quiet_and_on_one_thread):
    pass


def cohort_of(task="binary", *, n=24, **options):
    cohort = tiny_cohort(task, n=n, side=SIDE, **options)
    return replace(cohort, images=(60 + cohort.images // 2).astype(np.uint8)).with_split(["test"] * n)


class Ripples(nn.Module):
    """Sines of the pixels: how each counts turns round within a few grey levels."""

    def forward(self, x):
        return torch.sin(200 * x)


def wrapped(cohort, *layers, seed=0):
    head = nn.Linear(cohort.channels * int(np.prod(cohort.spatial)), cohort.n_classes)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(seed)))
    return Classifier.wrap(
        nn.Sequential(*layers, nn.Flatten(), head), classes=cohort.classes, size=cohort.spatial,
        channels=cohort.channels, task=cohort.task,
    )  # fmt: skip


def asked(classifier, cohort, **options):
    subject = Subject.of(classifier, cohort, resamples=50)
    return run_audit(AttributionStability(**{"steps": 5, "images": 12} | options), subject, thresholds={})


def test_the_map_of_a_linear_classifier_stays():
    cohort = cohort_of(channels=3)
    finding = asked(wrapped(cohort), cohort)
    value = {k: m.estimate.value for k, m in finding.measures.items()}
    assert next(iter(value)) == "spearman-integrated-gradients"
    for kind in ("gradient", "smoothgrad"):
        assert value[f"spearman-{kind}"] == pytest.approx(1)
        assert value[f"ssim-{kind}"] == pytest.approx(1, abs=1e-4)
    assert value["spearman-integrated-gradients"] > 0.99  # weight times intensity, which moved a little
    table = finding.tables["By kind of map"]
    assert list(table["map"]) == ["input gradient", "SmoothGrad", "integrated gradients"]
    assert table["rank correlation"][2].value == value["spearman-integrated-gradients"]
    (strip,) = finding.strips
    assert [panel.evidence is not None for panel in strip.rows[0]] == [False, True, False, True]


def test_the_map_of_one_that_reads_ripples_does_not():
    cohort = cohort_of()
    stable, moved = asked(wrapped(cohort), cohort), asked(wrapped(cohort, Ripples()), cohort)
    for key in ("spearman-gradient", "ssim-gradient", "spearman-integrated-gradients"):
        assert moved.measures[key].estimate.high < stable.measures[key].estimate.value - 0.1
    assert asked(wrapped(cohort, Ripples()), cohort, epsilon=1e-4).measures["spearman-gradient"].estimate.value > 0.95


def test_volumes_and_several_seeds():
    cohort = cohort_of(n=24, depth=8)
    one = Subject.of(wrapped(cohort), cohort, resamples=20)
    both = replace(one, members=[*one.members, *Subject.of(wrapped(cohort, seed=1), cohort).members])
    finding = run_audit(AttributionStability(steps=2, images=8), both, thresholds={})
    assert finding.measures["gini-gradient"].estimate.n_seeds == 2
    assert finding.strips[0].rows[0][0].image.shape == (1, SIDE, SIDE)


def test_what_cannot_be_asked():
    cohort = cohort_of("multilabel", n=40)
    finding = asked(wrapped(cohort), cohort)
    assert finding.verdict is Verdict.NOT_MEASURED
    cohort = cohort_of()
    function = ProbabilityFunction(
        lambda x: np.full((len(x), 2), 0.5), classes=cohort.classes, size=(16, 16), channels=1
    )
    assert "needs its gradients" in asked(function, cohort).reason
