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

from voiceagent.models.step_audio2.kernels.gpu.choices import Sampling
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
_CROWD = 128  # ids of a block that are listed together, not one by one
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
    choice: Sampling,
) -> None:
    """Fills in `ids` and `ok` of the rows that it settles, and marks them as done in `state`.

    Args:
        source: scores, seen, owners, masks, allowed and penalty of `kernels.sample.choose`.
        options: its temperature, top_p and top_k.
        uniform: its random numbers.
        state: (B, rows.SIZE) int64, made here.
        peaks: (B, blocks) float32, gets the best listed score of each block; +inf marks one with NaN or +inf in it.
        histograms: (passes, B, 256) int64, emptied for the passes that may follow.
        ids: (B,) int64.
        ok: (B,) bool.
        choice: how the kernels are started.
    """
    count, vocabulary = source[0].shape
    blocks, device, passes = peaks.shape[1], peaks.device, histograms.shape[0]
    listed = peaks.new_empty(2, count, _ROOM, dtype=torch.int32)
    width, grid = power_of_2(blocks), (blocks, count)
    sizes, early = (_SAMPLE, _ROOM, passes, choice.pivots), choice.early
    first = (*source, *options, histograms, state, vocabulary, *sizes)
    launch(_guess, (count,), device, *first, early=early, num_warps=choice.guess_warps)
    second = (*source, peaks, state, listed, vocabulary, BLOCK, _ROOM, _CROWD, choice.late)
    launch(_list, grid, device, *second, early=early, num_warps=choice.list_warps)
    launch(_weigh, grid, device, *source, *options, peaks, state, vocabulary, BLOCK, width, early=early)
    out = (uniform, state, listed, ids, ok, vocabulary, blocks, _ROOM, width, choice.pivots)
    launch(_settle, (count,), device, peaks, *options, *out, early=early, num_warps=choice.settle_warps)


@jit
def _signed(value):
    """int32 of the same order as the float32."""
    bits = value.to(tl.int32, bitcast=True)
    return _bits(bits)


@jit
def _bits(key):
    """The float32's bits from the key, and the other way about."""
    return key ^ ((key >> 31) & 0x7FFFFFFF)


