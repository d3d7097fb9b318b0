"""The card: everything about a classifier except its weights, as one JSON file a person can read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trueread.errors import InputError
from trueread.files import write_json
from trueread.options import validate

CARD_FILE = "card.json"
CARD_FORMAT: Literal[1] = 1  # raised when an older trueread could misread a newer card

Share = Annotated[float, Field(ge=0, le=1)]


class Limits(BaseModel):
    """Beyond which a classifier's answer is marked as one not to rely on; see `trueread.model.limits`.

    margin: log odds; an image whose decision is nearer than this to another one is unsure. distance: of its features to
        those of training images; one that is further off is unusual. None for a network whose features are not known.
    """

    model_config = ConfigDict(extra="forbid")

    margin: float = Field(ge=0)
    distance: float | None = Field(default=None, ge=0)
    rule: str = Field(description="how both were chosen, and on what")


class MapCheck(BaseModel):
    """What the audit `localisation` says of a classifier's maps.

    how: the kind of map, of the layer that is taken by default. warnings: why not to show them as reasons; none if fit.
    """

    model_config = ConfigDict(extra="forbid")

    how: str
    warnings: list[str]


class Card(BaseModel):
    """What a classifier expects, what it answers, and how it was made.

    mean, std: per channel, on intensities in [0,1]. white: the stored intensity that is 1.0 (see Cohort.white).
    threshold: decision threshold on the calibrated probability (binary: of the second class; multilabel: one per
        label); None where the most probable class wins. threshold_rule says how it was chosen, and on what.
    temperature: logits are divided by it before softmax or sigmoid; 1 is uncalibrated.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = CARD_FORMAT
    backbone: str
    stem: Literal["standard", "small"] = "standard"
    classes: list[str]
    task: Literal["binary", "multiclass", "ordinal", "multilabel"]
    channels: Literal[1, 3]
    size: list[int] = Field(description="(H, W) or (D, H, W) of the images it was trained on")
    mean: list[float]
    std: list[float]
    white: int = 255
    fit: Literal["crop", "pad", "stretch"] = Field(default="crop", description="how other shapes became that size")
    modality: str = "any"
    head: Literal["linear", "mlp"] = "linear"
    dropout: float = Field(default=0.0, ge=0, lt=1)
    weights: str = Field(default="none (random initialisation)", description="where the first weights came from")
    threshold: Share | list[Share] | None = None
    threshold_rule: str = "the most probable class"
    temperature: float = Field(default=1.0, gt=0)
    limits: Limits | None = None
    maps: MapCheck | None = Field(default=None, description="None where nobody asked")
    training: dict[str, Any] = Field(default_factory=dict, description="method, seed, epochs, selection rule, ...")
    data_digest: str = ""
    versions: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Card:
        if len(self.mean) != self.channels or len(self.std) != self.channels or min(self.std) <= 0:
            raise ValueError(f"mean and std must have {self.channels} values each, std above 0")
        if len(self.size) not in (2, 3) or min(self.size) < 1:
            raise ValueError(f"size must be [H, W] or [D, H, W]; found {self.size}")
        if self.task == "binary" and len(self.classes) != 2:
            raise ValueError(f"a binary task needs exactly two classes; found {self.classes}")
        if isinstance(self.threshold, list) and len(self.threshold) != len(self.classes):
            raise ValueError(f"threshold must have one value per class ({len(self.classes)})")
        return self

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) or (C, D, H, W)."""
        return (self.channels, *self.size)


def foreign_card(
    *, classes: Sequence[str], size: Sequence[int], channels: int, task: str | None,
    mean: Sequence[float] | None = None, std: Sequence[float] | None = None, **facts: Any,
) -> Card:  # fmt: skip
    """The card of a model made elsewhere, from what its owner says of it. Raises InputError when that cannot be."""
    facts |= {
        "classes": list(classes),
        "task": task or ("binary" if len(classes) == 2 else "multiclass"),
        "channels": channels,
        "size": list(size),
        "mean": list(mean) if mean is not None else [0.0] * channels,
        "std": list(std) if std is not None else [1.0] * channels,
    }
    if facts.get("threshold") is not None:  # the card's own default says that the most probable class wins
        facts.setdefault("threshold_rule", "as given")
    return validate(Card, facts, where="the description of this model", advice="Mend the description.")


def write_card(card: Card, folder: Path) -> None:
    """The card of the classifier in `folder`, complete or not at all."""
    write_json(folder / CARD_FILE, card.model_dump())


def read_card(folder: Path) -> Card:
    """The card in `folder`. Raises InputError when it is missing, not JSON, or not a card."""
    path = folder / CARD_FILE
    if not path.is_file():
        raise InputError(
            f"{folder} is no saved classifier: there is no {CARD_FILE} in it; give the folder that `train` wrote."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number without end, or nested without end
        raise InputError(f"{path} is not valid JSON ({error}); restore the card that was saved.") from None
    if not isinstance(content, dict):
        raise InputError(
            f"{path} must be a JSON object; found {type(content).__name__}; restore the card that was saved."
        )
    return validate(Card, content, where=str(path), advice="Restore the card that was saved.")
