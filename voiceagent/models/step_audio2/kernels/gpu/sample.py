"""Triton twin of `kernels.sample`: a shortlist for nearly every row, and digit by digit the rows it does not settle.

Whole numbers throughout, so that the order of adding is of no consequence.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import torch
from torch import Tensor

from voiceagent.models.step_audio2.kernels.gpu import digits, rows, shortlist
from voiceagent.models.step_audio2.kernels.gpu.language import (
    after_previous,
    ceil_div,
    jit,
    launch,
    power_of_2,
    tl,
)
from voiceagent.models.step_audio2.kernels.gpu.rows import SLOTS

_BLOCK = 2048  # ids of one program
_LONG_BLOCK = 8192  # the same where most programs have nothing to do
_CHUNK = 256  # ids of one product of one-hot matrices
_PASSES = 8  # four for top-k, four for top-p


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
    count, vocabulary = scores.shape
    blocks, device = ceil_div(vocabulary, _BLOCK), scores.device
    held = scores.new_empty(count, vocabulary, dtype=torch.float32)
    peaks = scores.new_empty(count, blocks, dtype=torch.float32)
    histograms = scores.new_empty(_PASSES, count, 256, dtype=torch.int64)
    state = scores.new_empty(count, rows.SIZE, dtype=torch.int64)
    tallies = scores.new_empty(2, count, blocks, dtype=torch.int64)
    ids = scores.new_empty(count, dtype=torch.int64)
    ok = scores.new_empty(count, dtype=torch.bool)
    grid, width = (blocks, count), power_of_2(blocks)
    options = (temperature, top_p, top_k)

    sets = (seen.contiguous().view(torch.uint8), masks.contiguous().view(torch.uint8), allowed, penalty)
    made = (held, peaks, histograms, state)
    launch(_prepare, grid, device, scores.contiguous(), *sets, *made, vocabulary, _BLOCK, _PASSES)
    shortlist.draw(held, peaks, *options, uniform, state, ids, ok)

    long_grid = (ceil_div(vocabulary, _LONG_BLOCK), count)
    common = (held, peaks, *options, histograms, state, vocabulary)
    for step in range(_PASSES):
        launch(digits.narrow, long_grid, device, *common, blocks, step, _LONG_BLOCK, _CHUNK, width)
    launch(digits.tally, grid, device, *common, tallies, _BLOCK, width)
    last = (tallies, uniform, ids, ok, blocks, _BLOCK, width)
    launch(digits.draw, (count,), device, *common, *last, num_warps=8)
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
    state,
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
        slots = tl.arange(0, 8)
        tl.store(state + row * SLOTS + slots, tl.zeros((8,), tl.int64))
        bins = tl.arange(0, 256)
        for i in tl.static_range(PASSES):
            tl.store(histograms + (i * tl.num_programs(1) + row) * 256 + bins, tl.zeros((256,), tl.int64))
