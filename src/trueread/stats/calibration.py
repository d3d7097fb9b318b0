"""Are the probabilities right? Brier score, skill, expected calibration error, reliability table, temperature.

Which probability is judged: binary, the probability of class 1 against how often class 1 is true; multiclass and
ordinal, the top-label confidence against how often the decision is right; multilabel, each label's probability against
how often it is true, over the images where it is known. Bins have equal width on [0, 1]; each contains its lower edge,
and the last one both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import expit, log_softmax, ndtri

from trueread.errors import InputError
from trueread.stats.bootstrap import Statistic, Values, Weights, average, on_rows, ratio, row_mean, weighted_mean
from trueread.stats.tasks import Task, binary_problems, check_probabilities, check_task

TEMPERATURE_RANGE = (0.05, 20.0)


@dataclass(frozen=True, eq=False)
class ReliabilityTable:
    """What was predicted and what came true, per bin.

    edges: [B+1]. n: int64 [B], predictions in the bin. predicted: [B], their mean probability. observed: [B], the share
    that came true. low, high: [B], Wilson interval of `observed`. The last four are nan in an empty bin.
    """

    edges: NDArray[np.float64]
    n: NDArray[np.int64]
    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def brier(probabilities: NDArray, labels: NDArray, *, task: Task) -> Statistic:
    """Brier score as a statistic; lower is better.

    Binary: mean of (p(class 1) - y)^2, in [0, 1]. Multiclass and ordinal: mean over images of the sum over classes of
    (p_k - [y = k])^2, in [0, 2]. Multilabel: mean over labels of the binary score, unknown ignored.
    probabilities, labels: as `check_probabilities` returns them.
    Source: Brier, Monthly Weather Review 78 (1950) 1; for binary, half of his sum over both classes, as scikit-learn.
    """
    if task == "binary":
        return weighted_mean((probabilities[:, 1] - labels) ** 2)
    if task != "multilabel":
        onehot = np.eye(probabilities.shape[1])[labels]
        return weighted_mean(((probabilities - onehot) ** 2).sum(axis=1))
    squared = (probabilities - labels) ** 2
    per_label = weighted_mean(squared[:, ~np.isnan(squared).all(axis=0)])
    return lambda weights: row_mean(per_label(weights))


def brier_skill(probabilities: NDArray, labels: NDArray, *, task: Task) -> Statistic:
    """Brier skill as a statistic: 1 - Brier score / Brier score of always stating the prevalence; higher is better.

    At most 1; 0 is a forecast no better than the prevalence of the (resampled) images themselves, below 0 a worse one.
    Multilabel: both scores are means over labels. nan where only one class is there, which leaves nothing to forecast.
    probabilities, labels: as `check_probabilities` returns them.
    Source: Murphy, Journal of Applied Meteorology 12 (1973) 595 (with the sample's own climatology).
    """
    score = brier(probabilities, labels, task=task)
    if task == "multilabel":
        shares = weighted_mean(labels[:, ~np.isnan(labels).all(axis=0)])
        return lambda weights: 1 - ratio(score(weights), row_mean(_spread(shares(weights))))
    if task == "binary":
        positive = weighted_mean(labels == 1)
        return lambda weights: 1 - ratio(score(weights), _spread(positive(weights)))
    of_classes = weighted_mean(np.eye(probabilities.shape[1])[labels])
    return lambda weights: 1 - ratio(score(weights), _spread(of_classes(weights)).sum(axis=1))


def ece(probabilities: NDArray, labels: NDArray, *, task: Task, bins: int = 15) -> Statistic:
    """Expected calibration error as a statistic, in [0, 1]; lower is better.

    The mean over `bins` equal-width bins, by their share of predictions, of |mean probability - share that came true|.
    Which probability: see this file's first lines; multilabel: mean over labels.
    probabilities, labels: as `check_probabilities` returns them.
    Source: Naeini, Cooper and Hauskrecht, AAAI 2015; Guo et al., ICML 2017, eq. 3. It is biased upwards in small
    samples, so compare it only between equal numbers of images and bins.
    """
    _check_bins(bins)
    parts = []
    for rows, confidence, came_true in _judged(probabilities, labels, task=task):
        part = _binary_ece(confidence, came_true, bins=bins)
        parts.append(part if rows is None else on_rows(part, rows))
    return average(parts)


def reliability_table(
    probabilities: NDArray, labels: NDArray, *, task: Task, bins: int = 15, level: float = 0.95
) -> ReliabilityTable:
    """The reliability diagram in numbers; multilabel: all known labels in one table.

    probabilities float [n,K], labels: see `check_probabilities`. The Wilson interval counts each prediction as
    independent, so it is too narrow where patients have several images; the interval of `ece` is not.
    Source: Wilson, JASA 22 (1927) 209.
    """
    _check_bins(bins)
    judged = list(_judged(*check_probabilities(probabilities, labels, task), task=task))
    confidence = np.concatenate([confidence for _, confidence, _ in judged])
    came_true = np.concatenate([came_true for _, _, came_true in judged])
    bin_of = _bin(confidence, bins=bins)
    n = np.bincount(bin_of, minlength=bins)
    predicted = ratio(np.bincount(bin_of, weights=confidence, minlength=bins), n)
    observed = ratio(np.bincount(bin_of, weights=came_true, minlength=bins), n)
    low, high = wilson_interval(observed, n, level=level)
    return ReliabilityTable(_edges(bins), n, predicted, observed, low, high)


def wilson_interval(
    share: NDArray, n: NDArray, *, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wilson score interval of a share in [0, 1] of n independent trials; nan where n is 0."""
    z = ndtri((1 + level) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def fit_temperature(logits: NDArray, labels: NDArray, *, task: Task) -> float:
    """The temperature T that minimises the negative log-likelihood of softmax(logits / T) (multilabel: sigmoid).

    logits: float [n,K] of the validation images; K = 2 for binary. labels: as for `check_probabilities`.
    Returns T in [0.05, 20], by a bounded search on log T: the likelihood is convex in 1/T, so there is one minimum.
    1.0 (leave the logits as they are) when the data cannot say: only one class in the labels, or every label already
    ahead of all others, where the likelihood grows for ever as T falls and T = 0.05 would make a small, easy validation
    set the reason for probabilities of 0 and 1.
    Source: Guo et al., ICML 2017, section 4.2; for multilabel one T for all labels.
    """
    from scipy.optimize import minimize_scalar  # 0.1 s of import that no metric needs

    logits = _checked_logits(logits, task)
    _, labels = check_probabilities(apply_temperature(logits, 1.0, task=task), labels, task)
    if task == "multilabel":
        known = ~np.isnan(labels)
        answers = labels[known]
        margins = ((2 * answers - 1) * logits[known]).astype(np.float64)

        def loss(log_temperature: float) -> float:
            return float(np.logaddexp(0.0, -margins * np.exp(-log_temperature)).mean())
    else:
        answers = labels
        true_logits = logits[np.arange(len(labels)), labels][:, None]
        others = np.arange(logits.shape[1])[None, :] != labels[:, None]
        margins = (true_logits - logits)[others]

        def loss(log_temperature: float) -> float:
            scaled = log_softmax(logits * np.exp(-log_temperature), axis=1)
            return -float(np.take_along_axis(scaled, labels[:, None], axis=1).mean())

    if len(np.unique(answers)) < 2 or margins.min() >= 0:
        return 1.0
    low, high = TEMPERATURE_RANGE
    found = minimize_scalar(loss, bounds=(np.log(low), np.log(high)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def apply_temperature(logits: NDArray, temperature: float, *, task: Task) -> NDArray[np.float64]:
    """Probabilities float64 [n,K] of logits float [n,K] at a temperature above 0: softmax (multilabel: sigmoid)."""
    logits = _checked_logits(logits, task)
    if not (np.isfinite(temperature) and temperature > 0):
        raise InputError(f"the temperature must be a positive number; found {temperature}; 1 changes nothing.")
    scaled = logits / temperature
    return expit(scaled) if task == "multilabel" else np.exp(log_softmax(scaled, axis=1))


def _spread(share: Values) -> Values:
    """share (1 - share), the Brier score of always stating the share; 0 up to rounding is 0."""
    product = share * (1 - share)
    return np.where(np.abs(product) < 1e-12, 0.0, product)


def _judged(
    probabilities: NDArray, labels: NDArray, *, task: Task
) -> list[tuple[NDArray[np.int64] | None, NDArray[np.float64], NDArray[np.float64]]]:
    """(rows or None, probability [m], whether it came true [m]) of what is judged; labels never known are left out."""
    if task in ("multiclass", "ordinal"):
        right = probabilities.argmax(axis=1) == labels
        return [(None, probabilities.max(axis=1), right.astype(np.float64))]
    problems = binary_problems(probabilities, labels, task=task)
    return [(p.rows, p.scores, p.positive.astype(np.float64)) for p in problems if len(p.scores)]


def _binary_ece(confidence: NDArray, came_true: NDArray, *, bins: int) -> Callable[[Weights], Values]:
    """Weights [R,m] -> [R]: the bins' |sum of (probability - came true)|, over the total weight."""
    m = len(confidence)
    gaps = sparse.csr_array((confidence - came_true, (np.arange(m), _bin(confidence, bins=bins))), shape=(m, bins))
    return lambda weights: ratio(np.abs(weights @ gaps).sum(axis=1), weights.sum(axis=1, dtype=np.float64))


def _bin(confidence: NDArray, *, bins: int) -> NDArray[np.int64]:
    """The bin of each probability, by the very edges that the reliability table shows."""
    return np.clip(np.searchsorted(_edges(bins), confidence, side="right") - 1, 0, bins - 1)


def _edges(bins: int) -> NDArray[np.float64]:
    return np.arange(bins + 1) / bins  # not linspace, whose 3/5 is a little above 0.6 and would push 0.6 down a bin


def _check_bins(bins: int) -> None:
    if bins < 1:
        raise InputError(f"calibration needs at least one bin; found {bins}; 15 is usual.")


def _checked_logits(logits: NDArray, task: Task) -> NDArray[np.float64]:
    check_task(task)
    logits = np.asarray(logits, dtype=np.float64)
    if logits.ndim != 2 or logits.shape[1] < (1 if task == "multilabel" else 2):
        raise InputError(f"logits must be [n,K], one column per class; found shape {logits.shape}.")
    if not np.all(np.isfinite(logits)):
        raise InputError(
            f"logits must be finite; found {np.sum(~np.isfinite(logits))} that are not; look at the model."
        )
    return logits
