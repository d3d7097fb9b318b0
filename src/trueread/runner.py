"""The order of work: load, split, train methods x seeds, audit all, compare, write the report. What is done is kept."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trueread.audit.base import AUDITS, Audit, build_audits, compare_findings, merged_thresholds, run_audits
from trueread.audit.finding import Difference, Finding, table_to_json
from trueread.audit.subject import Member, Subject
from trueread.cohort.cohort import Cohort
from trueread.cohort.source import load_cohort
from trueread.cohort.split import apply_split, assign_splits, save_split, split_note
from trueread.errors import InputError
from trueread.files import write_csv, write_json
from trueread.method.base import METHODS, Method, build_method
from trueread.model.card import CARD_FILE, read_card
from trueread.model.classifier import Classifier
from trueread.progress import say
from trueread.record import cohort_facts, environment, metrics_table, threshold_facts, today
from trueread.report import make_gallery, write_model_card, write_report
from trueread.report.summary import SUMMARY
from trueread.report.words import slug
from trueread.study import MethodSection, Study, load_study, save_study
from trueread.training.checkpoint import drop_checkpoint
from trueread.training.device import choose_device, choose_precision, describe
from trueread.training.evaluate import predict_probabilities
from trueread.training.loop import fit
from trueread.training.processes import processes

PREDICTIONS, HISTORY, SPLIT_FILE = "predictions.csv", "history.csv", "split.csv"
METHOD, OMITTED, STUDY = "method.json", "omitted.csv", "study.yaml"
ADDS_WORK = {"methods", "seeds", "audits", "thresholds", "description", "resamples", "explain"}  # may change in a run


def run_study(
    study: Study, folder: str | Path | None = None, *, cohort: Cohort | None = None, command: str = ""
) -> Path:
    """Do a whole study and return its run folder; what an earlier, interrupted run finished is not done again.

    folder: `runs/<name>` by default. cohort: instead of loading `study.data` (for cohorts made in Python).
    command: for the record. Raises InputError for bad input, also when the folder holds another study.
    """
    start = time.perf_counter()
    folder = Path(folder) if folder is not None else Path("runs") / study.name
    methods = [(m, _build(m)) for m in study.methods]  # a wrong name or option must not wait for the data
    audits = build_audits(study.audits)
    merged_thresholds(study.thresholds)
    _refuse_other_study(folder, study)
    cohort = load_data(study) if cohort is None else cohort
    cohort = split_data(cohort, study, folder)
    together = processes()
    if together.leads:
        _claim(folder, study, cohort)
    together.wait()  # until the folder is this study's
    say(f"{cohort!r}; split {split_note(cohort).how}.")
    for warning in split_note(cohort).warnings:
        say(f"warning: {warning}")
    for section, made in methods:
        train_method(study, cohort, section, made, folder)
    if together.leads:
        _audit_and_report(study, cohort, audits, folder, command, start)
    together.wait()
    return folder


def _audit_and_report(
    study: Study, cohort: Cohort, audits: Sequence[Audit], folder: Path, command: str, start: float
) -> None:
    subjects = [trained_method(study, cohort, section, folder) for section in study.methods]
    findings = [(s.name, run_audits(s, audits, thresholds=study.thresholds)) for s in subjects]
    differences = compare_findings(findings[0], findings[1:], subjects[0])
    _write_results(study, cohort, subjects, findings, differences, folder, command, time.perf_counter() - start)


def load_data(study: Study) -> Cohort:
    """The study's cohort; says how many images could not be read."""
    data = study.data
    cohort = load_cohort(data.source, **data.options)
    if len(cohort.omitted):
        say(f"{cohort.name}: {len(cohort.omitted)} unreadable images are left out (listed in {OMITTED}).")
    return cohort


def split_data(cohort: Cohort, study: Study, folder: Path) -> Cohort:
    """The cohort split as the study's split file says, as an earlier run in this folder had it, or anew by patient."""
    if study.split.file:
        return apply_split(cohort, study.split.file)
    anew = assign_splits(cohort, val=study.split.val, test=study.split.test, seed=study.split.seed)
    saved = folder / SPLIT_FILE
    if not saved.is_file():
        return anew
    earlier = apply_split(cohort, saved)
    return anew if (earlier.table["split"] == anew.table["split"]).all() else earlier


def train_method(study: Study, cohort: Cohort, section: MethodSection, made: Method, folder: Path) -> None:
    """Train every seed of one method that is not done yet."""
    if len(cohort.rows("test")) == 0:
        raise InputError(f"{cohort.name}: the test split is empty; give images a test split, or let trueread split.")
    for seed in study.seeds:
        cell = cell_folder(folder, section.title, seed)
        if not is_done(cell):
            train_cell(study, cohort, section, made if seed == study.seeds[0] else _build(section), seed, cell)
        elif processes().leads:
            drop_checkpoint(cell / "checkpoints")  # of a run killed between its last two acts


