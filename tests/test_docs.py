"""The documentation is true: every example runs as written, every name and option is described, every link leads
somewhere.

How a page is run: its blocks in order, in one namespace and one empty folder. `python` is executed, or saved when its
first line is `# NAME.py`; `yaml` is checked against the study's schema, and saved when its first line is `# NAME.yaml`;
every command of a `bash` block goes through the command line in this process. A comment before a block changes that:
`<!-- not run: REASON -->`, `<!-- exit 2 -->` for a command that must fail so, and `<!-- output -->` before a `text`
block that is what the block above it printed.
"""

from __future__ import annotations

import importlib
import inspect
import io
import os
import re
import shlex
import sys
import tomllib
import typing
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from pydantic import BaseModel, TypeAdapter

from trueread.audit.base import AUDITS, build_audits, default_thresholds
from trueread.cli import app, main
from trueread.cohort.check import CHECKS
from trueread.cohort.medmnist import facts
from trueread.cohort.source import SOURCES
from trueread.method.base import METHODS, build_method
from trueread.model.backbone import BACKBONES, MONAI_NETWORKS
from trueread.options import check, option_names, validate
from trueread.progress import set_quiet
from trueread.registry import Registry
from trueread.shift.base import SHIFTS
from trueread.stats import METRICS
from trueread.study import DataSection, MethodSection, PlantSection, SplitSection, Study
from trueread.training.augment import recipes
from trueread.training.config import TrainConfig
from trueread.training.hooks import Hooks

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
GENERATED = {
    DOCS / "results.md",
    DOCS / "reliability.md",
}  # by `make results`, from result files; not there before the first one
PAGES = sorted({*DOCS.rglob("*.md")} - GENERATED)
OTHERS = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
REGISTRIES: tuple[Registry[Any], ...] = (METHODS, AUDITS, SHIFTS, SOURCES, BACKBONES)
TRAINS = re.compile(r"^trueread (run|train|check) |\b(fit|run|train|check)\(", re.MULTILINE)  # or checks


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """A fenced block. line: of its first line, from 1. note: the HTML comment right before it, or ""."""

    kind: str
    text: str
    line: int
    note: str

    @property
    def skipped(self) -> bool:
        return self.note.startswith("not run: ")

    @property
    def file(self) -> str | None:
        """The file that the block is, by its first line: `# NAME.py`."""
        found = re.match(r"# ([\w-]+\.(?:py|yaml|toml))\n", self.text)
        return found[1] if found else None

    @property
    def commands(self) -> list[str]:
        """The commands of a bash block, with continued lines joined and comments dropped."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def blocks_of(page: Path) -> list[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    blocks, note, at = [], "", 0
    while at < len(lines):
        line = lines[at]
        if line.startswith("```"):
            end = lines.index("```", at + 1)
            blocks.append(Block(line[3:], "\n".join(lines[at + 1 : end]) + "\n", at + 2, note))
            note, at = "", end
        elif line.strip():
            comment = re.fullmatch(r"<!-- (.*) -->", line.strip())
            note = comment[1] if comment else ""
        at += 1
    return blocks


def prose_of(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder whose modules can be imported; what a page registers, imports or sets is undone."""
    kept = [(registry, {e.name: e for e in registry.entries()}) for registry in (*REGISTRIES, CHECKS)]
    modules = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("COLUMNS", "100")
    with mock.patch.dict(os.environ):
        yield tmp_path
    set_quiet(False)
    for registry, entries in kept:
        registry._entries = entries
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def run_page(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace: dict[str, Any] = {"__name__": page.stem}
    printed = ""
    for block in blocks_of(page):
        where = f"{name_of(page)}:{block.line}"
        if block.kind == "text" and block.note == "output":
            assert block.text.split() == printed.split(), f"{where}: printed was\n{printed}"
        if block.skipped or block.kind in ("text", "mermaid", "math"):
            continue
        if block.file:
            (folder / block.file).write_text(block.text, encoding="utf-8")
        out, err = io.StringIO(), io.StringIO()
        if block.kind == "python":
            if not block.file:
                with redirect_stdout(out), redirect_stderr(err):
                    exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), namespace)
        elif block.kind == "yaml":
            check_study(yaml.safe_load(block.text), where)
        elif block.kind == "toml":
            tomllib.loads(block.text)
        else:
            assert block.kind == "bash", f"{where}: nobody knows how to check a block of '{block.kind}'"
            expected = int(block.note.removeprefix("exit ")) if block.note.startswith("exit ") else 0
            for command in block.commands:
                assert command.startswith("trueread "), f"{where}: '{command}' cannot be run; say so in a comment"
                with redirect_stdout(out), redirect_stderr(err):
                    code = run_command(command, monkeypatch)
                assert code == expected, f"{where}: `{command}` exits with {code}\n{out.getvalue()}{err.getvalue()}"
        printed = out.getvalue() or err.getvalue()


