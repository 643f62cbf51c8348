"""Captures work on a GPU once, so that it can be repeated without the host calling every operation again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Captured:
    """A CUDA graph and the tensor that holds its result after a replay; its inputs belong to whoever captured it."""

    graph: torch.cuda.CUDAGraph
    output: Tensor

    def __call__(self) -> Tensor:
        """Replays on the current stream; the result is overwritten by the next replay."""
        self.graph.replay()
        return self.output


def capture(work: Callable[[], Tensor], *, device: torch.device, share: Captured | None = None) -> Captured:
    """Runs `work` twice, so that its kernels are compiled and chosen, and then captures it.

    Args:
        work: reads and writes tensors that stay where they are, and asks the GPU for no value.
        device: the GPU.
        share: an earlier capture that never runs at the same time; both use the same memory for what lies between.
    """
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(2):
            work()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    pool = None if share is None else share.graph.pool()
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        output = work()
    return Captured(graph, output)