def trained_method(study: Study, cohort: Cohort, section: MethodSection, folder: Path) -> Subject:
    """Every trained seed of one method, as the subject of the audits."""
    test_rows, val_rows = cohort.rows("test"), cohort.rows("val")
    members = []
    for seed in study.seeds:
        cell = cell_folder(folder, section.title, seed)
        classifier = Classifier.load(cell / "model").to(choose_device(study.train.device))
        test = read_predictions(cell, cohort, test_rows)
        val = read_predictions(cell, cohort, val_rows) if len(val_rows) else None
        members.append(Member(classifier, seed, test, val))
    return Subject(section.title, cohort, test_rows, members, val_rows, resamples=study.resamples)


def train_cell(study: Study, cohort: Cohort, section: MethodSection, made: Method, seed: int, cell: Path) -> None:
    """Train one method with one seed and write everything that comes out; the predictions last, as the sign of done."""
    what = f"{section.title}, seed {seed}"
    fitted = fit(cohort, made, study.train, seed=seed, folder=cell, what=what)
    if not processes().leads:
        return
    card = fitted.classifier.card
    card.training |= {"method": section.name, "method_options": section.options}
    card.versions = {k: v for k, v in environment().items() if k in ("trueread", "python", "torch", "timm", "monai")}
    if fitted.report:
        say(f"{what}: {json.dumps(fitted.report, default=str)}")
    fitted.classifier.save(cell / "model")
    write_csv(cell / HISTORY, fitted.history)
    write_json(cell / METHOD, {**_method(section), "report": fitted.report})
    rows = np.concatenate([cohort.rows("val"), cohort.rows("test")])
    write_predictions(cell, cohort, rows, predict_probabilities(fitted.classifier, cohort, rows))
    drop_checkpoint(cell / "checkpoints")
    best = fitted.history.loc[fitted.history["selected"]].iloc[0]
    auroc = best.get("val_auroc", float("nan"))
    seconds = fitted.history["seconds"].sum()
    say(f"{what}: kept epoch {fitted.selected_epoch}, validation AUROC {auroc:.3f}, {seconds:.0f} s.")


def cell_folder(folder: Path, title: str, seed: int) -> Path:
    """Where one method with one seed lives inside a run folder."""
    return folder / "methods" / slug(title) / f"seed-{seed}"


def is_done(cell: Path) -> bool:
    """True when a cell was trained to its end: its model and its predictions are there."""
    return (cell / PREDICTIONS).is_file() and (cell / "model" / CARD_FILE).is_file()


def write_predictions(cell: Path, cohort: Cohort, rows: np.ndarray, probabilities: np.ndarray) -> None:
    """CSV of id, split, given label(s) and calibrated probabilities; nine digits, which keep a float32 exactly."""
    frame = cohort.table.loc[rows, ["id", "split"]].reset_index(drop=True)
    labels = cohort.labels[rows]
    if labels.ndim == 2:
        for k, name in enumerate(cohort.classes):
            frame[f"label:{name}"] = labels[:, k]
    else:
        frame["label"] = [cohort.classes[y] for y in labels]
    for k, name in enumerate(cohort.classes):
        frame[f"p:{name}"] = probabilities[:, k]
    write_csv(cell / PREDICTIONS, frame, float_format="%.9g")


def read_predictions(cell: Path, cohort: Cohort, rows: np.ndarray) -> np.ndarray:
    """float32 [n,K] probabilities of the cohort's `rows`, as `write_predictions` stored them.

    Raises InputError when an image was in another split when the cell was trained.
    """
    frame = pd.read_csv(cell / PREDICTIONS, dtype={"id": str}, keep_default_na=False).set_index("id")
    wanted = cohort.table[["id", "split"]].iloc[rows]
    moved = wanted[wanted["split"].to_numpy() != frame["split"].reindex(wanted["id"]).to_numpy()]
    if len(moved):
        raise InputError(
            f"image '{moved['id'].iloc[0]}' is in {moved['split'].iloc[0]} now and was not when {cell} was trained; "
            "restore the split, or delete that folder to train again."
        )
    return frame.loc[wanted["id"], [f"p:{c}" for c in cohort.classes]].to_numpy(dtype=np.float32)


def _method(section: MethodSection) -> dict[str, Any]:
    """A method's name and options, as they stand in JSON."""
    return {"name": section.name, "options": section.model_dump(mode="json", exclude={"name", "label"})}


def _refuse_other(cell: Path, section: MethodSection, cohort: Cohort) -> None:
    """Raise InputError when a finished cell is of another method, other options, other data or another split: its
    numbers would pass for those of this study.
    """
    stored = json.loads((cell / METHOD).read_text(encoding="utf-8"))
    given = _method(section)
    what = next((k for k in given if given[k] != stored.get(k)), None)
    if what is None and read_card(cell / "model").data_digest != cohort.digest:
        what = "data"
    if what is not None:
        raise InputError(
            f"{cell} holds a finished training of '{section.title}' with other {what}; give the method another "
            "label or the run another folder (--out), or delete that one to train again."
        )
    read_predictions(cell, cohort, np.concatenate([cohort.rows("val"), cohort.rows("test")]))


