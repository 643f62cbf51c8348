"""Triton twins of `t2w_ops`: every function one launch, or two where the batch is large enough for a vendor's product.

They know tensors and places in memory; nothing of streams, voices or the ODE.
"""

# mypy: disable-error-code="no-untyped-def, possibly-undefined"
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from voiceagent.models.step_audio2.kernels.gpu.language import ceil_div, constant, jit, power_of_2, tl
from voiceagent.models.step_audio2.t2w_pool import RECENT_FRAMES, Places

Pair = tuple[Tensor, Tensor]

LARGE = 1024
"""From so many rows on, norm and product are separate launches."""

_STORE, _GELU, _MERGE, _HEADS = (constant(i) for i in range(4))
_PLAIN, _GELUS, _MERGES, _HEADED = range(4)
_EPS = constant(1e-6)
_NORM_EPS = constant(1e-5)


def project(residual: Tensor, shift: Tensor, scale: Tensor, weights: Pair, heads: Pair, qkv: Tensor) -> None:
    """`t2w_ops.project`."""
    rows = residual.shape[0] * residual.shape[1]
    if rows >= LARGE:
        x = _normed(residual, shift, scale, qkv.dtype)
        torch.addmm(weights[1], x.flatten(0, 1), weights[0].T, out=qkv.view(rows, -1))
        _head_norm[(rows, 2 * qkv.shape[3])](qkv, *heads, qkv.shape[3], SIZE=qkv.shape[4], num_warps=1)
        return
    _product(residual, weights, qkv, norm=(shift, scale), heads=heads, kind=_HEADED)


def attend(qkv: Tensor, memory: Tensor, places: Places) -> Tensor:
    """`t2w_ops.attend`."""
    rows, frames, _, heads, size = qkv.shape
    out = qkv.new_empty(rows, frames, heads * size)
    block = 16 if rows * heads * ceil_div(frames, 32) < 256 else 64
    _attend[(ceil_div(frames, block), heads, rows)](
        qkv,
        memory,
        memory.stride(0),
        places.table,
        out,
        frames,
        places.stride,
        size**-0.5 * 1.4426950408889634,
        ROW=places.table.shape[1],
        RECENT=RECENT_FRAMES,
        HEADS=heads,
        SIZE=size,
        BM=block,
        BN=64,
        num_warps=4,
        num_stages=3,
    )
    return out


def merge(residual: Tensor, x: Tensor, weights: Pair, gate: Tensor) -> None:
    """`t2w_ops.merge`."""
    _product(x, weights, residual, gate=gate, kind=_MERGES)


def convolve_in(
    residual: Tensor, shift: Tensor, scale: Tensor, weights: Pair, tails: Tensor, slots: Tensor, kept: Tensor
) -> Tensor:
    """`t2w_ops.convolve_in`."""
    out = torch.empty_like(kept)
    if residual.shape[0] * residual.shape[1] >= LARGE:
        _normed(residual, shift, scale, kept.dtype, out=kept)
        _product(kept, weights, out, tails=(tails, slots))
    else:
        _product(residual, weights, out, norm=(shift, scale), tails=(tails, slots), kept=kept)
    return out


def mish(x: Tensor, norm: Pair, out: Tensor) -> None:
    """`t2w_ops.mish`."""
    rows, frames, width = x.shape
    _mish[(rows * frames,)](x, *norm, out, WIDTH=width, num_warps=4)


def convolve_out(
    residual: Tensor, x: Tensor, weights: Pair, tails: Tensor, slots: Tensor, gate: Tensor
) -> None:
    """`t2w_ops.convolve_out`."""
    _product(x, weights, residual, tails=(tails, slots), gate=gate, kind=_MERGES)


def expand(residual: Tensor, shift: Tensor, scale: Tensor, weights: Pair) -> Tensor:
    """`t2w_ops.expand`."""
    rows, frames, _ = residual.shape
    weight = weights[0]
    if rows * frames >= LARGE:
        x = _normed(residual, shift, scale, weight.dtype).flatten(0, 1)
        if not x.is_cuda:  # the interpreter
            return F.gelu(F.linear(x, *weights), approximate="tanh").view(rows, frames, weight.shape[0])
        y: Tensor = torch._addmm_activation(weights[1], x, weight.T, use_gelu=True)
        return y.view(rows, frames, weight.shape[0])
    out = weight.new_empty(rows, frames, weight.shape[0])
    _product(residual, weights, out, norm=(shift, scale), kind=_GELUS)
    return out


