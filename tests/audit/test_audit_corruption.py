"""Predictors that read one property of an image: which corruptions cost them what is known, the rest is recomputed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tiny import tiny_cohort
from trueread.audit.base import Verdict, compare_findings, run_audit
from trueread.audit.corruption import CorruptionAudit
from trueread.audit.subject import Subject
from trueread.errors import InputError
from trueread.model import ProbabilityFunction
from trueread.shift.corruption import LEVELS, corruption, corruption_scores, corruptions_for, family_of
from trueread.stats import point


@pytest.fixture(autouse=True)
def _alone(quiet_and_on_one_thread):
    pass


def cohort_of(*, n=60, modality="fundus", channels=1, share=0.3, side=28):
    """Dark images, and bright ones: the brightness is the class."""
    cohort = tiny_cohort(n=n, share=share, side=side, channels=channels)
    images = cohort.images // 4 + 60 * cohort.labels[:, None, None, None].astype(np.uint8) + 40
    return replace(cohort, images=images.astype(np.uint8), modality=modality).with_split(["test"] * n)


def subject_for(cohort, read, *, resamples=60, name="planted", threshold=0.5):
    def function(images):
        p = np.clip(read(images), 0, 1)
        return np.stack([1 - p, p], axis=1)

    made = ProbabilityFunction(
        function, classes=cohort.classes, size=cohort.spatial, channels=cohort.channels, threshold=threshold
    )
    return Subject.of(made, cohort, resamples=resamples, name=name)


def brightness(images):
    """Above one half from a mean intensity of about 0.35 on."""
    return 0.5 + 4 * (images.reshape(len(images), -1).mean(axis=1) - 0.35)


def fixed(images):
    return 0.5 + 0.4 * np.sign(images.reshape(len(images), -1).std(axis=1) - 10)


def asked(subject, **options):
    return run_audit(CorruptionAudit(**options), subject, thresholds={"corruption": 0.1})


def test_every_number_is_that_of_the_images_corrupted_one_by_one():
    cohort = cohort_of(n=40)
    subject = subject_for(cohort, brightness)
    finding = asked(subject)
    ids = [str(i) for i in cohort.table["id"]]
    images = torch.from_numpy(cohort.images / np.float32(255))
    means = {}
    table = finding.tables["Per corruption, balanced accuracy"].set_index("corruption")
    for name in corruptions_for("fundus"):
        of_levels = []
        for level in LEVELS:
            made = (corruption("fundus", name, level)(images, ids) * 255).round() / 255
            p = np.clip(brightness(made.numpy()), 0, 1)
            of_levels.append(point("balanced-accuracy", np.stack([1 - p, p], 1), cohort.labels, task="binary"))
        assert table.loc[name, [f"level {level}" for level in LEVELS]].tolist() == pytest.approx(of_levels)
        means[name] = np.mean(of_levels)
        assert table.loc[name, "mean"].value == pytest.approx(means[name])
    value = {k: m.estimate.value for k, m in finding.measures.items()}
    assert value["corrupted"] == pytest.approx(np.mean(list(means.values())))
    assert value["drop"] == pytest.approx(value["clean"] - value["corrupted"])
    for family in {family_of(name) for name in means}:
        expected = np.mean([v for k, v in means.items() if family_of(k) == family])
        assert value[f"family-{family}"] == pytest.approx(expected)
    assert next(iter(finding.measures)) == "drop"
    assert list(table["mean"].map(lambda e: e.value)) == sorted(e.value for e in table["mean"])


def test_who_reads_the_brightness_loses_it_to_darkness_alone():
    finding = asked(subject_for(cohort_of(), brightness))
    table = finding.tables["Per corruption, balanced accuracy"].set_index("corruption")
    assert table.index[0] == "brightness-down"
    assert table.loc["brightness-down", "lost"].value > 0.3
    assert abs(table.loc["defocus-blur", "lost"].value) < 0.02
    assert finding.measures["family-colour"].estimate.value < finding.measures["family-blur"].estimate.value
    (strip,) = finding.strips
    assert strip.heads[:2] == ["as it is", "brightness-down"]
    families = finding.figures[0].data.set_index("images")["value"]
    assert families["clean"] == finding.measures["clean"].estimate.value
    assert families["all"] == finding.measures["corrupted"].estimate.value
    curve = finding.figures[1].data
    assert set(curve["level"]) == {0, *LEVELS}
    assert curve.loc[curve["level"] == 0, "value"].nunique() == 1


def test_who_reads_nothing_loses_nothing():
    finding = asked(subject_for(cohort_of(), fixed))
    assert finding.measures["drop"].estimate.value == 0
    assert finding.measures["clean"].estimate.value == 0.5


def test_two_classifiers_are_compared_on_the_same_images():
    cohort = cohort_of(n=80)
    subjects = [subject_for(cohort, read, name=read.__name__) for read in (brightness, fixed)]
    found = [asked(s, images=40) for s in subjects]
    difference = next(
        d for d in compare_findings(("brightness", [found[0]]), [("fixed", [found[1]])], subjects[0])
        if d.measure == "corrupted"
    )  # fmt: skip
    values = [f.measures["corrupted"].estimate.value for f in found]
    assert difference.comparison.difference.value == pytest.approx(values[1] - values[0])
    assert found[0].measures["drop"].estimate.n <= 40


def test_the_list_is_that_of_the_modality_or_the_one_named():
    cohort = cohort_of(modality="any")
    refused = asked(subject_for(cohort, brightness))
    assert refused.verdict is Verdict.NOT_MEASURED
    assert "no list of corruptions for images of the modality 'any'" in refused.reason
    named = asked(subject_for(cohort, brightness), corruptions="oct")
    assert len(named.tables["Per corruption, balanced accuracy"]) == len(corruptions_for("oct"))
    with pytest.raises(InputError, match="'octt'"):
        asked(subject_for(cohort, brightness), corruptions="octt")


def test_what_needs_colour_is_left_out_of_grey_images_and_said():
    finding = asked(subject_for(cohort_of(modality="histology"), brightness))
    told = [note for note in finding.notes if "was left out" in note]
    assert any("'saturate'" in note for note in told)
    assert "saturate" not in set(finding.tables["Per corruption, balanced accuracy"]["corruption"])
    colour = asked(subject_for(cohort_of(modality="histology", channels=3), brightness))
    assert "saturate" in set(colour.tables["Per corruption, balanced accuracy"]["corruption"])


def test_a_medmnist_cohort_gets_the_scores_of_the_benchmark():
    cohort = replace(cohort_of(n=40), origin={"source": "medmnist:retinamnist@28"}, modality="fundus")
    finding = asked(subject_for(cohort, brightness))
    table = finding.tables["Per corruption, balanced accuracy"].set_index("corruption")
    levels = [f"level {level}" for level in LEVELS]
    errors = {name: [1 - v for v in table.loc[name, levels]] for name in corruptions_for("retina")}
    clean = 1 - finding.measures["clean"].estimate.value
    expected = corruption_scores(errors, clean=clean, reference="retinamnist")
    for name, score in expected.by_corruption.items():
        assert (table.loc[name, "bE"], table.loc[name, "rbE"]) == pytest.approx((score.be, score.rbe))
    (note,) = [n for n in finding.notes if "bE" in n]
    assert f"bE {expected.mean.be:.2f}" in note
    assert "not to be compared" in note
    other = asked(subject_for(cohort, brightness), corruptions="oct")  # another list than its own
    assert not any("bE" in n for n in other.notes)


def test_the_same_images_give_the_same_numbers_in_any_order():
    cohort = cohort_of(n=40)
    turned = cohort.subset(np.arange(40)[::-1])
    a, b = (asked(subject_for(c, brightness)).measures["corrupted"].estimate.value for c in (cohort, turned))
    assert a == pytest.approx(b)
