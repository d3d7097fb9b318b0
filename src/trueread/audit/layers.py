"""What the layers of a network say of its images: where a prediction is settled, what can be read there and is used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from trueread.cohort.cohort import Cohort
from trueread.method.distillation import layer_vectors
from trueread.model.classifier import Classifier, to_probabilities
from trueread.model.predictor import device_of
from trueread.model.taps import as_map, pooled
from trueread.shift.base import Shift
from trueread.shift.planting import with_cue
from trueread.training.batches import batch_slices, unit_intensities
from trueread.training.evaluate import evaluation_batch

FEATURES = "features"  # what the head takes in: the last layer


@dataclass(frozen=True, eq=False)
class Seen:
    """What a classifier makes of m images. vectors: float32 [m,F] of each layer, its mean over positions, in the order
    of the forward pass. probabilities: float64 [m,K].
    """

    vectors: dict[str, NDArray[np.float32]]
    probabilities: NDArray[np.float64]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The most probable class, [m]."""
        return self.probabilities.argmax(axis=1)

    @property
    def layers(self) -> list[str]:
        """The layers, without the features where these are nothing but the last map's mean."""
        names = list(self.vectors)
        if len(names) > 1 and names[-1] == FEATURES:
            before, features = self.vectors[names[-2]], self.vectors[FEATURES]
            if before.shape == features.shape and np.allclose(before, features, rtol=1e-4, atol=1e-6):
                names.pop()
        return names


def images_of(cohort: Cohort, rows: NDArray[np.int64], cue: Shift | None = None) -> Iterator[Tensor]:
    """Batches float32 [B,C,...] in [0,1] of the images at `rows`, with a cue if one is given, as a file holds it."""
    for part in batch_slices(len(rows), evaluation_batch(cohort.spatial, torch.device("cpu"))):
        stored = cohort.images[rows[part]] if cue is None else with_cue(cohort, cue, rows[part])
        yield unit_intensities(stored, cohort.white)


def look(classifier: Classifier, batches: Iterable[Tensor]) -> Seen:
    """What the classifier makes of the images in `batches`, float [B,C,...] in [0,1], in eval mode."""
    vectors: dict[str, list[NDArray[np.float32]]] = {}
    answers = []
    with _asked(classifier) as device:
        for images in batches:
            output = classifier(images.to(device), list(classifier.taps), trusted=True)
            found = layer_vectors(output.taps, classifier)
            if output.features is not None:
                found[FEATURES] = pooled(output.features, channels=0)
            for name, values in found.items():
                vectors.setdefault(name, []).append(values.cpu().numpy())
            answers.append(to_probabilities(output.logits.float(), classifier.card).double().cpu().numpy())
    return Seen({name: np.concatenate(parts) for name, parts in vectors.items()}, np.concatenate(answers))


def answers_without(
    classifier: Classifier, batches: Iterable[Tensor], shifts: Mapping[str, NDArray[np.float32]]
) -> NDArray[np.float64]:
    """Probabilities [L,m,K] of the images in `batches` when, at every position of one layer, something is subtracted
    and the rest of the network runs on what is left.

    shifts: for each of L layers, float [m,F], what is subtracted for each image.
    """
    answers: list[list[NDArray[np.float64]]] = [[] for _ in shifts]
    start = 0
    with _asked(classifier) as device:
        for images in batches:
            there, part = images.to(device), slice(start, start + len(images))
            for (layer, shift), answer in zip(shifts.items(), answers, strict=True):
                handle = _subtracting(classifier, layer, torch.from_numpy(shift[part]).to(device))
                try:
                    logits = classifier(there, trusted=True).logits.float()
                finally:
                    handle.remove()
                answer.append(to_probabilities(logits, classifier.card).double().cpu().numpy())
            start += len(images)
    return np.stack([np.concatenate(answer) for answer in answers])


