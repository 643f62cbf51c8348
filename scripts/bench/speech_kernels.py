"""Compares Token2Wav's Triton kernels with their torch twins, and fails where they differ.

    python3 scripts/bench/speech_kernels.py

Runs on a GPU; without one, in Triton's interpreter: TRITON_INTERPRET=1 python3 scripts/bench/speech_kernels.py
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from voiceagent.models.step_audio2 import hift_net, t2w_noise, t2w_triton, t2w_triton_speech
from voiceagent.models.step_audio2 import t2w_ops as ops
from voiceagent.models.step_audio2.conformer import relative_shift
from voiceagent.models.step_audio2.t2w_pool import Place, Places

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
HALF = torch.float16
WIDTH, SIZE = (512, 64) if DEVICE.type == "cuda" else (128, 64)
HEADS = WIDTH // SIZE
STREAMS, FRAMES, SLOTS = 3, 26, 4
ROWS = 2 * STREAMS
TOLERANCE = 3e-3


class Room:
    """What `Place.row` asks of a pool."""

    token_prompts, frame_prompts, stride = 1, (SLOTS + 1) * 100, 2


PLACES = (Place(0, 0, 13, 16, 30, 0), Place(3, 45, 12, 15, 20, 35), Place(1, 77, 5, 5, 30, 0))
MEMORY = Room.frame_prompts + 2 * 60


def random(*shape: int, dtype: torch.dtype = HALF, scale: float = 1.0) -> Tensor:
    return (torch.randn(*shape) * scale).to(DEVICE, dtype)


def affine(outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
    return random(outputs, inputs, scale=inputs**-0.5), random(outputs, scale=0.1)


def wide(*parts: Tensor) -> tuple[Tensor, ...]:
    return tuple(part.float() for part in parts)


def agree(name: str, ours: Tensor, theirs: Tensor, *, tolerance: float = TOLERANCE) -> None:
    ours, theirs = ours.float(), theirs.float()
    error = ((ours - theirs).norm() / theirs.norm()).item()
    print(f"  {name:14s} {error:.1e}")
    assert error <= tolerance, name


def check_dit() -> None:
    """Every part of a block against torch in float32."""
    gpu = t2w_triton
    places = Places(torch.tensor([place.row(Room) for place in PLACES]).to(DEVICE), 2)  # type: ignore[arg-type]
    slots = places.column("slot").contiguous()
    base = random(ROWS, FRAMES, WIDTH, dtype=torch.float32)
    shift, scale, gate = (random(WIDTH, dtype=torch.float32, scale=0.5) for _ in range(3))
    memory, tails = random(2, MEMORY, 2, HEADS, SIZE), random(SLOTS + 1, 2, 2, WIDTH)
    x, x4 = random(ROWS, FRAMES, WIDTH), random(ROWS, FRAMES, 4 * WIDTH)

    shared = random(1, STREAMS, FRAMES, WIDTH)
    for update, by in (
        (None, None),
        (shared, None),
        (random(3, ROWS, FRAMES, WIDTH, dtype=torch.float32), gate),
    ):
        (r1, r2), (o1, o2) = (base.clone(), base.clone()), (x.clone(), base.clone())
        gpu.add_norm(r1, update, by, shift, scale, r1, o1)
        ops.add_norm(r2, None if update is None else update.float(), by, shift, scale, residual=r2, out=o2)
        agree("add_norm", o1, o2)
        agree("its residual", r1, r2)
    weights, heads = affine(3 * WIDTH, WIDTH), (random(2, SIZE), random(2, SIZE))
    q1 = random(ROWS, FRAMES, 3, HEADS, SIZE)
    q2 = q1.float()
    gpu.project(x, weights, heads, q1)
    ops.project(x.float(), wide(*weights), wide(*heads), q2)  # type: ignore[arg-type]
    agree("project", q1, q2)
    seen = gpu.attend(q1, memory, places), ops.attend(q1.float(), memory.float(), places)
    for b, place in enumerate(PLACES):
        agree("attend", *(y[2 * b : 2 * b + 2, : 2 * place.new] for y in seen))
    for source, outputs in ((x, WIDTH), (x4, WIDTH), (x, 80)):
        weights = affine(outputs, source.shape[2])
        parts = gpu.linear(source, weights)
        whole = ops.linear(source.float(), wide(*weights))[0]  # type: ignore[arg-type]
        agree(f"linear, {len(parts)} parts", parts.sum(0), whole)
    taps = random(WIDTH, 3, WIDTH, scale=WIDTH**-0.5).transpose(0, 1), random(WIDTH, scale=0.1)
    parts = gpu.convolve(x, taps, tails, slots)
    whole = ops.convolve(x.float(), wide(*taps), tails.float(), slots)[0]  # type: ignore[arg-type]
    agree(f"convolve, {len(parts)} parts", parts.sum(0), whole)
    norm = (random(WIDTH), random(WIDTH))
    o1, o2 = x.clone(), x.float()
    gpu.mish(parts, norm, o1)
    ops.mish(parts.float(), wide(*norm), o2)  # type: ignore[arg-type]
    agree("mish", o1, o2)
    weights = affine(4 * WIDTH, WIDTH)
    agree("expand", gpu.expand(x, weights), ops.expand(x.float(), wide(*weights)))  # type: ignore[arg-type]
    x1 = random(STREAMS, FRAMES, 80, dtype=torch.float32)
    x2, velocity, rounded = x1.clone(), random(2, ROWS, FRAMES, 80, dtype=torch.float32), x1.to(HALF)
    gpu.euler(x1, velocity, 0.1, 0.7, rounded)
    ops.euler(x2, velocity, 0.1, 0.7, x2.clone())
    agree("euler", x1, x2)
    agree("its copy", rounded, x2)
    qkv, kept = random(2, ROWS, FRAMES, 3, HEADS, SIZE), random(2, 2, ROWS, FRAMES, WIDTH)
    m1, t1 = random(2, 2, MEMORY, 2, HEADS, SIZE), random(2, 2, SLOTS + 1, 2, 2, WIDTH)
    m2, t2 = m1.float(), t1.float()
    gpu.keep(qkv, kept, m1, t1, places)
    ops.keep(qkv.float(), kept.float(), m2, t2, places)
    agree("keep", m1, m2, tolerance=0.0)
    agree("its tails", t1, t2, tolerance=0.0)


def check_encoder() -> None:
    memory, own = random(2, 90, 64), random(3, 5, 4, 64)[:, :, 1:3]
    history = torch.randint(0, 90, (3, 11), device=DEVICE)
    past = memory.index_select(1, history.flatten()).view(2, 3, 11, 64)
    joined = torch.cat([past, own.permute(2, 0, 1, 3)], dim=2)
    agree("recall", t2w_triton_speech.recall(memory, history, own), joined, tolerance=0.0)
    scores, mask = random(3, 2, 5, 16 + 5), random(3, 16)
    placed = relative_shift(scores, 16) + mask[:, None, None]
    agree("place_bias", t2w_triton_speech.place_bias(scores, mask), placed, tolerance=1e-3)


def check_noise() -> None:
    seeds, first = torch.tensor([3, 2**40 + 7, 2**62 + 11]), torch.tensor([0, 77, 2**33])
    made = t2w_triton_speech.noise(seeds.to(DEVICE), first.to(DEVICE), 3000, lane=2).cpu()
    agree("noise", made, t2w_noise.noise(seeds, first, 3000, lane=2), tolerance=1e-4)


def check_vocoder() -> None:
    block = hift_net.ResBlock(64, 7).to(DEVICE).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for snake in (*block.activations1, *block.activations2):
        torch.nn.init.uniform_(snake.alpha, 0.5, 2.0)
    x = torch.randn(2, 64, 1, 9, device=DEVICE).to(memory_format=torch.channels_last)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        inside = (torch.arange(9, device=DEVICE) < torch.tensor([[9], [6]], device=DEVICE)).float()[
            :, None, None
        ]
        for name, mask in (("snake", None), ("its ends", inside)):
            given = x if mask is None else x * mask
            with torch.no_grad():
                plain = block(given, mask)  # the joined launches are for inference mode only
            with torch.inference_mode():
                agree(name, block._fused(given, mask), plain, tolerance=1e-4)


def main() -> None:
    torch.manual_seed(0)
    usual = t2w_triton.LARGE, t2w_triton.UNFOLDED
    for name, limits in (("few rows", (10**9, 10**9)), ("many rows", (0, 0))):
        print(f"{name}, {DEVICE}")
        t2w_triton.LARGE, t2w_triton.UNFOLDED = limits
        check_dit()
    t2w_triton.LARGE, t2w_triton.UNFOLDED = usual
    checks: tuple[Callable[[], None], ...] = (check_encoder, check_noise, check_vocoder)
    for check in checks:
        check()
    print("all agree")


if __name__ == "__main__":
    main()
