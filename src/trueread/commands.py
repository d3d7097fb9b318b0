"""The commands as Python functions; the command line is a thin shell over them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trueread.audit.base import AUDITS, build_audits, run_audits
from trueread.audit.finding import Finding
from trueread.audit.subject import Subject
from trueread.cells import cell_folder
from trueread.claim import SPLIT_FILE
from trueread.cohort.check.base import CHECKS
from trueread.cohort.cohort import Cohort
from trueread.cohort.source import SOURCES, load_cohort
from trueread.cohort.split import apply_split, extend_split, split_note
from trueread.errors import InputError, unknown
from trueread.files import write_csv, write_json
from trueread.method.base import METHODS
from trueread.model.backbone import BACKBONES, MONAI_NETWORKS
from trueread.model.card import CARD_FILE
from trueread.model.classifier import Classifier
from trueread.model.predictor import Predictor
from trueread.options import option_names, validate
from trueread.paper.base import PAPERS, run_paper
from trueread.progress import say
from trueread.record import metrics_table, write_lists
from trueread.report import write_markdown_report, write_report
from trueread.runner import run_study
from trueread.shift.base import SHIFTS
from trueread.study import Study, load_study

RUN_DEPTH = 4  # folders from a model up to its run: its seed, its method, all methods, the run


def run(
    study: Study | str | Path | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    cohort: Cohort | None = None,
    command: str = "",
) -> Path:
    """Do a whole study: load, split, check, train methods x seeds, audit, compare, report. Returns the run folder.

    study: a Study, the path of a YAML file, or a mapping with the same keys. out: the run folder (`runs/<name>`).
    cohort: use this one instead of loading `study.data`. Interrupted, it continues where it was.
    """
    if isinstance(study, (str, Path)):
        study = load_study(study)
    elif isinstance(study, Mapping):
        study = validate(Study, study, where="study")
    return run_study(study, out, cohort=cohort, command=command)


def train(
    data: str | Cohort, method: str = "erm", *, out: str | Path, seed: int = 0, source: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None, command: str = "", **settings: Any,
) -> Classifier:  # fmt: skip
    """Train one classifier and keep it in the run folder `out`, with its performance on the test split. The data are
    not checked; `check` does that.

    data: "SOURCE:LOCATION" with `source` as its options, or a Cohort. options: of the method. command: for the
    record. settings: of the loop (`epochs=20`, `backbone="resnet18"`, ...).
    """
    study = {
        "name": "train",
        "data": {"source": data if isinstance(data, str) else data.name, **(source or {})},
        "methods": [{"name": method, **(options or {})}],
        "seeds": [seed],
        "train": settings,
        "audits": ["performance", "calibration"],
        "check": False,
    }
    folder = run(study, out=out, cohort=None if isinstance(data, str) else data, command=command)
    return Classifier.load(cell_folder(folder, method, seed) / "model")


def audit(
    model: Predictor | str | Path, data: str | Cohort, *, audits: str | Sequence[str | Mapping[str, Any]] = "all",
    thresholds: Mapping[str, float | None] | None = None, out: str | Path | None = None,
    source: Mapping[str, Any] | None = None, resamples: int = 1000,
) -> list[Finding]:  # fmt: skip
    """Ask every audit whose needs are met of one model, on the images it was not trained on.

    model: a Classifier, any Predictor, the folder of a saved classifier (or of a run that holds one), or an ONNX file
    that was exported.
    data: "SOURCE:LOCATION" with `source` as its options (size and channels follow the model unless given), or a Cohort.
    The test split is used: the one saved with the run when it knows any of these images (see `extend_split`), else the
    data's own, else all images.
    out: folder for findings.json, metrics.csv and the lists of audits that make one (suspects.csv).
    """
    asked = build_audits(audits)
    predictor, folder = read_model(model) if isinstance(model, (str, Path)) else (model, None)
    if not isinstance(predictor, Predictor):
        raise InputError(
            f"a {type(model).__name__} does not say what it reads and answers; wrap a network with "
            "Classifier.wrap(...), a function with ProbabilityFunction(...)."
        )
    cohort = data if isinstance(data, Cohort) else load_like(predictor, data, source or {})
    cohort = split_as_trained(cohort, predictor, folder)
    subject = Subject.of(
        predictor, cohort, name=str(predictor.card.training.get("method", "model")), resamples=resamples
    )
    subject.folder = Path(out) / "audits" if out is not None else None
    _say_what_is_asked(subject)
    findings = run_audits(subject, asked, thresholds=thresholds)
    if out is not None:
        with writing(out, option="-o"):
            write_json(Path(out) / "findings.json", {subject.name: [f.to_json() for f in findings]})
            write_csv(Path(out) / "metrics.csv", metrics_table([(subject.name, findings)]))
            write_lists(findings, Path(out))
    return findings


def report(run_folder: str | Path) -> Path:
    """Draw report.html of a finished run again, and report.md beside it; return the page's path."""
    write_markdown_report(run_folder)
    return write_report(run_folder)


