"""The same network that has learned nothing, or labels that mean nothing: what its maps have to be unlike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trueread.audit.map_controls import randomised
from trueread.audit.subject import Subject
from trueread.errors import NotMeasured
from trueread.model.classifier import Classifier
from trueread.training.batches import ImageStore
from trueread.training.batchnorm import refresh_batch_norm
from trueread.training.config import same_network
from trueread.training.evaluate import predict_probabilities
from trueread.training.loop import fit


def unlearned(classifier: Classifier, subject: Subject, store: ImageStore, *, seed: int) -> Classifier:
    """The same network with random weights, and batch norms that let them through: those of a fresh network, which
    has seen no image, bring a deep one's signal to nothing, and its map with it.
    """
    other, train = randomised(classifier, seed=seed), subject.cohort.rows("train")
    refresh_batch_norm(other, store, train if len(train) else subject.rows, seed=seed, precision="fp32")
    return other.eval()


def after_shuffled_labels(
    classifier: Classifier, subject: Subject, *, epochs: int, seed: int
) -> tuple[Classifier, float]:
    """The same network, trained on labels that belong to other images, and the share of them it has learned. Source:
    Adebayo et al. 2018, section 4.
    """
    cohort = subject.cohort
    if classifier.card.backbone.startswith("foreign:"):
        raise NotMeasured("a network that was made elsewhere cannot be made anew; leave `shuffled` out.")
    train = cohort.rows("train")
    if not len(train):
        raise NotMeasured("there are no training images whose labels could be shuffled; leave `shuffled` out.")
    labels = cohort.labels.copy()
    labels[train] = np.random.default_rng(seed).permutation(labels[train])
    config = same_network(classifier.card, epochs=epochs, batch_size=max(2, min(64, len(train) // 8)), select="last")
    what = f"{subject.name}, shuffled labels"
    other = fit(replace(cohort, labels=labels), config=config, seed=seed, quiet=True, what=what).classifier
    decided = predict_probabilities(other, cohort.subset(train)).argmax(axis=1)
    return other, float((decided == labels[train]).mean())
