"""Triton twins of `t2w_ops`: every function one launch, or two where the batch is large enough for a vendor's product.

They know tensors and places in memory; nothing of streams, voices or the ODE.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from voiceagent.models.step_audio2 import t2w_triton_dit as kernels
from voiceagent.models.step_audio2.kernels.gpu.language import ceil_div, power_of_2
from voiceagent.models.step_audio2.t2w_pool import RECENT_FRAMES, Places

Pair = tuple[Tensor, Tensor]

LARGE = 256
"""From so many rows on, a vendor's product is faster than ours, whose sums are split over more blocks."""

UNFOLDED = 1024
"""From so many rows on, a convolution is a vendor's product over windows."""


def add_norm(
    base: Tensor,
    update: Tensor | None,
    gate: Tensor | None,
    shift: Tensor,
    scale: Tensor,
    residual: Tensor,
    out: Tensor,
) -> None:
    """`t2w_ops.add_norm`."""
    rows, frames, width = base.shape
    spare = base  # stands for pointers that are not used
    kernels.add_norm[(rows * frames,)](
        base,
        spare if update is None else update,
        spare if gate is None else gate,
        shift,
        scale,
        residual,
        out,
        rows * frames,
        frames,
        PARTS=0 if update is None else update.shape[0],
        SHARED=update is not None and update.shape[1] != rows,
        GATE=gate is not None,
        WIDTH=width,
        num_warps=4,
    )


def project(x: Tensor, weights: Pair, heads: Pair, qkv: Tensor) -> None:
    """`t2w_ops.project`."""
    rows = x.shape[0] * x.shape[1]
    if rows < LARGE:
        _product(x, weights, qkv, heads=heads, kind=kernels.HEADS)
        return
    torch.addmm(weights[1], x.flatten(0, 1), weights[0].T, out=qkv.view(rows, -1))
    kernels.head_norm[(rows, 2)](qkv, *heads, HEADS=qkv.shape[3], SIZE=qkv.shape[4], num_warps=2)


def attend(qkv: Tensor, memory: Tensor, places: Places) -> Tensor:
    """`t2w_ops.attend`."""
    rows, frames, _, heads, size = qkv.shape
    out = qkv.new_empty(rows, frames, heads * size)
    block, keys, warps, stages = _attend_shape(rows * heads * frames)
    kernels.attend[(ceil_div(frames, block), heads, rows)](
        qkv,
        memory,
        memory.stride(0),
        places.table,
        out,
        frames,
        places.stride,
        size**-0.5 * 1.4426950408889634,
        ROW=places.table.shape[1],
        RECENT=RECENT_FRAMES,
        HEADS=heads,
        SIZE=size,
        BM=block,
        BN=keys,
        num_warps=warps,
        num_stages=stages,
    )
    return out


def linear(x: Tensor, weights: Pair) -> Tensor:
    """`t2w_ops.linear`."""
    rows, frames, inputs = x.shape
    if rows * frames >= LARGE:
        return F.linear(x, *weights)[None]
    split = _split(inputs)
    out = x.new_empty(split, rows, frames, weights[0].shape[0], dtype=torch.float32)
    _product(x, weights, out, split=split)
    return out


def convolve(x: Tensor, weights: Pair, tails: Tensor, slots: Tensor) -> Tensor:
    """`t2w_ops.convolve`."""
    rows, frames, width = x.shape
    if rows * frames >= UNFOLDED:
        windows = x.new_empty(rows, frames, 3, width)
        kernels.unfold[(rows * frames, 3)](x, tails, slots, windows, frames, WIDTH=width, num_warps=2)
        return F.linear(windows.flatten(2), weights[0].transpose(0, 1).reshape(width, 3 * width), weights[1])[
            None
        ]
    out = x.new_empty(3, rows, frames, width, dtype=torch.float32)
    _product(x, weights, out, tails=(tails, slots), split=3)
    return out


