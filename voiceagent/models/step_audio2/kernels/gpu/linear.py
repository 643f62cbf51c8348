"""Triton twins of `kernels.linear`: products of few rows that read every weight once, as fast as memory gives it.

One row runs on the plain cores, a few on the tensor cores; more go to torch's own product with the norm, the residual
and the gate beside it.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from voiceagent.models.step_audio2.kernels.gpu import choices, fused
from voiceagent.models.step_audio2.kernels.gpu.choices import Tile
from voiceagent.models.step_audio2.kernels.gpu.language import (
    after_previous,
    ceil_div,
    contiguous,
    jit,
    launch,
    power_of_2,
    shared_memory,
    tl,
)
from voiceagent.models.step_audio2.kernels.sums import Sums

_NORM_ROWS = 1  # up to here the norm is cheaper inside the product
_FILLING = 8192  # more outputs than these fill the GPU without splits


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
    now = choices.now()
    tile = choices.of(now.plain if residual is None else now.added, x.shape[0])
    if tile is not None:
        return streamed(x, weight, tile, bias=bias, norm=norm, eps=eps, residual=residual)
    return _by_torch(x, weight, bias, norm=norm, eps=eps, residual=residual)


def joined(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, norm: Tensor | None = None, eps: float = 1e-6
) -> Tensor | Sums:
    """`kernels.linear.joined`: in parts where the table says that the pass which rotates adds them up."""
    rows = x.shape[0]
    choice = choices.of(choices.now().joined, rows)
    if choice is None or choice.tile is None:
        return _by_torch(x, weight, bias, norm=norm, eps=eps)
    if not choice.turned:
        return streamed(x, weight, choice.tile, bias=bias, norm=norm, eps=eps)
    tile = _cut(choice.tile, x, weight, gate=False)
    x, norm = _normed(x, norm, eps, tile)
    return Sums(_parts(x, weight, tile, norm=norm, eps=eps), bias, x.dtype)


def added(
    x: Tensor, weight: Tensor, *, residual: Tensor, norm: Tensor, eps: float = 1e-6
) -> tuple[Tensor, Tensor | None]:
    """`kernels.linear.added`: where a product is made in parts, the pass that adds them up makes the norm as well."""
    rows, outputs = x.shape[0], weight.shape[0]
    now = choices.now()
    tile = choices.of(now.added, rows)
    cut = None if tile is None else _cut(tile, x, weight, gate=False)
    if cut is None or cut.splits == 1:
        return small(x, weight, residual=residual), None
    out, normed = x.new_empty(2, rows, outputs).unbind()
    tensors = (_parts(x, weight, cut), residual.contiguous(), norm, out, normed)
    launch(
        _finish_and_norm,
        (rows,),
        x.device,
        *tensors,
        outputs,
        eps,
        cut.splits,
        power_of_2(outputs),
        early=now.finish_early,
        num_warps=now.finish_warps,
    )
    return out, normed


def gated(x: Tensor, weight: Tensor, *, norm: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    """`kernels.linear.gated`."""
    tile = choices.of(choices.now().gated, x.shape[0])
    if tile is not None:
        return streamed(x, weight, tile, norm=norm, eps=eps, gate=True)
    return fused.silu_mul(small(x, weight, norm=norm, eps=eps))


def streamed(
    x: Tensor,
    weight: Tensor,
    tile: Tile,
    *,
    bias: Tensor | None = None,
    norm: Tensor | None = None,
    eps: float = 1e-6,
    residual: Tensor | None = None,
    gate: bool = False,
) -> Tensor:
    """`small`, or with `gate` `gated`, by Triton."""
    tile = _cut(tile, x, weight, gate=gate)
    x, norm = _normed(x, norm, eps, tile)
    rows, outputs = x.shape[0], weight.shape[0] // 2 if gate else weight.shape[0]
    out = x.new_empty(rows, outputs)
    extras = (contiguous(bias, otherwise=x), contiguous(residual, otherwise=x), out)
    if tile.splits == 1:
        _product(x, weight, norm, *extras, eps, bias is not None, residual is not None, gate, tile)
        return out
    parts = _parts(x, weight, tile)
    flags = (bias is not None, residual is not None, gate, tile.splits, 512)
    grid, early = (ceil_div(outputs, 512), rows), choices.now().finish_early
    launch(_finish, grid, x.device, parts, *extras, outputs, *flags, early=early)
    return out


def _by_torch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    norm: Tensor | None,
    eps: float,
    residual: Tensor | None = None,
) -> Tensor:
    """Torch's own product, the norm before it and the residual behind."""
    if norm is not None:
        x, _ = fused.add_rms_norm(x, None, norm, eps)
    if residual is not None and bias is None:
        return torch.addmm(residual, x, weight.t())
    out = F.linear(x, weight, bias)
    return out if residual is None else out + residual


