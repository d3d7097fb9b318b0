"""Learning without labels from two views of each image: the trainer that all such methods share.

A pretraining runs in the one loop, as a training whose loss compares the embeddings of two views of each image of the
batch; the labels teach only a linear layer beside it, whose gradient the encoder does not feel and whose validation
numbers show how the features come along. Then the encoder's weights take the place of the random ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from trueread.cohort.cohort import Cohort
from trueread.method.base import Method, head_of
from trueread.model.classifier import Classifier
from trueread.progress import say
from trueread.stats.embedding import effective_rank, nearest_probabilities, spread_of_dimensions
from trueread.stats.metrics import point
from trueread.training.augment import augment_batch, recipe_for
from trueread.training.checkpoint import drop_checkpoint
from trueread.training.config import TrainConfig
from trueread.training.hooks import Hooks, Setup, Step, cross_entropy
from trueread.training.ledger import Ledger
from trueread.training.limits import features_of
from trueread.training.processes import processes

if TYPE_CHECKING:
    from trueread.training.loop import Fitted

Epochs = Annotated[int, Field(ge=1, le=10_000)]
Batch = Annotated[int, Field(ge=8, le=65_536)]
Rate = Annotated[float, Field(gt=0, le=100)]
Width = Annotated[int, Field(ge=8, le=16_384)]
NEIGHBOURS = 20  # whose votes tell how the features come along
WATCHED, TIMES = 1000, 10  # images of training and validation that are looked at, so many times
FEWEST, FLATTEST = 3.0, 0.1  # effective rank and spread of a dimension below which there is collapse


def even_batch(n: int, most: int) -> int:
    """The size, at most `most`, of batches of n images whose last one is at least half as large as the others: views of
    a few images say little, and weigh as much.
    """
    for count in range(-(-n // most), n + 1):
        size = -(-n // count)
        if 2 * ((n - 1) % size + 1) >= size:
            return size
    return 1


class Objective:
    """What two views' embeddings should have in common."""

    def __call__(self, first: Tensor, second: Tensor) -> dict[str, Tensor]:
        """Named terms, each a scalar, of embeddings float32 [b,d] of two views of the same b images."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """What a killed run needs to go on, and what the report says of it."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""


