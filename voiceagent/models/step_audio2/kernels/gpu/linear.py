"""Triton twins of `kernels.linear`: products of 1 to 16 rows that read every weight once, as fast as memory gives it.

More rows go to torch's own product with the norm, the residual and the gate beside it.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from voiceagent.models.step_audio2.kernels.gpu import fused
from voiceagent.models.step_audio2.kernels.gpu.language import ceil_div, jit, power_of_2, tl

MOST_ROWS = 16  #: up to here Triton's products are used


def small(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    norm: Tensor | None = None,
    eps: float = 1e-6,
    residual: Tensor | None = None,
) -> Tensor:
    """`kernels.linear.small`."""
    if x.shape[0] <= MOST_ROWS:
        return streamed(x, weight, bias, norm=norm, eps=eps, residual=residual)
    if norm is not None:
        x, _ = fused.add_rms_norm(x, None, norm, eps)
    if residual is not None and bias is None:
        return torch.addmm(residual, x, weight.t())
    out = F.linear(x, weight, bias)
    return out if residual is None else out + residual


def gated(x: Tensor, weight: Tensor, *, norm: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    """`kernels.linear.gated`."""
    if x.shape[0] <= MOST_ROWS:
        return streamed(x, weight, norm=norm, eps=eps, gate=True)
    return fused.silu_mul(small(x, weight, norm=norm, eps=eps))


def streamed(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    norm: Tensor | None = None,
    eps: float = 1e-6,
    residual: Tensor | None = None,
    gate: bool = False,
    tile: tuple[int, int, int, int] | None = None,
) -> Tensor:
    """`small`, or with `gate` `gated`, by Triton; `tile` (outputs, inputs, warps, stages) overrides the choice."""
    rows, inputs = x.shape
    outputs = weight.shape[0] // 2 if gate else weight.shape[0]
    out = x.new_empty(rows, outputs)
    one = rows == 1
    tile = tile or (_tile_of_one(outputs, inputs) if one else _tile_of_few(outputs, inputs))
    block, step, warps, stages = tile
    step = min(step, max(16, power_of_2(inputs)))
    arguments = (
        x.contiguous(),
        weight,
        x if bias is None else bias,
        x if norm is None else norm,
        x if residual is None else residual.contiguous(),
        out,
        rows,
        outputs,
        inputs,
        eps,
        bias is not None,
        norm is not None,
        residual is not None,
        gate,
        inputs % step == 0,
        block,
        step,
        stages,
    )
    grid = (ceil_div(outputs, block),)
    if one:
        _one_row[grid](*arguments, num_warps=warps)
    else:
        _few_rows[grid](*arguments, max(16, power_of_2(rows)), num_warps=warps)
    return out


def _tile_of_one(outputs: int, inputs: int) -> tuple[int, int, int, int]:
    return 8, 512, 4, 3


def _tile_of_few(outputs: int, inputs: int) -> tuple[int, int, int, int]:
    return 32, 256, 4, 4


@jit
def _one_row(
    x,
    weight,
    bias,
    norm,
    residual,
    out,
    rows,
    outputs,
    inputs,
    eps,
    BIAS: tl.constexpr,
    NORM: tl.constexpr,
    RESIDUAL: tl.constexpr,
    GATE: tl.constexpr,
    EVEN: tl.constexpr,
    BLOCK: tl.constexpr,
    STEP: tl.constexpr,
    STAGES: tl.constexpr,
):
    """BLOCK outputs; the norm's scale is one number for all, so that it can be found on the way and applied last."""
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = n < outputs
    row = tl.where(real, n, 0).to(tl.int64)[:, None] * inputs
    other = row + outputs.to(tl.int64) * inputs
    at = tl.arange(0, STEP)
    total = tl.zeros((BLOCK, STEP), tl.float32)
    second = tl.zeros((BLOCK, STEP), tl.float32)
    squares = tl.zeros((STEP,), tl.float32)
    for start in tl.range(0, inputs, STEP, num_stages=STAGES):
        k = start + at
        inside = k < inputs
        if EVEN:
            w = tl.load(weight + row + k[None, :], eviction_policy="evict_first")
            value = tl.load(x + k).to(tl.float32)
        else:
            w = tl.load(weight + row + k[None, :], inside[None, :], 0.0, eviction_policy="evict_first")
            value = tl.load(x + k, inside, 0.0).to(tl.float32)
        if NORM:
            squares += value * value
            value *= tl.load(norm + k, inside, 0.0).to(tl.float32)
        total += w.to(tl.float32) * value[None, :]
        if GATE:
            if EVEN:
                w = tl.load(weight + other + k[None, :], eviction_policy="evict_first")
            else:
                w = tl.load(weight + other + k[None, :], inside[None, :], 0.0, eviction_policy="evict_first")
            second += w.to(tl.float32) * value[None, :]
    result = tl.sum(total, 1)
    scale = 1.0
    if NORM:
        scale = tl.rsqrt(tl.sum(squares, 0) / inputs + eps)
        result *= scale
    if GATE:
        result = result / (1.0 + tl.exp(-result)) * (tl.sum(second, 1) * scale)
    if BIAS:
        result += tl.load(bias + n, real, 0.0).to(tl.float32)
    if RESIDUAL:
        result += tl.load(residual + n, real, 0.0).to(tl.float32)
    tl.store(out + n, result.to(out.dtype.element_ty), real)


