import numpy as np
import pytest

from voiceagent.audio import g711
from voiceagent.errors import InputError
from voiceagent.wire.codecs import RATES, AudioDecoder, AudioEncoder

WIDTH = {"audio/pcm": 2, "audio/pcmu": 1, "audio/pcma": 1}


def tone(samples: int, rate: int) -> np.ndarray:
    return np.rint(np.sin(2 * np.pi * 300 * np.arange(samples) / rate) * 9000).astype(np.int16)


def as_bytes(kind: str, pcm: np.ndarray) -> bytes:
    if kind == "audio/pcmu":
        return g711.mulaw_encode(pcm)
    return g711.alaw_encode(pcm) if kind == "audio/pcma" else pcm.astype("<i2").tobytes()


@pytest.mark.parametrize("kind", list(RATES))
def test_input_is_one_stream_without_holes(kind: str) -> None:
    raw = as_bytes(kind, tone(RATES[kind], RATES[kind]))
    decoder, got = AudioDecoder(kind), []
    step = 20 * RATES[kind] // 1000 * WIDTH[kind]
    for start in range(0, len(raw), step):
        at, samples = decoder.push(raw[start : start + step])
        assert at == sum(map(len, got))
        got.append(samples)
    at, rest = decoder.reset(kind)
    assert at == sum(map(len, got))
    heard = np.concatenate([*got, rest])
    assert len(heard) == 16_000
    assert np.abs(heard[500:-500] * 32768 - tone(16_000, 16_000)[500:-500]).max() < 500


def test_a_format_switch_goes_on_counting() -> None:
    decoder = AudioDecoder("audio/pcm")
    decoder.push(bytes(4800))
    decoder.reset("audio/pcmu")
    decoder.push(b"\xff" * 800)
    at, rest = decoder.reset("audio/pcm")
    assert at + len(rest) == 1600 + 1600


def test_half_a_sample_is_refused_and_the_stream_goes_on() -> None:
    decoder = AudioDecoder("audio/pcm")
    with pytest.raises(InputError):
        decoder.push(b"abc")
    decoder.push(bytes(4800))
    at, rest = decoder.reset("audio/pcm")
    assert at + len(rest) == 1600


@pytest.mark.parametrize("kind", list(RATES))
def test_output_is_as_long_as_the_reply(kind: str) -> None:
    encoder = AudioEncoder(kind)
    voice = tone(24_000, 24_000)
    raw = b"".join(encoder.push(part) for part in np.split(voice, 10)) + encoder.finish()
    assert len(raw) == RATES[kind] * WIDTH[kind]
    if kind == "audio/pcm":
        assert raw == voice.astype("<i2").tobytes()


def test_what_was_held_back_of_a_cut_reply_is_forgotten() -> None:
    encoder = AudioEncoder("audio/pcmu")
    encoder.push(tone(100, 24_000))
    encoder.drop()
    assert encoder.finish() == b""
