"""Trainings replaced by predictors that read a known strength, and what the audit then says of its own power."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tiny import tiny_cohort
from trueread.audit import shortcut_power
from trueread.audit.base import AUDITS, Verdict, compare_findings, run_audit
from trueread.audit.power_trial import FOUND, MISSED, NOT_LEARNED, found_down_to
from trueread.audit.shortcut_power import ShortcutPower
from trueread.audit.shortcut_reliance import ShortcutReliance
from trueread.audit.subject import Member, Subject
from trueread.cohort.cohort import Cohort
from trueread.errors import InputError
from trueread.model import ProbabilityFunction
from trueread.options import build
from trueread.shift.planting import planted, planted_in, planting
from trueread.training.config import TrainConfig
from trueread.training.evaluate import predict_probabilities
from trueread.training.processes import Processes

CORNER = (slice(1, 3), slice(1, 3))  # where the square is in images of 32 pixels
ELSEWHERE = (slice(28, 30), slice(14, 16))  # noise around 0.3
STRENGTHS = (1.0, 0.5, 0.25, 0.125)
SOME = {"cues": ("square",), "null_models": 2}


@pytest.fixture(autouse=True)
def _alone(quiet_and_on_one_thread):
    pass


def made(task: str = "binary", *, n: int = 200, **options: Any) -> Cohort:
    """A tiny cohort whose corner is 0.2 everywhere (exactly: 51 of 255), so that a square is all there is to read."""
    cohort = tiny_cohort(task, **{"n": n, "side": 32, **options})
    images = cohort.images.copy()
    images[..., :3, :3] = cohort.white // 5
    return replace(cohort, images=images)


def mean_of(images: np.ndarray, where: tuple[slice, slice]) -> np.ndarray:
    return images[..., where[0], where[1]].reshape(len(images), -1).mean(axis=1)


def corner(images: np.ndarray) -> np.ndarray:
    """Nearly the corner's intensity, a little different by image: what is the same for all has no interval."""
    return np.minimum(mean_of(images, CORNER) * (0.95 + 0.1 * mean_of(images, ELSEWHERE)), 1)


def nothing(images: np.ndarray) -> np.ndarray:
    return np.full(len(images), 0.3)


def grain(images: np.ndarray) -> np.ndarray:
    return np.clip(4 * np.abs(np.diff(images, axis=-1)).reshape(len(images), -1).mean(axis=1) - 0.2, 0, 1)


def predictor(cohort: Cohort, read: Any) -> ProbabilityFunction:
    """The last class is what is read; the first gets the rest."""

    def function(images: np.ndarray) -> np.ndarray:
        p = np.zeros((len(images), cohort.n_classes))
        p[:, -1] = read(images)
        p[:, 0] = 1 - p[:, -1]
        return p

    return ProbabilityFunction(
        function, classes=cohort.classes, size=cohort.spatial, channels=cohort.channels, task=cohort.task
    )


def subject_of(cohort: Cohort, *, resamples: int = 60, **changed: Any) -> Subject:
    rows = cohort.rows("test") if cohort.is_split else np.arange(len(cohort))
    honest = predictor(cohort, nothing)
    member = Member(honest, 0, predict_probabilities(honest, cohort, rows))
    val_rows = cohort.rows("val")
    return replace(Subject("asked", cohort, rows, [member], val_rows, resamples=resamples), **changed)


@dataclass
class Training:
    """What a training was given."""

    cohort: Cohort
    config: TrainConfig
    seed: int

    @property
    def strength(self) -> float:
        """Of the planted cue; 0 when there is none."""
        what = planted_in(self.cohort)
        return 0.0 if what is None else what.shift.severity


@pytest.fixture
def trainings(monkeypatch):
    """Replaces the training: `trainings.read` says what the network reads, given what it was trained on."""
    told = SimpleNamespace(seen=[], read=lambda _: nothing)

    def fit(cohort: Cohort, *, config: TrainConfig, seed: int, quiet: bool, **_: Any) -> Any:
        assert quiet
        told.seen.append(Training(cohort, config, seed))
        return SimpleNamespace(classifier=predictor(cohort, told.read(told.seen[-1])))

    monkeypatch.setattr(shortcut_power, "fit", fit)
    return told


def reads_from(strength: float, read: Any = corner):
    """A network that has learned the cue where it was planted at least so strongly."""
    return lambda t: read if t.strength >= strength else nothing


