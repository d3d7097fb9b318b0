"""The classifier: normalisation, network, taps, and a card that says what it is. Every other room sees [0,1]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from trueread.cohort.cohort import Cohort
from trueread.errors import InputError, NotMeasured, unknown
from trueread.model.backbone import Stem, build_backbone
from trueread.model.card import Card, foreign_card, read_card, write_card
from trueread.model.head import Head, build_head
from trueread.model.predictor import Predictor, device_of
from trueread.model.taps import capture, find_head, find_taps
from trueread.model.weights import load_into, read_weights, save_tensors, save_weights

WEIGHTS_FILE, TYPICAL_FILE = "weights.safetensors", "typical.safetensors"
TYPICAL = "features"


class Output(NamedTuple):
    """What a classifier says of a batch: logits [B,K], features [B,F] (the head's input; None for a foreign network
    without a linear head), and the taps that were asked for, by name."""

    logits: Tensor
    features: Tensor | None
    taps: dict[str, Tensor]


class Classifier(nn.Module):
    """A network with its normalisation and its card.

    network: float [B,C,...] (normalised) -> logits [B,K]. taps: name -> (module path inside `network`, channels).
    head: path of the last linear layer inside `network`.
    typical: half [m,F], features of training images, of length 1, beside which new ones are unusual or not; see
    `trueread.model.limits`. None before they are known.
    """

    has_gradients = True

    def __init__(
        self, network: nn.Module, card: Card, *, taps: Mapping[str, tuple[str, int]], head: str | None
    ) -> None:
        super().__init__()
        self.network, self.card, self.taps, self.head = network, card, dict(taps), head
        self.mean: Tensor
        self.std: Tensor
        self.typical: Tensor | None = None
        shape = (1, card.channels, *(1 for _ in card.size))
        self.register_buffer("mean", torch.tensor(card.mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(card.std).view(shape), persistent=False)

    @classmethod
    def build(
        cls,
        backbone: str = "compact",
        *,
        cohort: Cohort,
        rows: np.ndarray | None = None,
        stem: Stem = "auto",
        weights: str = "none",
        head: Head = "linear",
        dropout: float = 0.0,
    ) -> Classifier:
        """A new classifier for a cohort's classes, task, channels and size, normalised by its own intensities.

        rows: the images whose intensities give mean and standard deviation (the training split); all by default.
        weights: "none", "hub" (timm's pretrained weights, which also bring their mean and std), or a file's path.
        head: see `build_head`.
        Raises InputError for an unknown backbone, a stem it does not have, or weights that do not fit.
        """
        made = build_backbone(
            backbone, channels=cohort.channels, size=cohort.spatial, stem=stem, pretrained=weights == "hub"
        )
        mean, std = intensity_moments(cohort, rows)
        if weights == "hub" and made.mean is not None and made.std is not None:
            mean, std = made.mean, made.std
        card = Card(
            backbone=backbone,
            stem=made.stem,
            classes=list(cohort.classes),
            task=cohort.task,
            channels=cohort.channels,  # type: ignore[arg-type]
            size=list(cohort.spatial),
            mean=mean,
            std=std,
            white=cohort.white,
            fit=cohort.origin.get("options", {}).get("fit") or "crop",
            modality=cohort.modality,
            head=head,
            dropout=dropout,
        )
        classifier = cls._assemble(made, card)
        if weights == "hub":
            card.weights = f"hub: {made.source}"
        elif weights != "none":
            card.weights = load_into(classifier.network, Path(weights))
        classifier._try_once()
        return classifier

    def _try_once(self) -> None:
        """One empty image through the network, because some architectures pool a small image away and say so badly."""
        self.eval()
        try:
            with torch.no_grad():
                self(torch.zeros(1, *self.card.input_shape))
        except RuntimeError as error:
            side = "x".join(str(s) for s in self.card.size)
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"'{self.card.backbone}' cannot read {side} images ({reason}); choose a larger size or another "
                "backbone."
            ) from None

    @classmethod
    def _assemble(cls, made: Any, card: Card) -> Classifier:
        head = build_head(card.head, n_features=made.n_features, n_classes=len(card.classes), dropout=card.dropout)
        network = nn.Sequential()
        network.add_module("backbone", made.module)
        network.add_module("head", head)
        if len(card.size) == 2:  # one layout for a fresh, a trained and a loaded classifier, so that their bits agree
            network.to(memory_format=torch.channels_last)
        taps = {name: (f"backbone.{path}", width) for name, (path, width) in made.taps.items()}
        return cls(network, card, taps=taps, head=f"head.{len(head) - 1}")

    @classmethod
    def wrap(
        cls,
        network: nn.Module,
        *,
        classes: Sequence[str],
        size: Sequence[int],
        channels: int = 3,
        task: str | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        taps: Sequence[str] | None = None,
        head: str | None = None,
    ) -> Classifier:
        """A network trained elsewhere, so that it can be audited here.

        network: any nn.Module from float [B,C,...] to logits [B,K]. mean, std: the normalisation it was trained with,
        on intensities in [0,1]; leave them out when the network normalises by itself. taps: module paths to look into
        (default: convolutions spread over the depth). head: path of its last linear layer (default: found).
        """
        found = find_taps(network)
        if taps is not None:
            paths = dict(network.named_modules())
            missing = [t for t in taps if t not in paths]
            if missing:
                raise unknown("module of this network", missing[0], paths)
            found = {t: (t, int(getattr(paths[t], "out_channels", 0))) for t in taps}
        card = foreign_card(
            backbone=f"foreign:{type(network).__name__}", weights="foreign model, as given", classes=classes, size=size,
            channels=channels, task=task, mean=mean, std=std,
        )  # fmt: skip
        return cls(network.eval(), card, taps=found, head=head or find_head(network)).eval().to(device_of(network))

    def __repr__(self) -> str:
        million = sum(p.numel() for p in self.parameters()) / 1e6
        reads = "x".join(map(str, self.card.input_shape))
        return f"Classifier({self.card.backbone}, {million:.2f} M weights: {reads} -> {', '.join(self.card.classes)})"

    def forward(self, images: Tensor, taps: Sequence[str] = (), *, trusted: bool = False) -> Output:
        """Logits, features and the asked-for taps of images float [B,C,...] in [0,1].

        Outside training, intensities that leave [0,1] are refused: they are the sign of a second normalisation.
        trusted: the images come from stored integers and need not be looked at, for which a GPU would have to wait.
        Raises InputError for a wrong number of channels or dimensions, an unknown tap, or intensities out of range.
        """
        self._check(images, trusted=trusted)
        for name in taps:
            if name not in self.taps:
                raise unknown("tap of this classifier", name, self.taps)
        with capture(self.network, {name: self.taps[name][0] for name in taps}, self.head) as caught:
            logits = self.network((images - self.mean) / self.std)
        return Output(logits, caught.pop("features", None), caught)

    def probabilities(self, images: Tensor) -> Tensor:
        """Calibrated probabilities [B,K] of images float [B,C,...] in [0,1]: softmax, or sigmoid per label, of
        logits / T.
        """
        return to_probabilities(self.forward(images).logits.float(), self.card)

    def _check(self, images: Tensor, *, trusted: bool = False) -> None:
        expected = self.card.input_shape
        if images.ndim != len(expected) + 1 or images.shape[1] != expected[0]:
            raise InputError(
                f"this classifier reads images of shape [B, {', '.join(map(str, expected))}]; "
                f"found {list(images.shape)}; give a batch of such images."
            )
        if not self.training and not trusted and not torch.compiler.is_compiling():
            low, high = (float(v) for v in torch.aminmax(images.detach()))
            if not (low >= -1e-4 and high <= 1 + 1e-4):
                raise InputError(
                    f"images must be in [0,1]; found {low:.3g} to {high:.3g}. Divide stored intensities by their white "
                    "level, and do not normalise: the classifier does."
                )

    def save(self, folder: str | Path) -> Path:
        """Write `weights.safetensors`, `card.json` and, where they are known, `typical.safetensors` into `folder`, each
        complete or not at all. Returns the folder.
        """
        folder = Path(folder)
        save_weights(self.network, folder / WEIGHTS_FILE)
        if self.typical is not None:
            save_tensors({TYPICAL: self.typical}, folder / TYPICAL_FILE)
        write_card(self.card, folder)
        return folder

    @classmethod
    def load(cls, folder: str | Path, *, network: nn.Module | None = None) -> Classifier:
        """The classifier saved in `folder`, in eval mode. Never reads a pickle.

        network: the architecture of a foreign model, whose weights alone were saved.
        Raises InputError when a file is missing, truncated, edited, or does not fit the other.
        """
        folder = Path(folder)
        card = read_card(folder)
        if network is not None:
            classifier = cls(network, card, taps=find_taps(network), head=find_head(network))
        elif card.backbone.startswith("foreign:"):
            raise InputError(
                f"{folder} holds the weights of a foreign network; give its architecture: load(..., network=...)."
            )
        else:
            made = build_backbone(card.backbone, channels=card.channels, size=tuple(card.size), stem=card.stem)
            classifier = cls._assemble(made, card)
        state = read_weights(folder / WEIGHTS_FILE)
        try:
            classifier.network.load_state_dict(state)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].strip(" \t.")
            raise InputError(
                f"the weights in {folder} do not fit its card ({reason}); restore the card that was saved with them."
            ) from None
        if card.limits is not None and card.limits.distance is not None:
            classifier.typical = _typical(folder / TYPICAL_FILE)
        return classifier.eval()


def _typical(path: Path) -> Tensor:
    """The features of training images that `save` wrote."""
    found = read_weights(path).get(TYPICAL)
    if found is None or found.ndim != 2 or not len(found):
        raise InputError(f"{path} holds no features of training images; restore the file that was saved.")
    return found


def require_gradients(predictor: Predictor) -> Classifier:
    """The predictor as a Classifier, or NotMeasured when it is a function without gradients."""
    if not isinstance(predictor, Classifier):
        raise NotMeasured("the model is given as a function, and this question needs its gradients.")
    return predictor


def to_probabilities(logits: Tensor, card: Card) -> Tensor:
    """Softmax (binary, multiclass, ordinal) or sigmoid (multilabel) of logits [B,K] divided by the card's
    temperature.
    """
    scaled = logits / card.temperature
    return scaled.sigmoid() if card.task == "multilabel" else scaled.softmax(1)


def intensity_moments(cohort: Cohort, rows: np.ndarray | None = None) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of intensities in [0,1], over at most 2,000 images spread over `rows`."""
    rows = np.arange(len(cohort)) if rows is None else rows
    sample = rows[np.linspace(0, len(rows) - 1, min(len(rows), 2000)).astype(int)]
    axes = (0, *range(2, cohort.images.ndim))
    total = np.zeros(cohort.channels)
    squares = np.zeros(cohort.channels)
    for start in range(0, len(sample), 256):  # in pieces: a cohort may be larger than memory
        x = cohort.images[sample[start : start + 256]].astype(np.float64) / cohort.white
        total += x.mean(axis=axes) * len(x)
        squares += (x**2).mean(axis=axes) * len(x)
    mean = total / len(sample)
    std = np.sqrt(np.maximum(squares / len(sample) - mean**2, 0))
    return [float(m) for m in mean], [float(max(s, 1e-3)) for s in std]
