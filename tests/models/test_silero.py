from pathlib import Path

import numpy as np
import pytest

from voiceagent.errors import CheckpointError
from voiceagent.models.silero import WINDOW, Silero, VadState, VadStream


@pytest.fixture(scope="module")
def silero() -> Silero:
    return Silero()


def speechlike(seconds: float, *, seed: int) -> np.ndarray:
    """A buzz of harmonics with moving formant-like emphasis and syllable-rate energy; silence at both ends."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(16000 * seconds)) / 16000
    pitch = 2 * np.pi * np.cumsum(120 + 25 * np.sin(2 * np.pi * 0.9 * time + seed)) / 16000
    centre = 700 + 400 * np.sin(2 * np.pi * 2.1 * time)
    voice = np.zeros_like(time)
    for harmonic in range(1, 30):
        weight = np.exp(-(((harmonic * 120 - centre) / 350) ** 2)) + 0.3 * np.exp(
            -(((harmonic * 120 - 2300) / 400) ** 2)
        )
        voice += weight * np.sin(harmonic * pitch)
    syllables = np.clip(np.sin(2 * np.pi * 3.5 * time), 0, 1)
    active = (time > 0.5) & (time < seconds - 0.5)
    return (0.15 * voice * syllables * active + 0.0005 * rng.standard_normal(len(time))).astype(np.float32)


def probabilities(silero: Silero, samples: np.ndarray) -> list[float]:
    return [p for _, p, _ in VadStream(silero).push(0, samples)]


def test_speech_is_told_from_silence(silero: Silero) -> None:
    heard = probabilities(silero, speechlike(4, seed=1))
    assert max(heard[:14]) < 0.3
    assert max(heard[20:100]) > 0.5


def test_interleaved_sessions_equal_each_alone_in_any_chunking(silero: Silero) -> None:
    signals = [speechlike(2, seed=seed) for seed in range(8)]
    alone = [VadStream(silero).push(0, signal) for signal in signals]
    streams = [VadStream(silero) for _ in signals]
    heard: list[list[tuple[int, float, float]]] = [[] for _ in signals]
    places = [0] * len(signals)
    rng = np.random.default_rng(5)
    while any(place < len(signal) for place, signal in zip(places, signals, strict=True)):
        row = int(rng.integers(len(signals)))
        chunk = signals[row][places[row] : places[row] + int(rng.integers(1, 1500))]
        heard[row] += streams[row].push(places[row], chunk)
        places[row] += len(chunk)
    assert heard == alone


def test_one_bad_window_does_not_poison_the_following_ones(silero: Silero) -> None:
    clean = speechlike(4, seed=1)
    dirty = clean.copy()
    dirty[WINDOW * 10 + 3] = np.nan
    dirty[WINDOW * 12] = np.inf
    expected, heard = probabilities(silero, clean), probabilities(silero, dirty)
    assert heard[10] == heard[12] == 0.0
    assert np.isfinite(heard).all()
    assert np.abs(np.array(heard[40:]) - np.array(expected[40:])).max() < 0.2


def test_a_state_is_never_changed_in_place(silero: Silero) -> None:
    state = VadState()
    before = (state.recurrent.copy(), state.context.copy())
    window = speechlike(2, seed=3)[12000 : 12000 + WINDOW]
    first, _ = silero.step(window, state)
    again, _ = silero.step(window, state)
    assert first == again
    assert np.array_equal(state.recurrent, before[0])
    assert np.array_equal(state.context, before[1])


def test_positions_are_window_ends_and_a_jump_starts_afresh(silero: Silero) -> None:
    stream = VadStream(silero)
    signal = speechlike(2, seed=2)
    assert [at for at, *_ in stream.push(0, signal[:1100])] == [512, 1024]
    fresh = stream.push(20000, signal[:1024])
    assert [at for at, *_ in fresh] == [20512, 21024]
    assert [p for _, p, _ in fresh] == probabilities(silero, signal[:1024])


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(CheckpointError, match=r"bad\.onnx"):
        Silero(tmp_path / "bad.onnx")


def test_many_streams_in_one_pass_are_heard_as_each_alone(silero: Silero) -> None:
    signals = [speechlike(1, seed=seed) for seed in range(5)]
    signals[2][WINDOW * 7] = np.nan
    alone = [VadStream(silero).push(0, signal) for signal in signals]
    streams = [silero.open() for _ in signals]
    heard: list[list[tuple[int, float, float]]] = [[] for _ in signals]
    for stream, signal in zip(streams, signals, strict=True):
        stream.feed(0, signal)
    while ready := [row for row, stream in enumerate(streams) if stream.ready]:
        for row, window in zip(ready, silero.hear([streams[row] for row in ready]), strict=True):
            heard[row].append(window)
    for one, other in zip(heard, alone, strict=True):
        assert [at for at, _, _ in one] == [at for at, _, _ in other]
        assert np.allclose([p for _, p, _ in one], [p for _, p, _ in other], atol=1e-5)


def test_a_jump_starts_afresh_also_while_windows_wait(silero: Silero) -> None:
    signal = speechlike(1, seed=1)
    stream = silero.open()
    stream.feed(0, signal[: 4 * WINDOW + 7])
    stream.feed(40_000, signal[: 3 * WINDOW])
    heard = []
    while stream.ready:
        heard += silero.hear([stream])
    assert [at for at, _, _ in heard] == [512, 1024, 1536, 2048, 40_512, 41_024, 41_536]
    assert np.allclose([p for _, p, _ in heard[4:]], [p for _, p, _ in heard[:3]], atol=1e-6)
