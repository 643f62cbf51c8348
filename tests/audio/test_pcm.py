import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceagent.audio import pcm
from voiceagent.errors import InputError


def test_every_s16_value_survives_the_round_trip() -> None:
    every = np.arange(-32768, 32768).astype(np.int16)
    raw = pcm.int16_to_bytes(every)
    assert pcm.float_to_s16(pcm.s16_to_float(raw)) == raw


def test_bytes_are_little_endian() -> None:
    assert pcm.bytes_to_int16(b"\x01\x00\xff\x7f").tolist() == [1, 32767]


@given(st.binary(max_size=99).filter(lambda raw: len(raw) % 2 == 1))
def test_odd_byte_count_is_refused(raw: bytes) -> None:
    with pytest.raises(InputError) as caught:
        pcm.s16_to_float(raw)
    assert caught.value.code == "odd_audio_length"


def test_loud_samples_are_clipped_not_wrapped() -> None:
    assert pcm.float_to_int16(np.array([2.0, -2.0, 1.0], np.float32)).tolist() == [32767, -32768, 32767]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_samples_are_refused(bad: float) -> None:
    with pytest.raises(InputError) as caught:
        pcm.float_to_s16(np.array([0.0, bad], np.float32))
    assert caught.value.code == "audio_not_finite"


def test_mono_is_the_mean_of_the_channels() -> None:
    stereo = np.array([[1.0, 0.0], [0.5, 0.5]], np.float32)
    assert pcm.to_mono(stereo).tolist() == [0.5, 0.5]
    assert pcm.to_mono(stereo[:, 0]).tolist() == [1.0, 0.5]


def test_levels_are_in_decibels_of_full_scale() -> None:
    wave = np.sin(np.arange(512) * np.pi / 8).astype(np.float32)
    assert pcm.level_db(wave) == -3.0
    assert pcm.level_db(wave * np.float32(0.1)) == -23.0
    for silent in (np.zeros(512, np.float32), np.full(4, np.nan, np.float32), np.zeros(0, np.float32)):
        assert pcm.level_db(silent) == pcm.SILENT_DB
