"""Triton twins of small steps around the encoder's attention and between the vocoder's convolutions.

They know tensors; nothing of streams, voices or chunks.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import torch
from torch import Tensor

from voiceagent.models.step_audio2.kernels.gpu.language import ceil_div, jit, tl
from voiceagent.models.step_audio2.t2w_triton_dit import loosely


def recall(memory: Tensor, history: Tensor, own: Tensor) -> Tensor:
    """`t2w_ops.recall`."""
    (batch, span), (tokens, width) = history.shape, own.shape[1::2]
    out = memory.new_empty(2, batch, span + tokens, width)
    _recall[(batch * (span + tokens), 2)](
        memory,
        history,
        own,
        out,
        memory.stride(0),
        batch,
        span,
        tokens,
        own.stride(0),
        own.stride(1),
        WIDTH=width,
    )
    return out


def place_bias(by_distance: Tensor, mask: Tensor) -> Tensor:
    """`t2w_ops.place_bias`."""
    batch, heads, queries, distances = by_distance.shape
    keys = distances - queries
    out = by_distance.new_empty(batch, heads, queries, keys)
    _place_bias[(batch * heads * queries, ceil_div(keys, 512))](
        by_distance, mask, out, heads, queries, keys, BLOCK=512, num_warps=2
    )
    return out


def snake(
    x: Tensor, bias: Tensor | None, before: Tensor | None, alpha: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The sum x + bias + before (B, C, 1, T), float32, and its Snake, y + sin(alpha y)^2 / alpha, if alpha is given."""
    x = x.contiguous(memory_format=torch.channels_last)
    summed = bias is not None or before is not None
    total = torch.empty_like(x) if summed else x
    out = x if alpha is None else torch.empty_like(x)
    if before is not None:
        before = before.contiguous(memory_format=torch.channels_last)
    spare = x
    _snake[(ceil_div(x.numel(), 1024),)](
        x,
        spare if bias is None else bias,
        spare if before is None else before,
        spare if alpha is None else alpha,
        total,
        out,
        x.numel(),
        x.shape[1],
        BIAS=bias is not None,
        ADD=before is not None,
        SNAKE=alpha is not None,
        KEEP=before is not None,
        BLOCK=1024,
        num_warps=4,
    )
    return total, out


def noise(seeds: Tensor, first: Tensor, count: int, *, lane: int) -> Tensor:
    """`t2w_noise.noise`."""
    out = torch.empty(len(seeds), count, device=seeds.device)
    _noise[(ceil_div(count, 1024), len(seeds))](
        seeds, first, out, seeds.stride(0), first.stride(0), count, lane, BLOCK=1024
    )
    return out


@jit
def _mix(x):
    x = (x ^ (x >> 16)) * 0x85EBCA6B
    x = (x ^ (x >> 13)) * 0xC2B2AE35
    return x ^ (x >> 16)


@loosely("seed_step", "first_step", "count", "lane")
def _noise(seeds, first, out, seed_step, first_step, count, lane, BLOCK: tl.constexpr):
    b = tl.program_id(1)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    seed = tl.load(seeds + b * seed_step)
    high = ((seed >> 32).to(tl.uint32) + lane).to(tl.uint32)
    key = _mix(seed.to(tl.uint32) ^ _mix(high))
    place = tl.load(first + b * first_step) + at
    low = _mix(place.to(tl.uint32) + key)
    one = _mix(low ^ 0x9E3779B9 ^ (place >> 32).to(tl.uint32))
    two = _mix((low + key) ^ 0x85EBCA6B)
    radius = tl.sqrt(-2 * tl.log((one.to(tl.float32) + 0.5) * 2.3283064365386963e-10))
    value = radius * tl.cos(two.to(tl.float32) * 1.4629180792671596e-09)
    tl.store(out + b.to(tl.int64) * count + at, value, at < count)


@loosely("batch", "span", "tokens")
def _recall(
    memory, history, own, out, memory_kv, batch, span, tokens, own_row, own_token, WIDTH: tl.constexpr
):
    """Key or value number i of stream b: from its history, or its own."""
    at = tl.arange(0, WIDTH)
    b, i, part = tl.program_id(0) // (span + tokens), tl.program_id(0) % (span + tokens), tl.program_id(1)
    place = out + ((part.to(tl.int64) * batch + b) * (span + tokens) + i) * WIDTH
    if i < span:
        row = tl.load(history + b * span + i)
        tl.store(place + at, tl.load(memory + part * memory_kv.to(tl.int64) + row * WIDTH + at))
    else:
        tl.store(
            place + at, tl.load(own + b.to(tl.int64) * own_row + (i - span) * own_token + part * WIDTH + at)
        )


@loosely("heads", "queries", "keys")
def _place_bias(by_distance, mask, out, heads, queries, keys, BLOCK: tl.constexpr):
    """out[i, j] = by_distance[i, queries - 1 - i + j] + mask[j]"""
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    row = tl.program_id(0).to(tl.int64)
    i, b = row % queries, row // (heads * queries)
    inside = at < keys
    value = tl.load(by_distance + row * (keys + queries) + queries - 1 - i + at, inside, 0.0)
    tl.store(out + row * keys + at, value + tl.load(mask + b * keys + at, inside, 0.0), inside)


@loosely("count")
def _snake(
    x,
    bias,
    before,
    alpha,
    total,
    out,
    count,
    channels,
    BIAS: tl.constexpr,
    ADD: tl.constexpr,
    SNAKE: tl.constexpr,
    KEEP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    channel = at % channels
    y = tl.load(x + at, inside, 0.0)
    if BIAS:
        y += tl.load(bias + channel)
    if ADD:
        y += tl.load(before + at, inside, 0.0)
    if KEEP:
        tl.store(total + at, y, inside)
    if SNAKE:
        by = tl.load(alpha + channel)
        wave = tl.sin(by * y)
        tl.store(out + at, y + wave * wave / (by + 1e-9), inside)