def note(finding, words: str) -> str:
    return next(n for n in finding.notes if words in n)


class TestWords:
    @pytest.mark.parametrize(
        ("outcomes", "words"),
        [
            ([FOUND, FOUND, FOUND], "down to severity 0.25"),
            ([FOUND, FOUND, MISSED], "down to severity 0.5"),
            ([FOUND, MISSED, FOUND], "down to severity 0.25 (but not at 0.5)"),
            ([MISSED, MISSED, FOUND], "down to severity 0.25 (but not at 1, 0.5)"),
            ([MISSED, NOT_LEARNED, NOT_LEARNED], "at no severity"),
            ([NOT_LEARNED, FOUND, NOT_LEARNED], "down to severity 0.5"),
        ],
    )
    def test_the_smallest_strength_and_what_is_missed_above_it(self, outcomes, words):
        assert found_down_to(list(zip((1.0, 0.5, 0.25), outcomes, strict=True))) == words


class TestPower:
    @pytest.mark.parametrize("smallest", STRENGTHS[:3])
    def test_it_is_exactly_the_smallest_strength_that_was_learned(self, trainings, smallest):
        trainings.read = reads_from(smallest)
        finding = ShortcutPower(**SOME).run(subject_of(made()))
        rows = finding.tables["Planted"].set_index("severity")
        for strength in STRENGTHS:
            expected = FOUND if strength >= smallest else NOT_LEARNED
            assert (rows["by name"][strength], rows["by the library"][strength]) == (expected, expected)
        said = note(finding, "'square' that goes along with 95% of 'mild'")
        end = f"down to severity {smallest:g}"
        assert f"is found {end} when asked about by name, {end} by the library." in said
        assert said.endswith(f"not learned at severity {', '.join(f'{s:g}' for s in STRENGTHS if s < smallest)}.")

    def test_its_numbers_are_those_of_a_network_that_reads_the_corner(self, trainings):
        trainings.read = reads_from(0.25)
        rows = ShortcutPower(**SOME).run(subject_of(made())).tables["Planted"].set_index("severity")
        small = trainings.seen[0].cohort
        test = small.rows("test")
        clean = roc_auc_score(small.labels[test], corner(small.images[test] / 255))
        for strength in (1.0, 0.5, 0.25):
            assert rows["reliance on it"][strength].value == pytest.approx(0.8 * strength, abs=0.02)
            assert rows["worst cue of its kind"][strength].value == pytest.approx(0.4, abs=0.02)  # a square of 0.5
            assert rows["AUROC, clean"][strength].value == pytest.approx(clean)
            assert rows["AUROC, flipped"][strength].value == 0
            assert rows["biased - flipped"][strength].value > 0.8
        assert rows["reliance on it"][0.125].value == 0
        assert rows["biased - flipped"][0.125].value == 0

    def test_what_was_learned_and_is_not_accused_is_missed(self, trainings):
        """At 0.125 the corner moves by 0.098, less than the threshold; a square of the library moves it by 0.4."""
        trainings.read = lambda t: corner if t.strength else nothing
        finding = ShortcutPower(**SOME).run(subject_of(made()))
        rows = finding.tables["Planted"].set_index("severity")
        assert rows["by name"].to_dict() == {1.0: FOUND, 0.5: FOUND, 0.25: FOUND, 0.125: MISSED}
        assert set(rows["by the library"]) == {FOUND}
        said = note(finding, "'square' that")
        assert "down to severity 0.25 when asked about by name, down to severity 0.125 by the library." in said
        assert "not learned" not in said

    def test_who_follows_a_cue_faintly_is_missed_at_every_strength(self, trainings):
        trainings.read = lambda t: (lambda x: 0.3 + 0.05 * corner(x)) if t.strength else nothing
        finding = ShortcutPower(**SOME).run(subject_of(made()))
        assert set(finding.tables["Planted"]["by name"]) == {MISSED}
        assert "at no severity when asked about by name, at no severity by the library." in note(
            finding, "'square' that"
        )

    def test_when_nothing_was_learned_there_was_nothing_to_find(self, trainings):
        finding = ShortcutPower(**SOME).run(subject_of(made()))
        assert set(finding.tables["Planted"]["by name"]) == set(finding.tables["Planted"]["by the library"])
        assert "was learned by no network" in note(finding, "'square' that")
        json.dumps(run_audit(ShortcutPower(**SOME), subject_of(made()), thresholds={}).to_json(), allow_nan=False)

    def test_a_diffuse_cue_is_found_above_what_honest_networks_show(self, trainings):
        """Noise moves who reads the grain. Honest networks read it a little; who reads no more is missed."""

        def reading(share):
            return lambda x: 0.3 + share * (grain(x) - 0.3)

        honest = 0.5
        for planted_share, outcome in ((1.0, FOUND), (0.5, MISSED)):
            trainings.read = lambda t, s=planted_share: reading(s if t.strength else honest)
            options = {"cues": ["gaussian-noise"], "strengths": [1.0], "null_models": 2}
            finding = ShortcutPower(**options).run(subject_of(made()))
            [row] = finding.tables["Planted"].to_dict("records")
            assert (row["kind"], row["by the library"], row["by name"]) == ("diffuse", outcome, FOUND)
            assert row["worst cue of its kind"].low > 0.1  # above the threshold that local cues are judged by
            assert "judges local cues only" in note(finding, "A diffuse one")
            assert row["accused without it"] == "2 of 2"
            assert "'gaussian-noise' at severity 1 by name, 2 of 2 networks that never saw it" in note(
                finding, "by name, 2"
            )


