"""A training step taken as usual and replayed as a CUDA graph, on a GPU: images per second, and the AUROC both reach.

python benchmarks/replay.py          (needs CUDA; writes results/replay.json)
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

import torch

from trueread import TrainConfig, assign_splits, fit, load_cohort
from trueread.files import write_json
from trueread.record import environment, today

HERE = Path(__file__).resolve().parents[1]
EPOCHS = 6  # the first of them warms up and is not counted


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("there is no CUDA device here; run it on a machine with one.")
    cohort = assign_splits(load_cohort("phantom", n_images=6000, size=28), seed=0)
    rows: list[dict[str, Any]] = []
    for augment in ("none", "radiograph"):
        for batch_size in (128, 1024):
            row: dict[str, Any] = {"augment": augment, "batch_size": batch_size}
            for name, graph in (("eager", False), ("replayed", True)):
                config = TrainConfig(
                    backbone="resnet18", stem="standard", epochs=EPOCHS, batch_size=batch_size, augment=augment,
                    cuda_graph=graph,
                )  # fmt: skip
                history = fit(cohort, config=config, quiet=True).history
                row[name] = statistics.median(history["images_per_second"][1:])
                row[f"{name}_auroc"] = round(float(history["val_auroc"].max()), 3)
            row["ratio"] = row["replayed"] / row["eager"]
            rows.append(row)
            print(row, flush=True)
    write_json(
        HERE / "results" / "replay.json",
        {
            "title": "A step replayed as a CUDA graph",
            "command": "python benchmarks/replay.py",
            "date": today(),
            "environment": environment(device=torch.cuda.get_device_name(), precision="bf16"),
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
