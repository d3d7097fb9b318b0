"""Several processes that train one classifier: which one this is, and sums over all of them.

Every process draws the same global batch and takes its own share of it; sums of losses, weights and gradients over the
shares are those of one process with the whole batch. Gradients are added after the backward pass by hand, and not by a
wrapper around the network, so that a method may call the network as often and in whatever order it likes.
"""

from __future__ import annotations

import atexit
import os
import re
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trueread.errors import InputError
from trueread.progress import set_quiet

PATIENCE = timedelta(days=1)  # for the first process, which audits and writes while the others wait


@dataclass(frozen=True)
class Processes:
    """How many processes train together, and which of them this is.

    rank: in 0..size-1; the first one writes files and speaks. local_rank: which GPU of its machine it takes.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def share(self, n: int) -> slice:
        """This process's part of n things in order; the parts differ by at most one in length."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def sum(self, values: Tensor) -> Tensor:
        """`values`, of one shape in every process, added up over them."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def gathered(self, mine: Tensor, n: int) -> Tensor:
        """All n rows, from each process's `share` of them [n_mine,...]."""
        if self.size == 1:
            return mine
        rows = torch.zeros(n, *mine.shape[1:], dtype=mine.dtype, device=mine.device)
        rows[self.share(n)] = mine
        return self.sum(rows)

    def joined(self, mine: Tensor) -> Tensor:
        """The rows of all processes' shares [n_mine,...] of one batch, in order; gradients pass through."""
        if self.size == 1:
            return mine
        n = round(self.sum(torch.tensor(float(len(mine)), device=mine.device)).item())
        rows = mine.new_zeros(n, *mine.shape[1:])
        rows[self.share(n)] = mine
        return _Sum.apply(rows)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up every parameter's gradient over the processes; one that has a gradient nowhere keeps none."""
        if self.size == 1:
            return
        wanted = [p for p in parameters if p.requires_grad]
        there = torch.tensor([p.grad is not None for p in wanted], dtype=torch.float32, device=wanted[0].device)
        flat = torch.cat([there, *((p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in wanted)])
        dist.all_reduce(flat)
        somewhere = flat[: len(wanted)].tolist()
        at = len(wanted)
        for parameter, count in zip(wanted, somewhere, strict=True):
            if count:
                total = flat[at : at + parameter.numel()].view_as(parameter)
                parameter.grad = torch.empty_like(parameter).copy_(total)  # in its strides, as fused steps expect
            at += parameter.numel()

    def same_everywhere(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite `tensors` with those of the first process."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Go on when every process is here."""
        if self.size > 1:
            dist.barrier()

    def shared_batch_norm(self) -> AbstractContextManager[Any]:
        """A context in which batch norms in training mode take mean and variance of the whole batch."""
        return _SharedBatchNorm() if self.size > 1 else nullcontext()


@cache
def processes() -> Processes:
    """This process's place among those that torchrun or SLURM's srun started; joins them when first asked.

    Raises InputError when the variables they set do not fit together.
    """
    variables = _variables()
    if variables is None:
        return Processes()
    rank, size, local = variables
    if not 0 <= rank < size:
        raise InputError(f"rank {rank} of {size} processes cannot be; start them with torchrun or srun.")
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if backend == "nccl":
        torch.cuda.set_device(local)
    dist.init_process_group(backend, rank=rank, world_size=size, timeout=PATIENCE)
    atexit.register(_leave)
    if rank > 0:
        set_quiet(True)
    return Processes(rank, size, local)


def _variables() -> tuple[int, int, int] | None:
    """(rank, size, local rank) as torchrun or srun says; None for a process on its own."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        missing = [v for v in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if v not in os.environ]
        if missing:
            raise InputError(f"WORLD_SIZE is above 1, but {missing[0]} is not set; start with torchrun, or unset both.")
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_RANK"])
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ:  # an srun of several tasks
        job = os.environ.get("SLURM_JOB_ID", "0")[-4:]
        os.environ.setdefault("MASTER_ADDR", first_host(os.environ.get("SLURM_NODELIST", "127.0.0.1")))
        os.environ.setdefault("MASTER_PORT", str(15_000 + int(job)))  # one of its own for each job of a machine
        rank, size, local = (int(os.environ[f"SLURM_{name}"]) for name in ("PROCID", "NTASKS", "LOCALID"))
        return rank, size, local
    return None


def first_host(nodes: str) -> str:
    """The first of SLURM's list of machines: "gpu[07-09,12],cpu3" begins with "gpu07"."""
    found = re.match(r"([^\[,]+)(?:\[(\d+))?", nodes)
    if found is None:
        raise InputError(f"SLURM_NODELIST is '{nodes}', which names no machine; start the processes with srun.")
    return found[1] + (found[2] or "")


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


class _Sum(torch.autograd.Function):
    """A sum over the processes that gradients pass through; its derivative is the sum of theirs."""

    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:
        values = values.clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient.contiguous())


class _SharedBatchNorm(TorchFunctionMode):
    """Every training-mode batch norm inside counts the images of all processes.

    It steps in where all kinds of batch-norm layers meet (`F.batch_norm`), so that no layer has to be replaced:
    torch's own SyncBatchNorm does not run on a CPU and does not know timm's layers.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    images: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.batch_norm`, in training with the moments of all processes' images; images float [B,C,...]."""
    if not training:
        return F.batch_norm(images, running_mean, running_var, weight, bias, False, momentum, eps)
    x = images if images.dtype == torch.float64 else images.float()
    over = [0, *range(2, x.ndim)]
    count = x.new_tensor([x.numel() / x.shape[1]])
    total, count = _Sum.apply(x.sum(over)), _Sum.apply(count)  # in two passes: squares alone would lose digits
    mean = total / count
    shape = [1, -1, *[1] * (x.ndim - 2)]
    centred = x - mean.view(shape)
    variance = _Sum.apply(centred.square().sum(over)) / count
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            unbiased = variance * (count / (count - 1))
            running_mean.lerp_(mean.to(running_mean), momentum)
            running_var.lerp_(unbiased.to(running_var), momentum)
    out = centred * torch.rsqrt(variance + eps).view(shape)
    if weight is not None:
        out = out * weight.to(x).view(shape)
    if bias is not None:
        out = out + bias.to(x).view(shape)
    return out.to(images.dtype)
