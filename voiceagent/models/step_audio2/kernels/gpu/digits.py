"""Draws a row of any shape: finds the edge score of top-k and of top-p digit by digit, then draws by id.

Nothing is sorted. Four passes fix eight bits of the edge's key each, every pass with a histogram over the ids that
share the digits found so far: their number for top-k, their weight for top-p. A histogram's bin is a pair of 4-bit
digits, so that a product of two one-hot matrices on the tensor cores counts it; weights go through in pieces of 11
bits, which half precision holds exactly. Rows that the shortlist has drawn are passed over.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# ruff: noqa: RUF059 - Triton gives a name one type, so that an unused value cannot be called _
from __future__ import annotations

from voiceagent.models.step_audio2.kernels.gpu.language import after_previous, jit, tl
from voiceagent.models.step_audio2.kernels.gpu.rows import (
    DONE,
    EDGE_COUNT,
    EDGE_KEY,
    EDGE_WEIGHT,
    FOUND,
    GOAL,
    SLOTS,
    TOP_COUNT,
    TOP_EXCESS,
    TOP_KEY,
    best_of,
    key_of,
    limits_of,
    score_of,
    scores_of,
    weight_of,
)


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
def narrow(
    scores,
    seen,
    owners,
    masks,
    allowed,
    penalty,
    peaks,
    temperature,
    top_p,
    top_k,
    histograms,
    state,
    vocabulary,
    blocks,
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
    if tl.load(state + DONE) != 0:
        return
    best, fine = best_of(peaks, row, blocks, WIDTH)
    heat, p, k = limits_of(temperature, top_p, top_k, row, vocabulary)
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
            edge = weight_of(score_of(lowest), best, heat)
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
        value, broken = scores_of(scores, seen, owners, masks, allowed, penalty, row, at, vocabulary)
        key = key_of(value)
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
                weight = weight_of(value, best, heat)
                for piece in tl.static_range(4):
                    part = ((weight >> (11 * piece)) & 2047).to(tl.float16)
                    pieces = tl.dot(tl.where(high, part[None, :], 0.0), low)
                    counted += pieces.to(tl.int64) << (11 * piece)
    bins = half[:, None] * 16 + half[None, :]
    tl.atomic_add(histograms + (STEP * rows + row) * 256 + bins, counted, counted > 0, sem="relaxed")


@jit
def tally(
    scores,
    seen,
    owners,
    masks,
    allowed,
    penalty,
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
    if tl.load(state + DONE) != 0:
        return
    best, fine = best_of(peaks, row, blocks, WIDTH)
    heat, p, k = limits_of(temperature, top_p, top_k, row, vocabulary)
    edge, count = tl.load(state + TOP_KEY), tl.load(state + TOP_COUNT)
    edge_weight = weight_of(score_of(edge), best, heat)
    if p < 1.0:
        edge, above, here = _descend(
            histograms + (7 * rows + row) * 256,
            tl.load(state + FOUND + 2 * 3),
            tl.load(state + FOUND + 2 * 3 + 1),
            tl.load(state + GOAL),
        )
        edge_weight = weight_of(score_of(edge), best, heat)
        each = tl.maximum(edge_weight, 1)
        count = tl.maximum((tl.load(state + GOAL) - above + each - 1) // each, 1)
    if block == 0:
        tl.store(state + EDGE_KEY, edge)
        tl.store(state + EDGE_COUNT, count)
        tl.store(state + EDGE_WEIGHT, edge_weight)
    at = block * BLOCK + tl.arange(0, BLOCK)
    inside = at < vocabulary
    value, broken = scores_of(scores, seen, owners, masks, allowed, penalty, row, at, vocabulary)
    key = key_of(value)
    weight = tl.where(inside & (key > edge.to(tl.uint32)), weight_of(value, best, heat), 0)
    equal = inside & (key == edge.to(tl.uint32))
    tl.store(tallies + row * blocks + block, tl.sum(weight, 0))
    tl.store(tallies + (rows + row) * blocks + block, tl.sum(equal.to(tl.int64), 0))


@jit
def draw(
    scores,
    seen,
    owners,
    masks,
    allowed,
    penalty,
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
    if tl.load(state + DONE) != 0:
        return
    best, fine = best_of(peaks, row, blocks, WIDTH)
    heat, p, k = limits_of(temperature, top_p, top_k, row, vocabulary)
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
    value, broken = scores_of(
        scores, seen, owners, masks, allowed, penalty, row, chosen * BLOCK + at, vocabulary
    )
    key = key_of(value)
    equal = inside & (key == edge)
    rank = tl.cumsum(equal.to(tl.int32), 0)
    weight = weight_of(value, best, heat)
    weight = tl.where(inside & ((key > edge) | (equal & (rank <= kept))), weight, 0)
    place = tl.min(tl.where(tl.cumsum(weight, 0) > goal, at, BLOCK), 0)
    drawn = tl.minimum(chosen * BLOCK + place, vocabulary - 1)
    tl.store(ids + row, tl.where(fine, drawn, 0).to(tl.int64))
    tl.store(ok + row, fine)
