"""All benchmarks: ratios measured in one run, printed as one table and kept in results/speed.json or speed-gpu.json.

    python benchmarks/bench.py [PART ...] [--smoke] [--out FOLDER]
    PYTHONPATH=src python benchmarks/bench.py gpu --out FOLDER [--device cpu] [--budget SECONDS]

A part replaces its own place in the file and leaves the others. --smoke takes seconds and writes nothing unless --out
says where. Without parts: all that this machine can do.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import traceback
from pathlib import Path

from options import Options
from sheet import Row, Sheet, table

from trueread.progress import set_quiet

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results"
PARTS = (
    "startup", "bootstrap", "augmentation", "training", "distillation", "distracting", "attacking", "corrupting",
    "labels", "explaining", "predicting", "curving", "checking", "growth",
)  # fmt: skip
SCRIPTS = ("decoding", "copies")  # they print and keep their own results
GPU = "gpu"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join((*PARTS, *SCRIPTS, GPU))}")
    parser.add_argument("--smoke", action="store_true", help="see that everything runs; the numbers mean nothing")
    parser.add_argument("--out", type=Path, help="folder for the result files (results/)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="of the part gpu")
    parser.add_argument("--budget", type=float, default=Options.budget, help="seconds that the part gpu may take")
    given = parser.parse_args()
    unknown = set(given.parts) - {*PARTS, *SCRIPTS, GPU}
    if unknown:
        parser.error(f"there is no part '{sorted(unknown)[0]}'; the parts are {', '.join((*PARTS, *SCRIPTS, GPU))}.")
    set_quiet(True)
    options = Options(smoke=given.smoke, device=given.device, budget=given.budget)
    folder = given.out or (None if given.smoke else RESULTS)
    sheets, failed = [], []
    for part in given.parts or _all_parts(options):
        if part in SCRIPTS:
            if not _script(part, options):
                failed.append(part)
            continue
        sheet, ok = _measured(part, options, folder)
        sheets.append(sheet)
        if not ok:
            failed.append(part)
    print()
    rows: list[Row] = [found for sheet in sheets for found in sheet.rows]
    print(table(rows))
    for sheet in sheets:
        for reason in sheet.missing:
            print(f"not measured: {sheet.part}: {reason}")
    if folder is not None:
        print(f"kept in {folder}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _all_parts(options: Options) -> list[str]:
    """Every part this machine can do; a script of the list only when it is there."""
    import torch

    there = [s for s in SCRIPTS if (HERE / f"{s}.py").is_file() and not options.smoke]
    gpu = [GPU] if torch.cuda.is_available() or options.smoke else []
    return [*PARTS, *there, *gpu]


def _measured(part: str, options: Options, folder: Path | None) -> tuple[Sheet, bool]:
    """The part's sheet, and whether it ran to its end: one part's failure does not cost the others."""
    path = folder / ("speed-gpu.json" if part == GPU else "speed.json") if folder is not None else None
    sheet = Sheet(part, part, path, f"python benchmarks/bench.py {part}")
    sheet.say("starts")
    try:
        module = importlib.import_module(part)
        sheet.title = module.TITLE
        module.measure(sheet, options)
    except Exception as error:
        traceback.print_exc()
        sheet.missing.append(f"stopped by {type(error).__name__}: {error}")
        sheet.write()
        return sheet, False
    sheet.write()
    return sheet, True


def _script(name: str, options: Options) -> bool:
    """Run a script of this folder that is a benchmark of its own; True when it went well or is not there."""
    path = HERE / f"{name}.py"
    if not path.is_file():
        print(f"{name}: not there")
        return True
    command = [sys.executable, str(path), *(["--smoke"] if options.smoke else [])]
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    main()
