from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from voiceagent.errors import EngineError, InputError
from voiceagent.models.step_audio2.sampling import GREEDY, Sampler, Sampling, chances, penalised, ranked

ALL = torch.ones(12, dtype=torch.bool)


def scores_of(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


def slow_distribution(values: list[float], sampling: Sampling) -> list[float]:
    """Temperature, top-k, top-p step by step as Hugging Face's warpers do it (ascending sort, tail removed)."""
    scaled = {i: value / sampling.temperature for i, value in enumerate(values)}
    if sampling.top_k:
        best = sorted(scaled, key=lambda i: scaled[i], reverse=True)[: sampling.top_k]
        scaled = {i: scaled[i] for i in best}
    highest = max(scaled.values())
    total = sum(math.exp(value - highest) for value in scaled.values())
    chance = {i: math.exp(value - highest) / total for i, value in scaled.items()}
    kept, tail = dict(chance), 0.0
    for i in sorted(chance, key=lambda i: chance[i])[:-1]:
        tail += chance[i]
        if tail <= 1.0 - sampling.top_p:
            del kept[i]
    return [kept.get(i, 0.0) / sum(kept.values()) for i in range(len(values))]


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.integers(-400, 400), min_size=2, max_size=12, unique=True),
    temperature=st.sampled_from([0.3, 0.7, 1.0, 1.7]),
    top_k=st.integers(0, 13),
    top_p=st.sampled_from([0.05, 0.31, 0.5, 0.9, 1.0]),
)
def test_the_distribution_equals_a_slow_reference(
    values: list[int], temperature: float, top_k: int, top_p: float
) -> None:
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    logits = scores_of([value / 100 for value in values])
    top, ids = ranked(logits, top_k)
    weights = chances(top, sampling)
    ours = torch.zeros(len(values))
    ours[ids] = weights / weights.sum()
    expected = slow_distribution([value / 100 for value in values], sampling)
    torch.testing.assert_close(ours, torch.tensor(expected), atol=2e-5, rtol=0)


def test_draws_follow_the_distribution() -> None:
    sampler = Sampler(Sampling(temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0, seed=1), ALL[:3])
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    drawn = [sampler.choose(logits) for _ in range(4000)]
    for token, chance in enumerate([0.5, 0.3, 0.2]):
        assert abs(drawn.count(token) / 4000 - chance) < 0.03


def test_temperature_0_takes_the_best_allowed() -> None:
    logits = scores_of([0.0, 3.0, 2.0, 1.0])
    assert Sampler(GREEDY, ALL[:4]).choose(logits) == 1
    allowed = torch.tensor([True, False, True, True])
    assert Sampler(GREEDY, allowed).choose(logits) == 2
    assert logits[1] == 3.0, "the scores are not changed"


def test_a_banned_id_is_never_drawn() -> None:
    allowed = torch.arange(12) < 5
    sampler = Sampler(Sampling(temperature=5.0, top_p=1.0, top_k=0, seed=0), allowed)
    logits = torch.arange(12).float()
    assert {sampler.choose(logits) for _ in range(300)} == set(range(5))
    narrow = Sampler(Sampling(temperature=5.0, top_p=1.0, top_k=8, seed=0), allowed)
    assert max(narrow.choose(logits) for _ in range(300)) < 5


def test_equal_seeds_draw_equally() -> None:
    logits = torch.randn(50, 12, generator=torch.Generator().manual_seed(3))

    def draw(seed: int) -> list[int]:
        sampler = Sampler(Sampling(temperature=1.5, top_p=1.0, seed=seed), ALL)
        return [sampler.choose(row) for row in logits]

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


def test_a_fork_goes_on_alike_and_apart() -> None:
    logits = torch.randn(40, 12, generator=torch.Generator().manual_seed(3))
    sampler = Sampler(Sampling(temperature=1.5, top_p=1.0, repetition_penalty=1.3, seed=5), ALL)
    for row in logits[:20]:
        sampler.choose(row)
    twin = sampler.fork()
    ahead = [twin.choose(row) for row in logits[20:]]
    assert [sampler.choose(row) for row in logits[20:]] == ahead


def test_repetition_penalty() -> None:
    seen = torch.tensor([True, True, False, False])
    out = penalised(scores_of([2.0, -2.0, 2.0, -2.0]), seen, 2.0)
    assert out.tolist() == [1.0, -4.0, 2.0, -2.0]


def test_repetition_penalty_counts_prompt_and_reply() -> None:
    sampler = Sampler(Sampling(temperature=0.0, repetition_penalty=2.0), ALL[:4], prompt=[0, 0])
    logits = scores_of([3.0, 2.0, 1.8, 0.0])
    assert sampler.choose(logits) == 1  # 0 occurred in the prompt: 1.5
    assert sampler.choose(logits) == 2  # 1 now too: 1.0
    sampler.saw(3)
    assert sampler.choose(logits) == 0  # 1.5, 1.0, 0.9, 0.0


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_broken_scores_are_a_typed_error(temperature: float) -> None:
    sampler = Sampler(Sampling(temperature=temperature), ALL)
    with pytest.raises(EngineError, match="not numbers"):
        sampler.choose(torch.full((12,), math.nan))
    with pytest.raises(EngineError, match="not numbers"):
        Sampler(Sampling(temperature=temperature), ~ALL).choose(torch.zeros(12))


def test_an_almost_cold_temperature_works() -> None:
    sampler = Sampler(Sampling(temperature=1e-45, seed=0), ALL)
    assert sampler.choose(torch.arange(12).float() * 1e30) == 11


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("repetition_penalty", 0.0),
    ],
)
def test_values_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(InputError, match=name) as caught:
        Sampling(**{name: value})  # type: ignore[arg-type]
    assert caught.value.param == name
