"""The command line: a thin shell over `trueread.commands`. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from trueread._version import __version__
from trueread.arguments import (
    AUDITS_HELP,
    DATA_HELP,
    AsJson,
    Data,
    DataOptions,
    Gate,
    Junit,
    MethodOptions,
    Model,
    Out,
    TrainOptions,
    pairs,
    typed_command,
)

OK, GATE_FAILED, FOUND_SERIOUS, BAD_INPUT, INTERRUPTED = 0, 1, 1, 2, 130
UsageError: Any = typer.BadParameter.__mro__[1]  # click's, or the copy of it that newer versions of typer bring along

app = typer.Typer(
    help="Trains medical-image classifiers that are right for the right reasons, and proves it.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _main(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress, no messages")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    if debug:
        os.environ["TRUEREAD_DEBUG"] = "1"
    from trueread.progress import set_quiet

    set_quiet(quiet or _follows())
    if _follows():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _follows() -> bool:
    """True in all but the first of several processes that torchrun or srun started: one of them speaks for all."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return os.environ.get("RANK", "0") != "0"
    return int(os.environ.get("SLURM_NTASKS", "1")) > 1 and os.environ.get("SLURM_PROCID", "0") != "0"


@app.command()
def run(
    study: Annotated[
        Path | None, typer.Argument(metavar="STUDY.yaml", help="study file; or leave out and use --data")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", "-d", help=DATA_HELP)] = None,
    method: Annotated[
        list[str] | None, typer.Option("--method", "-m", help="method; repeat for more, the first is the baseline")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="number of seeds")] = None,
    audits: Annotated[str | None, typer.Option(help=AUDITS_HELP)] = None,
    set_: DataOptions = None,
    train_: TrainOptions = None,
    out: Out = None,
    gate: Gate = False,
    junit: Junit = None,
    as_json: AsJson = False,
) -> None:
    """Do a whole study: check the data, train methods x seeds, audit, compare, write report.html.

    An interrupted run continues when the same command is given again.

    Examples:

    `trueread run studies/quickstart.yaml`

    `trueread run --data folder:xrays -s size=64 -m erm -m class-weights --seeds 3`

    `trueread run study.yaml -t epochs=30 --out runs/longer`
    """
    from trueread import commands
    from trueread.errors import InputError
    from trueread.study import load_study, plain_name

    if study is not None:
        content = load_study(study).model_dump(mode="json", exclude_unset=True)
    elif data is not None:
        content = {"name": plain_name(data)}
    else:
        raise InputError("say what to study: a study file (trueread run STUDY.yaml), or --data.")
    if data is not None:
        content["data"] = {"source": data}
    content["data"] = {**content["data"], **pairs(set_)}
    content["train"] = {**content.get("train", {}), **pairs(train_)}
    if method:
        content["methods"] = method
    if seeds is not None:
        content["seeds"] = seeds
    if audits:
        content["audits"] = [name.strip() for name in audits.split(",")]
    folder = commands.run(content, out=out, command=typed_command(sys.argv[1:]))
    summary = json.loads((folder / "summary.json").read_text())
    if as_json:
        print(json.dumps(summary))
    else:
        from trueread.report import print_scorecard

        print_scorecard(summary)
        print(folder / "report.html")
    if junit is not None:
        _write_junit({m["name"]: m["findings"] for m in summary["methods"]}, junit)
    failed = [f["audit"] for m in summary["methods"] for f in m["findings"] if f["verdict"] == "fail"]
    if gate and failed:
        raise typer.Exit(GATE_FAILED)


@app.command()
def train(
    data: Data,
    method: Annotated[str, typer.Option("--method", "-m", help="how to train; compose with a plus sign")] = "erm",
    seed: Annotated[int, typer.Option(help="seed of everything random")] = 0,
    set_: DataOptions = None,
    train_: TrainOptions = None,
    option: MethodOptions = None,
    out: Out = None,
) -> None:
    """Train one classifier and measure it on its test split.

    Examples:

    `trueread train phantom`

    `trueread train csv:labels.csv -s patient=lesion_id -m class-weights+mixup -t epochs=30 -o runs/skin`

    `trueread train phantom -m focal -x gamma=1`
    """
    from trueread import commands
    from trueread.cells import cell_folder
    from trueread.options import validate
    from trueread.study import plain_name
    from trueread.training.config import TrainConfig

    folder = out or Path("runs") / plain_name(f"{data}-{method}")
    settings = pairs(train_)
    validate(TrainConfig, settings, where="--train")
    typed = typed_command(sys.argv[1:])
    commands.train(
        data, method, out=folder, seed=seed, source=pairs(set_), options=pairs(option), command=typed, **settings
    )
    _show_scorecard(folder)
    print(cell_folder(folder, method, seed) / "model")


