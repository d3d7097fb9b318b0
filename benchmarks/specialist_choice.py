"""How the weights of specialist-teacher distillation were chosen: on training and validation images alone.

    python benchmarks/specialist_choice.py ham10000 gaussian-noise --data FOLDER

The test images of the protocol are left out; the others are split again by patient. What is compared is the mean of the
AUROC with no cue and with the cue turned round.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from trueread.audit.planted_cue import PlantedCue
from trueread.cells import cell_folder
from trueread.cohort.split import assign_splits
from trueread.files import write_json
from trueread.method.base import build_method
from trueread.paper.specialist import CUES, SpecialistPaper, cohort_of
from trueread.runner import train_method, trained_method
from trueread.shift.planting import planted, planting
from trueread.study import DataSection, MethodSection, Study
from trueread.training.config import TrainConfig

SEED = 100  # the protocol has 0, 1 and 2
IMAGES = 2400  # of training, at most; a quarter of these and the validation images is asked
RANDOM = [
    (1.0, 0.0),
    (1.0, 1.0),
    (1.0, 5.0),
    (1.0, 25.0),
    (0.5, 0.0),
    (0.5, 5.0),
    (0.5, 25.0),
    (0.5, 100.0),
    (0.8, 25.0),
]
TEACHER = [(1.0, 0.0), (1.0, 5.0), (0.9, 5.0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cohort")
    parser.add_argument("cue", choices=list(CUES))
    parser.add_argument("--clean", type=float, default=0.1)
    parser.add_argument("--clean-arrangement", choices=["clean", "balanced"], default="balanced")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/specialist-choice"))
    given = parser.parse_args()
    scale = replace(SpecialistPaper.scales["cpu"], train_images=IMAGES)
    whole = cohort_of(given.cohort, scale, given.data)
    rest = whole.subset(np.sort(np.concatenate([whole.rows("train"), whole.rows("val")])))
    plain = assign_splits(rest, val=0.12, test=0.25, seed=SEED)
    options = {k: v for k, v in CUES[given.cue].items() if k != "kind"}
    what = planting(
        plain, given.cue, prevalence=scale.prevalence, clean=given.clean, clean_arrangement=given.clean_arrangement,
        **options,
    )  # fmt: skip
    cohort = planted(plain, what)
    folder = given.out / f"{given.cohort}-{given.cue}-{given.clean_arrangement}-{given.clean:g}"
    study = Study(
        name="choice", data=DataSection(source="choice"), train=TrainConfig(**scale.train), seeds=[SEED], resamples=200
    )
    teacher = str(cell_folder(folder, "teacher", SEED) / "model")
    sections = [MethodSection(name="clean-only", label="teacher")]
    for start, pairs in (("random", RANDOM), ("teacher", TEACHER)):
        for alpha, beta in pairs:
            label = f"{start} a={alpha:g} b={beta:g}"
            sections.append(
                MethodSection(name="specialist", label=label, teacher=teacher, alpha=alpha, beta=beta, start=start)
            )
    rows = []
    for section in sections:
        made = build_method(section.name, **section.options)
        train_method(study, cohort, section, made, folder)
        measures = PlantedCue(trained_method(study, cohort, section, folder), what).measures()
        values = {k: measures[k].estimate.value for k in ("auroc-clean", "auroc-flipped", "auroc-biased", "planted")}
        values["mean"] = (values["auroc-clean"] + values["auroc-flipped"]) / 2
        rows.append({"arm": section.label, **values})
        print(f"{section.label:22s} " + " ".join(f"{k} {v:.3f}" for k, v in values.items()), flush=True)
        write_json(folder / "result.json", {"rows": rows})


if __name__ == "__main__":
    main()
