"""The parts of a DiT block over live streams, each in one call: Triton on CUDA in half precision, torch elsewhere.

They know tensors and places in memory; nothing of streams, voices or the ODE. Rows R of a batch are (stream, guidance),
`residual` is always float32 (R, T, width), and `shift`, `scale` and `gate` are float32 (width,).
"""

from __future__ import annotations

from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from voiceagent.models.step_audio2.conformer import relative_shift
from voiceagent.models.step_audio2.t2w_pool import RECENT_FRAMES, TAIL, Places

EPS = 1e-6
"""Of the modulated norms."""
NORM_EPS = 1e-5
"""Of the norms with weights."""

Affine = tuple[Tensor, Tensor]
"""Weight and bias of a linear map, a convolution or a norm."""


def gpu(x: Tensor, half: Tensor) -> ModuleType | None:
    """The Triton twins, where they apply: on CUDA, in half precision, at widths that are powers of two."""
    width = x.shape[-1]
    if not x.is_cuda or half.dtype == torch.float32 or width & (width - 1) or width < 64:
        return None
    from voiceagent.models.step_audio2 import t2w_triton

    return t2w_triton


def add_norm(
    base: Tensor,
    update: Tensor | None,
    gate: Tensor | None,
    shift: Tensor,
    scale: Tensor,
    *,
    residual: Tensor,
    out: Tensor,
) -> None:
    """residual = base + gate * update; out = the modulated layer norm of that.

    Args:
        base: (R, T, width) float32; may be `residual` itself.
        update: (parts, R, T, width), whose sum counts, or (parts, R / 2, T, width) for both guidance rows
            of a stream; None: nothing is added, and residual is not written.
        gate: (width,), or None for one.
        shift: of the modulation.
        scale: of the modulation.
        residual: (R, T, width) float32.
        out: (R, T, width), is filled.
    """
    if twin := gpu(base, out):
        twin.add_norm(base, update, gate, shift, scale, residual, out)
        return
    if update is not None:
        total = update.sum(0) if len(update) > 1 else update[0]
        pairs = base.view(len(total), -1, *base.shape[1:]), residual.view(len(total), -1, *base.shape[1:])
        if gate is None:
            torch.add(pairs[0], total[:, None], out=pairs[1])
        else:
            torch.addcmul(pairs[0], gate, total[:, None], out=pairs[1])
        base = residual
    normed = F.layer_norm(base, base.shape[-1:], eps=EPS)
    if out.dtype == normed.dtype:
        torch.addcmul(shift, normed, 1 + scale, out=out)
    else:
        out.copy_(torch.addcmul(shift, normed, 1 + scale))


def project(x: Tensor, weights: Affine, heads: Affine, qkv: Tensor) -> None:
    """Fills qkv (R, T, 3, heads, size), contiguous, from x (R, T, width); q and k are normed per head.

    `weights` are those of q, k and v together, `heads` (2, size) those of the norms of q and k.
    """
    if twin := gpu(x, x):
        twin.project(x, weights, heads, qkv)
        return
    torch.addmm(weights[1], x.flatten(0, 1), weights[0].T, out=qkv.view(-1, weights[0].shape[0]))
    for i in range(2):
        part = qkv[:, :, i]
        part.copy_(F.layer_norm(part, part.shape[-1:], heads[0][i], heads[1][i]))


