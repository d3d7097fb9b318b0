"""The corruptions of MedMNIST-C beside their authors' package: images a second, and how far the results lie apart.

medmnistc 0.1.0 is asked image by image, as it works. It pins old versions of other packages, so it is no extra of this
one: `pip install --no-deps --target PEERS medmnistc wand opencv-python-headless scikit-image imageio tifffile
lazy-loader`, Debian's libmagickwand, and PYTHONPATH=PEERS. Its motion blur calls numpy.fromstring for bytes, which
numpy 2 has not; that call is mended here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from options import Options
from PIL import Image
from sheet import Aim, Sheet, row
from timing import Work, in_turns, middle
from torch import Tensor

from trueread import load_cohort
from trueread.shift.corruption import corruption, corruptions_for

TITLE = "Corruptions beside medmnistc, 224 px, colour, level 3, one thread"
LEVEL = 3
SETS = {"derma": "dermamnist", "path": "pathmnist", "organ": "organamnist"}  # ours: theirs
RANDOM = ("noise", "motion-blur", "stain-deposit", "bubble", "characters")  # compared by their moments
NAMES = {"gamma-up": "gamma_corr_up", "gamma-down": "gamma_corr_down"}


def measure(sheet: Sheet, options: Options) -> None:
    """Every corruption of three lists once, then all of a list."""
    torch.set_num_threads(1)
    images = pictures(4 if options.smoke else 32)
    pictures_in_pil = [Image.fromarray(i) for i in (images * 255).byte().permute(0, 2, 3, 1).numpy()]
    seen: set[str] = set()
    for ours, theirs in SETS.items():
        with sheet.attempt(f"medmnistc, list of {ours}"):
            peers = peers_of(theirs)
            works: dict[str, Work] = {}
            for name in corruptions_for(ours):
                works[f"ours {name}"] = partial(apply_ours, ours, name, images)
                works[f"theirs {name}"] = partial(apply_theirs, peers[name], pictures_in_pil)
            taken = in_turns(works, rounds=1 if options.smoke else 3)
            for name in corruptions_for(ours):
                if name not in seen:
                    seen.add(name)
                    note = apart(name, apply_ours(ours, name, images), apply_theirs(peers[name], pictures_in_pil))
                    add(sheet, name, taken[f"ours {name}"], taken[f"theirs {name}"], len(images), note=note)
            totals = [sum(taken[f"{who} {n}"] for n in corruptions_for(ours)) for who in ("ours", "theirs")]
            n = len(images) * len(corruptions_for(ours))
            add(sheet, f"all of the list of {ours}", *totals, n, aim=Aim("ratio", "at least", 10))


def add(sheet: Sheet, what: str, ours: np.ndarray, theirs: np.ndarray, n: int, **more: object) -> None:
    sheet.add(
        row(what, "images/s", n / middle(ours).value, middle(theirs / ours), peer="medmnistc",
            theirs=n / middle(theirs).value, **more)
    )  # fmt: skip


def pictures(n: int) -> Tensor:
    """float [n,3,224,224] in [0,1]: phantoms, each channel with a contrast of its own."""
    cohort = load_cohort("phantom", n_images=n, size=224)
    grey = torch.from_numpy(cohort.images.astype(np.float32)) / cohort.white
    return torch.cat([grey.pow(g) for g in (0.7, 1.0, 1.5)], dim=1)


def peers_of(set_name: str) -> dict[str, Callable[[Image.Image], np.ndarray]]:
    """By our names, what their package does to one picture."""
    from medmnistc.corruptions.registry import CORRUPTIONS_DS

    np.fromstring = lambda data, kind: np.frombuffer(data, kind)  # type: ignore[assignment]
    theirs = CORRUPTIONS_DS[set_name]
    found = {}
    for name in corruptions_for({v: k for k, v in SETS.items()}[set_name]):
        asked = theirs[NAMES.get(name, name.replace("-", "_"))]
        asked.rng = np.random.default_rng(0)
        found[name] = partial(asked.apply, severity=LEVEL - 1)
    return found


def apply_ours(set_name: str, name: str, images: Tensor) -> Tensor:
    return corruption(set_name, name, LEVEL)(images, [f"image {i}" for i in range(len(images))])


def apply_theirs(apply: Callable[[Image.Image], np.ndarray], given: list[Image.Image]) -> Tensor:
    made = np.stack([np.asarray(apply(picture)) for picture in given])
    return torch.from_numpy(made.astype(np.float32) / 255).permute(0, 3, 1, 2)


def apart(name: str, ours: Tensor, theirs: Tensor) -> str:
    """How far the results lie apart, in grey levels; of random ones the means and standard deviations."""
    if any(name.endswith(kind) for kind in RANDOM):
        moments = [f"{255 * f(ours):.1f} and {255 * f(theirs):.1f}" for f in (torch.mean, torch.std)]
        return f"grey levels: mean {moments[0]}, sd {moments[1]}"
    return f"mean absolute difference {255 * (ours - theirs).abs().mean():.2f} grey levels"