@jit
def _few_rows(
    x,
    weight,
    bias,
    norm,
    residual,
    out,
    rows,
    outputs,
    inputs,
    eps,
    BIAS: tl.constexpr,
    NORM: tl.constexpr,
    RESIDUAL: tl.constexpr,
    GATE: tl.constexpr,
    EVEN: tl.constexpr,
    BLOCK: tl.constexpr,
    STEP: tl.constexpr,
    STAGES: tl.constexpr,
    ROWS: tl.constexpr,
):
    """BLOCK outputs of all rows on the tensor cores; the weights are the left factor, as they are the long side."""
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = n < outputs
    row = tl.where(real, n, 0).to(tl.int64)[:, None] * inputs
    other = row + outputs.to(tl.int64) * inputs
    m = tl.arange(0, ROWS)
    held = m < rows
    at = tl.arange(0, STEP)
    total = tl.zeros((BLOCK, ROWS), tl.float32)
    second = tl.zeros((BLOCK, ROWS), tl.float32)
    squares = tl.zeros((ROWS,), tl.float32)
    for start in tl.range(0, inputs, STEP, num_stages=STAGES):
        k = start + at
        inside = k < inputs
        value = tl.load(x + m[None, :] * inputs + k[:, None], held[None, :] & inside[:, None], 0.0)
        if NORM:
            wide = value.to(tl.float32)
            squares += tl.sum(wide * wide, 0)
            value = (wide * tl.load(norm + k, inside, 0.0).to(tl.float32)[:, None]).to(value.dtype)
        if EVEN:
            w = tl.load(weight + row + k[None, :], eviction_policy="evict_first")
        else:
            w = tl.load(weight + row + k[None, :], inside[None, :], 0.0, eviction_policy="evict_first")
        total = tl.dot(w, value, total, input_precision="ieee")
        if GATE:
            if EVEN:
                w = tl.load(weight + other + k[None, :], eviction_policy="evict_first")
            else:
                w = tl.load(weight + other + k[None, :], inside[None, :], 0.0, eviction_policy="evict_first")
            second = tl.dot(w, value, second, input_precision="ieee")
    if NORM:
        scale = tl.rsqrt(squares / inputs + eps)[None, :]
        total *= scale
        second *= scale
    if GATE:
        total = total / (1.0 + tl.exp(-total)) * second
    if BIAS:
        total += tl.load(bias + n, real, 0.0).to(tl.float32)[:, None]
    at = m[None, :] * outputs + n[:, None]
    valid = held[None, :] & real[:, None]
    if RESIDUAL:
        total += tl.load(residual + at, valid, 0.0).to(tl.float32)
    tl.store(out + at, total.to(out.dtype.element_ty), valid)
