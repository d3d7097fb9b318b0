"""What the audits of shortcuts say of networks whose shortcut is known: small ones, trained on the phantom.

    python benchmarks/shortcut_audits.py [reliance|layers|power]

Writes results/shortcut-audits.json after every network (power: every run of the audit) and goes on from there; without
the file all is measured anew. The seed of a row is that of its phantom, its planting and its training alike.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from trueread import TrainConfig, fit, load_cohort
from trueread.audit.base import build_audits, run_audits
from trueread.audit.entered_cue import NEVER
from trueread.audit.finding import Finding, table_to_json
from trueread.audit.subject import Subject
from trueread.cohort import Cohort
from trueread.files import plain, write_json
from trueread.progress import set_quiet
from trueread.record import environment, today
from trueread.shift.planting import planted, planting

RESULT = Path(__file__).resolve().parents[1] / "results" / "shortcut-audits.json"
MOST = {"normal": 0.05, "opacity": 0.95}
HALF = {"normal": 0.0, "opacity": 0.5}


@dataclass(frozen=True)
class Network:
    """What is trained by plain training (`erm`), on how many images, and which cue goes along with a class in them."""

    n_images: int
    size: int
    epochs: int
    seed: int
    cue: str = "nothing"
    severity: float | None = None
    prevalence: Mapping[str, float] | None = None

    def cohort(self) -> Cohort:
        cohort = load_cohort("phantom", n_images=self.n_images, size=self.size, seed=self.seed)
        if self.prevalence is None:
            return cohort
        what = planting(cohort, self.cue, prevalence=self.prevalence, seed=self.seed, severity=self.severity)
        return planted(cohort, what)

    def asked(self, *audits: str) -> list[Finding]:
        """Train it, and what the audits say of it on the clean test images."""
        cohort = self.cohort()
        config = TrainConfig(epochs=self.epochs, device="cpu", threads=1)
        trained = fit(cohort, config=config, seed=self.seed).classifier
        return run_audits(Subject.of(trained, cohort), build_audits(audits))


@dataclass(frozen=True)
class Power:
    """A run of shortcut-power with its default options but for the strengths."""

    n_images: int
    size: int
    seed: int
    strengths: tuple[float, ...]


SIZES = ((1200, 28, 4, 0), (1200, 28, 8, 1), (1200, 28, 8, 2), (600, 64, 4, 0), (900, 64, 5, 1))
RELIANCE = [
    *(Network(*size) for size in SIZES),
    *(Network(*size, "square", 1.0, MOST) for size in SIZES),
    Network(1200, 28, 8, 0, "text", 0.5, MOST),
    Network(1200, 28, 4, 0, "ruler", 0.5, MOST),
    *(Network(240, 28, 1, seed) for seed in (0, 1)),  # which hardly learned anything
]
CUES = (("square", 1.0), ("gaussian-noise", 0.5))
LAYERS = [
    *(Network(900, 64, 5, seed) for seed in (1, 2)),
    *(Network(900, 64, 5, seed, *cue, share) for share in (MOST, HALF) for cue in CUES for seed in (1, 2)),
]
POWER = [
    Power(1200, 28, 0, (1.0, 0.5, 0.25, 0.125, 0.06, 0.03)),
    Power(1200, 64, 0, (1.0, 0.5, 0.25, 0.125)),
]


def reliance(network: Network) -> dict[str, Any]:
    """How far the worst local cue of the library moves the network, the two marks in a corner, and the planted cue."""
    performance, found = network.asked("performance", "shortcut-reliance")
    library = found.tables["Per cue, severity 0.5"]
    local = library[library["kind"] == "local"].set_index("cue")["reliance"]
    told = {
        "auroc": performance.measures["auroc"].estimate,
        "local": found.measures["local"].estimate,
        "square": local["square"],
        "text": local["text"],
    }
    if "planted" in found.measures:
        told["planted"] = found.measures["planted"].estimate
    return {"worst": max(local.index, key=lambda cue: local[cue].value), **{k: e.to_json() for k, e in told.items()}}


def layers(network: Network) -> dict[str, Any]:
    """Where each cue that the network was asked about is settled, read and used."""
    [found] = network.asked("shortcut-layers")
    carried: dict[str, dict[str, Any]] = {}
    for row in records(found.tables["Per cue and layer"]):
        if row["layer"] != NEVER:
            carried.setdefault(row["cue"], {})[row["layer"]] = row["share of reliance carried"]
    return {"cues": [row | {"carried": carried[row["cue"]]} for row in records(found.tables["Per cue"])]}


def power(run: Power) -> dict[str, Any]:
    """The tables of shortcut-power, and its headline."""
    cohort = load_cohort("phantom", n_images=run.n_images, size=run.size, seed=run.seed)
    subject = Subject("phantom", cohort, cohort.rows("test"), [], cohort.rows("val"), seed=run.seed)
    [found] = run_audits(subject, build_audits([{"name": "shortcut-power", "strengths": run.strengths}]))
    return {
        "headline": found.measures["local-not-planted"].estimate.to_json(),
        "planted": records(found.tables["Planted"]),
        "not_planted": records(found.tables["Not planted"]),
    }


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    told = table_to_json(table)
    return [dict(zip(told["columns"], row, strict=True)) for row in told["rows"]]


PARTS: dict[str, tuple[Sequence[Any], Callable[[Any], dict[str, Any]]]] = {
    "reliance": (RELIANCE, reliance),
    "layers": (LAYERS, layers),
    "power": (POWER, power),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=list(PARTS), help="all by default")
    part = parser.parse_args().part
    torch.set_num_threads(1)
    set_quiet(True)
    done = json.loads(RESULT.read_text())["parts"] if RESULT.is_file() else {}
    for name in [part] if part else PARTS:
        settings, measure = PARTS[name]
        known = {json.dumps(row["setting"]): row for row in done.get(name, {"rows": []})["rows"]}
        for setting in settings:
            told = plain(asdict(setting))
            if json.dumps(told) in known:
                continue
            start = time.perf_counter()
            found = measure(setting)
            seconds = time.perf_counter() - start
            known[json.dumps(told)] = {"setting": told, **found, "seconds": round(seconds, 1)}
            print(f"{name}: {told}, {seconds:.0f} s", flush=True)
            done[name] = {
                "command": f"python benchmarks/shortcut_audits.py {name}",
                "date": today(),
                "environment": environment(device="CPU, 1 thread"),
                "seconds": round(sum(row["seconds"] for row in known.values()), 1),
                "rows": list(known.values()),
            }
            parts = {n: done[n] for n in PARTS if n in done}
            write_json(RESULT, {"title": "Shortcut audits on the phantom", "parts": parts})


if __name__ == "__main__":
    main()
