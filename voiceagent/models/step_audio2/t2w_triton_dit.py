"""The kernels of `t2w_triton`: what one program does.

They know tensors and places in memory; nothing of streams, voices or the ODE.
"""

# mypy: disable-error-code="no-untyped-def, possibly-undefined"
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from voiceagent.models.step_audio2.kernels.gpu.language import constant, jit, tl

PLAIN, GELU, HEADS = range(3)
"""What follows a product: nothing, GELU, or the norm of q's and k's heads."""

_GELU, _HEADS, _EPS, _NORM_EPS = constant(GELU), constant(HEADS), constant(1e-6), constant(1e-5)


def loosely(*sizes: str) -> Callable[[Any], Any]:
    """`jit` that compiles one kernel for all values of these arguments: those that differ from chunk to chunk."""
    make: Any = jit
    return jit if tl is None else make(do_not_specialize=sizes)


@loosely("rows", "frames")
def matmul(
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
    weight_tap,
    weight_out,
    HEADS: tl.constexpr,
    TAPS: tl.constexpr,
    KIND: tl.constexpr,
    INPUTS: tl.constexpr,
    DEPTH: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """out (parts, rows, count) = epilogue(x @ weight.T + bias); x (rows, INPUTS), weight (TAPS, count, INPUTS).

    A part is a tap, or DEPTH of the INPUTS; the bias belongs to the first.
    """
    row = tl.program_id(1) * BM + tl.arange(0, BM)
    col = tl.program_id(0) * BN + tl.arange(0, BN)
    part, lane = tl.program_id(2), tl.arange(0, BK)
    inside = row < rows
    first = 0 if TAPS > 1 else part * DEPTH
    wanted = weight + first + col * weight_out
    if TAPS > 1:
        wanted += part * weight_tap
    source = row.to(tl.int64)
    here = inside
    if TAPS > 1:
        source += part - (TAPS - 1)
        before = row % frames + part - (TAPS - 1)  # negative: in the tails
        here = inside & (before >= 0)
        in_tail = inside & (before < 0)
        pair = row // frames
        slot = tl.load(slots + pair // 2, inside, 0)
        at_tail = ((slot * 2 + pair % 2) * 2 + (before + 2)) * INPUTS
    acc = tl.zeros((BM, BN), tl.float32)
    for start in range(0, DEPTH, BK):
        at = start + lane
        a = tl.load(x + source[:, None] * INPUTS + (first + at)[None, :], here[:, None], 0.0)
        if TAPS > 1:
            old = tl.load(tails + at_tail[:, None] + at[None, :], in_tail[:, None], 0.0)
            a = tl.where(in_tail[:, None], old, a)
        acc = tl.dot(a, tl.load(wanted[None, :] + at[:, None]), acc)
    acc += tl.where(part == 0, tl.load(bias + col).to(tl.float32), 0.0)[None, :]
    if KIND == _GELU:
        inner = 0.7978845608028654 * (acc + 0.044715 * acc * acc * acc)
        acc = acc * tl.sigmoid(2 * inner)
    if KIND == _HEADS:
        which = tl.program_id(0) // HEADS
        spread = acc - (tl.sum(acc, 1) / BN)[:, None]
        rate = 1 / tl.sqrt(tl.sum(spread * spread, 1) / BN + _NORM_EPS)
        safe = tl.minimum(which, 1) * BN + tl.arange(0, BN)
        by, add = tl.load(head_weight + safe).to(tl.float32), tl.load(head_bias + safe).to(tl.float32)
        acc = tl.where(which < 2, spread * rate[:, None] * by[None, :] + add[None, :], acc)
    place = (part.to(tl.int64) * rows + row[:, None]) * count + col[None, :]
    tl.store(out + place, acc.to(out.dtype.element_ty), inside[:, None])


@loosely("frames")
def attend(
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
    old = memory + (pair % 2 * HEADS + head) * SIZE
    # Rows 0 to `asked` are the prompt, those to `past` the recent frames, those to `end` the chunk itself.
    asked = (prompt * stride).to(tl.int32)
    past = asked + tl.minimum(made * stride, RECENT).to(tl.int32)
    end = past + (new * stride).to(tl.int32)
    at = tl.arange(0, BN)
    for start in range(0, end, BN):
        i = start + at
        far = tl.where(i < asked, prompt_row + i, slot * RECENT + (i - asked)) * (2 * HEADS * SIZE)
        near = (i - past) * (3 * HEADS * SIZE)
        inside = (i < end)[:, None]
        mine = (i >= past)[:, None]
        k_place = tl.where(mine, own + HEADS * SIZE + near[:, None], old + far[:, None]) + lane[None, :]
        k = tl.load(k_place, inside, 0.0)
        scores = tl.where((i < end)[None, :], tl.dot(q, tl.trans(k)), float("-inf"))
        top = tl.maximum(best, tl.max(scores, 1))
        weight = tl.exp2(scores - top[:, None])
        decay = tl.exp2(best - top)
        total = total * decay + tl.sum(weight, 1)
        v_place = (
            tl.where(mine, own + 2 * HEADS * SIZE + near[:, None], old + kv_stride + far[:, None])
            + lane[None, :]
        )
        v = tl.load(v_place, inside, 0.0)
        acc = tl.dot(weight.to(v.dtype), v, acc * decay[:, None])
        best = top
    place = (pair.to(tl.int64) * frames + row[:, None]) * (HEADS * SIZE) + head * SIZE + lane[None, :]
    tl.store(out + place, (acc / total[:, None]).to(out.dtype.element_ty), (row < frames)[:, None])


@loosely("frames")
def unfold(x, tails, slots, windows, frames, WIDTH: tl.constexpr):
    """windows[r, t, k] = x[r, t + k - 2], or a row of the tails."""
    at, tap = tl.arange(0, WIDTH), tl.program_id(1)
    row = tl.program_id(0).to(tl.int64)
    before, pair = row % frames + tap - 2, row // frames
    source = x + (row + tap - 2) * WIDTH
    if before < 0:
        source = tails + ((tl.load(slots + pair // 2) * 2 + pair % 2) * 2 + before + 2) * WIDTH
    tl.store(windows + (row * 3 + tap) * WIDTH + at, tl.load(source + at))


@loosely("rows", "frames")
def add_norm(
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
):
    """One row: residual = base + gate * the sum of the update's parts, and its modulated norm."""
    at = tl.arange(0, WIDTH)
    by, add = 1 + tl.load(scale + at), tl.load(shift + at)
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
def head_norm(qkv, weight, bias, HEADS: tl.constexpr, SIZE: tl.constexpr):
    """Layer norm of every head of q (program 0 of axis 1) or k (1) of one row of qkv (rows, 3, HEADS, SIZE)."""
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


@loosely("rows")
def mish(x, weight, bias, out, rows, PARTS: tl.constexpr, WIDTH: tl.constexpr):
    """One row: Mish of a layer norm of the sum of PARTS."""
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


@loosely("per", "size")
def euler(
    x,
    velocity,
    rounded,
    span,
    guidance,
    per,
    size,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """x += span * guided velocity, and a copy of x in half precision."""
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


@loosely("batch", "frames")
def keep(
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
