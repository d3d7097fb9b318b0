"""A network whose layers are known: where its predictions are settled, where a mark can be read and is used."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from tiny import Foreign, tiny_cohort, tiny_config
from trueread.audit.base import Verdict, compare_findings, run_audit
from trueread.audit.changed import some_patients
from trueread.audit.entered_cue import NEVER, readable_from
from trueread.audit.layers import (
    _less,
    answers_without,
    cue_scores,
    folds_by_patient,
    images_of,
    look,
    neighbours_vote,
    others_shift,
    prediction_depth,
)
from trueread.audit.shortcut_layers import ShortcutLayers, bank_rows
from trueread.audit.subject import Member, Subject
from trueread.errors import InputError
from trueread.model import Classifier, ProbabilityFunction
from trueread.model.taps import pooled
from trueread.options import build
from trueread.shift.base import SHIFTS
from trueread.shift.planting import planted, planting
from trueread.stats import Estimate, total_variation
from trueread.training.evaluate import predict_probabilities
from trueread.training.loop import fit

CORNER = (slice(1, 3), slice(1, 3))  # where the square is in images of 32 pixels
BLOB = (slice(4, 14), slice(4, 14))  # where the blob of a tiny cohort's second class is
SQUARE = {"square": 1.0}
PER_CUE, PER_LAYER = "Per cue", "Per cue and layer"


@pytest.fixture(autouse=True)
def _alone(quiet_and_on_one_thread):
    pass


def made(task: str = "binary", *, n: int = 120, side: int = 32, **options):
    """A tiny cohort whose corner is 0.2 everywhere (exactly: 51 of 255), so that the square adds 0.8 to it."""
    cohort = tiny_cohort(task, n=n, side=side, **options)
    images = cohort.images.copy()
    images[..., :3, :3] = cohort.white // 5
    return replace(cohort, images=images)


class Wave(nn.Module):
    """Map [B,2,2,2]: the blob's brightness everywhere; the corner's, with a sign that turns from place to place."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        blob, corner = (images[..., w[0], w[1]].flatten(1).mean(1)[:, None, None] for w in (BLOB, CORNER))
        sign = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
        return torch.stack([blob.expand(-1, 2, 2), corner * sign], dim=1)


