"""Keys and values in pages: writing, reading back and attending; it knows no sequence, no free list and no model.

The pool is one tensor (layers, 2, pages, page, kv_heads, head_dim), keys before values.
A place is page number * page + offset.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def write(keys: Tensor, values: Tensor, pool: Tensor, layer: int, places: Tensor) -> None:
    """Stores keys and values at their places.

    Args:
        keys: (N, kv_heads, head_dim).
        values: the same shape.
        pool: changed in place.
        layer: which layer's pages.
        places: (N,) int64; -1 stores nothing. Two equal places leave either one's content.
    """
    if pool.is_cuda:
        from voiceagent.models.step_audio2.kernels.gpu import paged as gpu

        gpu.write(keys, values, pool, layer, places)
    else:
        write_torch(keys, values, pool, layer, places)


def write_torch(keys: Tensor, values: Tensor, pool: Tensor, layer: int, places: Tensor) -> None:
    """`write` in plain torch."""
    flat = _flat(pool, layer)
    if bool((places < 0).any()):
        kept = places >= 0
        keys, values, places = keys[kept], values[kept], places[kept]
    flat[0].index_copy_(0, places, keys.to(pool.dtype))
    flat[1].index_copy_(0, places, values.to(pool.dtype))


def gather(pool: Tensor, layer: int, table: Tensor | int, length: int) -> tuple[Tensor, Tensor]:
    """The first `length` positions of one sequence.

    Args:
        pool: see above.
        layer: which layer's pages.
        table: (pages,) int32 or int64 on the pool's device; or the number of the first page when the pages are
            consecutive, which saves the copy.
        length: positions, within the pages.

    Returns:
        Keys and values, (kv_heads, length, head_dim), not contiguous; a view of the pool if consecutive.
    """
    if isinstance(table, int):
        start = table * pool.shape[3]
        found = _flat(pool, layer)[:, start : start + length]
    else:
        pages = -(-length // pool.shape[3])
        found = pool[layer].index_select(1, table[:pages]).flatten(1, 2)[:, :length]
    keys, values = found.transpose(1, 2)
    return keys, values


def decode_attention(q: Tensor, pool: Tensor, layer: int, tables: Tensor, lengths: Tensor) -> Tensor:
    """Attention of one new position per sequence over its pages; scores are scaled by head_dim ** -0.5.

    Args:
        q: (B, heads, head_dim); each group of heads // kv_heads neighbours shares one kv head.
        pool: see above; the newest key and value are written already.
        layer: which layer's pages.
        tables: (B, max_pages) int32 page numbers, position 0 first; entries beyond the length are not read.
        lengths: (B,) int32 positions held, the newest included; 0 marks an idle row.

    Returns:
        (B, heads, head_dim); zeros in idle rows. On CUDA nothing depends on values on the host, so that the call
        can be captured.
    """
    if q.is_cuda:
        from voiceagent.models.step_audio2.kernels.gpu import paged as gpu

        return gpu.decode_attention(q, pool, layer, tables, lengths)
    return decode_attention_torch(q, pool, layer, tables, lengths)


def decode_attention_torch(q: Tensor, pool: Tensor, layer: int, tables: Tensor, lengths: Tensor) -> Tensor:
    """`decode_attention` in plain torch, row by row: no padding, and no copy where pages are consecutive."""
    page, kv_heads = pool.shape[3:5]
    mixed = torch.zeros_like(q)
    for row, length in enumerate(lengths.tolist()):
        if length == 0:
            continue
        table = tables[row, : -(-length // page)]
        first, *rest = table.tolist()
        run = all(number == first + i for i, number in enumerate(rest, 1))
        keys, values = gather(pool, layer, first if run else table, length)
        # The query heads of a group stand in for query positions: no key has to be repeated.
        grouped = q[row].view(kv_heads, -1, q.shape[2])
        out = F.scaled_dot_product_attention(grouped, keys.to(q.dtype), values.to(q.dtype))
        mixed[row] = out.reshape(q.shape[1:])
    return mixed


def _flat(pool: Tensor, layer: int) -> Tensor:
    """One layer's places in a row: (2, pages * page, kv_heads, head_dim)."""
    return pool[layer].flatten(1, 2)
