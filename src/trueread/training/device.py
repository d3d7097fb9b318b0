"""Which processor, how many threads, which precision: chosen from what is there, and said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from trueread.errors import InputError
from trueread.training.processes import processes

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Accelerator = Literal["auto", "cpu", "cuda", "mps"]


def choose_device(device: Accelerator = "auto") -> torch.device:
    """CUDA, then Apple's MPS, then the CPU; or the one asked for. Raises InputError when that one is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(name for name, ok in there.items() if ok))
    if not there[device]:
        found = ", ".join(name for name, ok in there.items() if ok)
        raise InputError(f"device '{device}' was asked for, but this machine has only: {found}; use `device: auto`.")
    return torch.device(device)


def choose_precision(
    precision: Precision, device: torch.device, *, volumes: bool = False
) -> Literal["fp32", "bf16", "fp16"]:
    """bf16 where the hardware multiplies it natively (CUDA since Ampere, CPUs with AVX512-BF16 or AMX), else fp32.

    volumes: for 3-D networks, which train in fp32 on a CPU: there the bf16 gradients of 3-D convolutions on small maps
    (2x2x2) contain uninitialised memory (torch 2.14 with oneDNN, AVX512-BF16).
    """
    if volumes and device.type == "cpu":
        if precision == "bf16":
            raise InputError("bf16 gradients of volumes are wrong on a CPU; use `precision: auto` or fp32.")
        precision = "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise InputError("fp16 does not train on a CPU; use `precision: auto`, bf16 or fp32.")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if device.type == "cpu" and cpu_has_bf16() else "fp32"


def cpu_has_bf16() -> bool:
    """True when the CPU has bf16 dot products; emulated bf16 would be slower than fp32."""
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe()) if probe is not None else False


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context of a forward pass in `precision` ("fp32", "bf16" or "fp16"); weights and inputs stay float32."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


@contextmanager
def forward_pass(device: torch.device, precision: str) -> Iterator[None]:
    """The context of a training forward pass: `precision`, and batch norms that see the batch of all processes."""
    with processes().shared_batch_norm(), autocast(device, precision):
        yield


def own_device(device: Accelerator) -> torch.device:
    """The device of this process: the chosen kind, and of several GPUs the one that is its own."""
    chosen = choose_device(device)
    if chosen.type != "cuda":
        return chosen
    torch.cuda.set_device(processes().local_rank)
    return torch.device("cuda", processes().local_rank)


def describe(device: torch.device, precision: str) -> str:
    """One phrase for the log: "CPU, 2 threads, bf16"."""
    size = processes().size
    return f"{size} processes, each {_one(device, precision)}" if size > 1 else _one(device, precision)


def _one(device: torch.device, precision: str) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {precision}"
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"CPU, {threads} {'thread' if threads == 1 else 'threads'}, {precision}"
    return f"{device.type.upper()}, {precision}"
