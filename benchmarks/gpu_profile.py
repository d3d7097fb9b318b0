"""What one step of the loop asks of the GPU, by the difference between a short and a longer training."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from loops import pneumonia_like
from torch.profiler import ProfilerActivity, profile

from trueread import TrainConfig, fit

LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
CALLS = {
    **dict.fromkeys(LAUNCHES, "kernel launches"),
    "cudaGraphLaunch": "graph launches",
    "cudaMemcpyAsync": "copies",
    "cudaMemsetAsync": "memsets",
    "cudaStreamSynchronize": "waits for the stream",
    "cudaDeviceSynchronize": "waits for the device",
    "cudaEventSynchronize": "waits for an event",
}
MOST = 15  # operators listed


def calls_per_step(config: TrainConfig, *, size: int, few: int, many: int) -> dict[str, Any]:
    """Per step: CUDA calls by kind, microseconds of GPU work, and the operators that take most of the CPU's time.

    few, many: steps of the two trainings; everything that is done once per run or epoch cancels out.
    """
    batch = config.batch_size
    short, long = (_profiled(config, pneumonia_like(n_train=n * batch, n_val=batch, size=size, distinct=64))
                   for n in (few, many))  # fmt: skip
    steps = many - few
    names = {n for n, _ in long["cpu"].most_common(4 * MOST)}
    cpu = Counter({n: (long["cpu"][n] - short["cpu"][n]) / steps for n in names})
    return {
        "calls": {k: round((n - short["calls"][k]) / steps, 2) for k, n in sorted(long["calls"].items())},
        "gpu_us": (long["gpu_us"] - short["gpu_us"]) / steps,
        "cpu_us_by_operator": {n: round(us, 1) for n, us in cpu.most_common(MOST)},
    }


def _profiled(config: TrainConfig, cohort: Any) -> dict[str, Any]:
    fit(cohort, config=config.model_copy(update={"epochs": 1}), quiet=True)  # libraries initialised, kernels chosen
    there = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=there) as found:
        fit(cohort, config=config.model_copy(update={"epochs": 1}), quiet=True)
    calls: Counter[str] = Counter()
    cpu: Counter[str] = Counter()
    gpu_us = 0.0
    for event in found.events() or ():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            if not (getattr(event, "is_user_annotation", False) or event.name.startswith("Optimizer.")):
                gpu_us += event.time_range.elapsed_us()
        else:
            calls[CALLS.get(event.name, "")] += 1
            cpu[event.name] += event.self_cpu_time_total
    del calls[""]
    return {"calls": calls, "cpu": cpu, "gpu_us": gpu_us}