def _normed(x: Tensor, norm: Tensor | None, eps: float, tile: Tile) -> tuple[Tensor, Tensor | None]:
    """The rows, and the norm if the product makes it itself."""
    if norm is not None and (x.shape[0] > _NORM_ROWS or tile.splits > 1):
        return fused.add_rms_norm(x, None, norm, eps)[0], None
    return x.contiguous(), norm


def _cut(tile: Tile, x: Tensor, weight: Tensor, *, gate: bool) -> Tile:
    """The tile as this device and these sizes allow; no split is empty."""
    tile, inputs = _fit(tile, x, gate=gate), x.shape[1]
    splits = tile.splits if weight.shape[0] <= _FILLING or gate else 1
    step = min(tile.inputs, max(16, power_of_2(inputs)))
    share = ceil_div(ceil_div(inputs, splits), step) * step
    return tile._replace(inputs=step, splits=ceil_div(inputs, share))


def _parts(x: Tensor, weight: Tensor, tile: Tile, *, norm: Tensor | None = None, eps: float = 0.0) -> Tensor:
    """(splits, N, outputs) float32, one sum for each split of a tile that is cut; a norm goes with one split only."""
    parts = x.new_empty(tile.splits, x.shape[0], weight.shape[0], dtype=torch.float32)
    _product(x.contiguous(), weight, norm, x, x, parts, eps, False, False, False, tile)
    return parts


def _product(
    x: Tensor,
    weight: Tensor,
    norm: Tensor | None,
    bias: Tensor,
    residual: Tensor,
    out: Tensor,
    eps: float,
    has_bias: bool,
    has_residual: bool,
    gate: bool,
    tile: Tile,
) -> None:
    """Starts one product; with splits, `out` holds one sum for each."""
    rows, inputs = x.shape
    outputs = out.shape[-1]
    share = ceil_div(ceil_div(inputs, tile.splits), tile.inputs) * tile.inputs
    flags = (has_bias, norm is not None, has_residual, gate, inputs % tile.inputs == 0)
    sizes: tuple[int, ...] = (tile.outputs, tile.inputs, tile.stages)
    numbers = (rows, outputs, inputs, share, eps)
    tensors = (x, weight, contiguous(norm, otherwise=x), bias, residual, out)
    grid = (ceil_div(outputs, tile.outputs), tile.splits)
    kernel = _one_row
    if rows > 1:
        kernel, sizes = _few_rows, (*sizes, max(16, power_of_2(rows)))
    arguments = (*tensors, *numbers, *flags, *sizes)
    launch(kernel, grid, x.device, *arguments, early=tile.early, num_warps=tile.warps)


