"""Products of a few rows with a matrix that is kept as int8 rows, on a CPU: a quarter of the memory is read.

It knows no layer. Inputs and sums are rounded to bfloat16, as they are where a model runs in bfloat16.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_ROWS = 8  #: more are multiplied with the whole matrix


@dataclass(frozen=True, slots=True)
class Int8Rows:
    """A matrix twice.

    Attributes:
        whole: (outputs, inputs) float.
        rows: (outputs, inputs) int8.
        scale: (outputs,) float32; whole = rows * scale, but for rounding.
        ones: (outputs,) bfloat16.
    """

    whole: Tensor
    rows: Tensor
    scale: Tensor
    ones: Tensor

    def product(self, x: Tensor) -> Tensor:
        """(N, inputs) times the matrix, (N, outputs)."""
        if len(x) > MOST_ROWS:
            return F.linear(x, self.whole)
        # The factors are applied after the product: in bfloat16 they would lose half a percent.
        sums: Tensor = torch.ops.aten._weight_int8pack_mm(x.bfloat16(), self.rows, self.ones)
        return (sums * self.scale).to(x.dtype)


def available() -> bool:
    """Whether this processor multiplies int8 rows faster than it reads floats."""
    quick = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    return quick and hasattr(torch.ops.aten, "_weight_int8pack_mm")


def pack(weight: Tensor) -> Int8Rows:
    """Int8 rows of a matrix that was multiplied out from such rows (see `checkpoint.quantize_rows`)."""
    wide = weight.float()
    peak = wide.abs().amax(dim=1)
    scale = torch.where(peak > 0, peak / 127, torch.ones_like(peak))
    rows = (wide / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
    return Int8Rows(weight, rows, scale, torch.ones(len(rows), dtype=torch.bfloat16))