def mish(x: Tensor, norm: Pair, out: Tensor) -> None:
    """`t2w_ops.mish`."""
    parts, rows, frames, width = x.shape
    kernels.mish[(rows * frames,)](x, *norm, out, rows * frames, PARTS=parts, WIDTH=width, num_warps=4)


def expand(x: Tensor, weights: Pair) -> Tensor:
    """`t2w_ops.expand`."""
    rows, frames, _ = x.shape
    weight = weights[0]
    if rows * frames >= LARGE and x.is_cuda:
        y: Tensor = torch._addmm_activation(weights[1], x.flatten(0, 1), weight.T, use_gelu=True)
        return y.view(rows, frames, weight.shape[0])
    out = weight.new_empty(rows, frames, weight.shape[0])
    _product(x, weights, out, kind=kernels.GELU)
    return out


def euler(x: Tensor, velocity: Tensor, span: float, guidance: float, rounded: Tensor) -> None:
    """`t2w_ops.euler`."""
    batch, per = x.shape[0], x.shape[1] * x.shape[2]
    kernels.euler[(ceil_div(per, 1024), batch)](
        x,
        velocity,
        rounded,
        span,
        guidance,
        per,
        velocity[0].numel(),
        PARTS=velocity.shape[0],
        BLOCK=1024,
    )


def keep(qkv: Tensor, kept: Tensor, memory: Tensor, tails: Tensor, places: Places) -> None:
    """`t2w_ops.keep`."""
    depth, rows, frames, _, heads, size = qkv.shape
    width, inner = kept.shape[-1], heads * size
    kernels.keep[(rows // 2 * frames, depth)](
        qkv,
        kept,
        memory,
        tails,
        places.table,
        rows // 2,
        frames,
        places.stride,
        memory.stride(0),
        memory.stride(1),
        tails.stride(0),
        tails.stride(1),
        ROW=places.table.shape[1],
        INNER=inner,
        WIDTH=width,
        BI=power_of_2(max(inner, width)),
        num_warps=4,
    )


def _product(
    x: Tensor,
    weights: Pair,
    out: Tensor,
    *,
    kind: int = kernels.PLAIN,
    heads: Pair | None = None,
    tails: Pair | None = None,
    split: int = 1,
) -> None:
    """One launch: linear map or causal convolution, in `split` sums, and what follows it."""
    weight, bias = weights
    count, inputs = weight.shape[-2:]
    rows, frames = x.shape[0] * x.shape[1], x.shape[1]
    bm, bn, bk, warps, stages = _shape(rows, count)
    if kind == kernels.HEADS:
        bn = out.shape[4]
    while count % bn:
        bn //= 2
    taps = 1 if tails is None else 3
    depth = inputs // split if taps == 1 else inputs
    spare = bias  # stands for pointers that are not used
    kernels.matmul[(count // bn, ceil_div(rows, bm), split)](
        x,
        weight,
        bias,
        out,
        *(heads or (spare, spare)),
        *(tails or (spare, spare)),
        rows,
        frames,
        count,
        weight.stride(0) if taps > 1 else 0,
        weight.stride(-2),
        HEADS=out.shape[3] if kind == kernels.HEADS else 1,
        TAPS=taps,
        KIND=kind,
        INPUTS=inputs,
        DEPTH=depth,
        BM=bm,
        BN=bn,
        BK=min(bk, depth),
        num_warps=warps,
        num_stages=stages,
    )


def _split(inputs: int) -> int:
    """Into how many sums a linear map of few rows is split."""
    return 4 if inputs >= 2048 else 2 if inputs >= 512 else 1


def _attend_shape(queries: int) -> tuple[int, int, int, int]:
    """Queries and keys of a block, warps and stages; measured on an H200."""
    return (16, 64, 4, 3) if queries < 8192 else (64, 64, 4, 3)


def _shape(rows: int, count: int) -> tuple[int, int, int, int, int]:
    """Rows, columns and depth of a block, warps and stages; measured on an H200."""
    if rows >= LARGE:
        return 64, 64, 64, 4, 4
    return (32, 64, 128, 4, 3) if count > 1024 else (16, 32, 128, 4, 4)
