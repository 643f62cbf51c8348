"""Token2Wav's diffusion transformer: streams with history against the masked whole, batches of them, modulation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from voiceagent.models.step_audio2.conformer import ConformerConfig
from voiceagent.models.step_audio2.dit import DiT, DiTConfig, Modulation
from voiceagent.models.step_audio2.flow_config import FlowConfig
from voiceagent.models.step_audio2.t2w_dit import ChunkSolver
from voiceagent.models.step_audio2.t2w_pool import RECENT_FRAMES, FlowPool, Place, Places

CONFIG = DiTConfig(in_channels=320, out_channels=80, width=16, depth=2, heads=2, head_size=8, mlp_ratio=1.5)
TIMES = torch.tensor([0.0, 0.3, 1.0])


@pytest.fixture
def dit() -> DiT:
    torch.manual_seed(1)
    dit = DiT(CONFIG).eval()
    for parameter in dit.parameters():
        nn.init.normal_(parameter, std=0.1)
    return dit


def at(dit: DiT, time: float) -> Modulation:
    return dit.modulation(torch.tensor([time]))


def history_mask(total: int, *, prompt: int, sizes: list[int], recent: int) -> Tensor:
    """Frames see the prompt, the `recent` frames before their chunk, and their chunk."""
    mask = torch.zeros(1, total, total, dtype=torch.bool)
    mask[:, :, :prompt] = True
    start = prompt
    for size in sizes:
        mask[:, start : start + size, max(prompt, start - recent) : start + size] = True
        start += size
    return mask


class Stream:
    """Streams through `ChunkSolver` with two ODE steps."""

    def __init__(self, dit: DiT, *, slots: int = 3) -> None:
        encoder = ConformerConfig(
            input_size=4, width=4, heads=1, hidden=4, blocks=1, up_blocks=1, lookahead=3, stride=2
        )
        config = FlowConfig(
            vocab_size=5, input_size=4, speaker_size=4, encoder=encoder, dit=dit.config, guidance=0.7
        )
        self.pool = FlowPool(
            config, steps=2, slots=slots, prompt_tokens=10, device="cpu", dtype=torch.float32
        )
        self.solve = ChunkSolver(dit, self.pool, times=TIMES, guidance=0.7)

    def prompt(self, known: Tensor, noise: Tensor, *, at: int = 0) -> tuple[Tensor, tuple[Tensor, ...]]:
        tokens = known.shape[1] // 2
        self.pool.clear(self.pool.desk)
        place = Place(self.pool.desk, 0, tokens, tokens, tokens, at, is_prompt=True)
        mel = self.solve(known, noise, self._places([place]))
        return mel, self.pool.tails_of(self.pool.desk)

    def step(self, known: Tensor, noise: Tensor, places: list[Place]) -> Tensor:
        return self.solve(known, noise, self._places(places))

    def _places(self, places: list[Place]) -> Places:
        return Places(torch.tensor([place.row(self.pool) for place in places]), self.pool.stride)


def whole(dit: DiT, known: Tensor, noise: Tensor, mask: Tensor | None) -> Tensor:
    """Two guided Euler steps over all frames at once."""
    x = noise
    for k in range(2):
        inputs = torch.cat([x.expand(2, -1, -1), torch.cat([known, torch.zeros_like(known)])], dim=2)
        v = dit(inputs, at(dit, TIMES[k].item()), mask=mask)
        x = x + (TIMES[k + 1] - TIMES[k]) * (1.7 * v[:1] - 0.7 * v[1:])
    return x


@torch.inference_mode()
@pytest.mark.parametrize("sizes", [[5, 5, 5], [1, 2, 17, 4, 1], [15], [13, 17] * 4 + [60, 5]])
def test_a_stream_equals_the_whole_under_the_history_mask(dit: DiT, sizes: list[int]) -> None:
    prompt, frames = 8, [2 * size for size in sizes]
    total = prompt + sum(frames)
    known, noise = torch.randn(1, total, 240), torch.randn(1, total, 80)
    mask = history_mask(total, prompt=prompt, sizes=frames, recent=RECENT_FRAMES)
    stream = Stream(dit)
    mel, tails = stream.prompt(known[:, :prompt], noise[:, :prompt])
    stream.pool.begin(1, tails, torch.zeros(80))
    parts, start = [mel], prompt
    for size in sizes:
        place = Place(1, (start - prompt) // 2, size, size, prompt // 2, 0)
        chunk = slice(start, start + 2 * size)
        parts.append(stream.step(known[:, chunk], noise[:, chunk], [place]))
        start += 2 * size
    torch.testing.assert_close(torch.cat(parts, 1), whole(dit, known, noise, mask), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_streams_of_a_batch_share_the_prompt_and_nothing_else(dit: DiT) -> None:
    """Two prompts, three streams at other places, one of them shorter than the rest and one of nobody."""
    stream = Stream(dit)
    known, noise = torch.randn(3, 12, 240), torch.randn(3, 12, 80)
    tails = [
        stream.prompt(known[i : i + 1, :count], noise[i : i + 1, :count], at=start)[1]
        for i, count, start in ((0, 8, 0), (1, 4, 4))
    ]
    voices = [(4, 0, 0), (2, 4, 1), (4, 0, 0)]
    alone: list[Tensor] = []
    for together in (False, True):
        for slot, (_, _, voice) in enumerate(voices):
            stream.pool.begin(slot, tails[voice], torch.zeros(80))
        stream.step(known[1:2, :6], noise[1:2, :6], [Place(1, 0, 3, 3, 2, 4)])
        news = (6, 3, 6)
        places = [
            Place(slot, 3 * (slot == 1), new, new, prompt, start)
            for slot, (new, (prompt, start, _)) in enumerate(zip(news, voices, strict=True))
        ]
        if not together:
            alone = [
                stream.step(known[i : i + 1, : 2 * new], noise[i : i + 1, : 2 * new], [place])
                for i, (new, place) in enumerate(zip(news, places, strict=True))
            ]
            continue
        idle = Place(stream.pool.nobody, 0, 6, 6, 0, 0)
        joint = stream.step(known[[0, 1, 2, 0]], noise[[0, 1, 2, 0]], [*places, idle])
        for i, (new, mel) in enumerate(zip(news, alone, strict=True)):
            torch.testing.assert_close(joint[i : i + 1, : 2 * new], mel, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_the_future_does_not_reach_the_convolutions(dit: DiT) -> None:
    x = torch.randn(1, 12, 320)
    changed = x.clone()
    changed[:, 8:] += 1
    mask = torch.ones(1, 12, 12, dtype=torch.bool).tril()
    modulation = at(dit, 0.1)
    a, b = dit(x, modulation, mask=mask), dit(changed, modulation, mask=mask)
    torch.testing.assert_close(a[:, :8], b[:, :8])
    assert not torch.allclose(a[:, 8:], b[:, 8:])


@torch.inference_mode()
def test_rows_may_have_times_of_their_own(dit: DiT) -> None:
    x = torch.randn(2, 7, 320)
    both = dit(x, dit.modulation(torch.tensor([0.2, 0.9])))
    torch.testing.assert_close(both[1:], dit(x[1:], at(dit, 0.9)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        both[1:], dit(x[1:], dit.modulation(torch.tensor([0.2, 0.9])).row(1)), atol=1e-5, rtol=1e-4
    )
    assert not torch.allclose(both[:1], dit(x[:1], at(dit, 0.9)))
