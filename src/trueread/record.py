"""What a run folder says about itself: the cohort's facts, the environment, and the tables of numbers."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from trueread._version import __version__
from trueread.audit.finding import Finding
from trueread.cohort.cohort import SPLITS, Cohort
from trueread.cohort.split import split_note

PACKAGES = ("torch", "torchvision", "timm", "lightning", "monai", "numpy", "scipy", "scikit-learn", "pandas")


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all; what is not a finite number becomes null, because JSON has no nan."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(_plain(content), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(path)


def _plain(value: Any) -> Any:
    """`value` in the types of JSON. A method may report anything, and must not lose its training by it."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.generic, np.ndarray, torch.Tensor)):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def environment(*, device: str = "", precision: str = "") -> dict[str, Any]:
    """Versions, machine and settings of this process, without anything that names its user or folders."""
    versions = {"trueread": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions | {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
        "device": device,
        "precision": precision,
        "threads": torch.get_num_threads(),
    }


def today() -> str:
    """The date, ISO, UTC."""
    return datetime.now(UTC).date().isoformat()


def cohort_facts(cohort: Cohort) -> dict[str, Any]:
    """What the report says of a cohort; no folder, no identifier. Of left-out files only the reasons, not the names."""
    note = split_note(cohort)
    split: dict[str, Any] = {"how": note.how, "warnings": list(note.warnings)}
    for name in SPLITS:
        rows = cohort.rows(name)  # type: ignore[arg-type]
        counts = cohort.class_counts(rows) if len(rows) else np.zeros(cohort.n_classes, int)
        split[name] = {
            "images": len(rows),
            "patients": int(cohort.table["patient"].iloc[rows].nunique()),
            "classes": {c: int(n) for c, n in zip(cohort.classes, counts, strict=True)},
        }
    return {
        "name": cohort.name,
        "source": _without_folders(str(cohort.origin.get("source", cohort.name))),
        "images": len(cohort),
        "patients": cohort.n_patients if cohort.patients_known else None,
        "patients_known": cohort.patients_known,
        "classes": list(cohort.classes),
        "task": cohort.task,
        "channels": cohort.channels,
        "size": list(cohort.spatial),
        "modality": cohort.modality,
        "white": cohort.white,
        "digest": cohort.digest,
        "attributes": cohort.attributes,
        "n_omitted": len(cohort.omitted),
        "omitted": [{"reason": str(r)} for r in cohort.omitted["reason"]],
        "split": split,
    }


def _without_folders(source: str) -> str:
    """ "folder:kermany" from "folder:/home/somebody/kermany": a shared report does not show where things lie."""
    kind, colon, location = source.partition(":")
    return f"{kind}{colon}{location.rstrip('/').rpartition('/')[2]}"


def metrics_table(findings: Sequence[tuple[str, Sequence[Finding]]]) -> pd.DataFrame:
    """Every measure of every method as one long table: method, audit, measure, value, low, high, spread, counts."""
    rows = []
    for name, of_method in findings:
        for finding in of_method:
            for key, measure in finding.measures.items():
                e = measure.estimate
                rows.append(
                    {
                        "method": name, "audit": finding.audit, "measure": key, "value": e.value, "low": e.low,
                        "high": e.high, "spread": e.spread, "n_seeds": e.n_seeds, "n_images": e.n,
                        "n_patients": e.n_clusters, "better": str(measure.better),
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def threshold_facts(overrides: dict[str, float | None]) -> dict[str, Any]:
    """Thresholds by audit with the reason for each; overridden ones say so."""
    facts = yaml.safe_load(files("trueread.audit").joinpath("thresholds.yaml").read_text())
    for name, value in overrides.items():
        facts[name] = {"threshold": value, "why": "set by the study"}
    return facts
