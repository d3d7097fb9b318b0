"""The driver: what is asked, what cannot be, what the threshold says, how methods differ, and what JSON keeps of it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from planted import binary, cohort_of, multiclass, multilabel, oracle, pair, sigmoid, subject_of

from trueread.audit.base import (
    AUDITS,
    Audit,
    Needs,
    build_audits,
    compare_findings,
    default_thresholds,
    merged_thresholds,
    run_audit,
    run_audits,
)
from trueread.audit.calibration import Calibration
from trueread.audit.finding import Better, Finding, Measure, Verdict, verdict_of
from trueread.audit.performance import Performance
from trueread.audit.subgroups import Subgroups
from trueread.audit.subject import Member, Subject
from trueread.errors import InputError, NotMeasured
from trueread.model import Classifier, ProbabilityFunction
from trueread.model.predictor import check_fits
from trueread.stats import Estimate, delong_test, holm


class Asks(Audit):
    """An audit with given needs and a given answer."""

    name, question = "performance", "Is it so?"

    def __init__(self, needs: set[Needs], answer: Estimate | Exception | None = None) -> None:
        self.needs, self.answer = needs, answer or Estimate(0.9, 0.85, 0.95)  # type: ignore[misc]

    def run(self, subject: Subject) -> Finding:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.finding(measures={"auroc": Measure("AUROC", self.answer, Better.HIGHER)})


class TestVerdict:
    @pytest.mark.parametrize(
        ("low", "high", "higher", "lower"),
        [
            (0.81, 0.90, "pass", "fail"),
            (0.80, 0.90, "pass", "warn"),  # the threshold itself is good enough, in both directions
            (0.70, 0.90, "warn", "warn"),
            (0.70, 0.80, "warn", "pass"),
            (0.60, 0.79, "fail", "pass"),
        ],
    )
    def test_the_whole_interval_decides_in_both_directions(self, low, high, higher, lower):
        estimate = Estimate((low + high) / 2, low, high)
        assert verdict_of(estimate, 0.8, Better.HIGHER) == higher
        assert verdict_of(estimate, 0.8, Better.LOWER) == lower

    def test_without_a_threshold_or_without_a_number_nothing_is_judged(self):
        nan = float("nan")
        assert verdict_of(Estimate(0.9, 0.8, 1.0), None, Better.HIGHER) is Verdict.NO_THRESHOLD
        assert verdict_of(Estimate(nan), 0.8, Better.HIGHER) is Verdict.NOT_MEASURED
        assert verdict_of(Estimate(nan), 0.8, Better.LOWER) is Verdict.NOT_MEASURED

    @pytest.mark.parametrize("value", [1.0, 0.9, 0.7, 0.0])
    def test_without_an_interval_nothing_is_decided(self, value):
        assert verdict_of(Estimate(value), 0.8, Better.HIGHER) is Verdict.WARN
        assert verdict_of(Estimate(1 - value), 0.2, Better.LOWER) is Verdict.WARN

    def test_a_perfect_score_of_a_few_patients_is_undecided_and_says_why(self):
        y = np.array([0, 1] * 6)
        subject = subject_of(pair(np.where(y == 1, 0.9, 0.1)), y)
        finding = run_audit(Performance(), subject, thresholds={"performance": 0.8})
        assert finding.headline.estimate.text() == "1.000"
        assert finding.verdict is Verdict.WARN
        assert finding.notes[-1] == "Every resample gives 1.000: too few patients for an interval."
        alone = subject_of(pair(np.where(y == 1, 0.9, 0.1)), y, patients=["p"] * 12)
        assert "do not give an interval" in run_audit(Performance(), alone, thresholds={}).notes[-1]

    @pytest.mark.parametrize(
        ("low", "threshold", "verdict"), [(0.85, 0.8, "warn"), (0.85, 0.97, "fail"), (0.85, None, "no threshold")]
    )
    def test_an_audit_that_doubts_its_own_headline_never_passes(self, low, threshold, verdict):
        class Doubts(Asks):
            def run(self, subject: Subject) -> Finding:
                return dataclasses.replace(super().run(subject), verdict=Verdict.WARN)

        finding = run_audit(
            Doubts(set(), Estimate(0.9, low, 0.95)), subject_of(*binary(60)), thresholds={"performance": threshold}
        )
        assert finding.verdict == verdict
        without = run_audit(Doubts(set(), Estimate(0.9, low, 0.95)), subject_of(*binary(60)), thresholds={})
        assert without.verdict is Verdict.WARN

    @pytest.mark.parametrize(("given", "verdict"), [({}, "warn"), ({"label": 0.1}, "warn"), ({"label": 0.6}, "fail")])
    def test_where_no_threshold_is_packaged_the_doubt_is_told(self, given, verdict):
        class Doubts(Asks):
            name = "label"

            def run(self, subject: Subject) -> Finding:
                return dataclasses.replace(super().run(subject), verdict=Verdict.WARN)

        asked = Doubts(set(), Estimate(0.4, 0.3, 0.5))
        assert run_audit(asked, subject_of(*binary(60)), thresholds=merged_thresholds(given)).verdict == verdict

    def test_the_threshold_of_a_foreign_function_is_as_given(self):
        def function(images: np.ndarray) -> np.ndarray:
            return pair(images.mean(axis=(1, 2, 3)))

        given = ProbabilityFunction(function, classes=["a", "b"], size=[2, 2], channels=1, threshold=0.3)
        none = ProbabilityFunction(function, classes=["a", "b"], size=[2, 2], channels=1)
        assert given.card.threshold_rule == "as given"
        assert none.card.threshold_rule == "the most probable class"


class TestNotMeasured:
    def reason(self, needs: set[Needs], **cohort) -> str:
        finding = run_audit(Asks(needs), subject_of(*binary(60), **cohort), thresholds={"performance": 0.8})
        assert finding.verdict is Verdict.NOT_MEASURED
        assert finding.measures == {}
        assert finding.threshold is None
        assert (finding.audit, finding.question) == ("performance", "Is it so?")
        return finding.reason

    def test_gradients_of_a_function(self):
        assert "given as a function" in self.reason({Needs.GRADIENTS})

    def test_masks_that_are_not_there_or_mark_nothing_on_the_test_images(self):
        assert "no masks" in self.reason({Needs.MASKS})
        assert "no masks" in self.reason({Needs.MASKS}, masks=np.zeros((60, 2, 2), np.uint8))

    def test_patients_nobody_knows(self):
        assert "belong to the same patient" in self.reason({Needs.PATIENTS}, patients_known=False)

    def test_attributes_that_are_not_there(self):
        assert "no attribute" in self.reason({Needs.ATTRIBUTES})

    def test_validation_that_is_not_there(self):
        assert "no validation split" in self.reason({Needs.VALIDATION})

    def test_of_several_lacks_the_same_one_is_named_every_time(self):
        """A set of strings has another order in every process."""
        assert "given as a function" in self.reason({Needs.VALIDATION, Needs.MASKS, Needs.GRADIENTS})

    def test_an_audit_that_finds_out_by_itself(self):
        finding = run_audit(Asks(set(), NotMeasured("the moon is full.")), subject_of(*binary(60)), thresholds={})
        assert (finding.verdict, finding.reason) == (Verdict.NOT_MEASURED, "the moon is full.")

    def test_what_is_there_is_measured(self):
        p, y = binary(60)
        masks = np.zeros((60, 2, 2), np.uint8)
        masks[7] = 1
        subject = subject_of(p, y, masks=masks, site=["A", "B"] * 30)
        subject.members[0].val_probabilities = p
        needs = set(Needs) - {Needs.GRADIENTS}
        assert run_audit(Asks(needs), subject, thresholds={"performance": 0.8}).verdict is Verdict.PASS

    def test_masks_only_count_on_the_test_images(self):
        p, y = binary(60)
        masks = np.zeros((60, 2, 2), np.uint8)
        masks[:30] = 1
        subject = subject_of(p, y, masks=masks, split=["train"] * 30 + ["test"] * 30)
        subject.rows = np.arange(30, 60)
        assert run_audit(Asks({Needs.MASKS}), subject, thresholds={}).verdict is Verdict.NOT_MEASURED

    def test_a_bug_is_not_called_not_measured(self):
        with pytest.raises(ZeroDivisionError):
            run_audit(Asks(set(), ZeroDivisionError()), subject_of(*binary(60)), thresholds={})

    def test_a_headline_that_is_not_defined(self):
        finding = run_audit(
            Asks(set(), Estimate(float("nan"))), subject_of(*binary(60)), thresholds={"performance": 0.8}
        )
        assert finding.verdict is Verdict.NOT_MEASURED


class TestThresholds:
    def test_the_packaged_ones_are_overridden_and_switched_off_one_by_one(self):
        subject = subject_of(*binary(300, strength=3), site=["A", "B"] * 150)
        audits = build_audits(["performance", "calibration", "subgroups"])
        plain = {f.audit: f for f in run_audits(subject, audits)}
        assert {n: f.threshold for n, f in plain.items()} == {n: default_thresholds()[n] for n in plain}
        assert plain["performance"].verdict is Verdict.PASS
        other = {
            f.audit: f for f in run_audits(subject, audits, thresholds={"performance": 0.999, "calibration": None})
        }
        assert other["performance"].verdict is Verdict.FAIL
        assert (other["calibration"].verdict, other["calibration"].threshold) == (Verdict.NO_THRESHOLD, None)
        assert other["subgroups"].threshold == default_thresholds()["subgroups"]
        assert plain["performance"].headline.estimate == other["performance"].headline.estimate

    def test_of_an_audit_that_does_not_exist(self):
        with pytest.raises(InputError, match=r"'perfomance' is not an audit. Did you mean 'performance'"):
            run_audits(subject_of(*binary(60)), [], thresholds={"perfomance": 0.9})

    def test_overriding_leaves_the_packaged_ones_alone(self):
        merged_thresholds({"performance": 0.1})
        assert default_thresholds()["performance"] == 0.8

    def test_every_packaged_threshold_is_of_an_audit(self):
        assert set(default_thresholds()) <= {e.name for e in AUDITS.entries()}


class TestBuild:
    def test_all_come_in_the_readers_order(self):
        assert [a.name for a in build_audits()][:3] == ["performance", "calibration", "subgroups"]
        left_out = {e.name for e in AUDITS.entries()} - {a.name for a in build_audits()}
        assert left_out == {
            "adversarial", "attribution-stability", "distractor", "embedding", "feature-use", "label", "localisation",
            "shortcut-layers", "shortcut-power",
        }  # fmt: skip

    def test_what_is_asked_on_request_only_is_asked_by_name(self):
        assert [a.on_request for a in build_audits(["shortcut-power", "performance"])] == [True, False]

    def test_names_options_and_their_mistakes(self):
        chosen = build_audits(["subgroups", {"name": "calibration", "bins": 7}])
        assert [a.name for a in chosen] == ["subgroups", "calibration"]
        assert chosen[1].bins == 7
        assert [a.name for a in build_audits("calibration, performance")] == ["calibration", "performance"]

    def test_all_and_more(self):
        standard = [a.name for a in build_audits()]
        assert [a.name for a in build_audits("all,localisation")] == [*standard, "localisation"]
        with_options = build_audits(["all", {"name": "calibration", "bins": 7}])
        assert [a.name for a in with_options] == [*(n for n in standard if n != "calibration"), "calibration"]
        with pytest.raises(InputError, match=r"'calibraton' is not an audit. Did you mean 'calibration'"):
            build_audits("calibraton")
        with pytest.raises(InputError, match=r"audit 'calibration': 'bin' is not an option here. Did you mean 'bins'"):
            build_audits([{"name": "calibration", "bin": 10}])
        with pytest.raises(InputError, match="audit 'calibration': 'bins' must be greater than or equal to 2; found 1"):
            build_audits([{"name": "calibration", "bins": 1}])
        with pytest.raises(InputError, match="an audit needs a name"):
            build_audits([{"bins": 10}])

    def test_the_same_audit_twice_would_lose_an_answer(self):
        with pytest.raises(InputError, match="'calibration' is asked twice"):
            build_audits(["calibration", {"name": "calibration", "bins": 5}])

    def test_the_options_given_are_left_as_they_were(self):
        given = {"name": "calibration", "bins": 10}
        build_audits([given])
        assert given == {"name": "calibration", "bins": 10}


def noisy(p: np.ndarray, scale: float, seed: int) -> np.ndarray:
    """A worse reader of the same images: the same scores with noise on their logits."""
    logits = np.log(p[:, 1] / p[:, 0]) + np.random.default_rng(seed).normal(0, scale, len(p))
    return pair(sigmoid(logits))


class TestComparison:
    def compared(self, others, baseline, y, *, audits=None, **cohort):
        audits = audits or [Performance(), Calibration()]
        subjects = [subject_of(p, y, name=f"m{i}", **cohort) for i, p in enumerate([baseline, *others])]
        findings = [(s.name, [run_audit(a, s, thresholds={}) for a in audits]) for s in subjects]
        return compare_findings(findings[0], findings[1:], subjects[0])

    def test_a_better_method_is_better_in_every_direction(self):
        """Difference = method minus baseline: AUROC up, Brier score down, and both significant."""
        p, y = binary(600, strength=2)
        found = {d.measure: d for d in self.compared([p], noisy(p, 2.0, 1), y)}
        assert {(d.method, d.baseline) for d in found.values()} == {("m1", "m0")}
        for key, sign in (("auroc", 1), ("balanced-accuracy", 1), ("brier", -1)):
            difference = found[key].comparison.difference
            assert sign * difference.value > 0
            assert sign * (difference.low if sign > 0 else difference.high) > 0
            assert found[key].comparison.p_value < 0.01
        assert found["auroc"].test == "DeLong, clustered by patient"
        assert found["brier"].test == "paired bootstrap"

    def test_the_auroc_is_compared_by_delong_on_the_same_patients(self):
        p, y = binary(400, share=0.1)
        patients = [f"p{i // 2}" for i in range(400)]
        q = noisy(p, 1.0, 1)
        found = next(d for d in self.compared([q], p, y, patients=patients) if d.measure == "auroc")
        expected, p_value = delong_test(q[:, 1].astype(np.float32), p[:, 1].astype(np.float32), y, np.arange(400) // 2)
        assert found.comparison.difference.value == pytest.approx(expected.value)
        assert found.comparison.difference.low == pytest.approx(expected.low)
        assert found.comparison.p_value == pytest.approx(p_value)
        assert expected.value < 0

    def test_the_same_predictions_do_not_differ(self):
        p, y = binary(200)
        for d in self.compared([p], p, y):
            assert (d.comparison.difference.value, d.comparison.difference.low, d.comparison.difference.high) == (
                0,
                0,
                0,
            )
            assert d.comparison.p_value == 1

    def test_at_an_auroc_of_exactly_one_the_bootstrap_answers(self):
        p, y = binary(200)
        found = next(d for d in self.compared([pair(np.where(y == 1, 0.9, 0.1))], p, y) if d.measure == "auroc")
        # one perfect reader alone has no variance, but the difference to another has that of the other
        assert found.comparison.difference.value > 0
        perfect = pair(np.where(y == 1, 0.9, 0.1)), pair(np.where(y == 1, 0.7, 0.2))
        found = next(d for d in self.compared([perfect[0]], perfect[1], y) if d.measure == "auroc")
        assert (found.comparison.difference.value, found.comparison.p_value) == (0, 1)

    def test_holm_corrects_over_the_methods_of_one_measure(self):
        p, y = binary(400)
        others = [noisy(p, s, i) for i, s in enumerate((0.1, 0.4, 1.0))]
        differences = self.compared(others, p, y)
        for key in ("auroc", "brier", "ece"):
            of_measure = [d.comparison for d in differences if d.measure == key]
            assert len(of_measure) == 3
            assert [c.p_adjusted for c in of_measure] == pytest.approx(holm([c.p_value for c in of_measure]))
        assert any(d.comparison.p_adjusted > d.comparison.p_value for d in differences)

    def test_one_method_alone_needs_no_correction(self):
        p, y = binary(200)
        for d in self.compared([noisy(p, 1.0, 0)], p, y):
            assert d.comparison.p_adjusted == d.comparison.p_value

    def test_seeds_are_paired(self):
        p, y = binary(300)
        q = [noisy(p, 0.3, i) for i in range(3)]
        better = [pair(np.clip(x[:, 1] + 0.1 * (y - 0.5), 0, 1)) for x in q]
        found = {d.measure: d.comparison.difference for d in self.compared([better], q, y)}
        assert found["auroc"].n_seeds == 3
        assert found["auroc"].value > 0
        each = [
            -np.mean((x[:, 1] - y) ** 2) + np.mean((b[:, 1] - y) ** 2)
            for x, b in zip(np.float32(q), np.float32(better), strict=True)
        ]
        assert found["brier"].value == pytest.approx(np.mean(each), abs=1e-6)
        assert found["brier"].spread == pytest.approx(np.std(each, ddof=1), abs=1e-6)

    def test_what_one_of_them_could_not_measure_is_not_compared(self):
        p, y = binary(200)
        base, other = subject_of(p, y, name="a"), subject_of(p, y, name="b", site=["A", "B"] * 100)
        findings = [
            (s.name, [run_audit(a, s, thresholds={}) for a in (Performance(), Subgroups())]) for s in (base, other)
        ]
        audits = {d.audit for d in compare_findings(findings[0], findings[1:], base)}
        assert audits == {"performance"}

    def test_nothing_to_compare_with(self):
        subject = subject_of(*binary(100))
        assert compare_findings(("a", [run_audit(Performance(), subject, thresholds={})]), [], subject) == []


class TestJson:
    @pytest.mark.parametrize("task", ["binary", "multiclass", "ordinal", "multilabel"])
    def test_every_finding_is_json_without_nan(self, task):
        p, y = {"binary": binary, "multiclass": multiclass, "ordinal": multiclass, "multilabel": multilabel}[task](300)
        if task == "multilabel":
            y[:, 1] = np.nan  # never known
        elif task != "binary":
            y[y == 2] = 0  # never true
        site = np.array(["A", "B", np.nan] * 100, dtype=object)
        subject = subject_of([p, p], y, task=task, temperature=2.0, site=site, age=np.arange(300) / 7)
        for finding in run_audits(subject, build_audits(["performance", "calibration", "subgroups"])):
            text = json.dumps(finding.to_json(), allow_nan=False)
            back = json.loads(text)
            assert set(back["measures"]) == set(finding.measures)
            for key, measure in finding.measures.items():
                stored = Estimate.from_json(back["measures"][key]["estimate"])
                assert repr(stored) == repr(measure.estimate)
            for title, table in finding.tables.items():
                assert back["tables"][title]["columns"] == list(table.columns)
                assert len(back["tables"][title]["rows"]) == len(table)

    def test_numbers_that_are_not_defined_are_null(self):
        """One patient: no interval. One class: no AUROC."""
        p, y = binary(40)
        one_patient = run_audits(subject_of(p, y, patients=["x"] * 40), build_audits("performance,calibration"))
        estimate = one_patient[0].to_json()["measures"]["auroc"]["estimate"]
        assert estimate["value"] is not None
        assert (estimate["low"], estimate["high"]) == (None, None)
        one_class = run_audits(subject_of(p, np.zeros_like(y)), build_audits("performance,calibration"))
        assert one_class[0].to_json()["measures"]["auroc"]["estimate"]["value"] is None
        assert one_class[0].verdict is Verdict.NOT_MEASURED
        json.dumps([f.to_json() for f in one_patient + one_class], allow_nan=False)

    def test_differences_too(self):
        p, y = binary(40)
        subjects = [subject_of(x, y, name=n, patients=["x"] * 40) for n, x in (("a", p), ("b", noisy(p, 1, 0)))]
        findings = [(s.name, [run_audit(Performance(), s, thresholds={})]) for s in subjects]
        rows = [d.to_json() for d in compare_findings(findings[0], findings[1:], subjects[0])]
        assert all(r["p_value"] is None for r in rows if r["measure"] == "accuracy")
        json.dumps(rows, allow_nan=False)


class Reader(torch.nn.Module):
    """Says class 1 where an image is bright: what it answers of an image can be read off the image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        brightness = images.mean((1, 2, 3))
        return torch.stack([0.5 - brightness, brightness - 0.5], dim=1) * 8