def catalogue(kind: str) -> list[dict[str, Any]]:
    """What can be named: kind "methods", "audits", "checks", "shifts", "sources", "backbones" or "papers"; name,
    summary, source and options of each.
    """
    registries: dict[str, Any] = {r.plural: r for r in (METHODS, AUDITS, CHECKS, SHIFTS, SOURCES, BACKBONES, PAPERS)}
    if kind not in registries:
        raise unknown("kind of thing to list", kind, registries)
    rows = [
        {"name": e.name, "summary": e.summary, "source": e.source, "options": option_names(e.factory)}
        for e in registries[kind].entries()
    ]
    if kind == "backbones":
        rows += [
            {"name": name, "summary": summary, "source": made_by, "options": []}
            for name, summary, made_by in (
                *((f"monai:{n}", "MONAI network for volumes (extra `volumes`).", "MONAI") for n in MONAI_NETWORKS),
                ("<any timm name>", "Every 2-D timm architecture, e.g. resnet18.", "timm"),
            )
        ]
    return rows


@contextmanager
def writing(path: str | Path, *, option: str) -> Iterator[None]:
    """Turns what the file system refuses in the body into an InputError that names the option to change."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise InputError(f"{path} cannot be written ({why}); give {option} a place you can write to.") from None


def read_model(path: str | Path) -> tuple[Predictor, Path]:
    """The saved classifier, or the exported file, at a path, and the folder that it lies in."""
    path = Path(path)
    if path.suffix == ".onnx":
        from trueread.model.onnx import OnnxPredictor  # here, because few have it installed

        return OnnxPredictor(path), path.parent
    folder = find_model(path)
    return Classifier.load(folder), folder


def find_model(path: str | Path) -> Path:
    """The folder with a card at `path`, or the only one below it (a run with one trained classifier)."""
    path = Path(path)
    if (path / CARD_FILE).is_file():
        return path
    found = sorted(p.parent for p in path.glob(f"**/model/{CARD_FILE}")) if path.is_dir() else []
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(str(f) for f in found[:3])
        raise InputError(f"{path} holds {len(found)} classifiers ({shown}, ...); name one of their folders.")
    raise InputError(
        f"there is no saved classifier in {path} (no {CARD_FILE}); give the folder that `train` or `run` wrote."
    )


def load_like(predictor: Predictor, data: str, options: Mapping[str, Any]) -> Cohort:
    """The cohort `data`, at the model's size, channels, fit, white and class order where the source takes them and
    nobody said otherwise.
    """
    from trueread.cohort.source import parse_source

    card = predictor.card
    takes = option_names(SOURCES.get(parse_source(data)[0]).factory)
    own: dict[str, Any] = {
        "size": max(card.size),
        "channels": card.channels,
        "fit": card.fit,
        "classes": None if options.get("labels") else list(card.classes),  # columns have their own order
        "white": card.white if card.white not in (255, 65535) else None,
    }
    wanted = {k: v for k, v in own.items() if k in takes and v is not None}
    return load_cohort(data, **{**wanted, **options})


def split_as_trained(cohort: Cohort, predictor: Predictor, folder: Path | None) -> Cohort:
    """The split of the run the model came from, where it knows any of these images; a warning when it is lost."""
    same = predictor.card.data_digest == cohort.digest
    for parent in list(folder.resolve().parents)[:RUN_DEPTH] if folder is not None else ():
        if (parent / SPLIT_FILE).is_file():
            split = (apply_split if same else extend_split)(cohort, parent / SPLIT_FILE)
            return cohort if split is None else split
    if same and not cohort.is_split:
        say(
            "warning: the model was trained on images of this cohort, and the split of that run is not beside it: "
            "the numbers below include its training images."
        )
    return cohort


def _say_what_is_asked(subject: Subject) -> None:
    """The cohort, where its split came from, and the images in question, a line each."""
    cohort, n = subject.cohort, len(subject.rows)
    patients = f"of {subject.clusters.max() + 1} patients" if cohort.patients_known else "(patients unknown)"
    say(f"{cohort}")
    say(f"split: {split_note(cohort).how}")
    left_out = f"; unreadable and left out: {len(cohort.omitted)}" if len(cohort.omitted) else ""
    say(f"asked about {n} {'test ' if cohort.is_split else ''}images {patients}{left_out}.")


__all__ = ["audit", "catalogue", "report", "run", "run_paper", "train"]
