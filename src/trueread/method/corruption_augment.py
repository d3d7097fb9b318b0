"""Corruption augmentation: train on images that are noisy, blurred, compressed, or otherwise exposed."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from trueread.errors import InputError
from trueread.method.base import Method, method
from trueread.shift.corruption import LEVELS, corruption, corruptions_for
from trueread.training.hooks import Setup, Step

GROUPS = 4  # corruptions in a batch: one for each image would be as many passes as images


@method("corruption-augment", source="Di Salvo, Doerrich and Ledig 2024, arXiv 2406.17536, targeted augmentation")
class CorruptionAugment(Method):
    """Corrupts a share of each batch with corruptions of the modality's list, at levels drawn anew."""

    def __init__(
        self,
        *,
        corruptions: str | None = None,
        leave_out: list[str] | None = None,
        share: Annotated[float, Field(gt=0, le=1)] = 0.5,
    ) -> None:
        """corruptions: whose list, as a modality, a MedMNIST cohort or a set of MedMNIST-C; by default that of the
        cohort's modality. leave_out: corruptions of the list that are not used, to be asked about afterwards. share: of
        the images that are corrupted.
        """
        self.corruptions, self.leave_out, self.share = corruptions, leave_out or [], share
        self.where, self.names = "", list[str]()

    def prepare(self, setup: Setup) -> None:
        cohort = setup.cohort
        self.where = self.corruptions or cohort.modality
        listed = corruptions_for(self.where)
        stray = [name for name in self.leave_out if name not in listed]
        if stray:
            raise InputError(f"'{stray[0]}' is not in the list for '{self.where}': {', '.join(listed)}.")
        blank = torch.zeros(1, cohort.channels, *cohort.spatial)
        for name in listed:
            try:
                corruption(self.where, name, 1)(blank, ["blank"])
            except InputError:
                continue  # grey images where it needs colour
            if name not in self.leave_out:
                self.names.append(name)
        if not self.names:
            raise InputError(f"no corruption of the list for '{self.where}' is left that fits {cohort.name}.")

    def perturb(self, step: Step) -> None:
        seed = step.generator.initial_seed()
        generator = np.random.default_rng(seed)
        b = len(step.images)
        chosen = generator.permutation(b)[: round(self.share * b)]
        images = step.images.clone()
        for group in np.array_split(chosen, GROUPS):
            if len(group):
                name, level = str(generator.choice(self.names)), int(generator.choice(LEVELS))
                rows = torch.from_numpy(group).to(images.device)
                images[rows] = corruption(self.where, name, level)(images[rows], [f"{seed}/{i}" for i in group])
        step.images = images

    def report(self) -> dict[str, Any]:
        return {"corruptions_of": self.where, "corruptions": self.names}

    def state(self) -> dict[str, Any]:
        return {"where": self.where, "names": self.names}

    def load_state(self, state: dict[str, Any], setup: Setup) -> None:
        self.where, self.names = state["where"], state["names"]