class Pretraining(Method):
    """A method that gives the encoder its first weights; compose it with one that trains with labels."""

    what: ClassVar[str] = "pretraining"
    first_weights = True
    replayable = True  # it does nothing in the steps of the training that follows

    def __init__(
        self, *, epochs: int, batch_size: int, learning_rate: float, weight_decay: float, width: int, views: str
    ) -> None:
        """epochs, batch_size, learning_rate, weight_decay: of the pretraining, with AdamW and a cosine. width: of the
        projector's three layers, in whose output views are compared. views: a recipe of views.yaml; "auto" is the
        modality's own.
        """
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.weight_decay, self.width, self.views = weight_decay, width, views
        self.told: dict[str, Any] = {}

    def objective(self) -> Objective:
        """A new one."""
        raise NotImplementedError

    def learn(
        self, cohort: Cohort, config: TrainConfig, *, fit: Callable[..., Fitted], seed: int, folder: Path | None
    ) -> Classifier:
        """A classifier whose backbone has learned from the cohort's training images. config: of the training that comes
        later; what the pretraining decides is replaced. folder: where it can be interrupted.
        """
        name, recipe = recipe_for(self.views, cohort.modality, of="views")
        hooks = TwoViews(self.objective(), width=self.width, recipe=recipe)
        settings = self.settings(len(cohort.rows("train")))
        self.refuse_batches(settings["batch_size"])
        changed = config.model_copy(update=settings)
        if processes().leads:
            say(f"{self.what}: views '{name}', batches of {settings['batch_size']}.")
        fitted = fit(cohort, hooks, changed, seed=seed, folder=folder, what=self.what)
        self.told = {"views": name, **hooks.told()}
        for warning in self.told["warnings"]:
            say(f"warning: {warning}")
        return fitted.classifier

    def settings(self, n: int) -> dict[str, Any]:
        """What the pretraining decides of the loop, for n images."""
        return {
            "epochs": self.epochs, "batch_size": even_batch(n, self.batch_size), "optimizer": "adamw",
            "learning_rate": self.learning_rate, "weight_decay": self.weight_decay, "schedule": "cosine", "warmup": 0.1,
            "select": "last", "augment": "none", "head": "linear", "dropout": 0.0, "ema_decay": None, "patience": None,
            "clip_norm": None, "threshold_rule": "0.5",
        }  # fmt: skip

    def refuse_batches(self, size: int) -> None:
        """Raises InputError when batches of that size do not do."""

    def prepare(self, setup: Setup) -> None:
        made = self.learn(setup.cohort, setup.config, fit=setup.fit, seed=setup.seed, folder=self._folder(setup))
        encoder = made.network.get_submodule("backbone").state_dict()
        setup.classifier.network.get_submodule("backbone").load_state_dict(encoder)
        card, epochs = setup.classifier.card, f"{self.epochs} epoch{'' if self.epochs == 1 else 's'}"
        before = "" if setup.config.weights == "none" else f"{card.weights}; then "
        card.weights = f"{before}{self.what}, {epochs} on {len(setup.train_rows)} images"

    def finish(self, setup: Setup) -> None:
        folder = self._folder(setup)
        if folder is not None and processes().leads:
            drop_checkpoint(folder / "checkpoints")
        processes().wait()

    def _folder(self, setup: Setup) -> Path | None:
        return setup.folder and setup.folder / "pretraining"

    def report(self) -> dict[str, Any]:
        return self.told

    def state(self) -> dict[str, Any]:
        return {"told": self.told}

    def load_state(self, state: dict[str, Any], setup: Setup) -> None:
        self.told = state["told"]


