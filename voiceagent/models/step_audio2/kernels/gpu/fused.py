"""Triton twins of `kernels.fused`: each one pass over its data."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import torch
from torch import Tensor

from voiceagent.models.step_audio2.kernels.gpu import choices
from voiceagent.models.step_audio2.kernels.gpu.language import (
    after_previous,
    ceil_div,
    contiguous,
    jit,
    launch,
    power_of_2,
    tl,
)
from voiceagent.models.step_audio2.kernels.sums import Sums


def add_rms_norm(x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`kernels.fused.add_rms_norm`."""
    rows, width = x.shape
    x = x.contiguous()
    normed = torch.empty_like(x)
    total = x if residual is None else torch.empty_like(x)
    other = x if residual is None else residual.contiguous()
    block = power_of_2(width)
    launch(
        _add_rms_norm,
        (rows,),
        x.device,
        x,
        other,
        weight,
        normed,
        total,
        width,
        eps,
        residual is not None,
        block,
        num_warps=8 if block >= 2048 else 4,
    )
    return normed, total


def silu_mul(gate_up: Tensor) -> Tensor:
    """`kernels.fused.silu_mul`."""
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = gate_up.new_empty(rows, width)
    block = 1024
    launch(_silu_mul, (rows, ceil_div(width, block)), out.device, gate_up.contiguous(), out, width, block)
    return out


def rotate_and_write(
    qkv: Tensor | Sums,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor,
    pool: Tensor,
    layer: int,
    places: Tensor,
) -> Tensor:
    """`kernels.fused.rotate_and_write`."""
    sums = qkv if isinstance(qkv, Sums) else None
    source = qkv.contiguous() if isinstance(qkv, Tensor) else qkv.parts
    kv_heads, width = pool.shape[4:]
    rows, heads = source.shape[-2], source.shape[-1] // width - 2 * kv_heads
    q = torch.empty(rows, heads, width, dtype=sums.dtype if sums else source.dtype, device=source.device)
    bias, pages, now = None if sums is None else sums.bias, pool[layer], choices.now()
    launch(
        _rotate_and_write,
        (rows, ceil_div(heads + 2 * kv_heads, now.turn_heads)),
        source.device,
        source,
        contiguous(bias, otherwise=source),
        cos,
        sin,
        positions,
        q,
        pages,
        pages.stride(0),
        places,
        heads,
        kv_heads,
        width // 2,
        0 if sums is None else len(source),
        bias is not None,
        now.turn_heads,
        early=now.turn_early,
        num_warps=2,
    )
    return q


@jit
def _add_rms_norm(
    x,
    residual,
    weight,
    normed,
    total,
    width,
    eps,
    ADD: tl.constexpr,
    BLOCK: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    after_previous(OVERLAP)
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < width
    value = tl.load(x + row * width + at, inside, 0.0).to(tl.float32)
    if ADD:
        value += tl.load(residual + row * width + at, inside, 0.0).to(tl.float32)
        rounded = value.to(total.dtype.element_ty)
        tl.store(total + row * width + at, rounded, inside)
        value = rounded.to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, 0) / width + eps)
    value = value * scale * tl.load(weight + at, inside, 0.0).to(tl.float32)
    tl.store(normed + row * width + at, value.to(normed.dtype.element_ty), inside)


@jit
def _silu_mul(gate_up, out, width, BLOCK: tl.constexpr, OVERLAP: tl.constexpr):
    after_previous(OVERLAP)
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    gate = tl.load(gate_up + row * 2 * width + at, inside, 0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * width + width + at, inside, 0.0).to(tl.float32)
    tl.store(out + row * width + at, (gate / (1.0 + tl.exp(-gate)) * up).to(out.dtype.element_ty), inside)


@jit
def _rotate_and_write(
    qkv,
    bias,
    cos,
    sin,
    positions,
    q,
    pages,
    values_offset,
    places,
    heads,
    kv_heads,
    HALF: tl.constexpr,
    SPLITS: tl.constexpr,
    BIAS: tl.constexpr,
    BLOCK: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """Some heads of one row; with SPLITS, `qkv` holds so many float32 sums of each, and `bias` what belongs to them."""
    after_previous(OVERLAP)
    row, rows = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    head = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[:, None]
    at = tl.arange(0, HALF)[None, :]
    inside = head < heads + 2 * kv_heads
    start = qkv + (row * (heads + 2 * kv_heads) + head) * 2 * HALF + at
    a = tl.load(start, inside, 0.0).to(tl.float32)
    b = tl.load(start + HALF, inside, 0.0).to(tl.float32)
    for _split in tl.static_range(1, SPLITS):
        start += rows * (heads + 2 * kv_heads) * 2 * HALF
        a += tl.load(start, inside, 0.0)
        b += tl.load(start + HALF, inside, 0.0)
    if BIAS:
        a += tl.load(bias + head * 2 * HALF + at, inside, 0.0).to(tl.float32)
        b += tl.load(bias + head * 2 * HALF + HALF + at, inside, 0.0).to(tl.float32)
    position, place = tl.load(positions + row), tl.load(places + row).to(tl.int64)
    c = tl.load(cos + position * 2 * HALF + at).to(tl.float32)
    s = tl.load(sin + position * 2 * HALF + HALF + at).to(tl.float32)
    turned = head < heads + kv_heads
    first, second = tl.where(turned, a * c - b * s, a), tl.where(turned, b * c + a * s, b)

    target = q + (row * heads + head) * 2 * HALF + at
    tl.store(target, first.to(q.dtype.element_ty), head < heads)
    tl.store(target + HALF, second.to(q.dtype.element_ty), head < heads)

    stored = inside & (tl.where(place >= 0, head, -1) >= heads)
    kv_head = tl.where(turned, head - heads, head - heads - kv_heads)
    target = pages + tl.where(turned, 0, values_offset) + (place * kv_heads + kv_head) * 2 * HALF + at
    tl.store(target, first.to(pages.dtype.element_ty), stored)
    tl.store(target + HALF, second.to(pages.dtype.element_ty), stored)