class Size(nn.Module):
    """The same without the signs."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.abs()


class Toy(nn.Module):
    """In `one` the corner is not in the mean of its channel, in `two` it is; the head reads blob and corner with given
    weights, and says the second class above a half.
    """

    def __init__(self, blob: float, corner: float) -> None:
        super().__init__()
        self.one, self.two, self.head = Wave(), Size(), nn.Linear(2, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[0.0, 0.0], [blob, corner]]))
            self.head.bias.copy_(torch.tensor([0.0, -(blob + corner) / 2]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.two(self.one(images)).mean((2, 3)))


def toy(cohort, *, blob: float = 0.0, corner: float = 8.0) -> Classifier:
    return Classifier.wrap(
        Toy(blob, corner), classes=cohort.classes, size=cohort.spatial, channels=cohort.channels, task=cohort.task,
        taps=["one", "two"],
    )  # fmt: skip


def subject_of(cohort, *classifiers, resamples: int = 60) -> Subject:
    rows = cohort.rows("test")
    members = [Member(c, seed, predict_probabilities(c, cohort, rows)) for seed, c in enumerate(classifiers)]
    return Subject("made", cohort, rows, members, resamples=resamples)


def layer_table(finding, cue: str = "square"):
    table = finding.tables[PER_LAYER]
    return table[table["cue"] == cue].set_index("layer")


def values(column) -> list[float]:
    return [float("nan") if e is None else e.value for e in column]


class TestDepth:
    def test_by_hand(self):
        votes = np.array([[1, 1, 0, 1, 0], [1, 0, 1, 1, 0], [1, 1, 1, 0, 0]])
        assert list(prediction_depth(votes, np.ones(5, int))) == [0, 2, 1, 3, 3]

    @given(st.integers(1, 6), st.integers(1, 20), st.integers(0, 99))
    @settings(max_examples=30, deadline=None)
    def test_it_is_the_first_layer_from_which_all_agree(self, layers, n, seed):
        rng = np.random.default_rng(seed)
        votes, predicted = rng.integers(0, 2, (layers, n)), rng.integers(0, 2, n)
        agrees = [[(votes[start:, i] == predicted[i]).all() for start in range(layers)] for i in range(n)]
        first = [a.index(True) if True in a else layers for a in agrees]
        assert list(prediction_depth(votes, predicted)) == first


class TestNeighbours:
    @pytest.mark.parametrize("k", [1, 5, 30])
    @pytest.mark.parametrize("classes", [2, 4])
    def test_as_scikit_learn_says_on_standardised_features(self, k, classes):
        rng = np.random.default_rng(k)
        bank, labels = rng.normal(size=(120, 6)) * [1, 10, 0.01, 1, 1, 0], rng.integers(0, classes, 120)
        vectors = rng.normal(size=(50, 6)) * [1, 10, 0.01, 1, 1, 0]
        oracle = make_pipeline(StandardScaler(), KNeighborsClassifier(k, algorithm="kd_tree")).fit(bank, labels)
        assert np.array_equal(neighbours_vote(bank, labels, vectors, k=k), oracle.predict(vectors))

    def test_as_counted_by_hand(self):
        rng = np.random.default_rng(0)
        bank, labels, vectors = rng.normal(size=(60, 3)), rng.integers(0, 3, 60), rng.normal(size=(20, 3))
        mean, std = bank.mean(0), bank.std(0)
        said = []
        for v in (vectors - mean) / std:
            nearest = np.argsort(np.linalg.norm((bank - mean) / std - v, axis=1))[:7]
            said.append(np.bincount(labels[nearest], minlength=3).argmax())
        assert list(neighbours_vote(bank, labels, vectors, k=7)) == said

    def test_of_classes_equally_common_the_first_wins(self):
        bank = np.array([[-1.0], [1.0]])
        assert neighbours_vote(bank, np.array([1, 0]), np.array([[0.5]]), k=2) == [0]


class TestReading:
    def test_a_patient_is_in_one_fold_and_folds_have_as_many_patients(self):
        patients = np.repeat([f"p{i}" for i in range(22)], np.arange(22) % 4 + 1)
        fold = folds_by_patient(patients, 4, seed=0)
        assert all(len(set(fold[patients == p])) == 1 for p in set(patients))
        sizes = [len(set(patients[fold == f])) for f in range(4)]
        assert sorted(sizes) == [5, 5, 6, 6]
        turned = np.random.default_rng(0).permutation(len(patients))
        assert np.array_equal(folds_by_patient(patients[turned], 4, seed=0), fold[turned])
        assert not np.array_equal(folds_by_patient(patients, 4, seed=1), fold)

    def test_as_scikit_learn_scores_out_of_fold(self):
        rng = np.random.default_rng(0)
        without = rng.normal(size=(40, 5))
        marked = without + rng.normal(0.5, 0.5, size=(40, 5))
        fold = folds_by_patient(np.arange(40) // 2, 4, seed=0)
        oracle = cross_val_predict(
            make_pipeline(StandardScaler(), LogisticRegression()), np.concatenate([without, marked]),
            np.repeat([0, 1], 40), cv=PredefinedSplit(np.tile(fold, 2)), method="predict_proba",
        )[:, 1]  # fmt: skip
        assert cue_scores(without, marked, fold) == pytest.approx(oracle, abs=1e-3)

    def test_no_image_is_scored_by_a_probe_that_saw_its_pair_or_its_patient(self, monkeypatch):
        patients = np.repeat(np.arange(12), 3)
        code = np.arange(36.0)[:, None]  # each image is known by its number
        seen = []

        class Probe(LogisticRegression):
            def fit(self, x, y):
                self.fitted = x
                return super().fit(x, y)

            def predict_proba(self, x):
                seen.append((self.fitted, x))
                return super().predict_proba(x)

        monkeypatch.setattr("sklearn.linear_model.LogisticRegression", Probe)
        cue_scores(code, code + 0.5, folds_by_patient(patients, 4, seed=0))
        assert sum(len(x) for _, x in seen) == 72
        for fitted, held in seen:
            both = np.concatenate([fitted, held])[:, 0]
            step = (both.max() - both.min()) / 35.5  # standardised, a number apart is this far
            number = np.rint((both - both.min()) / step * 2).astype(int) // 2
            mine, theirs = patients[number[len(fitted) :]], patients[number[: len(fitted)]]
            assert not set(mine) & set(theirs)

    def test_what_differs_from_patient_to_patient_is_not_the_cue(self):
        """A change of each patient's own direction, which a probe that had seen the patient would know."""
        patients, found = np.repeat(np.arange(30), 4), []
        for seed in range(8):
            rng = np.random.default_rng(seed)
            own, change = (rng.normal(size=(30, 40))[patients] for _ in range(2))
            scores = cue_scores(own, own + change, folds_by_patient(patients, 4, seed=0))
            found.append((scores[120:] > scores[:120]).mean())
        assert 0.4 < np.mean(found) < 0.6

    def test_an_untouched_layer_says_nothing(self):
        same = np.random.default_rng(0).normal(size=(40, 5))
        scores = cue_scores(same, same, np.arange(40) % 4)
        assert np.array_equal(scores[:40], scores[40:])

    def test_readable_from_the_first_layer_that_is_sure(self):
        nan = float("nan")
        reads = [Estimate(0.5, 0.4, 0.6), Estimate(0.92, 0.7, 1.0), Estimate(0.91, 0.85, 0.97), Estimate(1.0, nan, nan)]
        assert readable_from(reads) == 2
        assert readable_from(reads[:2]) is None
        assert readable_from(reads[3:]) == 0


