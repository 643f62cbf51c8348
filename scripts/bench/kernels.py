"""Holds the Triton kernels of the language model to their torch twins, and times them.

    python scripts/bench/kernels.py             both, on a CUDA device
    python scripts/bench/kernels.py --check     correctness only
    TRITON_INTERPRET=1 python scripts/bench/kernels.py --check     the same on small shapes without a GPU
    python scripts/bench/kernels.py --check --only joined sample   some of it (fused, linear, joined, paged, sample)

Times are medians of replayed CUDA graphs over rotating copies of the weights, so that nothing comes from the cache; the
bandwidth of a plain read in the same run is the ceiling they are compared with.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from voiceagent.models.step_audio2.kernels import fused, linear, paged, sample
from voiceagent.models.step_audio2.kernels.gpu import choices
from voiceagent.models.step_audio2.kernels.gpu import fused as gpu_fused
from voiceagent.models.step_audio2.kernels.gpu import linear as gpu_linear
from voiceagent.models.step_audio2.kernels.gpu import paged as gpu_paged
from voiceagent.models.step_audio2.kernels.gpu import sample as gpu_sample
from voiceagent.models.step_audio2.kernels.gpu.choices import Joined, Sampling, Tile
from voiceagent.models.step_audio2.kernels.sums import Sums

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPE = torch.float32 if INTERPRETED else torch.bfloat16
HIDDEN, MLP, HEADS, KV_HEADS, WIDTH, VOCABULARY, PAGE = 3584, 18944, 28, 4, 128, 158720, 64


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="correctness only")
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS), help="of the checks")
    options = parser.parse_args()
    torch.manual_seed(0)
    if not INTERPRETED and not torch.cuda.is_available():
        sys.exit("No CUDA device; set TRITON_INTERPRET=1 and use --check.")
    for name in options.only:
        began = time.monotonic()
        CHECKS[name]()
        print(json.dumps({"fine": name, "seconds": round(time.monotonic() - began, 1)}), flush=True)
    if not options.check and not INTERPRETED:
        measure()


# Correctness ---------------------------------------------------------------------------------------------------------


def noise(*shape: int, dtype: torch.dtype = DTYPE) -> Tensor:
    return torch.randn(*shape, device=DEVICE, dtype=torch.float32).to(dtype)


def close(got: Tensor, exact: Tensor, what: str) -> None:
    """Fails if the error is more than rounding to got's dtype explains; `exact` comes in float64."""
    assert got.isfinite().all(), f"{what}: not finite"
    error = float((got.double() - exact).norm() / exact.norm())
    limit = 4e-3 if got.dtype == torch.bfloat16 else 2e-6
    assert error < limit, f"{what}: relative error {error:.2e}"


