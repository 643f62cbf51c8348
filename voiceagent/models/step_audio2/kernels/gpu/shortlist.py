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
    scores_of,
    weight_of,
)

BLOCK = 2048  #: ids of one program
_ROOM = 2048  # ids of a list
_SAMPLE = 2048
SPARE_RANK = constant(12)  # of the sample: some 930 of 158,720 ids are better, hardly ever less than 200


def draw(
    source: tuple[Tensor, ...],
    options: tuple[Tensor, ...],
    uniform: Tensor,
    *,
    state: Tensor,
    peaks: Tensor,
    histograms: Tensor,
    ids: Tensor,
    ok: Tensor,
) -> None:
    """Fills in `ids` and `ok` of the rows that it settles, and marks them as done in `state`.

    Args:
        source: scores, seen, masks, allowed and penalty of `kernels.sample.choose`.
        options: its temperature, top_p and top_k.
        uniform: its random numbers.
        state: (B, rows.SIZE) int64, made here.
        peaks: (B, blocks) float32, gets the best score of each block; +inf marks one with NaN or +inf in it.
        histograms: (passes, B, 256) int64, emptied for the passes that may follow.
        ids: (B,) int64.
        ok: (B,) bool.
    """
    count, vocabulary = source[0].shape
    blocks, device, passes = peaks.shape[1], peaks.device, histograms.shape[0]
    listed = peaks.new_empty(2, count, _ROOM, dtype=torch.int32)
    width, grid = power_of_2(blocks), (blocks, count)
    sizes = (_SAMPLE, _ROOM, passes)
    launch(_guess, (count,), device, *source, *options, histograms, state, vocabulary, *sizes, num_warps=8)
    launch(_list, grid, device, *source, peaks, state, listed, vocabulary, BLOCK, _ROOM)
    launch(_weigh, grid, device, *source, *options, peaks, state, vocabulary, BLOCK, width)
    out = (uniform, state, listed, ids, ok)
    launch(_settle, (count,), device, peaks, *options, *out, vocabulary, blocks, _ROOM, width)


@jit
def _signed(value):
    """int32 of the same order as the float32."""
    bits = value.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@jit
def _guess(
    scores,
    seen,
    masks,
    allowed,
    penalty,
    temperature,
    top_p,
    top_k,
    histograms,
    state,
    vocabulary,
    SAMPLE: tl.constexpr,
    ROOM: tl.constexpr,
    PASSES: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """The lowest key to list: a rank in an evenly spaced sample that leaves room on both sides of k ids."""
    after_previous(OVERLAP)
    row = tl.program_id(0).to(tl.int64)
    heat, p, k = limits_of(temperature, top_p, top_k, row, vocabulary)
    lowest = tl.full((), -2147483648, tl.int32)
    if vocabulary > ROOM:
        at = (tl.arange(0, SAMPLE).to(tl.int64) * vocabulary // SAMPLE).to(tl.int32)
        value, broken = scores_of(scores, seen, masks, allowed, penalty, row, at, vocabulary)
        ordered = tl.sort(_signed(value), descending=True)
        rank = SPARE_RANK + k.to(tl.int64) * SAMPLE * 3 // 2 // vocabulary
        lowest = tl.sum(tl.where(tl.arange(0, SAMPLE) == tl.minimum(rank, SAMPLE - 1), ordered, 0), 0)
    state += row * SLOTS
    tl.store(state + LOWEST, lowest.to(tl.int64))
    tl.store(state + LISTED, 0)
    tl.store(state + SCORED, 0)
    tl.store(state + WHOLE, 0)
    tl.store(state + DONE, 0)
    for i in tl.static_range(PASSES):
        bins = histograms + (i * tl.num_programs(0) + row) * 256 + tl.arange(0, 256)
        tl.store(bins, tl.zeros((256,), tl.int64))


@jit
def _list(
    scores,
    seen,
    masks,
    allowed,
    penalty,
    peaks,
    state,
    listed,
    vocabulary,
    BLOCK: tl.constexpr,
    ROOM: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """Appends the keys and ids of one block, in whatever order the blocks come; and finds the block's best score."""
    after_previous(OVERLAP)
    block, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    rows = tl.num_programs(1)
    state += row * SLOTS
    at = block * BLOCK + tl.arange(0, BLOCK)
    value, broken = scores_of(scores, seen, masks, allowed, penalty, row, at, vocabulary)
    peak = tl.where(tl.max(broken.to(tl.int32), 0) > 0, float("inf"), tl.max(value, 0))
    tl.store(peaks + row * tl.num_programs(0) + block, peak)
    scored = value > float("-inf")
    tl.atomic_add(state + SCORED, tl.sum(scored.to(tl.int32), 0).to(tl.int64), sem="relaxed")
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
def _weigh(
    scores,
    seen,
    masks,
    allowed,
    penalty,
    temperature,
    top_p,
    top_k,
    peaks,
    state,
    vocabulary,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """Adds up the weights of all ids, for top-p without top-k."""
    after_previous(OVERLAP)
    row = tl.program_id(1).to(tl.int64)
    heat, p, k = limits_of(temperature, top_p, top_k, row, vocabulary)
    if (k > 0) | (p == 1.0):
        return
    best, fine = best_of(peaks, row, tl.num_programs(0), WIDTH)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value, broken = scores_of(scores, seen, masks, allowed, penalty, row, at, vocabulary)
    tl.atomic_add(state + row * SLOTS + WHOLE, tl.sum(weight_of(value, best, heat), 0), sem="relaxed")


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