class TestUse:
    @pytest.mark.parametrize(
        ("shape", "channels"), [((3, 5), 5), ((3, 7, 5), 5), ((3, 5, 4, 6), 5), ((3, 4, 6, 5), 5), ((3, 5, 2, 4, 6), 5)]
    )
    def test_a_shift_is_taken_from_every_position_in_any_layout(self, shape, channels):
        generator = torch.Generator().manual_seed(0)
        tap, shift = torch.randn(shape, generator=generator), torch.randn(3, 5, generator=generator)
        kept = tap.clone()
        less = _less(tap, shift, channels=channels)
        assert torch.equal(tap, kept)
        assert less.shape == tap.shape
        moved = pooled(tap, channels=channels) - shift
        assert torch.allclose(pooled(less, channels=channels), moved, atol=1e-6)
        taken = (tap - less).flatten(1).sort(1).values.view(3, 5, -1)
        assert torch.allclose(taken, shift.sort(1).values[:, :, None].expand_as(taken), atol=1e-6)

    def test_the_shift_is_that_of_the_other_half(self):
        half = np.array([0, 0, 1, 1])
        without, marked = np.zeros((4, 2)), np.array([[1, 0], [3, 0], [0, 5], [0, 7.0]])
        assert others_shift(without, marked, half).tolist() == [[0, 6], [0, 6], [2, 0], [2, 0]]

    @pytest.mark.parametrize("channels", [1, 3])
    def test_nothing_taken_out_changes_nothing_and_the_head_does_what_it_must(self, channels):
        torch.manual_seed(0)
        cohort = made(n=40, channels=channels)
        classifier, rows = Classifier.build("compact", cohort=cohort), np.arange(20)
        seen = look(classifier, images_of(cohort, rows))
        assert seen.layers == ["stem", "stage1", "stage2", "stage3", "stage4"]  # the features are stage4's mean
        nothing = {layer: np.zeros_like(vectors) for layer, vectors in seen.vectors.items()}
        for same in answers_without(classifier, images_of(cohort, rows), nothing):
            assert same == pytest.approx(seen.probabilities, abs=1e-6)
        shift = np.random.default_rng(0).normal(size=seen.vectors["features"].shape).astype(np.float32)
        head = classifier.network.head[1]
        expected = head(torch.from_numpy(seen.vectors["features"] - shift)).softmax(1).detach().numpy()
        for found in answers_without(classifier, images_of(cohort, rows), {"features": shift, "stage4": shift}):
            assert found == pytest.approx(expected, abs=1e-5)

    def test_the_network_is_left_as_it_was(self):
        cohort = made(n=40)
        classifier = Classifier.build("compact", cohort=cohort).train()
        before = {k: v.clone() for k, v in classifier.state_dict().items()}
        seen = look(classifier, images_of(cohort, np.arange(8)))
        answers_without(classifier, images_of(cohort, np.arange(8)), seen.vectors)
        assert classifier.training
        assert all(torch.equal(v, before[k]) for k, v in classifier.state_dict().items())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in classifier.modules())


