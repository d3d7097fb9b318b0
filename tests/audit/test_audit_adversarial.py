"""A linear classifier's distance to misclassification is known: the audit has to find it, and say it in grey levels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tiny import tiny_cohort
from trueread.audit.adversarial import AdversarialAudit, Reach, weighted_median
from trueread.audit.base import Verdict, compare_findings, run_audit
from trueread.audit.decisions import decision_logits
from trueread.audit.subject import Subject
from trueread.model import Classifier, ProbabilityFunction
from trueread.shift.attack import grey_levels

SIDE = 16


@pytest.fixture(autouse=True)
def _alone(quiet_and_on_one_thread):
    pass


def cohort_of(task="binary", *, n=60, share=0.3):
    """Nowhere black or white, all of it test images."""
    cohort = tiny_cohort(task, n=n, share=share, side=SIDE)
    return replace(cohort, images=(60 + cohort.images // 2).astype(np.uint8)).with_split(["test"] * n)


def linear(cohort, *, seed=0, scale=0.5, threshold=None, temperature=1.0):
    """Looks at the first blob, and a little at everything."""
    head = nn.Linear(SIDE * SIDE, cohort.n_classes)
    mask = torch.zeros(SIDE, SIDE)
    mask[2:7, 2:7] = 1
    with torch.no_grad():
        noise = torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(seed))
        head.weight.copy_(0.15 * noise)
        head.weight[1] += scale * mask.flatten()
        images = torch.from_numpy(cohort.images / 255).float().flatten(1)
        logits = images @ head.weight.T
        head.bias.copy_(-logits.mean(0))
    made = Classifier.wrap(
        nn.Sequential(nn.Flatten(), head), classes=cohort.classes, size=(SIDE, SIDE), channels=1, task=cohort.task
    )
    made.card.threshold, made.card.temperature = threshold, temperature
    return made


def exact(classifier, cohort):
    """Distance of each image to the decision, L2; 0 where it is wrong."""
    weight, bias = (p.detach().double() for p in classifier.network[1].parameters())
    x = torch.from_numpy(cohort.images / 255).flatten(1)
    margin = (x @ (weight[1] - weight[0]) + bias[1] - bias[0]) / classifier.card.temperature
    threshold = classifier.card.threshold or 0.5
    margin = margin - np.log(threshold / (1 - threshold))
    said = (margin >= 0).long().numpy()
    apart = margin.abs() / (weight[1] - weight[0]).norm() * classifier.card.temperature
    return np.where(said == cohort.labels, apart.numpy(), 0.0)


@pytest.mark.parametrize(("threshold", "temperature"), [(None, 1.0), (0.8, 2.0)])
def test_of_a_linear_classifier_everything_is_known(threshold, temperature):
    cohort = cohort_of()
    classifier = linear(cohort, scale=0.1, threshold=threshold, temperature=temperature)
    subject = Subject.of(classifier, cohort, resamples=50)
    distance = exact(classifier, cohort)
    right = distance > 0
    assert 0.5 < right.mean() < 1
    epsilon = float(np.median(distance[right]))
    finding = run_audit(AdversarialAudit(epsilon=epsilon), subject, thresholds={})
    assert finding.verdict is Verdict.NO_THRESHOLD
    labels, value = cohort.labels, {k: m.estimate.value for k, m in finding.measures.items()}

    def balanced(reach):
        return np.mean([(distance[labels == k] > reach).mean() for k in range(2)])

    assert value["clean"] == pytest.approx(balanced(0))
    assert value["robust"] == pytest.approx(balanced(epsilon), abs=0.08)  # some stand at the very edge
    to_grey = grey_levels(1.0, "l2", (1, SIDE, SIDE))
    assert value["smallest-change"] == pytest.approx(np.median(distance[right]) * to_grey, rel=0.12)
    table = finding.tables["By epsilon"]
    values = [e.value for e in table["balanced accuracy"]]
    assert values == sorted(values, reverse=True)
    for epsilon_tried, said in zip(table["epsilon"], values, strict=True):
        assert said == pytest.approx(balanced(epsilon_tried), abs=0.08)
    assert finding.tables["By class"]["right"].tolist() == pytest.approx(
        [(distance[labels == k] > 0).mean() for k in range(2)]
    )
    (strip,) = finding.strips
    assert strip.heads == ["as it is", "misleads", "the change, 10 times"]
    assert finding.figures[0].data["value"].iloc[0] == pytest.approx(balanced(0))


def test_a_classifier_with_a_wider_margin_is_harder_to_mislead():
    cohort = cohort_of()
    subjects = [Subject.of(linear(cohort, scale=s), cohort, name=str(s)) for s in (0.02, 1.0)]
    findings = [run_audit(AdversarialAudit(steps=10), replace(s, resamples=100), thresholds={}) for s in subjects]
    difference = next(
        d for d in compare_findings(("weak", [findings[0]]), [("strong", [findings[1]])], subjects[0])
        if d.measure == "smallest-change"
    )  # fmt: skip
    assert difference.comparison.difference.low > 0


def test_the_norm_and_the_attack_can_be_chosen():
    cohort = cohort_of()
    subject = Subject.of(linear(cohort), cohort, resamples=20)
    found = {
        name: run_audit(AdversarialAudit(norm="linf", epsilon=0.02, attack=name, steps=8), subject, thresholds={})
        for name in ("pgd", "strongest", "square")
    }
    robust = {name: f.measures["robust"].estimate.value for name, f in found.items()}
    assert robust["strongest"] == pytest.approx(robust["pgd"], abs=0.05)  # a plane has no valley to be lost in
    assert robust["square"] >= robust["pgd"] - 0.05
    assert "2.00" not in found["pgd"].notes[1]
    assert f"{0.02 * 255:.2f} of 255 grey levels (largest change of an intensity)" in found["pgd"].notes[1]


def test_a_function_without_gradients_is_asked_by_square_alone():
    cohort = cohort_of()
    net = linear(cohort)

    def answer(images):
        with torch.no_grad():
            return net.probabilities(torch.from_numpy(images)).numpy()

    function = ProbabilityFunction(answer, classes=cohort.classes, size=(SIDE, SIDE), channels=1)
    subject = Subject.of(function, cohort, resamples=20)
    refused = run_audit(AdversarialAudit(), subject, thresholds={})
    assert refused.verdict is Verdict.NOT_MEASURED
    assert "needs its gradients" in refused.reason
    asked = run_audit(AdversarialAudit(norm="linf", epsilon=0.05, attack="square", steps=4), subject, thresholds={})
    assert asked.measures["robust"].estimate.value < asked.measures["clean"].estimate.value


def test_multilabel_is_not_asked():
    cohort = cohort_of("multilabel", n=80)
    head = nn.Linear(SIDE * SIDE, 3)
    made = Classifier.wrap(
        nn.Sequential(nn.Flatten(), head), classes=cohort.classes, size=(SIDE, SIDE), channels=1, task="multilabel"
    )
    finding = run_audit(AdversarialAudit(), Subject.of(made, cohort), thresholds={})
    assert finding.verdict is Verdict.NOT_MEASURED
    assert "the task is multilabel" in finding.reason


@pytest.mark.parametrize("task", ["multiclass", "ordinal"])
def test_several_classes_and_seeds(task):
    cohort = cohort_of(task, n=80)
    nets = [linear(cohort, seed=s) for s in range(2)]
    single = [Subject.of(net, cohort, resamples=20) for net in nets]
    both = replace(single[0], members=[s.members[0] for s in single])
    of_each = [run_audit(AdversarialAudit(steps=5), s, thresholds={}).measures["robust"].estimate for s in single]
    together = run_audit(AdversarialAudit(steps=5), both, thresholds={}).measures["robust"].estimate
    assert together.value == pytest.approx(np.mean([e.value for e in of_each]))
    assert together.n_seeds == 2


def test_images_that_cannot_be_misled_count_with_the_largest_epsilon():
    cohort = cohort_of()
    subject = Subject.of(linear(cohort), cohort, resamples=20)
    distance = np.where(np.arange(60) < 50, np.inf, 0.0)
    reach = Reach(subject, np.arange(60), [distance], 0.5, (1.0, 2.0))
    assert subject.interval(reach.medians()).value == pytest.approx(1.0)  # twice epsilon


def test_the_weighted_median_is_that_of_repeated_values():
    generator = np.random.default_rng(0)
    values = generator.random(31)
    weights = generator.integers(0, 4, size=(20, 31))
    found = weighted_median(values)(weights.astype(np.float32))
    for row, median in zip(weights, found, strict=True):
        repeated = np.sort(np.repeat(values, row))
        assert median == repeated[(len(repeated) - 1) // 2]
    assert np.isnan(weighted_median(values)(np.zeros((1, 31)))).all()
    assert np.isnan(weighted_median(np.empty(0))(np.empty((2, 0)))).all()


def test_the_largest_of_the_logits_is_the_decision():
    cohort = cohort_of()
    for threshold in (None, 0.02, 0.97):
        classifier = linear(cohort, threshold=threshold, temperature=3.0)
        subject = Subject.of(classifier, cohort)
        images = torch.from_numpy(cohort.images / 255).float()
        said = decision_logits(subject.members[0])(images).argmax(1).numpy()
        np.testing.assert_array_equal(said, subject.members[0].probabilities[:, 1] >= (threshold or 0.5))
