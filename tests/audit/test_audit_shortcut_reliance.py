"""Predictors whose every answer is known: what moves them, by how much, and what a planted cue does to them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny import tiny_cohort
from trueread.audit.base import Better, Verdict, compare_findings, run_audit
from trueread.audit.changed import some_patients
from trueread.audit.cues import decisions_changed, worst_of
from trueread.audit.shortcut_reliance import ShortcutReliance
from trueread.audit.subject import Member, Subject
from trueread.errors import InputError
from trueread.model import Classifier, ProbabilityFunction
from trueread.options import build
from trueread.shift.base import SHIFTS
from trueread.shift.planting import ARRANGEMENTS, planted, planting, with_cue
from trueread.stats import bootstrap, distribution, mean_over_seeds, total_variation, weighted_mean
from trueread.training.evaluate import predict_probabilities

CORNER = (slice(1, 3), slice(1, 3))  # where the square is in images of 32 pixels
BLOB = (slice(4, 14), slice(4, 14))  # where the first blob of a tiny cohort is
LOCAL, DIFFUSE = ("ruler", "square", "text", "vignette"), ("blur", "brightness", "gamma", "gaussian-noise")


@pytest.fixture(autouse=True)
def _alone(quiet_and_on_one_thread):
    pass


def made(task: str = "binary", *, n: int = 60, side: int = 32, **options):
    """A tiny cohort, all of it test images, whose corner is 0.2 everywhere (exactly: 51 of 255)."""
    cohort = tiny_cohort(task, n=n, side=side, **options)
    images = cohort.images.copy()
    images[..., :3, :3] = cohort.white // 5
    return replace(cohort, images=images).with_split(["test"] * n)


def mean_of(images: np.ndarray, where=None) -> np.ndarray:
    return (images if where is None else images[..., where[0], where[1]]).reshape(len(images), -1).mean(axis=1)


def answers(read, k: int, task: str = "binary"):
    """Probabilities [B,k] of which the second class (multilabel: the second label) is what is read; the first gets the
    rest, the others 0.
    """

    def function(images: np.ndarray) -> np.ndarray:
        p = np.zeros((len(images), k))
        p[:, 1] = read(images)
        if task != "multilabel":
            p[:, 0] = 1 - p[:, 1]
        return p

    return function


def subject_for(cohort, *reads, threshold=None, resamples: int = 60) -> Subject:
    """A subject with a member for each function from images to a number in [0,1]."""
    predictors = [
        ProbabilityFunction(
            answers(read, cohort.n_classes, cohort.task), classes=cohort.classes, size=cohort.spatial,
            channels=cohort.channels, task=cohort.task, threshold=threshold,
        )
        for read in reads
    ]  # fmt: skip
    rows = np.arange(len(cohort))
    members = [Member(p, seed, predict_probabilities(p, cohort, rows)) for seed, p in enumerate(predictors)]
    return Subject("planted", cohort, rows, members, resamples=resamples)


def corner(images: np.ndarray) -> np.ndarray:
    return mean_of(images, CORNER)


def blob(images: np.ndarray) -> np.ndarray:
    return mean_of(images, BLOB)


def nothing(images: np.ndarray) -> np.ndarray:
    return np.full(len(images), 0.3)


def table(finding, part: str = "Per cue,"):
    return next(t for title, t in finding.tables.items() if title.startswith(part))


def values(column) -> list[float]:
    return [e.value for e in column]


class TestMathematics:
    @settings(max_examples=50, deadline=None)
    @given(st.integers(0, 10_000), st.integers(2, 5), st.sampled_from(["multiclass", "multilabel"]))
    def test_it_is_a_distance_between_0_and_1(self, seed, k, task):
        generator = np.random.default_rng(seed)
        a, b, c = generator.dirichlet(np.ones(k) / 3, size=(3, 7))
        distance = total_variation(a, b, task=task)
        assert ((distance >= 0) & (distance <= 1)).all()
        assert total_variation(b, a, task=task) == pytest.approx(distance)
        assert (total_variation(a, a, task=task) == 0).all()
        assert (distance <= total_variation(a, c, task=task) + total_variation(c, b, task=task) + 1e-12).all()

    def test_in_two_classes_it_is_the_change_of_either(self):
        p, q = np.array([0.1, 0.9, 0.4]), np.array([0.8, 0.9, 0.1])
        moved = total_variation(np.stack([1 - p, p], 1), np.stack([1 - q, q], 1), task="binary")
        assert moved == pytest.approx(np.abs(p - q))

    def test_from_certain_to_certain_is_1_and_of_labels_the_mean(self):
        a, b = np.array([[1.0, 0, 0]]), np.array([[0, 0, 1.0]])
        assert total_variation(a, b, task="multiclass") == 1
        assert total_variation(a, b, task="multilabel") == pytest.approx(2 / 3)

    def test_a_decision_changes_at_the_threshold_and_not_at_one_half(self):
        p, q = np.array([[0.9, 0.1], [0.7, 0.3]]), np.array([[0.75, 0.25], [0.2, 0.8]])
        assert decisions_changed(p, q, task="binary", threshold=0.2).tolist() == [1, 0]
        assert decisions_changed(p, q, task="binary").tolist() == [0, 1]
        assert decisions_changed(p, q, task="multilabel").tolist() == [0, 1]  # both labels of the second image

    def test_the_worst_of_several_is_above_the_one_that_was_selected(self):
        """Eight cues that are alike: the largest of each resample is above the resampled largest of the sample."""
        noise = np.random.default_rng(0).exponential(0.05, size=(80, 8))
        selected = weighted_mean(noise[:, noise.mean(axis=0).argmax()])
        clusters = np.arange(80)
        honest, naive = (distribution(s, clusters, resamples=500) for s in (worst_of(noise), selected))
        assert (honest >= naive - 1e-12).all()
        assert honest.mean() > naive.mean() + 0.001
        ends, naive_ends = (bootstrap(s, clusters, resamples=500) for s in (worst_of(noise), selected))
        assert ends.value == naive_ends.value
        assert ends.low > naive_ends.low
        assert ends.high >= naive_ends.high

    def test_of_cues_that_are_alike_the_worst_is_not_reported_above_them(self):
        """30 samples of eight cues of reliance 0.05: the interval of the plain largest is nearly always above that."""
        generator, above, plain = np.random.default_rng(1), 0, 0
        for seed in range(30):
            largest = worst_of(generator.exponential(0.05, size=(60, 8)))
            corrected = mean_over_seeds([largest], np.arange(60), resamples=100, seed=seed, correct_bias=True)
            uncorrected = bootstrap(largest, np.arange(60), resamples=100, seed=seed)
            above, plain = above + (corrected.low > 0.05), plain + (uncorrected.low > 0.05)
            assert corrected.value < uncorrected.value
        assert above < 8
        assert plain > 22


class TestKnownReliance:
    def test_a_reader_of_one_corner_relies_on_the_square_exactly(self):
        subject = subject_for(made(), corner)
        finding = run_audit(ShortcutReliance(), subject, thresholds={"shortcut-reliance": 0.05})
        assert list(finding.measures) == ["local", "diffuse"]
        assert finding.headline.better is Better.LOWER
        assert finding.headline.estimate.value == pytest.approx(0.4)  # halfway from 0.2 to 1
        of_cue = table(finding).set_index("cue")
        assert sorted(of_cue.index[of_cue["kind"] == "local"]) == list(LOCAL)
        assert sorted(of_cue.index[of_cue["kind"] == "diffuse"]) == list(DIFFUSE)
        assert of_cue["reliance"]["square"].value == pytest.approx(0.4)
        assert of_cue["reliance"]["text"].value == of_cue["reliance"]["ruler"].value == 0  # elsewhere in the image
        assert of_cue["reliance"]["brightness"].value == pytest.approx(0.08, abs=1 / 255)  # 0.1 of the way to 1
        assert of_cue["reliance"]["gamma"].value == pytest.approx(0.2**0.5**0.5 - 0.2, abs=1 / 255)
        assert of_cue["decisions that flip"]["square"].value == 1  # from 0.2 to 0.6
        assert of_cue["pushes most towards"]["square"] == "mild (+0.400)"
        assert of_cue["pushes most towards"]["vignette"].startswith("normal (+")
        assert of_cue["pushes most towards"]["text"] == "none"

    @pytest.mark.parametrize(("share", "verdict"), [(1.0, Verdict.FAIL), (0.1, Verdict.PASS)])
    def test_it_is_judged_by_the_worst_local_cue(self, share, verdict):
        """Corners differ from patient to patient, so there is an interval, and it lies around the mean."""
        cohort = tiny_cohort(n=60, side=32).with_split(["test"] * 60)
        finding = run_audit(
            ShortcutReliance(), subject_for(cohort, lambda x: share * corner(x)), thresholds={"shortcut-reliance": 0.1}
        )
        expected = share * 0.5 * (1 - corner(cohort.images / 255).mean())
        assert finding.headline.estimate.value == pytest.approx(expected, abs=2e-3)
        assert expected - 0.02 < finding.headline.estimate.low < expected < finding.headline.estimate.high
        assert finding.verdict is verdict
        assert "Worst cue: square (local), gamma (diffuse)." in finding.notes[1]

    def test_the_curve_has_every_cue_at_every_severity(self):
        figure = ShortcutReliance().run(subject_for(made(), corner)).figures[0]
        assert (figure.kind, figure.group) == ("line", "cue")
        assert len(figure.data) == 8 * 3
        square = figure.data[figure.data["cue"] == "square"]
        assert list(square["severity"]) == [0.25, 0.5, 1.0]
        assert list(square["reliance"]) == pytest.approx([0.2, 0.4, 0.8])

    def test_who_reads_nothing_relies_on_nothing(self):
        finding = run_audit(ShortcutReliance(), subject_for(made(), nothing), thresholds={"shortcut-reliance": 0.05})
        assert [m.estimate.value for m in finding.measures.values()] == [0, 0]
        assert set(values(table(finding)["reliance"])) == {0}
        assert set(table(finding)["pushes most towards"]) == {"none"}
        assert (finding.figures[0].data["reliance"] == 0).all()

    def test_the_middle_severity_is_judged_whatever_their_order(self):
        subject = subject_for(made(), corner)
        finding = ShortcutReliance(strengths=(1.0, 0.25)).run(subject)
        assert finding.headline.estimate.value == pytest.approx(0.8)
        assert "severity 1;" in finding.headline.definition

    def test_per_class_reliance_rests_on_the_images_of_the_class(self):
        """It reads the corner only where the blob is, so only in the second class."""
        cohort = made(n=100, share=0.3)
        finding = ShortcutReliance().run(subject_for(cohort, lambda x: np.where(blob(x) > 0.5, corner(x), 0.2)))
        rows = table(finding, "Per cue and class").set_index(["cue", "class"])
        positives = int((cohort.labels == 1).sum())
        assert rows["images of the class"]["square"].to_dict() == {"normal": 100 - positives, "mild": positives}
        assert rows["reliance"]["square", "mild"].value == pytest.approx(0.4)
        assert rows["reliance"]["square", "normal"].value == 0
        share = positives / 100
        assert rows["change of its probability"]["square", "mild"].value == pytest.approx(0.4 * share)
        assert rows["change of its probability"]["square", "normal"].value == pytest.approx(-0.4 * share)
        assert table(finding).set_index("cue")["reliance"]["square"].value == pytest.approx(0.4 * share)

    @pytest.mark.parametrize("options", [{"channels": 3}, {"depth": 4}, {"white": 4095}], ids=str)
    @pytest.mark.parametrize("task", ["multiclass", "ordinal"])
    def test_colour_volumes_and_other_tasks(self, task, options):
        finding = ShortcutReliance().run(subject_for(made(task, n=40, **options), corner))
        assert finding.headline.estimate.value == pytest.approx(0.4, abs=1 / 255)
        assert len(table(finding)) == 8
        assert table(finding).set_index("cue")["pushes most towards"]["square"].startswith("mild (+0.4")

    def test_multilabel_is_the_mean_over_labels_and_unknown_labels_do_not_matter(self):
        cohort = made("multilabel")
        assert np.isnan(cohort.labels).any()
        finding = ShortcutReliance().run(subject_for(cohort, corner, threshold=[0.5, 0.5, 0.5]))
        assert finding.headline.estimate.value == pytest.approx(0.4 / 3)
        row = table(finding).set_index("cue").loc["square"]
        assert row["decisions that flip"].value == pytest.approx(1 / 3)
        assert row["pushes most towards"] == "nodule (+0.400)"
        rows = table(finding, "Per cue and class")
        assert list(rows["images of the class"][:3]) == list(np.nansum(cohort.labels, axis=0))

    def test_over_seeds_it_is_the_mean_and_has_a_spread(self):
        finding = ShortcutReliance().run(subject_for(made(), corner, nothing))
        for estimate in (finding.headline.estimate, table(finding).set_index("cue")["reliance"]["square"]):
            assert estimate.value == pytest.approx(0.2)
            assert estimate.spread == pytest.approx(np.std([0.4, 0], ddof=1))
            assert (estimate.n_seeds, estimate.n, estimate.n_clusters) == (2, 60, 30)

    def test_each_member_decides_at_its_own_threshold(self):
        finding = ShortcutReliance().run(subject_for(made(), corner, threshold=0.7))
        assert table(finding).set_index("cue")["decisions that flip"]["square"].value == 0  # 0.6 is still below

    def test_a_network_gives_what_it_says_of_the_changed_images(self):
        torch.manual_seed(0)
        cohort = made(n=40)
        classifier = Classifier.build("compact", cohort=cohort)
        finding = ShortcutReliance().run(Subject.of(classifier, cohort, resamples=50))
        for name in ("square", "gaussian-noise"):
            changed = with_cue(cohort, SHIFTS.build(name, {"severity": 0.5}), np.arange(40))
            with torch.no_grad():
                p, q = (
                    classifier.eval().probabilities(torch.from_numpy(x / np.float32(255))).numpy()
                    for x in (cohort.images, changed)
                )
            found = table(finding).set_index("cue")["reliance"][name].value
            assert found == pytest.approx(np.abs(p - q).sum(axis=1).mean() / 2, abs=1e-6)


class TestWhichImages:
    def test_a_cue_that_does_not_fit_is_named_with_its_reason(self):
        finding = ShortcutReliance().run(subject_for(made(side=16), lambda x: mean_of(x)))
        assert "text" not in set(table(finding)["cue"])
        assert any(n.startswith("'text' was left out: letters of 2 pixels cannot be read") for n in finding.notes)

    def test_images_of_a_few_pixels_still_have_the_cues_that_fit(self):
        cohort = replace(made(side=16), images=made(side=16).images[..., :2, :2])
        finding = ShortcutReliance().run(subject_for(cohort, lambda x: mean_of(x)))
        assert set(table(finding)["cue"]) == {*DIFFUSE, "vignette"}
        assert list(finding.measures) == ["local", "diffuse"]

    def test_whole_patients_up_to_the_number_asked_for(self):
        cohort = made(n=200)
        subject = subject_for(cohort, corner)
        taken = some_patients(subject, 60)
        patients = cohort.table["patient"].to_numpy()
        assert 56 <= len(taken) <= 60
        assert not set(patients[taken]) & set(np.delete(patients, taken))
        estimate = ShortcutReliance(images=60).run(subject).headline.estimate
        assert (estimate.n, estimate.n_clusters) == (len(taken), len(set(patients[taken])))
        assert len(some_patients(subject, 200)) == 200

    def test_99_to_1_keeps_a_patient_of_the_rare_class_and_the_shares(self):
        cohort = made(n=600, share=0.01)
        assert (cohort.labels == 1).sum() == 6
        subject = subject_for(cohort, corner)
        labels = subject.labels[some_patients(subject, 100)]
        assert 1 <= (labels == 1).sum() <= 2
        finding = run_audit(ShortcutReliance(images=100), subject, thresholds={})
        assert finding.headline.estimate.value == pytest.approx(0.4)
        rare = table(finding, "Per cue and class").query("cue == 'square' and `class` == 'mild'")["reliance"].iloc[0]
        assert rare.value == pytest.approx(0.4)
        json.dumps(finding.to_json(), allow_nan=False)

    def test_shares_are_kept_in_a_multilabel_cohort_too(self):
        subject = subject_for(made("multilabel", n=600), corner)
        labels = subject.labels[some_patients(subject, 200)]
        assert np.nanmean(labels, axis=0) == pytest.approx(np.nanmean(subject.labels, axis=0), abs=0.06)

    def test_another_seed_draws_other_patients(self):
        subject = subject_for(made(n=200), corner)
        first = some_patients(subject, 60)
        assert np.array_equal(first, some_patients(subject, 60))
        assert not np.array_equal(first, some_patients(replace(subject, seed=1), 60))

    def test_the_same_subject_gives_the_same_words(self):
        first, again = (ShortcutReliance(images=40).run(subject_for(made(), blob, corner)) for _ in range(2))
        assert first.to_json() == again.to_json()

    def test_the_order_of_the_images_does_not_matter(self):
        cohort = made(n=120)
        turned = cohort.subset(np.random.default_rng(0).permutation(120))
        subjects = [subject_for(c, lambda x: mean_of(x)) for c in (cohort, turned)]
        taken = [set(c.table["id"].iloc[some_patients(s, 60)]) for c, s in zip((cohort, turned), subjects, strict=True)]
        assert taken[0] == taken[1]
        findings = [ShortcutReliance(images=60).run(s) for s in subjects]
        for a, b in zip(*(values(table(f)["reliance"]) for f in findings), strict=True):
            assert a == pytest.approx(b, abs=1e-9)

    def test_every_image_is_predicted_once_per_cue_and_severity(self):
        seen = []
        subject = subject_for(made(n=100), lambda x: seen.append(len(x)) or corner(x))
        seen.clear()
        ShortcutReliance(images=40, strengths=(0.5, 1.0)).run(subject)
        assert sum(seen) == 8 * 2 * 40

    def test_methods_are_compared_on_the_same_images(self):
        subjects = [subject_for(made(n=100), read) for read in (corner, blob)]
        reader, honest = ([run_audit(ShortcutReliance(images=40), s, thresholds={})] for s in subjects)
        local = next(
            d for d in compare_findings(("erm", reader), [("better", honest)], subjects[0]) if d.measure == "local"
        )
        assert local.comparison.difference.high < -0.3
        assert local.comparison.p_value < 0.05

    @pytest.mark.parametrize("options", [{"strengths": []}, {"strengths": [0.0]}, {"strengths": [2]}, {"images": 5}])
    def test_options_are_checked(self, options):
        with pytest.raises(InputError):
            build(ShortcutReliance, options, where="audit 'shortcut-reliance'")


def with_planting(task: str = "binary", *, n: int = 200, test: str = "clean", **options):
    cohort = made(task, n=n, **options)
    prevalence = 0.95 if task == "binary" else dict(zip(cohort.classes, (0.1, 0.9, 0.1, 0.1), strict=False))
    what = planting(cohort, "square", severity=1.0, prevalence=prevalence)
    return cohort, what, planted(cohort, what, {"test": test})


class TestPlanted:
    def test_who_uses_the_cue_is_turned_round_by_it(self):
        _, _, cohort = with_planting()
        finding = run_audit(ShortcutReliance(), subject_for(cohort, corner), thresholds={"shortcut-reliance": 0.05})
        assert next(iter(finding.measures)) == "planted"
        assert finding.headline.estimate.value == pytest.approx(0.8)
        assert finding.verdict is Verdict.FAIL
        found = {k: m.estimate for k, m in finding.measures.items()}
        assert found["auroc-biased"].value > 0.9
        assert found["auroc-clean"].value == 0.5
        assert 0.35 < found["auroc-balanced"].value < 0.65
        assert found["auroc-flipped"].value == 0
        assert found["auroc-gap"].value == pytest.approx(found["auroc-biased"].value)
        assert found["auroc-gap"].low > 0.8
        assert found["delta-tpr"].value == found["delta-fpr"].value == 1
        assert found["worst-group"].value == 0
        sizes = table(finding, "Groups of")
        assert sizes["images"].sum() == 200
        assert values(sizes["accuracy"]) == [1, 0, 0, 1]  # normal without and with, mild without and with

    def test_who_ignores_it_is_the_same_in_all_four(self):
        _, _, cohort = with_planting()
        noisy = np.random.default_rng(0).normal(0, 0.15, 10_000)
        subject = subject_for(cohort, lambda x: np.clip(blob(x) + noisy[(x[:, 0, 20, 20] * 9999).astype(int)], 0, 1))
        finding = ShortcutReliance().run(subject)
        found = {k: m.estimate for k, m in finding.measures.items()}
        assert found["planted"].value == 0
        assert len({found[f"auroc-{a}"].value for a in ARRANGEMENTS}) == 1
        assert 0.5 < found["auroc-clean"].value < 1
        assert found["auroc-gap"].value == 0
        assert found["delta-tpr"].value < 0.2
        assert found["worst-group"].value > 0.4
        assert finding.figures[0].kind == "interval"
        assert list(finding.figures[0].data["arrangement"]) == list(ARRANGEMENTS)
        assert list(table(finding, "Arrangements")["arrangement"]) == [*ARRANGEMENTS, "biased - flipped"]

    def test_the_arrangements_are_those_of_the_planting(self):
        """Every arrangement made again with `planted` and predicted as it is, and scored by scikit-learn."""
        clean, what, cohort = with_planting(share=0.3)

        def read(images: np.ndarray) -> np.ndarray:
            return 0.5 * corner(images) + 0.5 * blob(images)

        subject = subject_for(cohort, read, threshold=0.4)
        finding = ShortcutReliance().run(subject)
        arranged = table(finding, "Arrangements").set_index("arrangement")
        for a in ARRANGEMENTS:
            again = planted(clean, what, {"test": a})
            p = predict_probabilities(subject.members[0].predictor, again)[:, 1]
            assert arranged["images with the cue"][a] == again.truth["cue"].sum()
            assert arranged["AUROC"][a].value == pytest.approx(sk.roc_auc_score(again.labels, p))
            balanced = sk.balanced_accuracy_score(again.labels, p >= 0.4)
            assert arranged["Balanced accuracy"][a].value == pytest.approx(balanced)
            if a == "balanced":
                cue, y = again.truth["cue"].to_numpy(), again.labels
                rates = {c: (p >= 0.4)[(y == 1) & (cue == c)].mean() for c in (False, True)}
                plain = finding.measures["delta-tpr"].statistics[0](np.ones((1, len(y))))[0]
                assert plain == pytest.approx(abs(rates[True] - rates[False]))
                worst = min(((p >= 0.4) == y)[(y == k) & (cue == c)].mean() for k in (0, 1) for c in (False, True))
                assert finding.measures["worst-group"].estimate.value == pytest.approx(worst)
        gap = arranged["AUROC"]["biased"].value - arranged["AUROC"]["flipped"].value
        assert arranged["AUROC"]["biased - flipped"].value == pytest.approx(gap)

    @pytest.mark.parametrize("task", ["multiclass", "ordinal"])
    def test_more_than_two_classes_are_measured_by_balanced_accuracy(self, task):
        _, _, cohort = with_planting(task, n=120)
        finding = ShortcutReliance().run(subject_for(cohort, corner, nothing))
        found = {k: m.estimate for k, m in finding.measures.items()}
        assert not any(k.startswith(("auroc", "delta")) for k in found)
        assert found["planted"].value == pytest.approx(0.4)
        assert found["balanced-accuracy-biased"].value > found["balanced-accuracy-flipped"].value
        assert found["balanced-accuracy-biased"].n_seeds == 2
        json.dumps(finding.to_json(), allow_nan=False)

    def test_rare_positives_leave_no_nan_where_a_number_can_be(self):
        _, _, cohort = with_planting(n=600, share=0.01)
        finding = run_audit(ShortcutReliance(images=100), subject_for(cohort, corner), thresholds={})
        assert not any(np.isnan(m.estimate.value) for m in finding.measures.values())
        assert table(finding, "Groups of")["images"].sum() == 600
        json.dumps(finding.to_json(), allow_nan=False)

    def test_test_images_that_carry_the_cue_already_are_not_asked_about_it(self):
        _, _, cohort = with_planting(test="biased")
        finding = ShortcutReliance().run(subject_for(cohort, corner))
        assert list(finding.measures) == ["local", "diffuse"]
        assert any(
            "'square' was not asked about: the test images carry it already (biased)" in n for n in finding.notes
        )

    def test_methods_are_compared_in_every_arrangement(self):
        _, _, cohort = with_planting()
        reads = (corner, lambda x: 0.2 * corner(x) + 0.5 * blob(x))
        subjects = [subject_for(cohort, read, threshold=0.3) for read in reads]
        user, better = ([run_audit(ShortcutReliance(), s, thresholds={})] for s in subjects)
        found = {d.measure: d for d in compare_findings(("erm", user), [("better", better)], subjects[0])}
        assert set(found) == set(user[0].measures)
        assert found["auroc-flipped"].comparison.difference.low > 0
        assert found["auroc-flipped"].comparison.p_value < 0.05
        for key in ("planted", "auroc-gap", "delta-tpr"):
            assert found[key].comparison.difference.high < 0

    def test_one_pass_makes_all_four_arrangements(self):
        _, _, cohort = with_planting()
        seen = []
        subject = subject_for(cohort, lambda x: seen.append(len(x)) or corner(x))
        seen.clear()
        ShortcutReliance(images=40, strengths=(0.5,)).run(subject)
        assert sum(seen) == 8 * 40 + 200