class TestClosedForm:
    """In a cohort without the square, neighbours say the class by the blob, in both layers, whatever the corner is."""

    @pytest.mark.parametrize("share", [0.5, 0.25])
    def test_a_network_that_reads_the_corner_alone(self, share):
        """Without the square it says the first class of all: settled at once for those, never for the others. With it,
        the other way round.
        """
        cohort = made(n=200, share=share)
        finding = run_audit(ShortcutLayers(cues=SQUARE), subject_of(cohort, toy(cohort)), thresholds={})
        second = cohort.labels[cohort.rows("test")].mean()
        assert finding.verdict is Verdict.NO_THRESHOLD
        assert finding.measures["square-change"].estimate.value == pytest.approx(2 * (1 - second) - 2 * second)
        table = layer_table(finding)
        assert list(table.index) == ["one", "two", NEVER]
        assert values(table["settled without"]) == pytest.approx([1 - second, 0, second])
        assert values(table["settled with"]) == pytest.approx([second, 0, 1 - second])
        assert finding.headline.estimate.value == pytest.approx(2 * (1 - second))
        assert values(table["cue readable, AUROC"])[:2] == [0.5, 1.0]
        assert values(table["share of reliance carried"])[:2] == pytest.approx([0, 1], abs=1e-5)
        row = finding.tables[PER_CUE].iloc[0]
        assert (row["readable from"], row["at share of depth"]) == ("two", 1.0)
        p = 1 / (1 + np.exp(-(8 * np.array([0.2, 1.0]) - 4)))
        assert row["reliance"].value == pytest.approx(p[1] - p[0], abs=1e-5)

    def test_a_network_that_reads_the_blob_alone(self):
        cohort = made(n=200)
        finding = ShortcutLayers(cues=SQUARE).run(subject_of(cohort, toy(cohort, blob=20.0, corner=0.0)))
        assert finding.measures["square-change"].estimate.value == 0
        table = layer_table(finding)
        assert values(table["settled without"])[0] > 0.95
        assert values(table["cue readable, AUROC"])[:2] == [0.5, 1.0]  # it is there, and not used
        assert all(np.isnan(values(table["share of reliance carried"])))
        assert finding.tables[PER_CUE]["reliance"][0].value == pytest.approx(0, abs=1e-6)
        assert [f.name for f in finding.figures] == ["readable", "depth-square"]

    def test_a_planted_square_settles_in_the_layer_that_shows_it(self):
        """Nothing but the square tells the classes in training: the layer before it can only guess."""
        cohort = made(n=240)
        images = cohort.images.copy()
        images[..., BLOB[0], BLOB[1]] = np.random.default_rng(0).integers(0, 255, (240, 1, 10, 10), np.uint8)
        cohort = replace(cohort, images=images)
        cohort = planted(cohort, planting(cohort, "square", severity=1.0, prevalence=1.0))
        finding = ShortcutLayers().run(subject_of(cohort, toy(cohort)))
        assert list(finding.measures) == ["planted", "planted-change"]
        table = layer_table(finding, "square (planted)")
        assert values(table["settled without"])[2] == values(table["settled with"])[2] == 0
        assert 0.2 < values(table["settled with"])[1] < 0.8
        assert finding.tables[PER_CUE]["readable from"][0] == "two"

    def test_over_seeds_it_is_the_mean_and_has_a_spread(self):
        cohort = made(n=200, share=0.25)
        user, honest = toy(cohort), toy(cohort, blob=20.0, corner=0.0)
        subject = subject_of(cohort, user, honest)
        finding = ShortcutLayers(cues=SQUARE).run(subject)
        alone = ShortcutLayers(cues=SQUARE).run(subject_of(cohort, user)).measures["square-change"].estimate.value
        estimate = finding.measures["square-change"].estimate
        assert estimate.value == pytest.approx(alone / 2)
        assert estimate.spread == pytest.approx(np.std([alone, 0], ddof=1))
        patients = len(cohort.table["patient"].iloc[subject.rows].unique())
        assert (estimate.n_seeds, estimate.n, estimate.n_clusters) == (2, len(subject.rows), patients)
        assert values(layer_table(finding)["share of reliance carried"])[1] == pytest.approx(1, abs=1e-5)
        read = layer_table(finding)["cue readable, AUROC"].iloc[0]
        assert (read.n, read.n_seeds) == (len(subject.rows), 2)

    def test_methods_are_compared_on_the_same_images(self):
        cohort = made(n=200, share=0.25)
        subjects = [subject_of(cohort, toy(cohort, blob=b, corner=c)) for b, c in ((0.0, 8.0), (20.0, 0.0))]
        user, honest = ([run_audit(ShortcutLayers(cues=SQUARE), s, thresholds={})] for s in subjects)
        difference, _ = compare_findings(("erm", user), [("better", honest)], subjects[0])
        expected = honest[0].headline.estimate.value - user[0].headline.estimate.value
        assert difference.comparison.difference.value == pytest.approx(expected)


