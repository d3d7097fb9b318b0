"""The order of work: load, split, check, train methods x seeds, audit, compare, report. What is done is kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trueread.audit.base import AUDITS, Audit, build_audits, compare_findings, merged_thresholds, run_audits
from trueread.audit.finding import Difference, Finding, table_to_json, warnings_in
from trueread.audit.localisation import Localisation
from trueread.audit.subject import Member, Subject
from trueread.cells import (
    cell_folder,
    is_done,
    read_history,
    read_method,
    read_predictions,
    write_history,
    write_method,
    write_predictions,
)
from trueread.checking import check_once
from trueread.claim import SPLIT_FILE, belongs_to_nobody, claim, refuse_other_study
from trueread.cohort.check import Seriousness
from trueread.cohort.cohort import Cohort
from trueread.cohort.decisions import decision_log, decisions_in_words, with_decisions
from trueread.cohort.source import load_cohort
from trueread.cohort.split import apply_split, assign_splits, split_note
from trueread.errors import InputError
from trueread.files import plain, write_csv, write_json
from trueread.method.base import METHODS, Method, build_method
from trueread.model.card import MapCheck, write_card
from trueread.model.classifier import Classifier
from trueread.progress import say
from trueread.record import cohort_facts, environment, metrics_table, threshold_facts, today, write_lists
from trueread.report import make_gallery, write_markdown_report, write_model_card, write_report
from trueread.report.check_words import CHECK_PAGE, in_short
from trueread.report.strips import with_pictures
from trueread.report.summary import SUMMARY, Json
from trueread.report.words import told
from trueread.shift.base import SHIFTS
from trueread.shift.label_noise import NOISE, with_label_noise
from trueread.shift.planting import planted, planting
from trueread.study import MethodSection, PlantSection, Study
from trueread.training.checkpoint import drop_checkpoint
from trueread.training.device import choose_device, choose_precision, describe
from trueread.training.evaluate import predict_probabilities
from trueread.training.limits import set_limits
from trueread.training.loop import fit
from trueread.training.plan import check_trainable
from trueread.training.processes import processes

HISTORY, OMITTED, DECIDED = "history.csv", "omitted.csv", "decisions.csv"


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
    if study.plant is not None:
        SHIFTS.build(study.plant.cue, study.plant.options)
    audits = build_audits(study.audits)
    merged_thresholds(study.thresholds)
    refuse_other_study(folder, study)
    cohort = load_data(study) if cohort is None else cohort
    cohort = split_data(cohort, study, folder)
    if study.plant is not None:
        cohort = plant(cohort, study.plant)
    together = processes()
    together.wait()  # until all have seen whose the folder was
    if together.leads:
        claim(folder, study, cohort)
    together.wait()  # until the folder is this study's
    say(f"{cohort!r}; split {split_note(cohort).how}.")
    for warning in split_note(cohort).warnings:
        say(f"warning: {warning}")
    if not all(is_done(cell_folder(folder, m.title, seed)) for m in study.methods for seed in study.seeds):
        rows = cohort.rows("train"), cohort.rows("val")
        check_trainable(cohort, *rows, study.train, n_processes=together.size)  # which must not wait for the checks
    checked = _check(cohort, folder, command) if study.check and together.leads else None
    for section, made in methods:
        train_method(study, cohort, section, made, folder)
    if together.leads:
        _audit_and_report(study, cohort, audits, folder, command, start, checked)
    together.wait()
    return folder


def _check(cohort: Cohort, folder: Path, command: str) -> Json:
    """Check the data, or read what the checks said of them before, and say what it is; concerns never stop a run."""
    checked = in_short(check_once(cohort, folder, command=command))
    for concern in checked["concerns"]:
        if concern["seriousness"] == Seriousness.SERIOUS:
            say(f"serious: {concern['title']}")
    say(f"{checked['verdict']} Details: {folder / CHECK_PAGE}")
    return checked


def _audit_and_report(
    study: Study,
    cohort: Cohort,
    audits: Sequence[Audit],
    folder: Path,
    command: str,
    start: float,
    checked: Json | None,
) -> None:
    subjects = [trained_method(study, cohort, section, folder) for section in study.methods]
    findings = [(s.name, run_audits(s, audits, thresholds=study.thresholds)) for s in subjects]
    for subject, (_, found) in zip(subjects, findings, strict=True):
        _keep_map_check(audits, subject, found, folder)
    differences = compare_findings(findings[0], findings[1:], subjects[0])
    _write_results(
        study, cohort, subjects, findings, differences, folder, command, time.perf_counter() - start, checked
    )


def _keep_map_check(audits: Sequence[Audit], subject: Subject, findings: Sequence[Finding], folder: Path) -> None:
    """What was found of the maps that `predict` draws goes into the cards, so that it can be said beside them."""
    for audit, finding in zip(audits, findings, strict=True):
        if isinstance(audit, Localisation) and audit.layer == "auto" and finding.measures:
            for member in subject.members:
                card = member.predictor.card
                card.maps = MapCheck(how=audit.how, warnings=warnings_in(finding.notes))
                write_card(card, cell_folder(folder, subject.name, member.seed) / "model")


def load_data(study: Study) -> Cohort:
    """The study's cohort; says how many images could not be read."""
    data = study.data
    cohort = load_cohort(data.source, **data.options)
    if len(cohort.omitted):
        say(f"{cohort.name}: {len(cohort.omitted)} unreadable images are left out (listed in {OMITTED}).")
    return cohort


