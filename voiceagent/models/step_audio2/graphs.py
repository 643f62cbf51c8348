"""Captures work on a GPU once, so that it can be repeated without the host calling every operation again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Captured:
    """A CUDA graph and the tensor that holds its result after a replay; its inputs belong to whoever captured it."""

    graph: torch.cuda.CUDAGraph
    output: Tensor
    stream: Any  #: torch.cuda.Stream that it was captured on

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
    current = torch.cuda.current_stream(device)
    # The kernels of a graph keep the priority of the stream that they were captured on; memory is shared on one only.
    stream = _like(current) if share is None else share.stream
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        for _ in range(2):
            work()
    current.wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    pool = None if share is None else share.graph.pool()
    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        output = work()
    return Captured(graph, output, stream)


def _like(stream: Any) -> Any:
    """A new torch.cuda.Stream of the same device and priority."""
    return torch.cuda.Stream(stream.device, priority=stream.priority)  # type: ignore[no-untyped-call]
