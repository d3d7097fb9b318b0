"""How a classifier is trained: every knob of the loop, with its unit and its default, checked when it is read."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from trueread.model.card import Card

SELECTION_RULES = {
    "auroc": "the epoch with the highest validation AUROC",
    "balanced-accuracy": "the epoch with the highest validation balanced accuracy",
    "accuracy": "the epoch with the highest validation accuracy",
    "loss": "the epoch with the lowest validation loss",
    "last": "the last epoch",
}


class TrainConfig(BaseModel):
    """Options of the training loop.

    backbone: a name of `trueread list backbones`, or any timm architecture. weights: "none", "hub", or a local file.
    head: "linear", or "mlp", two hidden layers with batch norm before it; see `trueread.model.head`. dropout: before a
        linear head.
    warmup: share of all steps in which the learning rate rises linearly.
    clip_norm: largest norm of the gradient of all weights that are trained; None is off.
    ema_decay: decay of the exponential moving average of the weights; the average is what is evaluated and kept.
    patience: stop after that many epochs without a better validation value; None trains all epochs.
    select: which epoch's weights are kept; always decided on validation.
    threads: CPU threads; None is what the machine gives. On a machine that is busy with something else, one thread
        fewer than cores is several times faster than all, because threads that share a core wait for each other.
    cuda_graph: on a GPU, record a step of a method that allows it and replay it, several times as fast at small images.
    augment: a recipe of `trueread.training.augment`; "auto" takes the cohort's modality.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str = "compact"
    stem: Literal["auto", "standard", "small"] = "auto"
    weights: str = "none"
    head: Literal["linear", "mlp"] = "linear"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 12
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 64
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0, le=100)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    clip_norm: Annotated[float | None, Field(gt=0)] = None
    ema_decay: Annotated[float | None, Field(gt=0, lt=1)] = None
    patience: Annotated[int | None, Field(ge=1)] = None
    select: Literal["auroc", "balanced-accuracy", "accuracy", "loss", "last"] = "auroc"
    threshold_rule: str = "balanced-accuracy"
    augment: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: Annotated[int | None, Field(ge=1, le=1024)] = None
    cuda_graph: bool = True

    @field_validator("threshold_rule", mode="before")
    @classmethod
    def _number(cls, rule: Any) -> Any:
        """0.5, as YAML and the command line read it, for the rule '0.5'."""
        return str(rule) if isinstance(rule, (int, float)) and not isinstance(rule, bool) else rule

    @field_validator("threshold_rule")
    @classmethod
    def _known_rule(cls, rule: str) -> str:
        from trueread.stats.threshold import choose_threshold

        choose_threshold(np.array([0.2, 0.8]), np.array([0, 1]), rule=rule)  # now, not after hours of training
        return rule


def same_network(card: Card, **settings: Any) -> TrainConfig:
    """Settings for another training of a classifier's own network; the compact one's where it was made elsewhere."""
    if card.backbone.startswith("foreign:"):
        return TrainConfig(**settings)
    return TrainConfig(backbone=card.backbone, stem=card.stem, head=card.head, dropout=card.dropout, **settings)
