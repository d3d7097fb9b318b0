"""What features hold: planted directions are found, and what is not there is at chance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tiny import tiny_cohort
from trueread.audit.base import Verdict, run_audit
from trueread.audit.embedding import Embedding
from trueread.audit.subject import Subject
from trueread.cohort.cohort import Cohort
from trueread.model import Classifier, ProbabilityFunction

pytestmark = pytest.mark.usefixtures("quiet_and_on_one_thread")


def planted(*, uses_site: bool) -> Cohort:
    """The class is the brightness of the upper half, the site that of the lower one, both at random."""
    n, generator = 240, np.random.default_rng(0)
    labels, sites = (generator.integers(0, 2, n) for _ in range(2))
    images = generator.integers(90, 110, (n, 1, 16, 16))
    images[:, :, :8] += labels[:, None, None, None] * 60
    if uses_site:
        images[:, :, 8:] += sites[:, None, None, None] * 60
    cohort = tiny_cohort(n=n)
    table = cohort.table.assign(site=np.where(sites == 1, "north", "south"), split=["train", "val", "test"] * 80)
    table["patient"] = [f"p{k}" for k in range(n)]
    return Cohort(
        name="planted", images=images.astype(np.uint8), labels=labels.astype(np.int64), table=table,
        classes=("no", "yes"), task="binary",
    )  # fmt: skip


def halves(cohort: Cohort) -> Classifier:
    """Features are the mean brightness of both halves."""
    net = nn.Sequential(nn.AdaptiveAvgPool2d((2, 1)), nn.Flatten(), nn.Linear(2, 2))
    return Classifier.wrap(net, classes=cohort.classes, size=cohort.spatial, channels=1, mean=[0.5], std=[0.1])


def asked(cohort, classifier=None, **options):
    return run_audit(
        Embedding(**options), Subject.of(classifier or halves(cohort), cohort, resamples=60), thresholds={}
    )


def test_class_and_site_are_found_where_they_are():
    finding = asked(planted(uses_site=True))
    assert finding.measures["nearest"].estimate.value > 0.95
    assert finding.measures["linear"].estimate.value > 0.95
    told = finding.tables["What features tell"].set_index("told")
    assert told.loc["site", "by neighbours"].value > 0.95
    assert told.loc["site", "by chance"] == 0.5
    assert [f.name for f in finding.figures] == ["embedding-0", "embedding-1"]
    assert finding.figures[1].group == "site"


def test_the_map_shows_the_attributes_that_are_told_best():
    cohort = planted(uses_site=True)
    draw = np.random.default_rng(5)
    coins = {name: draw.integers(0, 2, len(cohort)).astype(str) for name in ("device", "sex", "ward")}
    table = cohort.table.drop(columns="site").assign(**coins, site=cohort.table["site"])
    finding = asked(replace(cohort, table=table))
    assert [f.group for f in finding.figures][:2] == ["class", "site"]
    assert len(finding.figures) == 3


def test_a_site_that_features_do_not_hold_is_at_chance():
    told = asked(planted(uses_site=False)).tables["What features tell"].set_index("told")
    assert told.loc["site", "by neighbours"].low < 0.5 < told.loc["site", "by neighbours"].high
    assert told.loc["the class", "by neighbours"].value > 0.95


def test_directions_are_counted():
    directions = asked(planted(uses_site=True)).tables["Directions"].iloc[0]
    assert directions["dimensions"] == 2
    assert 1.5 < directions["effective rank"] <= 2


def test_only_a_part_is_asked_when_there_are_many():
    finding = asked(planted(uses_site=True), images=50)
    assert "50 training and 50 test images" in finding.notes[0]


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda c: ProbabilityFunction(lambda x: np.full((len(x), 2), 0.5), classes=c.classes, size=(16, 16),
                                       channels=1), "needs its gradients"),
        (lambda c: Classifier.wrap(nn.Sequential(nn.Conv2d(1, 2, 16), nn.Flatten()), classes=c.classes,
                                   size=(16, 16), channels=1), "does not end in a linear layer"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked(made, reason):
    cohort = planted(uses_site=True)
    finding = asked(cohort, made(cohort))
    assert finding.verdict is Verdict.NOT_MEASURED
    assert reason in finding.reason


def test_without_training_images():
    cohort = planted(uses_site=True).with_split(["test"] * 240)
    assert "no training images" in asked(cohort).reason


def test_several_classes():
    cohort = tiny_cohort("multiclass", n=240)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classifier = Classifier.build("compact", cohort=cohort).eval()
    finding = asked(cohort, classifier)
    assert 0 <= finding.measures["nearest"].estimate.value <= 1
    assert len(finding.figures) == 1
