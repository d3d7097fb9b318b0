"""Augmentation on the CPU: its share of a compact training step, and beside kornia, torchvision and one resampling."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from options import Options
from sheet import Aim, Sheet, row
from timing import Work, in_turns, middle
from torch import Tensor, nn

from trueread.model.compact import Compact
from trueread.training.augment import augment_batch, recipes
from trueread.training.config import TrainConfig
from trueread.training.device import autocast, choose_precision
from trueread.training.schedule import make_optimizer

TITLE = "Augmentation on a CPU: the recipe 'radiograph', batch 64"
CPU = torch.device("cpu")


def measure(sheet: Sheet, options: Options) -> None:
    """28 and 64 px, all rivals in turns."""
    batch, rounds, least = (8, 2, 0.0) if options.smoke else (64, 15, 0.1)
    for size in (28, 64):
        images = torch.rand(batch, 1, size, size)
        works: dict[str, Work] = {"ours": ours(images), "step": step(images), "one resampling": resampling(images)}
        for name, make in (("kornia", kornia_same), ("torchvision v2", torchvision_same)):
            with sheet.attempt(f"{name}, {size} px"):
                works[name] = make(images)
        taken = in_turns(works, rounds=rounds, least=least)
        ms = {name: 1e3 * middle(t).value for name, t in taken.items()}
        share = middle(taken["ours"] / (taken["ours"] + taken["step"]))
        sheet.add(
            row(f"{size} px, share of a compact training step", "ms", ms["ours"], share, kind="share",
                peer="forward, backward, step", theirs=ms["step"], aim=Aim("ratio", "at most", 0.10))
        )  # fmt: skip
        for name in [n for n in works if n in PEERS]:
            found = middle(taken[name] / taken["ours"])
            sheet.add(row(f"{size} px", "ms", ms["ours"], found, peer=PEERS[name], theirs=ms[name]))


PEERS = {
    "one resampling": "affine_grid and grid_sample alone",
    "kornia": "kornia, the same changes",
    "torchvision v2": "torchvision v2, image by image",
}


def ours(images: Tensor) -> Work:
    recipe, generator = recipes()["radiograph"], torch.Generator().manual_seed(0)
    return lambda: augment_batch(images, recipe, generator)


def resampling(images: Tensor) -> Work:
    """What any geometric augmentation has to do: one grid and one look-up per batch, parameters given."""
    theta = torch.eye(2, 3).expand(len(images), 2, 3) + 0.1 * torch.randn(len(images), 2, 3)

    def work() -> Tensor:
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    return work


def kornia_same(images: Tensor) -> Work:
    """The same changes by kornia, per-sample parameters."""
    import kornia.augmentation as K

    changes: Callable[[Tensor], Tensor] = K.AugmentationSequential(
        K.RandomAffine(10, translate=(0.05, 0.05), scale=(0.9, 1.1), padding_mode="reflection", p=1.0),
        K.RandomBrightness((0.92, 1.08), p=1.0),
        K.RandomContrast((0.85, 1.15), p=1.0),
        K.RandomGamma((0.8, 1.2), p=1.0),
        K.RandomGaussianNoise(std=0.02, p=1.0),
    )
    return lambda: changes(images)


def torchvision_same(images: Tensor) -> Work:
    """The same changes but gamma by torchvision v2, image by image, because its parameters are one draw per call."""
    from torchvision.transforms import v2

    changes = v2.Compose(
        [
            v2.RandomAffine(10, translate=(0.05, 0.05), scale=(0.9, 1.1), interpolation=v2.InterpolationMode.BILINEAR),
            v2.ColorJitter(brightness=0.08, contrast=0.15),
            v2.GaussianNoise(sigma=0.02),
        ]
    )
    return lambda: torch.stack([changes(image) for image in images])


def step(images: Tensor) -> Work:
    """One training step of the compact network, as the loop does it."""
    size, precision = images.shape[-1], choose_precision("auto", CPU)
    network = nn.Sequential(Compact(channels=1, size=size), nn.Linear(160, 2)).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(network, (), TrainConfig())
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(len(images)) % 2

    def work() -> None:
        with autocast(CPU, precision):
            logits = network(images)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return work
