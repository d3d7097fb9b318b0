"""How the weights of specialist-teacher distillation were chosen: on training and validation images alone.

    python benchmarks/specialist_choice.py COHORT CUE --seed 100 --data FOLDER [--finalists]
    python benchmarks/specialist_choice.py --collect

The test images of the protocol are left out; the others are split again by patient. What is compared is the mean of the
AUROC with no cue and with the cue turned round. --collect puts what was run into results/specialist-choice.json.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trueread.audit.planted_cue import PlantedCue
from trueread.cells import cell_folder
from trueread.cohort.split import assign_splits
from trueread.files import write_json
from trueread.method.base import build_method
from trueread.paper.specialist import CUES, SpecialistPaper, cohort_of
from trueread.record import environment, today
from trueread.runner import train_method, trained_method
from trueread.shift.planting import planted, planting
from trueread.study import DataSection, MethodSection, Study
from trueread.training.config import TrainConfig

CUES = CUES | {"square": {"kind": "local", "severity": 1.0, "side": 0.08}}  # in the corner, as it was then
FOLDER = Path("runs/specialist-choice")
RESULT = Path(__file__).resolve().parents[1] / "results" / "specialist-choice.json"
IMAGES = 2400  # of training, at most; a quarter of these and the validation images is asked
TRIED = {  # first weights: alpha and beta
    "random": [
        (1.0, 0.0), (1.0, 1.0), (1.0, 5.0), (1.0, 25.0), (0.5, 0.0), (0.5, 5.0), (0.5, 25.0), (0.5, 100.0), (0.8, 25.0)
    ],
    "teacher": [(1.0, 0.0), (1.0, 5.0), (0.9, 5.0), (0.5, 25.0)],
}  # fmt: skip
FINALISTS = {
    "random": [(1.0, 0.0), (1.0, 5.0), (0.5, 25.0)],
    "teacher": [(1.0, 0.0), (1.0, 5.0), (0.9, 5.0), (0.5, 25.0)],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cohort", nargs="?")
    parser.add_argument("cue", nargs="?", choices=list(CUES))
    parser.add_argument("--seed", type=int, default=100, help="the protocol has 0, 1 and 2")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--finalists", action="store_true")
    parser.add_argument("--collect", action="store_true")
    given = parser.parse_args()
    if given.collect:
        collect()
    else:
        measure(given.cohort, given.cue, given.seed, given.data, FINALISTS if given.finalists else TRIED)


def measure(name: str, cue: str, seed: int, data: Path, tried: dict[str, list[tuple[float, float]]]) -> None:
    """Train the teacher and every setting, and write what the cue does to each."""
    scale = replace(SpecialistPaper.scales["cpu"], train_images=IMAGES)
    whole = cohort_of(name, scale, data)
    rest = whole.subset(np.sort(np.concatenate([whole.rows("train"), whole.rows("val")])))
    plain = assign_splits(rest, val=0.12, test=0.25, seed=seed)
    options = {k: v for k, v in CUES[cue].items() if k != "kind"}
    what = planting(plain, cue, prevalence=scale.prevalence, clean=scale.clean, clean_arrangement="balanced", **options)
    cohort, folder = planted(plain, what), FOLDER / f"{name}-{cue}-{seed}"
    study = Study(
        name="choice", data=DataSection(source="choice"), train=TrainConfig(**scale.train), seeds=[seed], resamples=200
    )
    sections = [MethodSection(name="clean-only", label="teacher")]
    for start, pairs in tried.items():
        for alpha, beta in pairs:
            chosen: dict[str, Any] = {"alpha": alpha, "beta": beta, "start": start}
            teacher = str(cell_folder(folder, "teacher", seed) / "model")
            label = f"{start} a={alpha:g} b={beta:g}"
            sections.append(MethodSection(name="specialist", label=label, teacher=teacher, **chosen))
    rows = []
    for section in sections:
        train_method(study, cohort, section, build_method(section.name, **section.options), folder)
        measures = PlantedCue(trained_method(study, cohort, section, folder), what).measures()
        values = {k: measures[k].estimate.value for k in ("auroc-clean", "auroc-flipped")}
        setting = {k: v for k, v in section.options.items() if k != "teacher"}
        rows.append({"cohort": name, "cue": cue, "seed": seed, "arm": section.title, **setting, **values})
        print(section.title, values, flush=True)
        write_json(folder / "result.json", {"rows": rows})


def collect() -> None:
    rows = [row for path in sorted(FOLDER.glob("*/result.json")) for row in json.loads(path.read_text())["rows"]]
    title = "How the weights of specialist-teacher distillation were chosen"
    command = "python benchmarks/specialist_choice.py COHORT CUE --seed SEED"
    made = {"title": title, "command": command, "date": today(), "environment": environment()}
    write_json(RESULT, {**made, "rows": rows})


if __name__ == "__main__":
    main()
