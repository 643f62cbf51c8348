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

LARGE = 256
"""From so many rows on, a vendor's product is faster than ours, whose sums are split over more blocks."""

_STORE, _GELU, _HEADS = (constant(i) for i in range(3))
_PLAIN, _GELUS, _HEADED = range(3)
_EPS = constant(1e-6)
_NORM_EPS = constant(1e-5)


def add_norm(
    base: Tensor,
    update: Tensor | None,
    gate: Tensor | None,
    shift: Tensor,
    scale: Tensor,
    residual: Tensor,
    out: Tensor,
) -> None:
    """`t2w_ops.add_norm`."""
    rows, frames, width = base.shape
    spare = base  # stands for pointers that are not used
    _add_norm[(rows * frames,)](
        base,
        spare if update is None else update,
        spare if gate is None else gate,
        shift,
        scale,
        residual,
        out,
        rows * frames,
        frames,
        PARTS=0 if update is None else update.shape[0],
        SHARED=update is not None and update.shape[1] != rows,
        GATE=gate is not None,
        WIDTH=width,
        num_warps=4,
        **_overlap(base),
    )


def project(x: Tensor, weights: Pair, heads: Pair, qkv: Tensor) -> None:
    """`t2w_ops.project`."""
    rows = x.shape[0] * x.shape[1]
    if rows < LARGE:
        _product(x, weights, qkv, heads=heads, kind=_HEADED)
        return
    torch.addmm(weights[1], x.flatten(0, 1), weights[0].T, out=qkv.view(rows, -1))
    _head_norm[(rows, 2)](qkv, *heads, HEADS=qkv.shape[3], SIZE=qkv.shape[4], num_warps=2)


def attend(qkv: Tensor, memory: Tensor, places: Places) -> Tensor:
    """`t2w_ops.attend`."""
    rows, frames, _, heads, size = qkv.shape
    out = qkv.new_empty(rows, frames, heads * size)
    block, keys, warps, stages = _attend_shape(rows * heads * frames)
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
        BN=keys,
        num_warps=warps,
        num_stages=stages,
        **_overlap(qkv),
    )
    return out


def linear(x: Tensor, weights: Pair) -> Tensor:
    """`t2w_ops.linear`."""
    rows, frames, inputs = x.shape
    if rows * frames >= LARGE:
        return F.linear(x, *weights)[None]
    split = _split(inputs)
    out = x.new_empty(split, rows, frames, weights[0].shape[0], dtype=torch.float32)
    _product(x, weights, out, split=split)
    return out


def convolve(x: Tensor, weights: Pair, tails: Tensor, slots: Tensor) -> Tensor:
    """`t2w_ops.convolve`."""
    rows, frames, width = x.shape
    split = 3 if rows * frames < LARGE else 1
    out = x.new_empty(split, rows, frames, width, dtype=torch.float32 if split > 1 else x.dtype)
    _product(x, weights, out, tails=(tails, slots), split=split)
    return out


def mish(x: Tensor, norm: Pair, out: Tensor) -> None:
    """`t2w_ops.mish`."""
    parts, rows, frames, width = x.shape
    _mish[(rows * frames,)](
        x, *norm, out, rows * frames, PARTS=parts, WIDTH=width, num_warps=4, **_overlap(x)
    )


def expand(x: Tensor, weights: Pair) -> Tensor:
    """`t2w_ops.expand`."""
    rows, frames, _ = x.shape
    weight = weights[0]
    if rows * frames >= LARGE and x.is_cuda:
        y: Tensor = torch._addmm_activation(weights[1], x.flatten(0, 1), weight.T, use_gelu=True)
        return y.view(rows, frames, weight.shape[0])
    out = weight.new_empty(rows, frames, weight.shape[0])
    _product(x, weights, out, kind=_GELUS)
    return out


def euler(x: Tensor, velocity: Tensor, span: float, guidance: float, rounded: Tensor) -> None:
    """`t2w_ops.euler`."""
    batch, per = x.shape[0], x.shape[1] * x.shape[2]
    _euler[(ceil_div(per, 1024), batch)](
        x,
        velocity,
        rounded,
        span,
        guidance,
        per,
        velocity[0].numel(),
        PARTS=velocity.shape[0],
        BLOCK=1024,
        **_overlap(x),
    )


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
        **_overlap(qkv),
    )


def _overlap(x: Tensor) -> dict[str, bool]:
    """Launch options: on the device a kernel may begin before its predecessor ends, and waits for it by itself."""
    return {"EARLY": True, "launch_pdl": True} if x.is_cuda else {"EARLY": False}