def run_command(command: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of a command line; "> FILE" at its end writes its output there, as a shell does."""
    words = shlex.split(command)
    target = words[-1] if len(words) > 2 and words[-2] == ">" else None
    monkeypatch.setattr(sys, "argv", words[:-2] if target else words)
    try:
        if target:
            with Path(target).open("w", encoding="utf-8") as file, redirect_stdout(file):
                main()
        else:
            main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def check_study(content: Any, where: str) -> None:
    """A study file, or a part of one, has known keys, methods, audits and options."""
    study = validate(Study, {"data": "phantom", **content}, where=where)
    for section in study.methods:
        build_method(section.name, **section.options)
    build_audits(study.audits)
    assert set(study.thresholds) <= {entry.name for entry in AUDITS.entries()}, where
    source = study.data.source.partition(":")[0]
    check(SOURCES.get(source).factory, study.data.options, where=where)


def trains(page: Path) -> bool:
    return any(TRAINS.search(b.text) for b in blocks_of(page) if b.kind in ("bash", "python") and not b.skipped)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=name_of(page), marks=[pytest.mark.slow] if trains(page) else [])
        for page in PAGES
        if any(b.kind in ("bash", "python", "yaml", "toml") and not b.skipped for b in blocks_of(page))
    ],
)
def test_examples_run_as_written(page: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_page(page, fresh, monkeypatch)


def test_entry_points_of_the_example_package_are_found(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of architecture.md, installed as pip would leave it, adds one of each kind."""
    blocks = {b.file: b for b in blocks_of(DOCS / "architecture.md") if b.file}
    for name, block in blocks.items():
        (fresh / str(name)).write_text(block.text, encoding="utf-8")
        assert not str(name).endswith(".py") or len(block.text.splitlines()) < 30
    project = tomllib.loads(blocks["pyproject.toml"].text)["project"]
    info = fresh / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
    )
    sections = [
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items())
        for group, points in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(sections), encoding="utf-8")
    importlib.invalidate_caches()
    for registry in REGISTRIES:
        monkeypatch.setattr(registry, "_loaded", False)
        for name in project["entry-points"][f"trueread.{registry.plural}"]:
            assert registry.get(name).factory.__module__.startswith("acme_")


def test_every_page_is_linked_from_the_index() -> None:
    linked = {(DOCS / target).resolve() for _, target in links_of(DOCS / "index.md")}
    missing = [name_of(page) for page in PAGES if page.name != "index.md" and page.resolve() not in linked]
    assert not missing


