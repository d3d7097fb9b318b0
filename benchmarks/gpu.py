"""Training on a GPU: the loop beside DataLoader loops, bare steps, captured steps and the measured bf16 matrix rate.

Written to run in a few minutes on a machine it has never seen: every row is on disk as soon as it is measured, a piece
that fails or no longer fits in the budget is named with its reason, and the rest goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import torch
from budget import Bench
from gpu_profile import calls_per_step
from loops import N_TRAIN, N_VAL, Raced, network_for, pneumonia_like, precision_of, race
from options import Options
from peers import bare_gpu
from sheet import Aim, Row, Sheet, row
from timing import Middle, Work, in_turns, middle

from trueread import Cohort, TrainConfig
from trueread.training.augment import recipes
from trueread.training.device import describe

TITLE = "Training on a GPU: ResNet-18 (standard stem), grey, batch 128"
REPEATED = 10  # so many times 4,708 images at 28 px, where an epoch would be over before a DataLoader's workers are up


@dataclass
class Field:
    """The images of one size and what was found on them."""

    bench: Bench
    size: int
    cohort: Cohort
    config: TrainConfig
    flops: float = 0.0
    raced: Raced | None = None
    best_peer: str = ""

    @property
    def steps(self) -> int:
        """That a bare variant takes in its turn: as many as an epoch of 4,708 images has."""
        return 2 if self.bench.options.smoke else 37

    @property
    def rounds(self) -> int:
        return 1 if self.bench.options.smoke else 3


def measure(sheet: Sheet, options: Options) -> None:
    """What matters most first; compiling, which takes longest, last."""
    bench = Bench(sheet, options)
    torch.manual_seed(0)
    config = TrainConfig(
        backbone="compact" if options.smoke else "resnet18", stem="standard", select="last", augment="none",
        device=options.device, batch_size=8 if options.smoke else 128,
    )  # fmt: skip
    device, precision = precision_of(config)
    sheet.device, sheet.precision = describe(device, precision), precision
    sheet.detail |= _facts(device) | {"precision": precision, "batch_size": config.batch_size}
    sheet.say(f"{describe(device, precision)}, torch {torch.__version__}, budget {options.budget:.0f} s")

    peak = bench.attempt("bf16 matrix rate", 5, lambda: matrix_rate(device, options)) or float("nan")
    sheet.detail["matrix_teraflops"] = round(peak / 1e12, 1)
    sheet.say(f"8192 x 8192 x 8192 in bf16: {peak / 1e12:.0f} TFLOP/s")
    fields = []
    for size in (28,) if options.smoke else (28, 224):
        made = bench.attempt(f"{size} px: making images", 15, lambda size=size: _field(bench, size, config))
        if made is not None:
            fields.append(made)
            bench.attempt(f"{size} px: the loop and its rivals", 40, lambda made=made: against_rivals(made, peak))
    for made in fields:
        bench.attempt(f"{made.size} px: with augmentation", 20, lambda made=made: with_augmentation(made))
        bench.attempt(f"{made.size} px: other settings of the loop", 20, lambda made=made: other_settings(made))
        bench.attempt(f"{made.size} px: short epochs", 10, lambda made=made: short_epochs(made))
        bench.attempt(f"{made.size} px: what the loop calls", 20, lambda made=made: profiled(made))
    for made in fields:
        bench.attempt(f"{made.size} px: compiled", 75, lambda made=made: compiled(made))


def matrix_rate(device: torch.device, options: Options) -> float:
    """Floating-point operations per second of a square bf16 matrix product, the best of several turns."""
    n = 256 if options.smoke else 8192
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))

    def work() -> None:
        for _ in range(10):
            c = a @ b
        c[0, 0].item()

    return 10 * 2 * n**3 / float(in_turns({"": work}, rounds=8)[""].min())


def against_rivals(made: Field, peak: float) -> None:
    """The loop without augmentation, DataLoader loops, and the bare variants that need no compiler, all in turns."""
    bench, sheet = made.bench, made.bench.sheet
    given = _given(made)
    made.flops = bare_gpu.flops_per_image(_network(made), given)
    sheet.detail[f"flops_per_image_{made.size}"] = made.flops
    names = bare_gpu.UNCOMPILED if made.cohort.channels == 1 else bare_gpu.UNCOMPILED[:1] + bare_gpu.UNCOMPILED[2:]
    bare: dict[str, Work] = {}
    for name in names:  # captured before any DataLoader has a thread that could disturb it
        work = bench.attempt(f"{made.size} px: preparing '{name}'", 10, lambda name=name: _bare(made, name, given))
        if work is not None:
            bare[name] = work
    workers = (0,) if bench.options.smoke else (0, 4, 8)
    peers: dict[str, Work] = {}
    for w in workers:
        loader = bench.attempt(f"{made.size} px: a DataLoader loop, {w} workers", 5, lambda w=w: _peer(made, w))
        if loader is not None:
            peers[f"{w} workers"] = loader
    made.raced = raced = race(made.cohort, made.config, bare | peers, rounds=made.rounds)
    sheet.missing += [f"{made.size} px: {name}: {reason}" for name, reason in raced.failed.items()]
    peers, bare = ({n: w for n, w in works.items() if n in raced.rivals} for works in (peers, bare))
    made.best_peer = min(peers, key=lambda p: float(raced.rivals[p].min()), default="")
    for name in peers:
        aim = Aim("ratio", "at least", 10) if made.size == 28 and name == made.best_peer else None
        _add(made, "loop", raced, _ratio(made, raced, name), name, aim=aim)
    for name in bare:
        _add(made, "loop", raced, _ratio(made, raced, name), name)
    for what, rate in (
        ("loop", raced.rate(raced.training)),
        *((f"bare step, {n}", _rate(made, raced, n)) for n in bare),
    ):
        done = rate * made.flops
        sheet.add(
            Row(f"{made.size} px, {what}: its arithmetic", "TFLOP/s", done / 1e12, ratio=done / peak, kind="share",
                peer="bf16 matrix product of 8192", theirs=peak / 1e12)
        )  # fmt: skip


def with_augmentation(made: Field) -> None:
    """The loop with the cohort's recipe beside the fastest DataLoader loop, which does not augment."""
    name = made.best_peer or "0 workers"
    config = made.config.model_copy(update={"augment": "auto"})
    raced = race(made.cohort, config, {name: _peer(made, int(name.split()[0]))}, rounds=made.rounds)
    aim = Aim("ratio", "at least", 10) if made.size == 28 else None
    _add(made, "loop with its recipe", raced, _ratio(made, raced, name), name, aim=aim)


