"""How much of `predict` is spent inside the network: everything else is the price of reading files and telling."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from options import Options
from PIL import Image
from sheet import Aim, Sheet, row
from timing import middle

from trueread import Classifier, load_cohort
from trueread.predicting import predict

TITLE = "Predict: share of the time inside the network, ResNet-18, PNG files of 224 px"
AIM = Aim("ratio", "at least", 0.9)


def measure(sheet: Sheet, options: Options) -> None:
    torch.set_num_threads(2)
    n, side = (20, 64) if options.smoke else (1000, 224)
    cohort = load_cohort("phantom", n_images=20, size=side)
    classifier = Classifier.build("resnet18", cohort=cohort, stem="standard").eval()
    spent = [0.0]
    inside = classifier.network.forward

    def timed(images: torch.Tensor) -> torch.Tensor:
        start = time.perf_counter()
        try:
            return inside(images)
        finally:
            spent[0] += time.perf_counter() - start

    classifier.network.forward = timed  # type: ignore[method-assign]
    pixels = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for i in range(n):
            noisy = cohort.images[i % len(cohort), 0] // 2 + pixels.integers(0, 100, (side, side), np.uint8)
            Image.fromarray(noisy).save(Path(folder) / f"{i}.png")
        shares, seconds = [], []
        for _ in range(1 if options.smoke else 3):
            spent[0] = 0.0
            start = time.perf_counter()
            predict(classifier, [folder])
            seconds.append(time.perf_counter() - start)
            shares.append(spent[0] / seconds[-1])
    sheet.add(
        row(f"predict, {n} PNG files of {side} px", "images/s", n / float(np.median(seconds)),
            middle(np.array(shares)), kind="share", aim=AIM)
    )  # fmt: skip