@app.command()
def pretrain(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="image files, or folders of them; or one source, as of train"),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="folder for weights.safetensors")],
    method: Annotated[str, typer.Option("--method", "-m", help="vicreg, barlow-twins or curvssl")] = "vicreg",
    seed: Annotated[int, typer.Option(help="seed of everything random")] = 0,
    set_: DataOptions = None,
    train_: TrainOptions = None,
    option: MethodOptions = None,
) -> None:
    """Train an encoder on images without labels, whose weights later runs start from.

    Examples:

    `trueread pretrain archive/ -o encoder -s size=64 -s modality=radiograph`

    `trueread pretrain archive/ -o encoder -m curvssl -x epochs=200 -t backbone=resnet18`

    `trueread pretrain csv:labels.csv -o encoder -s patient=lesion_id`
    """
    from trueread import pretraining
    from trueread.options import validate
    from trueread.training.config import TrainConfig

    settings = pairs(train_)
    validate(TrainConfig, settings, where="--train")
    print(
        pretraining.pretrain(images, method, out=out, seed=seed, source=pairs(set_), options=pairs(option), **settings)
    )


@app.command()
def audit(
    model: Model,
    data: Data,
    audits: Annotated[str, typer.Option(help=AUDITS_HELP)] = "all",
    set_: DataOptions = None,
    out: Out = None,
    gate: Gate = False,
    junit: Junit = None,
    as_json: AsJson = False,
) -> None:
    """Ask audits of one model; exit code 1 with --gate when one fails.

    Examples:

    `trueread audit runs/skin csv:labels.csv -s patient=lesion_id`

    `trueread audit model/ folder:other-hospital --audits performance,calibration --gate`

    `trueread audit runs/skin csv:labels.csv --audits all,localisation`
    """
    from trueread import commands
    from trueread.report.terminal import print_findings

    findings = commands.audit(model, data, audits=audits, source=pairs(set_), out=out)
    if as_json:
        print(json.dumps([f.to_json() for f in findings]))
    else:
        print_findings(findings)
    if junit is not None:
        _write_junit({"model": [f.to_json() for f in findings]}, junit)
    if gate and any(f.verdict == "fail" for f in findings):
        raise typer.Exit(GATE_FAILED)


def _write_junit(found: dict[str, Any], path: Path) -> None:
    from trueread.commands import writing
    from trueread.report import write_junit

    with writing(path, option="--junit"):
        write_junit(found, path)


