"""Triton twin of `kernels.sample`: finds the edge score of top-k and of top-p digit by digit, then draws by id.

Nothing is sorted. A score's bits make a 32-bit key of the same order; four passes fix eight bits each, every pass with
a histogram over the ids that share the digits found so far: their number for top-k, their weight for top-p. A
histogram's bin is a pair of 4-bit digits, so that a product of two one-hot matrices on the tensor cores counts it;
weights go through in pieces of 11 bits, which half precision holds exactly. Whole numbers throughout: the order of
adding is of no consequence.
"""

# mypy: disable-error-code="no-untyped-def"
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
from voiceagent.models.step_audio2.kernels.sample import COLD, UNIT

_BLOCK = 2048  # ids of one program
_CHUNK = 256  # ids of one product
_PASSES = 4

COLD_SCORE = constant(COLD)
WEIGHT_UNIT = constant(UNIT)
# What a row's programs leave for the next kernel's, as int64; FOUND holds, for each of four passes, the digits found so
# far and how much lies above them.
TOP_KEY, TOP_COUNT, TOP_EXCESS = constant(0), constant(1), constant(2)
GOAL, EDGE_KEY, EDGE_COUNT, EDGE_WEIGHT, FOUND = (constant(i) for i in range(3, 8))
SLOTS = constant(16)


def choose(
    scores: Tensor,
    *,
    temperature: Tensor,
    top_p: Tensor,
    top_k: Tensor,
    penalty: Tensor,
    seen: Tensor,
    masks: Tensor,
    allowed: Tensor,
    uniform: Tensor,
) -> tuple[Tensor, Tensor]:
    """`kernels.sample.choose`."""
    rows, vocabulary = scores.shape
    blocks = ceil_div(vocabulary, _BLOCK)
    held = scores.new_empty(rows, vocabulary, dtype=torch.float32)
    peaks = scores.new_empty(rows, blocks, dtype=torch.float32)
    histograms = scores.new_empty(2 * _PASSES, rows, 256, dtype=torch.int64)
    state = scores.new_empty(rows, 16, dtype=torch.int64)
    tallies = scores.new_empty(2, rows, blocks, dtype=torch.int64)
    ids = scores.new_empty(rows, dtype=torch.int64)
    ok = scores.new_empty(rows, dtype=torch.bool)
    grid, width = (blocks, rows), power_of_2(blocks)
    device = scores.device
    launch(
        _prepare,
        grid,
        device,
        scores.contiguous(),
        seen.contiguous().view(torch.uint8),
        masks.contiguous().view(torch.uint8),
        allowed,
        penalty,
        held,
        peaks,
        histograms,
        vocabulary,
        _BLOCK,
        2 * _PASSES,
    )
    common = (held, peaks, temperature, top_p, top_k, histograms, state, vocabulary)
    for step in range(2 * _PASSES):
        launch(_narrow, grid, device, *common, step, _BLOCK, _CHUNK, width, num_warps=4)
    launch(_tally, grid, device, *common, tallies, _BLOCK, width)
    launch(_draw, (rows,), device, *common, tallies, uniform, ids, ok, blocks, _BLOCK, width, num_warps=8)
    return ids, ok


