"""Time-scale modification: exact lengths, kept pitch, no seams, and the same however the stream is cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voiceagent.audio.pcm import Int16
from voiceagent.audio.tempo import BLOCK, REACH, Tempo
from voiceagent.units import VOICE_RATE, spoken_at, unhurried

SPEEDS = (0.25, 0.5, 0.75, 0.9, 1.1, 1.25, 1.5, 2.0, 4.0)


def whole(samples: Int16, speed: float) -> Int16:
    tempo = Tempo(speed)
    return np.concatenate([tempo.push(samples), tempo.finish()])


def voice(seconds: float, *, pitch: float = 140.0) -> Int16:
    """Something like a vowel: harmonics that move a little, louder and softer."""
    t = np.arange(int(seconds * VOICE_RATE)) / VOICE_RATE
    phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.02 * np.sin(2 * np.pi * 3 * t))) / VOICE_RATE
    wave = sum(np.sin(n * phase) / n for n in range(1, 20)) * (0.6 + 0.4 * np.sin(2 * np.pi * 2 * t))
    return np.rint(wave * 6000).astype(np.int16)


def pitch_of(samples: Int16) -> float:
    """Median over frames of 60 ms of the strongest lag between 70 and 400 Hz, in Hz."""
    size, found = int(0.06 * VOICE_RATE), []
    lags = np.arange(VOICE_RATE // 400, VOICE_RATE // 70)
    for at in range(0, len(samples) - size, size):
        frame = samples[at : at + size].astype(np.float64)
        power = np.fft.irfft(np.abs(np.fft.rfft(frame, 2 * size)) ** 2)
        fair = power[lags] / (size - lags)
        found.append(VOICE_RATE / lags[int(np.argmax(fair > 0.95 * fair.max()))])
    return float(np.median(found))


@pytest.mark.parametrize("speed", SPEEDS)
def test_the_length_is_exact_and_the_pitch_stays(speed: float) -> None:
    before = voice(2.0)
    after = whole(before, speed)
    assert len(after) == spoken_at(len(before), speed)
    assert len(after) == pytest.approx(len(before) / speed, rel=0.01)
    assert pitch_of(after) == pytest.approx(pitch_of(before), rel=0.02)


@pytest.mark.parametrize("speed", SPEEDS)
def test_there_are_no_seams(speed: float) -> None:
    """A click is a jump: nowhere does the output bend more sharply than the input does."""
    before = voice(2.0)
    after = whole(before, speed)
    bend = [float(np.abs(np.diff(x.astype(np.float64), 2)).max()) for x in (before, after)]
    assert bend[1] < 1.3 * bend[0]
    loud = [float(np.sqrt(np.mean(x.astype(np.float64) ** 2))) for x in (before, after)]
    assert loud[1] == pytest.approx(loud[0], rel=0.1)


@given(
    speed=st.floats(0.25, 4.0),
    cuts=st.lists(st.integers(0, 3000), max_size=12),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_cuts_do_not_matter(speed: float, cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = rng.integers(-9000, 9000, 6000).astype(np.int16)
    tempo, parts, at = Tempo(speed), [], 0
    for cut in cuts:
        parts.append(tempo.push(samples[at : at + cut]))
        at += cut
        assert tempo.given <= spoken_at(tempo.taken, speed), "more than is due"
        late = unhurried(tempo.given + 2 * BLOCK, speed) + 2 * REACH + 3 * BLOCK
        assert tempo.taken <= late or speed == 1.0, "held back for too long"
    parts += [tempo.push(samples[at:]), tempo.finish()]
    got = np.concatenate(parts)
    assert np.array_equal(got, whole(samples, speed))
    assert len(got) == tempo.given == spoken_at(6000, speed)


@pytest.mark.parametrize("speed", [0.5, 0.8, 1.5, 3.0])
def test_everything_is_where_time_says(speed: float) -> None:
    """Beeps of rising pitch come out at their places over the speed."""
    length = VOICE_RATE // 2
    t = np.arange(length) / VOICE_RATE
    beeps = [np.rint(8000 * np.sin(2 * np.pi * f * t)).astype(np.int16) for f in (300, 500, 800)]
    after = whole(np.concatenate(beeps), speed)
    for n, hz in enumerate((300, 500, 800)):
        middle = spoken_at(n * length + length // 2, speed)
        part = after[middle - 1000 : middle + 1000].astype(np.float64)
        crossings = np.count_nonzero(np.diff(np.signbit(part)))
        assert crossings / 2 / (2000 / VOICE_RATE) == pytest.approx(hz, rel=0.05)


def test_unchanged_at_one() -> None:
    samples, tempo = voice(0.1), Tempo(1.0)
    assert tempo.push(samples) is samples
    assert len(tempo.finish()) == 0


@pytest.mark.parametrize("speed", [0.3, 2.0])
@pytest.mark.parametrize("length", [0, 1, BLOCK - 1, BLOCK, 1000])
def test_short_ones(speed: float, length: int) -> None:
    assert len(whole(np.ones(length, np.int16), speed)) == spoken_at(length, speed)


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_no_such_speed(speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        Tempo(speed)


@given(samples=st.integers(0, 10**7), speed=st.floats(0.25, 4.0))
def test_there_and_back(samples: int, speed: float) -> None:
    assert (
        spoken_at(unhurried(samples, speed), speed)
        <= samples
        < spoken_at(unhurried(samples, speed) + 1, speed)
    )
    assert unhurried(spoken_at(samples, speed), speed) >= samples
