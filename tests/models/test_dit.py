"""Token2Wav's diffusion transformer: streams with history against the masked whole, bounded caches, modulation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from voiceagent.models.step_audio2.dit import DiT, DiTCache, DiTConfig, Modulation

CONFIG = DiTConfig(in_channels=20, out_channels=5, width=16, depth=2, heads=2, head_size=8, mlp_ratio=1.5)


@pytest.fixture
def dit() -> DiT:
    torch.manual_seed(1)
    dit = DiT(CONFIG).eval()
    for parameter in dit.parameters():
        nn.init.normal_(parameter, std=0.2)
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


@torch.inference_mode()
@pytest.mark.parametrize("sizes", [[10, 10, 10], [1, 2, 17, 4, 6], [30]])
def test_a_stream_equals_the_whole_under_the_history_mask(dit: DiT, sizes: list[int]) -> None:
    prompt, recent = 9, 12
    x = torch.randn(2, prompt + 30, 20)
    modulation = at(dit, 0.3)
    mask = history_mask(prompt + 30, prompt=prompt, sizes=sizes, recent=recent)
    whole = dit(x, modulation, mask=mask)
    cache = DiTCache.empty(CONFIG, steps=2, room=prompt, like=x)
    parts = [dit(x[:, :prompt], modulation, cache=cache, step=1)]
    cache.advance(prompt)
    cache = cache.stream(room=recent)
    size_before, start = cache.nbytes, prompt
    for size in sizes:
        parts.append(dit(x[:, start : start + size], modulation, cache=cache, step=1))
        cache.advance(size)
        start += size
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=2e-5, rtol=1e-4)
    assert cache.nbytes == size_before
    assert cache.filled == recent


@torch.inference_mode()
def test_steps_of_the_ode_keep_separate_histories(dit: DiT) -> None:
    x = torch.randn(2, 6, 20)
    cache = DiTCache.empty(CONFIG, steps=2, room=6, like=x)
    dit(x, at(dit, 0.0), cache=cache, step=0)
    assert cache.recent[0].abs().sum() > 0
    assert cache.recent[1].abs().sum() == 0
    assert cache.tails[1].abs().sum() == 0


@torch.inference_mode()
def test_streams_share_the_prompt_and_nothing_else(dit: DiT) -> None:
    x = torch.randn(2, 8, 20)
    prompt = DiTCache.empty(CONFIG, steps=1, room=8, like=x)
    modulation = at(dit, 0.5)
    dit(x, modulation, cache=prompt, step=0)
    prompt.advance(8)
    before = prompt.recent.clone(), prompt.tails.clone()
    one, two = prompt.stream(room=4), prompt.stream(room=4)
    first = dit(x[:, :3], modulation, cache=one, step=0)
    one.advance(3)
    fork = one.fork()
    dit(torch.randn(2, 5, 20), modulation, cache=one, step=0)
    assert torch.equal(dit(x[:, :3], modulation, cache=two, step=0), first)
    two.advance(3)
    assert torch.equal(fork.recent, two.recent)
    assert torch.equal(fork.tails, two.tails)
    assert torch.equal(prompt.recent, before[0])
    assert torch.equal(prompt.tails, before[1])
    assert one.prompt.data_ptr() == two.prompt.data_ptr()


@torch.inference_mode()
def test_the_future_does_not_reach_the_convolutions(dit: DiT) -> None:
    x = torch.randn(1, 12, 20)
    changed = x.clone()
    changed[:, 8:] += 1
    mask = torch.ones(1, 12, 12, dtype=torch.bool).tril()
    modulation = at(dit, 0.1)
    a, b = dit(x, modulation, mask=mask), dit(changed, modulation, mask=mask)
    torch.testing.assert_close(a[:, :8], b[:, :8])
    assert not torch.allclose(a[:, 8:], b[:, 8:])


@torch.inference_mode()
def test_rows_may_have_times_of_their_own(dit: DiT) -> None:
    x = torch.randn(2, 7, 20)
    both = dit(x, dit.modulation(torch.tensor([0.2, 0.9])))
    torch.testing.assert_close(both[1:], dit(x[1:], at(dit, 0.9)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        both[1:], dit(x[1:], dit.modulation(torch.tensor([0.2, 0.9])).row(1)), atol=1e-5, rtol=1e-4
    )
    assert not torch.allclose(both[:1], dit(x[:1], at(dit, 0.9)))