@jit
def _prepare(
    scores,
    seen,
    masks,
    allowed,
    penalty,
    held,
    peaks,
    histograms,
    vocabulary,
    BLOCK: tl.constexpr,
    PASSES: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """Penalty and mask, the best of each block (+inf marks a broken one), empty histograms."""
    after_previous(OVERLAP)
    block, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    at = block * BLOCK + tl.arange(0, BLOCK)
    inside = at < vocabulary
    value = tl.load(scores + row * vocabulary + at, inside, float("-inf")).to(tl.float32)
    occurred = tl.load(seen + row * vocabulary + at, inside, 0) != 0
    mask = tl.load(allowed + row).to(tl.int64)
    fine = tl.load(masks + mask * vocabulary + at, inside, 0) != 0
    factor = tl.load(penalty + row)
    value = tl.where(occurred, tl.where(value < 0.0, value * factor, tl.div_rn(value, factor)), value)
    value = tl.where(fine, value, float("-inf"))
    value = tl.where(value == 0.0, 0.0, value)  # -0 is 0
    broken = (value != value) | (value == float("inf"))
    value = tl.where(broken, float("-inf"), value)
    tl.store(held + row * vocabulary + at, value, inside)
    peak = tl.where(tl.max(broken.to(tl.int32), 0) > 0, float("inf"), tl.max(value, 0))
    tl.store(peaks + row * tl.num_programs(0) + block, peak)
    if block == 0:
        bins = tl.arange(0, 256)
        for i in tl.static_range(PASSES):
            tl.store(histograms + (i * tl.num_programs(1) + row) * 256 + bins, tl.zeros((256,), tl.int64))


@jit
def _best(peaks, row, blocks, WIDTH: tl.constexpr):
    """The row's best score (0 if broken) and whether it is fine."""
    at = tl.arange(0, WIDTH)
    best = tl.max(tl.load(peaks + row * blocks + at, at < blocks, float("-inf")), 0)
    fine = (best > float("-inf")) & (best < float("inf"))
    return tl.where(fine, best, 0.0), fine


@jit
def _limits(temperature, top_p, top_k, row, vocabulary):
    """Heat, top-p and top-k of the row; 0 and 1 where they do nothing."""
    heat, p, k = tl.load(temperature + row), tl.load(top_p + row), tl.load(top_k + row)
    cold = heat < COLD_SCORE
    k = tl.where(cold, 1, tl.where((k <= 0) | (k >= vocabulary), 0, k))
    return tl.where(cold, 1.0, heat), tl.where(cold | (p >= 1.0), 1.0, p), k


@jit
def _key(value):
    """uint32 of the same order as the float32."""
    bits = value.to(tl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) | -2147483648)).to(tl.uint32, bitcast=True)


@jit
def _score(key):
    """The float32 of a key that came as int64."""
    bits = key.to(tl.uint32).to(tl.int32, bitcast=True)
    return (bits ^ ((~bits >> 31) | -2147483648)).to(tl.float32, bitcast=True)


@jit
def _weight(value, best, heat):
    return (tl.exp(tl.div_rn(value - best, heat)) * WEIGHT_UNIT).to(tl.int64)


@jit
def _descend(histogram, digits, above, goal):
    """One more digit: the bin, from the top, where what lies above reaches the goal; also what is in it."""
    bins = tl.arange(0, 256)
    inside = tl.load(histogram + bins)
    down_to = tl.sum(inside, 0) - tl.cumsum(inside, 0) + inside
    digit = tl.max(tl.where(above + down_to >= goal, bins, 0), 0)
    here = tl.sum(tl.where(bins == digit, inside, 0), 0)
    above += tl.sum(tl.where(bins > digit, inside, 0), 0)
    return digits * 256 + digit, above, here


@jit
def _top(state, histograms, rows, row, k):
    """Top-k's edge from the last of its histograms: key, how many equal to it are kept, how many are not."""
    digits, above, here = _descend(
        histograms + (3 * rows + row) * 256,
        tl.load(state + FOUND + 2 * 3),
        tl.load(state + FOUND + 2 * 3 + 1),
        k.to(tl.int64),
    )
    on = k > 0
    count = k.to(tl.int64) - above
    return tl.where(on, digits, 0), tl.where(on, count, 0), tl.where(on, here - count, 0)


@jit
def _goal(histogram, p, excess, weight):
    """The weight that top-p wants, at least 1; `excess` ids of that weight were counted though top-k drops them."""
    bins = tl.arange(0, 256)
    total = tl.sum(tl.load(histogram + bins), 0) - excess * weight
    return tl.maximum(tl.ceil(p.to(tl.float64) * total.to(tl.float64)).to(tl.int64), 1)