def other_settings(made: Field) -> None:
    """The loop with each of its own switches for speed set otherwise, in case it has any."""
    settings = _switches()
    made.bench.sheet.say(f"switches of the loop: {', '.join(f'{n}={v}' for n, v in settings) or 'none'}")
    for name, value in settings:
        raced = race(made.cohort, made.config.model_copy(update={name: value}), {}, rounds=made.rounds)
        before = made.raced.rate(made.raced.training) if made.raced else None
        now = raced.rate(raced.training)
        made.bench.sheet.add(
            Row(f"{made.size} px, loop with {name}={value}", "images/s", now, ratio=now / before if before else None,
                peer="loop as it is, earlier in this run", theirs=before)
        )  # fmt: skip


def _switches() -> list[tuple[str, Any]]:
    """Fields of the configuration that are about speed, with the values that are not their default."""
    found = []
    for name, info in TrainConfig.model_fields.items():
        if isinstance(info.default, bool):
            found.append((name, not info.default))
        elif any(word in name for word in ("graph", "compile", "capture")):
            found += [(name, v) for v in get_args(info.annotation) if v != info.default]
    return found


def short_epochs(made: Field) -> None:
    """What an epoch of 4,708 images spends besides training: validation, and keeping the best weights."""
    n_train, n_val = (24, 8) if made.bench.options.smoke else (N_TRAIN, N_VAL)
    cohort = pneumonia_like(n_train=n_train, n_val=n_val, size=made.size, distinct=64)
    for rule in ("last", "auroc"):
        raced = race(cohort, made.config.model_copy(update={"select": rule}), {}, rounds=1 + made.rounds)
        made.bench.sheet.add(
            row(f"{made.size} px, validation's share of an epoch", "ms",
                1e3 * float((raced.whole - raced.training).mean()), middle(1 - raced.training / raced.whole),
                kind="share", peer="epoch", theirs=1e3 * float(raced.whole.mean()),
                note=f"{n_train:,} images, {n_val} to validate, select: {rule}", aim=Aim("ratio", "at most", 0.10))
        )  # fmt: skip


