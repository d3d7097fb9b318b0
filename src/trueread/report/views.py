"""What each section of the page shows, as plain values, so that the template decides nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trueread.errors import TruereadError
from trueread.report.check_words import serious_of
from trueread.report.combine import label_efficiency, learning_curves, overlay
from trueread.report.draw import draw, is_wide
from trueread.report.plotdata import cut_note
from trueread.report.remedy import in_words
from trueread.report.scorecard import ScoreRow, audit_rows, grouped, rule_text
from trueread.report.summary import DATA, Json, audit_names, findings_of, threshold_of
from trueread.report.tables import TableView, table_views
from trueread.report.words import counted, joined, plural, sentence, slug, spelled

MAX_SVG = 150_000  # characters; a figure beyond it is no longer read by eye, and would weigh the page down
CURVES = (("performance", "roc"), ("calibration", "reliability"))


@dataclass(frozen=True)
class FigureView:
    """A drawn figure; `trouble` says why it could not be drawn, when svg is ""."""

    svg: str
    title: str
    caption: str = ""
    wide: bool = False
    trouble: str = ""


@dataclass(frozen=True)
class Question:
    """One audit of all methods. title: of its headline measure. rule: direction and threshold; why: the threshold's.
    answers: a headline row per method."""

    audit: str
    anchor: str
    question: str
    title: str
    rule: str
    why: str
    has_threshold: bool
    answers: list[ScoreRow]


@dataclass(frozen=True)
class FindingView:
    """Everything else an audit found. groups: its measures; notes: with the methods they are about, "" for all.
    in_words: what it comes to, as sentences."""

    question: Question
    groups: list[tuple[ScoreRow, list[ScoreRow]]]
    tables: list[TableView]
    figures: list[FigureView]
    notes: list[tuple[str, str]] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    in_words: list[str] = field(default_factory=list)


def questions(summary: Json) -> list[Question]:
    """Every audit with each method's headline."""
    found = []
    for audit in audit_names(summary):
        rows = audit_rows(summary, audit, further=())
        lead = next((r for r in rows if r.title), rows[0])
        threshold, why = threshold_of(summary, audit)
        if threshold is None:
            threshold = lead.threshold
        anchor = f"audit-{slug(audit)}"
        found.append(
            Question(
                audit, anchor, lead.question, lead.title, rule_text(lead, threshold), why, threshold is not None, rows
            )
        )
    return found


def figure_views(
    summary: Json, audit: str, *, only: Sequence[str] | None = None, skip: Sequence[str] = ()
) -> list[FigureView]:
    """The figures of an audit: one for all methods where lines can share axes, one per method otherwise."""
    findings = findings_of(summary, audit)
    order = [DATA] if DATA in findings else [m["name"] for m in summary["methods"]]
    by_name: dict[str, dict[str, Json]] = {}
    for method, finding in findings.items():
        for figure in finding.get("figures") or []:
            if figure["name"] not in skip and (only is None or figure["name"] in only):
                by_name.setdefault(figure["name"], {})[method] = figure
    views = []
    for figures in by_name.values():
        together = overlay(figures, order=order) if len(order) > 1 else None
        if together is not None:
            views.append(_drawn(together))
        else:
            views += [_drawn(f, method=m if len(order) > 1 else "") for m, f in figures.items()]
    return views


def curves(summary: Json) -> list[FigureView]:
    """ROC and reliability of every method, and the learning curves."""
    views = [v for audit, name in CURVES for v in figure_views(summary, audit, only=(name,))]
    return views + [_drawn(f) for f in (*label_efficiency(summary["methods"]), *learning_curves(summary["methods"]))]