class TestWhichImages:
    def test_the_bank_is_balanced_and_has_no_patient_of_the_test(self):
        cohort = made(n=200, share=0.2)
        table = cohort.table.copy()
        shared = table["patient"][table["split"] == "train"].iloc[0]
        subject = subject_of(cohort, toy(cohort))
        mine = np.flatnonzero((table["patient"] == shared).to_numpy())
        subject = replace(subject, rows=np.concatenate([subject.rows, mine]))  # as somebody may give them
        rows, each = bank_rows(subject, 1000)
        patients = table["patient"].to_numpy()
        assert not set(patients[rows]) & set(patients[subject.rows])
        assert set(table["split"].iloc[rows]) == {"train"}
        assert list(np.bincount(cohort.labels[rows])) == [each, each]
        assert each == np.bincount(cohort.labels[np.setdiff1d(cohort.rows("train"), mine)]).min()
        assert bank_rows(subject, 20)[1] == 10

    def test_another_seed_draws_another_bank_and_the_order_of_the_images_none(self):
        cohort = made(n=200)
        turned = cohort.subset(np.random.default_rng(0).permutation(200))
        banks = [
            set(c.table["id"].iloc[bank_rows(subject_of(c, toy(c)), 40)[0]]) for c in (cohort, turned)
        ]  # fmt: skip
        assert banks[0] == banks[1]
        other = replace(subject_of(cohort, toy(cohort)), seed=1)
        assert set(cohort.table["id"].iloc[bank_rows(other, 40)[0]]) != banks[0]

    def test_the_same_subject_gives_the_same_words(self):
        torch.manual_seed(0)
        cohort = made(n=80, side=16)
        classifier = Classifier.build("compact", cohort=cohort)
        asked = ShortcutLayers(images=20, cues={"gaussian-noise": 0.5})
        first, again = (asked.run(subject_of(cohort, classifier)).to_json() for _ in range(2))
        assert first == again

    def test_the_order_of_the_images_does_not_matter(self):
        torch.manual_seed(0)
        cohort = made(n=80, side=16)
        classifier = Classifier.build("compact", cohort=cohort)
        turned = cohort.subset(np.random.default_rng(0).permutation(80))
        a, b = (layer_table(ShortcutLayers(cues=SQUARE).run(subject_of(c, classifier))) for c in (cohort, turned))
        for column in a.columns[1:]:
            assert values(a[column]) == pytest.approx(values(b[column]), abs=1e-5, nan_ok=True)

    def test_at_most_so_many_test_images(self):
        cohort = made(n=400)
        subject = subject_of(cohort, toy(cohort))
        estimate = ShortcutLayers(images=20, cues=SQUARE).run(subject).headline.estimate
        assert estimate.n == len(some_patients(subject, 20)) <= 20 < len(subject.rows)

    def test_99_to_1_lowers_the_number_of_neighbours_and_says_so(self):
        cohort = made(n=1000, share=0.01)
        finding = run_audit(ShortcutLayers(images=60, cues=SQUARE), subject_of(cohort, toy(cohort)), thresholds={})
        assert "12 training images of other patients, 6 of each class, of which the 6 nearest" in finding.notes[0]
        second = cohort.labels[cohort.rows("test")][some_patients(subject_of(cohort, toy(cohort)), 60)].mean()
        assert 0 < second < 0.05
        assert finding.measures["square-change"].estimate.value == pytest.approx(2 * (1 - 2 * second), abs=0.1)
        json.dumps(finding.to_json(), allow_nan=False)

    def test_a_cue_that_does_not_fit_is_named_with_its_reason(self):
        cohort = made(side=16, n=100)
        finding = ShortcutLayers(cues={"text": 1.0, "gaussian-noise": 0.5}).run(
            subject_of(cohort, Classifier.build("compact", cohort=cohort))
        )
        assert finding.tables[PER_CUE]["cue"].tolist() == ["gaussian-noise"]
        assert any(n.startswith("'text' was left out: letters of 2 pixels") for n in finding.notes)

    def test_test_images_that_carry_the_cue_already_are_asked_about_others(self):
        cohort = made(n=200)
        cohort = planted(cohort, planting(cohort, "square", severity=1.0), {"train": "biased", "test": "biased"})
        finding = ShortcutLayers(cues={"brightness": 0.5}).run(subject_of(cohort, toy(cohort)))
        assert finding.tables[PER_CUE]["cue"].tolist() == ["brightness"]
        assert any("'square' was not asked about: test images carry it already" in n for n in finding.notes)

    @pytest.mark.parametrize(
        "options",
        [{"cues": {}}, {"cues": {"square": 0}}, {"cues": {"sqare": 1}}, {"images": 5}, {"bank": 5}, {"neighbours": 0}],
    )
    def test_options_are_checked(self, options):
        with pytest.raises(InputError):
            build(ShortcutLayers, options, where="audit 'shortcut-layers'")


