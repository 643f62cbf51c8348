"""Our own voice comes back by way of a room: it is taken out, a person who speaks over it is not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from voiceagent.core.echo import BLOCK, EchoCanceller, EchoReport, Track

QUESTIONS = Path(__file__).parents[1] / "data" / "questions"
RATE = 16_000
Samples = npt.NDArray[np.float32]


def speech(*names: str) -> Samples:
    """Recorded sentences at 16 kHz, at -20 dB."""
    parts = []
    for name in names:
        samples, rate = soundfile.read(QUESTIONS / f"{name}.flac", dtype="float32")
        assert rate == RATE
        parts.append(samples)
    whole = np.concatenate(parts)
    level: Samples = (whole * 0.1 / whole.std()).astype(np.float32)
    return level


OURS = np.tile(speech("book", "count", "hours", "name", "order"), 2)
THEIRS = speech("price", "order")


def room(delay: int, *, seed: int) -> npt.NDArray[np.float64]:
    """Impulse response of power 1: `delay` samples, then 150 ms that fade away."""
    random = np.random.default_rng(seed)
    tail = 0.35 * random.normal(size=2_400) * np.exp(-np.arange(2_400) / 480)
    tail[0] = 1.0
    return np.concatenate([np.zeros(delay), tail / np.sqrt((tail**2).sum())])


@dataclass
class Heard:
    """What came of it, cut to seconds: powers in dB."""

    incoming: npt.NDArray[np.float64]
    cleaned: npt.NDArray[np.float64]
    ours: npt.NDArray[np.float64]  # share of the blocks that our echo explains
    report: EchoReport


def call(
    *, delay_ms: int, level_db: float, near: Samples | None = None, at_s: int = 0, seed: int = 0
) -> Heard:
    """We speak all the time; our echo comes back with room and noise, and maybe somebody speaks from `at_s` on."""
    incoming = np.convolve(OURS, room(delay_ms * 16, seed=seed))[: len(OURS)] * 10 ** (level_db / 20)
    incoming += np.random.default_rng(seed).normal(0, 3e-4, len(OURS))
    if near is not None:
        incoming[at_s * RATE : at_s * RATE + len(near)] += near
    canceller, cleaned, ours = EchoCanceller(), [], []
    for at in range(0, len(OURS), 320):
        canceller.played.write(at, OURS[at : at + 320])
        cleaned.append(canceller.hear(incoming[at : at + 320].astype(np.float32)))
        ours.append(canceller.ours)
    cleaned.append(canceller.flush())
    made = np.concatenate(cleaned)
    assert len(made) == len(incoming)
    return Heard(power(incoming), power(made), by_second(np.array(ours, float), 50), canceller.report)


def by_second(values: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    means: npt.NDArray[np.float64] = values[: len(values) // size * size].reshape(-1, size).mean(1)
    return means


def power(samples: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    levels: npt.NDArray[np.float64] = 10 * np.log10(by_second(samples.astype(np.float64) ** 2, RATE) + 1e-12)
    return levels


@pytest.mark.parametrize(("delay_ms", "level_db"), [(80, -12), (300, -12), (700, -24)])
def test_an_echo_is_taken_out_and_never_taken_for_a_voice(delay_ms: int, level_db: float) -> None:
    heard = call(delay_ms=delay_ms, level_db=level_db)
    assert np.median(heard.incoming[4:] - heard.cleaned[4:]) > 25
    assert heard.ours[2:].min() > 0.95
    assert heard.report.delay_ms == pytest.approx(delay_ms, abs=20)
    assert heard.report.return_loss_db == pytest.approx(-level_db, abs=2)
    assert heard.report.enhancement_db is not None
    assert heard.report.enhancement_db > 6


def test_somebody_who_speaks_over_us_is_heard_as_they_speak() -> None:
    at_s, seconds = 8, len(THEIRS) // RATE
    heard = call(delay_ms=300, level_db=-12, near=THEIRS, at_s=at_s)
    during = slice(at_s, at_s + seconds)
    loud = power(THEIRS) > -30
    assert np.abs(heard.cleaned[during] - power(THEIRS))[loud].max() < 2
    assert heard.ours[during][loud].mean() < 0.6  # between their words there is nothing but us
    assert heard.ours[at_s + seconds + 2 :].min() > 0.9


def test_without_an_echo_nothing_is_changed() -> None:
    random = np.random.default_rng(3)
    voice = (THEIRS + random.normal(0, 1e-4, len(THEIRS))).astype(np.float32)
    canceller = EchoCanceller()
    made = []
    for at in range(0, len(voice), 320):
        canceller.played.write(at, OURS[at : at + 320])  # they wear a headset: it does not come back
        made.append(canceller.hear(voice[at : at + 320]))
        assert not canceller.ours
    np.testing.assert_array_equal(np.concatenate([*made, canceller.flush()]), voice)
    assert canceller.report == EchoReport(None, None, None)


@given(st.lists(st.integers(0, 3 * BLOCK), max_size=12))
@settings(max_examples=50, deadline=None)
def test_samples_come_back_once_and_in_order(sizes: list[int]) -> None:
    numbered = np.arange(sum(sizes), dtype=np.float32)
    canceller, made, at = EchoCanceller(), [], 0
    for size in sizes:
        made.append(canceller.hear(numbered[at : at + size]))
        at += size
    whole = np.concatenate([np.zeros(0, np.float32), *made])
    assert len(numbered) - len(whole) < BLOCK
    np.testing.assert_array_equal(np.concatenate([whole, canceller.flush()]), numbered)


def test_a_track_holds_what_was_written_last_and_silence_elsewhere() -> None:
    track = Track(1.0)
    track.write(100, np.ones(50, np.float32))
    track.write(200, np.full(50, 2.0, np.float32))
    np.testing.assert_array_equal(track.read(140, 20), [1.0] * 10 + [0.0] * 10)
    track.cut(220)  # what would have sounded later was dropped
    np.testing.assert_array_equal(track.read(215, 10), [2.0] * 5 + [0.0] * 5)
    track.write(240, np.full(5, 3.0, np.float32))
    assert track.end == 245
    np.testing.assert_array_equal(track.read(215, 30), [2.0] * 5 + [0.0] * 20 + [3.0] * 5)
    track.write(100_000, np.ones(5, np.float32))
    assert not track.read(200, 60).any()  # too long ago
    np.testing.assert_array_equal(track.read(-3, 3), [0.0] * 3)