def split_data(cohort: Cohort, study: Study, folder: Path) -> Cohort:
    """The cohort split as the study's split file says, as trainings in this folder had it, or anew by patient; and with
    its labels as somebody decided, which a split must not depend on.
    """
    if study.split.file:
        return _decided(apply_split(cohort, study.split.file), study)
    anew = assign_splits(cohort, val=study.split.val, test=study.split.test, seed=study.split.seed)
    anew = _decided(anew, study)
    saved = folder / SPLIT_FILE
    if not saved.is_file() or belongs_to_nobody(folder):
        return anew
    earlier = apply_split(anew, saved)
    return anew if (earlier.table["split"] == anew.table["split"]).all() else earlier


def _decided(cohort: Cohort, study: Study) -> Cohort:
    """The cohort with labels made wrong on purpose, and then as a person decided about them."""
    noise = study.label_noise
    if noise is not None:
        cohort = with_label_noise(cohort, **noise.model_dump())
        told = cohort.origin[NOISE]
        say(f"{cohort.name}: {told['wrong']} of {told['of']} labels of training and validation were made wrong.")
    if study.decisions is not None:
        cohort = with_decisions(cohort, study.decisions)
        say(f"{cohort.name}: {decisions_in_words(cohort)}.")
    return cohort


def plant(cohort: Cohort, what: PlantSection) -> Cohort:
    """The cohort with the study's shortcut in it."""
    made = planted(cohort, planting(cohort, what.cue, **what.model_dump(exclude={"cue"})))
    assert made.truth is not None
    carrying, clean = made.truth["cue"].sum(), made.truth["clean"].sum()
    say(f"{cohort.name}: '{what.cue}' is planted into {carrying:,} images; {clean:,} of training are bias-free.")
    return made


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
    return Subject(
        section.title, cohort, test_rows, members, val_rows, resamples=study.resamples, folder=folder / "audits"
    )