def _build(section: MethodSection) -> Method:
    return build_method(section.name, **section.options)


def _refuse_other_study(folder: Path, study: Study) -> None:
    """Raise InputError when the folder holds a run of another study; before the data are read and split."""
    if not (folder / STUDY).is_file():
        return
    old, new = (_identity(s) for s in (load_study(folder / STUDY), study))
    changed = [k for k in new if new[k] != old[k]]
    if changed:
        raise InputError(
            f"{folder} holds a run of another study (its '{changed[0]}' differs); "
            "give another folder with --out, or delete it."
        )


def _claim(folder: Path, study: Study, cohort: Cohort) -> None:
    """Make the run folder this study's, or refuse one whose finished cells are not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the run folder {folder} cannot be made ({error.strerror}); choose another with --out."
        ) from None
    for section in study.methods:  # all of them, before the first one trains for hours
        for cell in (cell_folder(folder, section.title, seed) for seed in study.seeds):
            if is_done(cell):
                _refuse_other(cell, section, cohort)
    save_study(study, folder / STUDY)
    save_split(cohort, folder / SPLIT_FILE)


def _identity(study: Study) -> dict[str, Any]:
    """What makes a study the same: all but what adds work, and where it runs."""
    return study.model_dump(
        mode="json", exclude={**dict.fromkeys(ADDS_WORK, True), "train": {"device", "threads", "cuda_graph"}}
    )


def _write_results(
    study: Study,
    cohort: Cohort,
    subjects: Sequence[Subject],
    findings: Sequence[tuple[str, list[Finding]]],
    differences: Sequence[Difference],
    folder: Path,
    command: str,
    seconds: float,
) -> None:
    device = choose_device(study.train.device)
    precision = choose_precision(study.train.precision, device, volumes=cohort.is_volume)
    facts = environment(device=describe(device, precision), precision=precision)
    gallery = []
    if study.explain:
        member = subjects[0].members[0]
        gallery = make_gallery(
            member.predictor, cohort, subjects[0].rows, member.probabilities, folder, method=subjects[0].name
        )
    summary = {
        "title": study.name,
        "description": study.description,
        "command": command,
        "date": today(),
        "seconds": round(seconds, 1),
        "resamples": study.resamples,
        "cohort": cohort_facts(cohort),
        "methods": [
            _method_facts(study, folder, i, s, f) for i, (s, (_, f)) in enumerate(zip(subjects, findings, strict=True))
        ],
        "differences": [d.to_json() for d in differences],
        "gallery": gallery,
        "thresholds": threshold_facts(study.thresholds),
        "audit_sources": {f.audit: AUDITS.get(f.audit).source for f in findings[0][1]},
        "environment": facts,
    }
    write_csv(folder / "metrics.csv", metrics_table(findings))
    write_json(folder / "findings.json", {name: [f.to_json() for f in fs] for name, fs in findings})
    write_json(folder / "environment.json", facts)
    if len(cohort.omitted):
        write_csv(folder / OMITTED, cohort.omitted)
    write_json(folder / SUMMARY, summary)
    histories = [
        pd.read_csv(cell_folder(folder, s.name, m.seed) / HISTORY).assign(method=s.name, seed=m.seed)
        for s in subjects
        for m in s.members
    ]
    write_csv(folder / HISTORY, pd.concat(histories))
    write_report(folder)
    for s in subjects:
        write_model_card(folder, s.name)


def _method_facts(
    study: Study, folder: Path, position: int, subject: Subject, findings: list[Finding]
) -> dict[str, Any]:
    section = study.methods[position]
    parts = [METHODS.get(n.strip()) for n in section.name.split("+")]
    cells = [cell_folder(folder, section.title, m.seed) for m in subject.members]
    histories = [pd.read_csv(c / HISTORY) for c in cells]
    first = subject.members[0].predictor
    assert isinstance(first, Classifier)
    return {
        "name": subject.name,
        "options": section.options,
        "summary": " ".join(p.summary for p in parts),
        "source": "; ".join(p.source for p in parts if p.source),
        "seeds": [m.seed for m in subject.members],
        "baseline": position == 0,
        "findings": [f.to_json() for f in findings],
        "histories": [
            {"seed": m.seed, "table": table_to_json(h)} for m, h in zip(subject.members, histories, strict=True)
        ],
        "report": json.loads((cells[0] / METHOD).read_text(encoding="utf-8"))["report"],
        "card": first.card.model_dump(),
        "seconds": round(float(sum(h["seconds"].sum() for h in histories)), 1),
        "n_weights": sum(p.numel() for p in first.parameters()),
    }
