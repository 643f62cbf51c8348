"""Triton's names for the modules beside this one, which can be imported (not run) where Triton is missing.

Kernels are launched so that one may start while the one before it ends (programmatic dependent launch): every kernel
calls `after_previous` before it touches anything another kernel writes or reads. Weights may be read earlier.
"""

# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, untyped-decorator"
from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger("voiceagent.models")

jit: Callable[[Callable[..., Any]], Any]
constant: Callable[[Any], Any]  #: makes a number that kernels may name
tl: Any
try:
    import triton

    tl = triton.language
    jit, constant = triton.jit, tl.constexpr
except ModuleNotFoundError:  # the CPU install

    def _plain(it: Any) -> Any:
        return it

    triton, jit, tl, constant = None, _plain, None, _plain


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    device: torch.device,
    *arguments: Any,
    early: bool = True,
    **options: Any,
) -> None:
    """Starts `kernel(*arguments, OVERLAP)`; options are Triton's (num_warps, num_stages).

    `early`: it may start while the kernel before it ends, if the device can do that. Not worth it for one that has
    nothing to do before that end, and meanwhile takes the room of others.
    """
    if device.type != "cuda":
        kernel[grid](*arguments, False, **options)  # the interpreter
        return
    overlap = early and _overlaps(device)
    if overlap:
        options["launch_pdl"] = True
    with torch.cuda.device(device):  # Triton starts on the current device, whatever the tensors'
        if _only_compile.get():
            kernel.warmup(*arguments, overlap, grid=grid, **options)
        else:
            kernel[grid](*arguments, overlap, **options)


_only_compile: ContextVar[bool] = ContextVar("_only_compile", default=False)


def compile_ahead(work: Callable[[], object]) -> None:
    """Compiles the kernels that `work` starts, as many at a time as there are cores, so that it finds them compiled.

    None of them runs meanwhile: what they would write holds whatever was there, and `work` must not use it as indices.
    Kernels stay in Triton's cache on disk (TRITON_CACHE_DIR), where the next start finds them. A Triton that cannot
    compile beside itself (before 3.4) leaves it all to the first run.
    """
    together = getattr(triton, "AsyncCompileMode", None)
    if together is None:
        return
    token = _only_compile.set(True)
    try:
        with ThreadPoolExecutor(os.cpu_count()) as threads, together(threads):
            work()
    except Exception as error:  # whatever it is, the first run meets it again, and what it says there counts
        log.warning("compiling ahead failed: %s", error)
    finally:
        _only_compile.reset(token)
        torch.cuda.empty_cache()  # the graphs that come next have memory of their own


@cache
def _overlaps(device: torch.device) -> bool:
    """Whether the device has programmatic dependent launch (compute capability 9)."""
    return torch.cuda.get_device_capability(device) >= (9, 0)


@cache
def shared_memory(device: torch.device) -> int:
    """Bytes that one program may stage its loads in."""
    if device.type != "cuda":
        return 2**30  # the interpreter
    return int(triton.runtime.driver.active.utils.get_device_properties(device.index)["max_shared_mem"])


@jit
def after_previous(OVERLAP: tl.constexpr):
    """Waits until the kernel before has ended, and lets the next one start as soon as there is room."""
    if OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def power_of_2(n: int) -> int:
    """The smallest power of two not below n."""
    return 1 << (n - 1).bit_length()


def contiguous(tensor: Tensor | None, *, otherwise: Tensor) -> Tensor:
    """The tensor in order; for None something that is never read."""
    return otherwise if tensor is None else tensor.contiguous()