def attend(qkv: Tensor, memory: Tensor, places: Places) -> Tensor:
    """Attention of a chunk to the prompt, the recent frames and itself.

    Args:
        qkv: (R, T, 3, heads, size) of the chunk.
        memory: (2, rows, 2 guidance, heads, size) keys and values of one step and block.
        places: of the streams.

    Returns:
        (R, T, heads x size)
    """
    if twin := gpu(qkv, qkv):
        return twin.attend(qkv, memory, places)  # type: ignore[no-any-return]
    rows, frames, _, heads, size = qkv.shape
    q, k, v = (part.transpose(2, 3) for part in qkv.view(-1, 2, frames, 3, heads, size).unbind(3))
    out = qkv.new_empty(rows // 2, 2, frames, heads, size)
    for b, (new, ranges) in enumerate(_ranges(places)):
        parts = [memory[:, start : start + count].permute(0, 2, 3, 1, 4) for start, count in ranges if count]
        own = torch.stack([k[b, :, :, :new], v[b, :, :, :new]])
        keys, values = torch.cat([*parts, own], dim=3)
        out[b] = F.scaled_dot_product_attention(q[b], keys, values).transpose(1, 2)
    return out.view(rows, frames, heads * size)


def linear(x: Tensor, weights: Affine) -> Tensor:
    """A linear map of (R, T, any): (parts, R, T, any), whose sum over the parts is meant."""
    if twin := gpu(x, x):
        return twin.linear(x, weights)  # type: ignore[no-any-return]
    return F.linear(x, *weights)[None]


def convolve(x: Tensor, weights: Affine, tails: Tensor, slots: Tensor) -> Tensor:
    """Causal convolution.

    Args:
        x: (R, T, width).
        weights: (3 taps, width, width) and (width,).
        tails: (slots, 2 guidance, 2, width) rows before the chunk.
        slots: (R / 2,) of the streams.

    Returns:
        (parts, R, T, width), whose sum over the parts is meant.
    """
    if twin := gpu(x, x):
        return twin.convolve(x, weights, tails, slots)  # type: ignore[no-any-return]
    rows, frames, width = x.shape
    flat = torch.cat([tails[slots].view(rows, TAIL, width), x], dim=1).flatten(0, 1)
    count = flat.shape[0] - TAIL
    out = torch.empty_like(flat)
    body, (first, second, third) = out[:count], weights[0]
    # Three products over shifted rows: what straddles two streams is computed too, and never read.
    torch.addmm(weights[1], flat[:count], first.T, out=body)
    body.addmm_(flat[1 : count + 1], second.T).addmm_(flat[2 : count + 2], third.T)
    return out.view(1, rows, frames + TAIL, width)[:, :, :frames]


def mish(x: Tensor, norm: Affine, out: Tensor) -> None:
    """Fills out (R, T, width) with the Mish of a layer norm of x (parts, R, T, width), summed."""
    if twin := gpu(out, out):
        twin.mish(x, norm, out)
        return
    total = x.sum(0) if len(x) > 1 else x[0]
    out.copy_(F.mish(F.layer_norm(total, total.shape[-1:], *norm, eps=NORM_EPS)))


def expand(x: Tensor, weights: Affine) -> Tensor:
    """GELU (tanh form) of a linear map of (R, T, width)."""
    if twin := gpu(x, x):
        return twin.expand(x, weights)  # type: ignore[no-any-return]
    return F.gelu(F.linear(x, *weights), approximate="tanh")


def euler(x: Tensor, velocity: Tensor, span: float, guidance: float, rounded: Tensor) -> None:
    """One step in place: x (B, T, 80) float32 += span * guided velocity (parts, 2 B, T, 80); `rounded` becomes x."""
    if x.is_cuda and rounded.dtype != torch.float32:
        from voiceagent.models.step_audio2 import t2w_triton

        t2w_triton.euler(x, velocity, span, guidance, rounded)
        return
    known, blind = velocity.float().sum(0).view(len(x), 2, *x.shape[1:]).unbind(1)
    x.add_((1 + guidance) * known - guidance * blind, alpha=span)
    rounded.copy_(x)


def keep(qkv: Tensor, kept: Tensor, memory: Tensor, tails: Tensor, places: Places) -> None:
    """Remembers a chunk of all blocks at one ODE step.

    Args:
        qkv: (blocks, R, T, 3, heads, size).
        kept: (blocks, 2 convolutions, R, T, width) what was convolved.
        memory: (blocks, 2, rows, 2 guidance, heads, size), of which the streams' rings are written.
        tails: (blocks, 2, slots, 2 guidance, 2, width), of which the streams' slots are written.
        places: of the streams.
    """
    if twin := gpu(kept, kept):
        twin.keep(qkv, kept, memory, tails, places)
        return
    frames = qkv.shape[2]
    for b, (row, rows) in enumerate(
        zip(places.table.tolist(), places.frame_targets(frames).tolist(), strict=True)
    ):
        slot, new = row[0], places.stride * row[2]
        tails[:, :, slot] = kept[:, :, 2 * b : 2 * b + 2, new - TAIL : new]
        own = qkv[:, 2 * b : 2 * b + 2, :, 1:].permute(0, 3, 2, 1, 4, 5)
        for start, count in _runs(rows):
            memory[:, :, rows[start] : rows[start] + count] = own[:, :, start : start + count]


def recall(memory: Tensor, history: Tensor, own: Tensor) -> Tensor:
    """Keys and values of the encoder's attention.

    Args:
        memory: (2, rows, width)
        history: (B, span) rows of it.
        own: (B, T, 2, width) of the chunk.

    Returns:
        (2, B, span + T, width)
    """
    if gpu(memory, memory):
        from voiceagent.models.step_audio2 import t2w_triton_speech

        return t2w_triton_speech.recall(memory, history, own)
    past = memory.index_select(1, history.flatten()).view(2, *history.shape, memory.shape[2])
    return torch.cat([past, own.permute(2, 0, 1, 3)], dim=2)


def place_bias(by_distance: Tensor, mask: Tensor) -> Tensor:
    """Scores by distance (B, heads, queries, keys + queries) and a mask (B, keys) to add: (B, heads, queries, keys)."""
    if by_distance.is_cuda:
        from voiceagent.models.step_audio2 import t2w_triton_speech

        return t2w_triton_speech.place_bias(by_distance, mask)
    return relative_shift(by_distance, mask.shape[1]) + mask[:, None, None]


def _ranges(places: Places) -> list[tuple[int, list[tuple[int, int]]]]:
    """Of every stream its new frames, and (start, size) of the prompt's and the recent frames' rows."""
    found = []
    for slot, made, new, _, prompt, _, frame_prompt, *_ in places.table.tolist():
        recent = min(RECENT_FRAMES, places.stride * made)
        ranges = [(frame_prompt, places.stride * prompt), (slot * RECENT_FRAMES, recent)]
        found.append((places.stride * new, ranges))
    return found


def _runs(rows: list[int]) -> list[tuple[int, int]]:
    """(start, size) of the runs of consecutive rows; -1 belongs to none."""
    runs: list[tuple[int, int]] = []
    for i, row in enumerate(rows):
        if row < 0:
            continue
        if runs and i and rows[i - 1] == row - 1 and sum(runs[-1]) == i:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((i, 1))
    return runs