def links_of(page: Path) -> list[tuple[str, str]]:
    """(text, path) of every relative link; anchors of the page itself and addresses are left out."""
    found = re.findall(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", prose_of(page))
    return [(text, target.partition("#")[0]) for text, target in found if not re.match(r"[a-z]+:|#", target)]


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=name_of)
def test_relative_links_lead_to_a_file_and_to_a_heading(page: Path) -> None:
    for text, target in re.findall(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", prose_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if file in GENERATED:
            continue
        assert file.exists(), f"[{text}]({target})"
        assert not anchor or anchor in anchors_of(file), f"[{text}]({target}): no such heading"


def anchors_of(page: Path) -> set[str]:
    """Headings as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=name_of)
def test_every_table_has_rows_of_equal_length(page: Path) -> None:
    """A bar inside a cell would silently cut it in two on GitHub."""
    for table in re.findall(r"(?:^\|.*\|$\n?){2,}", prose_of(page), flags=re.MULTILINE):
        assert len({len(cells_of(row)) for row in table.splitlines()}) == 1, table


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=name_of)
def test_inline_mathematics_is_fenced(page: Path) -> None:
    """Between bare dollar signs GitHub reads backslashes and underscores as Markdown first, and the equation breaks."""
    without_code = re.sub(r"\$`[^`\n]+`\$|`[^`\n]+`", "", prose_of(page))
    assert "$" not in without_code


def cells_of(row: str) -> list[str]:
    return [cell.replace("\\|", "|").strip() for cell in re.split(r"(?<!\\)\|", row.strip())[1:-1]]


@dataclass(frozen=True)
class Row:
    """A row of an option table: | `key` | type | `default` | meaning |."""

    kind: str
    default: str
    meaning: str


def option_table(page: Path, heading: str = "") -> dict[str, Row]:
    """The rows of the option table below a heading (as its line begins), up to the next heading; or of the page."""
    text = prose_of(page)
    if heading:
        below = text[text.index(f"\n{heading}") + 1 + len(heading) :]
        text = re.split(r"^#+ ", below, maxsplit=1, flags=re.MULTILINE)[0]
    rows = [cells_of(line) for line in text.splitlines() if re.match(r"\| `\w+` \|", line)]
    return {cells[0].strip("`"): Row(*cells[1:]) for cells in rows if len(cells) == 4}


def documented(row: Row) -> Any:
    """The default that a table states, read as a study file would be."""
    assert row.default.startswith("`"), f"the default is code: {row.default}"
    return yaml.safe_load(row.default.strip("`"))


def assert_type_is_complete(key: str, row: Row, annotation: Any) -> None:
    """Every bound and every choice of the type is in the table's second column."""
    bounds, choices = limits_of(TypeAdapter(annotation).json_schema())
    shown = {float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*\.?\d*", row.kind)}
    assert bounds <= shown, f"{key}: the type must state {bounds}; it says {row.kind!r}"
    assert all(choice in row.kind for choice in choices), f"{key}: {choices} must all be in {row.kind!r}"


def limits_of(schema: dict[str, Any]) -> tuple[set[float], set[str]]:
    """The numeric bounds and the choices of a JSON schema and its alternatives."""
    bounds = {float(v) for k, v in schema.items() if re.fullmatch("(exclusiveM|m)(in|ax)imum", k)}
    choices = {str(choice) for choice in schema.get("enum", [])}
    for alternative in schema.get("anyOf", []):
        more_bounds, more_choices = limits_of(alternative)
        bounds, choices = bounds | more_bounds, choices | more_choices
    return bounds, choices


def assert_options_documented(factory: Callable[..., Any], rows: dict[str, Row]) -> None:
    target = factory.__init__ if inspect.isclass(factory) else factory
    hints = typing.get_type_hints(target, include_extras=True)
    assert set(rows) == set(option_names(factory))
    for key, row in rows.items():
        default = inspect.signature(target).parameters[key].default
        assert check(factory, {key: documented(row)}, where=key)[key] == default
        assert_type_is_complete(key, row, hints[key])
        assert row.meaning


@pytest.mark.parametrize("registry", [METHODS, AUDITS, CHECKS], ids=["methods", "audits", "checks"])
def test_every_method_audit_and_check_has_a_page_with_all_its_options(registry: Registry[Any]) -> None:
    pages = {page.stem: page for page in (DOCS / registry.plural).glob("*.md")}
    assert set(pages) == {entry.name for entry in registry.entries()}
    for entry in registry.entries():
        page = pages[entry.name]
        assert page.read_text(encoding="utf-8").startswith(f"# {entry.name}: ")
        assert_options_documented(entry.factory, option_table(page))


@pytest.mark.parametrize(("registry", "page"), [(SOURCES, "data.md"), (SHIFTS, "shifts.md")], ids=["sources", "shifts"])
def test_every_source_and_shift_has_a_section_with_all_its_options(registry: Registry[Any], page: str) -> None:
    for entry in registry.entries():
        assert_options_documented(entry.factory, option_table(DOCS / page, f"### {entry.name}"))


@pytest.mark.parametrize(
    ("model", "heading"),
    [
        (Study, "## The keys of a study"),
        (DataSection, "### data"),
        (SplitSection, "### split"),
        (PlantSection, "### plant"),
        (MethodSection, "### methods"),
        (TrainConfig, "### train"),
    ],
    ids=lambda value: value.__name__ if inspect.isclass(value) else "",
)
def test_every_key_of_a_study_is_documented(model: type[BaseModel], heading: str) -> None:
    rows = option_table(DOCS / "study.md", heading)
    required = {"data": "phantom", "source": "phantom", "name": "erm", "cue": "square"}
    needed = {key: required[key] for key, field in model.model_fields.items() if field.is_required()}
    assert set(rows) == set(model.model_fields)
    defaults = model.model_validate(needed)
    for key, row in rows.items():
        assert row.meaning
        field = model.model_fields[key]
        if field.is_required():
            assert row.default == "required"
            continue
        stated = model.model_validate(needed | {key: documented(row)})
        assert getattr(stated, key) == getattr(defaults, key)
        assert_type_is_complete(key, row, typing.get_type_hints(model, include_extras=True)[key])


def test_every_metric_threshold_recipe_and_hook_is_described() -> None:
    statistics, study, architecture = (
        (DOCS / f"{page}.md").read_text(encoding="utf-8") for page in ("statistics", "study", "architecture")
    )
    for name, metric in METRICS.items():
        assert f"| `{name}` | {metric.title} |" in statistics
    for name, threshold in default_thresholds().items():
        limit = "none" if threshold is None else f"(at least|at most) {threshold:g}"
        assert re.search(rf"\| `{name}` \| [^|]+ \| {limit} \|", statistics)
    for name in recipes():
        assert f"`{name}`" in study
    for hook in (h for h in vars(Hooks) if not h.startswith("_") and h not in ("taps", "replayable")):
        assert f"`{hook}(" in architecture


def test_every_backbone_data_set_and_command_is_named() -> None:
    study, data, quickstart = (
        (DOCS / f"{page}.md").read_text(encoding="utf-8") for page in ("study", "data", "quickstart")
    )
    for backbone in [e.name for e in BACKBONES.entries()] + [f"monai:{n}" for n in MONAI_NETWORKS]:
        assert f"`{backbone}`" in study
    for name in facts()["sets"]:
        assert f"`{name}`" in data
    for command in app.registered_commands:
        name = command.name or command.callback.__name__  # type: ignore[union-attr]
        assert f"| `trueread {name} " in quickstart


def test_rooms_import_only_from_rooms_below() -> None:
    """The order of architecture.md's table is the order of the imports."""
    package = ROOT / "src" / "trueread"
    rooms = {p.name for p in package.iterdir() if (p / "__init__.py").is_file()}
    rooms |= {p.stem for p in package.glob("*.py")} - {"__init__", "__main__", "_version"}
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    first_cells = re.findall(r"^\| (`.*?`) \|", text, flags=re.MULTILINE)
    order = [word for cell in first_cells for word in re.findall(r"`(\w+)`", cell) if word in rooms]
    assert set(order) == rooms
    for place, room in enumerate(order):
        files = [*(package / room).rglob("*.py")] or [package / f"{room}.py"]
        code = "\n".join(file.read_text(encoding="utf-8") for file in files)
        used = set(re.findall(r"^\s*(?:from|import) trueread\.(\w+)", code, flags=re.MULTILINE))
        above = used & set(order[place + 1 :])
        assert not above, f"{room} imports from above: {', '.join(sorted(above))}"