@jit
def _narrow(
    held,
    peaks,
    temperature,
    top_p,
    top_k,
    histograms,
    state,
    vocabulary,
    STEP: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    WIDTH: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """Finds the digit of the pass before and counts this one's. Passes 0 to 3 are top-k's, 4 to 7 top-p's."""
    after_previous(OVERLAP)
    block, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    rows = tl.num_programs(1)
    state += row * SLOTS
    best, fine = _best(peaks, row, tl.num_programs(0), WIDTH)
    heat, p, k = _limits(temperature, top_p, top_k, row, vocabulary)
    idle = k == 0 if STEP < 4 else p == 1.0
    digits = tl.zeros((), tl.int64)
    above = tl.zeros((), tl.int64)
    lowest = tl.zeros((), tl.int64)
    if STEP == 4:
        lowest, count, excess = _top(state, histograms, rows, row, k)
        if block == 0:
            tl.store(state + TOP_KEY, lowest)
            tl.store(state + TOP_COUNT, count)
            tl.store(state + TOP_EXCESS, excess)
    elif STEP > 4:
        lowest = tl.load(state + TOP_KEY)
    if idle:
        return
    if STEP % 4 > 0:
        if STEP % 4 > 1:
            digits, above = (
                tl.load(state + FOUND + 2 * (STEP % 4 - 1)),
                tl.load(state + FOUND + 2 * (STEP % 4 - 1) + 1),
            )
        if STEP < 4:
            goal = k.to(tl.int64)
        elif STEP == 5:
            edge = _weight(_score(lowest), best, heat)
            goal = _goal(histograms + (4 * rows + row) * 256, p, tl.load(state + TOP_EXCESS), edge)
            if block == 0:
                tl.store(state + GOAL, goal)
        else:
            goal = tl.load(state + GOAL)
        digits, above, here = _descend(histograms + ((STEP - 1) * rows + row) * 256, digits, above, goal)
        if block == 0:
            tl.store(state + FOUND + 2 * (STEP % 4), digits)
            tl.store(state + FOUND + 2 * (STEP % 4) + 1, above)

    shift: tl.constexpr = 24 - 8 * (STEP % 4)
    half = tl.arange(0, 16)
    counted = tl.zeros((16, 16), tl.int64)
    for i in range(0, BLOCK, CHUNK):
        at = block * BLOCK + i + tl.arange(0, CHUNK)
        inside = at < vocabulary
        value = tl.load(held + row * vocabulary + at, inside, float("-inf"))
        key = _key(value)
        if STEP % 4 > 0:
            inside &= (key >> (shift + 8)) == digits.to(tl.uint32)
        if STEP >= 4:
            inside &= key >= lowest.to(tl.uint32)
        if tl.max(inside.to(tl.int32), 0) > 0:
            digit = ((key >> shift) & 255).to(tl.int32)
            high = (half[:, None] == (digit >> 4)[None, :]) & inside[None, :]
            low = ((digit & 15)[:, None] == half[None, :]).to(tl.float16)
            if STEP < 4:
                counted += tl.dot(high.to(tl.float16), low).to(tl.int64)
            else:
                weight = _weight(value, best, heat)
                for piece in tl.static_range(4):
                    part = ((weight >> (11 * piece)) & 2047).to(tl.float16)
                    pieces = tl.dot(tl.where(high, part[None, :], 0.0), low)
                    counted += pieces.to(tl.int64) << (11 * piece)
    bins = half[:, None] * 16 + half[None, :]
    tl.atomic_add(histograms + (STEP * rows + row) * 256 + bins, counted, counted > 0, sem="relaxed")


@jit
def _tally(
    held,
    peaks,
    temperature,
    top_p,
    top_k,
    histograms,
    state,
    vocabulary,
    tallies,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """The final edge; then each block's weight above it and its number of ids at it."""
    after_previous(OVERLAP)
    block, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    blocks, rows = tl.num_programs(0), tl.num_programs(1)
    state += row * SLOTS
    best, fine = _best(peaks, row, blocks, WIDTH)
    heat, p, k = _limits(temperature, top_p, top_k, row, vocabulary)
    edge, count = tl.load(state + TOP_KEY), tl.load(state + TOP_COUNT)
    edge_weight = _weight(_score(edge), best, heat)
    if p < 1.0:
        edge, above, here = _descend(
            histograms + (7 * rows + row) * 256,
            tl.load(state + FOUND + 2 * 3),
            tl.load(state + FOUND + 2 * 3 + 1),
            tl.load(state + GOAL),
        )
        edge_weight = _weight(_score(edge), best, heat)
        each = tl.maximum(edge_weight, 1)
        count = tl.maximum((tl.load(state + GOAL) - above + each - 1) // each, 1)
    if block == 0:
        tl.store(state + EDGE_KEY, edge)
        tl.store(state + EDGE_COUNT, count)
        tl.store(state + EDGE_WEIGHT, edge_weight)
    at = block * BLOCK + tl.arange(0, BLOCK)
    inside = at < vocabulary
    value = tl.load(held + row * vocabulary + at, inside, float("-inf"))
    key = _key(value)
    weight = tl.where(inside & (key > edge.to(tl.uint32)), _weight(value, best, heat), 0)
    equal = inside & (key == edge.to(tl.uint32))
    tl.store(tallies + row * blocks + block, tl.sum(weight, 0))
    tl.store(tallies + (rows + row) * blocks + block, tl.sum(equal.to(tl.int64), 0))


@jit
def _draw(
    held,
    peaks,
    temperature,
    top_p,
    top_k,
    histograms,
    state,
    vocabulary,
    tallies,
    uniform,
    ids,
    ok,
    blocks,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """First the block, then the id in it, where the running weight passes the drawn one."""
    after_previous(OVERLAP)
    row, rows = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    state += row * SLOTS
    best, fine = _best(peaks, row, blocks, WIDTH)
    heat, p, k = _limits(temperature, top_p, top_k, row, vocabulary)
    edge = tl.load(state + EDGE_KEY).to(tl.uint32)
    count, edge_weight = tl.load(state + EDGE_COUNT), tl.load(state + EDGE_WEIGHT)

    block = tl.arange(0, WIDTH)
    weights = tl.load(tallies + row * blocks + block, block < blocks, 0)
    equals = tl.load(tallies + (rows + row) * blocks + block, block < blocks, 0)
    kept = tl.minimum(tl.maximum(count - (tl.cumsum(equals, 0) - equals), 0), equals)
    weights += kept * edge_weight
    running = tl.cumsum(weights, 0)
    total = tl.sum(weights, 0)
    goal = tl.minimum((tl.load(uniform + row).to(tl.float64) * total.to(tl.float64)).to(tl.int64), total - 1)
    chosen = tl.minimum(tl.min(tl.where(running > goal, block, WIDTH), 0), blocks - 1)
    goal -= tl.sum(tl.where(block < chosen, weights, 0), 0)
    kept = tl.sum(tl.where(block == chosen, kept, 0), 0)

    at = tl.arange(0, BLOCK)
    inside = chosen * BLOCK + at < vocabulary
    value = tl.load(held + row * vocabulary + chosen * BLOCK + at, inside, float("-inf"))
    key = _key(value)
    equal = inside & (key == edge)
    rank = tl.cumsum(equal.to(tl.int32), 0)
    weight = _weight(value, best, heat)
    weight = tl.where(inside & ((key > edge) | (equal & (rank <= kept))), weight, 0)
    place = tl.min(tl.where(tl.cumsum(weight, 0) > goal, at, BLOCK), 0)
    drawn = tl.minimum(chosen * BLOCK + place, vocabulary - 1)
    tl.store(ids + row, tl.where(fine, drawn, 0).to(tl.int64))
    tl.store(ok + row, fine)
