"""Recordings of strangers: what is taken, and that everything else is refused by name."""

from __future__ import annotations

import contextlib
import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from voiceagent.audio.clip import read_clip, to_wav
from voiceagent.errors import InputError


def sound(seconds: float, *, rate: int = 24_000, kind: str = "WAV", channels: int = 1) -> bytes:
    t = np.arange(int(seconds * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * 300 * t).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, np.stack([wave] * channels, axis=1), rate, format=kind)
    return file.getvalue()


def clip(data: bytes) -> np.ndarray:
    return read_clip(data, rate=24_000, shortest_s=3.0, longest_s=10.0)


@pytest.mark.parametrize(
    ("kind", "rate", "channels"),
    [("WAV", 24_000, 1), ("WAV", 8_000, 2), ("FLAC", 44_100, 2), ("OGG", 48_000, 1), ("MP3", 16_000, 1)],
)
@pytest.mark.parametrize("seconds", [3.0, 9.9])
def test_four_kinds_at_any_rate(kind: str, rate: int, channels: int, seconds: float) -> None:
    samples = clip(sound(seconds, rate=rate, kind=kind, channels=channels))
    assert abs(len(samples) - seconds * 24_000) < 3000  # MP3 has frames of its own
    middle = samples[20_000:44_000].astype(np.float64)
    assert np.argmax(np.abs(np.fft.rfft(middle))) == 300
    again = clip(to_wav(samples, rate=24_000))
    assert np.array_equal(again, samples), "the plain form is read back as it is"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (sound(2.9), "audio_too_short"),
        (sound(10.1), "audio_too_long"),
        (sound(60.0, rate=8000, kind="OGG"), "audio_too_long"),
        (b"", "unsupported_format"),
        (b"hello", "unsupported_format"),
        (b"<html>", "unsupported_format"),
        (sound(4.0, kind="AIFF"), "unsupported_format"),
        (sound(4.0, kind="W64"), "unsupported_format"),
        (b"RIFF\x00\x00\x00\x00WAVE", "unreadable_audio"),
        (b"fLaC" + bytes(100), "unreadable_audio"),
        (sound(4.0, kind="FLAC")[:2000], "unreadable_audio|audio_too_short"),
        (to_wav(np.zeros(96_000, np.int16), rate=24_000), "audio_silent"),
    ],
)
def test_what_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(InputError) as error:
        clip(data)
    assert error.value.code in code.split("|")
    assert error.value.param == "audio"
    assert error.value.remedy


@pytest.mark.parametrize("rate", [1, 4_000_000_000])
def test_a_rate_that_would_make_us_read_without_end(rate: int) -> None:
    data = bytearray(sound(4.0))
    at = data.index(b"fmt ") + 12
    data[at : at + 4] = struct.pack("<I", rate)
    with pytest.raises(InputError):
        clip(bytes(data))


def test_a_float_file_with_numbers_that_are_none() -> None:
    file = io.BytesIO()
    soundfile.write(file, np.full(96_000, np.nan, np.float32), 24_000, format="WAV", subtype="FLOAT")
    with pytest.raises(InputError) as error:
        clip(file.getvalue())
    assert error.value.code == "not_finite"


FILES = [sound(3.2, rate=8000, kind=kind) for kind in ("WAV", "FLAC", "OGG", "MP3")]


@given(
    file=st.sampled_from(FILES),
    cut=st.integers(0, 60_000),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=8),
)
@settings(max_examples=200, deadline=None)
def test_damage_is_an_error_of_ours_or_harmless(
    file: bytes, cut: int, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(file[: max(12, len(file) - cut)])
    for at, value in changes:
        data[at % len(data)] = value
    with contextlib.suppress(InputError):
        assert len(clip(bytes(data))) <= 241_000
