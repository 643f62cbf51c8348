"""One training process per GPU: starting them, equal weights, summed gradients, one clock. It knows no network."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which of how many processes this is, and its device. Rank 0 writes files, judges and tells the time."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def agree(self, *values: float) -> list[float]:
        """Rank 0's values on every rank; waits for the device, so not to be called in every step."""
        if self.count == 1:
            return list(values)
        shared = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.broadcast(shared, 0)
        out: list[float] = shared.tolist()
        return out

    def equalise(self, tensors: Sequence[Tensor]) -> None:
        """Rank 0's weights on every rank."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)

    def meet(self) -> None:
        """Waits for all ranks."""
        self.agree(0.0)


def run(main: Callable[[Ranks, Any], None], args: Any, *, device: torch.device, count: int) -> None:
    """Runs main(ranks, args) in `count` processes, or in this one if it is a single one.

    Raises:
        ProcessException: one of the processes failed; the others are ended at once.
    """
    if count == 1:
        main(Ranks(0, 1, device), args)
        return
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_one, (main, args, device.type, count, str(Path(folder) / "meet")), nprocs=count)


def _one(rank: int, main: Callable[[Ranks, Any], None], args: Any, kind: str, count: int, meet: str) -> None:
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if kind == "cuda" else "gloo",
        init_method=f"file://{meet}",
        rank=rank,
        world_size=count,
        timeout=timedelta(minutes=5),
    )
    main(Ranks(rank, count, device), args)
    dist.destroy_process_group()


class Descent:
    """Optimizer steps over gradients that lie in one buffer: one message between ranks, one norm, one scaling."""

    def __init__(self, optimizer: torch.optim.Optimizer, ranks: Ranks, *, clip: float = 1.0) -> None:
        self.optimizer, self.ranks, self.clip = optimizer, ranks, clip
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.flat = torch.zeros(sum(p.numel() for p in self.parameters), device=self.parameters[0].device)
        at = 0
        for parameter in self.parameters:
            parameter.grad = self.flat[at : at + parameter.numel()].view_as(parameter)
            at += parameter.numel()

    def step(self, loss: Tensor) -> None:
        """Back through `loss` and one step along the ranks' mean gradient, its norm clipped.

        A step whose gradient is not finite changes almost nothing: it counts as zero.
        """
        self.flat.zero_()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.ranks.count > 1:
            dist.all_reduce(self.flat)
        norm = self.flat.norm() / self.ranks.count
        scale = (self.clip / norm.clamp_min(1e-12)).clamp_max(1.0) / self.ranks.count
        self.flat.mul_(torch.where(norm.isfinite(), scale, 0.0)).nan_to_num_(0.0, 0.0, 0.0)
        self.optimizer.step()

    def release(self) -> None:
        """Gives the parameters' gradients up, so that another Descent may hold them."""
        for parameter in self.parameters:
            parameter.grad = None


def adamw(groups: list[dict[str, Any]], *, fused: bool) -> torch.optim.AdamW:
    return torch.optim.AdamW(groups, 1e-3, betas=(0.9, 0.98), weight_decay=0.02, fused=fused)


def trainable(*modules: nn.Module) -> list[nn.Parameter]:
    """All their parameters."""
    return [parameter for module in modules for parameter in module.parameters()]
