"""Elementwise steps of a decoder layer, fused on CUDA; it knows no weights' names and no layer order."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from voiceagent.models.step_audio2.kernels import paged
from voiceagent.models.step_audio2.kernels.sums import Sums


def add_rms_norm(x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The sum x + residual and its RMS norm.

    Args:
        x: (N, width).
        residual: (N, width), or None for zeros.
        weight: (width,) of the norm.
        eps: of the norm.

    Returns:
        (normed, sum), both (N, width) in x's dtype; without a residual the sum is x itself.
    """
    if x.is_cuda:
        from voiceagent.models.step_audio2.kernels.gpu import fused as gpu

        return gpu.add_rms_norm(x, residual, weight, eps)
    return add_rms_norm_torch(x, residual, weight, eps)


def add_rms_norm_torch(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """`add_rms_norm` in plain torch."""
    total = x if residual is None else x + residual
    return F.rms_norm(total, (total.shape[-1],), weight, eps), total


def silu_mul(gate_up: Tensor) -> Tensor:
    """silu(gate) * up of (N, 2 * width), gate before up; (N, width)."""
    if gate_up.is_cuda:
        from voiceagent.models.step_audio2.kernels.gpu import fused as gpu

        return gpu.silu_mul(gate_up)
    return silu_mul_torch(gate_up)


def silu_mul_torch(gate_up: Tensor) -> Tensor:
    """`silu_mul` in plain torch."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def rotate_and_write(
    qkv: Tensor | Sums,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor,
    pool: Tensor,
    layer: int,
    places: Tensor,
) -> Tensor:
    """Rotary positions of queries and keys, and the page write of keys and values.

    Args:
        qkv: (N, (heads + 2 * kv_heads) * head_dim), queries, keys, values; or what remains to be added up of them.
        cos: (positions, head_dim) table, both halves equal.
        sin: (positions, head_dim) table, the first half negated: (a, b) becomes (a cos - b sin, b cos + a sin).
        positions: (N,) int64 rows of the tables.
        pool: the pages (see `paged`); changed in place.
        layer: which layer's pages.
        places: (N,) int64 page * PAGE + offset; -1 stores nothing.

    Returns:
        The rotated queries, (N, heads, head_dim).
    """
    if pool.is_cuda:
        from voiceagent.models.step_audio2.kernels.gpu import fused as gpu

        return gpu.rotate_and_write(qkv, cos, sin, positions, pool, layer, places)
    return rotate_and_write_torch(qkv, cos, sin, positions, pool, layer, places)


def rotate_and_write_torch(
    qkv: Tensor | Sums,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor,
    pool: Tensor,
    layer: int,
    places: Tensor,
) -> Tensor:
    """`rotate_and_write` in plain torch."""
    if isinstance(qkv, Sums):
        qkv = qkv.whole()
    kv_heads, width = pool.shape[4:]
    qkv = qkv.view(qkv.shape[0], -1, width)
    heads = qkv.shape[1] - 2 * kv_heads
    turned, values = qkv[:, : heads + kv_heads], qkv[:, heads + kv_heads :]
    cosines, sines = cos[positions][:, None], sin[positions][:, None]
    turned = torch.addcmul(turned * cosines, turned.roll(width // 2, -1), sines).to(qkv.dtype)
    paged.write_torch(turned[:, heads:], values, pool, layer, places)
    return turned[:, :heads]