def prediction_depth(votes: NDArray[np.int64], predicted: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first layer from which every later one agrees with the network.

    votes: int64 [L,m], the class that each layer's neighbours say, first layer first. predicted: int64 [m], the
    network's. Returns [m] in 0..L; L where even the last layer disagrees. Source: Baldock, Maennel and Neyshabur 2021,
    arXiv 2106.09647, section 2.
    """
    settled = np.logical_and.accumulate((votes == predicted)[::-1])
    return len(votes) - settled.sum(axis=0)


def neighbours_vote(bank: NDArray, labels: NDArray[np.int64], vectors: NDArray, *, k: int) -> NDArray[np.int64]:
    """The most common class, [m], among the k nearest of the `bank` [n,F] with its labels [n], for `vectors` [m,F].

    Distances are Euclidean after standardising by the bank; of classes equally common the first one wins.
    """
    from sklearn.neighbors import KNeighborsClassifier  # a second of import that few need

    mean, scale = _moments(bank)
    model = KNeighborsClassifier(k, algorithm="brute").fit((bank - mean) / scale, labels)
    return model.predict((vectors - mean) / scale)


def cue_scores(without: NDArray, with_cue: NDArray, fold: NDArray[np.int64]) -> NDArray[np.float64]:
    """How sure a linear probe is that an image has the cue, [2m] in [0,1]: those without it first, then those with it.

    without, with_cue: [m,F], the same images. fold: int64 [m]; both images of a pair are in it, and their scores come
    from a logistic regression of the other folds, on features standardised by these.
    """
    from sklearn.linear_model import LogisticRegression  # a second of import that few need

    x, has = np.concatenate([without, with_cue]), np.repeat([0, 1], len(without))
    fold, scores = np.tile(fold, 2), np.empty(len(has))
    for f in np.unique(fold):
        held = fold == f
        mean, scale = _moments(x[~held])
        probe = LogisticRegression(max_iter=1000).fit((x[~held] - mean) / scale, has[~held])
        scores[held] = probe.predict_proba((x[held] - mean) / scale)[:, 1]
    return scores


def others_shift(without: NDArray, with_cue: NDArray, half: NDArray[np.int64]) -> NDArray[np.float32]:
    """By how much the cue moves a layer's vectors [m,F] on average, for each image [m,F] as found in the other half."""
    moved = with_cue.astype(np.float64) - without
    means = np.stack([moved[half != h].mean(axis=0) for h in (0, 1)])
    return means[half].astype(np.float32)


def folds_by_patient(patients: NDArray, n: int, *, seed: int) -> NDArray[np.int64]:
    """Fold in 0..n-1 of each image [m], all images of a patient in one, folds of equally many patients.

    patients: [m], the names, whose order decides nothing but by the seed.
    """
    names, codes = np.unique(patients, return_inverse=True)
    turn = np.random.default_rng([seed, *b"shortcut-layers"]).permutation(len(names))
    return turn[codes] % n


def _moments(x: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation [F] of [n,F]; 1 where a feature is constant."""
    mean, scale = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    return mean, np.where(scale > 1e-6 * (np.abs(mean) + 1e-12), scale, 1.0)


@contextmanager
def _asked(classifier: Classifier) -> Iterator[torch.device]:
    """The classifier in eval mode, without gradients, and its device."""
    was_training = classifier.training
    classifier.eval()
    try:
        with torch.no_grad():
            yield device_of(classifier)
    finally:
        classifier.train(was_training)


def _subtracting(classifier: Classifier, layer: str, shift: Tensor) -> RemovableHandle:
    """Let a layer put out what it does less `shift` [B,F], until the handle is removed."""
    if layer not in classifier.taps:
        assert classifier.head is not None

        def before(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            return (_less(inputs[0], shift, channels=0), *inputs[1:])

        return classifier.network.get_submodule(classifier.head).register_forward_pre_hook(before)
    path, channels = classifier.taps[layer]

    def after(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, (tuple, list)):
            return type(output)([_less(output[0], shift, channels=channels), *output[1:]])
        return _less(output, shift, channels=channels)

    return classifier.network.get_submodule(path).register_forward_hook(after)


def _less(tap: Tensor, shift: Tensor, *, channels: int) -> Tensor:
    """A tap less a vector per image [B,F] at each of its positions, in the tap's own layout."""
    if tap.ndim < 4:  # vectors [B,F] and tokens [B,T,F]
        return tap - shift.view(len(shift), *(1 for _ in tap.shape[2:]), -1)
    changed = tap.clone()
    view = as_map(changed, channels=channels, size=())  # channels first, the same memory
    view -= shift.view(*shift.shape, *(1 for _ in view.shape[2:]))
    return changed
