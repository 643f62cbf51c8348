"""The torch twins against independent slow formulas; scripts/bench/kernels.py holds the Triton twins to these."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from voiceagent.models.step_audio2.kernels import fused, linear, paged, sample
from voiceagent.models.step_audio2.kernels.sums import Sums

LAYERS, PAGES, PAGE, KV_HEADS, WIDTH, HEADS = 2, 9, 4, 2, 8, 6


def make_pool() -> Tensor:
    return torch.randn(LAYERS, 2, PAGES, PAGE, KV_HEADS, WIDTH, generator=torch.Generator().manual_seed(3))


def slow_attention(q: Tensor, pool: Tensor, layer: int, table: list[int], length: int) -> Tensor:
    """One row, key by key, in float64."""
    out = torch.zeros(HEADS, WIDTH, dtype=torch.float64)
    for head in range(HEADS):
        shared = head // (HEADS // KV_HEADS)
        keys = torch.stack(
            [pool[layer, 0, table[i // PAGE], i % PAGE, shared] for i in range(length)]
        ).double()
        values = torch.stack(
            [pool[layer, 1, table[i // PAGE], i % PAGE, shared] for i in range(length)]
        ).double()
        chances = torch.softmax(keys @ q[head].double() / math.sqrt(WIDTH), dim=0)
        out[head] = chances @ values
    return out


def test_attention_over_pages_equals_a_slow_reference() -> None:
    pool = make_pool()
    tables = torch.tensor([[7, 2, 0, 5], [3, 4, 5, 6], [1, -1, -1, -1], [8, 8, 8, 8]], dtype=torch.int32)
    lengths = torch.tensor([14, 16, 1, 0], dtype=torch.int32)
    q = torch.randn(4, HEADS, WIDTH)
    out = paged.decode_attention(q, pool, 1, tables, lengths)
    for row in range(3):
        expected = slow_attention(q[row], pool, 1, tables[row].tolist(), int(lengths[row]))
        torch.testing.assert_close(out[row].double(), expected, atol=1e-6, rtol=1e-5)
    assert not out[3].any(), "an idle row gets zeros"


def test_written_positions_are_gathered_in_order() -> None:
    pool = make_pool()
    before = pool.clone()
    table = torch.tensor([7, 2, 0], dtype=torch.int32)
    keys, values = torch.randn(2, 10, KV_HEADS, WIDTH).unbind(0)
    places = torch.tensor([int(table[i // PAGE]) * PAGE + i % PAGE for i in range(10)])
    paged.write(keys, values, pool, 1, places)
    got_keys, got_values = paged.gather(pool, 1, table, 10)
    assert torch.equal(got_keys.transpose(0, 1), keys)
    assert torch.equal(got_values.transpose(0, 1), values)
    assert torch.equal(pool[0], before[0]), "the other layer is untouched"
    untouched = [1, 3, 4, 5, 6, 8]
    assert torch.equal(pool[1][:, untouched], before[1][:, untouched])
    assert torch.equal(pool[1, :, 0, 2:], before[1, :, 0, 2:]), "the rest of the last page is untouched"


def test_consecutive_pages_are_a_view() -> None:
    pool = make_pool()
    keys, values = paged.gather(pool, 0, 3, 7)
    copied_keys, copied_values = paged.gather(pool, 0, torch.tensor([3, 4]), 7)
    assert torch.equal(keys, copied_keys)
    assert torch.equal(values, copied_values)
    assert keys.untyped_storage().data_ptr() == pool.untyped_storage().data_ptr()


def test_a_skipped_place_stores_nothing() -> None:
    pool = make_pool()
    before = pool.clone()
    keys = torch.ones(3, KV_HEADS, WIDTH)
    paged.write(keys, keys, pool, 0, torch.tensor([-1, 5, -1]))
    changed = (pool != before).flatten(4).any(-1).nonzero()
    assert changed.tolist() == [[0, 0, 1, 1], [0, 1, 1, 1]]


def test_rotation_and_write_equal_a_slow_reference() -> None:
    pool = make_pool()
    angles = torch.arange(20)[:, None] * torch.tensor([1.0, 0.1, 0.01, 0.001])
    cos, sin = torch.cat([angles.cos()] * 2, 1), torch.cat([-angles.sin(), angles.sin()], 1)
    qkv = torch.randn(3, (HEADS + 2 * KV_HEADS) * WIDTH)
    positions, places = torch.tensor([0, 17, 5]), torch.tensor([35, 0, -1])
    before = pool.clone()
    q = fused.rotate_and_write(qkv, cos, sin, positions, pool, 1, places)
    heads = qkv.view(3, -1, WIDTH)
    for row, position in enumerate(positions.tolist()):
        pairs = torch.complex(heads[row, :, : WIDTH // 2], heads[row, :, WIDTH // 2 :])
        turned = pairs * torch.polar(torch.ones(4), angles[position])
        expected = torch.cat([turned.real, turned.imag], 1)
        torch.testing.assert_close(q[row], expected[:HEADS])
        place = int(places[row])
        if place >= 0:
            torch.testing.assert_close(pool[1, 0].flatten(0, 1)[place], expected[HEADS : HEADS + KV_HEADS])
            assert torch.equal(pool[1, 1].flatten(0, 1)[place], heads[row, HEADS + KV_HEADS :])
    kept = [i for i in range(PAGES * PAGE) if i not in (35, 0)]
    assert torch.equal(pool[1].flatten(1, 2)[:, kept], before[1].flatten(1, 2)[:, kept])


def test_norm_and_gate() -> None:
    x, residual, weight = torch.randn(3, 10), torch.randn(3, 10), torch.rand(10)
    normed, total = fused.add_rms_norm(x, residual, weight, 1e-5)
    torch.testing.assert_close(total, x + residual)
    expected = total / (total.square().mean(1, keepdim=True) + 1e-5).sqrt() * weight
    torch.testing.assert_close(normed, expected)
    alone, same = fused.add_rms_norm(x, None, weight, 1e-5)
    assert torch.equal(same, x)
    torch.testing.assert_close(alone, x / (x.square().mean(1, keepdim=True) + 1e-5).sqrt() * weight)
    torch.testing.assert_close(fused.silu_mul(x), x[:, :5] * torch.sigmoid(x[:, :5]) * x[:, 5:])


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("with_norm", [False, True])
def test_linear_adds_up_what_it_is_given(with_bias: bool, with_residual: bool, with_norm: bool) -> None:
    x, weight = torch.randn(3, 10), torch.randn(6, 10)
    bias = torch.randn(6) if with_bias else None
    residual = torch.randn(3, 6) if with_residual else None
    norm = torch.rand(10) if with_norm else None
    got = linear.small(x, weight, bias, norm=norm, eps=1e-5, residual=residual)
    first = x if norm is None else x / (x.square().mean(1, keepdim=True) + 1e-5).sqrt() * norm
    expected = first @ weight.T + (0 if bias is None else bias) + (0 if residual is None else residual)
    torch.testing.assert_close(got, expected)
    gate, up = (first @ weight.T).chunk(2, 1)
    torch.testing.assert_close(
        linear.gated(x, weight, norm=norm, eps=1e-5), gate * torch.sigmoid(gate) * up, atol=1e-5, rtol=1e-5
    )


def test_a_norm_that_is_there_is_not_made_again() -> None:
    x, weight, residual, norm = torch.randn(3, 10), torch.randn(8, 10), torch.randn(3, 8), torch.rand(8)
    out, normed = linear.added(x, weight, residual=residual, norm=norm, eps=1e-5)
    torch.testing.assert_close(out, residual + x @ weight.T)
    known = torch.nn.functional.rms_norm(out, (8,), norm, 1e-5)
    if normed is not None:  # a CPU leaves it to the next product
        torch.testing.assert_close(normed, known)
    following = torch.randn(6, 8)
    for product in (linear.small, linear.gated):
        expected = product(out, following, norm=norm, eps=1e-5)
        torch.testing.assert_close(product(out, following, norm=norm, normed=known, eps=1e-5), expected)


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("biased", [False, True])
def test_a_product_in_parts_is_added_up_where_it_is_turned(splits: int, biased: bool) -> None:
    rows, outputs = 5, (HEADS + 2 * KV_HEADS) * WIDTH
    bias = torch.randn(outputs) if biased else None
    sums = Sums(torch.randn(splits, rows, outputs), bias, torch.float32)
    whole = sums.parts.sum(0) + (0 if bias is None else bias)
    angles = torch.rand(30, WIDTH // 2)
    cos, sin = torch.cat([angles.cos()] * 2, 1), torch.cat([-angles.sin(), angles.sin()], 1)
    positions, places = torch.tensor([0, 29, 3, 4, 5]), torch.tensor([7, -1, 35, 0, 12])
    pools = make_pool(), make_pool()
    got, expected = (
        fused.rotate_and_write(source, cos, sin, positions, pool, 1, places)
        for source, pool in zip((sums, whole), pools, strict=True)
    )
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(*pools)
    assert Sums(sums.parts, bias, torch.bfloat16).whole().dtype == torch.bfloat16


def test_on_a_cpu_queries_keys_and_values_come_whole() -> None:
    x, weight, bias, norm = torch.randn(3, 10), torch.randn(8, 10), torch.randn(8), torch.rand(10)
    got = linear.joined(x, weight, bias, norm=norm, eps=1e-5)
    assert isinstance(got, Tensor)
    torch.testing.assert_close(got, linear.small(x, weight, bias, norm=norm, eps=1e-5))
    normed = torch.nn.functional.rms_norm(x, (10,), norm, 1e-5)
    torch.testing.assert_close(linear.joined(x, weight, bias, norm=norm, normed=normed), got)


# Sampling. Rows of a case are drawn one by one here, with Python's own sort and fractions of whole numbers.


def slow_choice(
    values: list[float],
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    penalty: float = 1.0,
    seen: tuple[int, ...] = (),
    allowed: tuple[int, ...] | None = None,
    uniform: float = 0.0,
) -> tuple[int, bool]:
    scores = torch.tensor(values)
    for i in seen:
        scores[i] = scores[i] * penalty if scores[i] < 0 else scores[i] / penalty
    ids = list(range(len(values)) if allowed is None else allowed)
    if any(math.isnan(scores[i]) or scores[i] == math.inf for i in ids):
        return 0, False
    ranked = sorted((i for i in ids if scores[i] > -math.inf), key=lambda i: (-float(scores[i]), i))
    if not ranked:
        return 0, False
    if temperature < sample.COLD:
        return ranked[0], True
    ranked = ranked[: top_k or None]
    relative = torch.exp((scores - scores[ranked[0]]) / torch.tensor(temperature))
    weight = {i: int(float(relative[i]) * 2**40) for i in ranked}
    total, kept, better = sum(weight.values()), [], 0
    for i in ranked:
        if top_p >= 1.0 or better < float(torch.tensor(top_p)) * total:
            kept.append(i)
        better += weight[i]
    target, running = int(uniform * sum(weight[i] for i in kept)), 0
    for i in sorted(kept):
        running += weight[i]
        if running > target:
            return i, True
    raise AssertionError("the weights do not add up")


def choose(rows: list[dict], width: int) -> list[tuple[int, bool]]:
    """All rows at once, row i under mask i."""
    masks = torch.zeros(len(rows), width, dtype=torch.bool)
    seen = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        masks[i, list(row["allowed"]) if row.get("allowed") is not None else slice(None)] = True
        seen[i, list(row.get("seen", ()))] = True

    def column(name: str, default: float, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.tensor([row.get(name, default) for row in rows], dtype=dtype)

    scores = torch.tensor([row["values"] for row in rows])
    before = scores.clone()
    owners = torch.arange(len(rows)).flip(0) + 2  # each row's set stands elsewhere, between sets of nobody
    held = torch.ones(len(rows) + 3, width, dtype=torch.bool)
    held[owners] = seen
    ids, ok = sample.choose(
        scores,
        temperature=column("temperature", 1.0),
        top_p=column("top_p", 1.0),
        top_k=column("top_k", 0, torch.int32),
        penalty=column("penalty", 1.0),
        seen=held,
        owners=owners,
        masks=masks,
        allowed=torch.arange(len(rows), dtype=torch.int32),
        uniform=column("uniform", 0.0),
    )
    assert torch.equal(scores.nan_to_num(7.0), before.nan_to_num(7.0)), "the scores are not changed"
    assert ids.dtype == torch.int64
    return list(zip(ids.tolist(), ok.tolist(), strict=True))


@st.composite
def row_of(draw: st.DrawFn, width: int) -> dict:
    number = st.one_of(st.integers(-8, 8).map(float), st.floats(-30, 30, width=32))
    odd = draw(st.sampled_from([(), (), (), (-math.inf,), (math.nan,), (math.inf,)]))
    values = draw(st.lists(number, min_size=width, max_size=width))
    for value in odd:
        values[draw(st.integers(0, width - 1))] = value
    ids = st.integers(0, width - 1)
    return {
        "values": values,
        "temperature": draw(st.sampled_from([0.0, 1e-6, 0.2, 0.7, 1.0, 3.0])),
        "top_p": draw(st.sampled_from([1e-6, 0.1, 0.5, 0.9, 0.999, 1.0])),
        "top_k": draw(st.integers(0, width + 2)),
        "penalty": draw(st.sampled_from([1.0, 1.05, 2.0, 0.5])),
        "seen": tuple(draw(st.sets(ids))),
        "allowed": draw(st.one_of(st.none(), st.sets(ids).map(tuple))),
        "uniform": draw(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1 - 2**-24])),
    }


@settings(max_examples=200, deadline=None)
@given(data=st.data(), width=st.integers(1, 14), count=st.integers(1, 4))
def test_choice_equals_a_slow_reference(data: st.DataObject, width: int, count: int) -> None:
    rows = [data.draw(row_of(width)) for _ in range(count)]
    assert choose(rows, width) == [slow_choice(**row) for row in rows]


def test_a_flat_row_longer_than_the_first_look() -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(3000, generator=generator).mul(40).round().div(40).tolist()  # many equal scores
    rows = [
        {"values": values, "top_p": top_p, "top_k": top_k, "uniform": uniform}
        for top_p in (0.3, 0.97, 1.0)
        for top_k in (0, 700)
        for uniform in (0.1, 0.9)
    ]
    assert choose(rows, 3000) == [slow_choice(**row) for row in rows]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"values": [1.0, 2.0, 3.0], "allowed": ()}, (0, False)),
        ({"values": [1.0, 2.0, 3.0], "allowed": (1,), "uniform": 0.99}, (1, True)),
        ({"values": [math.nan, 2.0, 3.0]}, (0, False)),
        ({"values": [math.nan, 2.0, math.inf], "allowed": (1,)}, (1, True)),
        ({"values": [-math.inf] * 3}, (0, False)),
        ({"values": [-math.inf, -math.inf, -5.0], "temperature": 0.0}, (2, True)),
        ({"values": [1.0, 3.0, 3.0], "temperature": 0.0}, (1, True)),
        ({"values": [1.0, 3.0, 3.0], "top_p": 1e-9, "uniform": 0.99}, (1, True)),
        ({"values": [1.0, 3.0, 3.0], "top_k": 1, "uniform": 0.99}, (1, True)),
        ({"values": [3.0, 3.0, 3.0], "top_p": 0.5, "uniform": 0.99}, (1, True)),
        ({"values": [2.0, 1.9, 0.0], "penalty": 1.1, "seen": (0,), "temperature": 0.0}, (1, True)),
        ({"values": [-2.0, -2.1, -9.0], "penalty": 1.1, "seen": (0,), "temperature": 0.0}, (1, True)),
        ({"values": [1e30, -1e30, 0.0], "temperature": 0.0001, "uniform": 0.99}, (0, True)),
    ],
)
def test_edges_of_sampling(row: dict, expected: tuple[int, bool]) -> None:
    assert choose([row], 3) == [expected]


def test_the_draw_follows_the_weights() -> None:
    count = 2000
    uniforms = (torch.arange(count) + 0.5) / count
    values = torch.tensor([0.5, 0.3, 0.2]).log().tolist()
    drawn = [i for i, _ in choose([{"values": values, "uniform": float(u)} for u in uniforms], 3)]
    assert [drawn.count(i) for i in range(3)] == [1000, 600, 400]