def _fit(tile: Tile, x: Tensor, *, gate: bool) -> Tile:
    """The tile with as few stages and inputs as the shared memory of the device asks for."""
    wide = (2 if gate else 1) * tile.outputs + max(16, power_of_2(x.shape[0]))
    while (
        wide * tile.inputs * tile.stages * x.element_size() > shared_memory(x.device) - 4096
        and tile.inputs > 16
    ):
        tile = (
            tile._replace(stages=tile.stages - 1)
            if tile.stages > 2
            else tile._replace(inputs=tile.inputs // 2)
        )
    return tile


@jit
def _weights(weight, start, k, inputs, EVEN: tl.constexpr):
    if EVEN:
        return tl.load(weight + start + k[None, :], eviction_policy="evict_first")
    return tl.load(weight + start + k[None, :], (k < inputs)[None, :], 0.0, eviction_policy="evict_first")


@jit
def _one_row(
    x,
    weight,
    norm,
    bias,
    residual,
    out,
    rows,
    outputs,
    inputs,
    share,
    eps,
    BIAS: tl.constexpr,
    NORM: tl.constexpr,
    RESIDUAL: tl.constexpr,
    GATE: tl.constexpr,
    EVEN: tl.constexpr,
    BLOCK: tl.constexpr,
    STEP: tl.constexpr,
    STAGES: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """BLOCK outputs of the only row; the norm's scale is one number, found on the way and applied last."""
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = n < outputs
    row = tl.where(real, n, 0).to(tl.int64)[:, None] * inputs
    other = row + outputs.to(tl.int64) * inputs
    begin = tl.program_id(1) * share
    k = begin + tl.arange(0, STEP)
    w = _weights(weight, row, k, inputs, EVEN)  # under way before the kernel before has ended
    w_up = w
    if GATE:
        w_up = _weights(weight, other, k, inputs, EVEN)
    after_previous(OVERLAP)

    value = tl.load(x + k, k < inputs, 0.0).to(tl.float32)
    squares = value * value
    if NORM:
        value *= tl.load(norm + k, k < inputs, 0.0).to(tl.float32)
    total = w.to(tl.float32) * value[None, :]
    second = total
    if GATE:
        second = w_up.to(tl.float32) * value[None, :]
    for start in tl.range(begin + STEP, tl.minimum(begin + share, inputs), STEP, num_stages=STAGES):
        k = start + tl.arange(0, STEP)
        w = _weights(weight, row, k, inputs, EVEN)
        value = tl.load(x + k, k < inputs, 0.0).to(tl.float32)
        if NORM:
            squares += value * value
            value *= tl.load(norm + k, k < inputs, 0.0).to(tl.float32)
        total += w.to(tl.float32) * value[None, :]
        if GATE:
            w = _weights(weight, other, k, inputs, EVEN)
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
    tl.store(out + tl.program_id(1) * outputs + n, result.to(out.dtype.element_ty), real)


@jit
def _few_rows(
    x,
    weight,
    norm,
    bias,
    residual,
    out,
    rows,
    outputs,
    inputs,
    share,
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
    OVERLAP: tl.constexpr,
):
    """BLOCK outputs of all rows on the tensor cores; the weights are the left factor, as they are the long side."""
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = n < outputs
    row = tl.where(real, n, 0).to(tl.int64)[:, None] * inputs
    other = row + outputs.to(tl.int64) * inputs
    begin = tl.program_id(1) * share
    m = tl.arange(0, ROWS)
    held = m < rows
    after_previous(OVERLAP)

    total = tl.zeros((BLOCK, ROWS), tl.float32)
    second = tl.zeros((BLOCK, ROWS), tl.float32)
    squares = tl.zeros((ROWS,), tl.float32)
    for start in tl.range(begin, tl.minimum(begin + share, inputs), STEP, num_stages=STAGES):
        k = start + tl.arange(0, STEP)
        inside = k < inputs
        value = tl.load(x + m[None, :] * inputs + k[:, None], held[None, :] & inside[:, None], 0.0)
        if NORM:
            wide = value.to(tl.float32)
            squares += tl.sum(wide * wide, 0)
            value = (wide * tl.load(norm + k, inside, 0.0).to(tl.float32)[:, None]).to(value.dtype)
        total = tl.dot(_weights(weight, row, k, inputs, EVEN), value, total, input_precision="ieee")
        if GATE:
            second = tl.dot(_weights(weight, other, k, inputs, EVEN), value, second, input_precision="ieee")
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
    start = tl.program_id(1).to(tl.int64) * rows * outputs
    tl.store(out + start + at, total.to(out.dtype.element_ty), valid)


@jit
def _finish(
    parts,
    bias,
    residual,
    out,
    outputs,
    BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    GATE: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """Adds up the splits of a product, and what `_few_rows` does after it."""
    after_previous(OVERLAP)
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row, rows = tl.program_id(1), tl.num_programs(1)
    real = n < outputs
    width = outputs * 2 if GATE else outputs
    total = tl.zeros((BLOCK,), tl.float32)
    second = tl.zeros((BLOCK,), tl.float32)
    for split in tl.static_range(SPLITS):
        start = parts + (split * rows + row).to(tl.int64) * width + n
        total += tl.load(start, real, 0.0)
        if GATE:
            second += tl.load(start + outputs, real, 0.0)
    if GATE:
        total = total / (1.0 + tl.exp(-total)) * second
    if BIAS:
        total += tl.load(bias + n, real, 0.0).to(tl.float32)
    if RESIDUAL:
        total += tl.load(residual + row * outputs + n, real, 0.0).to(tl.float32)
    tl.store(out + row * outputs + n, total.to(out.dtype.element_ty), real)


@jit
def _finish_and_norm(
    parts,
    residual,
    norm,
    out,
    normed,
    outputs,
    eps,
    SPLITS: tl.constexpr,
    BLOCK: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """Adds up the splits of one row and the residual, and makes the RMS norm of what is stored of it."""
    after_previous(OVERLAP)
    row, rows = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    n = tl.arange(0, BLOCK)
    real = n < outputs
    total = tl.zeros((BLOCK,), tl.float32)
    for split in tl.static_range(SPLITS):
        total += tl.load(parts + (split * rows + row) * outputs + n, real, 0.0)
    total += tl.load(residual + row * outputs + n, real, 0.0).to(tl.float32)
    stored = total.to(out.dtype.element_ty)
    tl.store(out + row * outputs + n, stored, real)
    value = stored.to(tl.float32)
    value *= tl.rsqrt(tl.sum(value * value, 0) / outputs + eps)
    value *= tl.load(norm + n, real, 0.0).to(tl.float32)
    tl.store(normed + row * outputs + n, value.to(normed.dtype.element_ty), real)
