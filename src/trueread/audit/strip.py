"""Pictures in a finding, described as data: rows of panels that the report room draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trueread.errors import InputError


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture.

    image: [C,H,W] of intensities as the cohort stores them; of a volume, the slice that the audit picked. caption:
    what stands below it; it never names an image or a patient. evidence: float [H,W] >= 0 in logit units, laid over
    the image, or None. Raises InputError when the shapes are others.
    """

    image: NDArray
    caption: str = ""
    evidence: NDArray | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.image)
        if len(shape) != 3 or shape[0] not in (1, 3) or 0 in shape:
            raise InputError(
                f"a panel shows an image of shape [C,H,W] with 1 or 3 channels; found {list(shape)}; of a volume give "
                "the slice to show."
            )
        if self.evidence is not None and np.shape(self.evidence) != shape[1:]:
            raise InputError(
                f"a panel's evidence must be of its image's shape, {list(shape[1:])}; found "
                f"{list(np.shape(self.evidence))}; resize it."
            )


@dataclass(frozen=True, eq=False)
class Strip:
    """Rows of panels, such as images without and with a cue, so that no audit needs a drawing library.

    name: unique in its finding. rows: each with a panel per column. heads: a title per column, or none. row_titles: a
    title per row, or none. white: the stored intensity that is shown white, as the cohort's. unit: of the evidence.
    Evidence of one strip is drawn on one scale. Raises InputError when rows and titles do not fit together.
    """

    name: str
    title: str
    caption: str
    rows: Sequence[Sequence[Panel]]
    heads: Sequence[str] = ()
    row_titles: Sequence[str] = ()
    white: float = 255
    unit: str = "logits"

    def __post_init__(self) -> None:
        widths = {len(row) for row in self.rows}
        if len(widths) != 1 or widths == {0}:
            found = f"rows of {sorted(widths)}" if widths else "no row"
            raise InputError(
                f"the strip '{self.name}' needs rows of equally many panels; found {found}; leave out what lacks one."
            )
        for what, given, expected in (
            ("heads", self.heads, widths.pop()),
            ("row_titles", self.row_titles, len(self.rows)),
        ):
            if len(given) not in (0, expected):
                raise InputError(
                    f"the strip '{self.name}' needs {expected} {what}, or none; found {len(given)}; give each its own."
                )

    @property
    def full_colour(self) -> float | None:
        """The strongest evidence of all panels, in its unit; None when none has evidence."""
        peaks = [float(np.max(panel.evidence)) for row in self.rows for panel in row if panel.evidence is not None]
        return max(peaks, default=None)

    def to_json(self) -> dict[str, Any]:
        """A dict for json.dump: all words and no pixel."""
        return {
            "name": self.name,
            "title": self.title,
            "caption": self.caption,
            "unit": self.unit,
            "heads": list(self.heads),
            "row_titles": list(self.row_titles),
            "rows": [[{"caption": panel.caption} for panel in row] for row in self.rows],
        }
