"""The parts of a DiT block over live streams, each in one call: Triton on CUDA in half precision, torch elsewhere.

They know tensors and places in memory; nothing of streams, voices or the ODE. Rows R of a batch are (stream, guidance),
`residual` is always float32 (R, T, width), and `shift`, `scale` and `gate` are float32 (width,).
"""

from __future__ import annotations

from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from voiceagent.models.step_audio2.t2w_pool import RECENT_FRAMES, TAIL, Places

EPS = 1e-6
"""Of the modulated norms."""
NORM_EPS = 1e-5
"""Of the norms with weights."""

Affine = tuple[Tensor, Tensor]
"""Weight and bias of a linear map, a convolution or a norm."""


def gpu(residual: Tensor, weight: Tensor) -> ModuleType | None:
    """The Triton twins, where they apply: on CUDA, in half precision, at widths that are powers of two."""
    width = residual.shape[-1]
    if not residual.is_cuda or weight.dtype == torch.float32 or width & (width - 1) or width < 64:
        return None
    from voiceagent.models.step_audio2 import t2w_triton

    return t2w_triton


def project(
    residual: Tensor, shift: Tensor, scale: Tensor, weights: Affine, heads: Affine, qkv: Tensor
) -> None:
    """Fills qkv (R, T, 3, heads, size) from the modulated residual; q and k are normed per head.

    Args:
        residual: (R, T, width).
        shift: of the modulation.
        scale: of the modulation.
        weights: of q, k and v together.
        heads: (2, size) of the norms of q and k.
        qkv: contiguous.
    """
    if twin := gpu(residual, weights[0]):
        twin.project(residual, shift, scale, weights, heads, qkv)
        return
    x = modulate(residual, shift, scale, dtype=qkv.dtype)
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


def merge(residual: Tensor, x: Tensor, weights: Affine, gate: Tensor) -> None:
    """residual += gate * linear(x), in place; x (R, T, any)."""
    if twin := gpu(residual, weights[0]):
        twin.merge(residual, x, weights, gate)
    else:
        residual.addcmul_(gate, F.linear(x, *weights))


def convolve_in(
    residual: Tensor,
    shift: Tensor,
    scale: Tensor,
    weights: Affine,
    tails: Tensor,
    slots: Tensor,
    kept: Tensor,
) -> Tensor:
    """Causal convolution of the modulated residual.

    Args:
        residual: (R, T, width).
        shift: of the modulation.
        scale: of the modulation.
        weights: (3 taps, width, width) and (width,).
        tails: (slots, 2 guidance, 2, width) rows before the chunk.
        slots: (R / 2,) of the streams.
        kept: (R, T, width), is filled with what was convolved.

    Returns:
        (R, T, width)
    """
    if twin := gpu(residual, weights[0]):
        return twin.convolve_in(residual, shift, scale, weights, tails, slots, kept)  # type: ignore[no-any-return]
    kept.copy_(modulate(residual, shift, scale, dtype=kept.dtype))
    return _convolve(kept, weights, tails, slots)


def mish(x: Tensor, norm: Affine, out: Tensor) -> None:
    """Fills out (R, T, width) with the Mish of a layer norm of x."""
    if twin := gpu(x, x):
        twin.mish(x, norm, out)
    else:
        out.copy_(F.mish(F.layer_norm(x, x.shape[-1:], *norm, eps=NORM_EPS)))


def convolve_out(
    residual: Tensor, x: Tensor, weights: Affine, tails: Tensor, slots: Tensor, gate: Tensor
) -> None:
    """residual += gate * causal convolution of x (R, T, width), in place; arguments as of `convolve_in`."""
    if twin := gpu(residual, weights[0]):
        twin.convolve_out(residual, x, weights, tails, slots, gate)
    else:
        residual.addcmul_(gate, _convolve(x, weights, tails, slots))


def expand(residual: Tensor, shift: Tensor, scale: Tensor, weights: Affine) -> Tensor:
    """GELU (tanh form) of a linear map of the modulated residual."""
    if twin := gpu(residual, weights[0]):
        return twin.expand(residual, shift, scale, weights)  # type: ignore[no-any-return]
    x = modulate(residual, shift, scale, dtype=weights[0].dtype)
    return F.gelu(F.linear(x, *weights), approximate="tanh")


def finish(residual: Tensor, shift: Tensor, scale: Tensor, weights: Affine) -> Tensor:
    """A linear map of the modulated residual, float32."""
    if twin := gpu(residual, weights[0]):
        return twin.finish(residual, shift, scale, weights)  # type: ignore[no-any-return]
    return F.linear(modulate(residual, shift, scale, dtype=weights[0].dtype), *weights).float()


def euler(x: Tensor, velocity: Tensor, span: float, guidance: float, rounded: Tensor) -> None:
    """One step in place: x (B, T, 80) float32 += span * guided velocity (B, 2, T, 80); `rounded` becomes x."""
    if x.is_cuda and rounded.dtype != torch.float32:
        from voiceagent.models.step_audio2 import t2w_triton

        t2w_triton.euler(x, velocity, span, guidance, rounded)
        return
    x.add_((1 + guidance) * velocity[:, 0] - guidance * velocity[:, 1], alpha=span)
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


def modulate(residual: Tensor, shift: Tensor, scale: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Layer norm, scaled and shifted, in `dtype`."""
    return torch.addcmul(shift, F.layer_norm(residual, residual.shape[-1:], eps=EPS), 1 + scale).to(dtype)


def _convolve(x: Tensor, weights: Affine, tails: Tensor, slots: Tensor) -> Tensor:
    """(R, T, width) -> (R, T, width)"""
    rows, frames, width = x.shape
    flat = torch.cat([tails[slots].view(rows, TAIL, width), x], dim=1).flatten(0, 1)
    count = flat.shape[0] - TAIL
    out = torch.empty_like(flat)
    body, (first, second, third) = out[:count], weights[0]
    # Three products over shifted rows: what straddles two streams is computed too, and never read.
    torch.addmm(weights[1], flat[:count], first.T, out=body)
    body.addmm_(flat[1 : count + 1], second.T).addmm_(flat[2 : count + 2], third.T)
    return out.view(rows, frames + TAIL, width)[:, :frames]


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
