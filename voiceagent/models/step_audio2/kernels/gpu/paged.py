"""Triton twins of `kernels.paged`: split-KV decoding, so that one long row and many short ones both fill the GPU."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math

import torch
from torch import Tensor

from voiceagent.models.step_audio2.kernels.gpu import choices
from voiceagent.models.step_audio2.kernels.gpu.language import (
    after_previous,
    jit,
    launch,
    power_of_2,
    tl,
)

_MOST_SPLITS = 64


def write(keys: Tensor, values: Tensor, pool: Tensor, layer: int, places: Tensor) -> None:
    """`kernels.paged.write`."""
    pages = pool[layer]
    row = keys.shape[1] * keys.shape[2]
    launch(
        _write,
        (keys.shape[0],),
        pool.device,
        keys.contiguous(),
        values.contiguous(),
        pages,
        pages.stride(0),
        places,
        row,
        power_of_2(row),
    )


def decode_attention(
    q: Tensor, pool: Tensor, layer: int, tables: Tensor, lengths: Tensor, *, splits: int | None = None
) -> Tensor:
    """`kernels.paged.decode_attention`; `splits` programs share a row's pages (None: chosen by the batch)."""
    batch, heads, width = q.shape
    page, kv_heads = pool.shape[3:5]
    group = heads // kv_heads
    choice = choices.of(choices.now().attention, batch)
    assert choice is not None, "there is one for any number of rows"
    if splits is None:
        splits = min(_MOST_SPLITS, power_of_2(max(1, choice.programs // (batch * kv_heads))))
    out = torch.empty_like(q)
    partial = q.new_empty(batch, heads, splits, width, dtype=torch.float32)
    peaks = q.new_empty(2, batch, heads, splits, dtype=torch.float32)
    pages = pool[layer]
    launch(
        _attend,
        (kv_heads, splits, batch),
        pool.device,
        q.contiguous(),
        pages,
        pages.stride(0),
        tables,
        tables.stride(0),
        lengths,
        out if splits == 1 else partial,
        peaks,
        peaks.stride(0),
        math.log2(math.e) / math.sqrt(width),
        kv_heads,
        group,
        max(16, power_of_2(group)),
        page,
        width,
        splits,
        early=choice.early,
        num_warps=choice.warps,
        num_stages=choice.stages if splits == 1 else choice.split_stages,
    )
    if splits > 1:
        tensors = (partial, peaks, peaks.stride(0), lengths, out)
        sizes = (page, width, splits)
        launch(_merge, (batch, heads), q.device, *tensors, *sizes, early=choice.merge_early)
    return out


@jit
def _write(keys, values, pages, values_offset, places, row, BLOCK: tl.constexpr, OVERLAP: tl.constexpr):
    after_previous(OVERLAP)
    n = tl.program_id(0).to(tl.int64)
    place = tl.load(places + n).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < tl.where(place >= 0, row, 0)
    key, value = tl.load(keys + n * row + at, inside), tl.load(values + n * row + at, inside)
    tl.store(pages + place * row + at, key.to(pages.dtype.element_ty), inside)
    tl.store(pages + values_offset + place * row + at, value.to(pages.dtype.element_ty), inside)


@jit
def _attend(
    q,
    pages,
    values_offset,
    tables,
    table_stride,
    lengths,
    out,
    peaks,
    sums_offset,
    scale,
    kv_heads,
    group,
    ROWS: tl.constexpr,
    PAGE: tl.constexpr,
    WIDTH: tl.constexpr,
    SPLITS: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """One kv head's queries over one split of one row's pages; the softmax runs in base 2."""
    after_previous(OVERLAP)
    kv_head, split, row = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    length = tl.load(lengths + row)
    count = tl.cdiv(length, PAGE)
    share = tl.cdiv(count, SPLITS)
    first = split * share
    last = tl.minimum(first + share, count)

    query = tl.arange(0, ROWS)
    at = tl.arange(0, WIDTH)
    offset = tl.arange(0, PAGE)
    real = query < group
    head = row * kv_heads * group + kv_head * group + query
    queries = tl.load(q + head[:, None] * WIDTH + at[None, :], real[:, None], 0.0)
    within = (offset[:, None] * kv_heads + kv_head) * WIDTH + at[None, :]

    peak = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    mixed = tl.zeros((ROWS, WIDTH), tl.float32)
    for i in range(first, last):
        number = tl.load(tables + row * table_stride + i).to(tl.int64)
        start = pages + number * (PAGE * kv_heads * WIDTH)
        held = i * PAGE + offset < length
        keys = tl.load(start + within, held[:, None], 0.0)
        values = tl.load(start + values_offset + within, held[:, None], 0.0)
        scores = tl.dot(queries, tl.trans(keys), input_precision="ieee") * scale
        scores = tl.where(held[None, :], scores, float("-inf"))
        higher = tl.maximum(peak, tl.max(scores, 1))
        chances = tl.exp2(scores - higher[:, None])
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(chances, 1)
        mixed = mixed * shrink[:, None]
        mixed = tl.dot(chances.to(values.dtype), values, mixed, input_precision="ieee")
        peak = higher

    if SPLITS == 1:
        mixed = tl.where(total[:, None] > 0.0, mixed / total[:, None], 0.0)
        tl.store(out + head[:, None] * WIDTH + at[None, :], mixed.to(out.dtype.element_ty), real[:, None])
    elif first < last:
        slot = head * SPLITS + split
        tl.store(out + slot[:, None] * WIDTH + at[None, :], mixed, real[:, None])
        tl.store(peaks + slot, peak, real)
        tl.store(peaks + sums_offset + slot, total, real)


@jit
def _merge(
    partial,
    peaks,
    sums_offset,
    lengths,
    out,
    PAGE: tl.constexpr,
    WIDTH: tl.constexpr,
    SPLITS: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """One head's splits into one result."""
    after_previous(OVERLAP)
    row, heads = tl.program_id(0).to(tl.int64), tl.num_programs(1)
    head = row * heads + tl.program_id(1)
    count = tl.cdiv(tl.load(lengths + row), PAGE)
    split, at = tl.arange(0, SPLITS), tl.arange(0, WIDTH)
    used = split * tl.cdiv(count, SPLITS) < count
    slot = head * SPLITS + split
    peak = tl.load(peaks + slot, used, float("-inf"))
    total = tl.load(peaks + sums_offset + slot, used, 0.0)
    parts = tl.load(partial + slot[:, None] * WIDTH + at[None, :], used[:, None], 0.0)
    weight = tl.where(used, tl.exp2(peak - tl.max(peak, 0)), 0.0)
    total = tl.sum(weight * total, 0)
    mixed = tl.sum(weight[:, None] * parts, 0)
    tl.store(out + head * WIDTH + at, tl.where(total > 0.0, mixed / total, 0.0).to(out.dtype.element_ty))