class TestFalseAlarms:
    def test_they_are_counted_and_make_the_headline(self, trainings):
        trainings.read = lambda t: corner if t.strength or t.seed == 2 else nothing  # the second of three
        finding = ShortcutPower(cues=("square",), null_models=3).run(subject_of(made()))
        assert note(finding, "are accused by the library").startswith("1 of 3 networks")
        table = finding.tables["Not planted"]
        assert list(table["seed"]) == [1, 2, 3]
        assert list(table["by the library"]) == ["not accused", "accused", "not accused"]
        assert [e.value for e in table["worst local cue"]] == pytest.approx([0, 0.4, 0], abs=0.02)
        assert finding.headline.estimate.value == pytest.approx(0.4 / 3, abs=0.02)
        assert finding.headline.estimate.n_seeds == 3
        rows = finding.tables["Planted"].set_index("severity")["accused without it"]
        assert rows.to_dict() == {1.0: "1 of 3", 0.5: "1 of 3", 0.25: "1 of 3", 0.125: "0 of 3"}
        assert len([n for n in finding.notes if "that never saw it" in n]) == 3

    def test_the_headline_is_that_of_shortcut_reliance(self, trainings):
        """The same networks asked directly."""
        trainings.read = lambda t: (lambda x: 0.2 * t.seed * corner(x) + 0.2) if not t.strength else corner
        finding = ShortcutPower(cues=("square",), null_models=3).run(subject_of(made()))
        small = trainings.seen[0].cohort
        members = [predictor(small, trainings.read(Training(small, TrainConfig(), seed))) for seed in (1, 2, 3)]
        rows = small.rows("test")
        asked = Subject(
            "nulls", small, rows, [Member(p, 0, predict_probabilities(p, small, rows)) for p in members], resamples=60
        )
        expected = ShortcutReliance(strengths=(0.5,), images=200).run(asked).measures["local"].estimate
        assert finding.headline.estimate.value > 0.1
        assert finding.headline.estimate == expected
        assert run_audit(ShortcutPower(**SOME), subject_of(made()), thresholds={}).verdict is Verdict.NO_THRESHOLD

    def test_the_figure_holds_both_kinds_of_networks(self, trainings):
        trainings.read = reads_from(0.5)
        [figure] = ShortcutPower(**SOME).run(subject_of(made())).figures
        found = figure.data.set_index(["cue", "severity"])["reliance"]
        assert found["square, planted", 1.0] == pytest.approx(0.8, abs=0.02)
        assert found["square, not planted", 1.0] == 0


