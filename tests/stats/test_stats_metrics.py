"""Every metric against scikit-learn and against a plain loop; weights against repeated rows; bounds and invariances."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import textbook
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from trueread.errors import InputError
from trueread.stats import METRICS, confusion_matrix, per_class_recall, point, statistic
from trueread.stats.ranking import binary_sensitivity_at_specificity

BINARY = ["balanced", "imbalanced", "tied", "constant"]
MULTICLASS = ["balanced", "imbalanced", "tied", "absent"]
Oracle = Callable[[np.ndarray, np.ndarray], float]


def quiet(metric: Callable, *values: np.ndarray, **options: object) -> float:
    with warnings.catch_warnings():  # scikit-learn warns of classes that are decided and never true
        warnings.simplefilter("ignore")
        return float(metric(*values, **options))


def roc_at_90(scores: np.ndarray, labels: np.ndarray) -> float:
    false_positive_rate, sensitivity, _ = sk.roc_curve(labels, scores, drop_intermediate=False)
    return float(sensitivity[false_positive_rate <= 0.1 + 1e-9].max())


def present_mean(metric: Callable, p: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean([metric(y == c, p[:, c]) for c in np.unique(y)]))


def over_labels(metric: Callable[[np.ndarray, np.ndarray], float]) -> Oracle:
    """The mean over labels of metric(truth, probability) on the images where the label is known."""

    def oracle(p: np.ndarray, y: np.ndarray) -> float:
        known = ~np.isnan(y)
        return float(np.mean([metric(y[known[:, c], c].astype(int), p[known[:, c], c]) for c in range(y.shape[1])]))

    return oracle


def brier_by_hand(p: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean([np.sum((p[i] - np.eye(p.shape[1])[y[i]]) ** 2) for i in range(len(y))]))


def quiet_spread(y: np.ndarray) -> float:
    """Brier score of stating the share of positives of every image."""
    return float(np.mean((np.mean(y) - y) ** 2))


SKLEARN: dict[str, dict[str, Oracle]] = {
    "binary": {
        "auroc": lambda p, y: sk.roc_auc_score(y, p[:, 1]),
        "auprc": lambda p, y: sk.average_precision_score(y, p[:, 1]),
        "accuracy": lambda p, y: sk.accuracy_score(y, p[:, 1] >= 0.5),
        "balanced-accuracy": lambda p, y: sk.balanced_accuracy_score(y, p[:, 1] >= 0.5),
        "macro-f1": lambda p, y: sk.f1_score(y, p[:, 1] >= 0.5, average="macro", zero_division=0),
        "weighted-f1": lambda p, y: sk.f1_score(y, p[:, 1] >= 0.5, average="weighted", zero_division=0),
        "f1": lambda p, y: sk.f1_score(y, p[:, 1] >= 0.5, zero_division=0),
        "sensitivity": lambda p, y: sk.recall_score(y, p[:, 1] >= 0.5),
        "specificity": lambda p, y: sk.recall_score(y, p[:, 1] >= 0.5, pos_label=0),
        "sensitivity-at-90-specificity": lambda p, y: roc_at_90(p[:, 1], y),
        "brier": lambda p, y: sk.brier_score_loss(y, p[:, 1]),
        "brier-skill": lambda p, y: 1 - sk.brier_score_loss(y, p[:, 1]) / quiet_spread(y),
        "ece": lambda p, y: textbook.ece(p[:, 1], y == 1),
    },
    "multiclass": {
        "auroc": lambda p, y: present_mean(sk.roc_auc_score, p, y),
        "auprc": lambda p, y: present_mean(sk.average_precision_score, p, y),
        "accuracy": lambda p, y: sk.accuracy_score(y, p.argmax(1)),
        "balanced-accuracy": lambda p, y: quiet(sk.balanced_accuracy_score, y, p.argmax(1)),
        "macro-f1": lambda p, y: sk.f1_score(y, p.argmax(1), average="macro", zero_division=0),
        "weighted-f1": lambda p, y: sk.f1_score(y, p.argmax(1), average="weighted", zero_division=0),
        "brier": lambda p, y: brier_by_hand(p, y),
        "brier-skill": lambda p, y: (
            1
            - brier_by_hand(p, y)
            / brier_by_hand(np.tile(np.bincount(y, minlength=p.shape[1]) / len(y), (len(y), 1)), y)
        ),
        "ece": lambda p, y: textbook.ece(p.max(1), p.argmax(1) == y),
    },
    "multilabel": {
        "auroc": over_labels(sk.roc_auc_score),
        "auprc": over_labels(sk.average_precision_score),
        "accuracy": over_labels(lambda y, p: sk.accuracy_score(y, p >= 0.5)),
        "balanced-accuracy": over_labels(lambda y, p: sk.balanced_accuracy_score(y, p >= 0.5)),
        "macro-f1": over_labels(lambda y, p: sk.f1_score(y, p >= 0.5)),
        "weighted-f1": lambda p, y: (
            over_labels(lambda y, p: sk.f1_score(y, p >= 0.5) * y.sum())(p, y) / over_labels(lambda y, _: y.sum())(p, y)
        ),
        "sensitivity": over_labels(lambda y, p: sk.recall_score(y, p >= 0.5)),
        "specificity": over_labels(lambda y, p: sk.recall_score(y, p >= 0.5, pos_label=0)),
        "sensitivity-at-90-specificity": over_labels(lambda y, p: roc_at_90(p, y)),
        "brier": over_labels(sk.brier_score_loss),
        "brier-skill": lambda p, y: (
            1 - over_labels(sk.brier_score_loss)(p, y) / over_labels(lambda y, _: quiet_spread(y))(p, y)
        ),
        "ece": over_labels(lambda y, p: textbook.ece(p, y == 1)),
    },
}
SKLEARN["ordinal"] = SKLEARN["multiclass"] | {
    "quadratic-kappa": lambda p, y: sk.cohen_kappa_score(y, p.argmax(1), weights="quadratic", labels=range(p.shape[1]))
}


def loops(task: str) -> dict[str, Oracle]:
    """The plain-loop oracles, where they differ from those of scikit-learn."""
    if task == "binary":
        return {
            "auroc": lambda p, y: textbook.auroc(p[:, 1], y == 1),
            "auprc": lambda p, y: textbook.average_precision(p[:, 1], y == 1),
            "balanced-accuracy": lambda p, y: np.mean(textbook.recalls(p[:, 1] >= 0.5, y, 2)),
            "macro-f1": lambda p, y: textbook.macro_f1(p[:, 1] >= 0.5, y, 2),
            "sensitivity-at-90-specificity": lambda p, y: textbook.sensitivity_at_specificity(p[:, 1], y == 1, 0.9),
        }
    return {
        "auroc": lambda p, y: np.mean([textbook.auroc(p[:, c], y == c) for c in np.unique(y)]),
        "auprc": lambda p, y: np.mean([textbook.average_precision(p[:, c], y == c) for c in np.unique(y)]),
        "balanced-accuracy": lambda p, y: np.mean(textbook.recalls(p.argmax(1), y, p.shape[1])),
        "macro-f1": lambda p, y: textbook.macro_f1(p.argmax(1), y, p.shape[1]),
        "quadratic-kappa": lambda p, y: textbook.quadratic_kappa(p.argmax(1), y),
    }


def data(task: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
    if task == "binary":
        return textbook.binary_data(kind)
    return textbook.multilabel_data() if task == "multilabel" else textbook.multiclass_data(kind)


CASES = [("binary", k) for k in BINARY] + [(t, k) for t in ("multiclass", "ordinal") for k in MULTICLASS]
CASES.append(("multilabel", "unknown"))


@pytest.mark.parametrize(("task", "kind"), CASES)
def test_equals_sklearn_with_unit_weights(task, kind):
    p, y = data(task, kind)
    assert set(SKLEARN[task]) == {name for name, metric in METRICS.items() if task in metric.tasks}
    for name, oracle in SKLEARN[task].items():
        assert point(name, p, y, task=task) == pytest.approx(oracle(p, y), abs=1e-12), name


@pytest.mark.parametrize(("task", "kind"), [c for c in CASES if c[0] != "multilabel"])
def test_equals_plain_loop(task, kind):
    p, y = data(task, kind)
    p, y = p[:120], y[:120]
    if task == "binary" and y.sum() < 2:
        y[:2] = 1
    for name, oracle in loops(task).items():
        if task in METRICS[name].tasks:
            assert point(name, p, y, task=task) == pytest.approx(float(oracle(p, y)), abs=1e-12), name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("task", "kind"), CASES)
def test_integer_weights_equal_repeated_rows(task, kind, dtype):
    p, y = data(task, kind)
    generator = np.random.default_rng(3)
    weights = generator.poisson(1.0, size=(6, len(y)))
    rare = np.isin(y, [c for c in np.unique(y) if np.sum(y == c) < 10]) if task != "multilabel" else y[:, -1] == 1
    weights[:, rare] += 1  # every class stays in every resample; what happens otherwise is tested below
    for name, oracle in SKLEARN[task].items():
        ours = statistic(name, p, y, task=task)(weights.astype(dtype))
        assert ours.dtype == np.float64
        for value, w in zip(ours, weights, strict=True):
            rows = np.repeat(np.arange(len(y)), w)
            expected = oracle(p[rows], y[rows])
            assert value == pytest.approx(expected, abs=1e-12 if dtype == np.float64 else 2e-7), name


def test_order_of_the_table_and_its_words():
    for name, metric in METRICS.items():
        assert name == name.lower()
        assert metric.title
        assert len(metric.definition) < 121
        assert metric.higher_is_better == (name not in ("brier", "ece"))


@pytest.mark.parametrize("name", ["balanced-accuracy", "auroc", "auprc", "sensitivity-at-90-specificity"])
def test_one_class_alone_is_not_defined(name):
    p, _ = textbook.binary_data("balanced")
    for only in (0, 1):
        assert np.isnan(point(name, p, np.full(len(p), only), task="binary"))


@pytest.mark.parametrize("name", ["balanced-accuracy", "auroc", "auprc", "macro-f1"])
def test_resample_without_a_class_that_the_data_have_is_not_defined(name):
    p, y = textbook.multiclass_data("absent")  # class 2 never occurs: it does not count. Class 3 does.
    weights = np.ones((2, len(y)))
    weights[1, y == 3] = 0
    values = statistic(name, p, y, task="multiclass")(weights)
    assert np.isfinite(values[0])
    assert np.isnan(values[1])


def test_sensitivity_without_positives_is_not_defined_and_specificity_is():
    p, y = textbook.binary_data("balanced")
    assert np.isnan(point("sensitivity", p, np.zeros_like(y), task="binary"))
    assert point("specificity", p, np.zeros_like(y), task="binary") == pytest.approx(np.mean(p[:, 1] < 0.5))


def test_labels_that_are_never_known_or_never_true_are_left_out():
    p, y = textbook.multilabel_data()
    wider_p = np.column_stack([p, p[:, 0], p[:, 0]])
    wider_y = np.column_stack([y, np.full(len(y), np.nan), np.zeros(len(y))]).astype(np.float32)
    for name in ("auroc", "auprc", "balanced-accuracy", "sensitivity", "sensitivity-at-90-specificity"):
        assert point(name, wider_p, wider_y, task="multilabel") == point(name, p, y, task="multilabel"), name
    nothing = np.full_like(y, np.nan)
    for name, metric in METRICS.items():
        if "multilabel" in metric.tasks:
            assert np.isnan(point(name, p, nothing, task="multilabel")), name


def test_threshold_decides_and_is_inclusive():
    p = np.array([[0.8, 0.2], [0.7, 0.3], [0.4, 0.6], [0.1, 0.9]])
    y = np.array([0, 1, 0, 1])
    assert point("sensitivity", p, y, task="binary") == 0.5
    assert point("sensitivity", p, y, task="binary", threshold=0.3) == 1.0
    assert point("specificity", p, y, task="binary", threshold=0.61) == 1.0
    assert point("auroc", p, y, task="binary", threshold=0.99) == 0.75  # the order needs no threshold


def test_threshold_is_compared_in_double_precision():
    score = np.float32(0.1)  # a little above 0.1
    p = np.array([[1 - score, score], [0.0, 1.0]], dtype=np.float32)
    just_above = float(score) + 1e-12  # rounds back to the score in float32
    assert point("sensitivity", p, np.array([1, 1]), task="binary", threshold=just_above) == 0.5


def test_confusion_matrix_and_recall():
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]])
    y = np.array([0, 1, 1, 2])
    np.testing.assert_array_equal(confusion_matrix(p, y, task="multiclass"), [[1, 0, 0], [1, 1, 0], [0, 0, 1]])
    recall = per_class_recall(p, y, task="multiclass")(np.array([[1, 1, 1, 1], [1, 3, 1, 0.0]]))
    np.testing.assert_allclose(recall, [[1, 0.5, 1], [1, 0.75, np.nan]])
    p, y = textbook.multilabel_data()
    ours = confusion_matrix(p, y, task="multilabel")
    for c in range(4):
        known = ~np.isnan(y[:, c])
        np.testing.assert_array_equal(ours[c], sk.confusion_matrix(y[known, c], p[known, c] >= 0.5))


def test_many_classes_take_the_sparse_path():
    generator = np.random.default_rng(0)
    y = generator.integers(0, 20, 600)
    p = textbook.softmax(generator.normal(size=(600, 20)) + 2 * np.eye(20)[y])
    np.testing.assert_array_equal(confusion_matrix(p, y, task="multiclass"), sk.confusion_matrix(y, p.argmax(1)))


def test_fixed_specificity_survives_rounding():
    scores = np.concatenate([np.arange(30) / 100, [0.265]])  # 3 of 30 negatives score higher: specificity exactly 0.9
    positive = np.arange(31) == 30
    statistic_at_90 = binary_sensitivity_at_specificity(scores, positive, specificity=0.9)
    assert statistic_at_90(np.ones((1, 31)))[0] == 1.0
    assert statistic_at_90(np.r_[np.ones(29), 2.0, 1.0][None])[0] == 0.0  # now 4 of 31


def test_unknown_name_and_wrong_task_are_sentences():
    p, y = textbook.binary_data("balanced")
    with pytest.raises(InputError, match="Did you mean 'auroc'"):
        statistic("aurok", p, y, task="binary")
    with pytest.raises(InputError, match="only for ordinal"):
        statistic("quadratic-kappa", p, y, task="binary")
    with pytest.raises(InputError, match="built on 240 predictions and is weighted over 241 rows"):
        statistic("auroc", p, y, task="binary")(np.ones((2, 241)))
    with pytest.raises(InputError, match="threshold must be in"):
        statistic("accuracy", p, y, task="binary", threshold=50)


@st.composite
def predictions(draw) -> tuple[str, np.ndarray, np.ndarray]:
    task = draw(st.sampled_from(["binary", "multiclass", "ordinal", "multilabel"]))
    n, k = draw(st.integers(4, 30)), 2 if task == "binary" else draw(st.integers(2, 4))
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))
    logits = generator.normal(size=(n, k)) * draw(st.sampled_from([0.1, 1.0, 8.0]))
    if task == "multilabel":
        labels = generator.choice([0, 1, np.nan], size=(n, k), p=[0.6, 0.3, 0.1]).astype(np.float32)
        return task, (1 / (1 + np.exp(-logits))).round(draw(st.sampled_from([1, 12]))), labels
    return task, textbook.softmax(logits), generator.integers(0, draw(st.integers(1, k)), n)


@settings(max_examples=60, deadline=None)
@given(predictions(), st.integers(0, 1000))
def test_bounds_order_and_scale(made, seed):
    task, p, y = made
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(y))
    weights = generator.integers(0, 4, size=(3, len(y))).astype(np.float64)
    for name, metric in METRICS.items():
        if task not in metric.tasks:
            continue
        values = statistic(name, p, y, task=task)(weights)
        low = {"quadratic-kappa": -1.0, "brier-skill": -np.inf}.get(name, 0.0)
        high = 2.0 if name == "brier" else 1.0
        inside = (values >= low - 1e-12) & (values <= high + 1e-12)
        assert np.all(inside | np.isnan(values)), name
        shuffled = statistic(name, p[order], y[order], task=task)(weights[:, order])
        np.testing.assert_allclose(shuffled, values, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(
            statistic(name, p, y, task=task)(2.5 * weights), values, atol=1e-12, err_msg=f"{name}: scale of the weights"
        )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30))
def test_ranking_metrics_depend_on_the_order_alone(seed, n):
    generator = np.random.default_rng(seed)
    p = generator.integers(1, 10, n) / 10
    y = generator.integers(0, 2, n)
    squashed = np.stack([1 - p**3 / 2, p**3 / 2], axis=1)
    plain = np.stack([1 - p, p], axis=1)
    for name in ("auroc", "auprc", "sensitivity-at-90-specificity"):
        before, after = point(name, plain, y, task="binary"), point(name, squashed, y, task="binary")
        np.testing.assert_allclose(after, before, atol=1e-12)
    flipped = point("auroc", plain[:, ::-1], y, task="binary")
    np.testing.assert_allclose(flipped, 1 - point("auroc", plain, y, task="binary"), atol=1e-12)


def test_brier_skill_is_0_for_the_prevalence_1_for_the_truth_and_nan_for_one_class():
    for share in (0.5, 0.05):
        y = (np.arange(200) < 200 * share).astype(np.int64)
        constant = np.tile([1 - share, share], (200, 1))
        assert point("brier-skill", constant, y, task="binary") == pytest.approx(0, abs=1e-12)
        assert point("brier-skill", np.eye(2)[y], y, task="binary") == 1
        assert point("brier-skill", np.eye(2)[1 - y], y, task="binary") < -1
        drawn = statistic("brier-skill", constant, y, task="binary")(np.random.default_rng(0).integers(0, 3, (50, 200)))
        assert (drawn <= 1e-12).all()  # a resample's own prevalence is always at least as good
    assert np.isnan(point("brier-skill", constant, np.zeros(200, np.int64), task="binary"))