class TestNotMeasured:
    def reason(self, cohort, *classifiers, **options) -> str:
        subject = subject_of(cohort, *(classifiers or [toy(cohort)]))
        finding = run_audit(ShortcutLayers(**options), subject, thresholds={})
        assert finding.verdict is Verdict.NOT_MEASURED
        assert not finding.measures
        return finding.reason

    def test_of_a_function(self):
        cohort = made()
        function = ProbabilityFunction(
            lambda x: np.full((len(x), 2), 0.5), classes=cohort.classes, size=cohort.spatial, channels=1
        )
        assert "given as a function" in self.reason(cohort, function)

    def test_of_a_multilabel_task(self):
        cohort = made("multilabel", n=60)
        assert "task is multilabel" in self.reason(cohort, Classifier.build("compact", cohort=cohort))

    def test_without_training_images(self):
        cohort = made()
        assert "no training images" in self.reason(cohort.with_split(["test"] * len(cohort)))

    def test_with_too_few_of_a_class(self):
        cohort = made(n=200, share=0.01)
        assert self.reason(cohort) == "neighbours take 5 training images of every class; 'mild' has 2."

    def test_with_too_few_patients(self):
        cohort = made(n=200)
        kept = cohort.table["split"] != "test"
        kept |= cohort.table["patient"].isin(cohort.table["patient"][~kept].unique()[:3])
        assert "takes 4" in self.reason(cohort.subset(kept.to_numpy()))

    def test_where_no_cue_fits(self):
        cohort = made(side=16, n=100)
        reason = self.reason(cohort, Classifier.build("compact", cohort=cohort), cues={"text": 1.0})
        assert reason.startswith("no cue fits these images. 'text' was left out")

    def test_of_a_network_without_layers(self):
        class Plain(nn.Module):
            def forward(self, images):
                mean = images.flatten(1).mean(1)
                return torch.stack([1 - mean, mean], dim=1)

        cohort = made()
        plain = Classifier.wrap(Plain(), classes=cohort.classes, size=cohort.spatial, channels=1)
        assert "no layer to look into" in self.reason(cohort, plain)


