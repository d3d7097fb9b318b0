"""The source "saved": a cohort as it was, in a folder of plain arrays and tables.

cohort.json says what it is; images.npy, labels.npy and masks.npy are its arrays, table.csv and truth.csv its tables.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trueread.cohort.cohort import Cohort
from trueread.cohort.source import source
from trueread.errors import InputError
from trueread.files import whole, write_csv, write_json

FACTS = "cohort.json"
KEPT = ("name", "classes", "task", "white", "patients_known", "modality", "origin")


def save_cohort(cohort: Cohort, folder: str | Path) -> Path:
    """Write a cohort to `folder`, from which `load_cohort("saved:FOLDER")` gives the same one, and return the folder.

    Images, labels, masks, table (patients included) and truth are kept; what the images' files were, and which could
    not be read, is not. cohort.json comes last: without it the folder is no cohort. Raises DiskFull.
    """
    folder = Path(folder)
    arrays = {"images": cohort.images, "labels": cohort.labels, "masks": cohort.masks}
    tables = {"table": cohort.table, "truth": cohort.truth}
    (folder / FACTS).unlink(missing_ok=True)
    for name, array in arrays.items():
        if array is not None:
            with whole(folder / f"{name}.npy") as part, part.open("wb") as file:
                np.save(file, array, allow_pickle=False)
    types: dict[str, dict[str, str]] = {}
    for name, table in tables.items():
        if table is not None:
            write_csv(folder / f"{name}.csv", table)
            types[name] = {str(column): str(kind) for column, kind in table.dtypes.items()}
    there = [name for name, array in arrays.items() if array is not None]
    write_json(folder / FACTS, {k: getattr(cohort, k) for k in KEPT} | {"arrays": there, "types": types})
    return folder


@source("saved")
def saved(location: str, *, name: str | None = None) -> Cohort:
    """A cohort that `save_cohort` wrote, its images memory-mapped.

    location: the folder. name: instead of the one it had.
    Raises InputError for a folder that holds none, and for files that are damaged.
    """
    folder = Path(location).expanduser()
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        arrays = {n: np.load(folder / f"{n}.npy", mmap_mode="r", allow_pickle=False) for n in facts["arrays"]}
        tables = {n: _table(folder / f"{n}.csv", kinds) for n, kinds in facts["types"].items()}
        described: dict[str, Any] = {k: facts[k] for k in KEPT}
        images, labels, masks = arrays["images"], np.array(arrays["labels"]), arrays.get("masks")
        table, truth = tables["table"], tables.get("truth")
    except FileNotFoundError as error:
        raise InputError(
            f"'{folder}' holds no saved cohort: there is no {Path(str(error.filename)).name}; give the folder that "
            "save_cohort wrote."
        ) from None
    except Exception as error:  # a damaged file raises nearly anything
        raise InputError(f"the cohort saved in '{folder}' is damaged ({error}); save it again.") from None
    return Cohort(
        images=images, labels=labels, table=table.fillna({"split": ""}), masks=masks, truth=truth,
        **described | ({} if name is None else {"name": name}),
    )  # fmt: skip


def _table(path: Path, types: Mapping[str, str]) -> pd.DataFrame:
    kinds = {column: kind for column, kind in types.items() if kind in ("object", "str", "string")}
    texts = dict.fromkeys(kinds, str)
    table = pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=[""])
    return table.astype({column: kind for column, kind in types.items() if kind not in kinds.values()})
