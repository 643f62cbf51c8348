from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voiceagent.audio.pcm import TO_FLOAT, int16_to_float
from voiceagent.audio.polyphase import ZEROS, LiveResampler
from voiceagent.audio.resample import output_samples, resample
from voiceagent.errors import InputError

RATES = [
    (24_000, 16_000),
    (8_000, 16_000),
    (24_000, 8_000),
    (48_000, 16_000),
    (44_100, 16_000),
    (16_000, 24_000),
]


def convert(samples: np.ndarray, source: int, target: int) -> np.ndarray:
    stream = LiveResampler(source=source, target=target)
    return np.concatenate([stream.push(samples), stream.finish()])


def tone(hz: float, rate: int, seconds: float = 0.5) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate).astype(np.float32)


def level(samples: np.ndarray) -> float:
    """Of the middle, where no edge is, in dB of a full tone."""
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    return float(10 * np.log10(2 * np.mean(np.square(middle, dtype=np.float64)) + 1e-20))


@pytest.mark.parametrize(("source", "target"), RATES)
def test_a_tone_of_the_band_stays_and_one_above_goes(source: int, target: int) -> None:
    low = min(source, target)
    for share in (0.02, 0.1, 0.2, 0.3, 0.4, 0.435):
        made = convert(tone(share * low, source), source, target)
        wanted = tone(share * low, target)
        edge = 2 * ZEROS * target // low
        assert np.abs(made - wanted[: len(made)])[edge:-edge].max() < 2e-3, share
    if source > target:
        for share in (0.505, 0.6, 0.7):
            assert level(convert(tone(share * low, source), source, target)) < -75, share


@pytest.mark.parametrize(("source", "target"), RATES)
def test_it_agrees_with_soxr_where_both_pass(source: int, target: int) -> None:
    low = min(source, target)
    rng = np.random.default_rng(3)
    noise = sum(tone(share * low, source) * rng.uniform(0.05, 0.2) for share in rng.uniform(0.01, 0.4, 12))
    ours, theirs = convert(noise, source, target), resample(noise, source=source, target=target)
    assert len(ours) == len(theirs)
    edge = 4 * ZEROS * target // low
    assert np.abs(ours - theirs)[edge:-edge].max() < 2e-3


@settings(max_examples=60, deadline=None)
@given(
    rates=st.sampled_from(RATES),
    cuts=st.lists(st.integers(0, 1200), min_size=1, max_size=12),
)
def test_no_cut_changes_what_comes_out(rates: tuple[int, int], cuts: list[int]) -> None:
    source, target = rates
    noise = np.random.default_rng(1).normal(0, 0.1, sum(cuts)).astype(np.float32)
    stream = LiveResampler(source=source, target=target)
    parts, at = [], 0
    for size in cuts:
        parts.append(stream.push(noise[at : at + size]))
        at += size
    made = np.concatenate([*parts, stream.finish()])
    assert len(made) == output_samples(sum(cuts), source=source, target=target) == stream.produced
    np.testing.assert_allclose(made, convert(noise, source, target), atol=1e-5)


@pytest.mark.parametrize(("source", "target"), [(24_000, 16_000), (8_000, 16_000), (24_000, 8_000)])
def test_a_frame_in_is_a_frame_out(source: int, target: int) -> None:
    stream = LiveResampler(source=source, target=target)
    sizes = [len(stream.push(np.zeros(source // 50, np.float32))) for _ in range(20)]
    assert set(sizes[1:]) == {target // 50}
    assert sizes[0] >= 0.65 * target // 50


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(InputError):
        LiveResampler(source=0, target=16_000)


def test_equal_rates_change_nothing() -> None:
    samples = tone(440, 16_000)
    assert np.array_equal(convert(samples, 16_000, 16_000), samples)


@pytest.mark.parametrize(("source", "target"), [*RATES, (16_000, 16_000)])
def test_int16_samples_with_their_gain_are_the_floats_exactly(source: int, target: int) -> None:
    whole = np.random.default_rng(5).integers(-32768, 32768, 3000).astype(np.int16)
    whole_numbers = LiveResampler(source=source, target=target, gain=TO_FLOAT)
    floats = LiveResampler(source=source, target=target)
    for part in (whole[:100], whole[100:]):
        assert np.array_equal(whole_numbers.push(part), floats.push(int16_to_float(part)))
    assert np.array_equal(whole_numbers.finish(), floats.finish())
