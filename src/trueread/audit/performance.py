"""How well does it tell the classes apart? Discrimination and decisions, overall and per class."""

from __future__ import annotations

import numpy as np
import pandas as pd

from trueread.audit.base import Audit, Better, Figure, Finding, Measure, Subject, audit
from trueread.audit.subject import Member
from trueread.stats import METRICS, Statistic, Threshold, confusion_matrix, on_rows, per_class_recall, statistic
from trueread.stats.ranking import binary_auroc

HEADLINE = "auroc"
ORDER = (
    HEADLINE, "balanced-accuracy", "auprc", "macro-f1", "quadratic-kappa", "sensitivity", "specificity",
    "sensitivity-at-90-specificity", "accuracy",
)  # fmt: skip
ROC_POINTS = 101


@audit("performance", source="sklearn definitions; intervals by patient-clustered bootstrap")
class Performance(Audit):
    """AUROC, balanced accuracy and their companions, overall and per class."""

    question = "How well does it tell the classes apart, on patients it has not seen?"
    better = Better.HIGHER

    def run(self, subject: Subject) -> Finding:
        task = subject.cohort.task
        measures = {name: measure(subject, name) for name in ORDER if task in METRICS[name].tasks}
        notes = [_decision_rule(subject)]
        absent = [c for c, n in zip(subject.cohort.classes, _positives(subject), strict=True) if n == 0]
        if absent:
            notes.append(f"No test image of {', '.join(absent)}: the means leave them out.")
        return self.finding(
            measures=measures,
            tables={"Per class": per_class(subject)},
            figures=[roc_figure(subject), *confusion_figures(subject)],
            notes=notes,
        )


def measure(subject: Subject, name: str) -> Measure:
    """The metric called `name` of a subject, with its interval and the statistics that made it."""
    metric = METRICS[name]
    estimate, statistics = subject.estimate(lambda m: member_statistic(subject, m, name))
    better = Better.HIGHER if metric.higher_is_better else Better.LOWER
    by_delong = name == "auroc" and subject.cohort.task == "binary"
    scores = np.stack([m.probabilities[:, 1] for m in subject.members]) if by_delong else None
    return Measure(metric.title, estimate, better, metric.definition, statistics, scores)


def member_statistic(subject: Subject, member: Member, name: str) -> Statistic:
    """One member's metric as a function of the test rows' weights, at the member's own threshold."""
    threshold = member.threshold if METRICS[name].decides else None
    return statistic(name, member.probabilities, subject.labels, task=subject.cohort.task, threshold=threshold)


def per_class(subject: Subject) -> pd.DataFrame:
    """Per class: test images, one-vs-rest AUROC and sensitivity, with intervals over patients."""
    rows = []
    task = subject.cohort.task
    for k, (name, n) in enumerate(zip(subject.cohort.classes, _positives(subject), strict=True)):
        known, positive = _positive(subject, k)

        def auroc(member: Member, k: int = k, known: np.ndarray = known, positive: np.ndarray = positive) -> Statistic:
            return on_rows(binary_auroc(member.probabilities[known, k], positive[known]), known)

        def recall(member: Member, k: int = k) -> Statistic:
            of_all = per_class_recall(
                member.probabilities.astype(np.float64), subject.labels, task=task, threshold=threshold_of(member)
            )
            return lambda weights: of_all(weights)[:, k]

        rows.append(
            {
                "class": name,
                "test images": int(n),
                "AUROC (one against the rest)": subject.estimate(auroc)[0],
                "sensitivity": subject.estimate(recall)[0],
            }
        )
    return pd.DataFrame(rows)


def roc_figure(subject: Subject) -> Figure:
    """ROC curves, mean over seeds at fixed false-positive rates: the positive class, or every class against the
    rest.
    """
    classes = subject.cohort.classes
    shown = [1] if subject.cohort.task == "binary" else range(len(classes))
    grid = np.linspace(0, 1, ROC_POINTS)
    frames = []
    for k in shown:
        known, positive = _positive(subject, k)
        if not positive[known].any() or positive[known].all():
            continue
        curves = [roc_curve(m.probabilities[known, k], positive[known], grid) for m in subject.members]
        frames.append(
            pd.DataFrame({"class": classes[k], "1 - specificity": grid, "sensitivity": np.mean(curves, axis=0)})
        )
    data = pd.concat(frames) if frames else pd.DataFrame({"class": [], "1 - specificity": [], "sensitivity": []})
    return Figure(
        "roc", "ROC", "line", data, x="1 - specificity", y="sensitivity", group="class", x_label="1 - specificity",
        y_label="sensitivity", diagonal=True, caption="Mean over seeds at equal false-positive rates.",
    )  # fmt: skip


def roc_curve(scores: np.ndarray, positive: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Sensitivity at the false-positive rates `grid` (ascending, in [0,1]), linear between the curve's points."""
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    true_rate = np.append(0, np.cumsum(positive[order])[last_of_tie] / positive.sum())
    false_rate = np.append(0, np.cumsum(~positive[order])[last_of_tie] / (~positive).sum())
    # Both ends of a vertical step are kept, or the line to its top would cut the corner below it. On the step itself
    # the top counts: the best sensitivity that this false-positive rate allows.
    left = np.searchsorted(false_rate, grid + 1e-12, side="right") - 1
    right = np.minimum(left + 1, len(false_rate) - 1)
    run = np.where(right > left, false_rate[right] - false_rate[left], 1)
    return true_rate[left] + (grid - false_rate[left]) / run * (true_rate[right] - true_rate[left])


def confusion_figures(subject: Subject) -> list[Figure]:
    """Images by truth (row) and decision (column), summed over seeds and shown as shares of the truth; not for
    multilabel.
    """
    if subject.cohort.task == "multilabel":
        return []
    total = sum(
        confusion_matrix(
            m.probabilities.astype(np.float64), subject.labels, task=subject.cohort.task, threshold=threshold_of(m)
        )
        for m in subject.members
    )  # fmt: skip
    shares = total / np.maximum(np.asarray(total).sum(axis=1, keepdims=True), 1)
    data = pd.DataFrame(shares, columns=list(subject.cohort.classes))
    data.insert(0, "truth", list(subject.cohort.classes))
    caption = "Share of each true class (row) that was called each class (column), over all seeds."
    return [Figure("confusion", "Confusion", "matrix", data, x_label="decision", y_label="truth", caption=caption)]


def _decision_rule(subject: Subject) -> str:
    cards = [m.predictor.card for m in subject.members]
    values = [c.threshold for c in cards if isinstance(c.threshold, float)]
    if values:
        listed = ", ".join(f"{v:.3f}" for v in values)
        return f"Decisions at a probability of {listed} of '{cards[0].classes[1]}': {cards[0].threshold_rule}."
    return f"Decisions by {cards[0].threshold_rule}."


def threshold_of(member: Member) -> Threshold:
    """The member's decision threshold, 0.5 when it has none."""
    return 0.5 if member.threshold is None else member.threshold


def _positive(subject: Subject, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Which rows have a known label for class k (positions), and bool [n] which are positive."""
    labels = subject.labels
    if labels.ndim == 2:
        return np.flatnonzero(~np.isnan(labels[:, k])), labels[:, k] == 1
    return np.arange(len(labels)), labels == k


def _positives(subject: Subject) -> np.ndarray:
    return subject.cohort.class_counts(subject.rows)
