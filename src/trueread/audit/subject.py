"""The subject of an audit: a method's trained classifiers (one per seed) and what they said of the test images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from trueread.cohort.cohort import Cohort
from trueread.errors import InputError
from trueread.model.predictor import Predictor, check_fits
from trueread.stats import Estimate, Statistic, mean_over_seeds
from trueread.training.evaluate import predict_probabilities


@dataclass
class Member:
    """One trained classifier: its seed, and its calibrated probabilities float [n,K] on the test and validation
    rows.
    """

    predictor: Predictor
    seed: int
    probabilities: np.ndarray
    val_probabilities: np.ndarray | None = None

    @property
    def threshold(self) -> float | list[float] | None:
        return self.predictor.card.threshold


@dataclass
class Subject:
    """What an audit is asked about.

    name: of the method or model. cohort: the data; rows: int64 positions of the test images; val_rows: of validation.
    members: one per seed. resamples, seed: of the bootstrap. folder: where audits that train keep what an interrupted
    one goes on from; None is nowhere.
    """

    name: str
    cohort: Cohort
    rows: np.ndarray
    members: list[Member]
    val_rows: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    resamples: int = 1000
    seed: int = 0
    folder: Path | None = None

    @classmethod
    def of(cls, predictor: Predictor, cohort: Cohort, *, name: str = "model", resamples: int = 1000) -> Subject:
        """One model on a cohort's test split (all images, when the cohort is not split).

        Raises InputError when the model's classes, task, channels, size or white level are not the cohort's.
        """
        check_fits(predictor, cohort)
        rows = cohort.rows("test") if cohort.is_split else np.arange(len(cohort))
        if len(rows) == 0:
            raise InputError(
                f"{cohort.name}: the test split is empty; an audit needs images the model was not trained on."
            )
        val_rows = cohort.rows("val") if cohort.is_split else np.empty(0, np.int64)
        probabilities = predict_probabilities(predictor, cohort, rows)
        val = predict_probabilities(predictor, cohort, val_rows) if len(val_rows) else None
        return cls(name, cohort, rows, [Member(predictor, 0, probabilities, val)], val_rows, resamples=resamples)

    @cached_property
    def labels(self) -> np.ndarray:
        """Test labels as given: int64 [n] or float32 [n,K]."""
        return self.cohort.labels[self.rows]

    @cached_property
    def clusters(self) -> np.ndarray:
        """int64 [n]: each test image's patient."""
        return self.cohort.patient_codes(self.rows)

    def estimate(self, statistic: Callable[[Member], Statistic]) -> tuple[Estimate, list[Statistic]]:
        """A statistic of each member, and all of them as one estimate (see `interval`)."""
        statistics = [statistic(member) for member in self.members]
        return self.interval(statistics), statistics

    def interval(self, statistics: Sequence[Statistic], *, correct_bias: bool = False) -> Estimate:
        """Mean and spread over seeds of one statistic per seed, with a 95 % interval clustered by patient.

        correct_bias: for errors that noise can only push up; see `mean_over_seeds`.
        """
        return mean_over_seeds(
            statistics, self.clusters, resamples=self.resamples, seed=self.seed, correct_bias=correct_bias
        )