def finding_views(summary: Json) -> list[FindingView]:
    """Every audit in full; the figures that `curves` shows are only named."""
    views = []
    for question in questions(summary):
        findings = findings_of(summary, question.audit)
        shown = [name for audit, name in CURVES if audit == question.audit]
        titles = {f["title"]: None for x in findings.values() for f in x.get("figures") or [] if f["name"] in shown}
        views.append(
            FindingView(
                question,
                grouped([r for r in audit_rows(summary, question.audit) if r.title]),
                table_views(findings),
                figure_views(summary, question.audit, skip=shown),
                notes_of(findings, n_methods=len(summary["methods"])),
                list(titles),
                in_words(summary, question.audit),
            )
        )
    return views


def notes_of(findings: Mapping[str, Json], *, n_methods: int) -> list[tuple[str, str]]:
    """Notes with the methods that they are about; "" where every method has the same note, or the data alone."""
    about: dict[str, list[str]] = {}
    for method, finding in findings.items():
        for note in finding.get("notes") or []:
            about.setdefault(sentence(note), []).append(method)
    everybody = n_methods if DATA not in findings else 1
    return [("" if len(names) == everybody else joined(names), note) for note, names in about.items()]


def studied_sentence(summary: Json) -> str:
    """What was studied, in one or two sentences."""
    methods, cohort = summary["methods"], summary["cohort"]
    split = cohort.get("split") or {}
    n = len(methods)
    names = joined(m["name"] for m in methods)
    trained, tested = _people(split.get("train"), cohort), _people(split.get("test"), cohort)
    was = "was" if n == 1 else "were"
    if trained and any(m.get("histories") for m in methods):
        counts = {len(m.get("seeds") or [0]) for m in methods}
        seeds = counts.pop() if len(counts) == 1 else 0
        each = f", {spelled(seeds)} {plural('seed', seeds)}{' each' if n > 1 else ''}," if seeds else ""
        head = f"{spelled(n).capitalize()} {plural('method', n)} ({names}){each} {was} trained on {trained} and"
        tail = f" judged on {tested} that training never saw." if tested else " judged."
    else:
        head = f"{spelled(n).capitalize()} {plural('model', n)} ({names}), trained elsewhere, {was}"
        tail = f" judged on {tested or _people(cohort, cohort)}."
    what = "label" if cohort.get("task") == "multilabel" else "class"
    kinds = f"{spelled(len(cohort['classes']))} {plural(what, len(cohort['classes']))}"
    listed = f" ({joined(cohort['classes'])})" if len(cohort["classes"]) <= 4 else ""
    kind = f"{cohort.get('modality')} " if cohort.get("modality") not in (None, "", "any") else ""
    joint = "with" if what == "label" else "in"
    return f"{head}{tail} The cohort is {cohort['name']}: {kind}images {joint} {kinds}{listed}."


def _people(part: Json | None, cohort: Json) -> str:
    if not part or not part.get("images"):
        return ""
    images = counted(part["images"], "image")
    known = cohort.get("patients_known", True) and part.get("patients")
    return f"{images} of {counted(part['patients'], 'patient')}" if known else images


def caveats(summary: Json) -> list[str]:
    """What a reader must know before believing a number."""
    cohort = summary["cohort"]
    found = [sentence(w) for w in (cohort.get("split") or {}).get("warnings") or []]
    serious = len(serious_of(summary))
    if serious:
        found.insert(
            0,
            sentence(
                f"{spelled(serious)} serious {plural('concern', serious)} about the data came up before training, so "
                "the numbers may be wrong: see Check of the data"
            ),
        )
    if cohort.get("planted"):
        found.insert(0, sentence(f"This is an experiment: a shortcut was planted into the images, {cohort['planted']}"))
    if cohort.get("label_noise"):
        made = (
            f"This is an experiment: labels were made wrong, {cohort['label_noise']}; those of the test are untouched"
        )
        found.insert(0, sentence(made))
    if not cohort.get("patients_known", True):
        found.append(
            "Nobody said which images belong to the same patient, so every image counts as a patient of its own. If "
            "some patients have several images, the intervals are too narrow, and test patients may be in training."
        )
    if all(m.get("histories") and len(m.get("seeds") or [0]) == 1 for m in summary["methods"]):
        found.append(
            "Trained once: the intervals say how the numbers vary with other patients, not with another training."
        )
    return found


