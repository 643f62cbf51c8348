"""Token2Wav's conformer: relative positions, chunks against the masked whole, the bounded cache."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from voiceagent.models.step_audio2.conformer import (
    Conformer,
    ConformerCache,
    ConformerConfig,
    relative_positions,
    relative_shift,
)

CONFIG = ConformerConfig(
    input_size=12, width=16, heads=2, hidden=24, blocks=2, up_blocks=1, lookahead=3, stride=2
)


@pytest.fixture
def conformer() -> Conformer:
    torch.manual_seed(0)
    return Conformer(CONFIG).eval()


def chunked(conformer: Conformer, x: Tensor, sizes: list[int]) -> tuple[Tensor, ConformerCache]:
    """Feeds `x` in chunks of `sizes` tokens; the rest is the last chunk."""
    parts, cache, at = [], None, 0
    for size in sizes:
        y, cache = conformer(x[:, at : at + size + CONFIG.lookahead], cache=cache, last=False)
        parts.append(y)
        at += size
    y, cache = conformer(x[:, at:], cache=cache, last=True)
    return torch.cat([*parts, y], dim=1), cache


def chunk_mask(total: int, sizes: list[int]) -> Tensor:
    ids = torch.repeat_interleave(torch.arange(len(sizes) + 1), torch.tensor([*sizes, total - sum(sizes)]))
    return (ids[None, :] <= ids[:, None])[None]


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 5), (3, 3), (4, 9)])
def test_relative_shift_selects_the_distance_between_query_and_key(queries: int, keys: int) -> None:
    distances = torch.arange(keys - 1, -queries - 1, -1).float().expand(2, queries, -1)
    shifted = relative_shift(distances, keys)
    query = torch.arange(keys - queries, keys)[:, None]
    assert torch.equal(shifted[1], (query - torch.arange(keys)).float())


def test_relative_positions_are_sines_and_cosines_of_falling_distances() -> None:
    table = relative_positions(4, 2, 6)
    assert table.shape == (6, 6)
    rate = 10000.0 ** (-2 / 6)
    for row, distance in enumerate([3, 2, 1, 0, -1, -2]):
        assert table[row, 0] == pytest.approx(math.sin(distance), abs=1e-6)
        assert table[row, 2] == pytest.approx(math.sin(distance * rate), abs=1e-6)
        assert table[row, 3] == pytest.approx(math.cos(distance * rate), abs=1e-6)


@torch.inference_mode()
@pytest.mark.parametrize("sizes", [[7, 1, 2, 9], [25], [1, 1, 1, 1]])
def test_chunks_equal_the_whole_under_the_chunk_mask(conformer: Conformer, sizes: list[int]) -> None:
    x = torch.randn(1, 31, 12)
    whole, _ = conformer(x, mask=chunk_mask(31, sizes))
    streamed, cache = chunked(conformer, x, sizes)
    assert streamed.shape == (1, 62, 16)
    torch.testing.assert_close(streamed, whole, atol=2e-5, rtol=1e-4)
    assert cache.tokens == 31


@torch.inference_mode()
def test_a_whole_sequence_equals_one_last_chunk_and_rows_of_a_batch_are_independent(
    conformer: Conformer,
) -> None:
    x = torch.randn(2, 9, 12)
    both, _ = conformer(x)
    alone, _ = conformer(x[1:])
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_a_trimmed_cache_keeps_prompt_and_newest_tokens_and_closes_the_gap(conformer: Conformer) -> None:
    _, cache = chunked(conformer, torch.randn(1, 30, 12), [10, 10])
    cut = cache.trimmed(prompt=4, recent=6)
    assert cut.tokens == 10
    assert torch.equal(cut.low[..., :4, :], cache.low[..., :4, :])
    assert torch.equal(cut.low[..., 4:, :], cache.low[..., -6:, :])
    assert torch.equal(cut.up[..., :8, :], cache.up[..., :8, :])
    assert torch.equal(cut.up[..., 8:, :], cache.up[..., -12:, :])
    assert cut.nbytes < cache.nbytes
    assert cache.trimmed(prompt=4, recent=26) is cache


@torch.inference_mode()
def test_without_recent_tokens_only_the_prompt_stays(conformer: Conformer) -> None:
    _, cache = chunked(conformer, torch.randn(1, 12, 12), [6])
    assert cache.trimmed(prompt=5, recent=0).tokens == 5


@torch.inference_mode()
def test_a_step_leaves_its_cache_alone_and_a_fork_shares_nothing(conformer: Conformer) -> None:
    x = torch.randn(1, 12, 12)
    _, cache = conformer(x, last=False)
    copy = cache.fork()
    first, _ = conformer(x, cache=cache, last=True)
    again, _ = conformer(x, cache=cache, last=True)
    assert torch.equal(first, again)
    cache.low.zero_()
    forked, _ = conformer(x, cache=copy, last=True)
    assert torch.equal(first, forked)
