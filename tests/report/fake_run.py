"""A run folder that no training made: every kind of finding, figure and trouble that a report has to show."""

# ruff: noqa: E501  (reasons and sources are as long as they are)

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from fake_findings import N_IMAGES, fake_differences, fake_findings

from trueread.audit.finding import Finding
from trueread.report.evidence import write_evidence, write_image, write_outline
from trueread.report.gallery import FOLDER, KINDS

CLASSES = [
    "no finding",
    "atelectasis",
    "cardiomegaly",
    "pleural effusion",
    "pneumonia",
    "pneumothorax",
    "pulmonary fibrosis with honeycombing",
    "nodule or mass",
]
METHODS = ("erm", "focal", "mixup+class-weights")
SEEDS = (0, 1, 2)
SECRETS = ("PATIENT-0042", "scan_doe_jane.png")  # must never reach a page or a card


def fake_summary(*, methods: tuple[str, ...] = METHODS, classes: list[str] | None = None) -> dict[str, Any]:
    """summary.json of a study with three methods and seeds; `classes` replaces the names of the eight classes."""
    classes = classes or CLASSES
    findings = {name: fake_findings(i, classes) for i, name in enumerate(methods)}
    return {
        "title": "chest-eight",
        "description": "Does a loss that discounts easy images help rare findings, and what does it cost in calibration?",
        "command": "trueread run studies/chest-eight.yaml",
        "date": "2026-11-20",
        "seconds": 8342.7,
        "resamples": 1000,
        "cohort": fake_cohort(classes),
        "methods": [fake_method(i, name, findings[name], classes) for i, name in enumerate(methods)],
        "differences": [d.to_json() for d in fake_differences(methods)],
        "gallery": [],
        "thresholds": {
            "performance": {"threshold": 0.8, "why": "AUROC of 0.8: commonly called good discrimination (Hosmer and Lemeshow)"},
            "calibration": {"threshold": 0.1, "why": "expected calibration error of 0.1: a stated 80 % that is right 70 to 90 % of the time"},
            "subgroups": {"threshold": 0.1, "why": "gap of 0.1 balanced accuracy between the worst group and all"},
        },
        "environment": {
            "trueread": "0.1.0", "python": "3.11.9", "torch": "2.14.0+cpu", "timm": "1.0.20", "numpy": "2.4.6",
            "machine": "Linux x86_64, 16 CPU cores", "device": "CPU, 16 threads", "precision": "fp32", "threads": 16,
        },
    }  # fmt: skip


def without_figures(summary: dict[str, Any]) -> dict[str, Any]:
    """The same summary with nothing to draw, for tests that are about something else."""
    for method in summary["methods"]:
        method["histories"] = []
        for finding in method["findings"]:
            finding["figures"] = []
    return summary


def write_run(folder: Path, summary: dict[str, Any] | None = None, *, gallery: bool = False, **options: Any) -> Path:
    """The folder of a fake run; `gallery` also draws pictures and lists them."""
    summary = summary or fake_summary(**options)
    folder.mkdir(parents=True, exist_ok=True)
    if gallery:
        summary["gallery"] = fake_gallery(folder, summary["methods"][0]["name"], summary["cohort"]["classes"])
    (folder / "summary.json").write_text(json.dumps(summary, allow_nan=False))
    return folder


def fake_cohort(classes: list[str]) -> dict[str, Any]:
    weights = np.array([0.46, 0.14, 0.09, 0.12, 0.08, 0.05, 0.02, 0.04])

    def part(n: int, patients: int) -> dict[str, Any]:
        return {
            "images": n,
            "patients": patients,
            "classes": {c: round(n * float(w)) for c, w in zip(classes, weights, strict=True)},
        }

    return {
        "name": "chest-eight", "source": "folder:chest-eight", "images": 2748, "patients": 1403, "patients_known": True,
        "classes": classes, "task": "multiclass", "channels": 1, "size": [224, 224], "modality": "radiograph",
        "white": 4095, "digest": "9f1c22d0a7b3e865", "attributes": ["site", "sex", "age"], "n_omitted": 3,
        "omitted": [
            {"path": f"{SECRETS[0]}/{SECRETS[1]}", "reason": f"truncated file {SECRETS[1]}"},
            {"path": "b.png", "reason": "no pixel data"},
            {"path": "c.png", "reason": "no pixel data"},
        ],
        "split": {
            "how": "by patient, stratified by class, seed 0",
            "warnings": ["'pulmonary fibrosis with honeycombing' has 8 test images; its numbers are uncertain."],
            "train": part(1924, 981), "val": part(412, 211), "test": part(412, 211),
        },
    }  # fmt: skip