@jit
def _guess(
    scores,
    seen,
    owners,
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
    PIVOTS: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """The lowest score to list: a rank in an evenly spaced sample that leaves room on both sides of k ids."""
    after_previous(OVERLAP)
    row = tl.program_id(0).to(tl.int64)
    heat, p, k = limits_of(temperature, top_p, top_k, row, vocabulary)
    lowest = _signed(tl.full((), float("-inf"), tl.float32)).to(tl.int64)
    if vocabulary > ROOM:
        at = (tl.arange(0, SAMPLE).to(tl.int64) * vocabulary // SAMPLE).to(tl.int32)
        value, broken = scores_of(scores, seen, owners, masks, allowed, penalty, row, at, vocabulary)
        key = _signed(value)
        rank = tl.minimum(SPARE_RANK + k.to(tl.int64) * SAMPLE * 3 // 2 // vocabulary, SAMPLE - 1)
        if PIVOTS == 1:
            ordered = tl.sort(key, descending=True)
            lowest = tl.sum(tl.where(tl.arange(0, SAMPLE) == rank, ordered, 0), 0).to(tl.int64)
        else:
            low, high = tl.min(key, 0).to(tl.int64), tl.max(key, 0).to(tl.int64)
            lowest = _edge(key, tl.full((SAMPLE,), 1, tl.int32), rank + 1, low, high, PIVOTS)
    state += row * SLOTS
    tl.store(state + LOWEST, _bits(lowest.to(tl.int32)).to(tl.int64))
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
    owners,
    masks,
    allowed,
    penalty,
    peaks,
    state,
    listed,
    vocabulary,
    BLOCK: tl.constexpr,
    ROOM: tl.constexpr,
    CROWD: tl.constexpr,
    LATE: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """Appends the keys and ids of one block, in whatever order they come; and finds the best score on the list.

    Of a row that has scores some are listed, so that its best is among them.
    """
    after_previous(OVERLAP)
    block, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    rows = tl.num_programs(1)
    state += row * SLOTS
    at = block * BLOCK + tl.arange(0, BLOCK)
    lowest = tl.load(state + LOWEST).to(tl.int32).to(tl.float32, bitcast=True)
    if LATE:
        value, broken = _scores_from(
            scores, seen, owners, masks, allowed, penalty, row, at, vocabulary, lowest
        )
    else:
        value, broken = scores_of(scores, seen, owners, masks, allowed, penalty, row, at, vocabulary)
    scored = value > float("-inf")
    chosen = scored & (value >= lowest)
    peak = tl.where(broken, float("inf"), tl.where(chosen, value, float("-inf")))
    tl.store(peaks + row * tl.num_programs(0) + block, tl.max(peak, 0))
    both = tl.sum(chosen.to(tl.int32) * (2 * BLOCK) + scored.to(tl.int32), 0)  # two counts in one number
    count = both // (2 * BLOCK)
    tl.atomic_add(state + SCORED, (both % (2 * BLOCK)).to(tl.int64), sem="relaxed")
    key = _signed(value)
    if count > (CROWD if LATE else 0):
        start = tl.atomic_add(state + LISTED, count.to(tl.int64), sem="relaxed").to(tl.int32)
        place = start + tl.cumsum(chosen.to(tl.int32), 0) - 1
        _enter(listed, row, rows, place, key, at, chosen, ROOM)
    elif LATE:
        counter = state + LISTED + tl.zeros((BLOCK,), tl.int32)
        place = tl.atomic_add(counter, tl.full((BLOCK,), 1, tl.int64), chosen, sem="relaxed").to(tl.int32)
        _enter(listed, row, rows, place, key, at, chosen, ROOM)


@jit
def _scores_from(scores, seen, owners, masks, allowed, penalty, row, at, vocabulary, lowest):
    """`scores_of`, exact from `lowest` on, and below it no higher than that.

    A division costs more than all the rest. No penalty of 1 or more raises a score, so that only those are divided
    which are high enough before.
    """
    inside = at < vocabulary
    value = tl.load(scores + row * vocabulary + at, inside, float("-inf")).to(tl.float32)
    occurred = tl.load(seen + tl.load(owners + row) * vocabulary + at, inside, 0) != 0
    fine = tl.load(masks + tl.load(allowed + row).to(tl.int64) * vocabulary + at, inside, 0) != 0
    factor = tl.load(penalty + row)
    value = tl.where(fine, value, float("-inf"))
    value = tl.where(occurred & (value < 0.0), value * factor, value)
    high = occurred & (value > 0.0) & (value >= tl.where(factor < 1.0, float("-inf"), lowest))
    if tl.max(high.to(tl.int32), 0) > 0:
        value = tl.where(high, tl.div_rn(value, factor), value)
    value = tl.where(value == 0.0, 0.0, value)  # -0 is 0
    broken = (value != value) | (value == float("inf"))
    return tl.where(broken, float("-inf"), value), broken


@jit
def _enter(listed, row, rows, place, key, at, chosen, ROOM: tl.constexpr):
    """Keys and ids to their places on the row's list, as far as it has room."""
    target = listed + row * ROOM + place
    chosen = chosen & (place < ROOM)
    tl.store(target, key, chosen)
    tl.store(target + rows * ROOM, at, chosen)


@jit
def _weigh(
    scores,
    seen,
    owners,
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
    value, broken = scores_of(scores, seen, owners, masks, allowed, penalty, row, at, vocabulary)
    tl.atomic_add(state + row * SLOTS + WHOLE, tl.sum(weight_of(value, best, heat), 0), sem="relaxed")


@jit
def _edge(key, worth, goal, low, high, PIVOTS: tl.constexpr):
    """The highest key down to which `worth` adds up to the goal, if all of it does; PIVOTS keys are tried at once."""
    if PIVOTS == 1:
        while low < high:
            middle = low + (high - low + 1) // 2
            if tl.sum(tl.where(key >= middle.to(tl.int32), worth, 0), 0) >= goal:
                low = middle
            else:
                high = middle - 1
    else:
        nth = 1 + tl.arange(0, PIVOTS)
        while low < high:
            step = (high - low) // (PIVOTS + 1) + 1  # so that one more would be beyond the end
            pivot = low + step * nth
            inside = key[:, None] >= tl.minimum(pivot, high).to(tl.int32)[None, :]
            enough = (tl.sum(tl.where(inside, worth[:, None], 0), 0) >= goal) & (pivot <= high)
            low += step * tl.sum(enough.to(tl.int64), 0)
            high = tl.minimum(high, low + step - 1)
    return low


@jit
def _id_at(at, worth, goal, vocabulary, PIVOTS: tl.constexpr):
    """The lowest id up to which `worth` adds up to the goal; PIVOTS ids are tried at once."""
    low = tl.zeros((), tl.int32)
    high = low + vocabulary - 1
    if PIVOTS == 1:
        while low < high:
            middle = (low + high) // 2
            if tl.sum(tl.where(at <= middle, worth, 0), 0) >= goal:
                high = middle
            else:
                low = middle + 1
    else:
        nth = 1 + tl.arange(0, PIVOTS)
        while low < high:
            step = (high - low) // (PIVOTS + 1) + 1  # so that one more would be beyond the end
            pivot = high - step * nth
            inside = at[:, None] <= pivot[None, :]
            enough = (tl.sum(tl.where(inside, worth[:, None], 0), 0) >= goal) & (pivot >= low)
            high -= step * tl.sum(enough.to(tl.int32), 0)
            low = tl.maximum(low, high - step + 1)
    return low


@jit
def _first_equals(key, at, kept, edge, count, vocabulary, PIVOTS: tl.constexpr):
    """`kept` above the edge, and the first `count` by id at it."""
    equal = kept & (key == edge.to(tl.int32))
    last = tl.zeros((), tl.int32) + vocabulary
    if tl.sum(equal.to(tl.int32), 0) > count:
        last = _id_at(at, equal.to(tl.int32), count, vocabulary, PIVOTS)
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
    PIVOTS: tl.constexpr,
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
    weight = tl.where(kept, weight_of(_bits(key).to(tl.float32, bitcast=True), best, heat), 0)
    low = tl.min(tl.where(kept, key, 2147483647), 0).to(tl.int64)
    high = tl.max(key, 0).to(tl.int64)
    whole = tl.load(state + WHOLE)
    if k > 0:
        edge = _edge(key, kept.to(tl.int32), k, low, high, PIVOTS)
        above = tl.sum((kept & (key > edge.to(tl.int32))).to(tl.int32), 0)
        kept = _first_equals(key, at, kept, edge, k - above, vocabulary, PIVOTS)
        weight = tl.where(kept, weight, 0)
        whole = tl.sum(weight, 0)
        low = edge
    if p < 1.0:
        goal = tl.maximum(tl.ceil(p.to(tl.float64) * whole.to(tl.float64)).to(tl.int64), 1)
        if tl.sum(weight, 0) < goal:
            return
        edge = _edge(key, weight, goal, low, high, PIVOTS)
        above = tl.sum(tl.where(key > edge.to(tl.int32), weight, 0), 0)
        each = tl.maximum(tl.max(tl.where(kept & (key == edge.to(tl.int32)), weight, 0), 0), 1)
        count = (goal - above + each - 1) // each
        kept = _first_equals(key, at, kept, edge, count, vocabulary, PIVOTS)
        weight = tl.where(kept, weight, 0)
    total = tl.sum(weight, 0)
    goal = tl.minimum((tl.load(uniform + row).to(tl.float64) * total.to(tl.float64)).to(tl.int64), total - 1)
    drawn = _id_at(at, weight, goal + 1, vocabulary, PIVOTS)
    tl.store(ids + row, drawn.to(tl.int64))
    tl.store(ok + row, fine)
    tl.store(state + DONE, 1)
