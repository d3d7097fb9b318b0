"""What a run folder says about itself: the cohort's facts, the environment, and the tables of numbers."""

from __future__ import annotations

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
from trueread.cohort.decisions import decisions_in_words
from trueread.cohort.split import split_note
from trueread.files import without_folders, write_csv
from trueread.shift.label_noise import NOISE
from trueread.shift.planting import PLANTED, planted_in

PACKAGES = ("torch", "torchvision", "timm", "monai", "numpy", "scipy", "scikit-learn", "pandas")


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
        "source": without_folders(str(cohort.origin.get("source", cohort.name))),
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
        "planted": _planted(cohort),
        "label_noise": _label_noise(cohort),
        "decisions": decisions_in_words(cohort) or None,
        "n_omitted": len(cohort.omitted),
        "omitted": [{"reason": str(r)} for r in cohort.omitted["reason"]],
        "split": split,
    }


def _planted(cohort: Cohort) -> str | None:
    """The shortcut that was put into the images, in words."""
    what = planted_in(cohort)
    if what is None:
        return None
    shares = " and ".join(f"{share:.0%} of the images of '{name}'" for name, share in what.prevalence.items())
    where = [split for split, arrangement in cohort.origin[PLANTED]["arrangements"].items() if arrangement == "biased"]
    bias_free = {"clean": "are without it", "balanced": "are bias-free (half of every class have it)"}
    clean = f"; {what.clean:.0%} of the training patients {bias_free[what.clean_arrangement]}" if what.clean else ""
    return f"'{what.shift.name}' in {shares} ({' and '.join(where)}){clean}"


def _label_noise(cohort: Cohort) -> str | None:
    """The labels that were made wrong on purpose, in words."""
    told = cohort.origin.get(NOISE)
    return None if told is None else f"{told['wrong']} of {told['of']} ({told['kind']}, {' and '.join(told['splits'])})"


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


def write_lists(findings: Sequence[Finding], folder: Path) -> None:
    """Write the lists of the findings into the folder, as NAME.csv each."""
    for finding in findings:
        for name, table in finding.lists.items():
            write_csv(folder / f"{name}.csv", table)


def threshold_facts(overrides: dict[str, float | None]) -> dict[str, Any]:
    """Thresholds by audit with the reason for each; overridden ones say so."""
    facts = yaml.safe_load(files("trueread.audit").joinpath("thresholds.yaml").read_text())
    for name, value in overrides.items():
        facts[name] = {"threshold": value, "why": "set by the study"}
    return facts