class TestWhatIsTrained:
    def test_few_images_of_whole_patients_and_every_class_and_no_test_image(self, trainings):
        cohort = made(n=600, share=0.03)
        subject = subject_of(cohort)
        ShortcutPower(images=100, test_images=40, **SOME).run(subject)
        patients = cohort.table.set_index("id")["patient"]
        for t in trainings.seen:
            train, test = (t.cohort.table[t.cohort.table["split"] == side] for side in ("train", "test"))
            assert 90 <= len(train) <= 100
            assert set(t.cohort.labels[t.cohort.rows("train")]) == {0, 1}
            assert set(train["id"]) <= set(cohort.table["id"].iloc[cohort.rows("train")])
            assert (train["patient"].value_counts() == patients.value_counts()[train["patient"].unique()]).all()
            assert 20 <= len(test) <= 40
            assert set(test["id"]) <= set(cohort.table["id"].iloc[subject.rows])
            assert not set(train["patient"]) & set(test["patient"])
            assert 2 <= t.config.batch_size <= len(train) // 4

    def test_one_network_per_strength_and_cue_and_the_null_ones(self, trainings):
        ShortcutPower(null_models=2).run(subject_of(made(), seed=5))
        assert [(t.strength, t.seed) for t in trainings.seen[:2]] == [(0, 6), (0, 7)]
        told = [planted_in(t.cohort) for t in trainings.seen[2:]]
        expected = [(cue, s) for cue in ("square", "gaussian-noise") for s in STRENGTHS]
        assert [(what.shift.name, what.shift.severity) for what in told] == expected
        assert {t.seed for t in trainings.seen[2:]} == {5}

    def test_strengths_differ_in_the_strength_alone(self, trainings):
        """The same images carry the cue, and the test images are clean."""
        ShortcutPower(**SOME).run(subject_of(made()))
        biased = [t.cohort for t in trainings.seen if t.strength]
        carried = [c.truth["cue"].to_numpy() for c in biased]
        assert all((one == carried[0]).all() for one in carried)
        labels, train = biased[0].labels, biased[0].rows("train")
        assert carried[0][train][labels[train] == 1].mean() > 0.85
        assert carried[0][train][labels[train] == 0].mean() < 0.15
        assert not carried[0][biased[0].rows("test")].any()

    def test_the_prevalence_is_that_of_the_last_class(self, trainings):
        ShortcutPower(prevalence=0.8, **SOME).run(subject_of(made("multiclass", n=300)))
        shares = planted_in(trainings.seen[-1].cohort).prevalence
        assert shares == pytest.approx({"normal": 0.2, "mild": 0.2, "moderate": 0.8})

    @pytest.mark.parametrize("task", ["multiclass", "ordinal"])
    def test_more_than_two_classes(self, trainings, task):
        trainings.read = reads_from(0.5)
        cohort = made(task, n=300)
        finding = ShortcutPower(**SOME).run(subject_of(cohort))
        rows = finding.tables["Planted"].set_index("severity")
        assert rows["by name"].to_dict() == {1.0: FOUND, 0.5: FOUND, 0.25: NOT_LEARNED, 0.125: NOT_LEARNED}
        assert rows["Balanced accuracy, clean"][1.0].value == pytest.approx(1 / cohort.n_classes)
        assert f"95% of '{cohort.classes[-1]}'" in note(finding, "'square' that")
        json.dumps(finding.to_json(), allow_nan=False)

    @pytest.mark.parametrize("options", [{"depth": 4}, {"channels": 3}, {"white": 4095}], ids=str)
    def test_volumes_colour_and_deep_grey(self, trainings, options):
        trainings.read = reads_from(0.5)
        finding = ShortcutPower(**SOME).run(subject_of(made(n=120, **options)))
        assert list(finding.tables["Planted"]["by name"])[:2] == [FOUND, FOUND]
        assert len(trainings.seen[0].cohort.images.shape) == (5 if "depth" in options else 4)

    def test_without_validation_it_says_so(self, trainings):
        cohort = made()
        split = cohort.table["split"].replace("val", "train")
        finding = ShortcutPower(**SOME).run(subject_of(cohort.with_split(split)))
        assert note(finding, "no validation split")
        assert len(trainings.seen[0].cohort.rows("val")) == 0


class TestOneAnswer:
    def test_the_same_data_give_the_same_words(self, trainings):
        trainings.read = reads_from(0.5)
        first, again = (ShortcutPower(**SOME).run(subject_of(made())).to_json() for _ in range(2))
        assert first == again

    def test_the_methods_of_a_study_share_it(self, trainings):
        trainings.read = reads_from(0.5)
        asked, cohort = ShortcutPower(**SOME), made()
        first, second = (run_audit(asked, subject_of(cohort, name=name), thresholds={}) for name in ("a", "b"))
        assert len(trainings.seen) == 6
        assert first.to_json() | {"seconds": 0} == second.to_json() | {"seconds": 0}
        assert compare_findings(("a", [first]), [("b", [second])], subject_of(cohort)) == []
        asked.run(subject_of(cohort, seed=1))
        asked.run(subject_of(made(seed=1)))
        assert len(trainings.seen) == 18


