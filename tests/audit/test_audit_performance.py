"""Every number of the performance audit against scikit-learn, which knows nothing of seeds, patients or thresholds."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk
from planted import binary, multiclass, multilabel, pair, subject_of

from trueread.audit.finding import Better, Verdict
from trueread.audit.performance import Performance, roc_curve


def values(finding):
    return {k: m.estimate.value for k, m in finding.measures.items()}


def float32(p):
    """The probabilities as a classifier stores them, in float64, as the numbers they are."""
    return np.asarray(p, np.float32).astype(np.float64)


def present_macro(score, y, p):
    """Mean over the classes that occur of a one-against-the-rest score."""
    return np.mean([score(y == k, p[:, k]) for k in range(p.shape[1]) if (y == k).any() and not (y == k).all()])


class TestAgainstSklearn:
    @pytest.mark.parametrize("absent", [None, 2, 3])
    def test_multiclass_with_and_without_an_absent_class(self, absent):
        p, y = multiclass(absent=absent)
        finding = Performance().run(subject_of(p, y, task="multiclass"))
        p = float32(p)
        decided = p.argmax(1)
        recall = [sk.recall_score(y == k, decided == k) if (y == k).any() else np.nan for k in range(4)]
        expected = {
            "auroc": present_macro(sk.roc_auc_score, y, p),
            "auprc": present_macro(sk.average_precision_score, y, p),
            "balanced-accuracy": np.nanmean(recall),
            "macro-f1": sk.f1_score(y, decided, average="macro"),
            "accuracy": sk.accuracy_score(y, decided),
        }
        assert values(finding) == pytest.approx(expected, abs=1e-9)
        table = finding.tables["Per class"]
        assert list(table["test images"]) == list(np.bincount(y, minlength=4))
        assert [e.value for e in table["sensitivity"]] == pytest.approx(recall, nan_ok=True)
        of_classes = [sk.roc_auc_score(y == k, p[:, k]) if (y == k).any() else np.nan for k in range(4)]
        assert [e.value for e in table["AUROC (one against the rest)"]] == pytest.approx(of_classes, nan_ok=True)
        said = [n for n in finding.notes if n.startswith("No test image of")]
        assert said == ([] if absent is None else [f"No test image of {['moderate', 'severe'][absent - 2]}: the means "
                                                   "leave them out."])  # fmt: skip

    @pytest.mark.parametrize("share", [0.5, 0.01])
    def test_binary_balanced_and_99_to_1_at_its_own_threshold(self, share):
        p, y = binary(600, share=share)
        p = float32(p)
        cut = 0.02 if share < 0.5 else 0.37
        finding = Performance().run(subject_of(p, y, threshold=cut))
        called = (p[:, 1] >= cut).astype(int)
        tn, fp, fn, tp = sk.confusion_matrix(y, called).ravel()
        false_rate, found, _ = sk.roc_curve(y, p[:, 1], drop_intermediate=False)
        expected = {
            "auroc": sk.roc_auc_score(y, p[:, 1]),
            "auprc": sk.average_precision_score(y, p[:, 1]),
            "balanced-accuracy": sk.balanced_accuracy_score(y, called),
            "macro-f1": sk.f1_score(y, called, average="macro"),
            "accuracy": sk.accuracy_score(y, called),
            "sensitivity": tp / (tp + fn),
            "specificity": tn / (tn + fp),
            "sensitivity-at-90-specificity": found[false_rate <= 0.1 + 1e-12].max(),
        }
        assert values(finding) == pytest.approx(expected, abs=1e-9)
        assert [e.value for e in finding.tables["Per class"]["sensitivity"]] == pytest.approx(
            [tn / (tn + fp), tp / (tp + fn)]
        )
        # one class against the rest is the same question as the other way round
        aurocs = [e.value for e in finding.tables["Per class"]["AUROC (one against the rest)"]]
        assert aurocs == pytest.approx([expected["auroc"]] * 2, abs=1e-6)

    def test_multilabel_with_unknown_labels_and_a_threshold_per_label(self):
        p, y = multilabel()
        p = float32(p)
        cuts = [0.3, 0.5, 0.8]
        finding = Performance().run(subject_of(p, y, task="multilabel", threshold=cuts))
        known = [~np.isnan(y[:, k]) for k in range(3)]
        truth, score = [y[m, k].astype(int) for k, m in enumerate(known)], [p[m, k] for k, m in enumerate(known)]
        called = [(s >= c).astype(int) for s, c in zip(score, cuts, strict=True)]
        both = list(zip(truth, called, strict=True))
        expected = {
            "auroc": np.mean([sk.roc_auc_score(t, s) for t, s in zip(truth, score, strict=True)]),
            "auprc": np.mean([sk.average_precision_score(t, s) for t, s in zip(truth, score, strict=True)]),
            "balanced-accuracy": np.mean([sk.balanced_accuracy_score(*b) for b in both]),
            "macro-f1": np.mean([sk.f1_score(*b) for b in both]),
            "accuracy": np.mean([sk.accuracy_score(*b) for b in both]),
            "sensitivity": np.mean([sk.recall_score(*b) for b in both]),
            "specificity": np.mean([sk.recall_score(*b, pos_label=0) for b in both]),
        }
        found = values(finding)
        found.pop("sensitivity-at-90-specificity")
        assert found == pytest.approx(expected, abs=1e-9)
        table = finding.tables["Per class"]
        assert list(table["test images"]) == [int(t.sum()) for t in truth]
        assert [e.value for e in table["sensitivity"]] == pytest.approx([sk.recall_score(*b) for b in both])

    def test_ordinal_agreement_is_quadratic_kappa(self):
        p, y = multiclass(k=5, seed=3)
        finding = Performance().run(subject_of(p, y, task="ordinal"))
        kappa = sk.cohen_kappa_score(y, float32(p).argmax(1), weights="quadratic")
        assert finding.measures["quadratic-kappa"].estimate.value == pytest.approx(kappa)
        assert "sensitivity" not in finding.measures

    def test_a_label_that_nobody_knows_is_left_out_and_costs_nothing(self):
        p, y = multilabel()
        y[:, 1] = np.nan
        finding = Performance().run(subject_of(p, y, task="multilabel"))
        table = finding.tables["Per class"].set_index("class")
        assert table["test images"]["mild"] == 0
        assert np.isnan(table["AUROC (one against the rest)"]["mild"].value)
        rest = [table["AUROC (one against the rest)"][c].value for c in ("normal", "moderate")]
        assert finding.headline.estimate.value == pytest.approx(np.mean(rest))
        assert "No test image of mild" in " ".join(finding.notes)

    def test_the_headline_is_the_auroc_and_higher_is_better(self):
        finding = Performance().run(subject_of(*binary()))
        assert next(iter(finding.measures)) == "auroc"
        assert {m.better for m in finding.measures.values()} == {Better.HIGHER}
        assert finding.verdict is Verdict.NO_THRESHOLD  # the driver judges, not the audit


class TestDecisions:
    def test_a_threshold_between_two_neighbouring_float32_is_not_rounded_onto_one_of_them(self):
        low = np.float32(0.3)
        high = np.nextafter(low, np.float32(1))
        cut = (float(low) + float(high)) / 2
        y = np.array([0, 1] * 20)
        for rounded in (low, high):  # the threshold as float32 is one of them, and calls both the same
            if np.float32(cut) == rounded:
                break
        p = pair(np.where(y == 1, high, low).astype(np.float32))
        finding = Performance().run(subject_of(p, y, threshold=cut))
        confusion = next(f for f in finding.figures if f.name == "confusion").data
        assert confusion[["normal", "mild"]].to_numpy().tolist() == [[1, 0], [0, 1]]
        assert finding.measures["balanced-accuracy"].estimate.value == 1
        assert [e.value for e in finding.tables["Per class"]["sensitivity"]] == [1, 1]

    def test_without_a_threshold_a_binary_task_decides_at_one_half(self):
        p, y = binary(share=0.2)
        without = Performance().run(subject_of(p, y))
        at_half = Performance().run(subject_of(p, y, threshold=0.5))
        assert values(without) == values(at_half)
        assert "most probable class" in without.notes[0]

    def test_the_rule_names_every_seeds_threshold_and_the_class_it_is_about(self):
        p, y = binary()
        finding = Performance().run(subject_of([p, p], y, threshold=(0.25, 0.75)))
        assert finding.notes[0] == (
            "Decisions at a probability of 0.250, 0.750 of 'mild': balanced-accuracy on validation."
        )

    def test_confusion_sums_over_seeds_each_at_its_own_threshold(self):
        p, y = binary(share=0.1)
        q, _ = binary(share=0.1, seed=5)
        finding = Performance().run(subject_of([p, q], y, threshold=(0.1, 0.6)))
        counts = sum(sk.confusion_matrix(y, float32(x)[:, 1] >= c) for x, c in ((p, 0.1), (q, 0.6)))
        confusion = next(f for f in finding.figures if f.name == "confusion").data
        assert list(confusion["truth"]) == ["normal", "mild"]
        assert confusion[["normal", "mild"]].to_numpy() == pytest.approx(counts / counts.sum(1, keepdims=True))


class TestSeeds:
    def test_the_mean_over_seeds_its_spread_and_its_interval(self):
        (p, y), (q, _), (r, _) = (binary(seed=s, strength=2) for s in (0, 0, 0))
        generator = np.random.default_rng(1)
        q, r = (pair(np.clip(x[:, 1] + generator.normal(0, s, len(y)), 0, 1)) for x, s in ((q, 0.2), (r, 0.4)))
        finding = Performance().run(subject_of([p, q, r], y))
        single = [sk.roc_auc_score(y, float32(x)[:, 1]) for x in (p, q, r)]
        estimate = finding.headline.estimate
        assert estimate.value == pytest.approx(np.mean(single))
        assert estimate.spread == pytest.approx(np.std(single, ddof=1))
        assert (estimate.n_seeds, estimate.n, estimate.n_clusters) == (3, 300, 300)
        assert estimate.low < estimate.value < estimate.high

    def test_one_seed_has_no_spread(self):
        assert Performance().run(subject_of(*binary())).headline.estimate.spread is None

    def test_more_images_of_the_same_patients_are_no_more_patients(self):
        """Every image three times: three times the images, the same numbers, the same intervals."""
        p, y = binary(120)
        patients = [f"p{i}" for i in range(120)]
        once = Performance().run(subject_of(p, y, patients=patients)).headline.estimate
        thrice = (
            Performance()
            .run(subject_of(np.repeat(p, 3, axis=0), np.repeat(y, 3), patients=np.repeat(patients, 3)))
            .headline.estimate
        )
        assert (thrice.value, thrice.low, thrice.high) == pytest.approx((once.value, once.low, once.high))
        assert (thrice.n, thrice.n_clusters) == (360, 120)


class TestRocCurve:
    @pytest.mark.parametrize("kind", ["balanced", "rare", "few negatives", "tied", "constant", "perfect", "inverted"])
    def test_its_area_is_the_auroc(self, kind):
        p, y = binary(400, share={"rare": 0.01, "few negatives": 0.97}.get(kind, 0.5))
        scores = p[:, 1]
        if kind == "tied":
            scores = scores.round(1)
        scores = {"constant": np.full(400, 0.5), "perfect": y.astype(float), "inverted": 1.0 - y}.get(kind, scores)
        grid = np.linspace(0, 1, 200_001)
        area = sk.auc(grid, roc_curve(scores, y == 1, grid))
        assert area == pytest.approx(sk.roc_auc_score(y, scores), abs=2e-5)

    @pytest.mark.parametrize("digits", [1, 6])
    def test_on_its_own_false_positive_rates_it_is_the_best_sensitivity_allowed(self, digits):
        p, y = binary(150, share=0.3)
        scores = p[:, 1].round(digits)
        false_rate, found, _ = sk.roc_curve(y, scores, drop_intermediate=False)
        grid = np.unique(false_rate)
        best = [found[false_rate <= x].max() for x in grid]
        assert roc_curve(scores, y == 1, grid) == pytest.approx(best)

    def test_the_figure_rises_from_nothing_called_to_all_called_and_agrees_with_the_headline(self):
        p, y = binary(800, share=0.3)
        finding = Performance().run(subject_of(p, y))
        roc = next(f for f in finding.figures if f.name == "roc")
        x, sensitivity = roc.data[roc.x].to_numpy(), roc.data[roc.y].to_numpy()
        assert set(roc.data["class"]) == {"mild"}
        assert (np.diff(sensitivity) >= -1e-12).all()
        assert sensitivity[-1] == 1
        assert sk.auc(x, sensitivity) == pytest.approx(finding.headline.estimate.value, abs=0.005)

    def test_every_class_that_can_be_told_apart_has_a_curve(self):
        p, y = multiclass(absent=2)
        roc = next(f for f in Performance().run(subject_of(p, y, task="multiclass")).figures if f.name == "roc")
        assert list(dict.fromkeys(roc.data["class"])) == ["normal", "mild", "severe"]

    def test_the_curve_of_several_seeds_is_their_mean(self):
        p, y = binary(share=0.3)
        q, _ = binary(share=0.3, seed=9)
        both, first, second = (
            next(f for f in Performance().run(subject_of(x, y)).figures if f.name == "roc").data["sensitivity"]
            for x in ([p, q], p, q)
        )
        assert both.to_numpy() == pytest.approx((first.to_numpy() + second.to_numpy()) / 2)

    def test_one_class_alone_has_no_curve_and_no_auroc(self):
        p, y = binary()
        finding = Performance().run(subject_of(p, np.zeros_like(y)))
        assert np.isnan(finding.headline.estimate.value)
        assert len(next(f for f in finding.figures if f.name == "roc").data) == 0
        assert finding.measures["accuracy"].estimate.value == pytest.approx((p[:, 1] < 0.5).mean())
