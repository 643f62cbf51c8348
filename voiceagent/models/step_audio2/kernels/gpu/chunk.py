"""Triton twin of `kernels.chunk`: a block of positions and all query heads of a kv head read the pages together."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math

import torch
from torch import Tensor

from voiceagent.models.step_audio2.kernels.gpu.language import (
    after_previous,
    ceil_div,
    jit,
    launch,
    power_of_2,
    tl,
)

_ROWS = 128  # queries of one program: as many positions as fit
_PROGRAMS = 264  # wanted at least: two for each of 132 multiprocessors
_MOST_SPLITS = 16


def chunk_attention(
    q: Tensor, pool: Tensor, layer: int, table: Tensor, lengths: Tensor, *, splits: int | None = None
) -> Tensor:
    """`kernels.chunk.chunk_attention`; `splits` programs share the pages (None: chosen by the number of rows)."""
    count, heads, width = q.shape
    page, kv_heads = pool.shape[3:5]
    group = heads // kv_heads
    together = max(1, _ROWS // group)
    blocks = ceil_div(count, together)
    if splits is None:
        splits = min(_MOST_SPLITS, power_of_2(ceil_div(_PROGRAMS, blocks * kv_heads)))
    out = torch.empty_like(q)
    partial = q.new_empty(count, heads, splits, width, dtype=torch.float32)
    sums = q.new_empty(2, count, heads, splits, dtype=torch.float32)
    pages = pool[layer]
    launch(
        _attend,
        (blocks, kv_heads, splits),
        q.device,
        q.contiguous(),
        pages,
        pages.stride(0),
        table,
        lengths,
        out if splits == 1 else partial,
        sums,
        sums.stride(0),
        math.log2(math.e) / math.sqrt(width),
        count,
        kv_heads,
        group,
        together,
        max(16, power_of_2(together * group)),
        power_of_2(together),
        page,
        width,
        splits,
        num_warps=8,
        num_stages=2,
    )
    if splits > 1:
        launch(
            _merge, (count, heads), q.device, partial, sums, sums.stride(0), out, width, splits, num_warps=2
        )
    return out


@jit
def _attend(
    q,
    pages,
    values_offset,
    table,
    lengths,
    out,
    sums,
    sums_offset,
    scale,
    count,
    kv_heads,
    GROUP: tl.constexpr,
    TOGETHER: tl.constexpr,
    ROWS: tl.constexpr,
    POSITIONS: tl.constexpr,
    PAGE: tl.constexpr,
    WIDTH: tl.constexpr,
    SPLITS: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """TOGETHER positions, GROUP heads and one split of the pages; the softmax runs in base 2."""
    after_previous(OVERLAP)
    first_row, kv_head, split = tl.program_id(0) * TOGETHER, tl.program_id(1), tl.program_id(2)
    position = tl.arange(0, POSITIONS)
    inside = (position < TOGETHER) & (first_row + position < count)
    longest = tl.max(tl.load(lengths + first_row + position, inside, 0), 0)
    held_pages = tl.cdiv(longest, PAGE)
    share = tl.cdiv(held_pages, SPLITS)
    begin = split * share
    end = tl.minimum(begin + share, held_pages)

    query = tl.arange(0, ROWS)
    row = first_row + query // GROUP
    real = (query < TOGETHER * GROUP) & (row < count)
    length = tl.load(lengths + row, real, 0)
    head = row.to(tl.int64) * (kv_heads * GROUP) + kv_head * GROUP + query % GROUP
    at = tl.arange(0, WIDTH)
    offset = tl.arange(0, PAGE)
    queries = tl.load(q + head[:, None] * WIDTH + at[None, :], real[:, None], 0.0)
    within = (offset[:, None] * kv_heads + kv_head) * WIDTH + at[None, :]

    peak = tl.full((ROWS,), -1e30, tl.float32)  # finite, so that rows that see nothing of a page stay numbers
    total = tl.zeros((ROWS,), tl.float32)
    mixed = tl.zeros((ROWS, WIDTH), tl.float32)
    for i in range(begin, end):
        number = tl.load(table + i).to(tl.int64)
        start = pages + number * (PAGE * kv_heads * WIDTH)
        held = i * PAGE + offset
        keys = tl.load(start + within, (held < longest)[:, None], 0.0)
        values = tl.load(start + values_offset + within, (held < longest)[:, None], 0.0)
        scores = tl.dot(queries, tl.trans(keys), input_precision="ieee") * scale
        seen = held[None, :] < length[:, None]
        scores = tl.where(seen, scores, -1e30)
        higher = tl.maximum(peak, tl.max(scores, 1))
        chances = tl.where(seen, tl.exp2(scores - higher[:, None]), 0.0)
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(chances, 1)
        mixed = mixed * shrink[:, None]
        mixed = tl.dot(chances.to(values.dtype), values, mixed, input_precision="ieee")
        peak = higher

    if SPLITS == 1:
        mixed = tl.where(total[:, None] > 0.0, mixed / total[:, None], 0.0)
        tl.store(out + head[:, None] * WIDTH + at[None, :], mixed.to(out.dtype.element_ty), real[:, None])
    else:
        slot = head * SPLITS + split
        tl.store(out + slot[:, None] * WIDTH + at[None, :], mixed, real[:, None])
        tl.store(sums + slot, peak, real)
        tl.store(sums + sums_offset + slot, total, real)


@jit
def _merge(partial, sums, sums_offset, out, WIDTH: tl.constexpr, SPLITS: tl.constexpr, OVERLAP: tl.constexpr):
    """One head's splits into one result."""
    after_previous(OVERLAP)
    head = tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    slot = head * SPLITS + tl.arange(0, SPLITS)
    at = tl.arange(0, WIDTH)
    peak = tl.load(sums + slot)
    weight = tl.exp2(peak - tl.max(peak, 0))
    total = tl.sum(weight * tl.load(sums + sums_offset + slot), 0)
    parts = tl.load(partial + slot[:, None] * WIDTH + at[None, :])
    mixed = tl.sum(weight[:, None] * parts, 0)
    tl.store(out + head * WIDTH + at, tl.where(total > 0.0, mixed / total, 0.0).to(out.dtype.element_ty))