@app.command()
def check(
    data: Data,
    set_: DataOptions = None,
    split: Annotated[Path | None, typer.Option(help="split.csv of a run; by default as the data come")] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help="one check; repeat for more")] = None,
    seed: Annotated[int, typer.Option(min=0, help="seed of permutations and folds")] = 0,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Look for what would make results on these data wrong; exit code 1 when something serious is found.

    Examples:

    `trueread check folder:xrays -s 'patient=^[^/]+/(\\d+)'`

    `trueread check csv:labels.csv -s patient=lesion_id --only duplicates --only cues -o runs/skin-check`

    `trueread check medmnist:breastmnist --json`
    """
    if _follows():
        return
    from trueread import checking
    from trueread.report.check_terminal import print_check
    from trueread.study import plain_name

    folder = out or Path("runs") / f"check-{plain_name(data)}"
    checking.check(
        data, checks=only or "all", split=split, out=folder, seed=seed, source=pairs(set_),
        command=typed_command(sys.argv[1:]),
    )  # fmt: skip
    content = json.loads((folder / "check.json").read_text(encoding="utf-8"))
    if as_json:
        print(json.dumps(content))
    else:
        print_check(content, folder)
    if content["found"]["serious"]:
        raise typer.Exit(FOUND_SERIOUS)


@app.command()
def predict(
    model: Model,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="image files, or folders of them")],
    explain: Annotated[Path | None, typer.Option(help="folder for an overlay PNG per image")] = None,
    dicom: Annotated[Path | None, typer.Option(help="folder for the same as DICOM secondary captures")] = None,
    how: Annotated[str, typer.Option(help="the evidence: grad-cam, grad-cam++ or occlusion")] = "grad-cam",
    cut: Annotated[float, typer.Option(help="boxes hold what reaches this share of the strongest evidence")] = 0.5,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="CSV file; stdout by default")] = None,
    as_json: AsJson = False,
) -> None:
    """Calibrated probabilities of images, as CSV or JSON; which of them not to rely on; overlays on request.

    Examples:

    `trueread predict runs/skin new/*.jpg > predictions.csv`

    `trueread predict runs/skin new/ --explain overlays/ --json`

    `trueread predict runs/chest study/*.dcm --dicom captures/ -o predictions.csv`
    """
    from trueread import commands, predicting
    from trueread.files import write_text
    from trueread.progress import say

    table = predicting.predict(model, images, explain=explain, dicom=dicom, how=how, cut=cut)
    if as_json:  # 15 digits, because the 10 decimals of the default leave little of a small probability
        text = table.to_json(orient="records", force_ascii=False, double_precision=15) + "\n"
    else:
        if "boxes" in table:
            table["boxes"] = [json.dumps(b) if isinstance(b, list) else "" for b in table["boxes"]]
        text = table.to_csv(index=False)
    if out is None:
        sys.stdout.write(text)
    else:
        with commands.writing(out, option="-o"):
            write_text(out, text)
        say(f"{out}: {len(table)} images, {int((table['reason'] != '').sum())} not readable")


@app.command()
def export(
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="the file to write")],
    to: Annotated[str, typer.Option(help="the format: onnx")] = "onnx",
    int8: Annotated[str | None, typer.Option(metavar="DATA", help="8-bit numbers, with ranges from these data")] = None,
    set_: DataOptions = None,
) -> None:
    """One file for elsewhere, preprocessing inside; with --int8 a quarter of the size, and what that costs.

    Examples:

    `trueread export runs/skin -o skin.onnx`

    `trueread export runs/skin -o small.onnx --int8 csv:labels.csv -s patient=lesion_id`
    """
    from trueread import exporting
    from trueread.errors import unknown

    if to != exporting.ONNX:
        raise unknown("format", to, [exporting.ONNX])
    print(exporting.export(model, out, int8=int8, source=pairs(set_)))


@app.command()
def report(run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a finished run")]) -> None:
    """Draw report.html of a finished run again.

    Example: `trueread report runs/quickstart`
    """
    from trueread import commands

    print(commands.report(run_folder))


@app.command()
def paper(
    name: Annotated[str, typer.Argument(metavar="PAPER", help="a name of `trueread list papers`")],
    scale: Annotated[str, typer.Option(help="smoke (minutes, no data), cpu (hours) or gpu")] = "smoke",
    data: Annotated[Path | None, typer.Option(help="folder of the real images; $TRUEREAD_DATA by default")] = None,
    out: Out = None,
    part: Annotated[str | None, typer.Option(help="only this part of it, with a folder of all parts")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="parts at once; one per core by default")] = None,
) -> None:
    """Run a published protocol with everything it is compared with; prints the path of its result.

    Interrupted, it continues when the same command is given again.

    Example: `trueread paper specialist --scale smoke`
    """
    from trueread import commands

    print(commands.run_paper(name, scale=scale, out=out, data=data, part=part, jobs=jobs))


@app.command("list")
def list_(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="methods, audits, checks, shifts, sources, backbones or papers")
    ],
    as_json: AsJson = False,
) -> None:
    """List what can be named: methods, audits, checks, shifts, sources, backbones, papers.

    Example: `trueread list methods --json`
    """
    from trueread import commands

    rows = commands.catalogue(kind)
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("name", "what it is", "options", "source"):
        table.add_column(column, overflow="fold", no_wrap=column == "name")
    for row in rows:
        table.add_row(row["name"], row["summary"], ", ".join(row["options"]), row["source"])
    Console().print(table)


def main() -> None:
    """Entry point: known mistakes are one sentence on stderr and exit code 2; a bug keeps its traceback."""
    from trueread.errors import TruereadError

    try:
        code = app(prog_name="trueread", standalone_mode=False) or OK
        sys.stdout.flush()
    except TruereadError as error:
        code = _say_mistake(str(error))
    except UsageError as error:
        message = error.format_message()  # "" when the help was asked for, which is printed by now
        stop = "" if message.endswith((".", "?")) else "."
        where = f" `{error.ctx.command_path} --help` says more." if error.ctx else ""
        code = _say_mistake(message + stop + where) if message else BAD_INPUT
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:  # `trueread list ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains of it at its end
        code = OK
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        code = _say_mistake(
            f"{error.strerror or error}{where}; check that path, then give the same command again: what was "
            "finished before is kept."
        )
    if code == INTERRUPTED:  # which typer may have caught before us
        print("trueread: interrupted; the same command continues where it stopped.", file=sys.stderr)
    sys.exit(code)


def _say_mistake(message: str) -> int:
    """The sentence on stderr, and the exit code; with --debug the exception that is being handled goes on instead."""
    if os.environ.get("TRUEREAD_DEBUG"):
        raise
    print(f"trueread: {' '.join(message.split())}", file=sys.stderr)
    return BAD_INPUT


def _show_scorecard(folder: Path) -> None:
    from trueread.report import print_scorecard, read_summary

    print_scorecard(read_summary(folder))


if __name__ == "__main__":
    main()
