"""Triton's names for the modules beside this one, which can be imported (not run) where Triton is missing."""

# mypy: disable-error-code="import-not-found, import-untyped"
from __future__ import annotations

from collections.abc import Callable
from typing import Any

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

    jit, tl, constant = _plain, None, _plain


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def power_of_2(n: int) -> int:
    """The smallest power of two not below n."""
    return 1 << (n - 1).bit_length()
