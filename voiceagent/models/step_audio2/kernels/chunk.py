"""Attention of many new positions of one sequence over its pages; it knows no sequence and no model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from voiceagent.models.step_audio2.kernels import paged


def chunk_attention(q: Tensor, pool: Tensor, layer: int, table: Tensor, lengths: Tensor) -> Tensor:
    """Every row sees the positions below its own length; scores are scaled by head_dim ** -0.5.

    Args:
        q: (N, heads, head_dim); each group of heads // kv_heads neighbours shares one kv head.
        pool: the pages (see `paged`); the new keys and values are written already.
        layer: which layer's pages.
        table: (pages,) int32 page numbers, position 0 first; entries beyond the longest length are not read.
        lengths: (N,) int32 positions that a row sees, itself included; 0 marks an idle row.

    Returns:
        (N, heads, head_dim); zeros in idle rows. On CUDA nothing depends on values on the host, so that the call can be
        captured.
    """
    if q.is_cuda:
        from voiceagent.models.step_audio2.kernels.gpu import chunk as gpu

        return gpu.chunk_attention(q, pool, layer, table, lengths)
    return chunk_attention_torch(q, pool, layer, table, lengths)


def chunk_attention_torch(q: Tensor, pool: Tensor, layer: int, table: Tensor, lengths: Tensor) -> Tensor:
    """`chunk_attention` in plain torch."""
    longest = int(lengths.max())
    keys, values = paged.gather(pool, layer, table, longest)
    mask = torch.arange(longest, device=q.device) < lengths[:, None]
    mixed = F.scaled_dot_product_attention(
        q.transpose(0, 1)[None], keys[None], values[None], attn_mask=mask, enable_gqa=True
    )
    return mixed[0].transpose(0, 1).masked_fill((lengths == 0)[:, None, None], 0.0)