def _product(
    x: Tensor,
    weights: Pair,
    out: Tensor,
    *,
    kind: int = _PLAIN,
    heads: Pair | None = None,
    tails: Pair | None = None,
    split: int = 1,
) -> None:
    """One launch: linear map or causal convolution, in `split` sums, and what follows it."""
    weight, bias = weights
    count, inputs = weight.shape[-2:]
    rows, frames = x.shape[0] * x.shape[1], x.shape[1]
    bm, bn, bk, warps, stages = _shape(rows, count, inputs if tails is None else 3 * inputs)
    if kind == _HEADED:
        bn = out.shape[4]
    while count % bn:
        bn //= 2
    taps = 1 if tails is None else 3
    depth = inputs // split if taps == 1 else inputs
    spare = bias  # stands for pointers that are not used
    _matmul[(count // bn, ceil_div(rows, bm), split)](
        x,
        weight,
        bias,
        out,
        *(heads or (spare, spare)),
        *(tails or (spare, spare)),
        rows,
        frames,
        count,
        HEADS=out.shape[3] if kind == _HEADED else 1,
        TAPS=taps,
        TURNS=taps if split == 1 else 1,
        KIND=kind,
        INPUTS=inputs,
        DEPTH=depth,
        BM=bm,
        BN=bn,
        BK=min(bk, depth),
        num_warps=warps,
        num_stages=stages,
        **_overlap(x),
    )


def _split(inputs: int) -> int:
    """Into how many sums a linear map of few rows is split."""
    return 4 if inputs >= 2048 else 2 if inputs >= 512 else 1


def _attend_shape(queries: int) -> tuple[int, int, int, int]:
    """Queries and keys of a block, warps and stages; measured on an H200."""
    return (16, 64, 4, 3) if queries < 8192 else (64, 64, 4, 3)


def _shape(rows: int, count: int, depth: int) -> tuple[int, int, int, int, int]:
    """Rows, columns and depth of a block, warps and stages; measured on an H200."""
    if rows >= 2048 and count % 256 == 0:
        return 64, 256, 64, 8, 3
    if rows >= LARGE:
        return 64, 64, 64, 4, 4
    if count > 1024:
        return 32, 64, 128, 4, 3
    return 16, 32, 128, 4, 4


@jit
def _let_next_begin():
    """Allows the next launch as soon as every block of this one has come here; that one waits before it reads."""
    tl.inline_asm_elementwise(
        "griddepcontrol.launch_dependents; // $0", "=r", [], dtype=tl.int32, is_pure=False, pack=1
    )


@jit
def _wait():
    """Until all launches before this one have ended."""
    tl.inline_asm_elementwise("griddepcontrol.wait; // $0", "=r", [], dtype=tl.int32, is_pure=False, pack=1)


@jit
def _prefetch(places):
    """Brings the lines at these places near; weights do not change, so this may happen before `_wait`."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [places], dtype=tl.int32, is_pure=False, pack=1
    )


@jit
def _matmul(
    x,
    weight,
    bias,
    out,
    head_weight,
    head_bias,
    tails,
    slots,
    rows,
    frames,
    count,
    HEADS: tl.constexpr,
    TAPS: tl.constexpr,
    TURNS: tl.constexpr,
    KIND: tl.constexpr,
    INPUTS: tl.constexpr,
    DEPTH: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    EARLY: tl.constexpr,
):
    """out (parts, rows, count) = epilogue(x @ weight.T + bias); x (rows, INPUTS), weight (TAPS, count, INPUTS).

    A part is a tap, or DEPTH of the INPUTS; the bias belongs to the first.
    """
    row = tl.program_id(1) * BM + tl.arange(0, BM)
    col = tl.program_id(0) * BN + tl.arange(0, BN)
    inside = row < rows
    lane = tl.arange(0, BK)
    part = tl.program_id(2)
    first_tap = part if TAPS > TURNS else 0
    first = 0 if TAPS > 1 else part * DEPTH
    acc = tl.zeros((BM, BN), tl.float32)
    if EARLY:
        _let_next_begin()
        line = first + tl.arange(0, DEPTH // 64) * 64  # 128 bytes
        for turn in tl.static_range(TURNS):
            _prefetch(weight + ((first_tap + turn) * count + col[:, None]) * INPUTS + line[None, :])
        _wait()
    for turn in tl.static_range(TURNS):
        tap = first_tap + turn
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
        for start in range(0, DEPTH, BK):
            at = first + start + lane
            a = tl.load(x + source[:, None] * INPUTS + at[None, :], here[:, None], 0.0)
            if TAPS > 1:
                a = tl.where(
                    in_tail[:, None],
                    tl.load(tails + at_tail[:, None] + at[None, :], in_tail[:, None], 0.0),
                    a,
                )
            w = tl.load(weight + (tap * count + col[None, :]) * INPUTS + at[:, None])
            acc = tl.dot(a, w, acc)
    acc += tl.where(part == 0, tl.load(bias + col).to(tl.float32), 0.0)[None, :]
    if KIND == _GELU:
        inner = 0.7978845608028654 * (acc + 0.044715 * acc * acc * acc)
        acc = acc * tl.sigmoid(2 * inner)
    if KIND == _HEADS:
        which = tl.program_id(0) // HEADS
        mean = tl.sum(acc, 1) / BN
        spread = acc - mean[:, None]
        rate = 1 / tl.sqrt(tl.sum(spread * spread, 1) / BN + _NORM_EPS)
        safe = tl.minimum(which, 1) * BN + tl.arange(0, BN)
        by, add = tl.load(head_weight + safe).to(tl.float32), tl.load(head_bias + safe).to(tl.float32)
        acc = tl.where(which < 2, spread * rate[:, None] * by[None, :] + add[None, :], acc)
    place = (part.to(tl.int64) * rows + row[:, None]) * count + col[None, :]
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
    EARLY: tl.constexpr,
):
    """Softmax attention of BM frames of one head over [prompt | recent | own]."""
    if EARLY:
        _let_next_begin()
        _wait()
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
def _add_norm(
    base,
    update,
    gate,
    shift,
    scale,
    residual,
    out,
    rows,
    frames,
    PARTS: tl.constexpr,
    SHARED: tl.constexpr,
    GATE: tl.constexpr,
    WIDTH: tl.constexpr,
    EARLY: tl.constexpr,
):
    at = tl.arange(0, WIDTH)
    by, add = 1 + tl.load(scale + at), tl.load(shift + at)
    if EARLY:
        _let_next_begin()
        _wait()
    row = tl.program_id(0).to(tl.int64)
    line = tl.load(base + row * WIDTH + at)
    if PARTS > 0:
        source, size = row, rows
        if SHARED:  # one update for both guidance rows
            source, size = row // (2 * frames) * frames + row % frames, rows // 2
        total = tl.load(update + source * WIDTH + at).to(tl.float32)
        for part in tl.static_range(1, PARTS):
            total += tl.load(update + (part * size + source) * WIDTH + at).to(tl.float32)
        if GATE:
            total *= tl.load(gate + at)
        line += total
        tl.store(residual + row * WIDTH + at, line)
    spread = line - tl.sum(line, 0) / WIDTH
    rate = 1 / tl.sqrt(tl.sum(spread * spread, 0) / WIDTH + _EPS)
    tl.store(out + row * WIDTH + at, (spread * rate * by + add).to(out.dtype.element_ty))


@jit
def _head_norm(qkv, weight, bias, HEADS: tl.constexpr, SIZE: tl.constexpr):
    at, part = tl.arange(0, SIZE)[None, :], tl.program_id(1)
    head = tl.arange(0, HEADS)[:, None]
    place = qkv + (tl.program_id(0).to(tl.int64) * 3 + part) * (HEADS * SIZE) + head * SIZE + at
    line = tl.load(place).to(tl.float32)
    spread = line - (tl.sum(line, 1) / SIZE)[:, None]
    rate = 1 / tl.sqrt(tl.sum(spread * spread, 1) / SIZE + _NORM_EPS)
    by, add = (
        tl.load(weight + part * SIZE + at).to(tl.float32),
        tl.load(bias + part * SIZE + at).to(tl.float32),
    )
    tl.store(place, (spread * rate[:, None] * by + add).to(qkv.dtype.element_ty))


@jit
def _mish(x, weight, bias, out, rows, PARTS: tl.constexpr, WIDTH: tl.constexpr, EARLY: tl.constexpr):
    if EARLY:
        _let_next_begin()
        _wait()
    at = tl.arange(0, WIDTH)
    row = tl.program_id(0).to(tl.int64) * WIDTH
    line = tl.load(x + row + at).to(tl.float32)
    for part in tl.static_range(1, PARTS):
        line += tl.load(x + part * rows.to(tl.int64) * WIDTH + row + at).to(tl.float32)
    spread = line - tl.sum(line, 0) / WIDTH
    rate = 1 / tl.sqrt(tl.sum(spread * spread, 0) / WIDTH + _NORM_EPS)
    line = spread * rate * tl.load(weight + at).to(tl.float32) + tl.load(bias + at).to(tl.float32)
    power = tl.exp(tl.minimum(line, 20.0))
    power = power * (power + 2)  # tanh(log(1 + e^x)) = (e^x (e^x + 2)) / (e^x (e^x + 2) + 2)
    tl.store(out + row + at, (line * power / (power + 2)).to(out.dtype.element_ty))


@jit
def _euler(
    x,
    velocity,
    rounded,
    span,
    guidance,
    per,
    size,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    EARLY: tl.constexpr,
):
    if EARLY:
        _let_next_begin()
        _wait()
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    b, inside = tl.program_id(1).to(tl.int64), at < per
    known = tl.load(velocity + 2 * b * per + at, inside, 0.0).to(tl.float32)
    blind = tl.load(velocity + (2 * b + 1) * per + at, inside, 0.0).to(tl.float32)
    for part in tl.static_range(1, PARTS):
        known += tl.load(velocity + part * size + 2 * b * per + at, inside, 0.0).to(tl.float32)
        blind += tl.load(velocity + part * size + (2 * b + 1) * per + at, inside, 0.0).to(tl.float32)
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
    EARLY: tl.constexpr,
):
    """Frame t of stream b in one block: its keys and values to the ring, the last two frames' inputs to the tails."""
    if EARLY:
        _let_next_begin()
        _wait()
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
