"""A product that comes in parts, which whoever reads it adds up on the way; it knows no layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sums:
    """What remains to be added up of a product.

    Attributes:
        parts: (splits, N, outputs) float32; the product is their sum over the first axis.
        bias: (outputs,) to be added, or None.
        dtype: of the product.
    """

    parts: Tensor
    bias: Tensor | None
    dtype: torch.dtype

    def whole(self) -> Tensor:
        """(N, outputs), in plain torch."""
        total = self.parts.sum(0)
        return (total if self.bias is None else total + self.bias.to(total.dtype)).to(self.dtype)
