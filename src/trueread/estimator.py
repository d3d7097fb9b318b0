"""Arrays in, probabilities out: the loop behind the interface of scikit-learn's classifiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import balanced_accuracy_score
from sklearn.utils.validation import check_is_fitted

from trueread.cohort.cohort import Cohort
from trueread.cohort.split import assign_splits
from trueread.errors import InputError
from trueread.method.base import build_method
from trueread.options import validate
from trueread.stats.confusion import decide
from trueread.training.config import TrainConfig
from trueread.training.evaluate import predict_probabilities
from trueread.training.loop import fit


class ImageClassifier(ClassifierMixin, BaseEstimator):
    """A classifier of arrays of images with `fit`, `predict`, `predict_proba` and `score`, for scikit-learn's pipelines
    and cross-validation. What it learned is `classifier_`, a `Classifier` as everywhere else: to save, audit or export.
    """

    def __init__(
        self, method: str = "erm", *, options: Mapping[str, Any] | None = None, train: Mapping[str, Any] | None = None,
        val: float = 0.15, modality: str = "any", white: int | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        """method: how to train, with its options, also composed ("few-labels+focal"). train: of the loop, see
        `TrainConfig`. val: share of the images, whole patients, by which an epoch, the temperature and the threshold
        are chosen. modality: of the augmentation. white: the value that is 1.0, by default 255 or 65535. seed: of
        everything random.
        """
        self.method, self.options, self.train = method, options, train
        self.val, self.modality, self.white, self.seed = val, modality, white, seed

    def fit(self, X: ArrayLike, y: ArrayLike, *, patients: ArrayLike | None = None) -> Self:
        """Train on images uint8 or uint16 [N,H,W], [N,C,H,W] or [N,C,D,H,W], C 1 or 3, with one label each. patients:
        whose each image is, so that no patient is in training and validation; without it every image is its own.

        Raises InputError for other shapes and types, for fewer than two classes, and for labels that are missing.
        """
        labels = pd.Series(np.asarray(y).ravel())
        if labels.isna().any():
            raise InputError(f"{int(labels.isna().sum())} of {len(labels)} labels are missing; leave these images out.")
        self.classes_, codes = np.unique(labels.to_numpy(), return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(f"there is one class only ({self.classes_[0]!r}); give images of two classes or more.")
        cohort = assign_splits(self._cohort(X, codes, patients), val=self.val, test=0, seed=self.seed)
        config = validate(TrainConfig, dict(self.train or {}), where="train")
        made = build_method(self.method, **(self.options or {}))
        self.classifier_ = fit(cohort, made, config, seed=self.seed).classifier
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float32]:
        """Calibrated probabilities float32 [N,K], in the order of `classes_`, of images as in `fit`."""
        check_is_fitted(self, "classifier_")
        return predict_probabilities(self.classifier_, self._cohort(X, None, None))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The labels [N]: of two classes by the threshold that validation chose, of several the most probable one."""
        p = self.predict_proba(X).astype(np.float64)  # float32 would round the threshold
        card = self.classifier_.card
        threshold = 0.5 if card.threshold is None else card.threshold
        return self.classes_[decide(p, task=card.task, threshold=threshold)]

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Balanced accuracy of `predict`, and not accuracy, which a rare class hardly moves."""
        return float(balanced_accuracy_score(y, self.predict(X), sample_weight=sample_weight))

    def _cohort(self, X: ArrayLike, codes: NDArray[np.int64] | None, patients: ArrayLike | None) -> Cohort:
        """The images as a cohort. codes: of the labels int64 [N]; None where they are not known."""
        images = np.asarray(X)
        if images.ndim == 3:
            images = images[:, None]
        n = len(images) if images.ndim else 0
        for what, given in (("labels", codes), ("patients", patients)):
            if given is not None and len(np.asarray(given)) != n:
                raise InputError(f"there are {n} images and {len(np.asarray(given))} {what}; give one for each.")
        ids = [f"image {i}" for i in range(n)]
        k = len(self.classes_)
        return Cohort(
            name="arrays",
            images=images,
            labels=np.zeros(n, np.int64) if codes is None else codes.astype(np.int64),
            table=pd.DataFrame({
                "id": ids, "patient": ids if patients is None else np.asarray(patients).astype(str), "split": "",
            }),
            classes=tuple(map(str, self.classes_)),
            task="binary" if k == 2 else "multiclass",
            white=self.white or (65535 if images.dtype == np.uint16 else 255),
            patients_known=patients is not None,
            modality=self.modality,
        )  # fmt: skip
