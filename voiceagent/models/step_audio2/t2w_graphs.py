"""CUDA graphs: a computation of fixed shapes is recorded once and replayed with other numbers in its inputs.

It knows shapes and streams of the device, nothing of what is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

BUCKETS = (1, 2, 4, 8, 16, 32)
"""Batch sizes that are recorded; a batch in between is filled up."""

_WARMUPS = 2


T = TypeVar("T")


def on(device: torch.device) -> AbstractContextManager[Any]:
    """Makes a device the current one, where graphs and Triton's kernels run; nothing to do for the CPU."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class Recorded(Generic[T]):
    """One recorded computation.

    Args:
        compute: from `inputs` to a tensor or several, of fixed shapes; it never asks the device for a number.
        inputs: where the numbers of every replay are put first; the recording itself must do no harm with theirs.
        memory: of `torch.cuda.graph_pool_handle`; shared by recordings that never run at the same time.
    """

    def __init__(self, compute: Callable[..., T], inputs: Sequence[Tensor], memory: Any) -> None:
        self.inputs = tuple(inputs)
        self._graph = torch.cuda.CUDAGraph()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), _fast_convolutions():
            for _ in range(_WARMUPS):  # compiles kernels and chooses algorithms
                compute(*self.inputs)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        with (
            _fast_convolutions(),
            torch.cuda.graph(self._graph, pool=memory),
        ):
            self._output = compute(*self.inputs)

    def __call__(self) -> T:
        """The output for what `inputs` hold now; the next replay overwrites them."""
        self._graph.replay()
        return self._output


def _fast_convolutions() -> Any:
    """cuDNN with its fastest algorithms, in TF32."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True)
