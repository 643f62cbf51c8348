"""Triton twin of `kernels.sample`: a shortlist for nearly every row, and digit by digit the rows it does not settle.

Whole numbers throughout, so that the order of adding is of no consequence.
"""

from __future__ import annotations

import torch
from torch import Tensor

from voiceagent.models.step_audio2.kernels.gpu import choices, digits, rows, shortlist
from voiceagent.models.step_audio2.kernels.gpu.language import (
    ceil_div,
    launch,
    power_of_2,
)

_BLOCK = shortlist.BLOCK  # ids of one program
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
    owners: Tensor | None = None,
    masks: Tensor,
    allowed: Tensor,
    uniform: Tensor,
) -> tuple[Tensor, Tensor]:
    """`kernels.sample.choose`."""
    count, vocabulary = scores.shape
    blocks, device = ceil_div(vocabulary, _BLOCK), scores.device
    choice = choices.of(choices.now().sampling, count)
    assert choice is not None, "there is one for any number of rows"
    histograms = scores.new_empty(_PASSES, count, 256, dtype=torch.int64)
    state = scores.new_empty(count, rows.SIZE, dtype=torch.int64)
    peaks = scores.new_empty(count, blocks, dtype=torch.float32)
    tallies = scores.new_empty(2, count, blocks, dtype=torch.int64)
    ids = scores.new_empty(count, dtype=torch.int64)
    ok = scores.new_empty(count, dtype=torch.bool)
    owners = torch.arange(count, device=device) if owners is None else owners
    sets = (
        seen.contiguous().view(torch.uint8),
        owners,
        masks.contiguous().view(torch.uint8),
        allowed,
        penalty,
    )
    source = (scores.contiguous(), *sets)
    options = (temperature, top_p, top_k)
    shortlist.draw(
        source,
        options,
        uniform,
        state=state,
        peaks=peaks,
        histograms=histograms,
        ids=ids,
        ok=ok,
        choice=choice,
    )

    width, long, early = power_of_2(blocks), choice.long_block, choice.early
    grid, long_grid = (blocks, count), (ceil_div(vocabulary, long), count)
    common = (*source, peaks, *options, histograms, state, vocabulary)
    for step in range(_PASSES):
        sizes = (blocks, step, long, _CHUNK, width)
        launch(digits.narrow, long_grid, device, *common, *sizes, early=early)
    launch(digits.tally, grid, device, *common, tallies, _BLOCK, width, early=early)
    last = (tallies, uniform, ids, ok, blocks, _BLOCK, width)
    launch(digits.draw, (count,), device, *common, *last, early=early, num_warps=8)
    return ids, ok