class TestNotMeasured:
    def reason(self, subject: Subject, **options: Any) -> str:
        finding = run_audit(ShortcutPower(**SOME | options), subject, thresholds={})
        assert finding.verdict is Verdict.NOT_MEASURED
        return finding.reason

    def test_several_labels_at_once(self, trainings):
        assert "the task is multilabel" in self.reason(subject_of(made("multilabel")))

    def test_images_with_a_planted_cue(self, trainings):
        cohort = made()
        biased = planted(cohort, planting(cohort, "square"))
        assert "planted into these images already" in self.reason(subject_of(biased))

    def test_no_training_images(self, trainings):
        assert "no training split" in self.reason(subject_of(made().with_split([""] * 200)))
        assert "no training split" in self.reason(subject_of(made().with_split(["test"] * 200)))

    def test_too_few_training_images(self, trainings):
        assert "56 training images are too few" in self.reason(subject_of(made(n=96)))

    def test_a_class_that_is_not_there(self, trainings):
        cohort = made()
        sides = np.where((cohort.labels == 1) & (cohort.table["split"] == "test"), "val", cohort.table["split"])
        assert "no test image of 'mild'" in self.reason(subject_of(cohort.with_split(sides)))

    def test_no_cue_that_fits(self, trainings):
        subject = subject_of(made(side=16))
        assert self.reason(subject, cues=("text",)).startswith("no cue fits these images. 'text' was left out: letters")
        finding = ShortcutPower(cues=("text", "vignette"), strengths=(1.0,), null_models=1).run(subject)
        assert note(finding, "'text' was left out")
        assert list(finding.tables["Planted"]["cue"]) == ["vignette"]

    def test_several_processes(self, trainings, monkeypatch):
        monkeypatch.setattr(shortcut_power, "processes", lambda: Processes(size=2))
        assert "several processes" in self.reason(subject_of(made()))

    def test_nothing_was_trained_for_any_of_them(self, trainings):
        self.test_too_few_training_images(trainings)
        self.test_images_with_a_planted_cue(trainings)
        assert trainings.seen == []


@pytest.mark.parametrize(
    "options",
    [
        {"strengths": []}, {"strengths": [0.0]}, {"strengths": [2]}, {"cues": []}, {"cues": ["sqare"]},
        {"prevalence": 0.5}, {"null_models": 0}, {"images": 50}, {"test_images": 5}, {"epochs": 0},
    ],
    ids=str,
)  # fmt: skip
def test_options_are_checked(options):
    with pytest.raises(InputError):
        build(ShortcutPower, options, where="audit 'shortcut-power'")


def test_the_list_says_that_it_is_asked_on_request():
    assert "on request" in AUDITS.get("shortcut-power").summary


@pytest.fixture(scope="module")
def faint():
    """A blob so faint that a square is much easier to read."""
    cohort = tiny_cohort(n=500, seed=3)
    noise = np.random.default_rng(0).normal(90, 30, cohort.images.shape)
    return replace(cohort, images=(0.2 * cohort.images + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.slow
class TestTrainedInEarnest:
    def test_a_strong_square_is_learned_and_found_and_honest_networks_are_not_accused(self, faint):
        asked = ShortcutPower(cues=("square",), strengths=(1.0, 0.02), null_models=1, prevalence=1.0)
        finding = asked.run(subject_of(faint))
        rows = finding.tables["Planted"].set_index("severity")
        assert rows["by name"].to_dict() == {1.0: FOUND, 0.02: NOT_LEARNED}
        assert rows["biased - flipped"][1.0].value > 0.2
        assert note(finding, "networks without a planted cue").startswith("0 of 1")

    def test_the_same_seed_gives_the_same_networks(self, faint):
        options = {"cues": ("square",), "strengths": (1.0,), "null_models": 1, "epochs": 1, "images": 100}
        first, again, other = (ShortcutPower(**options).run(subject_of(faint, seed=s)).to_json() for s in (0, 0, 1))
        assert first == again
        assert first["tables"] != other["tables"]