def check_fused() -> None:
    for rows, width in ((1, 3584), (5, 384), (64, 3584)) if not INTERPRETED else ((2, 384),):
        x, residual, weight = noise(rows, width), noise(rows, width), noise(width)
        for other in (residual, None):
            normed, total = gpu_fused.add_rms_norm(x, other, weight, 1e-6)
            assert torch.equal(total, fused.add_rms_norm_torch(x, other, weight, 1e-6)[1])
            exact = fused.add_rms_norm_torch(total.double(), None, weight.double(), 1e-6)[0]
            close(normed, exact, f"norm {rows}x{width}")
        close(gpu_fused.silu_mul(x), fused.silu_mul_torch(x.double()), "silu_mul")
    for rows, heads, kv_heads, width in ((3, 28, 4, 128), (2, 6, 2, 64)):
        qkv = noise(rows, (heads + 2 * kv_heads) * width)
        angles = torch.arange(500, device=DEVICE)[:, None] * torch.logspace(0, -4, width // 2, device=DEVICE)
        cos = torch.cat([angles.cos()] * 2, 1).to(DTYPE)
        sin = torch.cat([-angles.sin(), angles.sin()], 1).to(DTYPE)
        pools = [noise(2, 2, 5, PAGE, kv_heads, width)]
        pools.append(pools[0].double())
        positions = torch.tensor([0, 499, 77], device=DEVICE)[:rows]
        places = torch.tensor([200, -1, 64], device=DEVICE)[:rows]
        q = gpu_fused.rotate_and_write(qkv, cos, sin, positions, pools[0], 1, places)
        exact = fused.rotate_and_write_torch(
            qkv.double(), cos.double(), sin.double(), positions, pools[1], 1, places
        )
        close(q, exact, "rotated queries")
        close(pools[0], pools[1], "rotated pages")
        keys, values = noise(2, rows, kv_heads, width).unbind(0)
        gpu_paged.write(keys, values, pools[0], 0, places)
        paged.write_torch(keys.double(), values.double(), pools[1], 0, places)
        close(pools[0], pools[1], "written pages")


def check_linear() -> None:
    shapes = (
        ((6, 40), (200, 384)) if INTERPRETED else ((4608, 3584), (3584, 18944), (9000, 384), (1024, 1024))
    )
    for outputs, inputs in shapes:
        weight, bias, norm = noise(outputs, inputs), noise(outputs), noise(inputs)
        for rows in (1, 2, 5) if INTERPRETED else (1, 2, 7, 16, 64):
            x, residual = noise(rows, inputs), noise(rows, outputs)
            wide = [t.double() for t in (x, weight, bias, norm, residual)]
            got = gpu_linear.small(x, weight, bias)
            close(got, linear.small_torch(*wide[:3]), f"linear {rows} {outputs}x{inputs}")
            got = gpu_linear.small(x, weight, norm=norm, residual=residual)
            exact = linear.small_torch(wide[0], wide[1], norm=wide[3], residual=wide[4])
            close(got, exact, f"norm, linear, residual {rows} {outputs}x{inputs}")
            check_added(x, weight, residual, norm=noise(outputs))
            if rows <= 16:
                tile = Tile(16, 64, 4, 2, splits=3)
                got = gpu_linear.streamed(x, weight, tile, bias=bias, norm=norm, residual=residual)
                close(got, linear.small_torch(*wide[:3], norm=wide[3], residual=wide[4]), "split linear")
                got = gpu_linear.streamed(x, weight, tile, gate=True)
                close(got, linear.gated_torch(*wide[:2]), "split gated")
            got = gpu_linear.gated(x, weight, norm=norm)
            close(got, linear.gated_torch(wide[0], wide[1], norm=wide[3]), f"gated {rows} {outputs}x{inputs}")


def check_added(x: Tensor, weight: Tensor, residual: Tensor, *, norm: Tensor) -> None:
    """As the product, and the norm of what it returns, if it returns one."""
    out, normed = gpu_linear.added(x, weight, residual=residual, norm=norm)
    assert torch.equal(out, gpu_linear.small(x, weight, residual=residual))
    if normed is not None:
        close(normed, fused.add_rms_norm_torch(out.double(), None, norm.double(), 1e-6)[0], "norm behind it")


# Tiles, heads and rows for which the parts of a product are added up by the pass that rotates.
JOINED_TILES = tuple(
    Tile(*cut) for cut in ((64, 64, 4, 4, 3), (128, 128, 4, 4, 4), (32, 128, 4, 3), (64, 64, 4, 2, 7))
)
JOINED_HEADS = ((28, 4, 128, HIDDEN), (6, 2, 64, 384), (5, 5, 32, 200), (1, 1, 16, 24))
JOINED_ROWS = (1, 2, 3, 8, 16, 17, 31, 33, 64)


def check_joined() -> None:
    """The product in parts, and its bias, rotation and storing in one pass, as the three one after the other."""
    heads = JOINED_HEADS if not INTERPRETED else ((28, 4, 128, 96), *JOINED_HEADS[1:])
    for at, shape in enumerate(heads):
        for number, rows in enumerate(JOINED_ROWS):
            tiles = (JOINED_TILES[(at + number) % 4],)
            for tile in tiles if rows > 1 else (Tile(8, 64, 4, 2), Tile(8, 64, 4, 2, splits=3)):
                check_joined_by(tile, rows, *shape)


def check_joined_by(
    tile: Tile, rows: int, heads: int, kv_heads: int, width: int, hidden: int, *, turned: bool = True
) -> None:
    outputs, what = (
        (heads + 2 * kv_heads) * width,
        f"joined {rows}x{hidden}, {heads}/{kv_heads} heads, {tile}",
    )
    x, weight, bias, norm = noise(rows, hidden), noise(outputs, hidden), noise(outputs), noise(hidden)
    angles = torch.arange(500, device=DEVICE)[:, None] * torch.logspace(0, -4, width // 2, device=DEVICE)
    cos = torch.cat([angles.cos()] * 2, 1).float()
    sin = torch.cat([-angles.sin(), angles.sin()], 1).float()
    pool = noise(2, 2, 5, PAGE, kv_heads, width)
    exact_pool = pool.double()
    positions = torch.randint(0, 500, (rows,), device=DEVICE)
    places = torch.randperm(5 * PAGE, device=DEVICE)[:rows]
    places[rows // 2] = -1  # an idle row
    for some_norm, some_bias in ((norm, bias), (None, None)):
        with choices.using(joined=((64, Joined(tile, turned)),)):
            sums = gpu_linear.joined(x, weight, some_bias, norm=some_norm)
        assert isinstance(sums, Sums) == turned, what
        q = gpu_fused.rotate_and_write(sums, cos, sin, positions, pool, 1, places)
        wide = [None if t is None else t.double() for t in (some_bias, some_norm)]
        exact = linear.small_torch(x.double(), weight.double(), wide[0], norm=wide[1])
        exact_q = fused.rotate_and_write_torch(
            exact, cos.double(), sin.double(), positions, exact_pool, 1, places
        )
        close(q, exact_q, f"{what}: queries")
        close(pool, exact_pool, f"{what}: pages")
        assert q.dtype == x.dtype


def check_paged() -> None:
    for heads, kv_heads, width in ((28, 4, 128), (6, 2, 64)):
        pages, most = (12, 5) if INTERPRETED else (700, 256)
        pool = noise(2, 2, pages, PAGE, kv_heads, width)
        lengths = [0, 1, 64, 65, 300] if INTERPRETED else [0, 1, 64, 65, 300, 2048, 5000, 16384, 777]
        tables = torch.full((len(lengths), most), -1, dtype=torch.int32, device=DEVICE)
        for row, length in enumerate(lengths):
            used = -(-length // PAGE)
            tables[row, :used] = torch.randperm(pages)[:used].to(DEVICE)
        for batch in (1, len(lengths)):
            chosen = slice(len(lengths) - batch, None)
            q = noise(batch, heads, width)
            counts = torch.tensor(lengths, dtype=torch.int32, device=DEVICE)[chosen]
            exact = paged.decode_attention_torch(q.double(), pool.double(), 1, tables[chosen], counts)
            for splits in (None, 1, 4):
                got = gpu_paged.decode_attention(q, pool, 1, tables[chosen], counts, splits=splits)
                close(got, exact, f"attention of {batch}, {splits} splits")
                assert not got[counts == 0].any()


def sampling_case(rows: int, vocabulary: int, *, spread: float, coarse: bool) -> dict[str, Tensor]:
    scores = noise(rows, vocabulary, dtype=torch.float32) * spread
    if coarse:
        scores = scores.bfloat16()
    pick = torch.arange(rows, device=DEVICE)
    masks = torch.ones(3, vocabulary, dtype=torch.bool, device=DEVICE)
    masks[1, : vocabulary // 2] = False
    masks[2] = False
    masks[2, 17] = True
    options = torch.tensor(
        [
            (0.7, 0.9, 50),
            (0.0, 0.9, 0),
            (1.0, 0.95, 0),
            (1.3, 1.0, 0),
            (0.7, 0.3, 2000),
            (1.0, 1.0, 3),
            (1.0, 1e-6, 0),
        ]
    ).to(DEVICE)[pick % 7]
    return {
        "scores": scores,
        "temperature": options[:, 0].contiguous(),
        "top_p": options[:, 1].contiguous(),
        "top_k": options[:, 2].int(),
        "penalty": torch.tensor([1.05, 1.0, 1.3, 0.8, 1.05], device=DEVICE)[pick % 5],
        "seen": torch.rand(rows + 3, vocabulary, device=DEVICE) < 0.02,
        "owners": torch.randperm(rows + 3, device=DEVICE)[:rows],
        "masks": masks,
        "allowed": torch.where(pick % 11 == 9, 2, pick % 2).int(),
        "uniform": torch.rand(rows, device=DEVICE),
    }


SAMPLINGS = (Sampling(), Sampling(late=True, pivots=8), Sampling(late=True, pivots=4, long_block=16384))


def check_sample() -> None:
    """Equal draws; one that differs must have fallen on the rounding of an exponential."""
    for sampling in SAMPLINGS[: 2 if INTERPRETED else 3]:
        with choices.using(sampling=((1 << 30, sampling),)):
            check_draws()
            check_broken_rows()
        print(f"  {sampling}: fine", flush=True)


def check_draws() -> None:
    rows, sizes = (7, (40, 3000)) if INTERPRETED else (128, (40, 15000, VOCABULARY))
    differing = drawn = 0
    for vocabulary in sizes:
        for spread, coarse in ((0.0, False), (0.02, False), (1.0, True), (3.0, False), (8.0, True)):
            case = sampling_case(rows, vocabulary, spread=spread, coarse=coarse)
            ids, ok = gpu_sample.choose(**case)
            expected, fine = sample.choose_torch(**case)
            assert ok.all()
            assert fine.all()
            again, _ = gpu_sample.choose(**case)
            assert torch.equal(ids, again), "two runs differ"
            differing += int((ids != expected).sum())
            drawn += rows
    assert differing <= drawn * 0.002, f"{differing} of {drawn} draws differ from the twin's"
    print(f"  {differing} of {drawn} draws differ from the twin's")


def check_broken_rows() -> None:
    case = sampling_case(6, 100, spread=1.0, coarse=False)
    case["allowed"].zero_()
    case["scores"][0, 3] = torch.nan
    case["scores"][1, 3] = torch.inf
    case["scores"][2] = -torch.inf
    case["scores"][3, 1:] = -torch.inf
    case["allowed"][4] = 2
    case["scores"][4, 3] = torch.nan
    ids, ok = gpu_sample.choose(**case)
    assert ok.tolist() == [False, False, False, True, True, True]
    assert ids[:5].tolist() == [0, 0, 0, 0, 17]


# Times ---------------------------------------------------------------------------------------------------------------


def replayed(*calls: Callable[[], object], repeats: int = 15) -> float:
    """Seconds per call of a captured sequence, median over replays."""
    return timed(captured(*calls), repeats=repeats) / len(calls)


def captured(*calls: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """The calls as a graph, after each has run once."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in calls:
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return graph


def timed(graph: torch.cuda.CUDAGraph, *, repeats: int) -> float:
    """Seconds of a replay, their median."""
    times: list[float] = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times)


def measure() -> None:
    ceiling = copy_speed()
    print(f"plain copy: {ceiling:.2f} TB/s")
    for batch, context in ((1, 512), (1, 2048), (8, 2048), (16, 2048), (32, 2048), (64, 2048), (128, 2048)):
        measure_step(ceiling, batch=batch, context=context)
    measure_attention(ceiling)
    measure_sampling()
    measure_linear(ceiling)


def copy_speed() -> float:
    """TB/s read and written by a plain copy."""
    source = torch.zeros(2**30, device=DEVICE, dtype=torch.bfloat16)
    target = torch.empty_like(source)
    return (
        2 * source.nbytes / replayed(lambda: torch.neg(source, out=target)) / 1e12
    )  # a captured copy_ is a slow DMA


def measure_linear(ceiling: float) -> None:
    print("linear, us and share of the ceiling: Triton | torch")
    shapes = {
        "qkv": (4608, HIDDEN),
        "o": (HIDDEN, HIDDEN),
        "gate_up": (2 * MLP, HIDDEN),
        "down": (HIDDEN, MLP),
    }
    for name, (outputs, inputs) in (shapes | {"head": (VOCABULARY, HIDDEN)}).items():
        weights = [noise(outputs, inputs) for _ in range(max(2, 2**29 // (2 * outputs * inputs)))]
        for rows in (1, 4, 16, 32, 64, 128):
            x, line = noise(rows, inputs), ""
            tile = choices.of(choices.now().added, rows)
            ways: list[Callable[[Tensor, Tensor], Tensor]] = [F.linear]
            if tile is not None:
                ways.insert(0, partial(gpu_linear.streamed, tile=tile))
            for way in ways:
                seconds = replayed(*[partial(way, x, weight) for weight in weights])
                line += f"  {seconds * 1e6:6.1f} {weights[0].nbytes / seconds / 1e12 / ceiling:4.0%}"
            print(f"  {name:8s} {rows:3d}{line}")


def measure_attention(ceiling: float) -> None:
    print("attention, us and share of the ceiling")
    for batch, context in ((1, 512), (1, 2048), (1, 16384), (8, 2048), (64, 2048), (128, 2048), (16, 16384)):
        used = -(-context // PAGE)
        pool = noise(4, 2, batch * used, PAGE, KV_HEADS, WIDTH)
        tables = torch.randperm(batch * used, device=DEVICE, dtype=torch.int32).view(batch, used)
        lengths = torch.full((batch,), context, dtype=torch.int32, device=DEVICE)
        q = noise(batch, HEADS, WIDTH)
        calls = [partial(gpu_paged.decode_attention, q, pool, i, tables, lengths) for i in range(4)]
        seconds = replayed(*calls)
        share = batch * context * KV_HEADS * WIDTH * 4 / seconds / 1e12 / ceiling
        print(f"  batch {batch:3d} context {context:5d}  {seconds * 1e6:6.1f} {share:4.0%}")


def usual_sampling(batch: int, *, spread: float = 3.0, top_k: int = 50) -> dict[str, Tensor]:
    """The published settings for every row, over the whole vocabulary."""
    case = sampling_case(batch, VOCABULARY, spread=spread, coarse=True)
    case["temperature"].fill_(0.7)
    case["top_p"].fill_(0.9)
    case["top_k"].fill_(top_k)
    case["penalty"].fill_(1.05)
    case["allowed"].zero_()
    return case


def measure_sampling() -> None:
    print("sampling, us; scores' spread 1 and 5, top-k 50 and none")
    for batch in (1, 8, 64, 128):
        line = ""
        for spread, top_k in ((1.0, 50), (1.0, 0), (5.0, 50), (5.0, 0)):
            case = usual_sampling(batch, spread=spread, top_k=top_k)
            line += f"  {replayed(partial(gpu_sample.choose, **case)) * 1e6:6.1f}"
        print(f"  batch {batch:3d}{line}")


def measure_step(ceiling: float, *, batch: int, context: int) -> None:
    step, bytes_read = step_of(batch=batch, context=context)
    seconds = replayed(step)
    print(
        f"step, batch {batch:3d} context {context:5d}: {seconds * 1e3:5.2f} ms, "
        f"{bytes_read / seconds / 1e12 / ceiling:4.0%} of the ceiling",
        flush=True,
    )


def step_of(*, batch: int, context: int) -> tuple[Callable[[], object], int]:
    """A whole decode step of 28 layers, head and draw, on noise of the true shape; and the bytes that it reads."""
    if not _layers:
        _layers.extend(noisy_layers())
    used = -(-context // PAGE)
    pool = torch.zeros(len(_layers) - 1, 2, batch * used, PAGE, KV_HEADS, WIDTH, device=DEVICE, dtype=DTYPE)
    tables = torch.arange(batch * used, device=DEVICE, dtype=torch.int32).view(batch, used)
    lengths = torch.full((batch,), context, dtype=torch.int32, device=DEVICE)
    places = (tables[:, -1].long() + 1) * PAGE - 1
    angles = torch.arange(context, device=DEVICE)[:, None] * torch.logspace(0, -6, WIDTH // 2, device=DEVICE)
    cos = torch.cat([angles.cos()] * 2, 1).to(DTYPE)
    sin = torch.cat([-angles.sin(), angles.sin()], 1).to(DTYPE)
    first, case = noise(batch, HIDDEN), usual_sampling(batch)
    positions = lengths.long() - 1

    def step() -> Tensor:
        x, normed = first, None
        for layer, (qkv, bias, o, gate_up, down, norms) in enumerate(_layers[:-1]):
            mixed = gpu_linear.joined(
                x if normed is None else normed, qkv, bias, norm=norms[0] if normed is None else None
            )
            q = gpu_fused.rotate_and_write(mixed, cos, sin, positions, pool, layer, places)
            mixed = gpu_paged.decode_attention(q, pool, layer, tables, lengths)
            x, normed = gpu_linear.added(mixed.flatten(1), o, residual=x, norm=norms[1])
            mixed = gpu_linear.gated(
                x if normed is None else normed, gate_up, norm=norms[1] if normed is None else None
            )
            x, normed = gpu_linear.added(mixed, down, residual=x, norm=norms[0])
        case["scores"] = gpu_linear.small(x, _layers[-1][0], norm=_layers[0][5][0])
        return gpu_sample.choose(**case)[0]

    return step, sum(part.nbytes for parts in _layers for part in parts) + pool.nbytes


def noisy_layers(count: int = 28) -> list[list[Tensor]]:
    """Of each layer the matrices, a bias and two norms; and the output matrix."""
    outputs = (HEADS + 2 * KV_HEADS) * WIDTH
    shapes: list[tuple[int, ...]] = [(outputs, HIDDEN), (outputs,), (HIDDEN, HEADS * WIDTH)]
    shapes += [(2 * MLP, HIDDEN), (HIDDEN, MLP), (2, HIDDEN)]

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, device=DEVICE, dtype=DTYPE).mul_(0.02)

    return [*([some(*shape) for shape in shapes] for _ in range(count)), [some(VOCABULARY, HIDDEN)]]


_layers: list[list[Tensor]] = []  # made once, by the first step

CHECKS = {
    "fused": check_fused,
    "linear": check_linear,
    "joined": check_joined,
    "paged": check_paged,
    "sample": check_sample,
}


if __name__ == "__main__":
    with torch.inference_mode():
        main()