def profiled(made: Field) -> None:
    """Launches, copies and waits per step, and how busy the GPU is: says where the loop's time goes."""
    few, many = (2, 4) if made.bench.options.smoke else (5, 20)
    found = calls_per_step(made.config, size=made.size, few=few, many=many)
    made.bench.sheet.detail[f"calls_per_step_{made.size}"] = found
    wall = 1e6 * float(made.raced.training.mean()) / (made.raced.n_images / made.config.batch_size) if made.raced else 0
    made.bench.sheet.say(f"per step: {found['calls']}; GPU busy {found['gpu_us']:.0f} us of {wall:.0f} us")
    if wall and found["gpu_us"]:
        made.bench.sheet.add(
            Row(f"{made.size} px, loop: GPU busy", "us", found["gpu_us"], ratio=found["gpu_us"] / wall, kind="share",
                peer="step", theirs=wall)
        )  # fmt: skip


def compiled(made: Field) -> None:
    """Bare compiled steps, eager and captured: what torch.compile would be worth."""
    given = _given(made)
    works = {
        name: _bare(made, name, given)
        for name in (bare_gpu.EAGER, bare_gpu.STEP, bare_gpu.COMPILED, bare_gpu.COMPILED_STEP)
    }
    taken = in_turns(works, rounds=1 if made.bench.options.smoke else 5)
    images = made.steps * made.config.batch_size
    for name in works:
        if name != bare_gpu.EAGER:
            rates = {n: images / middle(taken[n]).value for n in (name, bare_gpu.EAGER)}
            made.bench.sheet.add(
                row(f"{made.size} px, bare step: {name}", "images/s", rates[name],
                    middle(taken[bare_gpu.EAGER] / taken[name]), peer="bare step: eager", theirs=rates[bare_gpu.EAGER])
            )  # fmt: skip


def _add(made: Field, what: str, raced: Raced, found: Middle, rival: str, *, aim: Aim | None = None) -> None:
    peer = f"DataLoader loop, fp32, {rival}" if rival.endswith("workers") else f"bare step: {rival}"
    made.bench.sheet.add(
        row(f"{made.size} px, {what}", "images/s", raced.rate(raced.training), found, peer=peer,
            theirs=_rate(made, raced, rival), aim=aim)
    )  # fmt: skip


def _images(made: Field, raced: Raced, rival: str) -> int:
    """That a rival takes in its turn."""
    return raced.n_images if rival.endswith("workers") else made.steps * made.config.batch_size


def _rate(made: Field, raced: Raced, rival: str) -> float:
    return _images(made, raced, rival) / middle(raced.rivals[rival]).value


def _ratio(made: Field, raced: Raced, rival: str) -> Middle:
    """How many images the loop takes for one of the rival's."""
    return middle((raced.rivals[rival] / _images(made, raced, rival)) / (raced.training / raced.n_images))


def _field(bench: Bench, size: int, config: TrainConfig) -> Field:
    if bench.options.smoke:
        return Field(bench, size, pneumonia_like(n_train=24, n_val=8, size=size), config)
    n = N_TRAIN * REPEATED if size == 28 else N_TRAIN
    return Field(
        bench, size, pneumonia_like(n_train=n, n_val=N_VAL, size=size, distinct=2000 if size == 28 else 128), config
    )


def _network(made: Field) -> Any:
    return network_for(made.cohort, made.config, precision_of(made.config)[0]).network


def _given(made: Field) -> bare_gpu.Given:
    device, precision = precision_of(made.config)
    classifier, rows = network_for(made.cohort, made.config, device), made.cohort.rows("train")[:N_TRAIN]
    return bare_gpu.Given(
        torch.from_numpy(made.cohort.images[rows]).to(device), torch.from_numpy(made.cohort.labels[rows]).to(device),
        made.cohort.white, classifier.mean, classifier.std, made.config.batch_size, precision, recipes()["radiograph"],
    )  # fmt: skip


def _bare(made: Field, name: str, given: bare_gpu.Given) -> Work:
    work = bare_gpu.variant(name, _network(made), given, steps=made.steps)
    work()  # what cannot run is found out here
    return work


def _peer(made: Field, workers: int) -> Work:
    from peers import medmnist_loop  # torchvision, which a machine may lack

    device, _ = precision_of(made.config)
    rows = made.cohort.rows("train")
    loader = medmnist_loop.make_loader(
        made.cohort.images[rows], made.cohort.labels[rows], batch_size=made.config.batch_size, workers=workers,
        device=device,
    )  # fmt: skip
    return medmnist_loop.trainer(_network(made), loader, device=device)


def _facts(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"gpu": None}
    p = torch.cuda.get_device_properties(device)
    return {
        "gpu": p.name, "capability": f"{p.major}.{p.minor}", "memory_gib": round(p.total_memory / 2**30),
        "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
    }  # fmt: skip
