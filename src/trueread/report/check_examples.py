"""The pictures of a check's examples: images side by side, with their label and row, and without their names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trueread.cohort.check.base import Example
from trueread.cohort.cohort import Cohort
from trueread.cohort.showing import label_names, slice_to_show
from trueread.report.evidence import write_image
from trueread.report.summary import Json

PICTURES = "figures/check"
MAX_EXAMPLES, MAX_SIDE_BY_SIDE = 8, 8  # of a concern, and images of an example; the rest is in its table


def write_examples(cohort: Cohort, examples: Sequence[Example], folder: Path) -> list[Json]:
    """Write the pictures of the first examples under `folder`/figures/check, and return an entry per example.

    An entry: rows (all of them), caption, and images, each with row, image (path inside the folder), label, split, and
    slice and n_slices (of a volume, from 1; else None).
    """
    return [
        {
            "rows": [int(r) for r in example.rows],
            "caption": example.caption,
            "images": [_image(cohort, int(r), folder) for r in example.rows[:MAX_SIDE_BY_SIDE]],
        }
        for example in examples[:MAX_EXAMPLES]
    ]


def _image(cohort: Cohort, row: int, folder: Path) -> Json:
    image, at = cohort.images[row], None
    if cohort.is_volume:
        at = slice_to_show(None, None if cohort.masks is None else cohort.masks[row], depth=image.shape[1])
        image = image[:, at]
    name = f"{PICTURES}/{row:06d}.png"
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(image, path, white=cohort.white)
    return {
        "row": row,
        "image": name,
        "label": label_names(cohort, [row])[0],
        "split": str(cohort.table["split"].iloc[row]),
        "slice": None if at is None else at + 1,
        "n_slices": cohort.spatial[0] if cohort.is_volume else None,
    }