def finish(residual: Tensor, shift: Tensor, scale: Tensor, weights: Pair) -> Tensor:
    """`t2w_ops.finish`."""
    out = residual.new_empty(*residual.shape[:2], weights[0].shape[0])
    _product(residual, weights, out, norm=(shift, scale))
    return out


def euler(x: Tensor, velocity: Tensor, span: float, guidance: float, rounded: Tensor) -> None:
    """`t2w_ops.euler`."""
    batch, per = x.shape[0], x.shape[1] * x.shape[2]
    _euler[(ceil_div(per, 1024), batch)](x, velocity, rounded, span, guidance, per, BLOCK=1024)


def keep(qkv: Tensor, kept: Tensor, memory: Tensor, tails: Tensor, places: Places) -> None:
    """`t2w_ops.keep`."""
    depth, rows, frames, _, heads, size = qkv.shape
    width, inner = kept.shape[-1], heads * size
    _keep[(rows // 2 * frames, depth)](
        qkv,
        kept,
        memory,
        tails,
        places.table,
        rows // 2,
        frames,
        places.stride,
        memory.stride(0),
        memory.stride(1),
        tails.stride(0),
        tails.stride(1),
        ROW=places.table.shape[1],
        INNER=inner,
        WIDTH=width,
        BI=power_of_2(max(inner, width)),
        num_warps=4,
    )


def snake(
    x: Tensor, bias: Tensor | None, before: Tensor | None, alpha: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The sum x + bias + before (B, C, 1, T), float32, and its Snake, y + sin(alpha y)^2 / alpha, if alpha is given."""
    x = x.contiguous(memory_format=torch.channels_last)
    summed = bias is not None or before is not None
    total = torch.empty_like(x) if summed else x
    out = x if alpha is None else torch.empty_like(x)
    if before is not None:
        before = before.contiguous(memory_format=torch.channels_last)
    spare = x
    _snake[(ceil_div(x.numel(), 1024),)](
        x,
        spare if bias is None else bias,
        spare if before is None else before,
        spare if alpha is None else alpha,
        total,
        out,
        x.numel(),
        x.shape[1],
        BIAS=bias is not None,
        ADD=before is not None,
        SNAKE=alpha is not None,
        KEEP=before is not None,
        BLOCK=1024,
        num_warps=4,
    )
    return total, out


def _normed(
    residual: Tensor, shift: Tensor, scale: Tensor, dtype: torch.dtype, *, out: Tensor | None = None
) -> Tensor:
    """The modulated norm on its own."""
    out = torch.empty_like(residual, dtype=dtype) if out is None else out
    rows, frames, width = residual.shape
    _norm[(rows * frames,)](residual, shift, scale, out, WIDTH=width, num_warps=4)
    return out


def _product(
    x: Tensor,
    weights: Pair,
    out: Tensor,
    *,
    kind: int = _PLAIN,
    norm: Pair | None = None,
    heads: Pair | None = None,
    tails: Pair | None = None,
    gate: Tensor | None = None,
    kept: Tensor | None = None,
) -> None:
    """One launch: [modulated norm,] linear map or causal convolution, and what follows it."""
    weight, bias = weights
    count, inputs = weight.shape[-2:]
    rows, frames = x.shape[0] * x.shape[1], x.shape[1]
    if rows >= LARGE:
        bm, bn, bk, warps, stages = 128, 128 if count % 128 == 0 else 16, 64, 8, 3
    else:
        small = rows * count <= 256 * 1024  # 128 blocks of 32 x 64 fill the device
        bm, bn, bk, warps, stages = (16, 32, 128, 4, 4) if small else (32, 64, 128, 4, 3)
    if kind == _HEADED:
        bn = out.shape[4]
    bk = min(bk, inputs)
    while count % bn:
        bn //= 2
    spare = bias  # stands for pointers that are not used
    _matmul[(count // bn, ceil_div(rows, bm))](
        x,
        weight,
        bias,
        out,
        *(norm or (spare, spare)),
        *(heads or (spare, spare)),
        *(tails or (spare, spare)),
        spare if gate is None else gate,
        spare if kept is None else kept,
        rows,
        frames,
        count,
        HEADS=out.shape[3] if kind == _HEADED else 1,
        NORM=norm is not None,
        TAPS=1 if tails is None else 3,
        KEEP=kept is not None,
        KIND=kind,
        INPUTS=inputs,
        BM=bm,
        BN=bn,
        BK=bk,
        num_warps=warps,
        num_stages=stages,
    )


@jit
def _matmul(
    x,
    weight,
    bias,
    out,
    shift,
    scale,
    head_weight,
    head_bias,
    tails,
    slots,
    gate,
    kept,
    rows,
    frames,
    count,
    HEADS: tl.constexpr,
    NORM: tl.constexpr,
    TAPS: tl.constexpr,
    KEEP: tl.constexpr,
    KIND: tl.constexpr,
    INPUTS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """out (rows, count) = epilogue(norm(x) @ weight.T + bias); x (rows, INPUTS), weight (TAPS, count, INPUTS)."""
    row = tl.program_id(1) * BM + tl.arange(0, BM)
    col = tl.program_id(0) * BN + tl.arange(0, BN)
    inside = row < rows
    lane = tl.arange(0, BK)
    half = weight.dtype.element_ty
    acc = tl.zeros((BM, BN), tl.float32)
    for tap in tl.static_range(TAPS):
        source = row.to(tl.int64)
        here = inside
        if TAPS > 1:
            source = source + (tap - (TAPS - 1))
            before = row % frames + (tap - (TAPS - 1))  # negative: in the tails
            here = inside & (before >= 0)
            pair = row // frames
            slot = tl.load(slots + pair // 2, inside, 0)
            at_tail = ((slot * 2 + pair % 2) * 2 + (before + 2)) * INPUTS
            in_tail = inside & (before < 0)
        if NORM:
            whole = tl.arange(0, INPUTS)
            line = tl.load(x + source[:, None] * INPUTS + whole[None, :], here[:, None], 0.0)
            mean = tl.sum(line, 1) / INPUTS
            spread = line - mean[:, None]
            rate = 1 / tl.sqrt(tl.sum(spread * spread, 1) / INPUTS + _EPS)
        for start in range(0, INPUTS, BK):
            at = start + lane
            part = tl.load(x + source[:, None] * INPUTS + at[None, :], here[:, None], 0.0)
            if NORM:
                by = 1 + tl.load(scale + at)
                part = (part - mean[:, None]) * rate[:, None] * by[None, :] + tl.load(shift + at)[None, :]
            part = part.to(half)
            if TAPS > 1:
                old = tl.load(tails + at_tail[:, None] + at[None, :], in_tail[:, None], 0.0)
                part = tl.where(in_tail[:, None], old, part)
                if KEEP and tap == TAPS - 1:  # noqa: SIM102 (one is known at compile time)
                    if tl.program_id(0) == 0:
                        tl.store(
                            kept + row[:, None].to(tl.int64) * INPUTS + at[None, :], part, inside[:, None]
                        )
            w = tl.load(weight + (tap * count + col[None, :]) * INPUTS + at[:, None])
            acc = tl.dot(part, w, acc)
    acc += tl.load(bias + col).to(tl.float32)[None, :]
    place = row[:, None].to(tl.int64) * count + col[None, :]
    if KIND == _GELU:
        inner = 0.7978845608028654 * (acc + 0.044715 * acc * acc * acc)
        acc = acc * tl.sigmoid(2 * inner)
    if KIND == _HEADS:
        which = tl.program_id(0) // HEADS
        mean = tl.sum(acc, 1) / BN
        spread = acc - mean[:, None]
        rate = 1 / tl.sqrt(tl.sum(spread * spread, 1) / BN + _NORM_EPS)
        unit = tl.arange(0, BN)
        safe = tl.minimum(which, 1) * BN + unit
        by, add = tl.load(head_weight + safe).to(tl.float32), tl.load(head_bias + safe).to(tl.float32)
        acc = tl.where(which < 2, spread * rate[:, None] * by[None, :] + add[None, :], acc)
    if KIND == _MERGE:
        acc = tl.load(out + place, inside[:, None], 0.0) + tl.load(gate + col)[None, :] * acc
    tl.store(out + place, acc.to(out.dtype.element_ty), inside[:, None])


@jit
def _over(
    q, best, total, acc, keys, values, start, size, step: tl.constexpr, SIZE: tl.constexpr, BN: tl.constexpr
):
    """Goes on with attention over `size` rows from `start` on; rows are `step` elements apart."""
    lane, at = tl.arange(0, SIZE), tl.arange(0, BN)
    for j in range(0, size, BN):
        inside = j + at < size
        row = (start + j + at).to(tl.int64) * step
        k = tl.load(keys + row[None, :] + lane[:, None], inside[None, :], 0.0)
        scores = tl.where(inside[None, :], tl.dot(q, k), float("-inf"))
        top = tl.maximum(best, tl.max(scores, 1))
        weight = tl.exp2(scores - top[:, None])
        decay = tl.exp2(best - top)
        total = total * decay + tl.sum(weight, 1)
        v = tl.load(values + row[:, None] + lane[None, :], inside[:, None], 0.0)
        acc = tl.dot(weight.to(v.dtype), v, acc * decay[:, None])
        best = top
    return best, total, acc


@jit
def _attend(
    qkv,
    memory,
    kv_stride,
    table,
    out,
    frames,
    stride,
    factor,
    ROW: tl.constexpr,
    RECENT: tl.constexpr,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """Softmax attention of BM frames of one head over [prompt | recent | own]."""
    head, pair = tl.program_id(1), tl.program_id(2)
    entry = table + pair // 2 * ROW
    slot, made, new = tl.load(entry), tl.load(entry + 1), tl.load(entry + 2)
    prompt, prompt_row = tl.load(entry + 4), tl.load(entry + 6)
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    lane = tl.arange(0, SIZE)
    own = qkv + (pair.to(tl.int64) * frames * 3 * HEADS + head) * SIZE
    q = tl.load(own + row[:, None] * (3 * HEADS * SIZE) + lane[None, :], (row < frames)[:, None], 0.0)
    q = (q.to(tl.float32) * factor).to(q.dtype)
    best = tl.full((BM,), float("-inf"), tl.float32)
    total = tl.zeros((BM,), tl.float32)
    acc = tl.zeros((BM, SIZE), tl.float32)
    keys = memory + (pair % 2 * HEADS + head) * SIZE
    values = keys + kv_stride
    far: tl.constexpr = 2 * HEADS * SIZE
    near: tl.constexpr = 3 * HEADS * SIZE
    recent = tl.minimum(made * stride, RECENT)
    best, total, acc = _over(q, best, total, acc, keys, values, prompt_row, prompt * stride, far, SIZE, BN)
    best, total, acc = _over(q, best, total, acc, keys, values, slot * RECENT, recent, far, SIZE, BN)
    fresh = own + HEADS * SIZE
    best, total, acc = _over(
        q, best, total, acc, fresh, fresh + HEADS * SIZE, 0, new * stride, near, SIZE, BN
    )
    place = (pair.to(tl.int64) * frames + row[:, None]) * (HEADS * SIZE) + head * SIZE + lane[None, :]
    tl.store(out + place, (acc / total[:, None]).to(out.dtype.element_ty), (row < frames)[:, None])


@jit
def _norm(x, shift, scale, out, WIDTH: tl.constexpr):
    at = tl.arange(0, WIDTH)
    row = tl.program_id(0).to(tl.int64) * WIDTH
    line = tl.load(x + row + at)
    spread = line - tl.sum(line, 0) / WIDTH
    rate = 1 / tl.sqrt(tl.sum(spread * spread, 0) / WIDTH + _EPS)
    line = spread * rate * (1 + tl.load(scale + at)) + tl.load(shift + at)
    tl.store(out + row + at, line.to(out.dtype.element_ty))


@jit
def _head_norm(qkv, weight, bias, heads, SIZE: tl.constexpr):
    at, part = tl.arange(0, SIZE), tl.program_id(1)
    place = qkv + (tl.program_id(0).to(tl.int64) * 3 * heads + part) * SIZE + at
    line = tl.load(place).to(tl.float32)
    spread = line - tl.sum(line, 0) / SIZE
    rate = 1 / tl.sqrt(tl.sum(spread * spread, 0) / SIZE + _NORM_EPS)
    which = part // heads * SIZE
    by, add = tl.load(weight + which + at).to(tl.float32), tl.load(bias + which + at).to(tl.float32)
    tl.store(place, (spread * rate * by + add).to(qkv.dtype.element_ty))


@jit
def _mish(x, weight, bias, out, WIDTH: tl.constexpr):
    at = tl.arange(0, WIDTH)
    row = tl.program_id(0).to(tl.int64) * WIDTH
    line = tl.load(x + row + at).to(tl.float32)
    spread = line - tl.sum(line, 0) / WIDTH
    rate = 1 / tl.sqrt(tl.sum(spread * spread, 0) / WIDTH + _NORM_EPS)
    line = spread * rate * tl.load(weight + at).to(tl.float32) + tl.load(bias + at).to(tl.float32)
    power = tl.exp(tl.minimum(line, 20.0))
    power = power * (power + 2)  # tanh(log(1 + e^x)) = (e^x (e^x + 2)) / (e^x (e^x + 2) + 2)
    tl.store(out + row + at, (line * power / (power + 2)).to(out.dtype.element_ty))


@jit
def _euler(x, velocity, rounded, span, guidance, per, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    b, inside = tl.program_id(1).to(tl.int64), at < per
    known = tl.load(velocity + 2 * b * per + at, inside, 0.0)
    blind = tl.load(velocity + (2 * b + 1) * per + at, inside, 0.0)
    y = tl.load(x + b * per + at, inside, 0.0) + span * ((1 + guidance) * known - guidance * blind)
    tl.store(x + b * per + at, y, inside)
    tl.store(rounded + b * per + at, y.to(rounded.dtype.element_ty), inside)


@jit
def _keep(
    qkv,
    kept,
    memory,
    tails,
    table,
    batch,
    frames,
    stride,
    memory_block,
    memory_kv,
    tails_block,
    tails_conv,
    ROW: tl.constexpr,
    INNER: tl.constexpr,
    WIDTH: tl.constexpr,
    BI: tl.constexpr,
):
    """Frame t of stream b in one block: its keys and values to the ring, the last two frames' inputs to the tails."""
    b, t, block = tl.program_id(0) // frames, tl.program_id(0) % frames, tl.program_id(1).to(tl.int64)
    entry = table + b * ROW
    slot, made, new = tl.load(entry), tl.load(entry + 1), tl.load(entry + 2) * stride
    ring, room = tl.load(entry + 9), tl.load(entry + 10)
    target = ring + (made * stride + t) % room
    lane = tl.arange(0, BI)
    wanted = (lane < INNER) & (t < new) & (t >= new - room)
    tail = t - (new - 2)
    last = (lane < WIDTH) & (tail >= 0) & (tail < 2)
    for g in tl.static_range(2):
        row = (block * batch * 2 + 2 * b + g) * frames + t
        for part in tl.static_range(2):
            value = tl.load(qkv + (row * 3 + 1 + part) * INNER + lane, wanted)
            place = memory + block * memory_block + part * memory_kv + (target * 2 + g) * INNER
            tl.store(place + lane, value, wanted)
            source = (((block * 2 + part) * batch * 2 + 2 * b + g) * frames + t) * WIDTH
            value = tl.load(kept + source + lane, last)
            place = tails + block * tails_block + part * tails_conv + ((slot * 2 + g) * 2 + tail) * WIDTH
            tl.store(place + lane, value, last)


@jit
def _snake(
    x,
    bias,
    before,
    alpha,
    total,
    out,
    count,
    channels,
    BIAS: tl.constexpr,
    ADD: tl.constexpr,
    SNAKE: tl.constexpr,
    KEEP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    channel = at % channels
    y = tl.load(x + at, inside, 0.0)
    if BIAS:
        y += tl.load(bias + channel)
    if ADD:
        y += tl.load(before + at, inside, 0.0)
    if KEEP:
        tl.store(total + at, y, inside)
    if SNAKE:
        by = tl.load(alpha + channel)
        wave = tl.sin(by * y)
        tl.store(out + at, y + wave * wave / (by + 1e-9), inside)
