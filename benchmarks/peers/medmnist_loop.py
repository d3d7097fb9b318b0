"""A training loop in the style of the MedMNIST experiments: image by image through PIL, a DataLoader, float32, Adam.

Source of the style: Yang et al. 2023, Sci Data 10:41, and the training script published with it: `Dataset` returning a
PIL image, `ToTensor` and `Normalize(0.5, 0.5)` per sample, no augmentation, `loss.item()` in every step. Where there is
a GPU the loader pins its memory and keeps its workers, which the script does not do and which makes it faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


class Pictures(Dataset[tuple[Tensor, np.ndarray]]):
    """images: uint8 [N,1,H,W] or [N,3,H,W]. labels: int64 [N]."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images = images[:, 0] if images.shape[1] == 1 else np.ascontiguousarray(np.moveaxis(images, 1, -1))
        self.labels = labels[:, None]
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean=[0.5], std=[0.5])])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, np.ndarray]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def make_loader(images: np.ndarray, labels: np.ndarray, *, batch_size: int, workers: int, device: torch.device):
    """Shuffled batches of (float [B,C,H,W], int64 [B,1])."""
    gpu = device.type == "cuda"
    return DataLoader(
        Pictures(images, labels), batch_size=batch_size, shuffle=True, num_workers=workers, pin_memory=gpu,
        persistent_workers=gpu and workers > 0,
    )  # fmt: skip


def trainer(network: nn.Module, loader: DataLoader, *, device: torch.device) -> Callable[[], int]:
    """A function that trains one epoch and returns how many images it took."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()

    def epoch() -> int:
        network.train()
        total_loss = []
        for inputs, targets in loader:
            optimizer.zero_grad()
            outputs = network(inputs.to(device, non_blocking=True))
            loss = criterion(outputs, targets.squeeze(1).long().to(device, non_blocking=True))
            total_loss.append(loss.item())
            loss.backward()
            optimizer.step()
        return len(cast(Sized, loader.dataset))

    return epoch