def fake_method(i: int, name: str, findings: list[Finding], classes: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {"gamma": 2.0} if name == "focal" else {}
    return {
        "name": name, "options": options,
        "summary": ("Plain cross-entropy, every sample the same: the baseline.", "Focal loss; confident samples count less.", "Pairs of images mixed, with classes weighted by their rarity.")[i % 3],
        "source": ("Vapnik 1991, Principles of risk minimization for learning theory, NIPS", "Lin et al. 2017, Focal loss for dense object detection, ICCV, eq. 4", "Zhang et al. 2018, arXiv 1710.09412")[i % 3],
        "seeds": list(SEEDS), "baseline": i == 0, "findings": [f.to_json() for f in findings],
        "histories": [{"seed": s, "table": history(i, s)} for s in SEEDS],
        "report": {} if i == 0 else {"mean_weight_of_rarest_class": 4.137, "excluded": 12},
        "card": {
            "format": 1, "backbone": "resnet18", "stem": "small", "classes": classes, "task": "multiclass", "channels": 1,
            "size": [224, 224], "mean": [0.482], "std": [0.236], "white": 4095, "modality": "radiograph", "dropout": 0.0,
            "weights": "hub: timm/resnet18.a1_in1k", "threshold": None, "threshold_rule": "the most probable class",
            "temperature": 1.31, "data_digest": "9f1c22d0a7b3e865",
            "training": {
                "seed": 0, "epochs": 12, "selected_epoch": 9, "selection_rule": "the epoch with the highest validation AUROC",
                "train_images": 1924, "augmentation": "radiograph", "precision": "fp32", "seconds": 903.1, "method": name,
            },
            "versions": {"trueread": "0.1.0", "torch": "2.14.0+cpu"},
        },
        "seconds": 2718.4 + 40 * i, "n_weights": 11_173_962,
    }  # fmt: skip


def history(i: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(100 * i + seed)
    epochs = np.arange(1, 13)
    fall = np.exp(-epochs / 4)
    auroc = 0.9 + 0.015 * i - 0.25 * fall + rng.normal(0, 0.006, 12)
    table = pd.DataFrame(
        {
            "epoch": epochs, "learning_rate": 2e-3 * np.cos(epochs / 13 * np.pi / 2), "train_loss": 0.4 + 1.4 * fall + rng.normal(0, 0.02, 12),
            "seconds": 75.2, "images_per_second": 25.6 + i, "val_loss": 0.72 + 1.0 * fall + 0.012 * epochs + rng.normal(0, 0.02, 12),
            "val_auroc": auroc, "val_balanced_accuracy": auroc - 0.2,
        }
    )  # fmt: skip
    table["selected"] = table["epoch"] == int(epochs[auroc.argmax()])
    return {"columns": list(table.columns), "rows": json.loads(table.to_json(orient="values"))}


def fake_gallery(folder: Path, method: str, classes: list[str]) -> list[dict[str, Any]]:
    """Four drawn images of each kind, with evidence and outline; the last kind has no evidence."""
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:224j, -1:1:224j]
    entries = []
    for k, kind in enumerate(KINDS):
        for j in range(4):
            cx, cy = rng.uniform(-0.5, 0.5, 2)
            lungs = np.exp(-(((np.abs(x) - 0.42) / 0.3) ** 4) - ((y + 0.05) / 0.65) ** 4)
            spot = np.exp(-(((x - cx) ** 2 + (y - cy) ** 2) / 0.02))
            image = np.clip(0.75 - 0.5 * lungs + 0.3 * spot + rng.normal(0, 0.03, x.shape), 0, 1)[None] * 4095
            evidence = 3.2 * rng.uniform(0.2, 1) * np.exp(-(((x - cx) ** 2 + (y - cy) ** 2) / 0.06))
            number, there = 1 + 17 * (4 * k + j), kind != "least certain"
            name = (FOLDER / f"{number:05d}").as_posix()
            write_image(image, folder / f"{name}.png", white=4095)
            if there:
                write_evidence(evidence, folder / f"{name}-evidence.png", full_colour=3.2)
                write_outline(spot > 0.4, folder / f"{name}-outline.png")
            truth = classes[(3 * k + j) % len(classes)]
            decided = truth if "right" in kind else classes[(3 * k + j + 1) % len(classes)]
            entries.append(
                {
                    "kind": kind, "image": f"{name}.png", "overlay": f"{name}-evidence.png" if there else None,
                    "outline": f"{name}-outline.png" if there else None, "label": truth, "predicted": decided,
                    "probability": float(rng.uniform(0.3, 0.99)), "explained": decided, "layer": "stage4" if there else "",
                    "evidence_peak": float(evidence.max()) if there else None, "evidence_full_colour": 3.2 if there else None,
                    "number": number, "n_images": N_IMAGES, "slice": None, "n_slices": None, "method": method,
                    "reason": "" if there else "the model is given as a function, and this question needs its gradients.",
                }
            )  # fmt: skip
    return entries
