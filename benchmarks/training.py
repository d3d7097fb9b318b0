"""Images per second of the loop beside a MedMNIST-style loop and the bare training step, on the CPU."""

from __future__ import annotations

import torch
from loops import N_TRAIN, N_VAL, Raced, network_for, pneumonia_like, precision_of, race
from options import Options
from peers import bare_loop, medmnist_loop
from sheet import Aim, Sheet, row
from timing import Work, middle

from trueread import Cohort, TrainConfig
from trueread.training.batches import unit_intensities

TITLE = "Training on a CPU: ResNet-18 (standard stem), 28 px grey, batch 128"
PEER = "MedMNIST-style loop"
SHORT = 1536  # images of the races that only add a variant


def measure(sheet: Sheet, options: Options) -> None:
    """The loop without augmentation against everything, then with its recipe, then in float32."""
    rounds = 1 if options.smoke else 3
    config = _config(options, augment="none")
    cohort = _cohort(options, N_TRAIN, N_VAL)
    _, precision = precision_of(config)
    sheet.detail |= {"precision": precision, "threads": torch.get_num_threads(), "rounds": rounds}
    sheet.say(f"{len(cohort.rows('train'))} images, {precision}, {torch.get_num_threads()} threads, {rounds} rounds")

    workers = (0,) if options.smoke else (0, 2)
    rivals = {"bare": _bare(cohort, config)} | {f"workers {w}": _medmnist(cohort, config, w) for w in workers}
    full = race(cohort, config, rivals, rounds=rounds)
    for w in workers:
        _against(sheet, full, f"workers {w}", f"no augmentation, {precision}", aim=1.3)
    overhead = middle(full.training / full.rivals["bare"] - 1)
    sheet.add(
        row("the loop's own work", "images/s", full.rate(full.training), overhead, kind="share",
            aim=Aim("ratio", "at most", 0.05), peer=f"bare step, {precision}", theirs=full.rate(full.rivals["bare"]),
            note="time above forward, backward, step"),
        row("validation's share of an epoch", "s", float(full.whole.mean() - full.training.mean()),
            middle(1 - full.training / full.whole), kind="share", aim=Aim("ratio", "at most", 0.10), peer="epoch",
            theirs=float(full.whole.mean()), note=f"{len(cohort.rows('val'))} images after each epoch"),
    )  # fmt: skip

    short = _cohort(options, SHORT, 128)
    for what, changed in (("recipe 'radiograph'", {"augment": "auto"}), ("no augmentation", {"precision": "fp32"})):
        variant = config.model_copy(update=changed)
        raced = race(short, variant, {"workers 0": _medmnist(short, variant, 0)}, rounds=rounds)
        aim = 1.3 if "augment" in changed else None
        _against(sheet, raced, "workers 0", f"{what}, {precision_of(variant)[1]}", aim=aim)


def _config(options: Options, **changed: object) -> TrainConfig:
    tiny = {"backbone": "compact", "batch_size": 16}
    asked = tiny if options.smoke else {"backbone": "resnet18", "batch_size": 128}
    return TrainConfig(stem="standard", select="last", device="cpu", **asked, **changed)


def _cohort(options: Options, n_train: int, n_val: int) -> Cohort:
    return pneumonia_like(n_train=32, n_val=16) if options.smoke else pneumonia_like(n_train=n_train, n_val=n_val)


def _medmnist(cohort: Cohort, config: TrainConfig, workers: int) -> Work:
    device = torch.device(config.device)
    rows = cohort.rows("train")
    loader = medmnist_loop.make_loader(
        cohort.images[rows], cohort.labels[rows], batch_size=config.batch_size, workers=workers, device=device
    )
    return medmnist_loop.trainer(network_for(cohort, config, device).network, loader, device=device)


def _bare(cohort: Cohort, config: TrainConfig) -> Work:
    device, precision = precision_of(config)
    made, rows = network_for(cohort, config, device), cohort.rows("train")
    images = (unit_intensities(cohort.images[rows], cohort.white) - made.mean) / made.std
    labels = torch.from_numpy(cohort.labels[rows])
    return bare_loop.trainer(
        made.network, images, labels, batch_size=config.batch_size, precision=precision, device=device
    )


def _against(sheet: Sheet, raced: Raced, rival: str, what: str, *, aim: float | None) -> None:
    theirs, goal = raced.rivals[rival], None if aim is None else Aim("ratio", "at least", aim)
    sheet.add(
        row(what, "images/s", raced.rate(raced.training), middle(theirs / raced.training),
            peer=f"{PEER}, fp32, {rival}", theirs=raced.rate(theirs), aim=goal)
    )  # fmt: skip
