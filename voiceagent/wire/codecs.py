"""The audio formats of the wires: bytes of a connection to 16 kHz samples for the core, 24 kHz samples to bytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from voiceagent.audio import g711, pcm
from voiceagent.audio.polyphase import LiveResampler
from voiceagent.units import MODEL_RATE, VOICE_RATE

Samples = npt.NDArray[np.float32]

RATES = {"audio/pcm": 24_000, "audio/pcmu": 8_000, "audio/pcma": 8_000}
"""Sample rates of the formats, Hz."""
SAMPLE_BYTES = {"audio/pcm": 2, "audio/pcmu": 1, "audio/pcma": 1}


def decode(raw: bytes, *, kind: str) -> npt.NDArray[np.int16]:
    """Bytes of one format to int16 samples at the format's own rate; InputError for an odd byte count."""
    if kind == "audio/pcm":
        return pcm.bytes_to_int16(raw)
    return g711.mulaw_decode(raw) if kind == "audio/pcmu" else g711.alaw_decode(raw)


def encode(samples: npt.NDArray[np.int16], *, kind: str) -> bytes:
    """int16 samples at the format's own rate to bytes."""
    if kind == "audio/pcmu":
        return g711.mulaw_encode(samples)
    if kind == "audio/pcma":
        return g711.alaw_encode(samples)
    return pcm.int16_to_bytes(samples)


class AudioDecoder:
    """A connection's input audio as one 16 kHz stream whose samples are counted from the connection's start."""

    def __init__(self, kind: str, *, rate: int | None = None) -> None:
        """`rate` in Hz if it is not the format's own."""
        self._at = 0
        self._start(kind, rate)

    def _start(self, kind: str, rate: int | None = None) -> None:
        self._kind = kind
        self._stream = LiveResampler(source=rate or RATES[kind], target=MODEL_RATE, gain=pcm.TO_FLOAT)

    def push(self, raw: bytes) -> tuple[int, Samples]:
        """Returns (position of the first sample, float32 samples at 16 kHz); may be empty while the filter fills."""
        return self._take(self._stream.push(decode(raw, kind=self._kind)))

    def reset(self, kind: str) -> tuple[int, Samples]:
        """Ends the stream, returns what the filter held, and goes on in the given format."""
        rest = self._take(self._stream.finish())
        self._start(kind)
        return rest

    def _take(self, samples: Samples) -> tuple[int, Samples]:
        at, self._at = self._at, self._at + len(samples)
        return at, samples


class AudioEncoder:
    """One reply's 24 kHz int16 audio as bytes of the connection's output format."""

    def __init__(self, kind: str, *, rate: int | None = None) -> None:
        """`rate` in Hz if it is not the format's own."""
        self._kind = kind
        self._rate = rate or RATES[kind]
        self._stream = LiveResampler(source=VOICE_RATE, target=self._rate)

    def push(self, samples: npt.NDArray[np.int16]) -> bytes:
        """Bytes that are ready; the resampler of telephony formats holds a few milliseconds back."""
        if self._rate == VOICE_RATE:
            return encode(samples, kind=self._kind)
        return self._bytes(self._stream.push(samples))

    def finish(self) -> bytes:
        """The rest at the end of the reply."""
        return b"" if self._rate == VOICE_RATE else self._bytes(self._stream.finish())

    def drop(self) -> None:
        """Forgets what is held back: the reply was cut."""
        self._stream = LiveResampler(source=VOICE_RATE, target=self._rate)

    def _bytes(self, samples: Samples) -> bytes:
        return encode(pcm.round_to_int16(samples), kind=self._kind)
