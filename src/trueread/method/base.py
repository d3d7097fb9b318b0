"""Methods: ideas about how to train, found by name, and composed with a plus sign."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from trueread.cohort.cohort import Cohort
from trueread.errors import InputError
from trueread.model.classifier import Classifier
from trueread.registry import Registry
from trueread.training.hooks import Hooks, Setup, Step
from trueread.training.ledger import Ledger

METHODS: Registry[Method] = Registry("method", "methods", package="trueread.method")
method = METHODS.register


class Method(Hooks):
    """An idea about how to train, as hooks on the one loop (see `Hooks`). Its options are its constructor's keywords.

    Make one with the name's registry (`build_method("focal", gamma=2.0)`) or directly; `options` records what was
    given, so that a run can be described and resumed.
    """

    name: ClassVar[str] = ""
    first_weights: ClassVar[bool] = False  # True: it gives the encoder its first weights, which one method can
    hides_labels: ClassVar[bool] = False  # True: labels of images that are not drawn count as unknown
    reads_all_labels: ClassVar[bool] = False  # True: it learns also from labels of images that are not drawn
    options: Mapping[str, Any]

    def __new__(cls, *_parts: Any, **options: Any) -> Self:
        made = super().__new__(cls)
        made.options = options
        return made

    def __init__(self) -> None:
        """No options."""

    def refuse(self, cohort: Cohort) -> None:
        """Raises InputError for a cohort that it cannot be trained on, before another part prepares for long."""

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={v!r}" for k, v in sorted(self.options.items()))
        return f"{self.name or type(self).__name__}({options})"


class Composite(Method):
    """Several methods as one: perturbations follow each other, weights and sampling multiply, penalties add.

    Raises InputError for parts that cannot be together: two that replace the per-sample loss, two that give first
    weights, and one that reads labels which another says are unknown.
    """

    def __init__(self, parts: Sequence[Method]) -> None:
        self.parts = list(parts)
        replacing = [p for p in parts if overrides(p, "losses")]
        if len(replacing) > 1:
            raise InputError(
                f"{' and '.join(repr(p.name) for p in replacing)} both replace the per-sample loss; only one "
                "can: drop one, or train them as two methods of a study."
            )
        self._losses = replacing[0] if replacing else None
        first = [p for p in parts if p.first_weights]
        if len(first) > 1:
            raise InputError(
                f"{' and '.join(repr(p.name) for p in first)} both give the encoder its first weights; only one "
                "can: drop one, or train them as two methods of a study."
            )
        hiding, reading = ([p for p in parts if getattr(p, flag)] for flag in ("hides_labels", "reads_all_labels"))
        if hiding and reading:
            raise InputError(
                f"'{reading[0].name}' learns from the labels of all training images, most of which '{hiding[0].name}' "
                "says are unknown; train on a cohort that holds the labelled images alone."
            )
        names = [p.name for p in parts]
        repeated = {n for n in names if names.count(n) > 1}
        if repeated:
            raise InputError(f"the method '{sorted(repeated)[0]}' is named twice in '{'+'.join(names)}'; name it once.")

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.parts))

    @property
    def taps(self) -> tuple[str, ...]:  # type: ignore[override]  # a part may choose its taps in `prepare`
        return tuple(dict.fromkeys(t for part in self.parts for t in part.taps))

    @property
    def replayable(self) -> bool:  # type: ignore[override]
        return all(part.replayable for part in self.parts)

    def prepare(self, setup: Setup) -> None:
        self.refuse(setup.cohort)
        for part in self.parts:
            part.prepare(setup)

    def refuse(self, cohort: Cohort) -> None:
        for part in self.parts:
            part.refuse(cohort)

    def parameters(self) -> Iterable[nn.Parameter]:
        return [p for part in self.parts for p in part.parameters()]

    def sampling(self, ledger: Ledger) -> Tensor | None:
        return _product(part.sampling(ledger) for part in self.parts)

    def perturb(self, step: Step) -> None:
        for part in self.parts:
            part.perturb(step)

    def losses(self, step: Step) -> Tensor:
        return self._losses.losses(step) if self._losses is not None else super().losses(step)

    def weights(self, step: Step) -> Tensor | None:
        return _product(part.weights(step) for part in self.parts)

    def penalty(self, step: Step) -> dict[str, Tensor]:
        return {f"{part.name}.{k}": v for part in self.parts for k, v in part.penalty(step).items()}

    def after_epoch(self, ledger: Ledger) -> None:
        for part in self.parts:
            part.after_epoch(ledger)

    def finish(self, setup: Setup) -> None:
        for part in self.parts:
            part.finish(setup)

    def report(self) -> dict[str, Any]:
        return {part.name: part.report() for part in self.parts if part.report()}

    def state(self) -> dict[str, Any]:
        return {part.name: part.state() for part in self.parts}

    def load_state(self, state: dict[str, Any], setup: Setup) -> None:
        for part in self.parts:
            part.load_state(state[part.name], setup)


def build_method(name: str, /, **options: Any) -> Method:
    """The method called `name`, or several composed: "class-weights+mixup".

    options: of a single method (`build_method("focal", gamma=2)`); of composed ones, a mapping per name
    (`build_method("focal+mixup", focal={"gamma": 2})`). Raises InputError for an unknown name or option.
    """
    names = [n.strip() for n in name.split("+")]
    if "" in names:
        raise InputError(f"'{name}' is no method: write one name, or several with a plus sign between (focal+mixup).")
    if len(names) == 1:
        return METHODS.build(names[0], options)
    stray = set(options) - set(names)
    if stray:
        raise InputError(
            f"options of composed methods are given by method name ({', '.join(names)}: {{...}}); "
            f"found '{sorted(stray)[0]}'; write {names[0]}={{...}}, say."
        )
    for n, given in options.items():
        if not isinstance(given, Mapping):
            raise InputError(
                f"the options of '{n}' must be a mapping of names to values; found {given!r}; write {{}} for none."
            )
    return Composite([METHODS.build(n, options.get(n)) for n in names])


def overrides(part: Method, hook: str) -> bool:
    """True when the method's class brings its own version of `hook`."""
    return getattr(type(part), hook) is not getattr(Hooks, hook)


def _product(factors: Iterable[Tensor | None]) -> Tensor | None:
    """Product of those that are there; None when none is. Sampling probabilities need no normalisation."""
    given = [f for f in factors if f is not None]
    if not given:
        return None
    product = given[0]
    for factor in given[1:]:
        product = product * factor
    return product


def class_counts(labels: Tensor, n_classes: int) -> Tensor:
    """Samples per class, float [K], from int64 [N]. Raises InputError for multilabel labels, which have no single
    class.
    """
    if labels.ndim == 2:
        raise InputError("this method needs one class per image, but the task is multilabel; use class-weights or erm.")
    return torch.bincount(labels, minlength=n_classes).float()


def head_of(classifier: Classifier) -> nn.Linear:
    """The last linear layer, with a bias. Raises InputError where there is none."""
    head = classifier.network.get_submodule(classifier.head) if classifier.head else None
    if not isinstance(head, nn.Linear) or head.bias is None:
        raise InputError(
            f"'{classifier.card.backbone}' does not end in a linear layer with a bias, which this method takes; take "
            "another backbone."
        )
    return head
