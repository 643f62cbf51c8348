"""Draws the rows whose outcome a few thousand of the best ids settle, which are nearly all.

A sample of the row tells above which score about the right number of ids lies; they are listed, and one program per row
finds the edges of top-k and of top-p among them and draws, by bisection. What it cannot prove exact it leaves undone:
when the list overflows, holds less than k ids, or less than top-p's share of all weight.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# ruff: noqa: RUF059 - Triton gives a name one type, so that an unused value cannot be called _
from __future__ import annotations

import torch
from torch import Tensor

from voiceagent.models.step_audio2.kernels.gpu.language import (
    after_previous,
    ceil_div,
    constant,
    jit,
    launch,
    power_of_2,
    tl,
)
from voiceagent.models.step_audio2.kernels.gpu.rows import (
    DONE,
    LISTED,
    LOWEST,
    SCORED,
    SLOTS,
    WHOLE,
    best_of,
    limits_of,
    weight_of,
)

_BLOCK = 2048  # ids of one program
_ROOM = 4096  # ids of a list
_SAMPLE = 1024
SPARE_RANK = constant(
    8
)  # of the sample: about 1,200 of 158,720 ids are better, and hardly ever fewer than 100


def draw(
    held: Tensor,
    peaks: Tensor,
    temperature: Tensor,
    top_p: Tensor,
    top_k: Tensor,
    uniform: Tensor,
    state: Tensor,
    ids: Tensor,
    ok: Tensor,
) -> None:
    """Fills in `ids` and `ok` of the rows that it settles, and marks them as done in `state`."""
    count, vocabulary = held.shape
    blocks, device = peaks.shape[1], held.device
    listed = held.new_empty(2, count, _ROOM, dtype=torch.int32)
    width = power_of_2(blocks)
    options = (temperature, top_p, top_k)
    launch(_guess, (count,), device, held, *options, state, vocabulary, _SAMPLE, _ROOM)
    grid = (ceil_div(vocabulary, _BLOCK), count)
    launch(_list, grid, device, held, peaks, *options, state, listed, vocabulary, _BLOCK, _ROOM, width)
    out = (uniform, state, listed, ids, ok)
    launch(_settle, (count,), device, peaks, *options, *out, vocabulary, blocks, _ROOM, width, num_warps=8)


@jit
def _signed(value):
    """int32 of the same order as the float32."""
    bits = value.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@jit
def _guess(
    held,
    temperature,
    top_p,
    top_k,
    state,
    vocabulary,
    SAMPLE: tl.constexpr,
    ROOM: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """The lowest key to list: a rank in an evenly spaced sample that leaves room on both sides of k ids."""
    after_previous(OVERLAP)
    row = tl.program_id(0).to(tl.int64)
    heat, p, k = limits_of(temperature, top_p, top_k, row, vocabulary)
    lowest = tl.full((), -2147483648, tl.int32)
    if vocabulary > ROOM:
        at = (tl.arange(0, SAMPLE).to(tl.int64) * vocabulary // SAMPLE).to(tl.int32)
        ordered = tl.sort(_signed(tl.load(held + row * vocabulary + at)), descending=True)
        rank = tl.minimum(SPARE_RANK + k.to(tl.int64) * SAMPLE * 3 // 2 // vocabulary, SAMPLE - 1).to(
            tl.int32
        )
        lowest = tl.sum(tl.where(tl.arange(0, SAMPLE) == rank, ordered, 0), 0)
    tl.store(state + row * SLOTS + LOWEST, lowest.to(tl.int64))


@jit
def _list(
    held,
    peaks,
    temperature,
    top_p,
    top_k,
    state,
    listed,
    vocabulary,
    BLOCK: tl.constexpr,
    ROOM: tl.constexpr,
    WIDTH: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """Appends the keys and ids of one block, in whatever order the blocks come."""
    after_previous(OVERLAP)
    block, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    rows = tl.num_programs(1)
    state += row * SLOTS
    heat, p, k = limits_of(temperature, top_p, top_k, row, vocabulary)
    at = block * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(held + row * vocabulary + at, at < vocabulary, float("-inf"))
    scored = value > float("-inf")
    tl.atomic_add(state + SCORED, tl.sum(scored.to(tl.int64), 0), sem="relaxed")
    if k == 0:
        best, fine = best_of(peaks, row, tl.num_programs(0), WIDTH)
        heat, p, k = limits_of(temperature, top_p, top_k, row, vocabulary)
        tl.atomic_add(state + WHOLE, tl.sum(weight_of(value, best, heat), 0), sem="relaxed")
    key = _signed(value)
    chosen = scored & (key >= tl.load(state + LOWEST).to(tl.int32))
    count = tl.sum(chosen.to(tl.int32), 0)
    if count > 0:
        start = tl.atomic_add(state + LISTED, count.to(tl.int64), sem="relaxed").to(tl.int32)
        place = start + tl.cumsum(chosen.to(tl.int32), 0) - 1
        target = listed + row * ROOM + place
        chosen = chosen & (place < ROOM)
        tl.store(target, key, chosen)
        tl.store(target + rows * ROOM, at, chosen)


@jit
def _edge(key, worth, goal, low, high):
    """The highest key down to which `worth` adds up to the goal, if all of it does."""
    while low < high:
        middle = low + (high - low + 1) // 2
        if tl.sum(tl.where(key >= middle.to(tl.int32), worth, 0), 0) >= goal:
            low = middle
        else:
            high = middle - 1
    return low


@jit
def _id_at(at, worth, goal, vocabulary):
    """The lowest id up to which `worth` adds up to the goal."""
    low = tl.zeros((), tl.int32)
    high = low + vocabulary - 1
    while low < high:
        middle = (low + high) // 2
        if tl.sum(tl.where(at <= middle, worth, 0), 0) >= goal:
            high = middle
        else:
            low = middle + 1
    return low


@jit
def _first_equals(key, at, kept, edge, count, vocabulary):
    """`kept` above the edge, and the first `count` by id at it."""
    equal = kept & (key == edge.to(tl.int32))
    last = tl.zeros((), tl.int32) + vocabulary
    if tl.sum(equal.to(tl.int64), 0) > count:
        last = _id_at(at, equal.to(tl.int64), count, vocabulary)
    return (kept & (key > edge.to(tl.int32))) | (equal & (at <= last))


@jit
def _settle(
    peaks,
    temperature,
    top_p,
    top_k,
    uniform,
    state,
    listed,
    ids,
    ok,
    vocabulary,
    blocks,
    ROOM: tl.constexpr,
    WIDTH: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """Draws one row from its list, if that is exact."""
    after_previous(OVERLAP)
    row, rows = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    state += row * SLOTS
    best, fine = best_of(peaks, row, blocks, WIDTH)
    heat, p, k = limits_of(temperature, top_p, top_k, row, vocabulary)
    if fine == 0:
        tl.store(ids + row, tl.zeros((), tl.int64))
        tl.store(ok + row, fine)
        tl.store(state + DONE, 1)
        return
    count, scored = tl.load(state + LISTED), tl.load(state + SCORED)
    k = tl.minimum(k.to(tl.int64), scored)
    if count > ROOM:
        return
    if k > count:
        return
    if (k == 0) & (p == 1.0) & (count < scored):
        return

    slot = tl.arange(0, ROOM)
    kept = slot < count
    key = tl.load(listed + row * ROOM + slot, kept, -2147483648)
    at = tl.load(listed + (rows + row) * ROOM + slot, kept, 2147483647)
    bits = key ^ ((key >> 31) & 0x7FFFFFFF)
    weight = tl.where(kept, weight_of(bits.to(tl.float32, bitcast=True), best, heat), 0)
    low = tl.min(tl.where(kept, key, 2147483647), 0).to(tl.int64)
    high = tl.max(key, 0).to(tl.int64)
    whole = tl.load(state + WHOLE)
    if k > 0:
        edge = _edge(key, kept.to(tl.int64), k, low, high)
        above = tl.sum((kept & (key > edge.to(tl.int32))).to(tl.int64), 0)
        kept = _first_equals(key, at, kept, edge, k - above, vocabulary)
        weight = tl.where(kept, weight, 0)
        whole = tl.sum(weight, 0)
        low = edge
    if p < 1.0:
        goal = tl.maximum(tl.ceil(p.to(tl.float64) * whole.to(tl.float64)).to(tl.int64), 1)
        if tl.sum(weight, 0) < goal:
            return
        edge = _edge(key, weight, goal, low, high)
        above = tl.sum(tl.where(key > edge.to(tl.int32), weight, 0), 0)
        each = tl.maximum(tl.max(tl.where(kept & (key == edge.to(tl.int32)), weight, 0), 0), 1)
        kept = _first_equals(key, at, kept, edge, (goal - above + each - 1) // each, vocabulary)
        weight = tl.where(kept, weight, 0)
    total = tl.sum(weight, 0)
    goal = tl.minimum((tl.load(uniform + row).to(tl.float64) * total.to(tl.float64)).to(tl.int64), total - 1)
    drawn = _id_at(at, weight, goal + 1, vocabulary)
    tl.store(ids + row, drawn.to(tl.int64))
    tl.store(ok + row, fine)
    tl.store(state + DONE, 1)