class TwoViews(Hooks):
    """The loop's hooks during a pretraining. recipe: how views are made. width: of the projector."""

    def __init__(self, objective: Objective, *, width: int, recipe: Any) -> None:
        self.objective, self.width, self.recipe = objective, width, recipe
        self.watched: list[dict[str, float]] = []
        self.terms: dict[str, Tensor | float] = {}  # sums over the batches of this epoch
        self.batches: dict[str, int] = {}  # that had each term

    def __repr__(self) -> str:
        return f"TwoViews({self.objective!r}, {self.width}, {self.recipe!r})"

    def prepare(self, setup: Setup) -> None:
        self._know(setup)

    def _know(self, setup: Setup) -> None:
        self.setup = setup
        n, width = head_of(setup.classifier).in_features, self.width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(setup.seed)
            layers: list[nn.Module] = []
            for given in (n, width):
                layers += [nn.Linear(given, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
            self.projector = nn.Sequential(*layers, nn.Linear(width, width, bias=False)).to(setup.device)
        generator = np.random.default_rng(setup.seed)
        self.rows = {
            "train": np.sort(generator.permutation(setup.train_rows)[:WATCHED]),
            "val": np.sort(generator.permutation(setup.val_rows)[:WATCHED]),
        }

    def parameters(self) -> list[nn.Parameter]:
        return list(self.projector.parameters())

    def perturb(self, step: Step) -> None:
        """The first view in the place of the image; the second is kept for later."""
        step.notes["second"] = _ordered(augment_batch(step.images, self.recipe, step.generator))
        step.images = _ordered(augment_batch(step.images, self.recipe, step.generator))

    def losses(self, step: Step) -> Tensor:
        return torch.zeros(len(step.images), device=step.images.device)

    def penalty(self, step: Step) -> dict[str, Tensor]:
        assert step.output is not None
        with step.autocast():
            other = step.classifier(step.notes["second"], trusted=True)
            assert step.output.features is not None
            assert other.features is not None
            embedded = [self.projector(f) for f in (step.output.features, other.features)]
        first, second = (processes().joined(e.float()) for e in embedded)
        terms = self.objective(first, second)
        for name, term in terms.items():
            self.terms[name] = self.terms.get(name, 0.0) + term.detach()
            self.batches[name] = self.batches.get(name, 0) + 1
        return {**terms, "probe": self._probe(step, step.output.features)}

    def _probe(self, step: Step, features: Tensor) -> Tensor:
        """The loss of a linear layer on top, which the features do not feel."""
        head = head_of(step.classifier)
        logits = F.linear(features.detach().float(), head.weight, head.bias)
        return cross_entropy(logits, step.targets, multilabel=step.multilabel).mean()

    def after_epoch(self, ledger: Ledger) -> None:
        epoch, epochs = ledger.epoch + 1, ledger.epochs
        terms = {k: round(float(v) / self.batches[k], 4) for k, v in self.terms.items()}
        self.terms, self.batches = {}, {}
        if epoch % max(1, epochs // TIMES) and epoch != epochs:
            return
        self.watched.append({"epoch": epoch, **terms, **watched(self.setup, self.rows, self.projector)})
        if epoch != epochs:  # of the last one the method says it
            for warning in self.warnings():
                say(f"warning: after epoch {epoch} {warning}")

    def warnings(self) -> list[str]:
        """What is wrong with the features now."""
        last = self.watched[-1] if self.watched else {}
        found = []
        for what, suffix in (("features", ""), ("embeddings", "_embedded")):
            rank, spread = last.get(f"rank{suffix}", FEWEST), last.get(f"spread{suffix}", FLATTEST)
            if rank < FEWEST or spread < FLATTEST:
                found.append(
                    f"the {what} have collapsed: effective rank {rank:.1f}, spread of a dimension {spread:.3f} of what "
                    "even ones have; lower the learning rate, take larger batches, or weigh more what keeps dimensions "
                    "apart."
                )
        return found

    def told(self) -> dict[str, Any]:
        """For the report: the terms, and how the features came along."""
        return {"watched": self.watched, "warnings": self.warnings(), **self.objective.state()}

    def state(self) -> dict[str, Any]:
        return {
            "projector": self.projector.state_dict(), "watched": self.watched, "objective": self.objective.state(),
            "terms": {k: float(v) for k, v in self.terms.items()}, "batches": self.batches,
        }  # fmt: skip

    def load_state(self, state: dict[str, Any], setup: Setup) -> None:
        self._know(setup)
        self.projector.load_state_dict(state["projector"])
        self.watched, self.terms, self.batches = state["watched"], dict(state["terms"]), dict(state["batches"])
        self.objective.load_state(state["objective"])


def watched(setup: Setup, rows: Mapping[str, np.ndarray], projector: nn.Module) -> dict[str, float]:
    """Of some images' features, and of their embeddings: effective rank and spread; and, where there is validation and
    one class per image, the balanced accuracy there of the votes of 20 neighbours in training.
    """
    cohort = setup.cohort
    bank = features_of(setup.classifier, cohort, rows["train"])
    assert bank is not None
    projector.eval()
    with torch.inference_mode():
        embedded = projector(bank.float().to(setup.device)).cpu()
    projector.train()
    said: dict[str, float] = {}
    for suffix, x in (("", bank), ("_embedded", embedded)):
        said |= {f"rank{suffix}": effective_rank(x.numpy()), f"spread{suffix}": spread_of_dimensions(x.numpy())}
    if len(rows["val"]) and cohort.task != "multilabel":
        asked = features_of(setup.classifier, cohort, rows["val"])
        assert asked is not None
        votes = nearest_probabilities(
            bank.numpy(), cohort.labels[rows["train"]], asked.numpy(), n_classes=cohort.n_classes, k=NEIGHBOURS
        )
        said["nearest"] = point("balanced-accuracy", votes, cohort.labels[rows["val"]], task=cohort.task)
    return {k: round(float(v), 4) for k, v in said.items()}


def _ordered(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images
