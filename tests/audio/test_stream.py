"""Files read in blocks, and files that are sent while they grow."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from voiceagent.audio.stream import Encoder, decode
from voiceagent.errors import InputError


def tone(seconds: float, rate: int) -> np.ndarray:
    return (8000 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype(np.int16)


def grown(kind: str, samples: np.ndarray, rate: int) -> bytes:
    encoder = Encoder(kind, rate=rate)
    parts = [encoder.push(samples[i : i + 4800]) for i in range(0, len(samples), 4800)]
    return b"".join([*parts, encoder.finish()])


@pytest.mark.parametrize(("kind", "error"), [("wav", 0), ("flac", 0), ("mp3", 400), ("opus", 1200)])
def test_what_was_sent_plays_as_the_samples(kind: str, error: int) -> None:
    samples = tone(2.0, 24_000)
    found, rate = soundfile.read(io.BytesIO(grown(kind, samples, 24_000)), dtype="int16")
    assert rate == (48_000 if kind == "opus" and rate == 48_000 else 24_000)
    heard = found[:: rate // 24_000]
    if error == 0:
        assert np.array_equal(heard, samples)
    else:
        assert abs(len(heard) - len(samples)) < 4000
        assert np.abs(np.abs(np.fft.rfft(heard[4800:28_800])).argmax() - 440) <= 1


def test_pcm_is_bare() -> None:
    samples = tone(0.5, 24_000)
    assert grown("pcm", samples, 24_000) == samples.tobytes()


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_any_rate_and_channels_become_one_stream(rate: int, channels: int) -> None:
    file = io.BytesIO()
    samples = tone(21.0, rate)
    soundfile.write(file, np.stack([samples] * channels, 1), rate, format="WAV", subtype="PCM_16")
    file.seek(0)
    blocks = list(decode(file, rate=16_000))
    assert len(blocks) >= 3  # never the whole file at once
    assert sum(map(len, blocks)) == 21 * 16_000
    spectrum = np.abs(np.fft.rfft(np.concatenate(blocks)[:16_000]))
    assert spectrum.argmax() == 440


@pytest.mark.parametrize("data", [b"", b"RIFF", b"not audio at all" * 100])
def test_what_is_not_audio_is_told(data: bytes) -> None:
    with pytest.raises(InputError, match="cannot be read as audio"):
        list(decode(io.BytesIO(data), rate=16_000))


def test_samples_that_are_not_numbers_are_told() -> None:
    file = io.BytesIO()
    soundfile.write(file, np.array([0.0, np.nan, 0.0]), 16_000, format="WAV", subtype="FLOAT")
    file.seek(0)
    with pytest.raises(InputError, match="finite"):
        list(decode(file, rate=16_000))
