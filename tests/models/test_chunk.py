"""Attention of many new positions over pages, against a loop over positions and heads."""

from __future__ import annotations

import torch

from voiceagent.models.step_audio2.kernels.chunk import chunk_attention


def test_every_row_sees_what_lies_below_its_length() -> None:
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(2, 2, 5, 8, 2, 4, generator=generator)
    table = torch.tensor([3, 0, 4], dtype=torch.int32)
    lengths = torch.tensor([11, 12, 13, 0], dtype=torch.int32)
    q = torch.randn(4, 6, 4, generator=generator)
    mixed = chunk_attention(q, pool, 1, table, lengths)
    keys, values = (pool[1, part][table.long()].flatten(0, 1) for part in (0, 1))
    for row, length in enumerate(lengths.tolist()):
        for head in range(6):
            chances = (keys[:length, head // 3] @ q[row, head] / 2.0).softmax(0)
            expected = chances @ values[:length, head // 3]
            torch.testing.assert_close(mixed[row, head], expected, atol=1e-5, rtol=1e-4)