class TestNetworks:
    def test_someone_elses_with_activations_in_place(self):
        torch.manual_seed(0)
        cohort = made(n=120)
        foreign = Classifier.wrap(Foreign(), classes=cohort.classes, size=cohort.spatial, channels=1)
        finding = ShortcutLayers(cues=SQUARE).run(subject_of(cohort, foreign))
        assert list(layer_table(finding).index) == ["body.0", "body.2", "features", NEVER]
        assert not np.isnan(values(layer_table(finding)["cue readable, AUROC"])[:3]).any()

    @pytest.mark.parametrize("options", [{"channels": 3}, {"depth": 8}, {"white": 4095}], ids=str)
    @pytest.mark.parametrize("task", ["multiclass", "ordinal"])
    def test_colour_volumes_and_other_tasks(self, task, options):
        torch.manual_seed(0)
        cohort = made(task, n=120, side=16, **options)
        classifier = Classifier.build("compact", cohort=cohort)
        subject = subject_of(cohort, classifier)
        finding = ShortcutLayers(images=20).run(subject)
        assert list(finding.measures) == ["square", "square-change", "gaussian-noise", "gaussian-noise-change"]
        table = finding.tables[PER_LAYER]
        assert len(table) == 2 * 6
        for side in ("without", "with"):
            shares = table.groupby("cue")[f"settled {side}"].apply(lambda column: sum(values(column)))
            assert list(shares) == pytest.approx([1, 1])
        positions = some_patients(subject, 20)
        cue = SHIFTS.build("square", {"severity": 1.0, "seed": 0})
        plain, marked = (
            look(classifier, images_of(cohort, subject.rows[positions], c)).probabilities for c in (None, cue)
        )
        found = finding.tables[PER_CUE].set_index("cue")["reliance"]["square"].value
        assert found == pytest.approx(total_variation(plain, marked, task=task).mean(), abs=1e-9)
        assert plain == pytest.approx(subject.members[0].probabilities[positions], abs=1e-6)
        assert {f.kind for f in finding.figures} == {"line", "bar"}
        json.dumps(finding.to_json(), allow_nan=False)


@pytest.mark.slow
class TestPlantedTruth:
    """The cue alone tells the classes; six in ten of the second class carry it, so that its absence says little."""

    def asked(self, cue: str, prevalence: dict[str, float], **options):
        cohort = made(n=400, side=16)
        cohort = replace(cohort, labels=np.random.default_rng(0).permutation(cohort.labels))
        cohort = planted(cohort, planting(cohort, cue, severity=1.0, prevalence=prevalence, **options))
        fitted = fit(cohort, config=tiny_config(epochs=8, batch_size=16))
        return ShortcutLayers().run(subject_of(cohort, fitted.classifier, resamples=200))

    def test_with_it_predictions_settle_earlier_and_a_diffuse_one_is_used_earlier_than_a_local_one(self):
        prevalence = {"normal": 0.0, "mild": 0.6}
        noise = self.asked("gaussian-noise", prevalence)
        square = self.asked("square", prevalence, side=0.2)
        for finding in (noise, square):
            assert finding.tables[PER_CUE]["reliance"][0].value > 0.4
            assert finding.tables[PER_CUE]["readable from"][0] == "stem"
            assert finding.measures["planted-change"].estimate.high < 0
            assert finding.headline.estimate.value < 0.3
        diffuse, local = (values(f.tables[PER_LAYER]["share of reliance carried"])[:5] for f in (noise, square))
        assert local[1] < 0.1 < 0.2 < diffuse[1]
        assert min(diffuse[4], local[4]) > 0.6