def train_cell(study: Study, cohort: Cohort, section: MethodSection, made: Method, seed: int, cell: Path) -> None:
    """Train one method with one seed and write everything that comes out; the predictions last, as the sign of done."""
    what = f"{section.title}, seed {seed}"
    fitted = fit(cohort, made, study.train, seed=seed, folder=cell, what=what)
    if not processes().leads:
        return
    rows = np.concatenate([cohort.rows("val"), cohort.rows("test")])
    probabilities = predict_probabilities(fitted.classifier, cohort, rows)
    set_limits(fitted.classifier, cohort, probabilities=probabilities[: len(cohort.rows("val"))])
    card = fitted.classifier.card
    card.training |= {"method": section.name, "method_options": section.options}
    card.versions = {k: v for k, v in environment().items() if k in ("trueread", "python", "torch", "timm", "monai")}
    if fitted.report:
        say(f"{what}: {told(plain(fitted.report))}.")
    fitted.classifier.save(cell / "model")
    write_history(cell, fitted.history)
    write_method(cell, section, fitted.report)
    write_predictions(cell, cohort, rows, probabilities)
    drop_checkpoint(cell / "checkpoints")
    best = fitted.history.loc[fitted.history["selected"]].iloc[0]
    auroc = best.get("val_auroc", float("nan"))
    seconds = card.training["seconds"]
    say(f"{what}: kept epoch {fitted.selected_epoch}, validation AUROC {auroc:.3f}, {seconds:.0f} s.")


def _build(section: MethodSection) -> Method:
    return build_method(section.name, **section.options)


def _write_results(
    study: Study,
    cohort: Cohort,
    subjects: Sequence[Subject],
    findings: Sequence[tuple[str, list[Finding]]],
    differences: Sequence[Difference],
    folder: Path,
    command: str,
    seconds: float,
    checked: Json | None,
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
    pictures = folder if study.explain else None  # who asks for no gallery may not want to show any test image
    told = {name: [with_pictures(f, pictures, method=name) for f in fs] for name, fs in findings}
    summary = {
        "title": study.name,
        "description": study.description,
        "command": command,
        "date": today(),
        "seconds": round(seconds, 1),
        "resamples": study.resamples,
        "cohort": cohort_facts(cohort),
        "check": checked,
        "methods": [_method_facts(study, folder, i, s, told[s.name]) for i, s in enumerate(subjects)],
        "differences": [d.to_json() for d in differences],
        "gallery": gallery,
        "thresholds": threshold_facts(study.thresholds),
        "audit_sources": {f.audit: AUDITS.get(f.audit).source for f in findings[0][1]},
        "environment": facts,
    }
    write_csv(folder / "metrics.csv", metrics_table(findings))
    write_json(folder / "findings.json", told)
    write_lists(findings[0][1], folder)
    write_json(folder / "environment.json", facts)
    if len(cohort.omitted):
        write_csv(folder / OMITTED, cohort.omitted)
    if (log := decision_log(cohort)) is not None:
        write_csv(folder / DECIDED, log)
    write_json(folder / SUMMARY, summary)
    histories = [
        read_history(cell_folder(folder, s.name, m.seed)).assign(method=s.name, seed=m.seed)
        for s in subjects
        for m in s.members
    ]
    write_csv(folder / HISTORY, pd.concat(histories))
    write_report(folder)
    write_markdown_report(folder)
    for s in subjects:
        write_model_card(folder, s.name)


def _method_facts(study: Study, folder: Path, position: int, subject: Subject, findings: list[Json]) -> dict[str, Any]:
    section = study.methods[position]
    parts = [METHODS.get(n.strip()) for n in section.name.split("+")]
    cells = [cell_folder(folder, section.title, m.seed) for m in subject.members]
    histories = [read_history(c) for c in cells]
    classifiers = [m.predictor for m in subject.members if isinstance(m.predictor, Classifier)]
    first = classifiers[0]
    return {
        "name": subject.name,
        "options": section.options,
        "summary": " ".join(p.summary for p in parts),
        "source": "; ".join(p.source for p in parts if p.source),
        "seeds": [m.seed for m in subject.members],
        "baseline": position == 0,
        "findings": findings,
        "histories": [
            {"seed": m.seed, "table": table_to_json(h)} for m, h in zip(subject.members, histories, strict=True)
        ],
        "report": read_method(cells[0])["report"],
        "card": first.card.model_dump(),
        "seconds": round(sum(c.card.training["seconds"] for c in classifiers), 1),
        "n_weights": sum(p.numel() for p in first.parameters()),
    }
