"""scikit-learn's interface: the same classifier as the loop's, and patients that stay together."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import cross_val_score

from trueread import ImageClassifier, TrainConfig, assign_splits, build_method, fit, load_cohort
from trueread.errors import InputError
from trueread.training.evaluate import predict_probabilities

pytestmark = pytest.mark.usefixtures("quiet_and_on_one_thread")
TRAIN = {"epochs": 2, "precision": "fp32", "threads": 1}


@pytest.fixture(scope="module")
def phantom():
    return load_cohort("phantom", n_images=200, size=28)


@pytest.fixture(scope="module")
def fitted(phantom):
    names = np.array(["normal", "sick"])[phantom.labels]
    made = ImageClassifier("class-weights", train=TRAIN, modality="radiograph", seed=4)
    return made.fit(phantom.images[:, 0], names, patients=phantom.table["patient"])


def test_is_what_the_loop_makes(phantom, fitted):
    cohort = assign_splits(phantom.with_split([""] * len(phantom)), val=0.15, test=0, seed=4)
    same = fit(cohort, build_method("class-weights"), TrainConfig(**TRAIN), seed=4).classifier
    np.testing.assert_array_equal(fitted.predict_proba(phantom.images), predict_probabilities(same, cohort))
    assert fitted.classifier_.card.threshold == same.card.threshold


def test_predicts_by_the_threshold_of_validation(phantom, fitted):
    p = fitted.predict_proba(phantom.images)
    assert p.shape == (200, 2)
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
    said = fitted.predict(phantom.images)
    assert set(said) <= {"normal", "sick"}
    np.testing.assert_array_equal(said == "sick", p[:, 1].astype(float) >= fitted.classifier_.card.threshold)
    names = np.array(["normal", "sick"])[phantom.labels]
    assert fitted.score(phantom.images, names) == pytest.approx(balanced_accuracy_score(names, said))


def test_its_options_are_scikit_learns(phantom):
    made = ImageClassifier("focal", options={"gamma": 1.0}, train={**TRAIN, "epochs": 1, "batch_size": 16})
    assert clone(made).get_params() == made.get_params()
    scores = cross_val_score(made, phantom.images[:80], phantom.labels[:80] + 5, cv=2, error_score="raise")
    assert ((scores >= 0) & (scores <= 1)).all()


def test_several_classes_of_numbers(phantom):
    y = np.arange(120) % 3 * 10
    made = ImageClassifier(train={**TRAIN, "epochs": 1}).fit(phantom.images[:120].astype(np.uint16) * 257, y)
    assert made.classes_.tolist() == [0, 10, 20]
    assert made.predict_proba(phantom.images[:5].astype(np.uint16) * 257).shape == (5, 3)
    assert set(made.predict(phantom.images[:5].astype(np.uint16) * 257)) <= {0, 10, 20}


@pytest.mark.parametrize(
    ("x", "y", "more", "message"),
    [
        (lambda x: x.astype(float), lambda y: y, {}, "images must be uint8 or uint16"),
        (lambda x: x[:, 0, 0], lambda y: y, {}, "images"),
        (lambda x: x, lambda y: y * 0, {}, "one class only"),
        (lambda x: x, lambda y: np.where(y == 0, np.nan, 1.0), {}, "labels are missing"),
        (lambda x: x, lambda y: y[:-1], {}, "200 images and 199 labels"),
        (lambda x: x, lambda y: y, {"patients": ["p"]}, "200 images and 1 patients"),
    ],
)
def test_mistakes(phantom, x, y, more, message):
    with pytest.raises(InputError, match=message):
        ImageClassifier(train=TRAIN).fit(x(phantom.images), y(phantom.labels), **more)


def test_options_of_the_loop_are_checked(phantom):
    with pytest.raises(InputError, match="epoch"):
        ImageClassifier(train={"epoch": 2}).fit(phantom.images, phantom.labels)


def test_before_it_is_fitted(phantom):
    with pytest.raises(NotFittedError):
        ImageClassifier().predict_proba(phantom.images)