class TestSubject:
    def cohort(self, *, split, **changed):
        """Bright images in train, dark ones in val, and in test the brightness that the label has."""
        y = np.array([0, 1] * 15)
        made = cohort_of(y, task="binary", k=2, split=split)
        images = np.full((30, 1, 4, 4), 255, np.uint8)
        images[10:20] = 0
        images[20:] = (y[20:, None, None, None] * 255).astype(np.uint8)
        return dataclasses.replace(made, images=images, **changed)

    def model(self, **changed):
        return Classifier.wrap(Reader(), **{"classes": ["normal", "mild"], "size": (4, 4), "channels": 1, **changed})

    def test_it_is_the_test_split_that_is_asked_and_validation_that_is_kept_apart(self):
        cohort = self.cohort(split=["train"] * 10 + ["val"] * 10 + ["test"] * 10)
        subject = Subject.of(self.model(), cohort)
        assert subject.rows.tolist() == list(range(20, 30))
        assert (subject.members[0].probabilities.argmax(1) == subject.labels).all()
        assert (subject.members[0].val_probabilities.argmax(1) == 0).all()
        assert run_audit(Performance(), subject, thresholds={}).headline.estimate.value == 1

    def test_a_cohort_without_a_split_is_asked_whole(self):
        subject = Subject.of(self.model(), self.cohort(split=""))
        assert len(subject.rows) == 30
        assert subject.members[0].val_probabilities is None

    def test_a_cohort_without_test_images_is_refused(self):
        with pytest.raises(InputError, match="the test split is empty"):
            Subject.of(self.model(), self.cohort(split=["train"] * 20 + ["val"] * 10))

    @pytest.mark.parametrize(
        ("changed", "words"),
        [
            ({"classes": ["normal", "severe"]}, "differ in classes: the model has .*severe"),
            ({"classes": ["mild", "normal"]}, "differ in classes"),  # the same names in another order are other answers
            ({"classes": ["normal", "mild", "severe"]}, "differ in task: the model has multiclass"),
            ({"channels": 3}, "differ in channels: the model has 3, the cohort 1"),
            ({"size": (8, 8)}, r"differ in size: the model has \[8, 8\], the cohort \[4, 4\]; load .*size="),
            ({"size": (4, 4, 4)}, "differ in dimensions: the model has 3, the cohort 2"),
        ],
    )
    def test_a_model_of_other_images_or_answers_is_refused_with_the_reason(self, changed, words):
        with pytest.raises(InputError, match=words):
            check_fits(self.model(**changed), self.cohort(split=""))
        function = ProbabilityFunction(
            lambda x: x, **{"classes": ["normal", "mild"], "size": (4, 4), "channels": 1, **changed}
        )
        with pytest.raises(InputError, match=words):
            check_fits(function, self.cohort(split=""))

    def test_a_function_is_asked_like_a_network(self):
        cohort = self.cohort(split="")
        function = ProbabilityFunction(
            lambda x: pair(x.mean((1, 2, 3))), classes=["normal", "mild"], size=(4, 4), channels=1
        )
        of_function = Subject.of(function, cohort).members[0].probabilities
        assert of_function[:, 1].tolist() == (cohort.images[:, 0, 0, 0] / 255).tolist()

    def test_a_member_without_a_threshold_says_so(self):
        assert Member(oracle(["a", "b"], "binary"), 0, np.zeros((1, 2))).threshold is None
        assert Member(oracle(["a", "b"], "binary", threshold=0.2), 0, np.zeros((1, 2))).threshold == 0.2
