"""Plain training on the real development cohorts: the studies in studies/real, and their numbers in results/erm.json.

    TRUEREAD_DATA=path/to/data python benchmarks/erm.py [NAME ...]

Each study resumes where it was interrupted; the result file is written after each. Published numbers name their source.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from trueread import run
from trueread.files import write_json
from trueread.record import environment, today

HERE = Path(__file__).resolve().parents[1]
RESULT = HERE / "results" / "erm.json"
NAMES = ("kermany", "ham10000", "breastmnist", "retinamnist", "adrenalmnist3d")
MEASURES = ("balanced-accuracy", "auroc", "accuracy", "quadratic-kappa")
MEDMNIST = "Yang et al. 2023, Sci Data 10:41, ResNet-18 (28)"
PUBLISHED: dict[str, dict[str, Any]] = {
    "breastmnist": {"auroc": 0.901, "accuracy": 0.863, "source": MEDMNIST},
    "retinamnist": {"auroc": 0.717, "accuracy": 0.524, "source": MEDMNIST},
    "adrenalmnist3d": {"auroc": 0.827, "accuracy": 0.721, "source": f"{MEDMNIST} + 3D"},
}


def measured(folder: Path) -> dict[str, Any]:
    """What one run's record says, cut down to the table's columns."""
    summary = json.loads((folder / "summary.json").read_text())
    method = summary["methods"][0]
    measures = {k: m for f in method["findings"] for k, m in f["measures"].items()}
    cohort = summary["cohort"]
    return {
        "cohort": cohort["name"],
        "size": cohort["size"],
        "split": cohort["split"]["how"],
        "test_images": cohort["split"]["test"]["images"],
        "test_patients": cohort["split"]["test"]["patients"] if cohort["patients_known"] else None,
        "backbone": method["card"]["backbone"],
        "weights": method["card"]["weights"],
        "epochs": max(len(h["table"]["rows"]) for h in method["histories"]),
        "selection": method["card"]["training"]["selection_rule"],
        "threshold": method["card"]["threshold_rule"],
        "measures": {k: measures[k]["estimate"] for k in MEASURES if k in measures},
        "seconds": method["seconds"],
        "environment": summary["environment"],
        "date": summary["date"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES, help=f"some of {', '.join(NAMES)}; all by default")
    parser.add_argument("--out", type=Path, default=Path("runs/real"), help="folder for the runs")
    arguments = parser.parse_args()
    os.environ.setdefault("TRUEREAD_DATA", str(HERE.parent / "shared" / "data"))
    done = json.loads(RESULT.read_text())["rows"] if RESULT.is_file() else {}
    for name in arguments.names:
        folder = run(HERE / "studies" / "real" / f"{name}.yaml", out=arguments.out / name)
        done[name] = measured(folder) | {"published": PUBLISHED.get(name)}
        write_json(
            RESULT,
            {
                "title": "Plain training (ERM) on real cohorts",
                "command": "python benchmarks/erm.py",
                "date": today(),
                "environment": environment(),
                "rows": {n: done[n] for n in NAMES if n in done},
            },
        )


if __name__ == "__main__":
    main()