def cohort_facts(summary: Json) -> list[tuple[str, str]]:
    """Name and value of what is known of the cohort."""
    c = summary["cohort"]
    patients = (
        counted(c["patients"], "patient") if c.get("patients_known", True) and c.get("patients") else "patients unknown"
    )
    size = " × ".join(map(str, c.get("size") or []))
    facts = [
        ("Cohort", c["name"]),
        ("Source", c.get("source")),
        ("Images", f"{counted(c['images'], 'image')}, {patients}"),
        ("Task", f"{c.get('task')}, {len(c['classes'])} classes"),
        ("Modality", c.get("modality")),
        ("Size", f"{size} pixels, {counted(c['channels'], 'channel')}" if size and c.get("channels") else size),
        ("White", f"stored intensity {c['white']:,} is shown and read as 1" if c.get("white") else None),
        ("Attributes", joined(c.get("attributes") or []) or "none"),
        ("Split", (c.get("split") or {}).get("how")),
        ("Labels made wrong", c.get("label_noise")),
        ("Labels after review", c.get("decisions")),
        ("Planted shortcut", c.get("planted")),
        ("Fingerprint", f"{c['digest']} (of images, labels and ids)" if c.get("digest") else None),
    ]
    return [(name, str(value)) for name, value in facts if value not in (None, "")]


def split_table(summary: Json) -> list[tuple[str, list[str], bool]]:
    """Rows of the table of classes by split: name, a cell per split, and whether it is a total."""
    cohort = summary["cohort"]
    split = cohort.get("split") or {}
    parts = [split.get(name) or {} for name in ("train", "val", "test")]
    if not any(parts):
        return []
    rows: list[tuple[str, list[str], bool]] = []
    for name in cohort["classes"]:
        counts = [(p.get("classes") or {}).get(name) for p in parts]
        shares = [
            f"{n:,} ({n / p['images']:.0%})" if n is not None and p.get("images") else "–"
            for n, p in zip(counts, parts, strict=True)
        ]
        rows.append((name, [s.replace("%", " %") for s in shares], False))
    rows.append(("Images", [f"{p.get('images', 0):,}" for p in parts], True))
    if cohort.get("patients_known", True):
        rows.append(("Patients", [f"{p.get('patients', 0):,}" for p in parts], True))
    return rows


def omitted_reasons(summary: Json) -> list[str]:
    """Why images were left out, with how many; without their paths, because a file's name may name a patient."""
    reasons: Counter[str] = Counter()
    for entry in summary["cohort"].get("omitted") or []:
        text, path = str(entry.get("reason", "")), str(entry.get("path", ""))
        for part in sorted({path, *path.replace("\\", "/").split("/")}, key=len, reverse=True):
            text = text.replace(part, "[file]") if len(part) > 2 else text
        reasons[sentence(text)] += 1
    return [f"{counted(n, 'image')}: {text}" for text, n in reasons.most_common()]


def definitions(summary: Json) -> list[tuple[str, str, str]]:
    """(measure, audit, definition) of every measure, once."""
    found: dict[tuple[str, str, str], None] = {}
    for audit in audit_names(summary):
        for row in audit_rows(summary, audit):
            if row.title:
                found[(row.title, row.audit, sentence(row.definition) or "No definition was given.")] = None
    return list(found)


def _drawn(figure: Json, *, method: str = "") -> FigureView:
    """The figure drawn; one that cannot be drawn costs the page only itself."""
    title = f"{figure.get('title') or figure.get('name')}{f', {method}' if method else ''}"
    try:
        svg, note = draw(figure), cut_note(figure)
    except TruereadError as error:
        return FigureView("", title, trouble=sentence(str(error)))
    if len(svg) > MAX_SVG:
        return FigureView("", title, trouble="It has too many parts for a page; its numbers are in findings.json.")
    caption = f"{sentence(figure.get('caption') or '')} {note}".strip()
    return FigureView(svg, title, caption, is_wide(figure))
