"""Specialist-teacher distillation: a teacher from a few clean images keeps the student off the shortcut."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from trueread.errors import InputError
from trueread.method.base import Method, method
from trueread.method.clean import PLANTED, clean_rows
from trueread.method.clean_only import CleanOnly
from trueread.method.distillation import divergence, layer_vectors, linear_probes, paired_layers
from trueread.method.invariance import teacher_invariance
from trueread.method.probes import fitted_probe, layer_features
from trueread.model.classifier import Classifier
from trueread.model.predictor import check_fits
from trueread.progress import say
from trueread.training.hooks import Setup, Step, cross_entropy

STANDARDISED_BY = 2000  # training images, for the teacher's probes
Probes = Literal["free", "shared", "supervised"]
Start = Literal["auto", "random", "teacher"]


@method("specialist", source="Boland, Tsaftaris and Dahdouh 2025, MELBA 2025:020, arXiv 2511.17421; terms as read here")
class Specialist(Method):
    """Cross-entropy, plus the divergence from a frozen teacher's answer at the end and at probes on every layer."""

    reads_all_labels = True

    def __init__(
        self,
        *,
        clean: str | list[str] = PLANTED,
        fraction: Annotated[float | None, Field(gt=0, le=1)] = None,
        teacher: str | None = None,
        teacher_backbone: str | None = None,
        teacher_epochs: Annotated[int | None, Field(ge=1)] = None,
        alpha: Annotated[float, Field(ge=0, le=1)] = 0.5,
        beta: Annotated[float, Field(ge=0, le=1000)] = 25.0,
        temperature: Annotated[float, Field(gt=0, le=100)] = 2.0,
        layers: list[str] | None = None,
        layer_weights: list[float] | None = None,
        probes: Probes = "free",
        start: Start = "auto",
    ) -> None:
        """clean, fraction: the bias-free training images and how many of them; see `clean_rows`.
        teacher: folder of a saved classifier instead of one that is trained here, "{seed}" in it standing for the run's
        seed. teacher_backbone, teacher_epochs: of one that is; the run's by default.
        alpha: share of the teacher's answer beside the labels. beta: weight of the layers' term.
        layers: of the student (all by default); layer_weights: one for each. probes: of the student, "free" (trained by
        the divergence), "shared" (the teacher's own) or "supervised" (trained by the labels too).
        start: "teacher" begins with the teacher's weights, which takes the same architecture; "auto" does so where the
        architectures are the same.
        """
        self.clean, self.fraction = clean, fraction
        self.teacher_folder, self.teacher_backbone, self.teacher_epochs = teacher, teacher_backbone, teacher_epochs
        self.alpha, self.beta, self.temperature = alpha, beta, temperature
        self.layers, self.layer_weights, self.probes, self.start = layers, layer_weights, probes, start
        if layer_weights is not None and (layers is None or len(layers) != len(layer_weights)):
            raise InputError("layer_weights takes one number for each of `layers`; name the layers, and give as many.")
        self.pairs: dict[str, str] = {}  # the teacher's layer of each of the student's
        self.about_teacher: dict[str, Any] = {}

    @property
    def taps(self) -> tuple[str, ...]:  # type: ignore[override]  # known once the teacher is
        return tuple(self.pairs)

    def prepare(self, setup: Setup) -> None:
        self._take(self._teacher(setup), setup)
        if self.start != "random":
            self._start_as_teacher(setup.classifier)
        if self.pairs:
            self._fit_probes(setup)
        self.about_teacher = teacher_invariance(self.teacher, setup)
        say(f"teacher: {self.about_teacher['sentence']}")

    def _fit_probes(self, setup: Setup) -> None:
        rows = clean_rows(setup, self.clean, fraction=self.fraction)
        layers = list(dict.fromkeys(self.pairs.values()))
        others = np.random.default_rng([setup.seed, *b"probes"]).permutation(setup.train_rows)[:STANDARDISED_BY]
        features, every = (
            layer_features(self.teacher, setup.store, r, layers, precision=setup.precision) for r in (rows, others)
        )
        for place, layer in enumerate(self.pairs.values()):
            self.teacher_probes[place] = fitted_probe(
                features[layer], setup.cohort, rows, every=every[layer], seed=setup.seed
            )
        self.teacher_probes.to(setup.device)
        if self.probes == "shared":
            self.student_probes.load_state_dict(self.teacher_probes.state_dict())

    def _teacher(self, setup: Setup) -> Classifier:
        if self.teacher_folder is not None:
            given = Classifier.load(self._folder_of_teacher(setup))
            check_fits(given, setup.cohort)
            return given
        changes = {"backbone": self.teacher_backbone, "epochs": self.teacher_epochs}
        config = setup.config.model_copy(update={k: v for k, v in changes.items() if v is not None})
        fitted = setup.fit(
            setup.cohort, CleanOnly(clean=self.clean, fraction=self.fraction), config, seed=setup.seed,
            folder=setup.folder and setup.folder / "teacher", what="teacher",
        )  # fmt: skip
        if setup.folder is not None:
            fitted.classifier.save(self._folder_of_teacher(setup))
        return fitted.classifier

    def _folder_of_teacher(self, setup: Setup) -> Path:
        if self.teacher_folder is not None:
            return Path(self.teacher_folder.replace("{seed}", str(setup.seed))).expanduser()
        assert setup.folder is not None
        return setup.folder / "teacher"

    def _take(self, teacher: Classifier, setup: Setup) -> None:
        """The teacher, frozen, and probes of the right widths."""
        self.teacher = teacher.requires_grad_(False).eval().to(setup.device)
        self.pairs = paired_layers(setup.classifier, teacher, self.layers) if self.beta else {}
        self.weights_of_layers = self.layer_weights or [1.0] * len(self.pairs)
        widths = {name: setup.classifier.taps[name][1] for name in self.pairs}
        of_teacher = {name: teacher.taps[other][1] for name, other in self.pairs.items()}
        if self.probes == "shared" and widths != of_teacher:
            raise InputError(
                "the teacher's probes fit a student of the same architecture only; use probes=free, or the teacher's "
                f"backbone ('{teacher.card.backbone}')."
            )
        self.teacher_probes = linear_probes(of_teacher, setup.cohort.n_classes).requires_grad_(False).to(setup.device)
        self.student_probes = linear_probes(widths, setup.cohort.n_classes).to(setup.device)
        self.student_probes.requires_grad_(self.probes != "shared")

    def _start_as_teacher(self, student: Classifier) -> None:
        mine, theirs = student.network.state_dict(), self.teacher.network.state_dict()
        if {k: v.shape for k, v in mine.items()} == {k: v.shape for k, v in theirs.items()}:
            student.network.load_state_dict(theirs)
        elif self.start == "teacher":
            raise InputError(
                f"start=teacher needs a teacher of the student's architecture; the teacher is a "
                f"'{self.teacher.card.backbone}', the student a '{student.card.backbone}'."
            )

    def parameters(self) -> list[nn.Parameter]:
        return [p for p in self.student_probes.parameters() if p.requires_grad]

    def losses(self, step: Step) -> Tensor:
        return (1 - self.alpha) * cross_entropy(step.logits, step.targets, multilabel=step.multilabel)

    def penalty(self, step: Step) -> dict[str, Tensor]:
        assert step.output is not None
        with step.autocast(), torch.no_grad():
            told = self.teacher(step.images, list(dict.fromkeys(self.pairs.values())), trusted=True)
        terms = {"final": self.alpha * self._divergence(step, step.logits, told.logits.float())}
        if self.pairs:
            terms["layers"] = self.beta * self._of_layers(step, layer_vectors(told.taps, self.teacher))
        return terms

    def _of_layers(self, step: Step, of_teacher: dict[str, Tensor]) -> Tensor:
        """Mean over layers of the divergence between the probes' answers."""
        assert step.output is not None
        mine = layer_vectors(step.output.taps, step.classifier)
        total = torch.zeros((), device=step.images.device)
        for place, (layer, other) in enumerate(self.pairs.items()):
            said = self.student_probes[place](mine[layer])
            term = self._divergence(step, said, self.teacher_probes[place](of_teacher[other]))
            if self.probes == "supervised":
                term = term + cross_entropy(said, step.targets, multilabel=step.multilabel).mean()
            total = total + self.weights_of_layers[place] * term
        return total / len(self.pairs)

    def _divergence(self, step: Step, student: Tensor, teacher: Tensor) -> Tensor:
        return divergence(student, teacher, temperature=self.temperature, multilabel=step.multilabel).mean()

    def report(self) -> dict[str, Any]:
        return {"teacher": self.about_teacher, "layers": dict(self.pairs)}

    def state(self) -> dict[str, Any]:
        return {
            "about_teacher": self.about_teacher,
            "teacher_probes": self.teacher_probes.state_dict(),
            "student_probes": self.student_probes.state_dict(),
        }

    def load_state(self, state: dict[str, Any], setup: Setup) -> None:
        self._take(Classifier.load(self._folder_of_teacher(setup)), setup)
        self.teacher_probes.load_state_dict(state["teacher_probes"])
        self.student_probes.load_state_dict(state["student_probes"])
        self.about_teacher = state["about_teacher"]
