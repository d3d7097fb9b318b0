"""Numbers with their uncertainty: patient-clustered bootstrap, metrics, calibration, DeLong, comparison, links."""

from trueread.stats.association import Links, concordance, cramers_v, linked, linked_together, mean_over_cells
from trueread.stats.bootstrap import (
    Statistic,
    average,
    bootstrap,
    bootstrap_many,
    cluster_weights,
    distribution,
    mean_over_seeds,
    on_rows,
    stack,
    weighted_mean,
)
from trueread.stats.calibration import (
    ReliabilityTable,
    apply_temperature,
    fit_temperature,
    reliability_table,
    wilson_interval,
)
from trueread.stats.compare import Comparison, holm, holm_adjusted, paired_difference
from trueread.stats.confusion import confusion_matrices, confusion_matrix, decide, per_class_recall
from trueread.stats.delong import delong, delong_test
from trueread.stats.distance import total_variation
from trueread.stats.estimate import Estimate
from trueread.stats.metrics import METRICS, Metric, point, statistic
from trueread.stats.tasks import TASKS, Task, Threshold, check_probabilities
from trueread.stats.threshold import choose_threshold

__all__ = [
    "METRICS",
    "TASKS",
    "Comparison",
    "Estimate",
    "Links",
    "Metric",
    "ReliabilityTable",
    "Statistic",
    "Task",
    "Threshold",
    "apply_temperature",
    "average",
    "bootstrap",
    "bootstrap_many",
    "check_probabilities",
    "choose_threshold",
    "cluster_weights",
    "concordance",
    "confusion_matrices",
    "confusion_matrix",
    "cramers_v",
    "decide",
    "delong",
    "delong_test",
    "distribution",
    "fit_temperature",
    "holm",
    "holm_adjusted",
    "linked",
    "linked_together",
    "mean_over_cells",
    "mean_over_seeds",
    "on_rows",
    "paired_difference",
    "per_class_recall",
    "point",
    "reliability_table",
    "stack",
    "statistic",
    "total_variation",
    "weighted_mean",
    "wilson_interval",
]
