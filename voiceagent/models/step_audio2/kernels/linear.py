"""Matrix products of few rows, where reading the weights is all the cost; it knows no layer.

What can ride along for nothing does: the norm in front, the bias, the residual behind, and the gate of an MLP.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from voiceagent.models.step_audio2.kernels import fused
from voiceagent.models.step_audio2.kernels.int8 import Int8Rows
from voiceagent.models.step_audio2.kernels.sums import Sums


def small(
    x: Tensor,
    weight: Tensor | Int8Rows,
    bias: Tensor | None = None,
    *,
    norm: Tensor | None = None,
    normed: Tensor | None = None,
    eps: float = 1e-6,
    residual: Tensor | None = None,
) -> Tensor:
    """residual + rms_norm(x) @ weight.T + bias; any number of rows, fast for few.

    Args:
        x: (N, inputs).
        weight: (outputs, inputs); on a CPU it may be kept as int8 rows too.
        bias: (outputs,), or None.
        norm: (inputs,) weight of an RMS norm applied to x first; None for no norm.
        normed: (N, inputs) x behind that norm, if somebody has made it already.
        eps: of that norm.
        residual: (N, outputs) added to the product; None for none. It is not changed.

    Returns:
        (N, outputs).
    """
    if normed is not None:
        x, norm = normed, None
    if isinstance(weight, Tensor) and x.is_cuda:
        from voiceagent.models.step_audio2.kernels.gpu import linear as gpu

        return gpu.small(x, weight, bias, norm=norm, eps=eps, residual=residual)
    return small_torch(x, weight, bias, norm=norm, eps=eps, residual=residual)


def small_torch(
    x: Tensor,
    weight: Tensor | Int8Rows,
    bias: Tensor | None = None,
    *,
    norm: Tensor | None = None,
    eps: float = 1e-6,
    residual: Tensor | None = None,
) -> Tensor:
    """`small` in plain torch."""
    if norm is not None:
        x = F.rms_norm(x, (x.shape[-1],), norm, eps)
    if isinstance(weight, Int8Rows):
        out = weight.product(x)
        out = out if bias is None else out + bias
        return out if residual is None else out + residual
    if residual is not None and bias is None:
        return torch.addmm(residual, x, weight.t())
    out = F.linear(x, weight, bias)
    return out if residual is None else out + residual


def joined(
    x: Tensor,
    weight: Tensor | Int8Rows,
    bias: Tensor | None = None,
    *,
    norm: Tensor | None = None,
    normed: Tensor | None = None,
    eps: float = 1e-6,
) -> Tensor | Sums:
    """`small` for what `fused.rotate_and_write` reads: it may come as parts that are added up there.

    Args:
        x: (N, inputs).
        weight: (outputs, inputs), as in `small`.
        bias, norm, normed, eps: as in `small`.

    Returns:
        (N, outputs), or what remains to be added up of it: always the whole on a CPU.
    """
    if not isinstance(weight, Tensor) or not x.is_cuda:
        return small(x, weight, bias, norm=norm, normed=normed, eps=eps)
    if normed is not None:
        x, norm = normed, None
    from voiceagent.models.step_audio2.kernels.gpu import linear as gpu

    return gpu.joined(x, weight, bias, norm=norm, eps=eps)


def added(
    x: Tensor, weight: Tensor | Int8Rows, *, residual: Tensor, norm: Tensor, eps: float = 1e-6
) -> tuple[Tensor, Tensor | None]:
    """residual + x @ weight.T, and the same behind the norm that comes next, where that can be had for nothing.

    Args:
        x: (N, inputs).
        weight: (outputs, inputs), as in `small`.
        residual: (N, outputs). It is not changed.
        norm: (outputs,) weight of an RMS norm.
        eps: of that norm.

    Returns:
        (N, outputs), and its norm or None: whoever needs it then says so to the next product.
    """
    if isinstance(weight, Tensor) and x.is_cuda:
        from voiceagent.models.step_audio2.kernels.gpu import linear as gpu

        return gpu.added(x, weight, residual=residual, norm=norm, eps=eps)
    return small_torch(x, weight, residual=residual), None


def gated(
    x: Tensor,
    weight: Tensor | Int8Rows,
    *,
    norm: Tensor | None = None,
    normed: Tensor | None = None,
    eps: float = 1e-6,
) -> Tensor:
    """silu(gate) * up with gate and up = rms_norm(x) @ weight.T.

    Args:
        x: (N, inputs).
        weight: (2 * outputs, inputs), the gate's rows before the up's.
        norm: (inputs,) weight of an RMS norm applied to x first; None for no norm.
        normed: (N, inputs) x behind that norm, if somebody has made it already.
        eps: of that norm.

    Returns:
        (N, outputs).
    """
    if normed is not None:
        x, norm = normed, None
    if isinstance(weight, Tensor) and x.is_cuda:
        from voiceagent.models.step_audio2.kernels.gpu import linear as gpu

        return gpu.gated(x, weight, norm=norm, eps=eps)
    return gated_torch(x, weight, norm=norm, eps=eps)


def gated_torch(
    x: Tensor, weight: Tensor | Int8Rows, *, norm: Tensor | None = None, eps: float = 1e-6
) -> Tensor:
    """`gated` in plain torch."""
    return fused.silu_mul_torch(small_torch(x, weight, norm=norm, eps=eps))
