"""The steps between the DiT's matrix products, each in one call: Triton on CUDA, plain torch elsewhere.

They know tensors and places in memory; nothing of streams, voices or the ODE. Rows of a batch are (stream, guidance).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from voiceagent.models.step_audio2.t2w_pool import RECENT_FRAMES, TAIL, Places

EPS = 1e-6
"""Of the modulated norms."""


def norm(residual: Tensor, shift: Tensor, scale: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Modulated layer norm (R, T, width) float32 -> the same in `dtype`; shift and scale (width,)."""
    return torch.addcmul(shift, F.layer_norm(residual, residual.shape[-1:], eps=EPS), 1 + scale).to(dtype)


def add(residual: Tensor, y: Tensor, gate: Tensor) -> None:
    """residual += gate * y, in place; both (R, T, width)."""
    residual.addcmul_(gate, y)


def pad(x: Tensor, tails: Tensor) -> Tensor:
    """(R, T, width) and the two rows before (R, 2, width) -> (R, T + 2, width)."""
    return torch.cat([tails, x], dim=1)


def norm_mish(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Mish of a layer norm over (R, T, width)."""
    return F.mish(F.layer_norm(x, x.shape[-1:], weight, bias))


def convolve(padded: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Causal convolution (R, T + 2, width) -> (R, T, width); weight (3 taps, out, in)."""
    rows, length = padded.shape[:2]
    flat = padded.flatten(0, 1)
    count = rows * length - TAIL
    out = flat.new_empty(rows * length, weight.shape[1])
    body = out[:count]
    # Three products over shifted rows: what straddles two streams is computed too, and never read.
    torch.addmm(bias, flat[:count], weight[0].T, out=body)
    body.addmm_(flat[1 : count + 1], weight[1].T).addmm_(flat[2 : count + 2], weight[2].T)
    return out.view(rows, length, -1)[:, : length - TAIL]


def head_norm(qkv: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Layer norm of every head of q and k, in place: qkv (N, 3, heads, size), weight and bias (2, size)."""
    for i in range(2):
        qkv[:, i] = F.layer_norm(qkv[:, i], qkv.shape[-1:], weight[i], bias[i])


def attend(qkv: Tensor, memory: Tensor, places: Places) -> Tensor:
    """Attention of a chunk to the prompt, the recent frames and itself.

    Args:
        qkv: (B, 2 guidance, T, 3, heads, size) of the chunk.
        memory: (2, rows, 2 guidance, heads, size) keys and values of one step and block.
        places: of the streams.

    Returns:
        (B, 2, T, heads x size)
    """
    q, k, v = (part.transpose(2, 3) for part in qkv.unbind(3))  # (B, 2, heads, T, size)
    out = torch.empty_like(q.transpose(2, 3))
    for b, (frames, ranges) in enumerate(_ranges(places)):
        parts = [memory[:, start : start + size].permute(0, 2, 3, 1, 4) for start, size in ranges if size]
        own = torch.stack([k[b, :, :, :frames], v[b, :, :, :frames]])
        keys, values = torch.cat([*parts, own], dim=3)
        out[b] = F.scaled_dot_product_attention(q[b], keys, values).transpose(1, 2)
    return out.flatten(3)


def keep(qkv: Tensor, memory: Tensor, places: Places) -> None:
    """Writes a chunk's keys and values to its rings: qkv (B, 2, T, 3, heads, size), memory as in `attend`."""
    targets = places.frame_targets(qkv.shape[2])
    for b, rows in enumerate(targets):
        kept = rows >= 0
        memory[:, rows[kept]] = qkv[b, :, kept, 1:].permute(2, 1, 0, 3, 4)


def _ranges(places: Places) -> list[tuple[int, list[tuple[int, int]]]]:
    """Of every stream its new frames, and (start, size) of the prompt's and the recent frames' rows."""
    found = []
    for slot, made, new, _, prompt, _, frame_prompt, *_ in places.table.tolist():
        recent = min(RECENT_FRAMES, places.stride * made)
        ranges = [(frame_prompt, places.stride * prompt), (slot * RECENT_FRAMES, recent)]
        found.append((places.stride * new, ranges))
    return found
