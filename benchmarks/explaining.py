"""Grad-CAM beside the grad-cam package, on the same network: images per second, and whether the maps are the same.

The package is taken from the path (PYTHONPATH) when it is installed elsewhere, for it pins an OpenCV of its own:
    pip install --target FOLDER --no-deps grad-cam ttach opencv-python-headless tqdm
"""

from __future__ import annotations

from typing import Any

import torch
from options import Options
from sheet import Aim, Sheet, row
from timing import in_turns, middle

from trueread import Classifier, load_cohort
from trueread.model.explain import grad_cam

TITLE = "Grad-CAM of a batch beside the grad-cam package, ResNet-18"
AIM = Aim("ratio", "at least", 3.0)


class _Logits(torch.nn.Module):
    """The classifier as the package expects a network: logits alone, of normalised images."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.network, self.mean, self.std = classifier.network, classifier.mean, classifier.std

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network((images - self.mean) / self.std)  # type: ignore[no-any-return]


def measure(sheet: Sheet, options: Options) -> None:
    """The package stretches each map from 0 to 1; ours are stretched too before they are compared."""
    try:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError as error:
        sheet.missing.append(f"grad-cam is not installed ({error})")
        return
    torch.set_num_threads(2)
    torch.manual_seed(0)
    side, n = (64, 8) if options.smoke else (224, 16)
    cohort = load_cohort("phantom", n_images=20, size=side)
    classifier = Classifier.build("resnet18", cohort=cohort, stem="standard").eval()
    images, target = torch.rand(n, 1, side, side), torch.zeros(n, dtype=torch.int64)
    layer = "layer4"
    wrapped = _Logits(classifier)
    module: Any = classifier.network.get_submodule(classifier.taps[layer][0])
    theirs = GradCAM(model=wrapped, target_layers=[module])
    targets = [ClassifierOutputTarget(0)] * n
    ours = grad_cam(classifier, images, target, layer=layer).maps
    scaled = ours - ours.flatten(1).amin(1)[:, None, None]
    scaled = scaled / scaled.flatten(1).amax(1).clamp_min(1e-7)[:, None, None]
    apart = float((scaled - torch.from_numpy(theirs(input_tensor=images, targets=targets))).abs().mean())
    taken = in_turns(
        {
            "ours": lambda: grad_cam(classifier, images, target, layer=layer),
            "theirs": lambda: theirs(input_tensor=images, targets=targets),
        },
        rounds=1 if options.smoke else 9,
    )  # fmt: skip
    sheet.add(
        row(f"Grad-CAM, {n} images of {side} px (maps {apart:.1e} apart)", "images/s", n / middle(taken["ours"]).value,
            middle(taken["theirs"] / taken["ours"]), peer="grad-cam", theirs=n / middle(taken["theirs"]).value, aim=AIM)
    )  # fmt: skip
